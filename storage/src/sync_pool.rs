//! A few threads that perform syncs. The order is the flusher's; these only do what they are given.
//! Invariant: each request that was taken is performed and its completion called, unless that completion panics, which costs that request only.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::sync::{SyncOutcome, SyncRequest};

type Completion = Box<dyn FnOnce(SyncOutcome) + Send>;

/// Threads that sync. Dropping it finishes what was submitted.
#[derive(Debug)]
pub struct SyncPool {
    requests: Option<Sender<(SyncRequest, Completion)>>,
    threads: Vec<JoinHandle<()>>,
}

impl SyncPool {
    /// Starts `threads` threads, at least one. The queue is as long as the callers let it be: a flusher's limit bounds it.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(name: &str, threads: usize) -> io::Result<Self> {
        let (requests, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let start = |number| {
            let queue = Arc::clone(&queue);
            Builder::new().name(format!("{name}-{number}")).spawn(move || run(&queue))
        };
        let threads = (0..threads.max(1)).map(start).collect::<io::Result<_>>()?;
        Ok(Self { requests: Some(requests), threads })
    }

    /// Has the request performed and `completion` called with the outcome, on one of the threads.
    pub fn submit(&self, request: SyncRequest, completion: impl FnOnce(SyncOutcome) + Send + 'static) {
        if let Some(requests) = &self.requests {
            // The threads outlive the sender, so somebody receives it.
            let _ = requests.send((request, Box::new(completion)));
        }
    }
}

fn run(queue: &Mutex<Receiver<(SyncRequest, Completion)>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((request, completion)) = next else { return };
        let outcome = request.perform();
        if catch_unwind(AssertUnwindSafe(|| completion(outcome))).is_err() {
            tracing::error!("a sync's completion panicked");
        }
    }
}

impl Drop for SyncPool {
    fn drop(&mut self) {
        self.requests = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
