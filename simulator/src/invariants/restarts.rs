//! S7: what a start says of how its directory was left is what the specification says for it, by what has really happened.
//! Invariant: it learns only from what was done to the machine and from whether a write succeeded, never from what is read back.

use std::cell::Cell;

use madang_cluster::metadata::MetadataImage;
use madang_protocol::types::TopicPartition;
use madang_storage::{Disbelief, RestartKind, Start};

use crate::cover;
use crate::invariants::storage::Ending;
use crate::sim::Sim;

/// What has happened to the directory. A word is none while nobody can know it, as the write of it failed on its way.
#[derive(Debug)]
pub struct Truth {
    /// Whether the clean-shutdown marker is there.
    marked: Cell<Option<bool>>,
    /// Whether the directory's file says that its sync point holds.
    sync_point: Cell<Option<bool>>,
    /// Whether a sync has failed since the directory said so.
    sync_failed: Cell<bool>,
    /// Whether the notes are whole, of every log, and of the running boot.
    noted: Cell<bool>,
}

impl Default for Truth {
    fn default() -> Self {
        let no = || Cell::new(Some(false));
        Self { marked: no(), sync_point: no(), sync_failed: Cell::new(false), noted: Cell::new(false) }
    }
}

/// Everything may have lost what was not synced.
fn suspect(sim: &Sim) {
    let mut history = sim.history.borrow_mut();
    history.partitions.values_mut().filter(|known| !known.deleted).for_each(|known| known.suspect = true);
}

/// Of topics that committed metadata says are deleted nothing is promised any more.
pub fn deleted(sim: &Sim, image: &MetadataImage) {
    let mut history = sim.history.borrow_mut();
    for (_, known) in history.partitions.iter_mut().filter(|(id, _)| image.is_deleted(id.topic_id)) {
        (known.deleted, known.suspect) = (true, false);
    }
}

impl Truth {
    /// What it is, if nothing is in doubt.
    #[must_use]
    pub fn certain(&self) -> Option<Self> {
        let certain = self.marked.get().is_some() && self.sync_point.get().is_some() && !self.sync_failed.get();
        certain.then(|| {
            let truth = Self::default();
            truth.is(self);
            truth
        })
    }

    /// The directory is another one now, of which this is true.
    pub fn is(&self, other: &Self) {
        self.marked.set(other.marked.get());
        self.sync_point.set(other.sync_point.get());
        self.sync_failed.set(other.sync_failed.get());
        self.noted.set(other.noted.get());
    }

    /// The machine went down, and its memory with it.
    pub fn rebooted(&self, sim: &Sim) {
        self.noted.set(false);
        suspect(sim);
    }

    /// A sync failed and its pages are gone; `said` is what came of taking the sync point back.
    pub fn sync_failed(&self, sim: &Sim, said: Option<bool>) {
        self.sync_failed.set(true);
        self.noted.set(false);
        suspect(sim);
        match said {
            Some(true) => self.sync_point.set(Some(false)),
            // It may be on the disk all the same.
            Some(false) if self.sync_point.get() == Some(true) => self.sync_point.set(None),
            _ => {}
        }
    }

    /// The directory was to be marked clean.
    pub fn closed(&self, marked: Option<bool>) {
        self.marked.set(marked);
    }

    /// What the directory says of its sync point was written, if that `succeeded`.
    pub fn sync_point_written(&self, holds: bool, succeeded: bool) {
        if !succeeded {
            if self.sync_point.get() != Some(holds) {
                self.sync_point.set(None);
            }
            return;
        }
        self.sync_point.set(Some(holds));
        self.sync_failed.set(self.sync_failed.get() && !holds);
    }

    /// Every log is noted.
    pub fn noted(&self) {
        self.noted.set(true);
    }

    /// The notes are gone, damaged or given up.
    pub fn notes_gone(&self) {
        self.noted.set(false);
    }

    /// Whether a start of this boot may believe the notes.
    #[must_use]
    pub fn has_notes(&self) -> bool {
        self.noted.get()
    }

    /// The directory could not be opened: nobody knows whether its marker is still there.
    pub fn not_opened(&self) {
        if self.marked.get() == Some(true) {
            self.marked.set(None);
        }
    }

    /// A start says how the directory was left; its marker is consumed.
    pub fn said(&self, sim: &Sim, said: RestartKind) {
        let marked = self.marked.replace(Some(false));
        let unmarked = match (self.sync_point.get(), self.noted.get()) {
            (Some(true), _) => [RestartKind::Durable; 2],
            (Some(false), true) => [RestartKind::SameBoot; 2],
            (Some(false), false) => [RestartKind::Lossy; 2],
            (None, true) => [RestartKind::Durable, RestartKind::SameBoot],
            (None, false) => [RestartKind::Durable, RestartKind::Lossy],
        };
        let right = match marked {
            Some(true) => said == RestartKind::Clean,
            Some(false) => unmarked.contains(&said),
            None => said == RestartKind::Clean || unmarked.contains(&said),
        };
        sim.require(right, "S7", || format!("a start says {said:?}; marked {marked:?}, otherwise {unmarked:?}"));
        let history = sim.history.borrow();
        let suspects: Vec<_> =
            history.partitions.iter().filter(|(_, known)| known.suspect).map(|(id, _)| *id).collect();
        let suspect = !suspects.is_empty();
        let page_cache = history.page_cache;
        drop(history);
        let unsure = self.sync_point.get().is_none();
        let holds = match said {
            RestartKind::Clean | RestartKind::Lossy => true,
            RestartKind::Durable => !page_cache && (unsure || !self.sync_failed.get()),
            RestartKind::SameBoot => !suspect,
        };
        sim.require(holds, "S7", || format!("a start says {said:?} over what may be lost: {suspects:?}"));
        match said {
            RestartKind::Durable => cover!("durable start"),
            RestartKind::SameBoot => cover!("same-boot start that trusts its notes"),
            RestartKind::Lossy if page_cache && suspect => cover!("lossy start of a page-cache directory"),
            RestartKind::Lossy if suspect => cover!("lossy start after a failed sync"),
            RestartKind::Clean | RestartKind::Lossy => {}
        }
    }
}

/// A start looked at the notes that it found.
pub fn notes_opened(sim: &Sim, truth: &Truth, believed: bool, disbelief: Option<Disbelief>, found: bool) {
    sim.note("notes", &[i64::from(believed), i64::from(found)]);
    match disbelief {
        Some(Disbelief::Damaged) => cover!("notes refused: damaged"),
        Some(Disbelief::Foreign) => cover!("notes refused: of another boot or directory"),
        Some(Disbelief::Incomplete) => cover!("notes refused: incomplete"),
        None if !found => cover!("no notes found"),
        None => {}
    }
    sim.require(believed == truth.has_notes(), "S7", || {
        format!("notes are believed: {believed}, and should be: {}; {disbelief:?}", truth.has_notes())
    });
}

/// A log is about to be opened by the first life of its replica: its pages count only if nothing can have taken them.
pub fn opening(sim: &Sim, partition: TopicPartition, start: Start, noted: bool, ending: Ending) {
    if start == Start::SameBoot {
        sim.require(ending != Ending::Lossy, "S7", || {
            format!("{partition:?}: its pages are trusted, and may have been lost")
        });
    }
    if start == Start::Unclean && noted {
        cover!("noted end trusted where the device was promised");
    }
}

/// Its logs have been recovered: a directory that says more than lossy has all that anybody was promised.
pub fn recovered(sim: &Sim, partition: TopicPartition, said: RestartKind, lost: bool) {
    sim.require(!lost || said == RestartKind::Lossy, "S7", || {
        format!("{partition:?} has lost what was promised, and its directory says {said:?}")
    });
}
