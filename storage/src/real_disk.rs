//! The disk of the operating system. Files are opened lazily through a bounded cache of descriptors, so 100,000 partitions fit.
//! Invariant: a file that was written is synced, through the descriptor that wrote it, before that descriptor is closed.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::disk::{Disk, DiskFile, DiskLock, OpenMode};

/// Slices that one write call takes on Linux.
const SLICES_PER_CALL: usize = 1024;
/// At least as long as a page of any machine that this runs on.
const PAGE: u64 = 64 << 10;

/// The operating system's filesystem.
#[derive(Debug)]
pub struct RealDisk {
    descriptors: Arc<Descriptors>,
}

impl RealDisk {
    /// A disk that keeps at most `open_files` descriptors open, pinned ones aside; at least 1.
    #[must_use]
    pub fn new(open_files: usize) -> Self {
        let descriptors = Descriptors { capacity: open_files.max(1), open: Mutex::new(VecDeque::new()) };
        Self { descriptors: Arc::new(descriptors) }
    }
}

/// Which files hold a descriptor, in the order in which they were opened; a file used since its last turn gets another.
#[derive(Debug)]
struct Descriptors {
    capacity: usize,
    open: Mutex<VecDeque<Weak<FileState>>>,
}

#[derive(Debug)]
struct FileState {
    path: PathBuf,
    descriptor: Mutex<Option<Arc<OwnedFd>>>,
    used: AtomicBool,
    /// Its descriptor is not closed to make room.
    held: AtomicBool,
    written: AtomicBool,
    sync_failed: AtomicBool,
}

#[derive(Debug)]
struct RealFile {
    state: Arc<FileState>,
    descriptors: Arc<Descriptors>,
}

/// A panicking thread leaves these maps whole: every change is one assignment.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Descriptors {
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
            file.close();
        }
    }
}

impl FileState {
    fn close(&self) {
        let mut descriptor = locked(&self.descriptor);
        if self.held.load(Ordering::Acquire) {
            return;
        }
        self.sync_before_close(descriptor.as_deref());
        *descriptor = None;
    }

    fn sync_before_close(&self, descriptor: Option<&OwnedFd>) {
        if let Some(descriptor) = descriptor
            && self.written.load(Ordering::Acquire)
        {
            match rustix::fs::fdatasync(descriptor) {
                Ok(()) => self.written.store(false, Ordering::Release),
                // The kernel tells one descriptor once; whoever asks for a sync later must hear it.
                Err(error) => {
                    tracing::error!(path = %self.path.display(), %error, "sync before close failed");
                    self.sync_failed.store(true, Ordering::Release);
                }
            }
        }
    }
}

impl Drop for FileState {
    fn drop(&mut self) {
        let descriptor = self.descriptor.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        self.sync_before_close(descriptor.as_deref());
    }
}

impl RealFile {
    fn descriptor(&self) -> io::Result<Arc<OwnedFd>> {
        self.state.used.store(true, Ordering::Relaxed);
        let opened = {
            let mut slot = locked(&self.state.descriptor);
            if let Some(open) = slot.as_ref() {
                return Ok(Arc::clone(open));
            }
            if self.state.held.load(Ordering::Acquire) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let file = OpenOptions::new().read(true).write(true).open(&self.state.path)?;
            let opened = Arc::new(OwnedFd::from(file));
            *slot = Some(Arc::clone(&opened));
            opened
        };
        self.descriptors.admit(&self.state);
        Ok(opened)
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let descriptor = self.descriptor()?;
        self.state.written.store(true, Ordering::Release);
        let mut position = position;
        let mut slices = slices.to_vec();
        let mut rest = slices.as_mut_slice();
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let call = &rest[..rest.len().min(SLICES_PER_CALL)];
            match rustix::io::pwritev(&descriptor, call, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let descriptor = self.descriptor()?;
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::io::pread(&descriptor, &mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(filled)
    }

    fn len(&self) -> io::Result<u64> {
        let status = rustix::fs::fstat(self.descriptor()?)?;
        Ok(u64::try_from(status.st_size).unwrap_or(0))
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let descriptor = self.descriptor()?;
        self.state.written.store(true, Ordering::Release);
        Ok(rustix::fs::ftruncate(descriptor, length)?)
    }

    fn sync(&self) -> io::Result<()> {
        if self.state.sync_failed.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        let descriptor = match self.descriptor() {
            // Closed, and so synced, before it was unlinked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        // Cleared first: a write that comes during the call stays marked.
        self.state.written.store(false, Ordering::Release);
        rustix::fs::fdatasync(descriptor).map_err(|error| {
            self.state.sync_failed.store(true, Ordering::Release);
            error.into()
        })
    }

    fn drop_cache(&self, position: u64) -> io::Result<()> {
        // Partial pages at the bounds stay, so the range begins with a whole one.
        let from = position - position % PAGE;
        Ok(rustix::fs::fadvise(self.descriptor()?, from, None, rustix::fs::Advice::DontNeed)?)
    }

    fn hold_open(&self) {
        let opened = self.descriptor().ok();
        let mut slot = locked(&self.state.descriptor);
        if slot.is_none() {
            *slot = opened;
        }
        // Under the lock: whoever opens or closes looks at it there.
        self.state.held.store(true, Ordering::Release);
    }

    fn pin(&self) -> io::Result<Option<Arc<OwnedFd>>> {
        self.descriptor().map(Some)
    }
}

#[derive(Debug)]
struct RealLock {
    _file: File,
}

impl DiskLock for RealLock {}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        match mode {
            OpenMode::Existing => {
                if !fs::metadata(path)?.is_file() {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
                }
            }
            OpenMode::Create => drop(OpenOptions::new().write(true).create(true).truncate(false).open(path)?),
            OpenMode::Truncate => drop(OpenOptions::new().write(true).create(true).truncate(true).open(path)?),
        }
        let state = FileState {
            path: path.to_owned(),
            descriptor: Mutex::new(None),
            used: AtomicBool::new(false),
            held: AtomicBool::new(false),
            written: AtomicBool::new(false),
            sync_failed: AtomicBool::new(false),
        };
        Ok(Arc::new(RealFile { state: Arc::new(state), descriptors: Arc::clone(&self.descriptors) }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let status = rustix::fs::statvfs(path)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(file.as_fd(), rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        // Who holds it, for the one who is refused.
        let _ = file.write_all_at(std::process::id().to_string().as_bytes(), 0);
        Ok(Box::new(RealLock { _file: file }))
    }
}
