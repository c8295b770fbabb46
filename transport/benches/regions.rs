//! 1 MiB of a file through a loopback socket: as a region of an answer, and the floor, a bare `sendfile` of the same bytes. Both sides have
//! one thread that sends and one that asks and reads.
#![allow(missing_docs)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use common::{FileRegion, Node, frame, regions};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use madang_transport::kafka::ConnectionSettings;

const MIB: usize = 1 << 20;

fn file() -> Arc<File> {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&vec![7; 4 * MIB]).expect("written");
    Arc::new(file)
}

/// Asks with an empty frame of five bytes and reads the answer into a buffer of its own.
struct Asker {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Asker {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a listener");
        stream.set_nodelay(true).expect("an open socket");
        Self { stream, buffer: vec![0; MIB + 4] }
    }

    fn ask(&mut self) {
        self.stream.write_all(&frame(b"r")).expect("an open socket");
        self.stream.read_exact(&mut self.buffer).expect("an answer");
    }
}

/// A node on a thread of its own, whose every answer is the second MiB of the file.
fn serve_region(file: Arc<File>, copied: bool) -> SocketAddr {
    let (say, hear) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let node = Node::start(ConnectionSettings::default());
            let region = FileRegion { file, position: MIB as u64, length: MIB, warm: true, has_fd: !copied };
            *node.seen.regions.borrow_mut() = vec![regions(vec![region])];
            say.send(node.address).expect("somebody waits");
            node.worker.await.expect("until the process ends");
        });
    });
    hear.recv().expect("an address")
}

/// The floor: a blocking thread that reads a request, writes the length and calls `sendfile`.
fn serve_bare(file: Arc<File>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_nodelay(true).expect("an open socket");
        let mut request = [0; 5];
        while stream.read_exact(&mut request).is_ok() {
            stream.write_all(&(MIB as u32).to_be_bytes()).expect("an open socket");
            let (mut at, mut left) = (MIB as u64, MIB);
            while left > 0 {
                left -= rustix::fs::sendfile(&stream, &*file, Some(&mut at), left).expect("sent");
            }
        }
    });
    address
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("1 MiB of a file to a socket");
    group.sample_size(50).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Bytes(MIB as u64));
    let file = file();
    for (name, address) in [
        ("floor: sendfile", serve_bare(Arc::clone(&file))),
        ("region, sendfile", serve_region(Arc::clone(&file), false)),
        ("region without a descriptor: read and copied", serve_region(file, true)),
    ] {
        let mut asker = Asker::connect(address);
        group.bench_function(name, |bench| bench.iter(|| asker.ask()));
    }
    group.finish();
}

criterion_group!(socket, benches);
criterion_main!(socket);
