//! One file or directory of the memory disk: what is visible, what is durable, and what a power cut leaves of the difference.
//! Invariant: `visible` is `durable` with all of `pending` applied, except where a failed sync dropped pages or damage was planted.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use madang_actors::clock::Wall;
use madang_actors::prng::Prng;

/// The unit in which a device writes whole or not at all.
const SECTOR: usize = 512;
/// The unit in which the cache keeps or forgets.
const PAGE: usize = 4096;

#[derive(Debug)]
pub(crate) enum Inode {
    Directory(Directory),
    File(FileBody),
}

#[derive(Debug)]
pub(crate) enum NameChange {
    Link(String, u64),
    Unlink(String),
    Rename(String, String, u64),
}

#[derive(Debug, Default)]
pub(crate) struct Directory {
    pub(crate) visible: BTreeMap<String, u64>,
    pub(crate) durable: BTreeMap<String, u64>,
    pending: Vec<NameChange>,
}

fn apply(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Link(name, id) => drop(names.insert(name.clone(), *id)),
        NameChange::Unlink(name) => drop(names.remove(name)),
        NameChange::Rename(from, to, id) => {
            names.remove(from);
            names.insert(to.clone(), *id);
        }
    }
}

impl Directory {
    pub(crate) fn change(&mut self, change: NameChange) {
        apply(&mut self.visible, &change);
        self.pending.push(change);
    }

    pub(crate) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            apply(&mut self.durable, &change);
        }
    }

    pub(crate) fn lose_unsynced(&mut self) {
        self.pending.clear();
        self.visible = self.durable.clone();
    }

    /// A journalling filesystem keeps a prefix of the changes.
    pub(crate) fn lose_power(&mut self, prng: &mut Prng) {
        let kept = prng.below(self.pending.len() as u64 + 1) as usize;
        for change in self.pending.drain(..).take(kept) {
            apply(&mut self.durable, &change);
        }
        self.visible = self.durable.clone();
    }
}

#[derive(Debug)]
enum Pending {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Debug, Default)]
pub(crate) struct FileBody {
    pub(crate) visible: Vec<u8>,
    pub(crate) durable: Vec<u8>,
    pending: Vec<Pending>,
    pub(crate) fail_sync: bool,
    pub(crate) unreadable: Vec<Range<u64>>,
    pub(crate) misdirect: Option<u64>,
    /// When its bytes changed last; none if there was no clock.
    pub(crate) modified: Option<Wall>,
}

fn place(bytes: &mut Vec<u8>, change: &Pending) {
    match change {
        Pending::Write(position, new) => {
            let end = position + new.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*position..end].copy_from_slice(new);
        }
        Pending::Truncate(length) => bytes.resize(*length, 0),
    }
}

impl FileBody {
    fn change(&mut self, change: Pending) {
        place(&mut self.visible, &change);
        self.pending.push(change);
    }

    pub(crate) fn write(&mut self, position: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let position = position + self.misdirect.take().unwrap_or(0);
        self.change(Pending::Write(usize::try_from(position).unwrap_or(0), bytes.to_vec()));
    }

    pub(crate) fn truncate(&mut self, length: u64) {
        self.change(Pending::Truncate(usize::try_from(length).unwrap_or(0)));
    }

    pub(crate) fn read(&self, position: u64, buffer: &mut [u8], ignore_unreadable: bool) -> io::Result<usize> {
        let end = position + buffer.len() as u64;
        if !ignore_unreadable && self.unreadable.iter().any(|range| range.start < end && position < range.end) {
            return Err(io::Error::other("the device cannot read these sectors"));
        }
        let from = usize::try_from(position).unwrap_or(usize::MAX).min(self.visible.len());
        let length = buffer.len().min(self.visible.len() - from);
        buffer[..length].copy_from_slice(&self.visible[from..from + length]);
        Ok(length)
    }

    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.fail_sync) {
            // The kernel marks the pages clean: they stay readable until they are evicted, and no later sync writes them.
            self.pending.clear();
            return Err(io::Error::other("the device did not take the write"));
        }
        self.settle();
        Ok(())
    }

    pub(crate) fn settle(&mut self) {
        for change in self.pending.drain(..) {
            place(&mut self.durable, &change);
        }
    }

    /// Clean pages go: what is read next is what the device has, and on top of it what is still dirty.
    pub(crate) fn drop_cache(&mut self, position: u64) {
        let kept = usize::try_from(position).unwrap_or(usize::MAX) / PAGE * PAGE;
        let kept = self.visible.get(..kept.min(self.visible.len())).unwrap_or_default().to_vec();
        self.visible = self.durable.clone();
        self.visible.resize(self.visible.len().max(kept.len()), 0);
        self.visible[..kept.len()].copy_from_slice(&kept);
        for change in &self.pending {
            place(&mut self.visible, change);
        }
    }

    pub(crate) fn damage(&mut self, position: u64, change: impl Fn(&mut u8)) {
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        for bytes in [&mut self.visible, &mut self.durable] {
            if let Some(byte) = bytes.get_mut(position) {
                change(byte);
            }
        }
    }

    pub(crate) fn lose_unsynced(&mut self) {
        self.pending.clear();
        self.fail_sync = false;
        self.visible = self.durable.clone();
    }

    pub(crate) fn lose_power(&mut self, prng: &mut Prng) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            match prng.below(4) {
                0 => {
                    let kept = prng.below(pending.len() as u64 + 1) as usize;
                    pending.iter().take(kept).for_each(|change| place(&mut self.durable, change));
                }
                1 => self.keep_some_sectors(prng),
                2 => self.grow_without_blocks(prng),
                _ => pending.iter().for_each(|change| place(&mut self.durable, change)),
            }
        }
        self.fail_sync = false;
        self.visible = self.durable.clone();
    }

    fn keep_some_sectors(&mut self, prng: &mut Prng) {
        self.durable.resize(self.visible.len(), 0);
        for (old, new) in self.durable.chunks_mut(SECTOR).zip(self.visible.chunks(SECTOR)) {
            if prng.chance(1, 2) {
                old.copy_from_slice(new);
            }
        }
    }

    fn grow_without_blocks(&mut self, prng: &mut Prng) {
        let old = self.durable.len();
        self.durable.resize(self.visible.len(), 0);
        if prng.chance(1, 2) {
            for byte in self.durable.iter_mut().skip(old) {
                *byte = prng.next_u64() as u8;
            }
        }
    }
}
