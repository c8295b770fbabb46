//! The bounded cache of a disk's open descriptors, and the thread that syncs what is closed.
//! Invariant: a written file whose bytes matter is synced, through the descriptor that wrote it, before that descriptor is closed, and
//! never on the thread that happens to close it: that may be one that serves clients. Nor is the last descriptor of a file without a name
//! closed there, as that gives its blocks back. A sync that fails here fails every later one.

use std::collections::{HashMap, VecDeque};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Builder;

use crate::disk::OpenDescriptor;

/// Files that may wait for their sync. Above it a file that only makes room stays open; one that is dropped counts as lost, as a device
/// that is so far behind does not work any more.
const CLOSING: usize = 16 << 10;

/// Which files hold a descriptor, in the order in which they were opened; a file used since its last turn gets another.
#[derive(Debug)]
pub(crate) struct Descriptors {
    capacity: usize,
    open: Mutex<VecDeque<Weak<FileState>>>,
    closing: OnceLock<Option<SyncSender<Closing>>>,
    /// How often each file is to be closed whose last handle is gone: until then nobody knows whether its bytes are on the device.
    dropped: Mutex<HashMap<PathBuf, u32>>,
    closed: Condvar,
    /// The kernel tells a descriptor once that a sync failed, and this one's was told to nobody who asked.
    lost: AtomicBool,
}

/// What one file is to its handle and to the cache.
#[derive(Debug)]
pub(crate) struct FileState {
    pub(crate) path: PathBuf,
    pub(crate) descriptor: Mutex<Option<Arc<Descriptor>>>,
    /// Its descriptor is not closed to make room.
    pub(crate) held: AtomicBool,
    pub(crate) written: AtomicBool,
    /// Nothing of it has to reach the device.
    pub(crate) disposable: AtomicBool,
    used: AtomicBool,
    /// Whether a sync failed. Held during a sync: the kernel tells of a failure once, and whoever comes second must not miss it.
    failed: Mutex<bool>,
    descriptors: Arc<Descriptors>,
}

#[derive(Debug)]
enum Closing {
    /// It makes room and may be opened again.
    Evicted(Arc<FileState>),
    /// Nobody can ask for its sync any more.
    Dropped(Arc<Descriptor>, PathBuf, Arc<Descriptors>),
    /// The last of a file without a name.
    Unlinked(OwnedFd),
}

/// An open file. Whoever drops it last does not wait for what closing it costs.
#[derive(Debug)]
pub(crate) struct Descriptor {
    /// There until it is dropped.
    fd: Option<OwnedFd>,
    descriptors: Arc<Descriptors>,
}

impl Descriptor {
    fn new(fd: OwnedFd, descriptors: &Arc<Descriptors>) -> Self {
        Self { fd: Some(fd), descriptors: Arc::clone(descriptors) }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("it is taken out only when it is dropped").as_fd()
    }
}

impl OpenDescriptor for Descriptor {}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let Some(fd) = self.fd.take().filter(|fd| !is_linked(fd)) else { return };
        // That thousands wait to be closed is no reason to keep one more open.
        drop(self.descriptors.close_later(Closing::Unlinked(fd)));
    }
}

/// A panicking thread leaves these whole: every change is one assignment.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lost_error() -> io::Error {
    io::Error::other("a sync of this disk failed earlier")
}

impl Descriptors {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            open: Mutex::default(),
            closing: OnceLock::new(),
            dropped: Mutex::default(),
            closed: Condvar::new(),
            lost: AtomicBool::new(false),
        }
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

    /// Whether a sync failed that nobody had asked for: what was written to this disk may be gone.
    pub(crate) fn has_lost_a_sync(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    fn lose(&self, path: &Path, error: &dyn std::fmt::Display) {
        tracing::error!(path = %path.display(), %error, "sync before close failed");
        self.lost.store(true, Ordering::Release);
    }

    fn sync_dropped(&self, descriptor: &impl AsFd, path: &Path) {
        if let Err(error) = rustix::fs::fdatasync(descriptor) {
            self.lose(path, &error);
        }
        self.forget_dropped(path);
    }

    fn forget_dropped(&self, path: &Path) {
        let mut dropped = locked(&self.dropped);
        if let Some(count) = dropped.get_mut(path) {
            *count -= 1;
            if *count == 0 {
                dropped.remove(path);
            }
        }
        drop(dropped);
        self.closed.notify_all();
    }

    /// Waits until no earlier handle of the file is still being closed. Blocks as a sync does.
    fn wait_for_dropped(&self, path: &Path) {
        let mut dropped = locked(&self.dropped);
        while dropped.contains_key(path) {
            dropped = self.closed.wait(dropped).unwrap_or_else(PoisonError::into_inner);
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
            Closing::Dropped(descriptor, path, descriptors) => descriptors.sync_dropped(&*descriptor, &path),
            Closing::Unlinked(fd) => drop(fd),
        }
    }
}

/// Whether the file still has a name. What has none is gone with its last descriptor.
fn is_linked(descriptor: &impl AsFd) -> bool {
    rustix::fs::fstat(descriptor).is_ok_and(|status| status.st_nlink > 0)
}

impl FileState {
    pub(crate) fn new(path: PathBuf, descriptors: Arc<Descriptors>) -> Self {
        Self {
            path,
            descriptor: Mutex::new(None),
            held: AtomicBool::new(false),
            written: AtomicBool::new(false),
            disposable: AtomicBool::new(false),
            used: AtomicBool::new(false),
            failed: Mutex::new(false),
            descriptors,
        }
    }

    /// The open descriptor, opened by name if there is none.
    pub(crate) fn open(self: &Arc<Self>) -> io::Result<Arc<Descriptor>> {
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
            let opened = Arc::new(Descriptor::new(OwnedFd::from(file), &self.descriptors));
            *slot = Some(Arc::clone(&opened));
            opened
        };
        self.descriptors.admit(self);
        Ok(opened)
    }

    /// Syncs through the descriptor. After a failure, of this file or of one that was closed, there is no success any more.
    pub(crate) fn sync(&self, descriptor: &Descriptor) -> io::Result<()> {
        self.sync_now(descriptor)?;
        self.descriptors.wait_for_dropped(&self.path);
        if self.descriptors.has_lost_a_sync() { Err(lost_error()) } else { Ok(()) }
    }

    /// As [`FileState::sync`], for the thread that closes files: it cannot wait for what it is to do next.
    fn sync_now(&self, descriptor: &Descriptor) -> io::Result<()> {
        let mut failed = locked(&self.failed);
        if *failed || self.descriptors.has_lost_a_sync() {
            return Err(lost_error());
        }
        // Cleared first: a write that comes during the call marks it again when it has ended.
        self.written.store(false, Ordering::Release);
        Ok(rustix::fs::fdatasync(descriptor).inspect_err(|_| *failed = true)?)
    }

    /// Does what changes the file's bytes.
    pub(crate) fn writing<T>(&self, write: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.written.store(true, Ordering::Release);
        let result = write();
        // A sync may have begun, and cleared the mark, before the bytes were there.
        self.written.store(true, Ordering::Release);
        result
    }

    fn owes_sync(&self, descriptor: &Descriptor) -> bool {
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

    /// The descriptor's lock is not held while the device works: others may want it meanwhile.
    fn sync_and_close(self: &Arc<Self>) {
        let Some(descriptor) = locked(&self.descriptor).clone() else { return };
        if self.owes_sync(&descriptor)
            && let Err(error) = self.sync_now(&descriptor)
        {
            // Whoever holds the file may never ask, and its next holder would not be told.
            self.descriptors.lose(&self.path, &error);
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
        let path = std::mem::take(&mut self.path);
        *locked(&self.descriptors.dropped).entry(path.clone()).or_default() += 1;
        let closing = Closing::Dropped(descriptor, path, Arc::clone(&self.descriptors));
        if let Err(Closing::Dropped(_, path, descriptors)) = self.descriptors.close_later(closing) {
            descriptors.lose(&path, &"too many files wait for theirs");
            descriptors.forget_dropped(&path);
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
    fn a_sync_that_failed_when_nobody_could_hear_it_is_told_to_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::new(8);
        let path = directory.path().join("a");
        let file = disk.open(&path, OpenMode::Create).expect("opens");
        file.write_at(0, &[IoSlice::new(b"x")]).expect("writes");
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        file.sync().expect("nothing has failed yet");
        assert!(!disk.has_lost_a_sync());
        disk.descriptors().sync_dropped(&OwnedFd::from(reader), &path);
        assert!(disk.has_lost_a_sync());
        assert!(file.sync().is_err() && disk.open(&path, OpenMode::Existing).expect("opens").sync().is_err());
    }

    /// The next handle of a file whose last one is still being closed does not answer before that one's sync has.
    #[test]
    fn a_sync_waits_for_what_is_still_being_closed() {
        let directory = tempfile::tempdir().expect("a directory");
        let disk = RealDisk::new(8);
        let path = directory.path().join("a");
        let file = disk.open(&path, OpenMode::Create).expect("opens");
        file.write_at(0, &[IoSlice::new(b"x")]).expect("writes");
        *locked(&disk.descriptors().dropped).entry(path.clone()).or_default() += 1;
        let syncing = std::thread::spawn(move || file.sync());
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        disk.descriptors().sync_dropped(&OwnedFd::from(reader), &path);
        assert!(syncing.join().expect("ends").is_err(), "the other's failure is this one's");
    }

    /// How many descriptors of this process are of the file without a name that was at `path`.
    fn open_without_name(path: &Path) -> usize {
        let gone = format!("{} (deleted)", path.display());
        let open = std::fs::read_dir("/proc/self/fd").expect("the process's descriptors");
        open.filter(|one| {
            std::fs::read_link(one.as_ref().expect("an entry").path()).is_ok_and(|to| to == Path::new(&gone))
        })
        .count()
    }

    #[test]
    fn what_has_no_name_any_more_is_closed_on_the_closing_thread() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().canonicalize().expect("a path").join("a");
        let disk = RealDisk::new(8);
        let file = disk.open(&path, OpenMode::Create).expect("opens");
        let pinned = file.pin().expect("opens").expect("a real file");
        disk.remove_file(&path).expect("removes");
        // The thread waits for this file's lock, as for a device that does not answer.
        let slow = written(directory.path().join("slow"), disk.descriptors());
        let device = locked(&slow.failed);
        disk.descriptors().close_later(Closing::Evicted(Arc::clone(&slow))).expect("there is room");
        drop(file);
        drop(pinned);
        assert_eq!(open_without_name(&path), 1, "whoever drops it last does not close it");
        drop(device);
        while open_without_name(&path) > 0 {
            std::thread::yield_now();
        }
    }

    /// A write that is under way while the file is synced leaves it marked, whichever of the two ends first.
    #[test]
    fn a_write_marks_the_file_before_and_after() {
        let directory = tempfile::tempdir().expect("a directory");
        let descriptors = Arc::new(Descriptors::new(8));
        let state = written(directory.path().join("a"), &descriptors);
        let descriptor = state.open().expect("opens");
        state
            .writing(|| {
                state.sync(&descriptor).expect("syncs");
                Ok(())
            })
            .expect("writes");
        assert!(state.owes_sync(&descriptor));
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
