//! Order, barriers and closing, over real sockets.

mod common;

use std::time::{Duration, Instant};

use common::{Node, frame, run};
use madang_transport::CloseReason;
use madang_transport::kafka::ConnectionSettings;
use tokio::io::AsyncWriteExt;

#[test]
fn answers_leave_in_order_though_completed_out_of_order() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut client = node.connect().await;
        for body in ["p1", "p2", "p3"] {
            client.send(body).await;
        }
        node.seen.wait_admitted(3).await;
        for gate in [b'3', b'2', b'1'] {
            node.seen.open(gate);
            tokio::task::yield_now().await;
        }
        for body in ["p1", "p2", "p3"] {
            assert_eq!(client.receive().await, body.as_bytes());
        }
        assert_eq!(*node.seen.admitted.borrow(), ["p1", "p2", "p3"]);
    });
}

#[test]
fn a_frame_that_does_not_overlap_is_a_barrier() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut client = node.connect().await;
        for body in ["p1", "p2", "k3", "p4", "e5"] {
            client.send(body).await;
        }
        node.seen.wait_admitted(2).await;
        node.seen.open(b'2');
        assert_eq!(node.connect().await.ask("e").await, b"e");
        assert_eq!(node.seen.admitted.borrow()[..], ["p1", "p2", "e"], "the park waits for the first produce");
        node.seen.open(b'1');
        node.seen.wait_admitted(4).await;
        assert_eq!(node.connect().await.ask("e").await, b"e");
        assert_eq!(node.seen.admitted.borrow()[3..], ["k3", "e"], "what follows waits for the park");
        node.seen.open(b'3');
        node.seen.wait_admitted(6).await;
        assert_eq!(node.seen.admitted.borrow()[5..], ["p4"], "the echo waits for the produce");
        node.seen.open(b'4');
        for body in ["p1", "p2", "k3", "p4", "e5"] {
            assert_eq!(client.receive().await, body.as_bytes());
        }
    });
}

#[test]
fn silence_answers_nothing_and_keeps_the_connection() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut client = node.connect().await;
        client.send("s").await;
        client.send("s").await;
        assert_eq!(client.ask("e1").await, b"e1");
        assert_eq!(node.stats.requests(), 3);
        assert_eq!(node.stats.bytes_out(), 6);
    });
}

#[test]
fn closing_waits_for_earlier_answers() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut client = node.connect().await;
        client.send("p1").await;
        client.send("c").await;
        node.seen.wait_admitted(1).await;
        node.seen.open(b'1');
        assert_eq!(client.receive().await, b"p1");
        assert_eq!(client.read_to_close().await, 0);
        let mut last = node.connect().await;
        last.0
            .write_all(&[frame(b"l"), frame(b"e-never"), frame(b"p-never")].concat())
            .await
            .expect("an open connection");
        assert_eq!(last.receive().await, b"l");
        assert_eq!(last.read_to_close().await, 0);
        assert_eq!(*node.seen.admitted.borrow(), ["p1", "c", "l"]);
        assert_eq!(node.stats.closed_for(CloseReason::Service("told to")), 2);
    });
}

#[test]
fn bad_lengths_close_only_their_connection() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut good = node.connect().await;
        let client_hello = [0x16, 0x03, 0x01, 0x00, 0xa5, 0x01];
        for bytes in [
            &0_i32.to_be_bytes()[..],
            &(-1_i32).to_be_bytes(),
            &i32::MAX.to_be_bytes(),
            &((100 << 20) + 1_i32).to_be_bytes(),
            &client_hello,
            b"GET / HTTP/1.1\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
        ] {
            let mut bad = node.connect().await;
            bad.0.write_all(bytes).await.expect("an open connection");
            assert_eq!(bad.read_to_close().await, 0);
        }
        assert_eq!(node.stats.closed_for(CloseReason::FrameLength), 7);
        assert_eq!(good.ask("e").await, b"e");
        assert_eq!(node.stats.requests(), 1);
    });
}

#[test]
fn a_frame_may_come_a_byte_at_a_time() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut client = node.connect().await;
        client.0.set_nodelay(true).expect("a socket");
        for byte in [frame(b"e-slowly"), frame(b"e2")].concat() {
            client.0.write_all(&[byte]).await.expect("an open connection");
            tokio::task::yield_now().await;
        }
        assert_eq!(client.receive().await, b"e-slowly");
        assert_eq!(client.receive().await, b"e2");
    });
}

#[test]
fn frames_of_all_sizes_arrive_whole_and_uniquely_owned() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut client = node.connect().await;
        let sizes =
            [1, 4 << 10, 5000, 16 << 10, 17 << 10, 128 << 10, 128 << 10, 1 << 20, 1 << 20, 3 << 20, 40 << 20, 10];
        for size in sizes {
            let body: Vec<u8> = (0..size).map(|at| if at == 0 { b'e' } else { (at % 251) as u8 }).collect();
            assert!(client.ask(&body).await == body, "{size} bytes come back changed");
            assert_eq!(client.ask(&[&b"u"[..], &body].concat()).await, b"yes", "{size}");
        }
    });
}

#[test]
fn ten_thousand_pipelined_requests_are_answered_in_order() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut client = node.connect().await;
        let all: Vec<u8> = (0..10_000).flat_map(|number| frame(format!("e{number}").as_bytes())).collect();
        let (mut read, mut write) = client.0.split();
        let check = async {
            for number in 0..10_000 {
                let length = tokio::io::AsyncReadExt::read_u32(&mut read).await.expect("an answer");
                let mut body = vec![0; length as usize];
                tokio::io::AsyncReadExt::read_exact(&mut read, &mut body).await.expect("an answer");
                assert_eq!(body, format!("e{number}").into_bytes());
            }
        };
        let (sent, ()) = tokio::join!(write.write_all(&all), check);
        sent.expect("an open connection");
    });
}

#[test]
fn a_panic_closes_its_connection_and_no_other() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut good = node.connect().await;
        assert_eq!(good.ask("e1").await, b"e1");
        let mut bad = node.connect().await;
        bad.send("!").await;
        assert_eq!(bad.read_to_close().await, 0);
        assert_eq!(node.stats.closed_for(CloseReason::Panicked), 1);
        assert_eq!(node.seen.closed.get(), 1);
        assert_eq!(good.ask("e2").await, b"e2");
        assert_eq!(node.stats.open_connections(), 1);
    });
}

#[test]
fn a_client_that_goes_away_drops_its_parked_request() {
    run(|| async {
        let settings = ConnectionSettings { gone_grace: Duration::from_millis(10), ..ConnectionSettings::default() };
        let node = Node::start(settings);
        let mut client = node.connect().await;
        client.send("k1").await;
        client.send("e-unread").await;
        node.seen.wait_admitted(1).await;
        assert_eq!(node.seen.parked.get(), 1);
        let unparked = node.seen.unparked.notified();
        drop(client);
        unparked.await;
        assert_eq!(node.seen.parked.get(), 0);
    });
}

#[test]
fn a_produce_is_completed_though_its_client_has_gone() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut client = node.connect().await;
        for _ in 0..20 {
            client.send("p1").await;
        }
        drop(client);
        node.seen.wait_admitted(20).await;
    });
}

#[test]
fn a_throttled_connection_is_answered_first_and_read_later() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut client = node.connect().await;
        let start = Instant::now();
        client.send("t").await;
        client.send("e").await;
        assert_eq!(client.receive().await, b"t");
        assert_eq!(*node.seen.admitted.borrow(), ["t"], "the answer waited for the throttle");
        assert_eq!(client.receive().await, b"e");
        assert!(start.elapsed() >= Duration::from_millis(300), "the throttle was not obeyed");
    });
}

#[test]
fn an_idle_connection_is_closed_and_a_parked_one_is_not() {
    run(|| async {
        let settings = ConnectionSettings { max_idle: Duration::from_millis(50), ..ConnectionSettings::default() };
        let node = Node::start(settings);
        let mut parked = node.connect().await;
        parked.send("k1").await;
        let mut idle = node.connect().await;
        assert_eq!(idle.ask("e").await, b"e");
        assert_eq!(idle.read_to_close().await, 0);
        assert_eq!(node.stats.closed_for(CloseReason::Idle), 1);
        node.seen.open(b'1');
        assert_eq!(parked.receive().await, b"k1");
        assert_eq!(parked.read_to_close().await, 0);
    });
}

#[test]
fn a_frame_that_stalls_is_closed_at_its_deadline() {
    run(|| async {
        let settings =
            ConnectionSettings { request_deadline: Duration::from_millis(50), ..ConnectionSettings::default() };
        let node = Node::start(settings);
        let mut stalled = node.connect().await;
        stalled.0.write_all(&frame(b"e-stalled")[..7]).await.expect("an open connection");
        assert_eq!(stalled.read_to_close().await, 0);
        let mut prefix = node.connect().await;
        prefix.0.write_all(&[0, 0]).await.expect("an open connection");
        assert_eq!(prefix.read_to_close().await, 0);
        assert_eq!(node.stats.closed_for(CloseReason::RequestDeadline), 2);
    });
}

#[test]
fn shutdown_lets_work_in_flight_finish_until_its_deadline() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut idle = node.connect().await;
        assert_eq!(idle.ask("e").await, b"e");
        let mut finishing = node.connect().await;
        finishing.send("k1").await;
        let mut producing = node.connect().await;
        producing.send("p1").await;
        let mut stuck = node.connect().await;
        stuck.send("k2").await;
        node.seen.wait_admitted(4).await;
        node.shutdown.begin(Duration::from_secs(30));
        assert_eq!(idle.read_to_close().await, 0);
        node.seen.open(b'1');
        assert_eq!(finishing.receive().await, b"k1");
        assert_eq!(producing.receive().await, b"p1");
        assert_eq!(finishing.read_to_close().await + producing.read_to_close().await, 0);
        assert_eq!(node.stats.open_connections(), 1, "the one that is stuck has until the deadline");
        node.shutdown.begin(Duration::ZERO);
        assert_eq!(stuck.read_to_close().await, 0);
        node.worker.await.expect("the worker ends with its last connection");
        assert_eq!(node.stats.closed_for(CloseReason::Shutdown), 4);
        assert_eq!(node.stats.open_connections(), 0);
        assert!(tokio::net::TcpStream::connect(node.address).await.is_err(), "nothing listens any more");
    });
}
