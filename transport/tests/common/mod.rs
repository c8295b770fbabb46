//! A service whose frames say what it shall do, and a client that speaks frames.
#![allow(dead_code, unreachable_pub)]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_protocol::payload::{Payload, Region};
use madang_transport::kafka::{
    AcceptLimits, ColdReads, ConnectionContext, ConnectionLimits, ConnectionSettings, Listener, ListenerSettings,
    Shutdown,
};
use madang_transport::{Admission, MemoryBudget, Outcome, PeerInfo, Response, Service, Stats};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// What the test sees of the service.
#[derive(Default)]
pub struct Seen {
    /// Every frame's first and second byte, in the order of admission.
    pub admitted: RefCell<Vec<String>>,
    pub open_gates: RefCell<HashMap<u8, ()>>,
    pub gate: Notify,
    pub parked: Cell<usize>,
    pub unparked: Notify,
    pub closed: Cell<usize>,
    pub regions: RefCell<Vec<Payload>>,
    pub unique: Cell<usize>,
    pub admitted_one: Notify,
}

impl Seen {
    pub fn open(&self, gate: u8) {
        self.open_gates.borrow_mut().insert(gate, ());
        self.gate.notify_waiters();
    }

    async fn pass(&self, gate: u8) {
        loop {
            let notified = self.gate.notified();
            if self.open_gates.borrow().contains_key(&gate) {
                return;
            }
            notified.await;
        }
    }

    pub async fn wait_admitted(&self, count: usize) {
        loop {
            let notified = self.admitted_one.notified();
            if self.admitted.borrow().len() >= count {
                return;
            }
            notified.await;
        }
    }
}

struct Parked(Rc<Seen>);

impl Drop for Parked {
    fn drop(&mut self) {
        self.0.parked.set(self.0.parked.get() - 1);
        self.0.unparked.notify_waiters();
    }
}

/// First byte: `e`cho, `p`roduce (overlaps, waits for the gate in its second byte), par`k` (a barrier that waits for the gate),
/// `s`ilent, `c`lose, `!` panic, `t`hrottle, `r`egions, `u`nique (answers whether the frame is uniquely owned), `l`ast (answers and closes).
#[derive(Clone)]
pub struct Script(pub Rc<Seen>);

impl Service for Script {
    type Connection = ();

    fn accepted(&self, _: &PeerInfo) {}

    fn overlaps(&self, frame: &Bytes) -> bool {
        frame[0] == b'p'
    }

    async fn admit(&self, (): &mut (), frame: Bytes) -> Admission {
        let seen = Rc::clone(&self.0);
        let name = frame[..frame.len().min(2)].to_vec();
        seen.admitted.borrow_mut().push(String::from_utf8_lossy(&name).into_owned());
        seen.admitted_one.notify_waiters();
        let gate = frame.get(1).copied().unwrap_or_default();
        match frame[0] {
            b'p' => Admission::Completing(Box::pin(async move {
                seen.pass(gate).await;
                answer(&frame)
            })),
            b'k' => {
                seen.parked.set(seen.parked.get() + 1);
                let _parked = Parked(Rc::clone(&seen));
                seen.pass(gate).await;
                answer(&frame).into()
            }
            b's' => Outcome::Silent.into(),
            b'c' => Outcome::Close("told to").into(),
            b'!' => panic!("told to"),
            b't' => Outcome::Respond(framed(&frame).throttled(Duration::from_millis(300))).into(),
            b'l' => Outcome::Respond(framed(&frame).closing("last")).into(),
            b'r' => Outcome::Respond(with_regions(&seen.regions.borrow())).into(),
            b'u' => answer(if frame.try_into_mut().is_ok() { b"yes" } else { b"no" }).into(),
            _ => answer(&frame).into(),
        }
    }

    fn closed(&self, (): ()) {
        self.0.closed.set(self.0.closed.get() + 1);
    }
}

fn answer(body: &[u8]) -> Outcome {
    Outcome::Respond(framed(body))
}

fn framed(body: &[u8]) -> Response {
    Response::new(vec![Payload::Bytes(Bytes::from(frame(body)))])
}

fn with_regions(payloads: &[Payload]) -> Response {
    let length: usize = payloads.iter().map(Payload::len).sum();
    let mut chunks = vec![Payload::Bytes(Bytes::copy_from_slice(&(length as u32).to_be_bytes()))];
    chunks.extend(payloads.iter().cloned());
    Response::new(chunks)
}

pub fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

/// A range of a file that claims what it is told to.
#[derive(Debug)]
pub struct FileRegion {
    pub file: Arc<File>,
    pub position: u64,
    pub length: usize,
    pub warm: bool,
    pub has_fd: bool,
}

impl Region for FileRegion {
    fn len(&self) -> usize {
        self.length
    }

    fn read_at(&self, offset: usize, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, self.position + offset as u64)
    }

    fn as_fd(&self) -> Option<(BorrowedFd<'_>, u64)> {
        self.has_fd.then(|| (self.file.as_fd(), self.position))
    }

    fn is_warm(&self) -> bool {
        self.warm
    }
}

pub fn regions(list: Vec<FileRegion>) -> Payload {
    Payload::Regions(list.into_iter().map(|region| Arc::new(region) as Arc<dyn Region>).collect())
}

pub fn context(settings: ConnectionSettings, budget: MemoryBudget, shutdown: &Shutdown) -> ConnectionContext {
    ConnectionContext {
        settings: Arc::new(settings),
        budget,
        stats: Arc::default(),
        cold_reads: ColdReads::start(2, 16).expect("threads"),
        shutdown: shutdown.signal(),
    }
}

/// A node of one listener and one thread.
pub struct Node {
    pub seen: Rc<Seen>,
    pub stats: Arc<Stats>,
    pub shutdown: Shutdown,
    pub address: SocketAddr,
    pub worker: tokio::task::JoinHandle<()>,
}

impl Node {
    pub fn start(settings: ConnectionSettings) -> Self {
        Self::start_with(settings, MemoryBudget::new(256 << 20))
    }

    pub fn start_with(settings: ConnectionSettings, budget: MemoryBudget) -> Self {
        Self::start_limited(settings, budget, AcceptLimits::default())
    }

    pub fn start_limited(settings: ConnectionSettings, budget: MemoryBudget, limits: AcceptLimits) -> Self {
        let shutdown = Shutdown::new();
        let context = context(settings, budget, &shutdown);
        let stats = Arc::clone(&context.stats);
        let bind = ListenerSettings { name: "TEST".into(), address: ([127, 0, 0, 1], 0).into(), workers: 1 };
        let (listener, workers) = Listener::bind(&bind, ConnectionLimits::new(limits), context).expect("a free port");
        let address = listener.local_addr();
        tokio::task::spawn_local(async move { listener.run().await });
        let seen = Rc::new(Seen::default());
        let service = Script(Rc::clone(&seen));
        let worker = workers.into_iter().next().expect("one worker");
        let worker = tokio::task::spawn_local(worker.run(service));
        Self { seen, stats, shutdown, address, worker }
    }

    pub async fn connect(&self) -> Client {
        Client(TcpStream::connect(self.address).await.expect("a listener"))
    }
}

pub struct Client(pub TcpStream);

impl Client {
    pub async fn send(&mut self, body: impl AsRef<[u8]>) {
        self.0.write_all(&frame(body.as_ref())).await.expect("an open connection");
    }

    pub async fn receive(&mut self) -> Vec<u8> {
        self.try_receive().await.expect("an answer")
    }

    pub async fn try_receive(&mut self) -> io::Result<Vec<u8>> {
        let length = self.0.read_u32().await?;
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).await?;
        Ok(body)
    }

    pub async fn ask(&mut self, body: impl AsRef<[u8]>) -> Vec<u8> {
        self.send(body).await;
        self.receive().await
    }

    /// Reads to the end and answers how much came; a reset is an end too.
    pub async fn read_to_close(&mut self) -> usize {
        let mut all = Vec::new();
        match self.0.read_to_end(&mut all).await {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        all.len()
    }
}

/// Runs a test on one thread, as an arbiter would, for at most a minute.
pub fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    let limited =
        local.run_until(async { tokio::time::timeout(Duration::from_secs(60), async { test().await }).await });
    runtime.block_on(limited).expect("the test does not hang");
}
