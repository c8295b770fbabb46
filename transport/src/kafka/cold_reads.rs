//! A few threads that page in what is no longer in the page cache, so that a network arbiter never waits for a disk.
//! Invariant: at most `queue` reads are waiting; a reader beyond them waits asynchronously.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use madang_protocol::payload::Region;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Bytes a thread reads at a time when it only pages in.
const SCRATCH: usize = 256 << 10;

/// A part of one of several regions.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) regions: Arc<[Arc<dyn Region>]>,
    pub(crate) index: usize,
    pub(crate) offset: usize,
    pub(crate) length: usize,
}

impl Part {
    /// The bytes, read on the calling thread.
    pub(crate) fn read(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.length];
        self.region()?.read_at(self.offset, &mut bytes)?;
        Ok(Bytes::from(bytes))
    }

    fn page_in(&self, scratch: &mut [u8]) -> io::Result<()> {
        let region = self.region()?;
        let mut done = 0;
        while done < self.length {
            let piece = (self.length - done).min(scratch.len());
            region.read_at(self.offset + done, &mut scratch[..piece])?;
            done += piece;
        }
        Ok(())
    }

    fn region(&self) -> io::Result<&dyn Region> {
        self.regions.get(self.index).map(|region| &**region).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

struct Job {
    part: Part,
    keep: bool,
    done: oneshot::Sender<io::Result<Bytes>>,
    _queued: OwnedSemaphorePermit,
}

/// The pool. Clones share it; its threads end with the last clone.
#[derive(Clone, Debug)]
pub struct ColdReads {
    jobs: Sender<Job>,
    room: Arc<Semaphore>,
}

impl ColdReads {
    /// A pool of `threads` threads (at least 1) and a queue of `queue` reads (at least 1).
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(threads: usize, queue: usize) -> io::Result<Self> {
        let (jobs, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads.max(1) {
            let receiver = Arc::clone(&receiver);
            thread::Builder::new().name(format!("cold-reads-{number}")).spawn(move || work(&receiver))?;
        }
        Ok(Self { jobs, room: Arc::new(Semaphore::new(queue.max(1))) })
    }

    /// Brings the part into the page cache.
    pub(crate) async fn page_in(&self, part: Part) -> io::Result<()> {
        self.run(part, false).await.map(drop)
    }

    /// Reads the part.
    pub(crate) async fn read(&self, part: Part) -> io::Result<Bytes> {
        self.run(part, true).await
    }

    async fn run(&self, part: Part, keep: bool) -> io::Result<Bytes> {
        let queued = Arc::clone(&self.room).acquire_owned().await.map_err(io::Error::other)?;
        let (done, answer) = oneshot::channel();
        self.jobs.send(Job { part, keep, done, _queued: queued }).map_err(|_| io::Error::other("no reader is left"))?;
        // The sender is dropped without an answer only if the read panicked.
        answer.await.map_err(|_| io::Error::other("the read panicked"))?
    }
}

fn work(receiver: &Mutex<Receiver<Job>>) {
    let mut scratch = vec![0; SCRATCH];
    loop {
        let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if job.done.is_closed() {
            continue; // The connection is gone.
        }
        let read = catch_unwind(AssertUnwindSafe(|| {
            if job.keep { job.part.read() } else { job.part.page_in(&mut scratch).map(|()| Bytes::new()) }
        }));
        if let Ok(result) = read {
            drop(job.done.send(result));
        }
    }
}
