//! A disk in memory that costs a copy of what is written and nothing else, so that what is counted is the log's.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use madang_actors::clock::Wall;
use madang_storage::{Disk, DiskFile, DiskLock, OpenDescriptor, OpenMode};

/// Room for a file from the start, so that none moves as it grows.
const ROOM: usize = 8 << 20;

#[derive(Debug, Default)]
struct FlatFile(Mutex<Vec<u8>>);

impl FlatFile {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskFile for FlatFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut bytes = self.bytes();
        let mut at = position as usize;
        for slice in slices {
            let end = at + slice.len();
            if at == bytes.len() {
                bytes.extend_from_slice(slice);
            } else {
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[at..end].copy_from_slice(slice);
            }
            at = end;
        }
        Ok(())
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.bytes();
        let from = bytes.get(position as usize..).unwrap_or_default();
        let length = from.len().min(buffer.len());
        buffer[..length].copy_from_slice(&from[..length]);
        Ok(length)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.bytes().resize(length as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn drop_cache(&self, _position: u64) -> io::Result<()> {
        Ok(())
    }

    fn pin(&self) -> io::Result<Option<Arc<dyn OpenDescriptor>>> {
        Ok(None)
    }

    fn modified(&self) -> io::Result<Wall> {
        Ok(Wall(1))
    }

    fn set_modified(&self, _wall: Wall) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct Lock;

impl DiskLock for Lock {}

/// Files by path; a directory is there if something is in it or it was created.
#[derive(Debug, Default)]
pub struct FlatDisk(Mutex<BTreeMap<PathBuf, Option<Arc<FlatFile>>>>);

impl FlatDisk {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Option<Arc<FlatFile>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for FlatDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut entries = self.entries();
        let known = entries.get(path).cloned().flatten();
        let file = match (known, mode) {
            (Some(file), OpenMode::Existing | OpenMode::Create) => file,
            (None, OpenMode::Existing) => return Err(io::ErrorKind::NotFound.into()),
            _ => {
                let file = Arc::new(FlatFile(Mutex::new(Vec::with_capacity(ROOM))));
                entries.insert(path.to_owned(), Some(Arc::clone(&file)));
                file
            }
        };
        Ok(file)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let entries = self.entries();
        let inside = entries.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.entries().contains_key(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut entries = self.entries();
        let moved = entries.remove(from).ok_or(io::ErrorKind::NotFound)?;
        entries.insert(to.to_owned(), moved);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.entries().remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.entries().retain(|inside, _| !inside.starts_with(path));
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.entries().insert(path.to_owned(), None);
        Ok(())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_space(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn DiskLock>> {
        Ok(Box::new(Lock))
    }
}
