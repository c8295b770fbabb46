//! What readers on other threads see of a log: one immutable snapshot, cheap to make after each batch.
//! Invariant: all that a view answers is of one moment; nothing on the read path locks or asks the writer.

use std::io;
use std::sync::Arc;

use madang_protocol::payload::{Payload, Region};
use madang_protocol::types::{LeaderEpoch, Offset};

use crate::leader_epochs::LeaderEpochs;
use crate::records;
use crate::region::FileRegion;
use crate::segment::{ActiveSegment, BatchStart, Recent, SealedSegment, SegmentView, Summary};

/// Segments that one read touches at most.
const SEGMENTS_PER_READ: usize = 8;

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is below the log's start or above its end: `OFFSET_OUT_OF_RANGE`.
    #[error("offset {asked} is outside of {log_start_offset}..={log_end_offset}")]
    OutOfRange {
        /// What was asked for.
        asked: Offset,
        /// The view's start.
        log_start_offset: Offset,
        /// The view's end.
        log_end_offset: Offset,
    },
    /// The segment was deleted after this view was made: read again through a newer one.
    #[error("the segment was deleted since")]
    Stale,
    /// The file cannot be read, or does not hold what it should: `KAFKA_STORAGE_ERROR`.
    #[error("the log cannot be read: {0}")]
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::Stale } else { Self::Io(error) }
    }
}

/// What a read found.
#[derive(Clone, Debug, Default)]
pub struct ReadResult {
    /// Whole batches; empty if there are none below the bound.
    pub records: Payload,
    /// Length of `records` in bytes.
    pub size: usize,
    /// Base offset of the first batch, at most the offset that was asked for unless compaction removed it; the asked one if empty.
    pub first_offset: Offset,
    /// Where the next read goes on; the asked offset if empty.
    pub next_offset: Offset,
}

/// A record found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampAndOffset {
    /// The record's offset.
    pub offset: Offset,
    /// The record's own timestamp in milliseconds.
    pub timestamp: i64,
    /// The epoch that wrote it.
    pub leader_epoch: LeaderEpoch,
}

/// A snapshot of one log. Cloning it costs a few reference counts.
#[derive(Clone, Debug)]
pub struct LogView {
    pub(crate) log_start_offset: Offset,
    pub(crate) sealed: Arc<[Arc<SealedSegment>]>,
    pub(crate) active: Arc<ActiveSegment>,
    pub(crate) summary: Summary,
    pub(crate) entries: usize,
    pub(crate) recent: Recent,
    pub(crate) epochs: Arc<LeaderEpochs>,
    pub(crate) warm_bytes: u64,
}

impl LogView {
    /// The first offset that may be read.
    #[must_use]
    pub const fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// The offset that the next record will get.
    #[must_use]
    pub const fn log_end_offset(&self) -> Offset {
        self.summary.next_offset
    }

    /// The leader epochs, oldest first.
    #[must_use]
    pub const fn leader_epochs(&self) -> &Arc<LeaderEpochs> {
        &self.epochs
    }

    /// The newest leader epoch of the log.
    #[must_use]
    pub fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest().map(|last| last.epoch)
    }

    /// The largest epoch not above `epoch` and its end offset; none if nothing is known of it.
    #[must_use]
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end_offset_for(epoch, self.log_end_offset())
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn size_in_bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.summary.size).sum::<u64>() + self.summary.size
    }

    /// Bytes of the batches from the one that contains `from` on: a consumer's lag in bytes, roughly.
    #[must_use]
    pub fn size_after(&self, from: Offset) -> u64 {
        let later = |segment: &&Arc<SealedSegment>| segment.summary.next_offset > from;
        let sealed: u64 = self.sealed.iter().rev().take_while(later).map(|segment| segment.summary.size).sum();
        sealed + if from < self.log_end_offset() { self.summary.size } else { 0 }
    }

    fn segment(&self, at: usize) -> Option<SegmentView<'_>> {
        match self.sealed.get(at) {
            Some(segment) => Some(SegmentView::Sealed(segment)),
            None if at == self.sealed.len() => Some(SegmentView::Active {
                segment: &self.active,
                summary: self.summary,
                entries: self.entries,
                recent: &self.recent,
            }),
            None => None,
        }
    }

    /// The segment in which `offset` is, or would be.
    fn segment_of(&self, offset: Offset) -> usize {
        if offset >= self.active.base_offset {
            return self.sealed.len();
        }
        self.sealed.partition_point(|segment| segment.base_offset <= offset).saturating_sub(1)
    }

    /// Reads whole batches, from the one that contains `from`, all of them below `upper` (the high watermark, the last stable offset or the
    /// log end, which are bounds of batches). At most `max_bytes`; if the first batch alone is longer, it is answered if `at_least_one`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(
        &self,
        from: Offset,
        upper: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<ReadResult, ReadError> {
        let log_end_offset = self.log_end_offset();
        if from < self.log_start_offset || from > log_end_offset {
            let log_start_offset = self.log_start_offset;
            return Err(ReadError::OutOfRange { asked: from, log_start_offset, log_end_offset });
        }
        let upper = upper.min(log_end_offset);
        let mut regions: Vec<Arc<dyn Region>> = Vec::new();
        let mut result = ReadResult { first_offset: from, next_offset: from, ..ReadResult::default() };
        let first = self.segment_of(from);
        for at in first..first + SEGMENTS_PER_READ {
            let Some(segment) = self.segment(at) else { break };
            if result.next_offset >= upper {
                break;
            }
            let Some(start) = segment.locate(result.next_offset)? else { continue };
            let left = max_bytes.saturating_sub(result.size) as u64;
            let end = Self::read_end(&segment, start, upper, left, at_least_one && regions.is_empty())?;
            let length = usize::try_from(end.position - start.position).unwrap_or(0);
            if length == 0 {
                break;
            }
            if regions.is_empty() {
                result.first_offset = start.offset;
            }
            let warm = self.is_warm(&segment, start.position);
            regions.push(Arc::new(FileRegion::new(segment.file(), start.position, length, warm)?));
            result.size += length;
            result.next_offset = end.offset;
            if end.position < segment.summary().size {
                break;
            }
        }
        if !regions.is_empty() {
            result.records = Payload::Regions(regions.into());
        }
        Ok(result)
    }

    fn read_end(
        segment: &SegmentView<'_>,
        start: BatchStart,
        upper: Offset,
        left: u64,
        at_least_one: bool,
    ) -> io::Result<BatchStart> {
        if start.offset >= upper {
            return Ok(start);
        }
        let end = segment.end_of_read(start, upper, left)?;
        if end.position > start.position || !at_least_one {
            return Ok(end);
        }
        match segment.header_at(start.position)? {
            Some(first) if first.next_offset() <= upper => {
                Ok(BatchStart { position: start.position + first.size_in_bytes() as u64, offset: first.next_offset() })
            }
            _ => Ok(start),
        }
    }

    /// Whether all from `position` on lies in the last bytes that this process appended.
    fn is_warm(&self, segment: &SegmentView<'_>, position: u64) -> bool {
        let base = segment.base_offset();
        let mut distance = segment.summary().size - position;
        for later in self.sealed.iter().rev().take_while(|later| later.base_offset > base) {
            distance += later.summary.size;
        }
        if base < self.active.base_offset {
            distance += self.summary.size;
        }
        distance <= self.warm_bytes
    }

    /// Whether a [`LogView::read`] from `from` finds its place without a read that may wait for the device: in memory, or in bytes that
    /// this process appended last. Looks at no file itself.
    #[must_use]
    pub fn finds_without_waiting(&self, from: Offset) -> bool {
        if from < self.log_start_offset || from >= self.log_end_offset() {
            return true;
        }
        let segment = self.segment(self.segment_of(from));
        segment.is_some_and(|segment| self.is_warm(&segment, segment.nearest_known(from)))
    }

    /// The first record, not batch, whose timestamp is at least `timestamp` (milliseconds), below `upper`. Reads and decompresses the
    /// batches that may hold it, as a rule one.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn offset_for_timestamp(&self, timestamp: i64, upper: Offset) -> Result<Option<TimestampAndOffset>, ReadError> {
        let first = self.segment_of(self.log_start_offset);
        for at in first..=self.sealed.len() {
            let Some(segment) = self.segment(at) else { break };
            if segment.base_offset() >= upper {
                break;
            }
            if segment.summary().max_timestamp < timestamp {
                continue;
            }
            let mut walk = segment.walk_by_time(timestamp)?;
            while let Some((position, header)) = walk.next()? {
                if header.base_offset >= upper {
                    return Ok(None);
                }
                if header.max_timestamp < timestamp || header.next_offset() <= self.log_start_offset {
                    continue;
                }
                let from = self.log_start_offset;
                let bytes = records::read_batch(segment.file().as_ref(), position, &header)?;
                if let Some((offset, timestamp)) = records::first_at_or_after(&bytes, timestamp, from)? {
                    let leader_epoch = header.partition_leader_epoch;
                    return Ok((offset < upper).then_some(TimestampAndOffset { offset, timestamp, leader_epoch }));
                }
            }
        }
        Ok(None)
    }

    /// The first record with the highest timestamp of the log; none if there is no record. Reads one batch.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn max_timestamp(&self) -> Result<Option<TimestampAndOffset>, ReadError> {
        let mut highest = -1;
        for at in self.segment_of(self.log_start_offset)..=self.sealed.len() {
            if let Some(segment) = self.segment(at) {
                highest = segment.summary().max_timestamp.max(highest);
            }
        }
        if highest < 0 {
            return Ok(None);
        }
        match self.offset_for_timestamp(highest, self.log_end_offset())? {
            Some(found) => Ok(Some(found)),
            None => self.max_timestamp_of_records(),
        }
    }

    /// As [`LogView::max_timestamp`], where the highest time is that of a batch without records, which compaction leaves, or of records
    /// before the log's start: looks at every header, and into the batch that the log starts in.
    fn max_timestamp_of_records(&self) -> Result<Option<TimestampAndOffset>, ReadError> {
        let (mut highest, from) = (-1, self.log_start_offset);
        for at in self.segment_of(from)..=self.sealed.len() {
            let Some(segment) = self.segment(at) else { break };
            let mut walk = segment.walk_by_time(i64::MIN)?;
            while let Some((position, header)) = walk.next()? {
                if header.record_count == 0 || header.is_control() || header.next_offset() <= from {
                    continue;
                }
                let of_batch = if header.base_offset >= from {
                    header.max_timestamp
                } else {
                    let bytes = records::read_batch(segment.file().as_ref(), position, &header)?;
                    records::highest_from(&bytes, from)?
                };
                highest = highest.max(of_batch);
            }
        }
        if highest < 0 { Ok(None) } else { self.offset_for_timestamp(highest, self.log_end_offset()) }
    }
}
