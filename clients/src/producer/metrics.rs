//! What a producer counts. Counters only grow; the two of the buffer go up and down.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a producer has done since it was made, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerMetrics {
    /// Records that were acknowledged, or handed to the system with acks=0.
    pub records_sent: u64,
    /// Bytes of acknowledged batches as they travelled, compressed.
    pub bytes_sent: u64,
    /// Batches that were acknowledged.
    pub batches_sent: u64,
    /// Produce requests that were answered or failed.
    pub requests: u64,
    /// Batches that were sent, or tried to be, once more.
    pub retries: u64,
    /// Records that were given up with an error after they had been accepted.
    pub errors: u64,
    /// Records that are accepted and not answered yet.
    pub buffered_records: u64,
    /// Bytes that they hold of the buffer.
    pub buffered_bytes: u64,
    /// Time from sending requests to their answers, all together: divided by `requests`, the mean.
    pub request_latency_total: Duration,
    /// The longest of these times.
    pub request_latency_max: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) records_sent: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) batches_sent: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) errors: AtomicU64,
    buffered_records: AtomicU64,
    buffered_bytes: AtomicU64,
    requests: AtomicU64,
    latency_total_us: AtomicU64,
    latency_max_us: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn request(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.latency_total_us.fetch_add(took, Ordering::Relaxed);
        self.latency_max_us.fetch_max(took, Ordering::Relaxed);
    }

    pub(super) fn entered(&self, bytes: usize) {
        add(&self.buffered_records, 1);
        add(&self.buffered_bytes, bytes);
    }

    pub(super) fn left(&self, bytes: usize) {
        self.buffered_records.fetch_sub(1, Ordering::Relaxed);
        self.buffered_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> ProducerMetrics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProducerMetrics {
            records_sent: read(&self.records_sent),
            bytes_sent: read(&self.bytes_sent),
            batches_sent: read(&self.batches_sent),
            requests: read(&self.requests),
            retries: read(&self.retries),
            errors: read(&self.errors),
            buffered_records: read(&self.buffered_records),
            buffered_bytes: read(&self.buffered_bytes),
            request_latency_total: Duration::from_micros(read(&self.latency_total_us)),
            request_latency_max: Duration::from_micros(read(&self.latency_max_us)),
        }
    }
}
