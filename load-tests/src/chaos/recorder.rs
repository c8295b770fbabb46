//! Writes down what clients do, when they do it.
//! Invariant: the order of the lines is the order of their times.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    /// Of the records that were sent since then: how long one took to be acknowledged, at most.
    slowest: (u64, Duration),
}

impl Recorder {
    /// # Errors
    /// The file cannot be made.
    pub(crate) fn new(path: &Path, run: u64) -> io::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let inner = Inner {
            file,
            index: 0,
            failed: None,
            finished: false,
            newest_ns: BTreeMap::new(),
            slowest: Default::default(),
        };
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

    /// A moment on the history's clock.
    pub(crate) fn ns(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one event; answers its time. After the end nothing is written, whoever was left behind.
    pub(crate) fn record(&self, process: u32, kind: Kind, op: Op, error: Option<String>) -> u64 {
        let mut inner = self.inner();
        // Under the lock, so that times rise with the lines.
        let at_ns = self.ns(Instant::now());
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
        let took = Duration::from_nanos(self.ns(Instant::now()).saturating_sub(sent_ns));
        if sent_ns >= inner.slowest.0 {
            inner.slowest.1 = inner.slowest.1.max(took);
        }
    }

    /// Forgets how long records took that were sent before.
    pub(crate) fn time_since(&self, since_ns: u64) {
        self.inner().slowest = (since_ns, Duration::ZERO);
    }

    /// How long it took at most until one that was sent since then was acknowledged.
    pub(crate) fn slowest(&self) -> Duration {
        self.inner().slowest.1
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_after_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let recorder = Recorder::new(&path, 1).unwrap();
        recorder.record(1, Kind::Info, Op::Crash, None);
        recorder.finish().unwrap();
        recorder.record(2, Kind::Info, Op::Crash, None);
        drop(recorder);
        assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), 1);
    }

    #[test]
    fn the_slowest_is_one_that_was_sent_since() {
        let folder = tempfile::tempdir().unwrap();
        let recorder = Recorder::new(&folder.path().join("history"), 1).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        recorder.time_since(recorder.ns(Instant::now()));
        recorder.acknowledged("a/0", 0);
        assert_eq!(recorder.slowest(), Duration::ZERO);
        let sent_ns = recorder.ns(Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        recorder.acknowledged("a/0", sent_ns);
        recorder.acknowledged("a/0", recorder.ns(Instant::now()));
        assert!((20..).contains(&recorder.slowest().as_millis()), "{:?}", recorder.slowest());
        assert!(recorder.all_written_since(&["a/0".to_owned()], sent_ns));
    }
}
