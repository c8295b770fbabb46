//! Which leader epoch wrote from which offset on.
//! Invariant: epochs and start offsets both rise strictly from entry to entry.

use madang_protocol::types::{LeaderEpoch, Offset};

use crate::format::{Fields, Kind, seal, unseal};

/// An epoch and the first offset that its leader wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Its first offset in this log.
    pub start_offset: Offset,
}

/// The epochs of one log, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<EpochStart>,
}

impl LeaderEpochs {
    /// All entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The newest epoch with a record, or with a start, in the log.
    #[must_use]
    pub fn latest(&self) -> Option<EpochStart> {
        self.entries.last().copied()
    }

    /// Notes that `epoch` writes from `start_offset` on; answers whether anything changed. Entries that it contradicts (the same or a newer
    /// epoch, the same or a higher offset) go. Epochs below 0 are not noted.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        if epoch < LeaderEpoch(0) {
            return false;
        }
        if self.latest().is_some_and(|last| last.epoch == epoch && last.start_offset <= start_offset) {
            return false;
        }
        self.entries.retain(|entry| entry.epoch < epoch && entry.start_offset < start_offset);
        self.entries.push(EpochStart { epoch, start_offset });
        true
    }

    /// The largest epoch not above `epoch`, and where it ended: the start of the next one, or `log_end_offset`.
    #[must_use]
    pub fn end_offset_for(&self, epoch: LeaderEpoch, log_end_offset: Offset) -> Option<(LeaderEpoch, Offset)> {
        if epoch < LeaderEpoch(0) {
            return None;
        }
        let after = self.entries.partition_point(|entry| entry.epoch <= epoch);
        // Newer than all that is known: nothing can be said about it.
        if after == self.entries.len() && self.latest().is_none_or(|last| last.epoch < epoch) {
            return None;
        }
        let end = self.entries.get(after).map_or(log_end_offset, |next| next.start_offset);
        Some(match after.checked_sub(1).and_then(|at| self.entries.get(at)) {
            Some(entry) => (entry.epoch, end),
            // Older than all that is known: it ended before the first.
            None => (epoch, end),
        })
    }

    /// The epoch that wrote `offset`.
    #[must_use]
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).and_then(|at| self.entries.get(at)).map(|entry| entry.epoch)
    }

    /// Forgets what starts at `end` or later; answers whether anything changed.
    pub fn truncate_from_end(&mut self, end: Offset) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.start_offset < end);
        self.entries.len() != before
    }

    /// Forgets what ended at `start` or earlier; the epoch that spans it starts there. Answers whether anything changed.
    pub fn truncate_from_start(&mut self, start: Offset) -> bool {
        let spanning = self.entries.partition_point(|entry| entry.start_offset <= start).saturating_sub(1);
        let moved = self.entries.get(spanning).is_some_and(|entry| entry.start_offset < start);
        self.entries.drain(..spanning);
        if moved && let Some(first) = self.entries.first_mut() {
            first.start_offset = start;
        }
        moved || spanning > 0
    }

    /// The bytes of the checkpoint file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.entries.len() * 12);
        for entry in &self.entries {
            body.extend_from_slice(&entry.epoch.0.to_be_bytes());
            body.extend_from_slice(&entry.start_offset.0.to_be_bytes());
        }
        seal(Kind::LeaderEpochs, &body)
    }

    /// Reads the checkpoint file; none if it is damaged or not in order.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(unseal(Kind::LeaderEpochs, bytes)?);
        let mut entries: Vec<EpochStart> = Vec::new();
        while !fields.0.is_empty() {
            let entry = EpochStart { epoch: LeaderEpoch(fields.i32()?), start_offset: Offset(fields.i64()?) };
            let in_order =
                entries.last().is_none_or(|last| last.epoch < entry.epoch && last.start_offset < entry.start_offset);
            if !in_order || entry.epoch.0 < 0 || entry.start_offset.0 < 0 {
                return None;
            }
            entries.push(entry);
        }
        Some(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for (epoch, start) in entries {
            assert!(epochs.assign(LeaderEpoch(*epoch), Offset(*start)));
        }
        epochs
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_starts() {
        let epochs = epochs(&[(2, 10), (4, 20), (7, 30)]);
        let end = |epoch| epochs.end_offset_for(LeaderEpoch(epoch), Offset(40)).map(|(epoch, end)| (epoch.0, end.0));
        assert_eq!(end(2), Some((2, 20)));
        assert_eq!(end(3), Some((2, 20)));
        assert_eq!(end(6), Some((4, 30)));
        assert_eq!(end(7), Some((7, 40)));
        assert_eq!(end(8), None);
        assert_eq!(end(1), Some((1, 10)));
        assert_eq!(end(-1), None);
    }

    #[test]
    fn a_contradicted_entry_goes() {
        let mut epochs = epochs(&[(2, 10), (4, 20)]);
        assert!(epochs.assign(LeaderEpoch(5), Offset(20)));
        assert_eq!(epochs.entries().len(), 2);
        assert!(!epochs.assign(LeaderEpoch(5), Offset(25)));
        assert_eq!(epochs.latest().map(|last| last.start_offset), Some(Offset(20)));
    }

    #[test]
    fn truncation_keeps_the_spanning_epoch() {
        let mut epochs = epochs(&[(2, 10), (4, 20), (7, 30)]);
        assert!(epochs.truncate_from_start(Offset(25)));
        assert_eq!(epochs.entries()[0], EpochStart { epoch: LeaderEpoch(4), start_offset: Offset(25) });
        assert!(epochs.truncate_from_end(Offset(30)));
        assert_eq!(epochs.entries().len(), 1);
        assert_eq!(LeaderEpochs::from_bytes(&epochs.to_bytes()), Some(epochs));
    }
}
