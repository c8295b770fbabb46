//! The one door to the operating system's files. Everything in this crate decides purely and does I/O only through these traits.
//! Invariant: every call can fail, and a failed call may have done any part of its work.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use madang_actors::clock::Wall;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist.
    Existing,
    /// It is created empty if it does not exist.
    Create,
    /// It is created, or emptied if it exists.
    Truncate,
}

/// A descriptor that stays open while this lives.
pub trait OpenDescriptor: AsFd + Send + Sync + Debug {}

/// A file that is read and written by position. All methods may be called from several threads; a partition's file has one writer.
pub trait DiskFile: Send + Sync + Debug {
    /// Writes all of `slices`, one after the other, from byte `position` on.
    ///
    /// # Errors
    /// Whatever the disk reports; any part of the bytes may then have been written, and the length may have grown.
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()>;

    /// Reads into `buffer` from byte `position`; the answer is the number of bytes read, short only at the end of the file.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Length in bytes.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Makes the file `length` bytes long; growth is filled with zeros.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Returns when all that was written before the call is on the device (fdatasync). After an error the written bytes are lost
    /// or not, and a second call proves nothing: the caller gives the directory up. A file that was unlinked has nothing to lose: no error.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn sync(&self) -> io::Result<()>;

    /// Forgets the cached pages from the one that holds byte `position` on, so that the next read of them comes from the device.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn drop_cache(&self, position: u64) -> io::Result<()>;

    /// Asks for the blocks of `length` bytes from byte `position` on, which is at or behind the end; neither the length nor any byte of the
    /// file changes. A hint: a file system that can not, or has no room, does nothing.
    fn reserve(&self, _position: u64, _length: u64) {}

    /// Gives back what [`DiskFile::reserve`] had and nobody wrote to. A hint as well.
    fn give_back(&self) {}

    /// Nothing of it has to reach the device, as it can be rebuilt: it is closed without a sync. [`DiskFile::sync`] syncs it all the same.
    fn needs_no_sync(&self) {}

    /// From now on the file is never looked for by its name again, as that is about to become another file's: it stays open, or is gone.
    fn hold_open(&self) {}

    /// A descriptor that stays open as long as the answer lives, however often the file's own is closed or the file unlinked;
    /// none if the file is not one of the operating system.
    ///
    /// # Errors
    /// `NotFound` if the file is gone; whatever the disk reports.
    fn pin(&self) -> io::Result<Option<Arc<dyn OpenDescriptor>>>;

    /// When its bytes changed last, as the system's clock said it; it holds over a restart.
    ///
    /// # Errors
    /// `Unsupported` where nobody keeps the time; whatever the disk reports.
    fn modified(&self) -> io::Result<Wall>;

    /// Says that its bytes changed last at `wall`, as of a copy that stands for what it was made from.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn set_modified(&self, wall: Wall) -> io::Result<()>;
}

/// What keeps a file locked against other processes; dropping it unlocks.
pub trait DiskLock: Send + Sync + Debug {}

/// A filesystem. Paths are absolute or relative to the process; the memory disk keeps them as they are.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound` if it must exist and does not; whatever the disk reports.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// The names in a directory, sorted by bytes; names that are not UTF-8 are left out.
    ///
    /// # Errors
    /// `NotFound`; whatever the disk reports.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Whether there is a file or directory of that name.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Renames a file or a directory, replacing a file of the new name. Atomic; durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// `NotFound`; whatever the disk reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Unlinks a file. Open and pinned files keep their bytes.
    ///
    /// # Errors
    /// `NotFound`; whatever the disk reports.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with all that is in it.
    ///
    /// # Errors
    /// `NotFound`; whatever the disk reports.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory and its parents; no error if it exists.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Returns when the names in the directory are on the device.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Returns when all that was written to the file system of `path` before the call is on the device (syncfs); false where there is no such
    /// call, and then nothing is said of it. Slow where much is dirty, whoever wrote it.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn sync_all(&self, _path: &Path) -> io::Result<bool> {
        Ok(false)
    }

    /// Bytes that can still be written.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn free_space(&self, path: &Path) -> io::Result<u64>;

    /// Whether a sync failed that nobody had asked for, of a file that was closed to make room or dropped. Every later sync of this disk
    /// fails; whoever asks for none learns it here.
    fn has_lost_a_sync(&self) -> bool {
        false
    }

    /// Takes a file's exclusive lock, creating the file if needed.
    ///
    /// # Errors
    /// `WouldBlock` if another holds it; whatever the disk reports.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}

/// No batch in a log is longer than this many bytes; a length above it is damage.
pub const MAX_BATCH: u64 = i32::MAX as u64;

/// Fills `buffer` from byte `position`.
///
/// # Errors
/// `UnexpectedEof` if the file is shorter; whatever the disk reports.
pub fn read_exact_at(file: &dyn DiskFile, position: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(position + filled as u64, &mut buffer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(())
}

/// The whole of a small file. A file longer than `limit` bytes is an error, so that a damaged one cannot take the memory.
///
/// # Errors
/// `InvalidData` above the limit; whatever the disk reports.
pub fn read_small(disk: &dyn Disk, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Existing)?;
    let length = file.len()?;
    if length > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "side file is longer than it can be"));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    read_exact_at(file.as_ref(), 0, &mut bytes)?;
    Ok(bytes)
}

/// Replaces a small file at once: the new bytes go to a temporary file, which takes the name. The answer is the new file; its
/// bytes and its name are durable only after it and its directory are synced.
///
/// # Errors
/// Whatever the disk reports; the old file is then still there.
pub fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
    let temporary = temporary_path(path);
    let file = disk.open(&temporary, OpenMode::Truncate)?;
    // It is through the new handle that its bytes are synced, if at all.
    file.needs_no_sync();
    file.write_at(0, &[IoSlice::new(bytes)])?;
    disk.rename(&temporary, path)?;
    // The handle may reopen by name, and its name is another now.
    drop(file);
    disk.open(path, OpenMode::Existing)
}

/// As [`replace_file`], and durable when it returns.
///
/// # Errors
/// Whatever the disk reports; either the old or the new bytes are then there.
pub fn replace_file_durably(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(path);
    let file = disk.open(&temporary, OpenMode::Truncate)?;
    file.write_at(0, &[IoSlice::new(bytes)])?;
    file.sync().map_err(sync_failed)?;
    disk.rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => disk.sync_dir(parent).map_err(sync_failed),
        None => Ok(()),
    }
}

/// Marks an error as a sync's: after it nothing that was written is known to be on the device, and nothing is to be retried.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct SyncFailed(io::Error);

/// Marks what a sync answered, unless it only could not find what it was to sync.
pub(crate) fn sync_failed(error: io::Error) -> io::Error {
    let passes = error.kind() == io::ErrorKind::NotFound || is_passing(&error);
    if passes { error } else { io::Error::new(error.kind(), SyncFailed(error)) }
}

/// Whether the error is one that [`sync_failed`] marked.
#[must_use]
pub(crate) fn is_sync_failure(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<SyncFailed>())
}

/// Whether the error is of the process rather than of the disk: descriptors or memory are short, and may not be at the next try.
#[must_use]
pub(crate) fn is_passing(error: &io::Error) -> bool {
    /// EINTR, EAGAIN, ENOMEM, ENFILE, EMFILE.
    const OF_THE_PROCESS: [i32; 5] = [4, 11, 12, 23, 24];
    error.raw_os_error().is_some_and(|code| OF_THE_PROCESS.contains(&code))
        || error.kind() == io::ErrorKind::OutOfMemory
}

fn temporary_path(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(crate::format::TEMPORARY_SUFFIX);
    name.into()
}
