//! Writes down what clients do, when they do it.
//! Invariant: the order of the lines is the order of their times.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use madang_load_tests::history::{Event, Key, Kind, Op, write};
use serde_json::{Map, Value};

/// The history of a run, being written.
pub(crate) struct Recorder {
    began: Instant,
    run: u64,
    next_process: AtomicU32,
    next_value: AtomicU64,
    acknowledged: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    file: BufWriter<File>,
    index: u64,
    failed: Option<io::Error>,
    finished: bool,
    /// When the newest record of a key that is acknowledged was sent.
    newest_ns: BTreeMap<Key, u64>,
}

impl Recorder {
    /// # Errors
    /// The file cannot be made.
    pub(crate) fn new(path: &Path, run: u64) -> io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let inner = Inner { file, index: 0, failed: None, finished: false, newest_ns: BTreeMap::new() };
        Ok(Self {
            began: Instant::now(),
            run,
            next_process: AtomicU32::new(1),
            next_value: AtomicU64::new(1),
            acknowledged: AtomicU64::new(0),
            inner: Mutex::new(inner),
        })
    }

    /// Number of the run.
    pub(crate) const fn run(&self) -> u64 {
        self.run
    }

    /// The number of another client's life.
    pub(crate) fn process(&self) -> u32 {
        self.next_process.fetch_add(1, Ordering::Relaxed)
    }

    /// A number that no other record has.
    pub(crate) fn value(&self) -> u64 {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    /// Now, on the history's clock.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one event; answers its time. After the end nothing is written, whoever was left behind.
    pub(crate) fn record(&self, process: u32, kind: Kind, op: Op, error: Option<String>) -> u64 {
        let mut inner = self.inner();
        // Under the lock, so that times rise with the lines.
        let at_ns = self.now_ns();
        if inner.finished {
            return at_ns;
        }
        let event = Event { index: inner.index, at_ns, process, kind, op, error };
        inner.index += 1;
        let more: Map<String, Value> = [("run".to_owned(), self.run.into())].into_iter().collect();
        if let Err(error) = writeln!(inner.file, "{}", write(&event, &more)) {
            inner.failed.get_or_insert(error);
        }
        at_ns
    }

    /// Notes that a record of the key that was sent then is acknowledged.
    pub(crate) fn acknowledged(&self, key: &str, sent_ns: u64) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut inner = self.inner();
        let newest = inner.newest_ns.entry(key.to_owned()).or_default();
        *newest = (*newest).max(sent_ns);
    }

    /// Acknowledged records so far.
    pub(crate) fn count(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether of every key a record is acknowledged that was sent after this time.
    pub(crate) fn all_written_since(&self, keys: &[Key], since_ns: u64) -> bool {
        let inner = self.inner();
        keys.iter().all(|key| inner.newest_ns.get(key).is_some_and(|newest| *newest > since_ns))
    }

    /// # Errors
    /// A line could not be written: then there is no history.
    pub(crate) fn finish(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.finished = true;
        inner.failed.take().map_or(Ok(()), Err)?;
        inner.file.flush()
    }
}
