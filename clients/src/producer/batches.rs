//! Accepted records, gathered into batches per partition. Pure.
//! Invariant: a partition has at most one batch on its way, so order survives every retry and a refused batch's sequences can be given again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_protocol::record_batch::{BatchBuilder, BatchError, BatchOptions, advance_sequence};
use madang_protocol::types::Offset;
use tokio::time::Instant;

use super::identity::Identity;
use super::metrics::{Counters, add};
use super::{Accepted, ProducerConfig, RecordMetadata};
use crate::backoff::after;
use crate::error::ProduceError;
use crate::partitioner::Choices;

/// Topic and partition by name.
pub(super) type Key = (Arc<str>, i32);

/// Records that are written together.
pub(super) struct Batch {
    /// Counts up from 1 over all partitions.
    number: u64,
    accepted: Vec<Accepted>,
    size: usize,
    created: Instant,
    /// As sent before. A retry sends the same bytes, so that the broker knows them again.
    encoded: Option<Bytes>,
    /// Whether some try had no definite answer.
    pub(super) is_in_doubt: bool,
}

impl Batch {
    /// When its first record was accepted.
    pub(super) const fn created(&self) -> Instant {
        self.created
    }

    pub(super) fn record_count(&self) -> i32 {
        i32::try_from(self.accepted.len()).unwrap_or(i32::MAX)
    }

    /// Answers all its records as written from `base_offset` on.
    fn succeed(self, partition: i32, base_offset: Offset) {
        for (accepted, delta) in self.accepted.into_iter().zip(0..) {
            let offset = if base_offset < Offset::ZERO { Offset::NONE } else { base_offset + delta };
            // Whoever does not wait for the answer does not get it.
            drop(accepted.answer.send(Ok(RecordMetadata { partition, offset })));
        }
    }

    /// Answers all its records with the error.
    fn fail(self, error: &ProduceError) {
        for accepted in self.accepted {
            drop(accepted.answer.send(Err(error.clone())));
        }
    }

    fn encode(&mut self, options: BatchOptions, wall_ms: i64) -> Result<Bytes, BatchError> {
        if let Some(encoded) = &self.encoded {
            return Ok(encoded.clone());
        }
        let mut builder = BatchBuilder::new(options);
        for accepted in &self.accepted {
            let record = &accepted.record;
            let headers: Vec<_> = record.headers.iter().map(|(name, value)| (&name[..], value.as_deref())).collect();
            let timestamp = record.timestamp.unwrap_or(wall_ms);
            builder.append(timestamp, record.key.as_deref(), record.value.as_deref(), &headers)?;
        }
        let encoded = builder.build()?;
        self.encoded = Some(encoded.clone());
        Ok(encoded)
    }
}

/// One partition's batches, oldest first.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Batch>,
    in_flight: bool,
    not_before: Option<Instant>,
    identity: Option<Identity>,
}

impl Queue {
    fn ready_at(&self, config: &ProducerConfig, flush_up_to: u64) -> Option<Instant> {
        let first = self.waiting.front().filter(|_| !self.in_flight)?;
        let full = first.size >= config.batch_bytes
            || self.waiting.len() > 1
            || first.encoded.is_some()
            || first.number <= flush_up_to;
        let lingered = if full { first.created } else { after(first.created, config.linger) };
        Some(self.not_before.map_or(lingered, |not_before| not_before.max(lingered)))
    }
}

/// All partitions' batches.
pub(super) struct Batches {
    config: ProducerConfig,
    choices: Arc<Choices>,
    counters: Arc<Counters>,
    queues: BTreeMap<Key, Queue>,
    /// The number of the batch begun last.
    newest: u64,
    /// The numbers of those that are not answered yet.
    unanswered: BTreeSet<u64>,
    /// Batches up to this number do not linger.
    flush_up_to: u64,
}

impl Batches {
    pub(super) fn new(config: ProducerConfig, choices: Arc<Choices>, counters: Arc<Counters>) -> Self {
        let (queues, unanswered) = (BTreeMap::new(), BTreeSet::new());
        Self { config, choices, counters, queues, newest: 0, unanswered, flush_up_to: 0 }
    }

    /// Sends what there is without further lingering. Answers what [`Batches::is_answered`] is to be asked for.
    pub(super) fn flush(&mut self) -> u64 {
        self.flush_up_to = self.newest;
        self.newest
    }

    /// Whether every batch up to this number has been answered.
    pub(super) fn is_answered(&self, up_to: u64) -> bool {
        self.unanswered.first().is_none_or(|oldest| *oldest > up_to)
    }

    /// Answers all records of a batch with the error.
    fn fail(&mut self, batch: Batch, error: &ProduceError) {
        self.unanswered.remove(&batch.number);
        add(&self.counters.errors, batch.accepted.len());
        batch.fail(error);
    }

    pub(super) fn append(&mut self, now: Instant, accepted: Accepted) {
        let key = (Arc::clone(&accepted.record.topic), accepted.partition);
        let queue = self.queues.entry(key).or_default();
        let limit = self.config.batch_bytes.min(self.config.max_request_bytes);
        match queue.waiting.back_mut() {
            Some(last) if last.encoded.is_none() && last.size + accepted.size <= limit => {
                last.size += accepted.size;
                last.accepted.push(accepted);
            }
            last => {
                if last.is_some() {
                    // The one before is full.
                    self.choices.batch_ended(&accepted.record.topic, accepted.partition);
                }
                self.newest += 1;
                self.unanswered.insert(self.newest);
                queue.waiting.push_back(Batch {
                    number: self.newest,
                    size: accepted.size,
                    accepted: vec![accepted],
                    created: now,
                    encoded: None,
                    is_in_doubt: false,
                });
            }
        }
    }

    /// Whether no record waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.values().all(|queue| queue.waiting.is_empty() && !queue.in_flight)
    }

    /// When the next batch that is not due at `now` has to be sent, if one waits.
    pub(super) fn next_ready(&self, now: Instant) -> Option<Instant> {
        let due = |queue: &Queue| queue.ready_at(&self.config, self.flush_up_to).filter(|at| *at > now);
        self.queues.values().filter_map(due).min()
    }

    /// The partitions whose first batch has to be sent by now.
    pub(super) fn ready(&self, now: Instant) -> Vec<Key> {
        let due = |queue: &Queue| queue.ready_at(&self.config, self.flush_up_to).is_some_and(|at| at <= now);
        self.queues.iter().filter(|(_, queue)| due(queue)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether the partition still needs a producer id.
    pub(super) fn needs_identity(&self, key: &Key) -> bool {
        self.queues.get(key).is_some_and(|queue| queue.identity.is_none())
    }

    pub(super) fn give_identity(&mut self, key: &Key, identity: Identity) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.identity = Some(identity);
        }
    }

    /// Takes the partition's first batch and its bytes; the partition waits until it comes back. A batch that cannot be written is answered here.
    pub(super) fn take(&mut self, key: &Key, wall_ms: i64) -> Option<(Batch, Bytes)> {
        let queue = self.queues.get_mut(key).filter(|queue| !queue.in_flight)?;
        let mut batch = queue.waiting.pop_front()?;
        let mut options = BatchOptions { compression: self.config.compression, ..BatchOptions::default() };
        if let Some(identity) = &queue.identity {
            options.producer_id = identity.producer_id;
            options.producer_epoch = identity.producer_epoch;
            options.base_sequence = identity.next_sequence;
        }
        self.choices.batch_ended(&key.0, key.1);
        match batch.encode(options, wall_ms) {
            Ok(bytes) => {
                queue.in_flight = true;
                Some((batch, bytes))
            }
            Err(error) => {
                self.fail(batch, &ProduceError::Batch(error));
                None
            }
        }
    }

    /// The batch in flight has been written.
    pub(super) fn written(&mut self, key: &Key, batch: Batch, base_offset: Offset) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.in_flight = false;
            queue.not_before = None;
            if let Some(identity) = &mut queue.identity {
                identity.next_sequence = advance_sequence(identity.next_sequence, batch.record_count());
            }
        }
        self.unanswered.remove(&batch.number);
        add(&self.counters.batches_sent, 1);
        add(&self.counters.records_sent, batch.accepted.len());
        add(&self.counters.bytes_sent, batch.encoded.as_ref().map_or(0, Bytes::len));
        batch.succeed(key.1, base_offset);
        self.queues.retain(|_, queue| queue.in_flight || !queue.waiting.is_empty() || queue.identity.is_some());
    }

    /// The batch in flight goes back to the front, to be sent again after `pause`.
    pub(super) fn put_back(&mut self, now: Instant, key: &Key, batch: Batch, pause: Duration) {
        if let Some(queue) = self.queues.get_mut(key) {
            add(&self.counters.retries, 1);
            queue.in_flight = false;
            queue.not_before = Some(now + pause);
            queue.waiting.push_front(batch);
        }
    }

    /// Answers the first waiting batch with an error. It has not been sent.
    pub(super) fn refuse(&mut self, key: &Key, error: &ProduceError) {
        if let Some(batch) = self.queues.get_mut(key).and_then(|queue| queue.waiting.pop_front()) {
            self.fail(batch, error);
        }
    }

    /// The first waiting batch is not sent before `pause` is over. Answers it, as one in flight, if it is older than the delivery timeout.
    pub(super) fn postpone(&mut self, now: Instant, key: &Key, pause: Duration) -> Option<Batch> {
        let queue = self.queues.get_mut(key).filter(|queue| !queue.in_flight)?;
        queue.not_before = Some(now + pause);
        let is_old = |first: &Batch| now.duration_since(first.created) >= self.config.delivery_timeout;
        if !queue.waiting.front().is_some_and(is_old) {
            return None;
        }
        queue.in_flight = true;
        queue.waiting.pop_front()
    }

    /// The batch in flight is given up. If it may have been written, later batches get a new producer id: the broker would refuse their sequences.
    pub(super) fn give_up(&mut self, key: &Key, batch: Batch, error: &ProduceError) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.in_flight = false;
            queue.not_before = None;
            if batch.is_in_doubt {
                queue.identity = None;
            }
        }
        self.fail(batch, error);
    }

    /// Later batches of the partition get a new producer id, because the broker knows nothing of the one they had.
    pub(super) fn forget_identity(&mut self, key: &Key) {
        if let Some(queue) = self.queues.get_mut(key) {
            queue.identity = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use madang_protocol::record_batch::BatchHeader;
    use tokio::sync::{Semaphore, oneshot};

    use super::*;
    use crate::partitioner::Partitioner;
    use crate::producer::{ProducerRecord, Room};

    type Answer = oneshot::Receiver<Result<RecordMetadata, ProduceError>>;

    fn accepted(value: usize) -> (Accepted, Answer) {
        let record = ProducerRecord::new("t").value(vec![b'v'; value]);
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("room");
        let (answer, receiver) = oneshot::channel();
        let size = record.size_in_bytes();
        let room = Room::new(permit, size, Arc::default());
        (Accepted { size, record, partition: 0, answer, _room: room }, receiver)
    }

    fn fixture() -> (Batches, Key, Instant) {
        let config = ProducerConfig { batch_bytes: 1_000, linger: Duration::from_millis(5), ..Default::default() };
        let mut batches = Batches::new(config, Arc::new(Choices::new(Partitioner::Default, 1_000)), Arc::default());
        let now = Instant::now();
        batches.append(now, accepted(10).0);
        let key: Key = ("t".into(), 0);
        batches.give_identity(&key, Identity { producer_id: 7, producer_epoch: 1, next_sequence: 0 });
        (batches, key, now)
    }

    fn sequence(bytes: &Bytes) -> (i64, i32, i32) {
        let header = BatchHeader::parse(bytes).expect("a batch");
        (header.producer_id, header.base_sequence, header.record_count)
    }

    #[test]
    fn a_batch_waits_for_linger_or_until_it_is_full() {
        let (mut batches, key, now) = fixture();
        assert_eq!(batches.ready(now), Vec::<Key>::new());
        assert_eq!(batches.next_ready(now), Some(now + Duration::from_millis(5)));
        assert_eq!(batches.ready(now + Duration::from_millis(5)), std::slice::from_ref(&key));
        batches.append(now, accepted(990).0);
        assert_eq!(batches.ready(now), [key], "a second batch was begun, so the first is full");
    }

    #[test]
    fn a_flush_is_over_when_what_was_accepted_before_it_is_answered() {
        let (mut batches, key, now) = fixture();
        let up_to = batches.flush();
        assert_eq!(batches.ready(now), std::slice::from_ref(&key), "it does not linger");
        let (batch, _) = batches.take(&key, 1).expect("a batch");
        batches.append(now, accepted(10).0);
        assert!(!batches.is_answered(up_to));
        batches.written(&key, batch, Offset(0));
        assert!(batches.is_answered(up_to), "what came after the flush is not waited for");
        assert!(batches.ready(now).is_empty() && !batches.is_empty(), "and lingers");
    }

    #[test]
    fn one_batch_is_in_flight_and_a_retry_sends_the_same_bytes() {
        let (mut batches, key, now) = fixture();
        let (batch, bytes) = batches.take(&key, 1).expect("a batch");
        batches.append(now, accepted(10).0);
        assert!(batches.take(&key, 1).is_none() && batches.next_ready(now).is_none());
        batches.put_back(now, &key, batch, Duration::from_millis(50));
        assert_eq!(batches.next_ready(now), Some(now + Duration::from_millis(50)));
        let (batch, again) = batches.take(&key, 99).expect("the batch");
        assert_eq!(bytes, again);
        batches.written(&key, batch, Offset(100));
        let (_, next) = batches.take(&key, 99).expect("the second batch");
        assert_eq!(sequence(&next), (7, 1, 1));
    }

    #[test]
    fn a_refused_batch_gives_its_sequences_back_and_one_in_doubt_its_identity() {
        let (mut batches, key, now) = fixture();
        let (batch, _) = batches.take(&key, 1).expect("a batch");
        batches.give_up(&key, batch, &ProduceError::Closed);
        batches.append(now, accepted(10).0);
        let (mut batch, bytes) = batches.take(&key, 1).expect("a batch");
        assert_eq!(sequence(&bytes), (7, 0, 1));
        batch.is_in_doubt = true;
        batches.give_up(&key, batch, &ProduceError::Closed);
        assert!(batches.needs_identity(&key));
        assert!(batches.is_empty());
    }

    #[test]
    fn every_record_is_answered_with_its_own_offset() {
        let (mut batches, key, now) = fixture();
        let (second, mut answer) = accepted(10);
        batches.append(now, second);
        let (batch, _) = batches.take(&key, 1).expect("a batch");
        batches.written(&key, batch, Offset(41));
        let metadata = answer.try_recv().expect("answered").expect("written");
        assert_eq!(metadata, RecordMetadata { partition: 0, offset: Offset(42) });
        assert!(batches.is_empty());
    }
}
