//! The notes of a simulated machine: a file in its memory, which kills leave and power cuts take, and what goes wrong with it.
//! Invariant: what happens to the file happens while no process has it, but for its store being full.

use std::cell::{Cell, RefCell};

use madang::found::all_known;
use madang_protocol::types::Uuid;
use madang_storage::{Identity, MemoryFile, MemoryNotes, Note, Notes, NotesOwner};

use crate::cover;
use crate::invariants::restarts;
use crate::node::Node;
use crate::node::process::Process;
use crate::sim::Sim;

/// The memory of the machine.
#[derive(Debug, Default)]
pub struct Memory {
    /// The notes of its one directory.
    pub file: MemoryFile,
    /// As the file was at some time of this boot, all logs noted.
    older: RefCell<Option<Vec<u8>>>,
    boot: Cell<u64>,
}

/// What may go wrong with notes between two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// A byte is another.
    Damaged,
    /// The file ends too early.
    Torn,
    /// They are of another directory.
    Foreign,
    /// They are as they were a while ago.
    Stale,
    /// They are gone.
    Gone,
}

const MISHAPS: [Mishap; 5] = [Mishap::Damaged, Mishap::Torn, Mishap::Foreign, Mishap::Stale, Mishap::Gone];

impl Memory {
    /// The running boot.
    #[must_use]
    pub fn boot_id(&self) -> String {
        format!("boot-{}", self.boot.get())
    }

    fn owner(&self, directory_id: Uuid, generation: u64) -> NotesOwner {
        NotesOwner { directory_id, generation, boot_id: self.boot_id(), mount: "mount".to_owned() }
    }
}

/// The machine goes down. Now and then something brings the file back into the next boot.
pub fn reboot(node: &Node) {
    let memory = &node.memory;
    memory.boot.set(memory.boot.get() + 1);
    memory.file.set_full(false);
    memory.older.take();
    if !node.sim.chance(1, 3) {
        memory.file.replace(None);
    }
    node.truth.rebooted(&node.sim);
}

/// Something happens to the notes of a process that is dead.
pub fn mishap(node: &Node) {
    let (sim, memory) = (&node.sim, &node.memory);
    let Some(mut bytes) = memory.file.bytes() else { return };
    let mishap = MISHAPS.get(sim.below(MISHAPS.len() as u64) as usize).copied().unwrap_or(Mishap::Gone);
    sim.note("notes mishap", &[mishap as i64]);
    let length = bytes.len() as u64;
    match mishap {
        Mishap::Damaged => {
            // A slot if there is one; what fills the header's page means nothing.
            let at = if length > 4096 { 4096 + sim.below(length - 4096) } else { sim.below(20) };
            if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
                *byte ^= 1 << sim.below(8);
            }
        }
        Mishap::Torn => {
            // In the middle of a slot, or of the header.
            let left = if length > 4096 { length - 1 - sim.below(63) } else { sim.below(length) };
            bytes.truncate(usize::try_from(left).unwrap_or(0));
        }
        Mishap::Foreign => {
            let file = MemoryFile::default();
            let other = MemoryNotes::open(&file, memory.owner(Uuid([0xee; 16]), 0));
            if other.is_ok_and(|other| other.complete().is_ok())
                && let (Some(header), Some(place)) = (file.bytes(), bytes.get_mut(..4096))
            {
                place.copy_from_slice(&header);
            }
        }
        Mishap::Stale => {
            let Some(older) = memory.older.take().filter(|_| node.truth.has_notes()) else { return };
            cover!("notes as they were a while ago");
            return memory.file.replace(Some(older));
        }
        Mishap::Gone => {
            memory.file.replace(None);
            return node.truth.notes_gone();
        }
    }
    memory.file.replace(Some(bytes));
    node.truth.notes_gone();
}

/// A start looks at what it finds.
pub fn open(node: &Node, process: &Process, identity: &Identity) -> bool {
    let found = node.memory.file.bytes().is_some();
    let owner = node.memory.owner(identity.directory_id, identity.notes_generation);
    let Ok(notes) = MemoryNotes::open(&node.memory.file, owner) else {
        cover!("notes could not be written");
        node.truth.notes_gone();
        return false;
    };
    let believed = notes.are_believed();
    if !believed {
        // The next ones are of another generation.
        node.memory.older.take();
    }
    restarts::notes_opened(&node.sim, &node.truth, believed, notes.disbelief(), found);
    *process.notes.borrow_mut() = Some(notes);
    believed
}

/// What was noted of a log before this process.
#[must_use]
pub fn load(process: &Process, partition: madang_protocol::types::TopicPartition) -> Option<Note> {
    process.notes.borrow().as_ref().and_then(|notes| notes.load(partition))
}

/// Does something with the notes of a process, and sees whether they are still kept.
pub fn keep(node: &Node, process: &Process, change: impl FnOnce(&MemoryNotes)) {
    let notes = process.notes.borrow();
    let Some(notes) = notes.as_ref() else { return };
    let were_kept = !notes.is_discarded();
    change(notes);
    if were_kept && notes.is_discarded() {
        node.memory.older.take();
        node.truth.notes_gone();
    }
}

/// Has the notes believed once every log is noted, as the node's directory does.
pub fn complete(node: &Node, process: &Process) {
    if process.serving.get() && is_known(process) {
        keep(node, process, |notes| {
            if notes.complete().is_ok() && !notes.is_discarded() {
                node.truth.noted();
                remember(&node.sim, &node.memory);
            }
        });
    }
}

fn remember(sim: &Sim, memory: &Memory) {
    if memory.older.borrow().is_none() || sim.chance(1, 16) {
        *memory.older.borrow_mut() = memory.file.bytes();
    }
}

/// Whether each log in the directory was found, and has told its end.
#[must_use]
pub fn is_known(process: &Process) -> bool {
    let slots = process.slots.borrow();
    all_known(process.offline.get() == 0, slots.values().map(|slot| &**slot.handle.shared()))
}
