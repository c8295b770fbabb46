//! A server that echoes frames and answers ranges of a file. `echo_regions` serves on 127.0.0.1:9092;
//! `echo_regions measure` measures requests a second, the file path against a bare `sendfile` loop, and idle connections' memory.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use madang_protocol::payload::{Payload, Region};
use madang_transport::kafka::{
    AcceptLimits, ColdReads, ConnectionContext, ConnectionLimits, ConnectionSettings, Listener, ListenerSettings,
    Shutdown,
};
use madang_transport::{Admission, MemoryBudget, Outcome, PeerInfo, Response, Service, Stats};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Length of the file.
const FILE: usize = 64 << 20;

/// A warm range of the file.
#[derive(Debug)]
struct Range {
    file: Arc<File>,
    length: usize,
}

impl Region for Range {
    fn len(&self) -> usize {
        self.length
    }

    fn read_at(&self, offset: usize, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset as u64)
    }

    fn as_fd(&self) -> Option<(BorrowedFd<'_>, u64)> {
        Some((self.file.as_fd(), 0))
    }

    fn is_warm(&self) -> bool {
        true
    }
}

/// Answers `r` and four bytes of length with that much of the file, anything else with itself.
#[derive(Clone)]
struct Echo(Arc<File>);

impl Service for Echo {
    type Connection = ();

    fn accepted(&self, _: &PeerInfo) {}

    fn overlaps(&self, _: &Bytes) -> bool {
        false
    }

    async fn admit(&self, (): &mut (), frame: Bytes) -> Admission {
        let payload = match *frame {
            [b'r', a, b, c, d] => {
                let length = (u32::from_be_bytes([a, b, c, d]) as usize).min(FILE);
                let range: Arc<dyn Region> = Arc::new(Range { file: Arc::clone(&self.0), length });
                Payload::Regions(Arc::new([range]))
            }
            _ => Payload::Bytes(frame),
        };
        let prefix = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
        let prefix = Payload::Bytes(Bytes::copy_from_slice(&prefix));
        Outcome::Respond(Response::new(vec![prefix, payload])).into()
    }
}

fn main() -> Result<()> {
    let file = Arc::new(tempfile::tempfile()?);
    file.write_all_at(&vec![7; FILE], 0)?;
    if std::env::args().nth(1).as_deref() != Some("measure") {
        return serve(([127, 0, 0, 1], 9092).into(), &file, Arc::default(), |address| {
            println!("listening on {address}")
        });
    }
    let (send, receive) = std::sync::mpsc::channel();
    let served = Arc::clone(&file);
    thread::spawn(move || {
        serve(([127, 0, 0, 1], 0).into(), &served, Arc::default(), |address| send.send(address).unwrap_or_default())
    });
    let address = receive.recv()?;
    let bare = bare_sendfile(&file)?;
    tiny(address)?;
    regions(address, bare)?;
    idle(address)
}

/// One acceptor and one network thread, both this one.
fn serve(bind: SocketAddr, file: &Arc<File>, stats: Arc<Stats>, listening: impl FnOnce(SocketAddr)) -> Result<()> {
    let shutdown = Shutdown::new();
    let context = ConnectionContext {
        settings: Arc::new(ConnectionSettings::default()),
        budget: MemoryBudget::new(256 << 20),
        stats,
        cold_reads: ColdReads::start(2, 64)?,
        shutdown: shutdown.signal(),
    };
    let settings = ListenerSettings { name: "PLAINTEXT".into(), address: bind, workers: 1 };
    let (listener, workers) = Listener::bind(&settings, ConnectionLimits::new(AcceptLimits::default()), context)?;
    listening(listener.local_addr());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    for worker in workers {
        local.spawn_local(worker.run(Echo(Arc::clone(file))));
    }
    runtime.block_on(local.run_until(listener.run()))?;
    Ok(())
}

fn tiny(address: SocketAddr) -> Result<()> {
    let mut stream = connect(address)?;
    let request = [&20_u32.to_be_bytes()[..], &[b'e'; 20]].concat();
    let mut answer = [0; 24];
    let (count, start) = (50_000, Instant::now());
    for _ in 0..count {
        stream.write_all(&request)?;
        stream.read_exact(&mut answer)?;
    }
    println!("tiny requests, one at a time: {:.0}/s", f64::from(count) / start.elapsed().as_secs_f64());
    let (rounds, depth, start) = (2_000, 100, Instant::now());
    let (requests, mut answers) = (request.repeat(depth), vec![0; 24 * depth]);
    for _ in 0..rounds {
        stream.write_all(&requests)?;
        stream.read_exact(&mut answers)?;
    }
    let total = f64::from(rounds) * depth as f64;
    println!("tiny requests, 100 pipelined: {:.0}/s", total / start.elapsed().as_secs_f64());
    Ok(())
}

/// Alternates between the two in short turns, so that both see the same machine, and compares the processor time of both ends.
fn regions(address: SocketAddr, bare: SocketAddr) -> Result<()> {
    for (length, count) in [(32 << 10, 400), (64 << 10, 300), (256 << 10, 100), (1 << 20, 40)] {
        let (mut ours, mut theirs) = (connect(address)?, connect(bare)?);
        let mut turns = Vec::new();
        for _ in 0..41 {
            let (ours, theirs) = (fetch(&mut ours, length, count)?, fetch(&mut theirs, length, count)?);
            turns.push([theirs.0 / ours.0, theirs.1 / ours.1, f64::from(length * count) / ours.0 / f64::from(1 << 30)]);
        }
        let [speed, processor, ours] = [0, 1, 2].map(|column| median(turns.iter().map(|turn| turn[column])));
        println!(
            "{length:>7} bytes: {ours:.2} GiB/s; of a bare loop's speed {speed:.2}, of its bytes a processor second {processor:.2}"
        );
    }
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Seconds by the clock and on the processor.
fn fetch(stream: &mut TcpStream, length: u32, count: u32) -> Result<(f64, f64)> {
    let mut request = [0, 0, 0, 5, b'r', 0, 0, 0, 0];
    request[5..].copy_from_slice(&length.to_be_bytes());
    let mut answer = vec![0; 4 + length as usize];
    let (start, processor) = (Instant::now(), on_processor()?);
    for _ in 0..count {
        stream.write_all(&request)?;
        stream.read_exact(&mut answer)?;
    }
    Ok((start.elapsed().as_secs_f64(), on_processor()? - processor))
}

/// Seconds that the process's threads have run.
fn on_processor() -> Result<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let schedstat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += schedstat.split(' ').next().unwrap_or_default().parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// The least that can be done: read the request, write the prefix, `sendfile` in the same pieces, all blocking.
fn bare_sendfile(file: &Arc<File>) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let file = Arc::clone(file);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let file = Arc::clone(&file);
            thread::spawn(move || stream.and_then(|stream| bare_loop(stream, &file)));
        }
    });
    Ok(address)
}

fn bare_loop(mut stream: TcpStream, file: &File) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; 9];
    loop {
        stream.read_exact(&mut request)?;
        let length = u32::from_be_bytes([request[5], request[6], request[7], request[8]]);
        rustix::net::send(&stream, &length.to_be_bytes(), rustix::net::SendFlags::MORE)?;
        let mut offset = 0;
        while offset < u64::from(length) {
            let left = usize::try_from(u64::from(length) - offset).unwrap_or(usize::MAX);
            rustix::fs::sendfile(&stream, file, Some(&mut offset), left.min(256 << 10))?;
        }
    }
}

fn idle(address: SocketAddr) -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let before = resident()?;
    let mut held = Vec::new();
    let mut answer = [0; 5];
    for _ in 0..9_900 {
        let mut stream = connect(address)?;
        stream.write_all(&[0, 0, 0, 1, b'e'])?;
        stream.read_exact(&mut answer)?;
        held.push(stream);
    }
    thread::sleep(Duration::from_millis(100));
    let grown = resident()?.saturating_sub(before);
    println!("{} idle connections: {} bytes each resident", held.len(), grown / held.len());
    Ok(())
}

fn resident() -> Result<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    Ok(statm.split(' ').nth(1).unwrap_or_default().parse::<usize>()? * 4096)
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
