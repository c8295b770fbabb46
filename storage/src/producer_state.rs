//! What idempotent producers have written to one partition: the last five batches of each, so that a repeated one is known.
//! Invariant: the sequences of a producer's kept batches follow each other; at most `capacity` producers are kept.

use std::collections::{BTreeMap, BTreeSet};

use madang_protocol::record_batch::{BatchHeader, advance_sequence};
use madang_protocol::types::Offset;

use crate::format::{Fields, Kind, seal, unseal};
use crate::mutants::mutant;

/// Batches that are remembered of each producer.
pub const REMEMBERED_BATCHES: usize = 5;

/// A batch that a producer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducedBatch {
    /// Sequence of its first record.
    pub first_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Its base offset.
    pub base_offset: Offset,
    /// Its last offset.
    pub last_offset: Offset,
    /// Its `max_timestamp` in milliseconds.
    pub timestamp: i64,
}

/// Why a batch cannot be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// The producer has a newer epoch: `INVALID_PRODUCER_EPOCH`.
    #[error("the producer's epoch is {current}, the batch has {given}")]
    OldEpoch {
        /// The newest epoch that has written.
        current: i16,
        /// The batch's.
        given: i16,
    },
    /// The batch does not follow the last one: `OUT_OF_ORDER_SEQUENCE_NUMBER`.
    #[error("sequence {given} does not follow: {expected} is next")]
    OutOfOrder {
        /// What was to come.
        expected: i32,
        /// What came.
        given: i32,
        /// Where the producer's last batch ends, as far as it is known; -1 if none is.
        last_offset: Offset,
    },
}

/// What is known of one producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProducerEntry {
    epoch: i16,
    /// Oldest first; at most five.
    batches: Vec<ProducedBatch>,
    /// Wall clock in milliseconds of the last append.
    last_append: i64,
    turn: u64,
}

impl ProducerEntry {
    fn next_sequence(&self) -> Option<i32> {
        self.batches.last().map(|last| advance_sequence(last.last_sequence, 1))
    }
}

/// The producers of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerState {
    producers: BTreeMap<i64, ProducerEntry>,
    by_turn: BTreeSet<(u64, i64)>,
    next_turn: u64,
    capacity: usize,
    expiration: i64,
}

impl ProducerState {
    /// No producers; at most `capacity` are kept, each until it has been silent for `expiration` milliseconds.
    #[must_use]
    pub const fn new(capacity: usize, expiration: i64) -> Self {
        Self { producers: BTreeMap::new(), by_turn: BTreeSet::new(), next_turn: 0, capacity, expiration }
    }

    /// How many producers are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Each producer's id and the last offset of the oldest of its remembered batches below `end`: what is remembered once a crash has taken
    /// all from `end` on. Zero if all of them are newer: which older one would then be its last is not known.
    pub(crate) fn remembered_below(&self, end: Offset) -> impl Iterator<Item = (i64, Offset)> + '_ {
        let oldest =
            move |entry: &ProducerEntry| entry.batches.iter().map(|batch| batch.last_offset).find(|at| *at < end);
        self.producers.iter().map(move |(id, entry)| (*id, oldest(entry).unwrap_or(Offset::ZERO)))
    }

    pub(crate) const fn configure(&mut self, expiration: i64) {
        self.expiration = expiration;
    }

    /// Whether the batch is of a producer of which something is known (`wall` in milliseconds), or of none.
    #[must_use]
    pub fn knows(&self, batch: &BatchHeader, wall: i64) -> bool {
        let entry = self.producers.get(&batch.producer_id);
        !batch.has_producer_id() || entry.is_some_and(|entry| !self.is_expired(entry, wall))
    }

    /// Whether the batch may be appended now (`wall` in milliseconds). A batch that was appended before is answered with what it was then.
    ///
    /// # Errors
    /// The batch's epoch is old, or its sequence is not the next.
    pub fn check(&self, batch: &BatchHeader, wall: i64) -> Result<Option<ProducedBatch>, SequenceError> {
        if !batch.has_producer_id() || batch.is_control() {
            return Ok(None);
        }
        let known = self.producers.get(&batch.producer_id).filter(|entry| !self.is_expired(entry, wall));
        let Some(entry) = known else { return Ok(None) };
        if batch.producer_epoch < entry.epoch {
            return Err(SequenceError::OldEpoch { current: entry.epoch, given: batch.producer_epoch });
        }
        let last_offset = entry.batches.last().map_or(Offset(-1), |last| last.last_offset);
        if batch.producer_epoch > entry.epoch {
            return match batch.base_sequence {
                0 => Ok(None),
                given => Err(SequenceError::OutOfOrder { expected: 0, given, last_offset }),
            };
        }
        let (first, last) = (batch.base_sequence, batch.last_sequence());
        let same = |kept: &&ProducedBatch| kept.first_sequence == first && kept.last_sequence == last;
        if let Some(duplicate) = entry.batches.iter().find(same) {
            return Ok(Some(*duplicate));
        }
        match entry.next_sequence() {
            Some(expected) if expected != first => {
                Err(SequenceError::OutOfOrder { expected, given: first, last_offset })
            }
            _ => Ok(None),
        }
    }

    /// Notes an appended batch; answers what was known before of its producer, for [`ProducerState::restore`].
    pub(crate) fn note(&mut self, batch: &BatchHeader, wall: i64) -> Option<(i64, Option<ProducerEntry>)> {
        if !batch.has_producer_id() || batch.is_control() {
            return None;
        }
        let id = batch.producer_id;
        let before = self.producers.get(&id).cloned();
        let mut entry = match before.clone() {
            Some(entry) if entry.epoch == batch.producer_epoch && !self.is_expired(&entry, wall) => entry,
            _ => ProducerEntry { epoch: batch.producer_epoch, batches: Vec::new(), last_append: wall, turn: 0 },
        };
        if entry.batches.len() >= REMEMBERED_BATCHES - usize::from(mutant(14)) {
            entry.batches.remove(0);
        }
        entry.batches.push(ProducedBatch {
            first_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset: batch.base_offset,
            last_offset: batch.last_offset(),
            timestamp: batch.max_timestamp,
        });
        entry.last_append = wall;
        self.put(id, Some(entry));
        self.evict();
        Some((id, before))
    }

    /// Takes a [`ProducerState::note`] back.
    pub(crate) fn restore(&mut self, id: i64, entry: Option<ProducerEntry>) {
        self.put(id, entry);
    }

    fn put(&mut self, id: i64, entry: Option<ProducerEntry>) {
        if let Some(old) = self.producers.remove(&id) {
            self.by_turn.remove(&(old.turn, id));
        }
        if let Some(mut entry) = entry {
            entry.turn = self.next_turn;
            self.next_turn += 1;
            self.by_turn.insert((entry.turn, id));
            self.producers.insert(id, entry);
        }
    }

    fn evict(&mut self) {
        while self.producers.len() > self.capacity.max(1) {
            let Some((_, id)) = self.by_turn.pop_first() else { return };
            self.producers.remove(&id);
        }
    }

    const fn is_expired(&self, entry: &ProducerEntry, wall: i64) -> bool {
        wall.saturating_sub(entry.last_append) > self.expiration
    }

    /// Forgets producers that have been silent for too long; `wall` in milliseconds.
    pub fn expire(&mut self, wall: i64) {
        let silent: Vec<i64> =
            self.producers.iter().filter(|(_, entry)| self.is_expired(entry, wall)).map(|(id, _)| *id).collect();
        for id in silent {
            self.put(id, None);
        }
    }

    /// The bytes of a snapshot file, producers by their last use.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (_, id) in &self.by_turn {
            let Some(entry) = self.producers.get(id) else { continue };
            body.extend_from_slice(&id.to_be_bytes());
            body.extend_from_slice(&entry.epoch.to_be_bytes());
            body.extend_from_slice(&entry.last_append.to_be_bytes());
            body.push(u8::try_from(entry.batches.len()).unwrap_or(0));
            for batch in &entry.batches {
                body.extend_from_slice(&batch.first_sequence.to_be_bytes());
                body.extend_from_slice(&batch.last_sequence.to_be_bytes());
                body.extend_from_slice(&batch.base_offset.0.to_be_bytes());
                body.extend_from_slice(&batch.last_offset.0.to_be_bytes());
                body.extend_from_slice(&batch.timestamp.to_be_bytes());
            }
        }
        seal(Kind::Producers, &body)
    }

    /// Fills an empty state from a snapshot file; none if the file is damaged.
    #[must_use]
    pub fn filled(mut self, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(unseal(Kind::Producers, bytes)?);
        while !fields.0.is_empty() {
            let id = fields.i64()?;
            let epoch = fields.i16()?;
            let last_append = fields.i64()?;
            let count = usize::from(fields.take::<1>()?[0]);
            if count > REMEMBERED_BATCHES {
                return None;
            }
            let mut batches = Vec::with_capacity(count);
            for _ in 0..count {
                batches.push(ProducedBatch {
                    first_sequence: fields.i32()?,
                    last_sequence: fields.i32()?,
                    base_offset: Offset(fields.i64()?),
                    last_offset: Offset(fields.i64()?),
                    timestamp: fields.i64()?,
                });
            }
            self.put(id, Some(ProducerEntry { epoch, batches, last_append, turn: 0 }));
        }
        self.evict();
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::header;

    fn batch(id: i64, epoch: i16, first: i32, count: i32, offset: i64) -> BatchHeader {
        BatchHeader {
            producer_id: id,
            producer_epoch: epoch,
            base_sequence: first,
            last_offset_delta: count - 1,
            ..header(offset, count)
        }
    }

    fn state() -> ProducerState {
        ProducerState::new(3, 1000)
    }

    #[test]
    fn a_repeated_batch_is_answered_with_its_first_offset() {
        let mut state = state();
        for place in 0..6 {
            state.note(&batch(1, 0, place * 2, 2, 100 + i64::from(place) * 2), 0);
        }
        for place in 1..6 {
            let found = state.check(&batch(1, 0, place * 2, 2, 0), 0);
            assert_eq!(found.map(|found| found.map(|b| b.base_offset.0)), Ok(Some(100 + i64::from(place) * 2)));
        }
        let out_of_order =
            |first| Err(SequenceError::OutOfOrder { expected: 12, given: first, last_offset: Offset(111) });
        assert_eq!(state.check(&batch(1, 0, 0, 2, 0), 0), out_of_order(0));
        assert_eq!(state.check(&batch(1, 0, 10, 3, 0), 0), out_of_order(10));
        assert_eq!(state.check(&batch(1, 0, 13, 1, 0), 0), out_of_order(13));
        assert_eq!(state.check(&batch(1, 0, 12, 1, 0), 0), Ok(None));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut state = state();
        state.note(&batch(1, 0, i32::MAX - 1, 2, 0), 0);
        assert_eq!(state.check(&batch(1, 0, 0, 1, 0), 0), Ok(None));
        state.note(&batch(1, 0, i32::MAX, 3, 0), 0);
        assert_eq!(state.check(&batch(1, 0, 2, 1, 0), 0), Ok(None));
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_shuts_the_old_one_out() {
        let mut state = state();
        state.note(&batch(1, 4, 0, 1, 0), 0);
        assert!(matches!(state.check(&batch(1, 5, 1, 1, 0), 0), Err(SequenceError::OutOfOrder { .. })));
        assert_eq!(state.check(&batch(1, 5, 0, 1, 0), 0), Ok(None));
        state.note(&batch(1, 5, 0, 1, 1), 0);
        let old = Err(SequenceError::OldEpoch { current: 5, given: 4 });
        assert_eq!(state.check(&batch(1, 4, 1, 1, 0), 0), old);
    }

    #[test]
    fn an_unknown_or_expired_producer_may_start_anywhere() {
        assert!(state().knows(&batch(-1, -1, -1, 1, 0), 0) && !state().knows(&batch(1, 0, 0, 1, 0), 0));
        let mut state = state();
        assert_eq!(state.check(&batch(1, 0, 77, 1, 0), 0), Ok(None));
        state.note(&batch(1, 0, 77, 1, 0), 0);
        assert!(state.check(&batch(1, 0, 5, 1, 0), 1000).is_err());
        assert_eq!(state.check(&batch(1, 0, 5, 1, 0), 1001), Ok(None));
        state.expire(1001);
        assert!(state.is_empty());
    }

    #[test]
    fn the_longest_silent_producer_goes_first_and_a_snapshot_keeps_the_order() {
        let mut state = state();
        for id in 0..3 {
            state.note(&batch(id, 0, 0, 1, id), 0);
        }
        state.note(&batch(0, 0, 1, 1, 3), 0);
        let mut state = ProducerState::new(3, 1000).filled(&state.to_bytes()).expect("own snapshot");
        state.note(&batch(9, 0, 0, 1, 4), 0);
        assert_eq!(state.producers.keys().copied().collect::<Vec<_>>(), [0, 2, 9]);
    }

    #[test]
    fn a_note_can_be_taken_back() {
        let mut state = state();
        state.note(&batch(1, 0, 0, 1, 0), 0);
        let (id, before) = state.note(&batch(1, 0, 1, 1, 1), 0).expect("an idempotent batch");
        state.restore(id, before);
        assert_eq!(state.check(&batch(1, 0, 1, 1, 0), 0), Ok(None));
    }
}
