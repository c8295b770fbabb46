//! Writing batches: for internal topics, for the cleaner, which keeps offsets and their gaps, and for clients.
//! Invariant: a built batch passes every check of a leader, unless it was asked to keep gaps, control records or no record.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    BatchError, BatchHeader, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType, layout,
    write_crc,
};
use crate::compression::{Codec, Compression, compress};
use crate::record::{ControlRecord, write_record};
use crate::types::{LeaderEpoch, Offset};

/// What a batch has besides its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Offset of the batch. Clients write 0.
    pub base_offset: Offset,
    /// Epoch of the leader.
    pub leader_epoch: LeaderEpoch,
    /// Codec and level.
    pub compression: Compression,
    /// The idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Part of a transaction.
    pub transactional: bool,
    /// Holds control records.
    pub control: bool,
    /// Whose clock; with `LogAppendTime` the batch's time is the highest timestamp appended.
    pub timestamp_type: TimestampType,
    /// Milliseconds from which tombstones and markers of this batch may be removed.
    pub delete_horizon: Option<i64>,
    /// The last offset that the batch takes, where it is not the last record's: compaction keeps it.
    pub last_offset: Option<Offset>,
    /// The time, in milliseconds, of a batch that no record is left in.
    pub empty_timestamp: i64,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch::NONE,
            compression: Compression::NONE,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            transactional: false,
            control: false,
            timestamp_type: TimestampType::CreateTime,
            delete_horizon: None,
            last_offset: None,
            empty_timestamp: NO_TIMESTAMP,
        }
    }
}

impl BatchOptions {
    /// The options under which the cleaner rewrites a batch: offsets, epoch, producer and flags stay.
    #[must_use]
    pub fn retaining(header: &BatchHeader, compression: Compression) -> Self {
        Self {
            base_offset: header.base_offset,
            leader_epoch: header.partition_leader_epoch,
            compression,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            transactional: header.is_transactional(),
            control: header.is_control(),
            timestamp_type: header.timestamp_type(),
            delete_horizon: header.delete_horizon(),
            last_offset: Some(header.last_offset()),
            empty_timestamp: header.max_timestamp,
        }
    }
}

/// Collects records and writes them as one batch.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    body: Vec<u8>,
    count: i32,
    next_delta: i32,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
}

/// A record's headers as they are given for writing.
pub type HeaderSlice<'a> = &'a [(&'a [u8], Option<&'a [u8]>)];

impl BatchBuilder {
    /// An empty batch.
    #[must_use]
    pub const fn new(options: BatchOptions) -> Self {
        Self {
            options,
            body: Vec::new(),
            count: 0,
            next_delta: 0,
            base_timestamp: options.delete_horizon,
            max_timestamp: NO_TIMESTAMP,
        }
    }

    /// Appends a record at the next offset. `timestamp` in milliseconds, or -1.
    ///
    /// # Errors
    /// `Record` if a number does not fit the format; the builder is then unchanged.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: HeaderSlice<'_>,
    ) -> Result<Offset, BatchError> {
        let offset = self.options.base_offset + i64::from(self.next_delta);
        self.append_at(offset, timestamp, key, value, headers.iter().copied())?;
        Ok(offset)
    }

    /// Appends a record at an offset that is not below the next one; a gap may be left. `timestamp` in milliseconds, or -1.
    ///
    /// # Errors
    /// `Record` if the offset is too low or a number does not fit the format; the builder is then unchanged.
    pub fn append_at<'h>(
        &mut self,
        offset: Offset,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
    ) -> Result<(), BatchError> {
        let reject = |reason| BatchError::Record { index: self.count, reason };
        let delta = offset.0.checked_sub(self.options.base_offset.0).and_then(|delta| i32::try_from(delta).ok());
        let delta = delta.filter(|delta| *delta >= self.next_delta && *delta < i32::MAX);
        let delta = delta.ok_or_else(|| reject("the offset does not fit the batch"))?;
        let base = self.base_timestamp.unwrap_or(timestamp);
        // Goes round the end as reading does, so that every time fits whatever the base is.
        let timestamp_delta = timestamp.wrapping_sub(base);
        write_record(&mut self.body, delta, timestamp_delta, key, value, headers)
            .ok_or_else(|| reject("the record is too long"))?;
        self.base_timestamp = Some(base);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.next_delta = delta + 1;
        self.count += 1;
        Ok(())
    }

    /// Appends a transaction marker at the next offset; the batch's options say `control` and `transactional`.
    ///
    /// # Errors
    /// As [`BatchBuilder::append`].
    pub fn append_control(
        &mut self,
        timestamp: i64,
        control: ControlRecord,
        coordinator_epoch: i32,
    ) -> Result<Offset, BatchError> {
        self.append(timestamp, Some(&control.key()), Some(&ControlRecord::value(coordinator_epoch)), &[])
    }

    /// Records appended.
    #[must_use]
    pub const fn record_count(&self) -> i32 {
        self.count
    }

    /// Bytes that the batch has without compression.
    #[must_use]
    pub const fn uncompressed_size(&self) -> usize {
        layout::RECORDS + self.body.len()
    }

    fn header(&self, body: usize) -> Option<BatchHeader> {
        let options = &self.options;
        let flag = |set: bool, bit: i16| if set { bit } else { 0 };
        let attributes = options.compression.codec.bits()
            | flag(options.timestamp_type == TimestampType::LogAppendTime, layout::LOG_APPEND_TIME)
            | flag(options.transactional, layout::TRANSACTIONAL)
            | flag(options.control, layout::CONTROL)
            | flag(options.delete_horizon.is_some(), layout::DELETE_HORIZON);
        let last_of_records = self.next_delta.saturating_sub(1).max(0);
        let last_offset_delta = match options.last_offset {
            None => last_of_records,
            Some(last) => {
                let delta = i32::try_from(last.0.checked_sub(options.base_offset.0)?).ok()?;
                (delta >= last_of_records).then_some(delta)?
            }
        };
        let empty = self.count == 0;
        Some(BatchHeader {
            base_offset: options.base_offset,
            batch_length: i32::try_from(layout::RECORDS - layout::LENGTH_PREFIX + body).ok()?,
            partition_leader_epoch: options.leader_epoch,
            magic: layout::MAGIC_V2,
            crc: 0,
            attributes,
            last_offset_delta,
            base_timestamp: self.base_timestamp.unwrap_or(options.empty_timestamp),
            max_timestamp: if empty { options.empty_timestamp } else { self.max_timestamp },
            producer_id: options.producer_id,
            producer_epoch: options.producer_epoch,
            base_sequence: options.base_sequence,
            record_count: self.count,
        })
    }

    /// Compresses and writes the batch. One without records is written uncompressed: the cleaner keeps a producer's last batch so.
    ///
    /// # Errors
    /// `Header` if it is longer than 2 GiB or `last_offset` is below the last record, `Compressed` if the codec fails.
    pub fn build(mut self) -> Result<Bytes, BatchError> {
        if self.count == 0 {
            self.options.compression = Compression::NONE;
        }
        let compression = self.options.compression;
        let body = match compression.codec {
            Codec::None => std::mem::take(&mut self.body),
            codec => compress(compression, &self.body).map_err(|_: io::Error| BatchError::Compressed(codec))?,
        };
        let header =
            self.header(body.len()).ok_or(BatchError::Header("the batch's length or last offset is out of range"))?;
        assemble(&header, &body)
    }
}

/// A batch of a header and a body, with its CRC.
pub(super) fn assemble(header: &BatchHeader, body: &[u8]) -> Result<Bytes, BatchError> {
    let mut batch = BytesMut::with_capacity(layout::RECORDS + body.len());
    batch.put_slice(&header.to_bytes());
    batch.put_slice(body);
    write_crc(&mut batch)?;
    Ok(batch.freeze())
}
