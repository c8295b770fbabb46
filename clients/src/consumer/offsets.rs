//! Offsets by time, and the two ends of partitions.

use std::collections::BTreeMap;

use madang_protocol::ErrorCode;
use madang_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use madang_protocol::types::{NodeId, Offset};

use super::{Consumer, IsolationLevel};
use crate::backoff::Backoff;
use crate::client::{Client, Lane};
use crate::error::{ConsumeError, check};
use crate::metadata::{Broker, Metadata};

/// Where reading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// At the log start offset.
    Earliest,
    /// At the high watermark: only records that are still to come.
    Latest,
    /// At this offset.
    Offset(Offset),
    /// At the first record that is not older than this, in milliseconds since 1970.
    Timestamp(i64),
    /// At the record with the largest timestamp.
    MaxTimestamp,
}

impl StartAt {
    const fn timestamp(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::MaxTimestamp => -3,
            Self::Earliest | Self::Offset(_) => -2,
            Self::Timestamp(timestamp) if timestamp < 0 => 0,
            Self::Timestamp(timestamp) => timestamp,
        }
    }
}

/// An offset that a leader found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; [`Offset::NONE`] if no record is as young as was asked.
    pub offset: Offset,
    /// The record's time in milliseconds, or -1 where no record was looked for.
    pub timestamp: i64,
}

impl Consumer {
    /// Where `at` is in each partition that is read, without going there; a partition's end where no record is as young as a time. With
    /// [`StartAt::Latest`], how far there is to read at the moment.
    ///
    /// ```no_run
    /// # async fn example(mut consumer: madang_client::Consumer) -> Result<(), madang_client::ConsumeError> {
    /// use madang_client::StartAt;
    /// use std::time::Duration;
    ///
    /// let ends = consumer.offsets(StartAt::Latest).await?;
    /// while consumer.positions().any(|(topic, partition, at)| at < ends[&(topic.to_owned(), partition)]) {
    ///     println!("{} records", consumer.poll(Duration::from_secs(1)).await?.len());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ConsumeError`] if the offsets cannot be found.
    pub async fn offsets(&self, at: StartAt) -> Result<BTreeMap<(String, i32), Offset>, ConsumeError> {
        let mut asked: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for (topic, partition, _) in self.positions() {
            asked.entry(topic.to_owned()).or_default().push(partition);
        }
        self.start_offsets(&asked, at).await
    }
}

/// By topic and partition.
type Found = BTreeMap<(String, i32), ListedOffset>;

/// The offset of `at` in each partition of `asked`. [`StartAt::Offset`] counts as the earliest. Under `ReadCommitted` the end is the last stable offset.
pub(crate) async fn list_offsets(
    client: &Client,
    asked: &BTreeMap<String, Vec<i32>>,
    at: StartAt,
    isolation: IsolationLevel,
) -> Result<Found, ConsumeError> {
    let topics: Vec<&str> = asked.keys().map(String::as_str).collect();
    let mut backoff = Backoff::within(client.config().retry_timeout);
    let mut metadata = client.cached_metadata();
    if topics.iter().any(|topic| !metadata.topics.contains_key(*topic)) {
        metadata = client.usable_metadata(&topics, false).await?;
    }
    loop {
        let error = match list_once(client, &metadata, asked, at, isolation).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        if !error.is_retriable() || !backoff.wait().await {
            return Err(error);
        }
        metadata = client.refresh(&topics).await?;
    }
}

async fn list_once(
    client: &Client,
    metadata: &Metadata,
    asked: &BTreeMap<String, Vec<i32>>,
    at: StartAt,
    isolation: IsolationLevel,
) -> Result<Found, ConsumeError> {
    let isolation_level = i8::from(isolation == IsolationLevel::ReadCommitted);
    let mut found = Found::new();
    for (broker, topics) in by_leader(metadata, asked, at)?.into_values() {
        let request = ListOffsetsRequest { replica_id: -1, isolation_level, topics, ..ListOffsetsRequest::default() };
        let answer = client.to(&broker, Lane::SHARED, &request, client.call()).await?;
        for topic in answer.topics {
            for partition in topic.partitions {
                let (name, index) = (topic.name.to_string(), partition.partition_index);
                let failed = |code| ConsumeError::Broker { topic: topic.name.to_string(), partition: index, code };
                check(partition.error_code).map_err(failed)?;
                let listed = ListedOffset { offset: Offset(partition.offset), timestamp: partition.timestamp };
                found.insert((name, index), listed);
            }
        }
    }
    let mut keys = asked.iter().flat_map(|(topic, list)| list.iter().map(|partition| (topic.clone(), *partition)));
    match keys.find(|key| !found.contains_key(key)) {
        None => Ok(found),
        Some((topic, partition)) => Err(ConsumeError::Broker { topic, partition, code: ErrorCode::UnknownServerError }),
    }
}

type Requests = BTreeMap<NodeId, (Broker, Vec<ListOffsetsTopic<'static>>)>;

fn by_leader(metadata: &Metadata, asked: &BTreeMap<String, Vec<i32>>, at: StartAt) -> Result<Requests, ConsumeError> {
    let mut requests = Requests::new();
    for (topic, partitions) in asked {
        for partition in partitions {
            let (broker, epoch) = metadata.leader(topic, *partition)?;
            let (_, topics) = requests.entry(broker.node_id).or_insert_with(|| (broker.clone(), Vec::new()));
            let wanted = ListOffsetsPartition {
                partition_index: *partition,
                current_leader_epoch: epoch.0,
                timestamp: at.timestamp(),
            };
            match topics.last_mut() {
                Some(last) if last.name == *topic => last.partitions.push(wanted),
                _ => topics.push(ListOffsetsTopic { name: topic.clone().into(), partitions: vec![wanted] }),
            }
        }
    }
    Ok(requests)
}
