//! The 61-byte header of a record batch: reading it, and the few fields a broker overwrites in place.
//! Invariant: after every function that changes bytes under the CRC, the CRC is right again.

use super::{BatchError, NO_PRODUCER_ID, TimestampType, advance_sequence};
use crate::compression::Codec;
use crate::types::{LeaderEpoch, Offset};

/// Where each field of the header starts, in bytes from the start of the batch.
pub mod layout {
    /// `baseOffset`, 8 bytes.
    pub const BASE_OFFSET: usize = 0;
    /// `batchLength`, 4 bytes: the bytes that follow it.
    pub const BATCH_LENGTH: usize = 8;
    /// `partitionLeaderEpoch`, 4 bytes.
    pub const LEADER_EPOCH: usize = 12;
    /// `magic`, 1 byte.
    pub const MAGIC: usize = 16;
    /// `crc`, 4 bytes: CRC-32C of everything from [`ATTRIBUTES`] on.
    pub const CRC: usize = 17;
    /// `attributes`, 2 bytes.
    pub const ATTRIBUTES: usize = 21;
    /// `lastOffsetDelta`, 4 bytes.
    pub const LAST_OFFSET_DELTA: usize = 23;
    /// `baseTimestamp`, 8 bytes.
    pub const BASE_TIMESTAMP: usize = 27;
    /// `maxTimestamp`, 8 bytes.
    pub const MAX_TIMESTAMP: usize = 35;
    /// `producerId`, 8 bytes.
    pub const PRODUCER_ID: usize = 43;
    /// `producerEpoch`, 2 bytes.
    pub const PRODUCER_EPOCH: usize = 51;
    /// `baseSequence`, 4 bytes.
    pub const BASE_SEQUENCE: usize = 53;
    /// `recordCount`, 4 bytes.
    pub const RECORD_COUNT: usize = 57;
    /// The records: the header's size.
    pub const RECORDS: usize = 61;
    /// What `batchLength` does not count: itself and `baseOffset`.
    pub const LENGTH_PREFIX: usize = 12;
    /// The lowest `batchLength`: a header without records.
    pub const MIN_BATCH_LENGTH: i32 = (RECORDS - LENGTH_PREFIX) as i32;

    /// Attribute bits 0-2: the codec.
    pub const CODEC_MASK: i16 = 0b111;
    /// Attribute bit 3: timestamps are the broker's.
    pub const LOG_APPEND_TIME: i16 = 1 << 3;
    /// Attribute bit 4: part of a transaction.
    pub const TRANSACTIONAL: i16 = 1 << 4;
    /// Attribute bit 5: control records.
    pub const CONTROL: i16 = 1 << 5;
    /// Attribute bit 6: `baseTimestamp` holds the delete horizon.
    pub const DELETE_HORIZON: i16 = 1 << 6;
    /// The record format of every batch.
    pub const MAGIC_V2: i8 = 2;
}

/// The header of a batch, all 13 fields. Numbers are as they stand in the bytes; [`BatchHeader::parse`] checks magic and length only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the batch; of its first record, until compaction removes that one.
    pub base_offset: Offset,
    /// Bytes after this field, at least 49.
    pub batch_length: i32,
    /// Epoch of the leader that appended the batch.
    pub partition_leader_epoch: LeaderEpoch,
    /// Always 2.
    pub magic: i8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// See [`layout`] for the bits.
    pub attributes: i16,
    /// The last offset less the base offset.
    pub last_offset_delta: i32,
    /// Milliseconds to which the records' deltas are added, or the delete horizon.
    pub base_timestamp: i64,
    /// Highest timestamp of the records in milliseconds, or the broker's time of the append.
    pub max_timestamp: i64,
    /// The idempotent producer, or -1.
    pub producer_id: i64,
    /// The producer's epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

fn field<const N: usize>(bytes: &[u8; layout::RECORDS], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Reads a header. The batch's records need not be there.
    ///
    /// # Errors
    /// `Torn` if fewer than 61 bytes are there, `Magic` if the format is not v2, `Length` if `batchLength` is below 49.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(bytes) = bytes.first_chunk::<{ layout::RECORDS }>() else {
            return Err(Self::torn(bytes));
        };
        let header = Self {
            base_offset: Offset(i64::from_be_bytes(field(bytes, layout::BASE_OFFSET))),
            batch_length: i32::from_be_bytes(field(bytes, layout::BATCH_LENGTH)),
            partition_leader_epoch: LeaderEpoch(i32::from_be_bytes(field(bytes, layout::LEADER_EPOCH))),
            magic: i8::from_be_bytes(field(bytes, layout::MAGIC)),
            crc: u32::from_be_bytes(field(bytes, layout::CRC)),
            attributes: i16::from_be_bytes(field(bytes, layout::ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(field(bytes, layout::LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(field(bytes, layout::BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(field(bytes, layout::MAX_TIMESTAMP)),
            producer_id: i64::from_be_bytes(field(bytes, layout::PRODUCER_ID)),
            producer_epoch: i16::from_be_bytes(field(bytes, layout::PRODUCER_EPOCH)),
            base_sequence: i32::from_be_bytes(field(bytes, layout::BASE_SEQUENCE)),
            record_count: i32::from_be_bytes(field(bytes, layout::RECORD_COUNT)),
        };
        if header.magic != layout::MAGIC_V2 {
            return Err(BatchError::Magic(header.magic));
        }
        if header.batch_length < layout::MIN_BATCH_LENGTH {
            return Err(BatchError::Length(header.batch_length));
        }
        Ok(header)
    }

    /// What is wrong with fewer than 61 bytes. What can be told already is told: garbage is not taken for a torn write.
    fn torn(bytes: &[u8]) -> BatchError {
        let mut needed = layout::RECORDS as u64;
        if let Some(length) = bytes.get(layout::BATCH_LENGTH..).and_then(<[u8]>::first_chunk::<4>) {
            let length = i32::from_be_bytes(*length);
            if length < layout::MIN_BATCH_LENGTH {
                return BatchError::Length(length);
            }
            needed = layout::LENGTH_PREFIX as u64 + u64::from(length.unsigned_abs());
        }
        if let Some(&magic) = bytes.get(layout::MAGIC)
            && magic != layout::MAGIC_V2 as u8
        {
            return BatchError::Magic(magic as i8);
        }
        BatchError::Torn { needed, present: bytes.len() as u64 }
    }

    /// The header's 61 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; layout::RECORDS] {
        let mut out = [0; layout::RECORDS];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(layout::BASE_OFFSET, &self.base_offset.0.to_be_bytes());
        put(layout::BATCH_LENGTH, &self.batch_length.to_be_bytes());
        put(layout::LEADER_EPOCH, &self.partition_leader_epoch.0.to_be_bytes());
        put(layout::MAGIC, &self.magic.to_be_bytes());
        put(layout::CRC, &self.crc.to_be_bytes());
        put(layout::ATTRIBUTES, &self.attributes.to_be_bytes());
        put(layout::LAST_OFFSET_DELTA, &self.last_offset_delta.to_be_bytes());
        put(layout::BASE_TIMESTAMP, &self.base_timestamp.to_be_bytes());
        put(layout::MAX_TIMESTAMP, &self.max_timestamp.to_be_bytes());
        put(layout::PRODUCER_ID, &self.producer_id.to_be_bytes());
        put(layout::PRODUCER_EPOCH, &self.producer_epoch.to_be_bytes());
        put(layout::BASE_SEQUENCE, &self.base_sequence.to_be_bytes());
        put(layout::RECORD_COUNT, &self.record_count.to_be_bytes());
        out
    }

    /// The whole batch in bytes, header included.
    #[must_use]
    pub fn size_in_bytes(&self) -> usize {
        layout::LENGTH_PREFIX + self.batch_length.max(0) as usize
    }

    /// The last offset that the batch takes, whether or not a record is left there.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The offset that follows the batch.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.last_offset() + 1
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// `Codec` if the bits are 5, 6 or 7.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        let bits = (self.attributes & layout::CODEC_MASK) as u8;
        Codec::from_bits(bits).ok_or(BatchError::Codec(bits))
    }

    /// Whose clock the timestamps are of.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & layout::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch is part of a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & layout::TRANSACTIONAL != 0
    }

    /// Whether the batch holds control records, which consumers never see.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & layout::CONTROL != 0
    }

    /// Whether an idempotent producer wrote the batch.
    #[must_use]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// The sequence of the last record, or -1 if the batch has none.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 || self.last_offset_delta < 0 {
            return super::NO_SEQUENCE;
        }
        advance_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// The time in milliseconds from which tombstones and transaction markers of this batch may be removed.
    #[must_use]
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & layout::DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }
}

fn batch_of(bytes: &[u8]) -> Result<&[u8], BatchError> {
    let header = BatchHeader::parse(bytes)?;
    bytes
        .get(..header.size_in_bytes())
        .ok_or(BatchError::Torn { needed: header.size_in_bytes() as u64, present: bytes.len() as u64 })
}

/// Checks the CRC of the batch that `bytes` starts with.
///
/// # Errors
/// `Crc` if it does not match; those of [`BatchHeader::parse`]; `Torn` if the batch is not whole.
pub fn verify_crc(bytes: &[u8]) -> Result<(), BatchError> {
    let batch = batch_of(bytes)?;
    let stored = stored_crc(batch);
    let computed = crc32c::crc32c(&batch[layout::ATTRIBUTES..]);
    if stored == computed { Ok(()) } else { Err(BatchError::Crc { stored, computed }) }
}

/// The CRC in the header of a batch; 0 if `batch` is shorter than a header.
#[must_use]
pub fn stored_crc(batch: &[u8]) -> u32 {
    batch.get(layout::CRC..).and_then(<[u8]>::first_chunk::<4>).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Computes and writes the CRC of `batch`, which is exactly one whole batch.
///
/// # Errors
/// Those of [`BatchHeader::parse`]; `Torn` if the batch is not whole.
pub fn write_crc(batch: &mut [u8]) -> Result<(), BatchError> {
    let size = batch_of(batch)?.len();
    let crc = crc32c::crc32c(&batch[layout::ATTRIBUTES..size]);
    put(batch, layout::CRC, crc.to_be_bytes());
    Ok(())
}

fn put<const N: usize>(batch: &mut [u8], at: usize, value: [u8; N]) {
    if let Some(place) = batch.get_mut(at..at + N) {
        place.copy_from_slice(&value);
    }
}

/// Writes the offset and the epoch that the leader assigns. Both are outside the CRC. Does nothing to fewer than 16 bytes.
pub fn stamp(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    if batch.len() >= layout::MAGIC {
        put(batch, layout::BASE_OFFSET, base_offset.0.to_be_bytes());
        put(batch, layout::LEADER_EPOCH, leader_epoch.0.to_be_bytes());
    }
}

/// Sets the timestamp type to `LogAppendTime` and the batch's time to `wall_ms`, milliseconds; recomputes the CRC. Answers whether bytes changed.
///
/// # Errors
/// Those of [`BatchHeader::parse`]; `Torn` if the batch is not whole.
pub fn set_log_append_time(batch: &mut [u8], wall_ms: i64) -> Result<bool, BatchError> {
    let attributes = BatchHeader::parse(batch)?.attributes | layout::LOG_APPEND_TIME;
    set_times(batch, attributes, wall_ms)
}

/// Makes the timestamps the producer's, sets `maxTimestamp`, milliseconds, and recomputes the CRC. Answers whether bytes changed.
///
/// # Errors
/// Those of [`BatchHeader::parse`]; `Torn` if the batch is not whole.
pub fn set_max_timestamp(batch: &mut [u8], max_timestamp: i64) -> Result<bool, BatchError> {
    let attributes = BatchHeader::parse(batch)?.attributes & !layout::LOG_APPEND_TIME;
    set_times(batch, attributes, max_timestamp)
}

fn set_times(batch: &mut [u8], attributes: i16, max_timestamp: i64) -> Result<bool, BatchError> {
    batch_of(batch)?;
    let header = BatchHeader::parse(batch)?;
    if header.attributes == attributes && header.max_timestamp == max_timestamp {
        return Ok(false);
    }
    put(batch, layout::ATTRIBUTES, attributes.to_be_bytes());
    put(batch, layout::MAX_TIMESTAMP, max_timestamp.to_be_bytes());
    write_crc(batch)?;
    Ok(true)
}
