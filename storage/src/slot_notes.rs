//! Notes in the slots of one file, on tmpfs or in a simulated machine's memory.
//! Invariant: what is not believed is begun anew; after `discard` nothing is written, and the file says nothing to the next process.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use madang_protocol::types::TopicPartition;

use crate::mutants::mutant;
use crate::notes::{Disbelief, HEADER, MAX_SLOTS, Note, Notes, NotesOwner, SLOT, header, parse, slot};

/// Where the bytes of notes are.
pub trait NotesFile: Send + Sync + Debug {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Not all of it is written.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Takes the file away from the next process.
    ///
    /// # Errors
    /// It stays.
    fn remove(&self) -> io::Result<()>;
}

/// What a new file of `owner` begins with.
pub(crate) fn initial(owner: &NotesOwner) -> Vec<u8> {
    header(owner, false)
}

/// One directory's notes.
#[derive(Debug)]
pub struct SlotNotes<F> {
    file: F,
    owner: NotesOwner,
    believed: bool,
    disbelief: Option<Disbelief>,
    discarded: AtomicBool,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    noted: BTreeMap<TopicPartition, (usize, Note)>,
    free: Vec<usize>,
    count: usize,
}

impl<F: NotesFile> SlotNotes<F> {
    /// Takes over the file that was `found` with its bytes, if it is to be believed; else `begin` makes a new one in its place, of the next
    /// generation, and the directory has to be told before it counts ([`LogDir::begin_notes`](crate::LogDir::begin_notes)).
    ///
    /// # Errors
    /// There is no new one.
    pub fn take_over(
        found: Option<(F, Vec<u8>)>,
        owner: NotesOwner,
        begin: impl FnOnce(&NotesOwner) -> io::Result<F>,
    ) -> io::Result<Self> {
        let mut disbelief = None;
        if let Some((file, bytes)) = found {
            match parse(&bytes, &owner) {
                Ok(noted) => return Ok(Self::with(file, owner, noted, (bytes.len() - HEADER) / SLOT)),
                Err(why) => {
                    tracing::info!(directory = %owner.directory_id, %why, "notes are not believed; beginning new ones");
                    disbelief = Some(why);
                }
            }
        }
        let owner = NotesOwner { generation: owner.generation + 1, ..owner };
        let file = begin(&owner)?;
        Ok(Self { believed: false, disbelief, ..Self::with(file, owner, BTreeMap::new(), 0) })
    }

    fn with(file: F, owner: NotesOwner, noted: BTreeMap<TopicPartition, (usize, Note)>, count: usize) -> Self {
        let mut free: Vec<usize> = (0..count).collect();
        let taken: BTreeSet<usize> = noted.values().map(|(number, _)| *number).collect();
        free.retain(|number| !taken.contains(number));
        let slots = Mutex::new(Slots { noted, free, count });
        Self { file, owner, believed: true, disbelief: None, discarded: AtomicBool::new(false), slots }
    }

    /// Why what was found is not believed; none if it is, or if nothing was found.
    #[must_use]
    pub const fn disbelief(&self) -> Option<Disbelief> {
        self.disbelief
    }

    /// Whether nothing is noted any more.
    #[must_use]
    pub fn is_discarded(&self) -> bool {
        self.discarded.load(Ordering::Acquire)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// The slot of a log; one that has none gets one.
    fn take(&mut self, partition: TopicPartition, note: Note) -> io::Result<usize> {
        if let Some((number, known)) = self.noted.get_mut(&partition) {
            *known = note;
            return Ok(*number);
        }
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.count < MAX_SLOTS => self.count,
            None => return Err(io::ErrorKind::StorageFull.into()),
        };
        self.count = self.count.max(number + 1);
        self.noted.insert(partition, (number, note));
        Ok(number)
    }
}

const fn position(number: usize) -> u64 {
    (HEADER + number * SLOT) as u64
}

impl<F: NotesFile> Notes for SlotNotes<F> {
    fn are_believed(&self) -> bool {
        self.believed && !self.discarded.load(Ordering::Acquire)
    }

    fn load(&self, partition: TopicPartition) -> Option<Note> {
        self.slots().noted.get(&partition).map(|(_, note)| *note).filter(|_| self.are_believed())
    }

    fn store(&self, partition: TopicPartition, note: Note) -> io::Result<()> {
        if self.discarded.load(Ordering::Acquire) {
            return Ok(());
        }
        let number = self.slots().take(partition, note);
        number.and_then(|number| self.file.write_at(&slot(partition, note), position(number))).inspect_err(|error| {
            tracing::warn!(directory = %self.owner.directory_id, %error, "not noted; the next start after a kill reads more");
            self.discard();
        })
    }

    fn remove(&self, partition: TopicPartition) {
        let mut slots = self.slots();
        if let Some((number, _)) = slots.noted.remove(&partition) {
            slots.free.push(number);
            if !self.discarded.load(Ordering::Acquire) && self.file.write_at(&[0; SLOT], position(number)).is_err() {
                self.discard();
            }
        }
    }

    fn complete(&self) -> io::Result<()> {
        if self.discarded.load(Ordering::Acquire) {
            return Ok(());
        }
        self.file.write_at(&header(&self.owner, true), 0)
    }

    fn discard(&self) {
        if mutant(43) || self.discarded.swap(true, Ordering::AcqRel) {
            return;
        }
        // Either alone is enough.
        let voided = self.file.write_at(&[0; 64], 0);
        let removed = self.file.remove();
        if let (Err(error), Err(_)) = (voided, removed) {
            tracing::error!(directory = %self.owner.directory_id, %error, "notes that may not be believed stay");
        }
    }
}

/// A file in the memory of a simulated machine: whoever simulates its end empties it. All clones are one file.
#[derive(Clone, Debug, Default)]
pub struct MemoryFile {
    state: Arc<Mutex<MemoryState>>,
}

#[derive(Debug, Default)]
struct MemoryState {
    bytes: Option<Vec<u8>>,
    full: bool,
}

impl MemoryFile {
    fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it holds; none if there is no such file.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        self.state().bytes.clone()
    }

    /// Replaces what it holds, behind everybody's back.
    pub fn replace(&self, bytes: Option<Vec<u8>>) {
        self.state().bytes = bytes;
    }

    /// While `full`, no write succeeds.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }
}

impl NotesFile for MemoryFile {
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut state = self.state();
        if state.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let start = usize::try_from(position).map_err(io::Error::other)?;
        let held = state.bytes.get_or_insert_default();
        held.resize(held.len().max(start + bytes.len()), 0);
        held.splice(start..start + bytes.len(), bytes.iter().copied());
        Ok(())
    }

    fn remove(&self) -> io::Result<()> {
        self.state().bytes = None;
        Ok(())
    }
}

/// Notes in the memory of a simulated machine.
pub type MemoryNotes = SlotNotes<MemoryFile>;

impl MemoryNotes {
    /// Opens the notes in `file`, or begins new ones.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn open(file: &MemoryFile, owner: NotesOwner) -> io::Result<Self> {
        let found = file.bytes().map(|bytes| (file.clone(), bytes));
        Self::take_over(found, owner, |owner| {
            file.write_at(&[], 0)?;
            file.replace(Some(initial(owner)));
            Ok(file.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use madang_protocol::types::{Offset, Uuid};

    use super::*;

    fn open_in(file: &MemoryFile, boot_id: &str, generation: u64) -> MemoryNotes {
        let (boot_id, mount) = (boot_id.to_owned(), "m".to_owned());
        let owner = NotesOwner { directory_id: Uuid([1; 16]), generation, boot_id, mount };
        MemoryNotes::open(file, owner).expect("opens")
    }

    fn open(file: &MemoryFile, boot_id: &str) -> MemoryNotes {
        open_in(file, boot_id, 0)
    }

    const ORDERS: TopicPartition = TopicPartition { topic_id: Uuid([3; 16]), partition: 0 };

    fn note(end: i64) -> Note {
        Note { log_end_offset: Offset(end), ..Note::default() }
    }

    #[test]
    fn a_kill_leaves_what_was_noted_and_another_boot_does_not_believe_it() {
        let file = MemoryFile::default();
        let first = open(&file, "a");
        first.store(ORDERS, note(7)).expect("noted");
        assert_eq!(open_in(&file.clone(), "a", 1).disbelief(), Some(Disbelief::Incomplete));
        let first = open(&file, "a");
        first.store(ORDERS, note(8)).expect("noted");
        first.complete().expect("noted");
        let second = open_in(&file, "a", 1);
        assert!(second.are_believed() && second.load(ORDERS) == Some(note(8)));
        let rebooted = open_in(&file, "b", 1);
        assert_eq!((rebooted.disbelief(), rebooted.load(ORDERS)), (Some(Disbelief::Foreign), None));
    }

    /// Whoever does not take notes over begins a generation, and the directory counts it before it is written to.
    #[test]
    fn notes_from_before_the_last_process_are_not_believed() {
        let (file, elsewhere) = (MemoryFile::default(), MemoryFile::default());
        let first = open(&file, "a");
        first.complete().expect("noted");
        assert!(open_in(&file, "a", 1).are_believed());
        assert_eq!(open_in(&elsewhere, "a", 1).disbelief(), None, "the second process keeps its own elsewhere");
        assert_eq!(open_in(&file, "a", 2).disbelief(), Some(Disbelief::Foreign));
    }

    #[test]
    fn notes_that_cannot_be_written_are_gone() {
        let file = MemoryFile::default();
        let first = open(&file, "a");
        first.store(ORDERS, note(7)).expect("noted");
        first.complete().expect("noted");
        file.set_full(true);
        assert!(first.store(ORDERS, note(8)).is_err());
        file.set_full(false);
        first.store(ORDERS, note(9)).expect("of no effect");
        assert!(!open(&file, "a").are_believed());
    }
}
