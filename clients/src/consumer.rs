//! Reading records of assigned partitions, without a group.
//! Invariant: a position only moves past records that were returned, or that the broker says are no longer there.

mod fetched;
mod offsets;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_protocol::ErrorCode;
use madang_protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use madang_protocol::types::{Offset, TopicId};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::client::{Client, Lane};
use crate::error::{ConsumeError, error_code, is_stale_metadata};
use crate::metadata::{Broker, Metadata};
use fetched::Fetched;
pub(crate) use offsets::list_offsets;
pub use offsets::{ListedOffset, StartAt};

/// Fetch from this version on names topics by id.
const FETCH_BY_ID: i16 = 13;

/// Where reading goes on when a position is not, or no longer, in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutOfRange {
    /// At the log start offset.
    Earliest,
    /// At the high watermark.
    #[default]
    Latest,
    /// Nowhere: [`ConsumeError::Broker`] with `OFFSET_OUT_OF_RANGE`.
    Fail,
}

/// How a consumer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// Most bytes that one fetch asks for.
    pub max_bytes: i32,
    /// Most bytes of one partition that one fetch asks for. A batch that is larger comes whole.
    pub max_partition_bytes: i32,
    /// The broker answers once it has this many bytes.
    pub min_bytes: i32,
    /// Longest time that the broker waits for `min_bytes`.
    pub max_wait: Duration,
    /// Most records that one poll returns; at least 1.
    pub max_poll_records: usize,
    /// Where reading goes on outside of the log.
    pub out_of_range: OutOfRange,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            max_bytes: 16 << 20,
            max_partition_bytes: 1 << 20,
            min_bytes: 1,
            max_wait: Duration::from_millis(500),
            max_poll_records: 500,
            out_of_range: OutOfRange::default(),
        }
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// Its offset.
    pub offset: Offset,
    /// Its time in milliseconds since 1970, or -1.
    pub timestamp: i64,
    /// Its key, if it has one.
    pub key: Option<Bytes>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers in order.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// Topic and partition by name.
pub(crate) type Position = BTreeMap<(Arc<str>, i32), Offset>;

/// Reads partitions that the caller assigns. Positions live in memory only.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    lane: Lane,
    positions: Position,
    fetched: Fetched,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.client.close_lane(self.lane);
    }
}

/// What one leader is asked for: topic name, id, partitions with leader epoch and offset.
type Asked = BTreeMap<Arc<str>, (TopicId, Vec<(i32, i32, Offset)>)>;

impl Consumer {
    /// A consumer that reads nothing yet.
    #[must_use]
    pub fn new(client: Client, config: ConsumerConfig) -> Self {
        let lane = client.new_lane();
        Self { client, config, lane, positions: Position::new(), fetched: Fetched::default() }
    }

    /// Reads all partitions of a topic from `start`, in addition to what is read already.
    ///
    /// # Errors
    /// [`ConsumeError`] if the topic or its offsets cannot be found.
    pub async fn assign(&mut self, topic: &str, start: StartAt) -> Result<(), ConsumeError> {
        let metadata = self.client.usable_metadata(&[topic], false).await?;
        let partitions = metadata.topic(topic)?.partitions.iter().map(|found| found.partition).collect();
        let asked = BTreeMap::from([(topic.to_owned(), partitions)]);
        let topic: Arc<str> = topic.into();
        for (partition, offset) in self.start_offsets(&asked, start).await? {
            self.assign_partition(&topic, partition.1, offset);
        }
        Ok(())
    }

    /// Reads one partition from `offset`, in addition to what is read already.
    pub fn assign_partition(&mut self, topic: &Arc<str>, partition: i32, offset: Offset) {
        self.fetched.forget(topic, partition);
        self.positions.insert((Arc::clone(topic), partition), offset);
    }

    /// Stops reading a partition; what was fetched of it is dropped.
    pub fn unassign_partition(&mut self, topic: &str, partition: i32) {
        self.fetched.forget(topic, partition);
        self.positions.remove(&(topic.into(), partition));
    }

    /// Stops reading everything.
    pub fn unassign_all(&mut self) {
        self.positions.clear();
        self.fetched = Fetched::default();
    }

    /// The offset of the next record of each assigned partition.
    pub fn positions(&self) -> impl Iterator<Item = (&str, i32, Offset)> {
        self.positions.iter().map(|((topic, partition), offset)| (&**topic, *partition, *offset))
    }

    async fn start_offsets(
        &self,
        asked: &BTreeMap<String, Vec<i32>>,
        start: StartAt,
    ) -> Result<BTreeMap<(String, i32), Offset>, ConsumeError> {
        if let StartAt::Offset(offset) = start {
            let all = asked.iter().flat_map(|(topic, list)| list.iter().map(|partition| (topic.clone(), *partition)));
            return Ok(all.map(|key| (key, offset)).collect());
        }
        let mut found = list_offsets(&self.client, asked, start).await?;
        if found.values().any(|listed| listed.offset == Offset::NONE) {
            // No record is that young: reading goes on where new ones will come.
            let latest = list_offsets(&self.client, asked, StartAt::Latest).await?;
            for (key, listed) in &mut found {
                if listed.offset == Offset::NONE {
                    listed.offset = latest.get(key).map_or(Offset::ZERO, |latest| latest.offset);
                }
            }
        }
        Ok(found.into_iter().map(|(key, listed)| (key, listed.offset)).collect())
    }

    /// The next records, at most `max_poll_records`; none if there are none within `timeout`. Lost connections and moved leaders are followed until
    /// then. Giving up on the future loses nothing.
    ///
    /// # Errors
    /// [`ConsumeError`] for what trying again does not change.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        let deadline = Instant::now() + timeout;
        let mut backoff = Backoff::until(deadline);
        loop {
            let records = self.fetched.take(self.config.max_poll_records.max(1), &mut self.positions)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !records.is_empty() || (left.is_zero() && !timeout.is_zero()) || self.positions.is_empty() {
                return Ok(records);
            }
            let stale = self.fetch(left).await?;
            if timeout.is_zero() {
                return self.fetched.take(self.config.max_poll_records.max(1), &mut self.positions);
            }
            if stale && self.fetched.is_empty() {
                if !backoff.wait().await {
                    return Ok(Vec::new());
                }
                let topics: Vec<_> = self.positions.keys().map(|(topic, _)| Arc::clone(topic)).collect();
                let mut names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
                names.dedup();
                // A broker that does not answer now is asked again after the next wait.
                drop(self.client.refresh(&names).await);
            }
        }
    }

    /// Asks all leaders at once. Answers whether some partition could not be read for a reason that newer metadata may remove.
    async fn fetch(&mut self, left: Duration) -> Result<bool, ConsumeError> {
        let metadata = self.client.cached_metadata();
        let (asked, mut stale) = self.ask(&metadata);
        let max_wait = self.config.max_wait.min(left);
        let mut answers = JoinSet::new();
        for (broker, topics) in asked.into_values() {
            let (client, config, lane) = (self.client.clone(), self.config, self.lane);
            answers.spawn(async move { fetch_from(&client, lane, &broker, &config, max_wait, topics).await });
        }
        let mut out_of_range = Vec::new();
        while let Some(answer) = answers.join_next().await {
            let Ok(Some(partitions)) = answer else {
                stale = true;
                continue;
            };
            for (topic, asked_at, data) in partitions {
                let key = (topic, data.partition_index);
                if self.positions.get(&key) != Some(&asked_at) {
                    continue;
                }
                match error_code(data.error_code) {
                    ErrorCode::None => self.fetched.add(key, data),
                    ErrorCode::OffsetOutOfRange => out_of_range.push(key),
                    code if is_stale_metadata(code) || code.is_retriable() => stale = true,
                    code => return Err(ConsumeError::Broker { topic: key.0.to_string(), partition: key.1, code }),
                }
            }
        }
        for (topic, partition) in out_of_range {
            self.reset(&topic, partition).await?;
        }
        Ok(stale)
    }

    fn ask(&self, metadata: &Metadata) -> (BTreeMap<i32, (Broker, Asked)>, bool) {
        let mut asked: BTreeMap<i32, (Broker, Asked)> = BTreeMap::new();
        let mut stale = false;
        for ((topic, partition), offset) in &self.positions {
            let Ok((broker, epoch)) = metadata.leader(topic, *partition) else {
                stale = true;
                continue;
            };
            let id = metadata.topics.get(&**topic).map_or(TopicId::ZERO, |found| found.id);
            let (_, topics) = asked.entry(broker.node_id.0).or_insert_with(|| (broker.clone(), Asked::new()));
            let (_, partitions) = topics.entry(Arc::clone(topic)).or_insert_with(|| (id, Vec::new()));
            partitions.push((*partition, epoch.0, *offset));
        }
        (asked, stale)
    }

    async fn reset(&mut self, topic: &Arc<str>, partition: i32) -> Result<(), ConsumeError> {
        let start = match self.config.out_of_range {
            OutOfRange::Earliest => StartAt::Earliest,
            OutOfRange::Latest => StartAt::Latest,
            OutOfRange::Fail => {
                let code = ErrorCode::OffsetOutOfRange;
                return Err(ConsumeError::Broker { topic: topic.to_string(), partition, code });
            }
        };
        let asked = BTreeMap::from([(topic.to_string(), vec![partition])]);
        for ((_, partition), offset) in self.start_offsets(&asked, start).await? {
            self.assign_partition(topic, partition, offset);
        }
        Ok(())
    }
}

/// One leader's answer: topic, the offset asked for, data. `None` if there was no usable answer.
async fn fetch_from(
    client: &Client,
    lane: Lane,
    broker: &Broker,
    config: &ConsumerConfig,
    max_wait: Duration,
    asked: Asked,
) -> Option<Vec<(Arc<str>, Offset, PartitionData)>> {
    let by_name = asked.values().any(|(id, _)| id.is_zero());
    let request = FetchRequest {
        max_wait_ms: i32::try_from(max_wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: config.min_bytes,
        max_bytes: config.max_bytes,
        topics: asked.iter().map(|(name, (id, list))| fetch_topic(name, *id, list, config)).collect(),
        ..FetchRequest::default()
    };
    let call = client.call();
    let call = crate::connection::Call { timeout: call.timeout + max_wait, ..call };
    let call = if by_name { call.up_to(FETCH_BY_ID - 1) } else { call };
    let answer = client.to(broker, lane, &request, call).await.ok()?;
    if error_code(answer.error_code) != ErrorCode::None {
        return None;
    }
    let mut found = Vec::new();
    for topic in answer.responses {
        // Version 13 and later answer by id, earlier ones by name.
        let named = asked.iter().find(|(name, (id, _))| {
            if topic.topic.is_empty() {
                *id == topic.topic_id && !id.is_zero()
            } else {
                name.as_ref() == topic.topic.as_ref()
            }
        });
        let Some((name, (_, list))) = named else { continue };
        for data in topic.partitions {
            if let Some((.., offset)) = list.iter().find(|(partition, ..)| *partition == data.partition_index) {
                found.push((Arc::clone(name), *offset, data));
            }
        }
    }
    Some(found)
}

fn fetch_topic(name: &str, id: TopicId, list: &[(i32, i32, Offset)], config: &ConsumerConfig) -> FetchTopic<'static> {
    let partitions = list.iter().map(|(partition, leader_epoch, offset)| FetchPartition {
        partition: *partition,
        current_leader_epoch: *leader_epoch,
        fetch_offset: offset.0,
        partition_max_bytes: config.max_partition_bytes,
        ..FetchPartition::default()
    });
    FetchTopic { topic: name.to_owned().into(), topic_id: id, partitions: partitions.collect() }
}
