//! Record batches of format v2: the fixed header, what a broker may change in place, and walking batches in a byte slice.
//! Invariant: no length, count or offset is used before it is checked against the bytes that are there.

mod builder;
mod header;
mod scan;
mod validate;

pub use builder::{BatchBuilder, BatchOptions, HeaderSlice};
pub use header::{
    BatchHeader, layout, set_log_append_time, set_max_timestamp, stamp, stored_crc, verify_crc, write_crc,
};
pub use scan::{BatchView, Batches, Scan, scan};
pub use validate::{
    BatchRejection, ProduceRules, RecordError, Rejection, TopicCompression, ValidatedBatch, validate_produced,
};

use thiserror::Error;

/// Kafka's "no timestamp", in milliseconds.
pub const NO_TIMESTAMP: i64 = -1;
/// Kafka's "no producer id".
pub const NO_PRODUCER_ID: i64 = -1;
/// Kafka's "no producer epoch".
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// Kafka's "no sequence".
pub const NO_SEQUENCE: i32 = -1;

/// The sequence `by` records after `sequence`: sequences wrap from `i32::MAX` to 0. `sequence` ≥ 0, `by` ≥ 0.
#[must_use]
pub const fn advance_sequence(sequence: i32, by: i32) -> i32 {
    ((sequence as i64 + by as i64) & i32::MAX as i64) as i32
}

/// Whose clock a batch's timestamps are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer's: each record has its own.
    #[default]
    CreateTime,
    /// The broker's: all records have the batch's `max_timestamp`.
    LogAppendTime,
}

/// Why bytes are not a record batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The bytes end inside the batch. At the end of a log this is a torn write.
    #[error("the batch needs {needed} bytes, {present} are there")]
    Torn {
        /// Bytes that the batch needs, as far as is known yet.
        needed: u64,
        /// Bytes that are there.
        present: u64,
    },
    /// The magic byte is not 2.
    #[error("record format {0} is not supported")]
    Magic(i8),
    /// `batchLength` is below 49.
    #[error("batch length {0} is below 49")]
    Length(i32),
    /// The CRC does not match the bytes.
    #[error("stored CRC {stored:#010x}, computed {computed:#010x}")]
    Crc {
        /// In the header.
        stored: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// A number of the header that no writer would write.
    #[error("{0}")]
    Header(&'static str),
    /// The codec bits are 5, 6 or 7.
    #[error("codec {0} is not known")]
    Codec(u8),
    /// The compressed bytes cannot be decoded.
    #[error("{0}: corrupt compressed data")]
    Compressed(crate::compression::Codec),
    /// The records expand beyond the limit.
    #[error("records expand beyond {0} bytes")]
    TooLarge(usize),
    /// A record is not well formed.
    #[error("record {index}: {reason}")]
    Record {
        /// The record's place in its batch, from 0.
        index: i32,
        /// What is wrong.
        reason: &'static str,
    },
    /// Bytes follow the last record or the end of the compressed stream.
    #[error("bytes follow the last record")]
    TrailingBytes,
}
