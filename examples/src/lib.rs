//! What the examples share, so that each of them shows its own matter only: where the broker is, topics, writing and reading up to an end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use madang_client::{
    Admin, Client, ClientConfig, Consumer, ConsumerRecord, ErrorCode, NewTopic, Offset, Producer, ProducerRecord,
    StartAt,
};
use tokio::time::Instant;

pub mod order;

/// How long a reader waits for records that are to come before it says that something is wrong.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// 2025-01-01 00:00 UTC in milliseconds since 1970: the day on which the examples with made-up times take place.
pub const MIDNIGHT: i64 = 1_735_689_600_000;

/// A minute in the unit of record timestamps.
pub const MINUTE: i64 = 60_000;

/// For topics whose records carry times of long ago: by default a broker deletes what is older than a week.
pub const KEPT_FOR_EVER: (&str, &str) = ("retention.ms", "-1");

/// For topics of which only the newest record of each key matters.
pub const COMPACTED: (&str, &str) = ("cleanup.policy", "compact");

/// Why an example ends early. Every error becomes one; `main` shows it as a sentence.
pub struct Failure(String);

impl Failure {
    /// With a text of one's own.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// What an error that leaves `main` is shown with.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A client of the broker that `MADANG_SERVER` names, or of the one on this machine. Nothing is connected before it is needed.
#[must_use]
pub fn client() -> Client {
    let server = std::env::var("MADANG_SERVER").unwrap_or_else(|_| "127.0.0.1:9092".to_owned());
    Client::new(ClientConfig::new([server]))
}

/// An argument of the command line by its place, from 1 on.
#[must_use]
pub fn argument(place: usize, default: &str) -> String {
    std::env::args().nth(place).unwrap_or_else(|| default.to_owned())
}

/// Creates a topic that must not exist yet: who runs an example twice gives it another name.
///
/// # Errors
/// [`Failure`] if it exists or cannot be created.
pub async fn new_topic(client: &Client, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<(), Failure> {
    if create(client, name, partitions, configs).await? {
        return Ok(());
    }
    Err(Failure::new(format!("the topic {name} exists already; give another name as the argument to start afresh")))
}

/// Creates a topic unless it exists: for programs that are started in any order and more than once.
///
/// # Errors
/// [`Failure`] if it cannot be created.
pub async fn ensure_topic(
    client: &Client,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> Result<(), Failure> {
    create(client, name, partitions, configs).await.map(drop)
}

/// Whether the topic is new.
async fn create(client: &Client, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<bool, Failure> {
    let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let topic = NewTopic { partitions: Some(partitions), configs, ..NewTopic::new(name) };
    let is_new = match Admin::new(client.clone()).create_topic(&topic, false).await {
        Ok(_) => true,
        Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => false,
        Err(error) => return Err(error.into()),
    };
    // Of several brokers, one may know of a new topic a moment later than the one that created it.
    client.usable_metadata(&[name], true).await?;
    Ok(is_new)
}

/// Writes records, and returns once all of them are acknowledged.
///
/// # Errors
/// [`Failure`] of the first record that was not written.
pub async fn write_all(
    producer: &Producer,
    records: impl IntoIterator<Item = ProducerRecord>,
) -> Result<usize, Failure> {
    let mut deliveries = Vec::new();
    for record in records {
        // Waits only while the producer's buffer is full: the records travel in batches.
        deliveries.push(producer.send(record).await?);
    }
    let count = deliveries.len();
    for delivery in deliveries {
        delivery.await?;
    }
    Ok(count)
}

/// The records from where `consumer` stands to `ends`, and perhaps a few behind them. Those of a partition are in order.
///
/// # Errors
/// [`Failure`] if they cannot be read, or do not come.
pub async fn read_until(
    consumer: &mut Consumer,
    ends: &BTreeMap<(String, i32), Offset>,
) -> Result<Vec<ConsumerRecord>, Failure> {
    let mut records = Vec::new();
    let mut give_up = Instant::now() + PATIENCE;
    while consumer
        .positions()
        .any(|(topic, partition, at)| ends.get(&(topic.to_owned(), partition)).is_some_and(|end| at < *end))
    {
        let more = consumer.poll(Duration::from_secs(1)).await?;
        if !more.is_empty() {
            give_up = Instant::now() + PATIENCE;
        } else if Instant::now() >= give_up {
            return Err(Failure::new(format!("no record came within {PATIENCE:?}")));
        }
        records.extend(more);
    }
    Ok(records)
}

/// The records from where `consumer` stands to where its partitions end now. A log has no last record; a program that is to end says where it stops.
///
/// # Errors
/// [`Failure`] if they cannot be read, or do not come.
pub async fn read_to_end(consumer: &mut Consumer) -> Result<Vec<ConsumerRecord>, Failure> {
    let ends = consumer.offsets(StartAt::Latest).await?;
    read_until(consumer, &ends).await
}

/// A key or a value as text.
#[must_use]
pub fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

/// The time of day of a record's timestamp: `09:30`.
#[must_use]
pub fn clock(timestamp: i64) -> String {
    let minutes = timestamp.div_euclid(MINUTE);
    format!("{:02}:{:02}", minutes.div_euclid(60).rem_euclid(24), minutes.rem_euclid(60))
}
