//! The disk of the operating system. Files are opened lazily through a bounded cache of descriptors, so 100,000 partitions fit.
//! Invariant: a sync that failed once fails for ever, whoever met it first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use madang_actors::clock::Wall;
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};

use crate::descriptors::{Descriptor, Descriptors, FileState, locked};
use crate::disk::{Disk, DiskFile, DiskLock, OpenDescriptor, OpenMode, is_passing};

/// Slices that one write call takes on Linux.
const SLICES_PER_CALL: usize = 1024;
/// At least as long as a page of any machine that this runs on.
const PAGE: u64 = 64 << 10;
/// How long a sync waits for a descriptor, and how often it tries.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// The operating system's filesystem.
#[derive(Debug)]
pub struct RealDisk {
    descriptors: Arc<Descriptors>,
}

impl RealDisk {
    /// A disk that keeps at most `open_files` descriptors open, pinned ones aside; at least 1.
    #[must_use]
    pub fn new(open_files: usize) -> Self {
        Self { descriptors: Arc::new(Descriptors::new(open_files)) }
    }

    #[cfg(test)]
    pub(crate) const fn descriptors(&self) -> &Arc<Descriptors> {
        &self.descriptors
    }
}

#[derive(Debug)]
struct RealFile {
    state: Arc<FileState>,
}

impl RealFile {
    fn descriptor(&self) -> io::Result<Arc<Descriptor>> {
        self.state.open()
    }
}

fn write_all(descriptor: &Descriptor, mut position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
    let mut slices = slices.to_vec();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let call = &rest[..rest.len().min(SLICES_PER_CALL)];
        match rustix::io::pwritev(descriptor, call, position) {
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

/// Opens what is to be synced. That descriptors or memory are short for a moment is no failure of the disk. Blocks.
fn patiently<T>(open: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        match open() {
            Err(error) if is_passing(&error) && Instant::now() < until => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let descriptor = self.descriptor()?;
        self.state.writing(|| write_all(&descriptor, position, slices))
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
        self.state.writing(|| Ok(rustix::fs::ftruncate(&descriptor, length)?))
    }

    fn sync(&self) -> io::Result<()> {
        match patiently(|| self.descriptor()) {
            // Closed, and so synced, before it was unlinked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            opened => self.state.sync(opened?.as_ref()),
        }
    }

    fn drop_cache(&self, position: u64) -> io::Result<()> {
        // Partial pages at the bounds stay, so the range begins with a whole one.
        let from = position - position % PAGE;
        Ok(rustix::fs::fadvise(self.descriptor()?, from, None, rustix::fs::Advice::DontNeed)?)
    }

    fn reserve(&self, position: u64, length: u64) {
        if let Ok(descriptor) = self.descriptor() {
            let _ = rustix::fs::fallocate(&descriptor, rustix::fs::FallocateFlags::KEEP_SIZE, position, length);
        }
    }

    fn give_back(&self) {
        // Cutting a file where it ends frees the blocks behind its end.
        if let Ok(length) = self.len() {
            let _ = self.truncate(length);
        }
    }

    fn needs_no_sync(&self) {
        self.state.disposable.store(true, Ordering::Release);
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

    fn pin(&self) -> io::Result<Option<Arc<dyn OpenDescriptor>>> {
        Ok(Some(self.descriptor()?))
    }

    fn modified(&self) -> io::Result<Wall> {
        let status = rustix::fs::fstat(self.descriptor()?)?;
        let nanoseconds = i64::try_from(status.st_mtime_nsec).unwrap_or(0);
        Ok(Wall(status.st_mtime.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)))
    }

    fn set_modified(&self, wall: Wall) -> io::Result<()> {
        let millis = wall.as_millis();
        let last_modification =
            Timespec { tv_sec: millis.div_euclid(1000), tv_nsec: millis.rem_euclid(1000) * 1_000_000 };
        let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        Ok(rustix::fs::futimens(self.descriptor()?, &Timestamps { last_access, last_modification })?)
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
        let state = FileState::new(path.to_owned(), Arc::clone(&self.descriptors));
        Ok(Arc::new(RealFile { state: Arc::new(state) }))
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
        patiently(|| File::open(path))?.sync_all()
    }

    fn sync_all(&self, path: &Path) -> io::Result<bool> {
        let directory = patiently(|| File::open(path))?;
        rustix::fs::syncfs(&directory)?;
        Ok(true)
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let status = rustix::fs::statvfs(path)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    fn has_lost_a_sync(&self) -> bool {
        self.descriptors.has_lost_a_sync()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(file.as_fd(), rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        // Who holds it, for the one who is refused.
        let _ = file.write_all_at(std::process::id().to_string().as_bytes(), 0);
        Ok(Box::new(RealLock { _file: file }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_is_reserved_is_behind_the_end_and_is_given_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let file = RealDisk::new(4).open(&path, OpenMode::Create).expect("opens");
        file.write_at(0, &[IoSlice::new(&[7; 10_000])]).expect("writes");
        file.sync().expect("syncs");
        let blocks = || fs::metadata(&path).expect("there").blocks();
        let before = blocks();
        file.reserve(10_000, 1 << 20);
        assert_eq!(file.len().expect("a length"), 10_000);
        let supported = blocks() > before;
        file.write_at(10_000, &[IoSlice::new(&[8; 10_000])]).expect("writes");
        file.give_back();
        file.sync().expect("syncs");
        assert_eq!(file.len().expect("a length"), 20_000);
        // A file system that cannot reserve has nothing to give back either.
        assert!(blocks() < before + 100, "{before}, reserved: {supported}, now {}", blocks());
        let mut bytes = vec![0; 20_000];
        assert_eq!(file.read_at(0, &mut bytes).expect("reads"), 20_000);
        assert!(bytes[..10_000].iter().all(|byte| *byte == 7) && bytes[10_000..].iter().all(|byte| *byte == 8));
    }
}
