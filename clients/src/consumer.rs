//! Reading records of assigned partitions, without a group.
//! Invariant: a position only moves past records that were returned, or that the broker says are no longer there.

mod fetched;
mod fetcher;
mod manual;
mod offsets;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_protocol::ErrorCode;
use madang_protocol::messages::fetch::PartitionData;
use madang_protocol::types::{NodeId, Offset, TopicId};
use tokio::time::{Instant, sleep_until};

use crate::backoff::after;
use crate::client::Client;
use crate::error::{ConsumeError, error_code, is_stale_metadata};
use crate::metadata::Broker;
use fetched::Fetched;
use fetcher::{Answered, Fetcher};
pub(crate) use offsets::list_offsets;
pub use offsets::{ListedOffset, StartAt};
use session::{Key, Place, Wanted};

/// How long to wait before the metadata are read again: at first, and at most.
const FIRST_REFRESH: Duration = Duration::from_millis(50);
const SLOWEST_REFRESH: Duration = Duration::from_secs(1);

/// Which records are returned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IsolationLevel {
    /// All, also those of transactions that are open or were aborted.
    #[default]
    ReadUncommitted,
    /// Those of no transaction and of committed ones, up to the first transaction that is open.
    ReadCommitted,
}

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
    /// Which records are returned.
    pub isolation: IsolationLevel,
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
            isolation: IsolationLevel::default(),
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

/// Reads partitions that the caller assigns. Positions live in memory only, unless they are committed for a group by name.
///
/// ```no_run
/// # async fn example(client: madang_client::Client) -> Result<(), madang_client::ConsumeError> {
/// use madang_client::{Consumer, ConsumerConfig, StartAt};
/// use std::time::Duration;
///
/// let mut consumer = Consumer::new(client, ConsumerConfig::default());
/// consumer.assign("orders", StartAt::Earliest).await?;
/// for record in consumer.poll(Duration::from_secs(1)).await? {
///     println!("{}-{} at {}", record.topic, record.partition, record.offset);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    positions: Position,
    paused: BTreeSet<Key>,
    fetched: Fetched,
    fetcher: Fetcher,
    /// Partitions that cannot be read before the metadata are newer.
    stale: BTreeSet<Key>,
    refresh_at: Instant,
    refresh_pause: Duration,
    coordinator: Option<manual::OfGroup>,
}

impl Consumer {
    /// A consumer that reads nothing yet.
    #[must_use]
    pub fn new(client: Client, config: ConsumerConfig) -> Self {
        Self {
            fetcher: Fetcher::new(client.clone(), config),
            client,
            config,
            positions: Position::new(),
            paused: BTreeSet::new(),
            fetched: Fetched::default(),
            stale: BTreeSet::new(),
            refresh_at: Instant::now(),
            refresh_pause: FIRST_REFRESH,
            coordinator: None,
        }
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
        let key = (topic.into(), partition);
        self.positions.remove(&key);
        self.paused.remove(&key);
        self.stale.remove(&key);
    }

    /// Stops reading everything.
    pub fn unassign_all(&mut self) {
        self.positions.clear();
        self.paused.clear();
        self.stale.clear();
        self.fetched = Fetched::default();
    }

    /// Returns no more records of a partition until [`Consumer::resume`]. Its position stays.
    ///
    /// # Errors
    /// `NotAssigned`.
    pub fn pause(&mut self, topic: &str, partition: i32) -> Result<(), ConsumeError> {
        let key = self.assigned(topic, partition)?;
        self.fetched.forget(topic, partition);
        self.paused.insert(key);
        Ok(())
    }

    /// Returns records of a paused partition again.
    ///
    /// # Errors
    /// `NotAssigned`.
    pub fn resume(&mut self, topic: &str, partition: i32) -> Result<(), ConsumeError> {
        let key = self.assigned(topic, partition)?;
        self.paused.remove(&key);
        Ok(())
    }

    /// The partitions that are paused.
    pub fn paused(&self) -> impl Iterator<Item = (&str, i32)> {
        self.paused.iter().map(|(topic, partition)| (&**topic, *partition))
    }

    /// Goes on at another place of an assigned partition: an offset, a time, or one of the ends. Where no record is as young as a time, it goes on where
    /// new ones will come.
    ///
    /// # Errors
    /// `NotAssigned`; another [`ConsumeError`] if the offset cannot be found.
    pub async fn seek(&mut self, topic: &str, partition: i32, to: StartAt) -> Result<Offset, ConsumeError> {
        let key = self.assigned(topic, partition)?;
        let asked = BTreeMap::from([(topic.to_owned(), vec![partition])]);
        let found = self.start_offsets(&asked, to).await?;
        let offset = found.into_values().next().unwrap_or(Offset::ZERO);
        self.fetched.forget(topic, partition);
        self.positions.insert(key, offset);
        Ok(offset)
    }

    /// Has a record that was returned returned again, with all behind it.
    pub(crate) fn put_back(&mut self, record: &ConsumerRecord) {
        let key = (Arc::clone(&record.topic), record.partition);
        if let Some(position) = self.positions.get_mut(&key) {
            *position = record.offset;
            self.fetched.forget(&record.topic, record.partition);
        }
    }

    fn assigned(&self, topic: &str, partition: i32) -> Result<Key, ConsumeError> {
        let key = (Arc::from(topic), partition);
        if self.positions.contains_key(&key) {
            return Ok(key);
        }
        Err(ConsumeError::NotAssigned { topic: topic.to_owned(), partition })
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
        let mut found = list_offsets(&self.client, asked, start, self.config.isolation).await?;
        if found.values().any(|listed| listed.offset == Offset::NONE) {
            // No record is that young: reading goes on where new ones will come.
            let latest = list_offsets(&self.client, asked, StartAt::Latest, self.config.isolation).await?;
            for (key, listed) in &mut found {
                if listed.offset == Offset::NONE {
                    listed.offset = latest.get(key).map_or(Offset::ZERO, |latest| latest.offset);
                }
            }
        }
        Ok(found.into_iter().map(|(key, listed)| (key, listed.offset)).collect())
    }

    /// The next records, at most `max_poll_records`; none if there are none within `timeout`, or if nothing is assigned. Lost connections and moved
    /// leaders are followed until then. With a timeout of zero, it waits for answers that are on their way, but lets no broker wait. Giving up on the
    /// future loses nothing.
    ///
    /// # Errors
    /// [`ConsumeError`] for what trying again does not change.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        let deadline = after(Instant::now(), timeout);
        let at_once = timeout.is_zero();
        let max_wait = if at_once { Duration::ZERO } else { self.config.max_wait };
        let mut has_asked = false;
        loop {
            let records = self.fetched.take(self.config.max_poll_records.max(1), &mut self.positions)?;
            let is_over = if at_once { has_asked && self.fetcher.is_idle() } else { Instant::now() >= deadline };
            // What comes next is fetched while the caller works on these.
            self.ask(max_wait);
            if !records.is_empty() || is_over || self.positions.is_empty() || (at_once && self.fetcher.is_idle()) {
                return Ok(records);
            }
            has_asked = true;
            self.step((!at_once).then_some(deadline)).await?;
        }
    }

    /// Waits for an answer, for the time to read the metadata again, or until `deadline`.
    async fn step(&mut self, deadline: Option<Instant>) -> Result<(), ConsumeError> {
        let refresh_at = (!self.stale.is_empty()).then_some(self.refresh_at);
        let until = deadline.into_iter().chain(refresh_at).min();
        let timer = async {
            match until {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let is_idle = self.fetcher.is_idle();
        let answered = tokio::select! {
            answered = self.fetcher.next(), if !is_idle => answered,
            () = timer => None,
        };
        match answered {
            Some(answered) => self.answered(answered).await,
            None => {
                if !self.stale.is_empty() && Instant::now() >= self.refresh_at {
                    self.refresh().await;
                }
                Ok(())
            }
        }
    }

    async fn refresh(&mut self) {
        let mut names: Vec<&str> = self.stale.iter().map(|(topic, _)| &**topic).collect();
        names.dedup();
        // A broker that does not answer now is asked again after the next pause.
        drop(self.client.refresh(&names).await);
        self.stale.clear();
    }

    /// Has the metadata read again, after a pause that grows while that does not help.
    fn is_stale(&mut self, key: Key) {
        if self.stale.is_empty() {
            self.refresh_at = Instant::now() + self.refresh_pause;
            self.refresh_pause = (self.refresh_pause * 2).min(SLOWEST_REFRESH);
        }
        self.stale.insert(key);
    }

    async fn answered(&mut self, answered: Answered) -> Result<(), ConsumeError> {
        let Answered { wanted, parts } = answered;
        let Some(parts) = parts else {
            for key in wanted.into_keys().filter(|key| self.positions.contains_key(key)).collect::<Vec<_>>() {
                self.is_stale(key);
            }
            return Ok(());
        };
        let mut out_of_range = Vec::new();
        let mut failed = None;
        for (key, data) in parts {
            let asked_at = wanted.get(&key).map(|place| place.offset);
            if self.positions.get(&key).copied() != asked_at || self.paused.contains(&key) {
                continue;
            }
            match error_code(data.error_code) {
                ErrorCode::None => {
                    self.refresh_pause = FIRST_REFRESH;
                    self.fetched.add(key, data);
                }
                ErrorCode::OffsetOutOfRange => out_of_range.push(key),
                code if is_stale_metadata(code) || code.is_retriable() => self.is_stale(key),
                code => failed = Some(ConsumeError::Broker { topic: key.0.to_string(), partition: key.1, code }),
            }
        }
        for (topic, partition) in out_of_range {
            self.reset(&topic, partition).await?;
        }
        failed.map_or(Ok(()), Err)
    }

    /// Asks every leader that is not asked already and of whose partitions nothing waits to be returned.
    fn ask(&mut self, max_wait: Duration) {
        let metadata = self.client.cached_metadata();
        let mut asked: BTreeMap<NodeId, (Broker, Wanted)> = BTreeMap::new();
        let (mut full, mut leaderless) = (BTreeSet::new(), Vec::new());
        for (key, offset) in &self.positions {
            if self.stale.contains(key) || self.paused.contains(key) {
                continue;
            }
            let Ok((broker, epoch)) = metadata.leader(&key.0, key.1) else {
                leaderless.push(key.clone());
                continue;
            };
            if self.fetched.has(key) {
                full.insert(broker.node_id);
            }
            let topic_id = metadata.topics.get(&*key.0).map_or(TopicId::ZERO, |found| found.id);
            let (_, wanted) = asked.entry(broker.node_id).or_insert_with(|| (broker.clone(), Wanted::new()));
            wanted.insert(key.clone(), Place { topic_id, leader_epoch: epoch.0, offset: *offset });
        }
        for key in leaderless {
            self.is_stale(key);
        }
        for (node, (broker, wanted)) in asked {
            if !full.contains(&node) && !self.fetcher.is_busy(node) {
                self.fetcher.start(broker, wanted, max_wait);
            }
        }
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

/// Reads all of one answer, up to its first damage; gives the position behind it.
pub(crate) fn read_fetched(key: Key, data: PartitionData, offset: Offset) -> Offset {
    let (mut fetched, mut positions) = (Fetched::default(), Position::from([(key.clone(), offset)]));
    fetched.add(key.clone(), data);
    while !fetched.is_empty() {
        if fetched.take(100, &mut positions).is_err() {
            break;
        }
    }
    positions.get(&key).copied().unwrap_or(offset)
}
