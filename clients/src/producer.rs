//! Writing records: batches per partition, idempotent by default, retried until they are acknowledged or the delivery timeout is over.
//! Invariant: records of one partition are written in the order of `send`; every accepted record's [`Delivery`] is answered exactly once.

mod batches;
mod identity;
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

use crate::client::Client;
use crate::error::ProduceError;
use crate::metadata::TopicMetadata;
use crate::partitioner::partition_of;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// How long a record may take from `send` to its answer.
    pub delivery_timeout: Duration,
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
            delivery_timeout: Duration::from_secs(120),
        }
    }
}

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerRecord {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition; chosen by the key, or else in turn, if absent.
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
    _room: OwnedSemaphorePermit,
}

enum Command {
    Append(Accepted),
    Flush(oneshot::Sender<()>),
}

/// Writes records. Its sender is a task of the tokio runtime that it was made in; dropping the producer lets the task finish what it has accepted.
pub struct Producer {
    client: Client,
    config: ProducerConfig,
    room: Arc<Semaphore>,
    commands: mpsc::Sender<Command>,
    /// Counts up for records without a key.
    turn: std::sync::atomic::AtomicU32,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Accepted records that the sender's task has not taken yet. They hold room in the buffer as well, which small records would fill too slowly.
const COMMANDS: usize = 4096;
/// Records without a key stay on one partition for this many, so that they fill batches.
const RECORDS_A_TURN: u32 = 100;

impl Producer {
    /// A producer; nothing is connected before the first record.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(client: Client, config: ProducerConfig) -> Self {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        tokio::spawn(Sender::new(client.clone(), config, inbox).run());
        let room = Arc::new(Semaphore::new(config.buffer_bytes.min(Semaphore::MAX_PERMITS)));
        Self { client, config, room, commands, turn: Default::default() }
    }

    /// Accepts a record: finds its partition and waits for room in the buffer. The answer comes through the [`Delivery`].
    ///
    /// # Errors
    /// [`ProduceError`] if the record was not accepted; it is then not written.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, ProduceError> {
        let size = record.size_in_bytes();
        let limit = self.config.max_request_bytes.min(self.config.buffer_bytes);
        if size > limit {
            return Err(ProduceError::TooLarge { size, limit });
        }
        let partition = self.partition(&record).await?;
        let permits = u32::try_from(size).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await.map_err(|_| ProduceError::Closed)?;
        let (answer, delivery) = oneshot::channel();
        let accepted = Accepted { record, partition, size, answer, _room: room };
        self.commands.send(Command::Append(accepted)).await.map_err(|_| ProduceError::Closed)?;
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

    async fn partition(&self, record: &ProducerRecord) -> Result<i32, ProduceError> {
        let cached = self.client.cached_metadata();
        if let Some(topic) = cached.topics.get(&*record.topic)
            && record.partition.is_none_or(|partition| topic.partition(partition).is_some())
            && !topic.partitions.is_empty()
        {
            return Ok(self.choose(record, topic));
        }
        let failed = |error| ProduceError::Metadata(Arc::new(error));
        let found = self.client.usable_metadata(&[&record.topic], true).await.map_err(failed)?;
        let topic = found.topic(&record.topic).map_err(failed)?;
        match record.partition {
            Some(partition) if topic.partition(partition).is_none() => {
                Err(failed(crate::MetadataError::NoPartition { topic: record.topic.to_string(), partition }))
            }
            _ => Ok(self.choose(record, topic)),
        }
    }

    fn choose(&self, record: &ProducerRecord, topic: &TopicMetadata) -> i32 {
        let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        match (record.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of(key, count),
            (None, None) => {
                let turn = self.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) / RECORDS_A_TURN;
                (turn % count.unsigned_abs().max(1)) as i32
            }
        }
    }
}
