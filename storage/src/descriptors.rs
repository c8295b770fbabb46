//! The bounded cache of open descriptors, and the thread that syncs what is closed.
//! Invariant: a written file whose bytes matter is synced, through the descriptor that wrote it, before that descriptor is closed, and
//! never on the thread that happens to close it: that may be one that serves clients.

use std::collections::{HashSet, VecDeque};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Builder;

/// Files that may wait for their sync. Above it a file that only makes room stays open, and one that is dropped is synced where it is.
const CLOSING: usize = 1024;

/// Which files hold a descriptor, in the order in which they were opened; a file used since its last turn gets another.
#[derive(Debug)]
pub(crate) struct Descriptors {
    capacity: usize,
    open: Mutex<VecDeque<Weak<FileState>>>,
    closing: OnceLock<Option<SyncSender<Closing>>>,
    failed: Mutex<Failed>,
}

/// Files whose last sync failed when no handle was left to hear of it. The kernel tells such an error once, so a later handle would not.
#[derive(Debug, Default)]
struct Failed {
    paths: HashSet<PathBuf>,
    /// There were too many to remember: every file counts as one.
    all: bool,
}

/// What one file is to its handle and to the cache.
#[derive(Debug)]
pub(crate) struct FileState {
    pub(crate) path: PathBuf,
    pub(crate) descriptor: Mutex<Option<Arc<OwnedFd>>>,
    pub(crate) used: AtomicBool,
    /// Its descriptor is not closed to make room.
    pub(crate) held: AtomicBool,
    pub(crate) written: AtomicBool,
    /// Nothing of it has to reach the device.
    pub(crate) disposable: AtomicBool,
    pub(crate) sync_failed: AtomicBool,
    pub(crate) descriptors: Arc<Descriptors>,
}

#[derive(Debug)]
enum Closing {
    /// It makes room and may be opened again.
    Evicted(Arc<FileState>),
    /// Nobody can ask for its sync any more.
    Dropped(Arc<OwnedFd>, PathBuf, Arc<Descriptors>),
}

/// A panicking thread leaves these maps whole: every change is one assignment.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Descriptors {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), open: Mutex::default(), closing: OnceLock::new(), failed: Mutex::default() }
    }

    fn admit(&self, state: &Arc<FileState>) {
        let mut evicted = Vec::new();
        {
            let mut open = locked(&self.open);
            open.push_back(Arc::downgrade(state));
            // Two turns at most for each file, then the first goes, so the loop ends.
            let mut turns = open.len() * 2;
            while open.len() > self.capacity && turns > 0 {
                turns -= 1;
                let Some(first) = open.pop_front() else { break };
                let Some(file) = first.upgrade() else { continue };
                if turns > 0 && (file.used.swap(false, Ordering::Relaxed) || Arc::ptr_eq(&file, state)) {
                    open.push_back(first);
                } else {
                    evicted.push(file);
                }
            }
        }
        for file in evicted {
            self.evict(file);
        }
    }

    fn evict(&self, file: Arc<FileState>) {
        if file.close_if_synced() {
            return;
        }
        if let Err(Closing::Evicted(file)) = self.close_later(Closing::Evicted(file)) {
            locked(&self.open).push_back(Arc::downgrade(&file));
        }
    }

    /// Whether a sync of that file failed after its last handle was dropped.
    pub(crate) fn has_failed(&self, path: &Path) -> bool {
        let failed = locked(&self.failed);
        failed.all || failed.paths.contains(path)
    }

    fn sync_dropped(&self, descriptor: &OwnedFd, path: PathBuf) {
        let Err(error) = rustix::fs::fdatasync(descriptor) else { return };
        tracing::error!(path = %path.display(), %error, "sync before close failed");
        let mut failed = locked(&self.failed);
        failed.all |= failed.paths.len() >= CLOSING;
        if !failed.all {
            failed.paths.insert(path);
        }
    }

    /// Gives back what the thread has no room for.
    fn close_later(&self, closing: Closing) -> Result<(), Closing> {
        let start = || {
            let (sender, queue) = sync_channel(CLOSING);
            let thread = Builder::new().name("close-files".to_owned()).spawn(move || run(&queue));
            thread.inspect_err(|error| tracing::warn!(%error, "no thread to close files")).ok().map(|_| sender)
        };
        match self.closing.get_or_init(start) {
            Some(sender) => {
                sender.try_send(closing).map_err(|(TrySendError::Full(back) | TrySendError::Disconnected(back))| back)
            }
            None => Err(closing),
        }
    }
}

/// Ends when the disk and all its files are gone.
fn run(queue: &Receiver<Closing>) {
    while let Ok(closing) = queue.recv() {
        match closing {
            Closing::Evicted(file) => file.sync_and_close(),
            Closing::Dropped(descriptor, path, descriptors) => descriptors.sync_dropped(&descriptor, path),
        }
    }
}

/// Whether the file still has a name. What has none is gone with its last descriptor.
fn is_linked(descriptor: &OwnedFd) -> bool {
    rustix::fs::fstat(descriptor).is_ok_and(|status| status.st_nlink > 0)
}

impl FileState {
    pub(crate) fn new(path: PathBuf, descriptors: Arc<Descriptors>) -> Self {
        Self {
            path,
            descriptor: Mutex::new(None),
            used: AtomicBool::new(false),
            held: AtomicBool::new(false),
            written: AtomicBool::new(false),
            disposable: AtomicBool::new(false),
            sync_failed: AtomicBool::new(false),
            descriptors,
        }
    }

    /// The open descriptor, opened by name if there is none.
    pub(crate) fn open(self: &Arc<Self>) -> io::Result<Arc<OwnedFd>> {
        self.used.store(true, Ordering::Relaxed);
        let opened = {
            let mut slot = locked(&self.descriptor);
            if let Some(open) = slot.as_ref() {
                return Ok(Arc::clone(open));
            }
            if self.held.load(Ordering::Acquire) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
            let opened = Arc::new(OwnedFd::from(file));
            *slot = Some(Arc::clone(&opened));
            opened
        };
        self.descriptors.admit(self);
        Ok(opened)
    }

    fn owes_sync(&self, descriptor: &OwnedFd) -> bool {
        self.written.load(Ordering::Acquire) && !self.disposable.load(Ordering::Acquire) && is_linked(descriptor)
    }

    /// Whether it is closed, or is to stay open.
    fn close_if_synced(&self) -> bool {
        let mut slot = locked(&self.descriptor);
        if self.held.load(Ordering::Acquire) {
            return true;
        }
        if slot.as_ref().is_some_and(|descriptor| self.owes_sync(descriptor)) {
            return false;
        }
        *slot = None;
        true
    }

    /// The lock is not held while the device works: others may want the descriptor meanwhile.
    fn sync_and_close(self: &Arc<Self>) {
        let Some(descriptor) = locked(&self.descriptor).clone() else { return };
        if self.owes_sync(&descriptor) {
            // Cleared first: a write that comes during the call stays marked.
            self.written.store(false, Ordering::Release);
            if let Err(error) = rustix::fs::fdatasync(&descriptor) {
                // The kernel tells one descriptor once; whoever asks for a sync later must hear it.
                tracing::error!(path = %self.path.display(), %error, "sync before close failed");
                self.sync_failed.store(true, Ordering::Release);
            }
        }
        drop(descriptor);
        if !self.close_if_synced() {
            locked(&self.descriptors.open).push_back(Arc::downgrade(self));
        }
    }
}

impl Drop for FileState {
    fn drop(&mut self) {
        let descriptor = self.descriptor.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(descriptor) = descriptor.filter(|descriptor| self.owes_sync(descriptor)) else { return };
        let closing = Closing::Dropped(descriptor, std::mem::take(&mut self.path), Arc::clone(&self.descriptors));
        if let Err(Closing::Dropped(descriptor, path, descriptors)) = self.descriptors.close_later(closing) {
            descriptors.sync_dropped(&descriptor, path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::*;
    use crate::disk::{Disk, OpenMode};
    use crate::real_disk::RealDisk;

    /// The state behind a file that is opened and written.
    fn written(path: PathBuf, descriptors: &Arc<Descriptors>) -> Arc<FileState> {
        std::fs::write(&path, b"x").expect("writes");
        let state = Arc::new(FileState::new(path, Arc::clone(descriptors)));
        state.open().expect("opens");
        state.written.store(true, Ordering::Release);
        state
    }

    #[test]
    fn only_what_was_written_and_still_has_a_name_owes_a_sync() {
        let directory = tempfile::tempdir().expect("a directory");
        let descriptors = Arc::new(Descriptors::new(8));
        let owes = |state: &FileState| state.owes_sync(&locked(&state.descriptor).clone().expect("open"));
        let state = written(directory.path().join("a"), &descriptors);
        assert!(owes(&state) && !state.close_if_synced());
        state.disposable.store(true, Ordering::Release);
        assert!(!owes(&state), "it can be rebuilt");
        state.disposable.store(false, Ordering::Release);
        std::fs::remove_file(&state.path).expect("removes");
        assert!(!owes(&state) && state.close_if_synced(), "it has no name");
    }

    #[test]
    fn what_makes_room_is_synced_first_and_a_write_meanwhile_keeps_it_open() {
        let directory = tempfile::tempdir().expect("a directory");
        let descriptors = Arc::new(Descriptors::new(8));
        let state = written(directory.path().join("a"), &descriptors);
        state.sync_and_close();
        assert!(locked(&state.descriptor).is_none() && !state.written.load(Ordering::Acquire));
        state.open().expect("opens again");
        state.written.store(true, Ordering::Release);
        assert!(!state.close_if_synced() && locked(&state.descriptor).is_some());
    }

    /// A descriptor that cannot be synced, as of a file whose device has failed.
    #[test]
    fn a_sync_that_failed_when_nobody_could_hear_it_is_told_to_the_next_handle() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::new(8);
        let path = directory.path().join("a");
        let file = disk.open(&path, OpenMode::Create).expect("opens");
        file.write_at(0, &[IoSlice::new(b"x")]).expect("writes");
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        disk.descriptors().sync_dropped(&reader.into(), path.clone());
        assert!(file.sync().is_err() && disk.open(&path, OpenMode::Existing).expect("opens").sync().is_err());
        let other = disk.open(&directory.path().join("b"), OpenMode::Create).expect("opens");
        other.sync().expect("no other file is concerned");
    }

    /// More files than descriptors, written in turn: each stays readable and none stays unsynced for long.
    #[test]
    fn a_full_cache_makes_room_behind_the_writers() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::new(2);
        let files: Vec<_> = (0..40)
            .map(|at| disk.open(&directory.path().join(at.to_string()), OpenMode::Create).expect("opens"))
            .collect();
        for round in 0..3_u64 {
            for file in &files {
                file.write_at(round, &[IoSlice::new(b"x")]).expect("writes");
            }
        }
        for file in &files {
            assert_eq!(file.len().expect("a length"), 3);
        }
        drop(files);
        let descriptors = Arc::downgrade(disk.descriptors());
        drop(disk);
        // The thread ends by itself once it has closed the last file.
        while descriptors.upgrade().is_some() {
            std::thread::yield_now();
        }
    }
}
