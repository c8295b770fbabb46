//! The faulty disk as the rest of the crate sees it: its files, its locks and its names.
//! Invariant: a handle from before a crash is dead.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, MutexGuard};

use madang_actors::clock::Wall;

use super::{FaultDisk, ROOT, State, dead, names};
use crate::disk::{Disk, DiskFile, DiskLock, OpenDescriptor, OpenMode};
use crate::fault_inode::{Directory, FileBody, Inode, NameChange};

#[derive(Debug)]
struct MemoryFile {
    disk: FaultDisk,
    inode: u64,
    generation: u64,
}

impl MemoryFile {
    fn locked(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.locked();
        state.alive()?;
        if state.generation == self.generation { Ok(state) } else { Err(dead()) }
    }
}

impl DiskFile for MemoryFile {
    fn write_at(&self, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.locked()?.write(self.inode, position, &bytes)
    }

    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.locked()?;
        let ignored = state.ignore_unreadable;
        state.file(self.inode)?.read(position, buffer, ignored)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.locked()?.file(self.inode)?.visible.len() as u64)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut state = self.locked()?;
        state.whole_operation()?;
        state.file(self.inode)?.truncate(length);
        state.touch(self.inode)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.locked()?;
        state.whole_operation()?;
        state.file(self.inode)?.sync()
    }

    fn drop_cache(&self, position: u64) -> io::Result<()> {
        self.locked()?.file(self.inode)?.drop_cache(position);
        Ok(())
    }

    fn pin(&self) -> io::Result<Option<Arc<dyn OpenDescriptor>>> {
        Ok(None)
    }

    fn modified(&self) -> io::Result<Wall> {
        self.locked()?.file(self.inode)?.modified.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    fn set_modified(&self, wall: Wall) -> io::Result<()> {
        self.locked()?.file(self.inode)?.modified = Some(wall);
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryLock {
    disk: FaultDisk,
    inode: u64,
    generation: u64,
}

impl DiskLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.disk.locked();
        if state.generation == self.generation {
            state.locks.remove(&self.inode);
        }
    }
}

impl Disk for FaultDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.locked();
        state.alive()?;
        let inode = match state.resolve(path) {
            Ok(id) => {
                state.file(id)?;
                if mode == OpenMode::Truncate {
                    state.whole_operation()?;
                    state.file(id)?.truncate(0);
                    state.touch(id)?;
                }
                id
            }
            Err(error) if mode == OpenMode::Existing => return Err(error),
            Err(_) => {
                state.whole_operation()?;
                let (parent, name) = state.parent(path)?;
                let id = state.insert(Inode::File(FileBody::default()));
                state.touch(id)?;
                state.directory(parent)?.change(NameChange::Link(name, id));
                id
            }
        };
        let generation = state.generation;
        drop(state);
        Ok(Arc::new(MemoryFile { disk: self.clone(), inode, generation }))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut state = self.locked();
        state.alive()?;
        let id = state.resolve(directory)?;
        Ok(state.directory(id)?.visible.keys().cloned().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.locked();
        state.alive()?;
        Ok(state.resolve(path).is_ok())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.locked();
        state.whole_operation()?;
        let id = state.resolve(from)?;
        let (old_parent, old_name) = state.parent(from)?;
        let (new_parent, new_name) = state.parent(to)?;
        if old_parent == new_parent {
            state.directory(old_parent)?.change(NameChange::Rename(old_name, new_name, id));
        } else {
            state.directory(new_parent)?.change(NameChange::Link(new_name, id));
            state.directory(old_parent)?.change(NameChange::Unlink(old_name));
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.locked();
        state.whole_operation()?;
        let id = state.resolve(path)?;
        state.file(id)?;
        let (parent, name) = state.parent(path)?;
        state.directory(parent)?.change(NameChange::Unlink(name));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.locked();
        state.whole_operation()?;
        let id = state.resolve(path)?;
        state.directory(id)?;
        let (parent, name) = state.parent(path)?;
        state.directory(parent)?.change(NameChange::Unlink(name));
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.locked();
        state.alive()?;
        let names = names(path);
        let mut at = ROOT;
        for name in names {
            if let Some(child) = state.directory(at)?.visible.get(&name).copied() {
                at = child;
                continue;
            }
            state.whole_operation()?;
            let child = state.insert(Inode::Directory(Directory::default()));
            state.directory(at)?.change(NameChange::Link(name, child));
            at = child;
        }
        state.directory(at).map(|_| ())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.locked();
        state.whole_operation()?;
        let id = state.resolve(path)?;
        state.directory(id)?.sync();
        Ok(())
    }

    fn sync_all(&self, _: &Path) -> io::Result<bool> {
        let mut state = self.locked();
        state.alive()?;
        state.whole_operation()?;
        let mut synced = Ok(true);
        for inode in state.inodes.values_mut() {
            match inode {
                Inode::Directory(directory) => directory.sync(),
                Inode::File(body) => synced = body.sync().and(synced),
            }
        }
        synced
    }

    fn free_space(&self, _path: &Path) -> io::Result<u64> {
        let state = self.locked();
        state.alive()?;
        Ok(state.room() as u64)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        drop(self.open(path, OpenMode::Create)?);
        let mut state = self.locked();
        let inode = state.resolve(path)?;
        if state.locks.contains_key(&inode) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let generation = state.generation;
        state.locks.insert(inode, generation);
        drop(state);
        Ok(Box::new(MemoryLock { disk: self.clone(), inode, generation }))
    }
}
