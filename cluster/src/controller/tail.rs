//! The entries since the last snapshot in memory: what Raft reads.
//! Invariant: entries follow the snapshot without a gap; what Raft reads here may not be durable yet.

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::raft_log::{Loaded, StoredSnapshot};

/// Raft's view of the log.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) snapshot: StoredSnapshot,
    pub(super) hard_state: HardState,
    pub(super) entries: Vec<Entry>,
}

impl Tail {
    pub(super) fn new(loaded: Loaded) -> Self {
        let mut hard_state = loaded.hard_state;
        hard_state.commit = hard_state.commit.max(loaded.snapshot.meta.index);
        hard_state.term = hard_state.term.max(loaded.snapshot.meta.term);
        Self { snapshot: loaded.snapshot, hard_state, entries: loaded.entries }
    }

    /// Takes entries, which replace those from the first one's index on.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        if let Some(first) = entries.first() {
            let keep = first.index.saturating_sub(self.first()) as usize;
            self.entries.truncate(keep);
            self.entries.extend_from_slice(entries);
        }
    }

    /// Makes `snapshot` the start and drops what it contains.
    pub(super) fn compact(&mut self, snapshot: StoredSnapshot) {
        let index = snapshot.meta.index;
        self.entries.retain(|entry| entry.index > index);
        self.snapshot = snapshot;
    }

    pub(super) fn after(&self, index: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.index > index)
    }

    fn first(&self) -> u64 {
        self.snapshot.meta.index + 1
    }

    fn last(&self) -> u64 {
        self.snapshot.meta.index + self.entries.len() as u64
    }

    fn conf_state(&self) -> ConfState {
        self.snapshot.meta.members.state()
    }
}

impl Storage for Tail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let (from, to) = ((low - self.first()) as usize, (high - self.first()) as usize);
        let mut entries = self.entries[from..to].to_vec();
        raft::util::limit_size(&mut entries, max.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.snapshot.meta.index {
            return Ok(self.snapshot.meta.term);
        }
        let place = index.checked_sub(self.first()).ok_or(StorageError::Compacted)?;
        Ok(self.entries.get(place as usize).ok_or(StorageError::Unavailable)?.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        if self.snapshot.meta.index < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = Snapshot::default();
        snapshot.data = self.snapshot.records.clone().into();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.snapshot.meta.index;
        metadata.term = self.snapshot.meta.term;
        *metadata.mut_conf_state() = self.conf_state();
        Ok(snapshot)
    }
}
