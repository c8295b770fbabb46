//! A disk in memory that fails as disks do: it keeps what is durable apart from what is only written, and a power cut mixes the two.
//! Invariant: deterministic; the same calls with the same seeds give the same bytes.

mod files;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use madang_actors::clock::Wall;
use madang_actors::prng::Prng;

use crate::fault_inode::{Directory, FileBody, Inode};

/// What a crash does to bytes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The power goes: of what was not synced, any part may be there afterwards.
    Power,
    /// The process is killed: all that was written is still in the page cache, and still not durable.
    Kill,
}

/// What happens at a numbered operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error and does nothing.
    Error(io::ErrorKind),
    /// A write stores this many bytes, then fails as a full disk does; any other operation fails and does nothing.
    Short(usize),
    /// It does a part, if it is a write, and from then on every call fails until [`FaultDisk::crash`].
    Crash,
}

/// A disk in memory. Clones share it.
#[derive(Clone)]
pub struct FaultDisk {
    state: Arc<Mutex<State>>,
}

/// Without the bytes: it is part of everything that holds a file.
impl fmt::Debug for FaultDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultDisk").finish_non_exhaustive()
    }
}

impl Default for FaultDisk {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Debug, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Raised by a crash: handles from before it are dead.
    generation: u64,
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    crashed: bool,
    capacity: Option<u64>,
    ignore_unreadable: bool,
    wall: Option<Wall>,
    locks: BTreeMap<u64, u64>,
}

const ROOT: u64 = 0;

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn dead() -> io::Error {
    io::Error::other("the process that held this file is dead")
}

impl FaultDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        let mut state = State { next_inode: 1, ..State::default() };
        state.inodes.insert(ROOT, Inode::Directory(Directory::default()));
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many operations that change something there have been: writes, truncations, syncs, creations, renames, removals.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.locked().operations
    }

    /// Plans a fault for the operation of that number; the first one of a new disk is 0.
    pub fn plan(&self, operation: u64, fault: Fault) {
        self.locked().faults.insert(operation, fault);
    }

    /// Whether a planned crash has come and [`FaultDisk::crash`] has not been called since.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.locked().crashed
    }

    /// Crashes now (or completes the planned crash) and comes back: all open handles and locks are dead. Each file and each
    /// directory draws its own fate from `prng`.
    pub fn crash(&self, kind: Crash, prng: &mut Prng) {
        let mut state = self.locked();
        state.generation += 1;
        state.crashed = false;
        state.faults.clear();
        state.locks.clear();
        if kind == Crash::Power {
            for inode in state.inodes.values_mut() {
                match inode {
                    Inode::Directory(directory) => directory.lose_power(prng),
                    Inode::File(body) => body.lose_power(prng),
                }
            }
        }
    }

    /// The worst power cut: nothing that was not synced is there afterwards. All open handles and locks are dead.
    pub fn lose_unsynced(&self) {
        let mut state = self.locked();
        state.generation += 1;
        state.crashed = false;
        state.faults.clear();
        state.locks.clear();
        for inode in state.inodes.values_mut() {
            match inode {
                Inode::Directory(directory) => directory.lose_unsynced(),
                Inode::File(body) => body.lose_unsynced(),
            }
        }
    }

    /// Makes all that was written durable.
    pub fn settle(&self) {
        for inode in self.locked().inodes.values_mut() {
            match inode {
                Inode::Directory(directory) => directory.sync(),
                Inode::File(body) => body.settle(),
            }
        }
    }

    /// Writes fail with `StorageFull` when all files together would be longer; none means endless.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.locked().capacity = bytes;
    }

    /// What the system's clock says from now on; without it nobody keeps the time at which a file changes.
    pub fn set_wall(&self, wall: Wall) {
        self.locked().wall = Some(wall);
    }

    /// The next sync of the file fails, the pages it should have written are dropped, and the syncs after it succeed.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn fail_next_sync(&self, path: &Path) -> io::Result<()> {
        self.with_file(path, |body| body.fail_sync = true)
    }

    /// Reads that touch the range fail.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn fail_reads(&self, path: &Path, range: Range<u64>) -> io::Result<()> {
        self.with_file(path, |body| body.unreadable.push(range))
    }

    /// Inverts one bit of the byte at `position`, on the device and in the cache.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        self.with_file(path, |body| body.damage(position, |byte| *byte ^= 1 << (bit & 7)))
    }

    /// Overwrites a range with `bytes` behind everybody's back: zeros, stale or foreign bytes.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn overwrite(&self, path: &Path, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.with_file(path, |body| {
            for (at, new) in bytes.iter().enumerate() {
                body.damage(position + at as u64, |byte| *byte = *new);
            }
        })
    }

    /// The next write to the file lands `by` bytes after its place, which keeps what it had.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn misdirect_next_write(&self, path: &Path, by: u64) -> io::Result<()> {
        self.with_file(path, |body| body.misdirect = Some(by))
    }

    /// The bytes that would survive the worst power cut.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn durable_bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.with_file(path, |body| bytes.clone_from(&body.durable))?;
        Ok(bytes)
    }

    /// The bytes that would be found at `path` after the worst power cut: durable bytes under a durable name; none if there is no such name.
    #[must_use]
    pub fn surviving_bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.locked();
        let mut at = ROOT;
        for name in names(path) {
            let Some(Inode::Directory(directory)) = state.inodes.get(&at) else { return None };
            at = *directory.durable.get(&name)?;
        }
        match state.inodes.get(&at) {
            Some(Inode::File(body)) => Some(body.durable.clone()),
            _ => None,
        }
    }

    /// The names that would be found in the directory at `path` after the worst power cut, in order; none if it would be gone.
    #[must_use]
    pub fn surviving_names(&self, path: &Path) -> Vec<String> {
        let state = self.locked();
        let mut at = ROOT;
        for name in names(path) {
            let Some(Inode::Directory(directory)) = state.inodes.get(&at) else { return Vec::new() };
            let Some(next) = directory.durable.get(&name) else { return Vec::new() };
            at = *next;
        }
        match state.inodes.get(&at) {
            Some(Inode::Directory(directory)) => directory.durable.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// While `ignored`, reads do not meet [`FaultDisk::fail_reads`]: for whoever checks, who sees what the node may not.
    pub fn ignore_unreadable(&self, ignored: bool) {
        self.locked().ignore_unreadable = ignored;
    }

    /// Takes back what [`FaultDisk::plan`] has planned and has not come.
    pub fn forget_plans(&self) {
        self.locked().faults.clear();
    }

    /// Ends all that [`FaultDisk::fail_reads`] and [`FaultDisk::fail_next_sync`] began.
    pub fn mend(&self) {
        for inode in self.locked().inodes.values_mut() {
            if let Inode::File(body) = inode {
                body.unreadable.clear();
                body.fail_sync = false;
            }
        }
    }

    fn with_file(&self, path: &Path, change: impl FnOnce(&mut FileBody)) -> io::Result<()> {
        let mut state = self.locked();
        let id = state.resolve(path)?;
        change(state.file(id)?);
        Ok(())
    }
}

/// The names of a path from the root on.
fn names(path: &Path) -> Vec<String> {
    let normal = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    };
    path.components().filter_map(normal).collect()
}

impl State {
    fn resolve(&self, path: &Path) -> io::Result<u64> {
        self.walk(&names(path))
    }

    fn walk(&self, names: &[String]) -> io::Result<u64> {
        let mut at = ROOT;
        for name in names {
            let Some(Inode::Directory(directory)) = self.inodes.get(&at) else { return Err(not_found()) };
            at = *directory.visible.get(name).ok_or_else(not_found)?;
        }
        Ok(at)
    }

    fn file(&mut self, id: u64) -> io::Result<&mut FileBody> {
        match self.inodes.get_mut(&id) {
            Some(Inode::File(body)) => Ok(body),
            _ => Err(not_found()),
        }
    }

    fn directory(&mut self, id: u64) -> io::Result<&mut Directory> {
        match self.inodes.get_mut(&id) {
            Some(Inode::Directory(directory)) => Ok(directory),
            _ => Err(not_found()),
        }
    }

    /// The directory that holds the path's last name, and that name.
    fn parent(&self, path: &Path) -> io::Result<(u64, String)> {
        let mut names = names(path);
        let name = names.pop().ok_or_else(not_found)?;
        Ok((self.walk(&names)?, name))
    }

    /// Counts an operation that changes something; a planned fault other than a short write makes it fail.
    fn operation(&mut self) -> io::Result<Option<Fault>> {
        self.alive()?;
        let number = self.operations;
        self.operations += 1;
        match self.faults.remove(&number) {
            None => Ok(None),
            Some(Fault::Error(kind)) => Err(kind.into()),
            Some(Fault::Crash) => {
                self.crashed = true;
                Ok(Some(Fault::Crash))
            }
            Some(short) => Ok(Some(short)),
        }
    }

    /// As [`State::operation`], for what has no halves: any fault makes it fail.
    fn whole_operation(&mut self) -> io::Result<()> {
        match self.operation()? {
            None => Ok(()),
            Some(Fault::Crash) => Err(dead()),
            Some(_) => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(dead()) } else { Ok(()) }
    }

    fn insert(&mut self, inode: Inode) -> u64 {
        let id = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(id, inode);
        id
    }

    fn room(&self) -> usize {
        let Some(capacity) = self.capacity else { return usize::MAX };
        let length = |inode: &Inode| match inode {
            Inode::File(body) => body.visible.len() as u64,
            Inode::Directory(_) => 0,
        };
        let used: u64 = self.inodes.values().map(length).sum();
        usize::try_from(capacity.saturating_sub(used)).unwrap_or(usize::MAX)
    }

    /// The file's bytes have changed.
    fn touch(&mut self, id: u64) -> io::Result<()> {
        let wall = self.wall;
        self.file(id)?.modified = wall;
        Ok(())
    }

    fn write(&mut self, id: u64, position: u64, bytes: &[u8]) -> io::Result<()> {
        let fault = self.operation()?;
        let room = self.room();
        let body = self.file(id)?;
        let growth = (usize::try_from(position).unwrap_or(usize::MAX)).saturating_add(bytes.len());
        let over = growth.saturating_sub(body.visible.len()).saturating_sub(room);
        let fits = bytes.len().saturating_sub(over);
        let kept = match fault {
            None => fits,
            Some(Fault::Crash) => bytes.len() / 2,
            Some(Fault::Short(length)) => length.min(fits),
            Some(Fault::Error(_)) => 0,
        };
        body.write(position, &bytes[..kept.min(bytes.len())]);
        self.touch(id)?;
        match fault {
            Some(Fault::Crash) => Err(dead()),
            _ if kept < bytes.len() => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}
