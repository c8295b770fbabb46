//! Budgets, limits of connections, and disks that stall or fail, over real sockets.

mod common;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use common::{FileRegion, Node, context, frame, regions, run};
use madang_protocol::payload::{Payload, Region};
use madang_transport::kafka::{
    AcceptLimits, ConnectionLimits, ConnectionSettings, Listener, ListenerSettings, Shutdown,
};
use madang_transport::{CloseReason, MemoryBudget};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Cold, and read only once it is released; panics if it is told to.
#[derive(Debug, Default)]
struct StuckRegion {
    released: Mutex<bool>,
    release: Condvar,
    panics: bool,
}

impl StuckRegion {
    fn release(&self) {
        *self.released.lock().expect("no panic") = true;
        self.release.notify_all();
    }
}

impl Region for StuckRegion {
    fn len(&self) -> usize {
        10
    }

    fn read_at(&self, _: usize, buffer: &mut [u8]) -> io::Result<()> {
        assert!(!self.panics, "told to");
        let mut released = self.released.lock().expect("no panic");
        while !*released {
            released = self.release.wait(released).expect("no panic");
        }
        buffer.fill(b'x');
        Ok(())
    }

    fn as_fd(&self) -> Option<(BorrowedFd<'_>, u64)> {
        None
    }

    fn is_warm(&self) -> bool {
        false
    }
}

fn answer_with(node: &Node, region: Arc<dyn Region>) {
    *node.seen.regions.borrow_mut() = vec![Payload::Regions(Arc::new([region]))];
}

#[test]
fn a_disk_that_stalls_holds_up_only_who_reads_from_it() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let region = Arc::new(StuckRegion::default());
        answer_with(&node, Arc::clone(&region) as Arc<dyn Region>);
        let mut reader = node.connect().await;
        reader.send("r").await;
        node.seen.wait_admitted(1).await;
        let mut other = node.connect().await;
        for _ in 0..100 {
            assert_eq!(other.ask("e").await, b"e");
        }
        region.release();
        assert_eq!(reader.receive().await, b"xxxxxxxxxx");
    });
}

#[test]
fn a_read_that_panics_closes_its_connection_and_keeps_the_pool() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        answer_with(&node, Arc::new(StuckRegion { panics: true, ..StuckRegion::default() }));
        for _ in 0..5 {
            let mut reader = node.connect().await;
            reader.send("r").await;
            reader.read_to_close().await;
        }
        assert_eq!(node.stats.closed_for(CloseReason::RegionFailed), 5);
        let healthy = Arc::new(StuckRegion::default());
        healthy.release();
        answer_with(&node, healthy);
        assert_eq!(node.connect().await.ask("r").await, b"xxxxxxxxxx");
    });
}

#[test]
fn a_connection_has_so_many_requests_in_flight_and_no_more() {
    run(|| async {
        let node = Node::start(ConnectionSettings { max_in_flight: 10, ..ConnectionSettings::default() });
        let mut client = node.connect().await;
        for _ in 0..50 {
            client.send("p1").await;
        }
        node.seen.wait_admitted(10).await;
        let mut other = node.connect().await;
        assert_eq!(other.ask("e").await, b"e");
        assert_eq!(node.seen.admitted.borrow().len(), 11);
        node.seen.open(b'1');
        for _ in 0..50 {
            assert_eq!(client.receive().await, b"p1");
        }
    });
}

#[test]
fn a_connection_has_so_many_bytes_in_flight_and_a_larger_frame_goes_alone() {
    run(|| async {
        let settings = ConnectionSettings { max_in_flight_bytes: 100 << 10, ..ConnectionSettings::default() };
        let node = Node::start(settings);
        let mut client = node.connect().await;
        let sized = |name: &str, length: usize| [name.as_bytes(), &vec![0; length]].concat();
        let frames = [
            sized("p1", 60 << 10),
            sized("p2", 30 << 10),
            sized("p3", 30 << 10),
            sized("p4", 300 << 10),
            sized("p5", 1),
        ];
        let (mut read, mut write) = client.0.split();
        let all: Vec<u8> = frames.iter().flat_map(|body| frame(body)).collect();
        let steps = async {
            let mut other = node.connect().await;
            for (gate, admitted) in [(b'1', 2), (b'2', 3), (b'3', 3), (b'4', 4), (b'5', 5)] {
                let produced = || node.seen.admitted.borrow().iter().filter(|name| name.starts_with('p')).count();
                while produced() < admitted {
                    assert_eq!(other.ask("e").await, b"e");
                }
                assert_eq!(other.ask("e").await, b"e");
                assert_eq!(produced(), admitted);
                node.seen.open(gate);
                let length = read.read_u32().await.expect("an answer") as usize;
                let mut body = vec![0; length];
                read.read_exact(&mut body).await.expect("an answer");
                assert_eq!(body[1], gate);
            }
        };
        let (sent, ()) = tokio::join!(write.write_all(&all), steps);
        sent.expect("an open connection");
    });
}

#[test]
fn a_connection_above_the_limit_is_closed_at_once() {
    run(|| async {
        let limits = AcceptLimits { total: 1, loopback_reserve: 1, ..AcceptLimits::default() };
        let node = Node::start_limited(ConnectionSettings::default(), MemoryBudget::new(0), limits);
        let mut first = node.connect().await;
        assert_eq!(first.ask("e").await, b"e");
        let mut second = node.connect().await;
        assert_eq!(second.ask("e").await, b"e");
        assert_eq!(node.connect().await.read_to_close().await, 0);
        assert_eq!(node.stats.refused(), 1);
        drop(second);
        while node.stats.open_connections() > 1 {
            assert_eq!(first.ask("e").await, b"e");
        }
        assert_eq!(node.connect().await.ask("e").await, b"e");
    });
}

#[test]
fn a_client_that_goes_inside_a_frame_or_an_answer_leaves_nothing() {
    run(|| async {
        let node = Node::start(ConnectionSettings { gone_grace: Duration::ZERO, ..ConnectionSettings::default() });
        let mut in_frame = node.connect().await;
        in_frame.0.write_all(&frame(b"e-cut")[..6]).await.expect("an open connection");
        drop(in_frame);
        let length = 64 << 20;
        let file = tempfile::tempfile().expect("a temporary file");
        file.set_len(length as u64).expect("a temporary file");
        let region = FileRegion { file: Arc::new(file), position: 0, length, warm: true, has_fd: true };
        *node.seen.regions.borrow_mut() = vec![regions(vec![region])];
        let mut in_answer = node.connect().await;
        in_answer.send("r").await;
        in_answer.0.read_exact(&mut [0; 1000]).await.expect("an answer");
        drop(in_answer);
        let mut good = node.connect().await;
        while node.seen.closed.get() < 2 {
            assert_eq!(good.ask("e").await, b"e");
        }
        assert_eq!(node.stats.closed_for(CloseReason::ClientClosedInFrame), 1);
    });
}

#[test]
fn connections_go_to_the_thread_that_has_the_fewest() {
    run(|| async {
        let shutdown = Shutdown::new();
        let context = context(ConnectionSettings::default(), MemoryBudget::new(0), &shutdown);
        let stats = Arc::clone(&context.stats);
        let settings = ListenerSettings { name: "TEST".into(), address: ([127, 0, 0, 1], 0).into(), workers: 2 };
        let limits = ConnectionLimits::new(AcceptLimits::default());
        let (listener, mut workers) = Listener::bind(&settings, limits.clone(), context).expect("a free port");
        let address = listener.local_addr();
        let listening = tokio::task::spawn_local(async move { listener.run().await });
        let mut clients = Vec::new();
        let mut held = Vec::new();
        for number in [0, 1, 0, 1] {
            clients.push(tokio::net::TcpStream::connect(address).await.expect("a listener"));
            let accepted = workers[number].next().await.expect("a connection");
            assert_eq!(&*accepted.peer().listener, "TEST");
            held.push(accepted);
        }
        held.remove(1);
        clients.push(tokio::net::TcpStream::connect(address).await.expect("a listener"));
        held.extend(workers[1].next().await);
        assert_eq!((limits.open(), stats.open_connections(), stats.accepted()), (4, 4, 5));
        drop(held);
        assert_eq!((limits.open(), stats.open_connections()), (0, 0));
        shutdown.begin(Duration::ZERO);
        listening.await.expect("no panic").expect("a registered socket");
        assert!(workers[0].next().await.is_none());
    });
}

#[test]
fn a_frame_above_the_node_s_budget_is_served_alone() {
    run(|| async {
        let node = Node::start_with(ConnectionSettings::default(), MemoryBudget::new(2 << 20));
        let body = vec![b'e'; (5 << 20) + 1];
        let mut clients = [node.connect().await, node.connect().await];
        for client in &mut clients {
            assert!(client.ask(&body).await == body);
            assert!(client.ask(&body[..100_001]).await == body[..100_001]);
            assert!(client.ask(&body).await == body);
        }
    });
}
