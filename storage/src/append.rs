//! Appending as leader: offsets, epochs, one write, and only then the state.
//! Invariant: what is not wholly in the file is in no state that a reader or a later batch sees.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use madang_actors::clock::Wall;
use madang_protocol::record_batch::{BatchError, BatchHeader, ValidatedBatch, layout, stamp};
use madang_protocol::types::{LeaderEpoch, Offset};

use crate::config::millis;
use crate::log::{Log, LogError};
use crate::mutants::mutant;
use crate::producer_state::{ProducerEntry, SequenceError};

/// Bytes at a batch's start that the leader may overwrite.
pub(crate) const HEAD: usize = layout::MAGIC;

/// A validated batch on its way into the log. Its offset and epoch are still the producer's.
#[derive(Clone, Debug)]
pub struct BatchToAppend {
    bytes: Bytes,
    header: BatchHeader,
}

impl BatchToAppend {
    /// Takes exactly one whole batch that was validated: CRC, records and counts are not looked at again.
    ///
    /// # Errors
    /// The bytes are not one whole batch of format v2.
    pub fn new(bytes: Bytes) -> Result<Self, BatchError> {
        let header = BatchHeader::parse(&bytes)?;
        let (needed, present) = (header.size_in_bytes(), bytes.len());
        if present < needed {
            return Err(BatchError::Torn { needed: needed as u64, present: present as u64 });
        }
        if present > needed {
            return Err(BatchError::TrailingBytes);
        }
        if header.last_offset_delta < 0 {
            return Err(BatchError::Header("the last offset is below the base offset"));
        }
        Ok(Self { bytes, header })
    }

    /// The header as it is now.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    pub(crate) const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Length in bytes.
    #[must_use]
    pub fn size_in_bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// What validation found sound needs no second look.
impl From<ValidatedBatch> for BatchToAppend {
    fn from(batch: ValidatedBatch) -> Self {
        Self { bytes: batch.bytes, header: batch.header }
    }
}

/// Where a batch is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Its highest timestamp in milliseconds.
    pub max_timestamp: i64,
}

/// What became of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendOutcome {
    /// It is in the log.
    Appended(Appended),
    /// The same batch was there already; nothing was appended. Under acks=all its answer waits for the original's high watermark.
    Duplicate(Appended),
    /// Its producer may not write it; nothing was appended.
    Refused(SequenceError),
    /// It is longer than a segment may be: `RECORD_LIST_TOO_LARGE`; nothing was appended.
    TooLarge,
}

/// The write failed. Nothing of the batches after `outcomes` is in any view.
#[derive(Debug, thiserror::Error)]
#[error("append failed: {source}")]
pub struct AppendError {
    /// What became of the first batches, which were written before: as in a success. The rest failed.
    pub outcomes: Vec<AppendOutcome>,
    /// Whether the file was cut back to its published end. If so the failure of the rest is definite and the log can go on; if not, whether
    /// they were appended is not known until the log was reopened.
    pub definite: bool,
    /// What the disk said.
    pub source: io::Error,
}

/// A batch with its offset, not written yet.
pub(crate) struct Placed {
    pub(crate) place: usize,
    pub(crate) head: [u8; HEAD],
    pub(crate) header: BatchHeader,
    pub(crate) undo: Option<(i64, Option<ProducerEntry>)>,
}

impl Log {
    /// Appends what one drained mailbox holds, in order, with one vectored write for each segment that it touches. Each batch is checked
    /// against its producer's sequence, gets its offsets and `leader_epoch`, and is stored as it is otherwise; the bytes are not copied.
    ///
    /// Nothing is durable until a sync is confirmed: see [`Log::take_dirty`].
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append_as_leader(
        &mut self,
        batches: &[BatchToAppend],
        leader_epoch: LeaderEpoch,
        wall: Wall,
    ) -> Result<Vec<AppendOutcome>, AppendError> {
        let mut outcomes = Vec::with_capacity(batches.len());
        if !self.is_settled() {
            return Err(AppendError { outcomes, definite: true, source: io::Error::other(LogError::Broken) });
        }
        let mut group: Vec<Placed> = Vec::new();
        // The first outcome that depends on the group that is not written yet.
        let mut written = 0;
        let mut next_offset = self.log_end_offset();
        let mut size = self.active.summary.size;
        for (place, batch) in batches.iter().enumerate() {
            let outcome = self.judge(batch, wall);
            if let Some(outcome) = outcome {
                outcomes.push(outcome);
                continue;
            }
            if self.must_roll(batch, size, next_offset, wall) {
                if let Err((definite, source)) = self.write_group(batches, &mut group, leader_epoch, wall) {
                    outcomes.truncate(written);
                    return Err(AppendError { outcomes, definite, source });
                }
                written = outcomes.len();
                if let Err(error) = self.roll(wall) {
                    return Err(AppendError { outcomes, definite: true, source: io::Error::other(error) });
                }
                size = 0;
            }
            let placed = self.place(place, batch, next_offset, leader_epoch, wall);
            next_offset = placed.header.next_offset();
            size += batch.bytes.len() as u64;
            outcomes.push(AppendOutcome::Appended(appended(&placed.header)));
            group.push(placed);
        }
        match self.write_group(batches, &mut group, leader_epoch, wall) {
            Ok(()) => Ok(outcomes),
            Err((definite, source)) => {
                outcomes.truncate(written);
                Err(AppendError { outcomes, definite, source })
            }
        }
    }

    /// What becomes of a batch that is not to be written; none if it is.
    fn judge(&self, batch: &BatchToAppend, wall: Wall) -> Option<AppendOutcome> {
        if batch.bytes.len() as u64 > self.config.max_segment_bytes() {
            return Some(AppendOutcome::TooLarge);
        }
        match self.producers.check(&batch.header, wall.as_millis()) {
            Err(error) => Some(AppendOutcome::Refused(error)),
            Ok(Some(first)) => Some(AppendOutcome::Duplicate(Appended {
                base_offset: if mutant(15) { self.log_end_offset() } else { first.base_offset },
                last_offset: first.last_offset,
                max_timestamp: first.timestamp,
            })),
            Ok(None) => None,
        }
    }

    pub(crate) fn must_roll(&self, batch: &BatchToAppend, size: u64, next_offset: Offset, wall: Wall) -> bool {
        if size == 0 {
            return false;
        }
        let last = next_offset + i64::from(batch.header.last_offset_delta);
        let too_long = size + batch.bytes.len() as u64 > self.config.max_segment_bytes();
        let too_far = last - self.active.segment.base_offset > i64::from(i32::MAX);
        let index_full = self.active.entries >= self.config.max_index_entries();
        too_long || too_far || index_full || self.is_old(batch.header.max_timestamp, wall)
    }

    /// Whether the active segment is older than `segment.ms` allows, by its records' time if they have one.
    fn is_old(&self, timestamp: i64, wall: Wall) -> bool {
        let limit = millis(self.config.segment_age).saturating_sub(self.jitter).max(1);
        let age = match self.active.first_timestamp {
            Some(first) if timestamp >= 0 => timestamp.saturating_sub(first),
            _ if self.active.created >= 0 => wall.as_millis().saturating_sub(self.active.created),
            _ => 0,
        };
        age > limit
    }

    /// Gives a batch its place; the producer's state moves at once, so that the next batch of the same call is judged by it.
    fn place(
        &mut self,
        place: usize,
        batch: &BatchToAppend,
        base_offset: Offset,
        leader_epoch: LeaderEpoch,
        wall: Wall,
    ) -> Placed {
        let header = BatchHeader { base_offset, partition_leader_epoch: leader_epoch, ..batch.header };
        let mut head = [0; HEAD];
        for (to, from) in head.iter_mut().zip(batch.bytes.iter()) {
            *to = *from;
        }
        stamp(&mut head, base_offset, leader_epoch);
        let undo = self.producers.note(&header, wall.as_millis());
        Placed { place, head, header, undo }
    }

    /// Writes the group at the end of the active segment, and takes it into the state if all of it is there.
    pub(crate) fn write_group(
        &mut self,
        batches: &[BatchToAppend],
        group: &mut Vec<Placed>,
        leader_epoch: LeaderEpoch,
        wall: Wall,
    ) -> Result<(), (bool, io::Error)> {
        let Some(first) = group.first() else { return Ok(()) };
        let first_offset = first.header.base_offset;
        let mut slices = Vec::with_capacity(group.len() * 2);
        for placed in group.iter() {
            if let Some(batch) = batches.get(placed.place) {
                slices.push(IoSlice::new(&placed.head));
                slices.push(IoSlice::new(batch.bytes.get(HEAD..).unwrap_or_default()));
            }
        }
        let file = Arc::clone(&self.active.segment.file);
        let size = self.active.summary.size;
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        self.active.reserved.make_room(file.as_ref(), size, bytes as u64, self.config.max_segment_bytes());
        if let Err(source) = file.write_at(size, &slices) {
            drop(slices);
            return Err((self.take_back(group), source));
        }
        drop(slices);
        let before = self.active.summary.size;
        let records = |placed: &Placed| u64::try_from(placed.header.last_offset_delta).unwrap_or(0) + 1;
        let count: u64 = group.iter().map(records).sum();
        for placed in group.drain(..) {
            self.active.note(&placed.header, true);
        }
        self.appended = (self.appended + self.active.summary.size - before).min(self.config.warm_bytes);
        self.unsynced_messages += count;
        self.unsynced_since.get_or_insert(wall.as_millis());
        self.sync.dirty_file(&file);
        self.note_epoch(leader_epoch, first_offset);
        self.note_active();
        Ok(())
    }

    /// The batches carry the epoch too, so a checkpoint that cannot be written now is written with the next one.
    fn note_epoch(&mut self, epoch: LeaderEpoch, first_offset: Offset) {
        let known = self.epochs.latest().is_some_and(|last| last.epoch == epoch);
        if !known
            && Arc::make_mut(&mut self.epochs).assign(epoch, first_offset)
            && let Err(error) = self.write_epochs()
        {
            tracing::warn!(directory = %self.directory.display(), %error, "leader epochs not written");
        }
    }

    /// Forgets a group whose write failed, and cuts the file back to its published end; answers whether that succeeded.
    fn take_back(&mut self, group: &mut Vec<Placed>) -> bool {
        for placed in group.drain(..).rev() {
            if let Some((id, before)) = placed.undo {
                self.producers.restore(id, before);
            }
        }
        let (file, end) = (&self.active.segment.file, self.active.summary.size);
        let cut = file.truncate(end).and_then(|()| file.len()).is_ok_and(|length| length == end);
        self.broken = !cut;
        // A cut is a change too: bytes that were cut could be back after a power cut, and are found and cut again by recovery.
        self.sync.dirty_file(&Arc::clone(&self.active.segment.file));
        cut
    }
}

fn appended(header: &BatchHeader) -> Appended {
    Appended { base_offset: header.base_offset, last_offset: header.last_offset(), max_timestamp: header.max_timestamp }
}
