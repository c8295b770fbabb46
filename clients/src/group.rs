//! Reading topics as a member of a classic consumer group: join, heartbeats, assignment, committed offsets.
//! Invariant: records are returned only of partitions that this member has in the generation it knows; a commit names member and generation.

mod assignor;
mod coordinator;
mod membership;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use madang_protocol::ErrorCode;
use madang_protocol::types::Offset;
use tokio::time::Instant;

pub use assignor::range_assign;
pub(crate) use coordinator::{Coordinator, Identified, Offsets};

use crate::backoff::Backoff;
use crate::client::Client;
use crate::consumer::{Consumer, ConsumerConfig, ConsumerRecord, OutOfRange, StartAt, list_offsets};
use crate::error::{GroupError, means_rejoin};
use membership::{Heartbeats, Member, Membership};

/// How a member takes part in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// The group's id.
    pub group: String,
    /// A name that stays over restarts, for static membership.
    pub group_instance_id: Option<String>,
    /// The coordinator drops the member after this long without a heartbeat.
    pub session_timeout: Duration,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// How long a rebalance may take; a member that does not poll for so long stops its heartbeats.
    pub max_poll_interval: Duration,
    /// How it reads. `out_of_range` also says where it starts in a partition without a committed offset.
    pub consumer: ConsumerConfig,
}

impl GroupConfig {
    /// Kafka's defaults: session timeout 45 s, heartbeats every 3 s, poll interval 5 minutes.
    #[must_use]
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            group_instance_id: None,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            consumer: ConsumerConfig::default(),
        }
    }
}

/// A member of a consumer group. Dropping it without [`GroupConsumer::leave`] lets the session run out.
#[derive(Debug)]
pub struct GroupConsumer {
    client: Client,
    config: GroupConfig,
    topics: Vec<String>,
    coordinator: Coordinator,
    consumer: Consumer,
    member: Member,
    heartbeats: Option<Heartbeats>,
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
            client,
            config,
            topics,
            member: Member::default(),
            heartbeats: None,
        }
    }

    /// The partitions that this member has at the moment, and its position in each.
    pub fn positions(&self) -> impl Iterator<Item = (&str, i32, Offset)> {
        self.consumer.positions()
    }

    /// The next records; none if there are none within `timeout`. Joins, and joins again, as the group needs it: a rebalance may take longer than
    /// `timeout`.
    ///
    /// # Errors
    /// [`GroupError`] for what trying again does not change.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, GroupError> {
        let deadline = Instant::now() + timeout;
        match self.heartbeats.as_ref().map(|heartbeats| heartbeats.polled()) {
            Some(Ok(())) => {}
            Some(Err(code)) => {
                self.lost(code);
                self.join().await?;
            }
            None => self.join().await?,
        }
        loop {
            let Some(heartbeats) = &self.heartbeats else { return Ok(Vec::new()) };
            let left = deadline.saturating_duration_since(Instant::now());
            tokio::select! {
                biased;
                code = heartbeats.ended() => {
                    self.lost(code);
                    self.join().await?;
                }
                records = self.consumer.poll(left.max(Duration::from_millis(1))) => return Ok(records?),
            }
        }
    }

    /// Commits the positions behind all records returned so far.
    ///
    /// # Errors
    /// [`GroupError`]; with `REBALANCE_IN_PROGRESS`, `ILLEGAL_GENERATION` or `UNKNOWN_MEMBER_ID` another member may read those records again.
    pub async fn commit(&mut self) -> Result<(), GroupError> {
        let mut offsets = Offsets::new();
        for (topic, partition, offset) in self.consumer.positions() {
            offsets.entry(topic.to_owned()).or_default().push((partition, offset));
        }
        if offsets.is_empty() {
            return Ok(());
        }
        let identified = self.identified();
        let mut backoff = Backoff::within(self.client.config().retry_timeout);
        loop {
            match self.coordinator.commit(&identified, &offsets).await {
                Err(error) if retries_commit(&error) && backoff.wait().await => {}
                outcome => return outcome,
            }
        }
    }

    /// Leaves the group, so that the others take over at once. A static member stays a member until its session runs out, as it is meant to come back.
    ///
    /// # Errors
    /// [`GroupError`] if the coordinator cannot be told.
    pub async fn leave(mut self) -> Result<(), GroupError> {
        self.heartbeats = None;
        if self.member.id.is_empty() || self.config.group_instance_id.is_some() {
            return Ok(());
        }
        self.coordinator.leave(&self.member.id).await
    }

    fn identified(&self) -> Identified<'_> {
        Identified {
            member_id: &self.member.id,
            group_instance_id: self.config.group_instance_id.as_deref(),
            generation_id: self.member.generation_id,
        }
    }

    /// Forgets what the coordinator no longer holds this member to be.
    fn lost(&mut self, code: ErrorCode) {
        self.heartbeats = None;
        if matches!(code, ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) {
            self.member = Member::default();
        }
    }

    async fn join(&mut self) -> Result<(), GroupError> {
        let mut backoff = Backoff::within(self.client.config().retry_timeout + self.config.max_poll_interval);
        loop {
            self.heartbeats = None;
            self.consumer.unassign_all();
            let membership = Membership {
                client: &self.client,
                config: &self.config,
                topics: &self.topics,
                coordinator: &self.coordinator,
            };
            let error = match membership.join(&mut self.member).await {
                Ok(assignment) => {
                    self.heartbeats = Some(Heartbeats::start(&self.client, &self.config, &self.member));
                    match self.start_reading(&assignment).await {
                        Ok(()) => return Ok(()),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            if let GroupError::Broker { code, .. } = &error
                && means_rejoin(*code)
            {
                self.lost(*code);
                continue;
            }
            if !error.is_retriable() || !backoff.wait().await {
                self.heartbeats = None;
                return Err(error);
            }
        }
    }

    /// Starts at the committed offsets, and where there is none at the end that the configuration says.
    async fn start_reading(&mut self, assignment: &BTreeMap<String, Vec<i32>>) -> Result<(), GroupError> {
        if assignment.is_empty() {
            return Ok(());
        }
        let topics: Vec<&str> = assignment.keys().map(String::as_str).collect();
        self.client.usable_metadata(&topics, false).await?;
        let committed = self.coordinator.fetch_offsets(Some(assignment)).await?;
        let mut missing: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for (topic, partitions) in assignment {
            let name: Arc<str> = topic.as_str().into();
            for partition in partitions {
                match committed.get(&(topic.clone(), *partition)) {
                    Some(found) => self.consumer.assign_partition(&name, *partition, found.offset),
                    None => missing.entry(topic.clone()).or_default().push(*partition),
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let start = match self.config.consumer.out_of_range {
            OutOfRange::Earliest => StartAt::Earliest,
            OutOfRange::Latest => StartAt::Latest,
            OutOfRange::Fail => {
                return Err(GroupError::Broker { group: self.config.group.clone(), code: ErrorCode::OffsetOutOfRange });
            }
        };
        for ((topic, partition), listed) in list_offsets(&self.client, &missing, start).await? {
            self.consumer.assign_partition(&topic.into(), partition, listed.offset);
        }
        Ok(())
    }
}

fn retries_commit(error: &GroupError) -> bool {
    !matches!(error, GroupError::Broker { code, .. } if means_rejoin(*code)) && error.is_retriable()
}
