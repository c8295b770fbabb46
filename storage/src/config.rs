//! What of a topic's configuration a log needs. Names and defaults are Kafka's.
//! Invariant: values are taken as checked by whoever parsed them; nonsense is clamped where it would break a file.

use std::time::Duration;

/// The longest a segment may be in bytes: positions are 32 bits in the index.
const MAX_SEGMENT: u64 = i32::MAX as u64;

/// Configuration of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_age: Duration,
    /// `segment.jitter.ms`: up to so much earlier.
    pub segment_jitter: Duration,
    /// `segment.index.bytes`: the offset index's limit.
    pub segment_index_bytes: u64,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u64,
    /// `retention.ms`; none is for ever.
    pub retention: Option<Duration>,
    /// `retention.bytes`; none is endless.
    pub retention_bytes: Option<u64>,
    /// `flush.messages`; none is never.
    pub flush_messages: Option<u64>,
    /// `flush.ms`; none is never.
    pub flush_interval: Option<Duration>,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration: Duration,
    /// Producers remembered at most.
    pub max_producers: usize,
    /// Bytes appended to the active segment after which its index and the producers are written beside it.
    pub active_index_bytes: u64,
    /// Bytes at the end of the log that count as warm while this process appended them.
    pub warm_bytes: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_age: Duration::from_millis(604_800_000),
            segment_jitter: Duration::ZERO,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention: Some(Duration::from_millis(604_800_000)),
            retention_bytes: None,
            flush_messages: None,
            flush_interval: None,
            producer_id_expiration: Duration::from_millis(86_400_000),
            max_producers: 10_000,
            active_index_bytes: 32 << 20,
            warm_bytes: 16 << 20,
        }
    }
}

/// A duration as Kafka counts it.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl LogConfig {
    pub(crate) fn max_segment_bytes(&self) -> u64 {
        self.segment_bytes.min(MAX_SEGMENT)
    }

    pub(crate) fn max_index_entries(&self) -> usize {
        usize::try_from(self.segment_index_bytes / 8).unwrap_or(usize::MAX).max(1)
    }
}
