//! What a leader checks of a produced batch before it is appended, and what it may have to change in it.
//! Invariant: the answer is the producer's own bytes unless a time, the codec or the highest timestamp has to change.

use bytes::{Bytes, BytesMut};

use super::builder::assemble;
use super::{
    BatchError, BatchHeader, BatchView, NO_PRODUCER_ID, NO_TIMESTAMP, TimestampType, layout, set_log_append_time,
    set_max_timestamp,
};
use crate::compression::{Codec, Compression, Limits, compress, decompress};
use crate::error_code::ErrorCode;
use crate::record::{Walk, walk};

/// The lowest version of Produce whose clients know zstd.
const ZSTD_PRODUCE_VERSION: i16 = 7;
/// The least that can follow a length, in any format: a legacy record without key and value.
const SHORTEST_LEGACY: i32 = 14;
/// Records that are named in one rejection; the batch fails as a whole anyway.
const MAX_RECORD_ERRORS: usize = 100;

/// `compression.type` of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TopicCompression {
    /// `producer`: batches are kept as they come.
    #[default]
    Producer,
    /// Batches of another codec are compressed anew.
    Of(Compression),
}

/// What a topic and a request ask of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProduceRules {
    /// Version of the Produce request.
    pub produce_version: i16,
    /// `max.message.bytes`: of the batch with its header, as sent and as stored.
    pub max_message_bytes: usize,
    /// `cleanup.policy` contains `compact`: every record needs a key.
    pub compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`, at least 0.
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`, at least 0.
    pub after_max_ms: i64,
    /// `compression.type`.
    pub compression: TopicCompression,
    /// The leader's wall clock in milliseconds.
    pub now_ms: i64,
}

impl Default for ProduceRules {
    /// Kafka's defaults of a topic, for the newest Produce at the epoch.
    fn default() -> Self {
        Self {
            produce_version: i16::MAX,
            max_message_bytes: 1_048_588,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            before_max_ms: i64::MAX,
            after_max_ms: 3_600_000,
            compression: TopicCompression::Producer,
            now_ms: 0,
        }
    }
}

/// A batch that may be appended. Base offset and leader epoch are still the producer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedBatch {
    /// The bytes to store.
    pub bytes: Bytes,
    /// Their header.
    pub header: BatchHeader,
    /// The highest timestamp in milliseconds; -1 if no record has one.
    pub max_timestamp: i64,
    /// Offset of the first record with that timestamp, less the base offset. The last record's with `LogAppendTime`.
    pub max_timestamp_offset_delta: i32,
}

/// The error code that a rejected batch is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// `UNKNOWN_SERVER_ERROR(-1)`: what Kafka's validation does not foresee.
    UnknownServerError,
    /// `CORRUPT_MESSAGE(2)`.
    CorruptMessage,
    /// `MESSAGE_TOO_LARGE(10)`.
    MessageTooLarge,
    /// `INVALID_TIMESTAMP(32)`.
    InvalidTimestamp,
    /// `UNSUPPORTED_COMPRESSION_TYPE(76)`.
    UnsupportedCompressionType,
    /// `INVALID_RECORD(87)`.
    InvalidRecord,
}

impl Rejection {
    /// Kafka's number.
    #[must_use]
    pub fn code(self) -> i16 {
        ErrorCode::from(self).code()
    }
}

impl From<Rejection> for ErrorCode {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::UnknownServerError => Self::UnknownServerError,
            Rejection::CorruptMessage => Self::CorruptMessage,
            Rejection::MessageTooLarge => Self::MessageTooLarge,
            Rejection::InvalidTimestamp => Self::InvalidTimestamp,
            Rejection::UnsupportedCompressionType => Self::UnsupportedCompressionType,
            Rejection::InvalidRecord => Self::InvalidRecord,
        }
    }
}

/// A record because of which its batch is rejected: an element of `record_errors`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// The record's place in its batch, from 0.
    pub batch_index: i32,
    /// Why.
    pub message: &'static str,
}

/// Why a batch is not appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchRejection {
    /// The error code.
    pub error: Rejection,
    /// For people.
    pub message: String,
    /// The records at fault, at most 100; empty if the batch as such is.
    pub record_errors: Vec<RecordError>,
    /// The bytes are not one batch of the one format, so it is the request that is wrong and no log was looked at.
    pub malformed: bool,
}

impl BatchRejection {
    fn new(error: Rejection, message: impl Into<String>) -> Self {
        Self { error, message: message.into(), record_errors: Vec::new(), malformed: false }
    }

    fn malformed(message: impl Into<String>) -> Self {
        Self { malformed: true, ..Self::new(Rejection::InvalidRecord, message) }
    }
}

impl From<BatchError> for BatchRejection {
    fn from(error: BatchError) -> Self {
        let rejection = match error {
            BatchError::Torn { .. } | BatchError::Length(_) | BatchError::Crc { .. } => Rejection::CorruptMessage,
            BatchError::Codec(_) | BatchError::Compressed(_) => Rejection::UnknownServerError,
            BatchError::TooLarge(_) => Rejection::MessageTooLarge,
            BatchError::Magic(_) | BatchError::Header(_) | BatchError::Record { .. } | BatchError::TrailingBytes => {
                Rejection::InvalidRecord
            }
        };
        // A batch whose records cannot be read names none of them: the client's own count of them means nothing then.
        Self { malformed: matches!(error, BatchError::Magic(_)), ..Self::new(rejection, error.to_string()) }
    }
}

/// Checks all that concerns the batch alone, in one pass over its bytes for the CRC and one over its records.
/// Whether the producer, its sequence and its transaction may write is for the caller, who sees them in the header.
///
/// # Errors
/// The answer that the producer gets.
pub fn validate_produced(records: &Bytes, rules: &ProduceRules) -> Result<ValidatedBatch, BatchRejection> {
    let batch = &first_batch(records)?;
    let view = BatchView::parse(batch)?;
    // Of several things that are wrong Kafka names the first in this order.
    check_request(&view.header, rules)?;
    if whole_batch(&records.slice(batch.len()..))?.is_some() {
        return Err(BatchRejection::malformed("a partition's records are exactly one batch"));
    }
    if view.header.base_offset.0 != 0 {
        return Err(BatchRejection::new(Rejection::InvalidRecord, "the base offset of a produced batch is 0"));
    }
    check_size(batch.len(), rules)?;
    view.verify_crc()?;
    check_header(&view.header)?;
    let limits = Limits::for_max_message_bytes(rules.max_message_bytes);
    let found = check_records(&view, rules, &limits)?;
    let bytes = rewrite(batch, &view, rules, &limits, &found)?;
    let header = BatchHeader::parse(&bytes)?;
    let (max_timestamp, max_timestamp_offset_delta) = match rules.timestamp_type {
        TimestampType::CreateTime => (found.max_timestamp, found.max_timestamp_delta),
        TimestampType::LogAppendTime => (rules.now_ms, header.last_offset_delta),
    };
    Ok(ValidatedBatch { bytes, header, max_timestamp, max_timestamp_offset_delta })
}

/// The first batch of a partition's records. As Kafka reads them: what does not hold a whole batch is no batch, and what is left
/// behind the last whole one is dropped.
fn first_batch(records: &Bytes) -> Result<Bytes, BatchRejection> {
    let first = whole_batch(records)?.ok_or_else(|| BatchRejection::malformed("the records hold no whole batch"))?;
    Ok(records.slice(..first))
}

/// Length in bytes of the batch that `records` begin with, if all of it is there.
fn whole_batch(records: &[u8]) -> Result<Option<usize>, BatchRejection> {
    let Some(length) = records.get(layout::BATCH_LENGTH..).and_then(<[u8]>::first_chunk::<4>) else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    if length < SHORTEST_LEGACY {
        return Err(BatchError::Length(length).into());
    }
    let Some(&magic) = records.get(layout::MAGIC) else { return Ok(None) };
    if magic > layout::MAGIC_V2 as u8 {
        let message = format!("record format {} is not known", magic as i8);
        return Err(BatchRejection::new(Rejection::CorruptMessage, message));
    }
    let size = layout::LENGTH_PREFIX + length.unsigned_abs() as usize;
    Ok((size <= records.len()).then_some(size))
}

fn check_size(size: usize, rules: &ProduceRules) -> Result<(), BatchRejection> {
    if size <= rules.max_message_bytes {
        return Ok(());
    }
    let message = format!("the batch has {size} bytes, max.message.bytes is {}", rules.max_message_bytes);
    Err(BatchRejection::new(Rejection::MessageTooLarge, message))
}

/// What is wrong for a request of this version, before anything of the batch is looked at.
fn check_request(header: &BatchHeader, rules: &ProduceRules) -> Result<(), BatchRejection> {
    if rules.produce_version >= ZSTD_PRODUCE_VERSION {
        return Ok(());
    }
    match header.codec() {
        Ok(Codec::Zstd) => {
            let message = "zstd needs Produce version 7 or newer";
            let rejection = BatchRejection::new(Rejection::UnsupportedCompressionType, message);
            Err(BatchRejection { malformed: true, ..rejection })
        }
        Ok(_) => Ok(()),
        Err(error) => Err(BatchRejection { malformed: true, ..error.into() }),
    }
}

fn check_header(header: &BatchHeader) -> Result<(), BatchRejection> {
    let invalid = |message: &str| Err(BatchRejection::new(Rejection::InvalidRecord, message));
    header.codec()?;
    if header.record_count <= 0 {
        return invalid("the batch has no records");
    }
    if header.last_offset_delta != header.record_count - 1 {
        return invalid("the last offset delta is not one less than the record count");
    }
    if header.is_control() {
        return invalid("clients do not write control records");
    }
    if header.producer_id < NO_PRODUCER_ID {
        return invalid("the producer id is negative");
    }
    // An epoch below 0 is for the producer's state to refuse: it is an old one.
    if header.has_producer_id() && header.base_sequence < 0 {
        return invalid("an idempotent batch has a sequence");
    }
    if header.is_transactional() && !header.has_producer_id() {
        return invalid("a transactional batch has a producer id");
    }
    Ok(())
}

/// What the walk over the records gathers.
struct Found {
    max_timestamp: i64,
    max_timestamp_delta: i32,
    errors: Vec<RecordError>,
    bad_timestamps: bool,
    /// A time before 1970 that is not -1.
    negative_timestamps: bool,
    /// Offset deltas that do not count up from 0, in a batch that is compressed.
    misplaced: bool,
    failed: usize,
}

impl Found {
    fn fail(&mut self, batch_index: i32, message: &'static str) {
        self.failed += 1;
        if self.errors.len() < MAX_RECORD_ERRORS {
            self.errors.push(RecordError { batch_index, message });
        }
    }

    fn check(&mut self, record: &Walk, header: &BatchHeader, rules: &ProduceRules) {
        if record.offset_delta != record.index {
            // Kafka stores such a batch if it is not compressed, and its consumers then pass over the records that follow it.
            if header.codec() == Ok(Codec::None) {
                return self.fail(record.index, "offset deltas do not count up from 0");
            }
            self.misplaced = true;
        }
        let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
        if !in_range(timestamp, rules) {
            self.bad_timestamps = true;
            return self.fail(record.index, "the timestamp is out of range");
        }
        self.negative_timestamps |= timestamp < NO_TIMESTAMP;
        if rules.compacted && !record.has_key {
            return self.fail(record.index, "a compacted topic takes no record without a key");
        }
        if timestamp > self.max_timestamp {
            self.max_timestamp = timestamp;
            self.max_timestamp_delta = record.offset_delta;
        }
    }
}

/// Any time will do that is not too far from now, one before 1970 too; the producer's counts for nothing if the leader's is kept.
fn in_range(timestamp: i64, rules: &ProduceRules) -> bool {
    let oldest = rules.now_ms.saturating_sub(rules.before_max_ms);
    let newest = rules.now_ms.saturating_add(rules.after_max_ms);
    timestamp == NO_TIMESTAMP
        || rules.timestamp_type == TimestampType::LogAppendTime
        || (oldest..=newest).contains(&timestamp)
}

fn check_records(view: &BatchView<'_>, rules: &ProduceRules, limits: &Limits) -> Result<Found, BatchRejection> {
    let mut found = Found {
        max_timestamp: NO_TIMESTAMP,
        max_timestamp_delta: view.header.last_offset_delta,
        errors: Vec::new(),
        bad_timestamps: false,
        negative_timestamps: false,
        misplaced: false,
        failed: 0,
    };
    walk(view, limits, |record| found.check(&record, &view.header, rules))?;
    if found.failed == 0 {
        let unforeseen = |message| Err(BatchRejection::new(Rejection::UnknownServerError, message));
        return if found.misplaced { unforeseen("offset deltas do not count up from 0") } else { Ok(found) };
    }
    let error = if found.bad_timestamps { Rejection::InvalidTimestamp } else { Rejection::InvalidRecord };
    let message = format!("{} of {} records are rejected", found.failed, view.header.record_count);
    Err(BatchRejection { record_errors: found.errors, ..BatchRejection::new(error, message) })
}

/// The bytes to store: the producer's, unless something in them has to change.
fn rewrite(
    batch: &Bytes,
    view: &BatchView<'_>,
    rules: &ProduceRules,
    limits: &Limits,
    found: &Found,
) -> Result<Bytes, BatchRejection> {
    let max_timestamp = found.max_timestamp;
    let mut header = view.header;
    let recompression = match rules.compression {
        TopicCompression::Of(compression) if header.codec()? != compression.codec => Some(compression),
        _ => None,
    };
    let append_time = rules.timestamp_type == TimestampType::LogAppendTime;
    let Some(compression) = recompression else {
        let says_append_time = header.timestamp_type() == TimestampType::LogAppendTime;
        if !append_time && !says_append_time && header.max_timestamp == max_timestamp {
            return Ok(batch.clone());
        }
        let mut changed = BytesMut::from(&batch[..]);
        if append_time {
            set_log_append_time(&mut changed, rules.now_ms)?;
        } else {
            set_max_timestamp(&mut changed, max_timestamp)?;
        }
        return Ok(changed.freeze());
    };
    if found.negative_timestamps {
        let message = "a time before 1970 cannot be compressed anew";
        return Err(BatchRejection::new(Rejection::UnknownServerError, message));
    }
    let plain = decompress(header.codec()?, view.body(), limits)?;
    let body = compress(compression, &plain).map_err(|_| BatchError::Compressed(compression.codec))?;
    let size = layout::RECORDS + body.len();
    check_size(size, rules)?;
    header.batch_length =
        i32::try_from(size - layout::LENGTH_PREFIX).map_err(|_| BatchError::TooLarge(i32::MAX as usize))?;
    let kept = !(layout::CODEC_MASK | layout::LOG_APPEND_TIME | layout::DELETE_HORIZON);
    header.attributes = header.attributes & kept | compression.codec.bits();
    header.max_timestamp = if append_time { rules.now_ms } else { max_timestamp };
    if append_time {
        header.attributes |= layout::LOG_APPEND_TIME;
    }
    Ok(assemble(&header, &body)?)
}
