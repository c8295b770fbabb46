//! Writing records: batches per partition, idempotent by default, retried until they are acknowledged or the delivery timeout is over.
//! Invariant: records of one partition are written in the order of `send`; every accepted record's [`Delivery`] is answered exactly once.

mod batches;
mod identity;
mod metrics;
mod sender;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use madang_protocol::compression::Compression;
use madang_protocol::types::Offset;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::backoff::after;
use crate::client::Client;
use crate::error::ProduceError;
use crate::metadata::TopicMetadata;
use crate::partitioner::{Choices, Partitioner};
use metrics::Counters;
pub use metrics::ProducerMetrics;
use sender::Sender;

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// When it is handed to the system. Its offset is not known, and losing it goes unseen.
    None,
    /// When the leader has appended it.
    Leader,
    /// When all in-sync replicas have it.
    #[default]
    All,
}

impl Acks {
    const fn on_the_wire(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// How a producer writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerConfig {
    /// When a write counts as done.
    pub acks: Acks,
    /// Whether retries cannot write a record twice. Needs [`Acks::All`]; ignored with less.
    pub idempotent: bool,
    /// Codec and level of the batches.
    pub compression: Compression,
    /// A batch is sent when its records have this many bytes.
    pub batch_bytes: usize,
    /// A batch is sent at the latest this long after its first record.
    pub linger: Duration,
    /// The largest record in bytes, and the largest batch of several before compression.
    pub max_request_bytes: usize,
    /// Bytes of records that are accepted and not yet answered; [`Producer::send`] waits beyond it.
    pub buffer_bytes: usize,
    /// How long [`Producer::send`] may wait for the topic to be found and for room in the buffer.
    pub max_block: Duration,
    /// How long a record may take from when it is accepted to its answer.
    pub delivery_timeout: Duration,
    /// How a partition is chosen for records that name none.
    pub partitioner: Partitioner,
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotent: true,
            compression: Compression::NONE,
            batch_bytes: 128 << 10,
            linger: Duration::from_millis(5),
            max_request_bytes: 1 << 20,
            buffer_bytes: 32 << 20,
            max_block: Duration::from_secs(60),
            delivery_timeout: Duration::from_secs(120),
            partitioner: Partitioner::Default,
        }
    }
}

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerRecord {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition; chosen by the producer's [`Partitioner`] if absent.
    pub partition: Option<i32>,
    /// Milliseconds since 1970; now if absent.
    pub timestamp: Option<i64>,
    /// The key.
    pub key: Option<Bytes>,
    /// The value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl ProducerRecord {
    /// An empty record for a topic.
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>) -> Self {
        Self { topic: topic.into(), ..Self::default() }
    }

    /// With a key.
    #[must_use]
    pub fn key(self, key: impl Into<Bytes>) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    /// With a value.
    #[must_use]
    pub fn value(self, value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..self }
    }

    /// With one more header. Names may come several times; their order is kept.
    ///
    /// ```
    /// # use madang_client::ProducerRecord;
    /// let record = ProducerRecord::new("orders").value("paid").header("trace", "4711").header("origin", "web");
    /// assert_eq!(record.headers.len(), 2);
    /// ```
    #[must_use]
    pub fn header(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// For this partition, whatever the partitioner would choose.
    #[must_use]
    pub fn partition(self, partition: i32) -> Self {
        Self { partition: Some(partition), ..self }
    }

    /// With a time, in milliseconds since 1970.
    #[must_use]
    pub fn timestamp(self, timestamp: i64) -> Self {
        Self { timestamp: Some(timestamp), ..self }
    }

    /// Bytes that it takes in an uncompressed batch, at most.
    #[must_use]
    pub fn size_in_bytes(&self) -> usize {
        const NUMBERS: usize = 36;
        let part = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + part(value) + 10).sum();
        NUMBERS + part(&self.key) + part(&self.value) + headers
    }
}

/// Where a record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The partition.
    pub partition: i32,
    /// The record's offset; [`Offset::NONE`] with acks=0, and for a retry of a batch that the broker already had and no longer knows the offset of.
    pub offset: Offset,
}

/// The answer to one record: a future. Dropping it does not take the record back.
#[derive(Debug)]
pub struct Delivery {
    answer: oneshot::Receiver<Result<RecordMetadata, ProduceError>>,
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        Poll::Ready(answer.unwrap_or(Err(ProduceError::Closed)))
    }
}

/// A record on its way, with the room that it takes in the buffer.
struct Accepted {
    record: ProducerRecord,
    partition: i32,
    size: usize,
    answer: oneshot::Sender<Result<RecordMetadata, ProduceError>>,
    _room: Room,
}

/// A record's share of the buffer; dropping it makes room and is counted.
struct Room {
    _permit: OwnedSemaphorePermit,
    size: usize,
    counters: Arc<Counters>,
}

impl Room {
    fn new(permit: OwnedSemaphorePermit, size: usize, counters: Arc<Counters>) -> Self {
        counters.entered(size);
        Self { _permit: permit, size, counters }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.counters.left(self.size);
    }
}

enum Command {
    Append(Accepted),
    Flush(oneshot::Sender<()>),
    /// Someone waits for room: what lingers is sent.
    Hurry,
}

/// Writes records. Its sender is a task of the tokio runtime that it was made in; dropping the producer lets the task finish what it has accepted.
///
/// ```no_run
/// # async fn example(client: madang_client::Client) -> Result<(), madang_client::ProduceError> {
/// use madang_client::{Codec, Compression, Producer, ProducerConfig, ProducerRecord};
///
/// let config = ProducerConfig { compression: Compression::of(Codec::Zstd), ..ProducerConfig::default() };
/// let producer = Producer::new(client, config);
/// for number in 0..1000 {
///     // Waits only while the buffer is full. Who drops the delivery does not hear of errors.
///     let delivery = producer.send(ProducerRecord::new("orders").value(format!("order {number}"))).await?;
///     tokio::spawn(async move { println!("{:?}", delivery.await) });
/// }
/// producer.flush().await?;
/// println!("{} records in {} batches", producer.metrics().records_sent, producer.metrics().batches_sent);
/// # Ok(()) }
/// ```
pub struct Producer {
    client: Client,
    config: ProducerConfig,
    room: Arc<Semaphore>,
    commands: mpsc::Sender<Command>,
    choices: Arc<Choices>,
    counters: Arc<Counters>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Accepted records that the sender's task has not taken yet. They hold room in the buffer as well, which small records would fill too slowly.
const COMMANDS: usize = 4096;

impl Producer {
    /// A producer; nothing is connected before the first record.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(client: Client, config: ProducerConfig) -> Self {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let choices = Arc::new(Choices::new(config.partitioner.clone(), config.batch_bytes));
        let counters = Arc::new(Counters::default());
        let shared = (Arc::clone(&choices), Arc::clone(&counters));
        tokio::spawn(Sender::new(client.clone(), config.clone(), inbox, shared).run());
        let room = Arc::new(Semaphore::new(config.buffer_bytes.min(Semaphore::MAX_PERMITS)));
        Self { client, config, room, commands, choices, counters }
    }

    /// What it has done so far, and what it holds.
    #[must_use]
    pub fn metrics(&self) -> ProducerMetrics {
        self.counters.snapshot()
    }

    /// Accepts a record: finds its partition and waits for room in the buffer, both together for `max_block` at most. The answer comes through the
    /// [`Delivery`].
    ///
    /// # Errors
    /// [`ProduceError`] if the record was not accepted; it is then not written.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, ProduceError> {
        let size = record.size_in_bytes();
        let limit = self.config.max_request_bytes.min(self.config.buffer_bytes);
        if size > limit {
            return Err(ProduceError::TooLarge { size, limit });
        }
        let deadline = after(Instant::now(), self.config.max_block);
        let blocked = |waiting_for| move |_| ProduceError::Blocked { limit: self.config.max_block, waiting_for };
        let found = timeout_at(deadline, self.partition(&record, size)).await;
        let partition = found.map_err(blocked("the topic's metadata"))??;
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        let permit = match Arc::clone(&self.room).try_acquire_many_owned(permits) {
            Ok(permit) => permit,
            Err(_) => {
                // If the sender has no time for this, it is busy sending anyway.
                let _ = self.commands.try_send(Command::Hurry);
                let room = timeout_at(deadline, Arc::clone(&self.room).acquire_many_owned(permits)).await;
                room.map_err(blocked("room in the buffer"))?.map_err(|_| ProduceError::Closed)?
            }
        };
        let slot = timeout_at(deadline, self.commands.reserve()).await;
        let slot = slot.map_err(blocked("the sender's task"))?.map_err(|_| ProduceError::Closed)?;
        let (answer, delivery) = oneshot::channel();
        let room = Room::new(permit, size, Arc::clone(&self.counters));
        slot.send(Command::Append(Accepted { record, partition, size, answer, _room: room }));
        Ok(Delivery { answer: delivery })
    }

    /// Sends what lingers and waits until every record accepted before has its answer.
    ///
    /// # Errors
    /// `Closed` if the sender's task has ended with the runtime.
    pub async fn flush(&self) -> Result<(), ProduceError> {
        let (done, waiting) = oneshot::channel();
        self.commands.send(Command::Flush(done)).await.map_err(|_| ProduceError::Closed)?;
        waiting.await.map_err(|_| ProduceError::Closed)
    }

    async fn partition(&self, record: &ProducerRecord, size: usize) -> Result<i32, ProduceError> {
        let cached = self.client.cached_metadata();
        if let Some(topic) = cached.topics.get(&*record.topic)
            && record.partition.is_none_or(|partition| topic.partition(partition).is_some())
            && !topic.partitions.is_empty()
        {
            return self.choose(record, topic, size);
        }
        let failed = |error| ProduceError::Metadata(Arc::new(error));
        let found = self.client.usable_metadata(&[&record.topic], true).await.map_err(failed)?;
        self.choose(record, found.topic(&record.topic).map_err(failed)?, size)
    }

    fn choose(&self, record: &ProducerRecord, topic: &TopicMetadata, size: usize) -> Result<i32, ProduceError> {
        let partition = record.partition.unwrap_or_else(|| self.choices.choose(record, topic, size));
        if topic.partition(partition).is_some() {
            return Ok(partition);
        }
        let missing = crate::MetadataError::NoPartition { topic: record.topic.to_string(), partition };
        Err(ProduceError::Metadata(Arc::new(missing)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientConfig;

    #[tokio::test]
    async fn a_record_waits_no_longer_than_max_block_for_a_cluster_that_does_not_answer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let config = ProducerConfig { max_block: Duration::from_millis(50), ..ProducerConfig::default() };
        let producer = Producer::new(Client::new(ClientConfig::new([address])), config);
        let refused = producer.send(ProducerRecord::new("t").value("v")).await.expect_err("nobody answers");
        assert!(matches!(refused, ProduceError::Blocked { waiting_for: "the topic's metadata", .. }), "{refused}");
        assert!(refused.is_retriable());
        assert_eq!(producer.metrics(), ProducerMetrics::default());
    }

    #[test]
    fn a_record_that_no_buffer_holds_is_refused_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let config = ProducerConfig { buffer_bytes: 100, ..ProducerConfig::default() };
            let producer = Producer::new(Client::new(ClientConfig::new(["127.0.0.1:1"])), config);
            let refused = producer.send(ProducerRecord::new("t").value(vec![0; 101])).await;
            assert!(matches!(refused, Err(ProduceError::TooLarge { .. })));
        });
    }
}
