//! A few threads for whatever may have to wait for a disk, so that a network arbiter never does: sending what may no longer be in
//! the page cache, looking up where in a file a cold read begins.
//! Invariant: at most `queue` reads are waiting; a reader beyond them waits asynchronously.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use madang_protocol::payload::Region;
use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

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

    /// Moves as much as the socket, which is not blocking, takes at once: 0 if the file is shorter than was promised.
    fn send(&self, socket: &OwnedFd) -> io::Result<usize> {
        let (file, position) = self.region()?.as_fd().ok_or(io::ErrorKind::Unsupported)?;
        let mut at = position + self.offset as u64;
        loop {
            match rustix::fs::sendfile(socket, file, Some(&mut at), self.length) {
                Err(Errno::INTR) => {}
                outcome => return Ok(outcome?),
            }
        }
    }

    fn region(&self) -> io::Result<&dyn Region> {
        self.regions.get(self.index).map(|region| &**region).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

/// What a thread does next; it finds out by itself whether anybody still waits for it.
type Work = Box<dyn FnOnce() + Send>;

struct Job {
    work: Work,
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

    /// Sends as much of the part as `socket` takes at once. A caller that is dropped meanwhile does not end what has begun.
    ///
    /// # Errors
    /// `WouldBlock` if the socket takes nothing; whatever the file or the socket reports.
    pub(crate) async fn send(&self, part: Part, socket: &Arc<OwnedFd>) -> io::Result<usize> {
        let socket = Arc::clone(socket);
        self.run(move || part.send(&socket)).await?
    }

    /// Reads the part.
    pub(crate) async fn read(&self, part: Part) -> io::Result<Bytes> {
        self.run(move || part.read()).await?
    }

    /// Runs work that may wait for a disk. Dropped, work that has not begun never begins.
    ///
    /// # Errors
    /// The work panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let queued = Arc::clone(&self.room).acquire_owned().await.map_err(io::Error::other)?;
        let (done, answer) = oneshot::channel();
        let work = Box::new(move || {
            // Closed: the connection is gone.
            if !done.is_closed() {
                drop(done.send(work()));
            }
        });
        self.jobs.send(Job { work, _queued: queued }).map_err(|_| io::Error::other("no reader is left"))?;
        // The sender is dropped without an answer only if the work panicked.
        answer.await.map_err(|_| io::Error::other("the read panicked"))
    }
}

fn work(receiver: &Mutex<Receiver<Job>>) {
    loop {
        let job = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panic ends one read, whose reader is told so by the answer that never comes.
        drop(catch_unwind(AssertUnwindSafe(job.work)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_one_read_and_no_thread() {
        let reads = ColdReads::start(1, 1).expect("a thread");
        assert!(reads.run(|| panic!("planted")).await.map(|(): ()| ()).is_err());
        assert_eq!(reads.run(|| 7).await.expect("reads on"), 7);
    }

    #[tokio::test]
    async fn work_whose_reader_is_gone_does_not_begin() {
        let reads = ColdReads::start(1, 3).expect("a thread");
        let (begun, seen) = std::sync::mpsc::channel();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let first = reads.run(move || held.recv());
        let second = reads.run(move || begun.send(()));
        let mut first = Box::pin(first);
        let mut second = Box::pin(second);
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(second);
        hold.send(()).expect("the first read waits");
        assert!(first.await.expect("ends").is_ok());
        reads.run(|| ()).await.expect("the pool goes on");
        assert!(seen.try_recv().is_err(), "what nobody waits for was not run");
    }
}
