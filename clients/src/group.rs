//! Reading topics as a member of a classic consumer group: join, heartbeats, assignment, committed offsets.
//! Invariant: records are returned only of partitions that this member has in the generation it knows; a commit names member and generation.

pub(crate) mod assignor;
mod commits;
mod coordinator;
mod listener;
mod membership;
mod rebalance;
mod records;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use madang_protocol::types::Offset;
use tokio::time::{Instant, sleep_until};

pub use assignor::{Assignor, range_assign};
pub use commits::PendingCommit;
pub(crate) use coordinator::{Committed, Coordinator, Identified};
pub use listener::{RebalanceListener, TopicPartition};

use crate::admin::{CommittedOffset, CommittedOffsets};
use crate::backoff::after;
use crate::client::Client;
use crate::consumer::{Consumer, ConsumerConfig, ConsumerRecord, StartAt};
use crate::error::GroupError;
use assignor::Assignment;
use commits::Commits;
use listener::Deaf;
use membership::{Heartbeats, Member};

/// How often the member that assigned looks whether topics have got more partitions.
const TOPICS_ARE_CHECKED: Duration = Duration::from_secs(60);

/// How a member takes part in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// The group's id.
    pub group: String,
    /// A name that stays over restarts, for static membership: while the session lasts, a restarted process gets the same partitions without a rebalance.
    pub group_instance_id: Option<String>,
    /// The coordinator drops the member after this long without a heartbeat.
    pub session_timeout: Duration,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// How long a rebalance may take; a member that does not poll for so long leaves the group, and joins again with its next poll.
    pub max_poll_interval: Duration,
    /// The assignors that the member offers, the preferred one first. One of them has to be offered by all members of the group. To change a group's
    /// assignor, offer both until all members do.
    pub assignors: Vec<Assignor>,
    /// How often the positions behind what earlier polls returned are committed by themselves; also before partitions go to others, and in
    /// [`GroupConsumer::leave`]. Without it, only [`GroupConsumer::commit`] and its like commit.
    pub auto_commit: Option<Duration>,
    /// Where the member runs, for assignors that look at it.
    pub rack: Option<String>,
    /// How it reads. `out_of_range` also says where it starts in a partition without a committed offset.
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    /// Kafka's defaults: session timeout 45 s, heartbeats every 3 s, poll interval 5 minutes, the range assignor. Nothing is committed by itself.
    #[must_use]
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            group_instance_id: None,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            assignors: vec![Assignor::Range],
            auto_commit: None,
            rack: None,
            consumer: ConsumerConfig::default(),
        }
    }

    /// Whether members go on reading what they keep during a rebalance: if every assignor offered allows it.
    fn is_cooperative(&self) -> bool {
        self.assignors.iter().all(|assignor| *assignor == Assignor::CooperativeSticky)
    }
}

/// A member of a consumer group. Dropping it without [`GroupConsumer::leave`] lets the session run out.
///
/// ```no_run
/// # async fn example(client: madang_client::Client) -> Result<(), madang_client::GroupError> {
/// use madang_client::{Assignor, GroupConfig, GroupConsumer};
/// use std::time::Duration;
///
/// let config = GroupConfig { assignors: vec![Assignor::CooperativeSticky], ..GroupConfig::new("billing") };
/// let mut member = GroupConsumer::new(client, config, ["orders"]);
/// for _ in 0..100 {
///     for record in member.poll(Duration::from_secs(1)).await? {
///         println!("{}-{} at {}", record.topic, record.partition, record.offset);
///     }
///     member.commit().await?;
/// }
/// member.leave().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct GroupConsumer {
    client: Client,
    config: GroupConfig,
    topics: Vec<String>,
    coordinator: Coordinator,
    commits: Commits,
    consumer: Consumer,
    listener: Box<dyn RebalanceListener>,
    member: Member,
    heartbeats: Option<Heartbeats>,
    is_fenced: bool,
    topics_checked: Instant,
}

impl GroupConsumer {
    /// A member that reads `topics`; it joins with the first poll.
    #[must_use]
    pub fn new(client: Client, config: GroupConfig, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut topics: Vec<String> = topics.into_iter().map(Into::into).collect();
        topics.sort();
        topics.dedup();
        Self {
            consumer: Consumer::new(client.clone(), config.consumer),
            coordinator: Coordinator::new(client.clone(), &config.group),
            commits: Commits::new(&client, &config),
            client,
            config,
            topics,
            listener: Box::new(Deaf),
            member: Member::default(),
            heartbeats: None,
            is_fenced: false,
            topics_checked: Instant::now(),
        }
    }

    /// The same member, which tells `listener` of the partitions that come and go.
    #[must_use]
    pub fn with_listener(self, listener: impl RebalanceListener + 'static) -> Self {
        Self { listener: Box::new(listener), ..self }
    }

    /// The partitions that this member has at the moment, and its position in each.
    pub fn positions(&self) -> impl Iterator<Item = (&str, i32, Offset)> {
        self.consumer.positions()
    }

    /// Its id within the group; empty before it has joined.
    #[must_use]
    pub fn member_id(&self) -> &str {
        &self.member.id
    }

    /// The next records; none if there are none within `timeout`. Joins, and joins again, as the group needs it: a rebalance may take longer than
    /// `timeout`.
    ///
    /// # Errors
    /// [`GroupError`] for what trying again does not change; `Fenced` once another process has this member's instance id.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, GroupError> {
        let deadline = after(Instant::now(), timeout);
        if self.is_fenced {
            return Err(self.fenced());
        }
        match self.heartbeats.as_ref().map(Heartbeats::polled) {
            Some(Ok(())) => {}
            Some(Err(end)) => {
                self.ended(end).await?;
                self.join().await?;
            }
            None => self.join().await?,
        }
        if self.commits.is_due() {
            let offsets = self.here();
            self.commits.start_automatic(&self.member, offsets);
        }
        self.check_topics().await?;
        loop {
            let Some(heartbeats) = &self.heartbeats else { return Ok(Vec::new()) };
            let has_partitions = self.consumer.positions().next().is_some();
            let left = deadline.saturating_duration_since(Instant::now());
            tokio::select! {
                biased;
                end = heartbeats.ended() => {
                    self.ended(end).await?;
                    self.join().await?;
                }
                records = self.consumer.poll(left.max(Duration::from_millis(1))), if has_partitions => return Ok(records?),
                () = sleep_until(deadline), if !has_partitions => return Ok(Vec::new()),
            }
        }
    }

    /// Where this member stands.
    fn here(&self) -> CommittedOffsets {
        let at = |(topic, partition, offset): (&str, i32, Offset)| {
            ((topic.to_owned(), partition), CommittedOffset { offset, metadata: String::new() })
        };
        self.consumer.positions().map(at).collect()
    }

    /// Commits the positions behind all records returned so far, and waits until that is done.
    ///
    /// # Errors
    /// [`GroupError`]; with `REBALANCE_IN_PROGRESS`, `ILLEGAL_GENERATION` or `UNKNOWN_MEMBER_ID` another member may read those records again.
    pub async fn commit(&mut self) -> Result<(), GroupError> {
        let offsets = self.here();
        self.commits.commit(&self.member, offsets).await
    }

    /// Commits these offsets, each the one of the next record to be read, with what is to be kept beside it.
    ///
    /// ```no_run
    /// # async fn example(mut member: madang_client::GroupConsumer) -> Result<(), madang_client::GroupError> {
    /// use madang_client::{CommittedOffset, CommittedOffsets, Offset};
    ///
    /// let at = CommittedOffset { offset: Offset(42), metadata: "checkpoint 7".to_owned() };
    /// member.commit_offsets(CommittedOffsets::from([(("orders".to_owned(), 0), at)])).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`GroupConsumer::commit`]; `OFFSET_METADATA_TOO_LARGE`.
    pub async fn commit_offsets(&mut self, offsets: CommittedOffsets) -> Result<(), GroupError> {
        self.commits.commit(&self.member, offsets).await
    }

    /// Starts to commit the positions behind all records returned so far, and does not wait for the answer, which the future brings. One commit is on its
    /// way at a time: if there is one, this waits for it.
    pub async fn start_commit(&mut self) -> PendingCommit {
        let offsets = self.here();
        self.commits.start(&self.member, offsets).await
    }

    /// What the group has committed in the partitions that this member has.
    ///
    /// # Errors
    /// [`GroupError`].
    pub async fn committed(&self) -> Result<CommittedOffsets, GroupError> {
        let mut asked: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for (topic, partition, _) in self.consumer.positions() {
            asked.entry(topic.to_owned()).or_default().push(partition);
        }
        if asked.is_empty() {
            return Ok(CommittedOffsets::new());
        }
        self.coordinator.fetch_offsets(Some(&asked)).await
    }

    /// Goes on at another place of a partition that this member has. See [`Consumer::seek`].
    ///
    /// # Errors
    /// `NotAssigned`, if another member has it; another [`GroupError::Consume`] if the offset cannot be found.
    pub async fn seek(&mut self, topic: &str, partition: i32, to: StartAt) -> Result<Offset, GroupError> {
        Ok(self.consumer.seek(topic, partition, to).await?)
    }

    /// Returns no more records of a partition until [`GroupConsumer::resume`], or until it comes back from another member. It stays this member's.
    ///
    /// # Errors
    /// `NotAssigned`.
    pub fn pause(&mut self, topic: &str, partition: i32) -> Result<(), GroupError> {
        Ok(self.consumer.pause(topic, partition)?)
    }

    /// Returns records of a paused partition again.
    ///
    /// # Errors
    /// `NotAssigned`.
    pub fn resume(&mut self, topic: &str, partition: i32) -> Result<(), GroupError> {
        Ok(self.consumer.resume(topic, partition)?)
    }

    /// The partitions that are paused.
    pub fn paused(&self) -> impl Iterator<Item = (&str, i32)> {
        self.consumer.paused()
    }

    /// Leaves the group, so that the others take over at once. A static member stays a member until its session runs out, as it is meant to come back.
    ///
    /// # Errors
    /// [`GroupError`] if the coordinator cannot be told.
    pub async fn leave(mut self) -> Result<(), GroupError> {
        if self.heartbeats.as_ref().is_some_and(|heartbeats| heartbeats.polled().is_ok()) {
            self.revoke(self.owned()).await;
        }
        self.heartbeats = None;
        if self.member.id.is_empty() || self.config.group_instance_id.is_some() {
            return Ok(());
        }
        self.coordinator.leave(&self.member.id).await
    }

    /// What this member has, by topic.
    fn owned(&self) -> Assignment {
        let mut owned = Assignment::new();
        for (topic, partition, _) in self.consumer.positions() {
            owned.entry(topic.to_owned()).or_default().push(partition);
        }
        owned
    }
}
