//! What of one batch stays. Decides over bytes; reads and writes no file.
//! Invariant: no offset, epoch, producer or sequence of what stays changes, and a batch of which all stays is not touched.

use std::collections::BTreeMap;

use bytes::Bytes;
use madang_protocol::compression::{Compression, Limits};
use madang_protocol::record::{Record, RecordSet};
use madang_protocol::record_batch::{BatchBuilder, BatchError, BatchHeader, BatchOptions, BatchView};
use madang_protocol::types::Offset;

use super::offset_map::OffsetMap;

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is copied as it is.
    Keep,
    /// It goes.
    Drop,
    /// These bytes take its place.
    Replace(Bytes),
}

/// What decides.
#[derive(Debug)]
pub(super) struct Filter<'a> {
    pub(super) map: &'a OffsetMap,
    /// The end of what the map was read from: records from here on stay.
    pub(super) reach: Offset,
    /// Batches that end up to here went through an earlier pass, so a delete horizon in them is of this cleaner. One beyond it may be a
    /// client's own, which would drop its tombstones before their time.
    pub(super) first_dirty_offset: Offset,
    /// Wall clock in milliseconds.
    pub(super) now: i64,
    /// The delete horizon, in milliseconds, of a tombstone that is met for the first time.
    pub(super) horizon: i64,
    /// Of each idempotent producer the last offset of the batch from which on its batches stay, if only without their records: so its
    /// sequences are known whatever a crash takes above the high watermark.
    pub(super) producers: &'a BTreeMap<i64, Offset>,
}

/// How much the records of one batch may be. Whoever let it in had a limit, which may have been higher than today's; the ratio is always the same.
pub(super) fn limits() -> Limits {
    Limits { max_bytes: i32::MAX as usize, ..Limits::default() }
}

impl Filter<'_> {
    /// Judges a batch whose CRC is right. A batch of which no record stays is kept without records if it is remembered of its producer, or
    /// is the `last` of a segment: so the next sequence stays known, and a segment ends where the next one begins.
    pub(super) fn judge(&self, batch: &BatchView<'_>, last: bool) -> Result<Verdict, BatchError> {
        let header = &batch.header;
        if header.is_control() || header.base_offset >= self.reach {
            return Ok(Verdict::Keep);
        }
        let keep_empty = last || self.is_remembered(header);
        if header.record_count == 0 {
            return Ok(if keep_empty { Verdict::Keep } else { Verdict::Drop });
        }
        let records = RecordSet::of(batch, &limits())?;
        let (mut kept, mut tombstones) = (0, false);
        for record in records.iter() {
            let record = record?;
            if self.stays(header, &record) {
                kept += 1;
                tombstones |= record.value.is_none();
            }
        }
        let stamp = tombstones && self.delete_horizon(header).is_none() && header.next_offset() <= self.reach;
        match kept {
            0 if keep_empty => Self::without_records(header).map(Verdict::Replace),
            0 => Ok(Verdict::Drop),
            _ if kept == header.record_count && !stamp => Ok(Verdict::Keep),
            _ => self.rebuild(header, &records, stamp).map(Verdict::Replace),
        }
    }

    fn is_remembered(&self, header: &BatchHeader) -> bool {
        let from = self.producers.get(&header.producer_id).filter(|_| header.has_producer_id());
        from.is_some_and(|from| header.last_offset() >= *from)
    }

    fn delete_horizon(&self, header: &BatchHeader) -> Option<i64> {
        header.delete_horizon().filter(|_| header.next_offset() <= self.first_dirty_offset)
    }

    fn stays(&self, header: &BatchHeader, record: &Record<'_>) -> bool {
        let offset = record.offset(header);
        if offset >= self.reach {
            return true;
        }
        // A compacted topic takes none without a key; one is left from a time when it was not compacted.
        let Some(key) = record.key else { return false };
        let newest = self.map.get(key).is_none_or(|newest| offset >= newest);
        let expired = self.delete_horizon(header).is_some_and(|horizon| self.now >= horizon);
        newest && (record.value.is_some() || !expired)
    }

    fn rebuild(&self, header: &BatchHeader, records: &RecordSet<'_>, stamp: bool) -> Result<Bytes, BatchError> {
        let options = BatchOptions::retaining(header, Compression::of(header.codec()?));
        let mut options = BatchOptions { delete_horizon: self.delete_horizon(header), ..options };
        if stamp {
            options.delete_horizon = Some(self.horizon);
        }
        let mut builder = BatchBuilder::new(options);
        for record in records.iter() {
            let record = record?;
            if self.stays(header, &record) {
                let (offset, timestamp) = (record.offset(header), record.timestamp(header));
                builder.append_at(offset, timestamp, record.key, record.value, record.headers)?;
            }
        }
        builder.build()
    }

    fn without_records(header: &BatchHeader) -> Result<Bytes, BatchError> {
        let options = BatchOptions::retaining(header, Compression::NONE);
        BatchBuilder::new(BatchOptions { delete_horizon: None, ..options }).build()
    }
}
