//! Joining a classic group, and staying in it: JoinGroup, SyncGroup, heartbeats in a task of their own.
//! Invariant: at most one heartbeat task lives per member; it ends with its generation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use madang_protocol::ErrorCode;
use madang_protocol::message::{decode_versioned, encode_versioned};
use madang_protocol::messages::consumer_protocol_assignment::{ConsumerProtocolAssignment, TopicPartition};
use madang_protocol::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use madang_protocol::messages::heartbeat::HeartbeatRequest;
use madang_protocol::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use madang_protocol::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::GroupConfig;
use super::assignor::{Assignment, Subscriber, assign};
use super::coordinator::Coordinator;
use crate::client::Client;
use crate::connection::Call;
use crate::error::{GroupError, error_code, means_rejoin};

const PROTOCOL_TYPE: &str = "consumer";
const RANGE: &str = "range";
/// The version of subscription and assignment that is written: all readers know it.
const CONSUMER_PROTOCOL: i16 = 1;

/// Who this member is to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) generation_id: i32,
}

impl Default for Member {
    fn default() -> Self {
        Self { id: String::new(), generation_id: -1 }
    }
}

/// What joining needs.
pub(super) struct Membership<'a> {
    pub(super) client: &'a Client,
    pub(super) config: &'a GroupConfig,
    pub(super) topics: &'a [String],
    pub(super) coordinator: &'a Coordinator,
}

impl Membership<'_> {
    /// Joins the next generation and answers what this member has in it.
    pub(super) async fn join(&self, member: &mut Member) -> Result<Assignment, GroupError> {
        let mut joined = self.send_join(member).await?;
        if error_code(joined.error_code) == ErrorCode::MemberIdRequired {
            member.id = joined.member_id.into();
            joined = self.send_join(member).await?;
        }
        self.coordinator.check(joined.error_code)?;
        member.id = joined.member_id.to_string();
        member.generation_id = joined.generation_id;
        let assignments = if joined.leader == joined.member_id && !joined.skip_assignment {
            self.assign(&joined).await?
        } else {
            Vec::new()
        };
        self.sync(member, &joined, assignments).await
    }

    fn instance(&self) -> Option<std::borrow::Cow<'_, str>> {
        self.config.group_instance_id.as_deref().map(Into::into)
    }

    async fn send_join(&self, member: &Member) -> Result<JoinGroupResponse<'static>, GroupError> {
        let subscription = ConsumerProtocolSubscription {
            topics: self.topics.iter().map(|topic| topic.as_str().into()).collect(),
            ..ConsumerProtocolSubscription::default()
        };
        let metadata = self.encoded(encode_versioned(&subscription, CONSUMER_PROTOCOL))?;
        let request = JoinGroupRequest {
            group_id: self.config.group.as_str().into(),
            session_timeout_ms: milliseconds(self.config.session_timeout),
            rebalance_timeout_ms: milliseconds(self.config.max_poll_interval),
            member_id: member.id.as_str().into(),
            group_instance_id: self.instance(),
            protocol_type: PROTOCOL_TYPE.into(),
            protocols: vec![JoinGroupRequestProtocol { name: RANGE.into(), metadata }],
            ..JoinGroupRequest::default()
        };
        self.coordinator.send(&request, self.parked()).await
    }

    /// A call that the coordinator may park for a whole rebalance.
    fn parked(&self) -> Call {
        Call::within(self.client.config().request_timeout + self.config.max_poll_interval)
    }

    /// As the leader: what every member gets.
    async fn assign(
        &self,
        joined: &JoinGroupResponse<'static>,
    ) -> Result<Vec<SyncGroupRequestAssignment<'static>>, GroupError> {
        let mut members = Vec::new();
        for member in &joined.members {
            let (subscription, _) = decode_versioned::<ConsumerProtocolSubscription<'_>>(&member.metadata)
                .map_err(|source| GroupError::Member { group: self.config.group.clone(), source })?;
            members.push(Subscriber {
                member_id: member.member_id.to_string(),
                group_instance_id: member.group_instance_id.as_deref().map(str::to_owned),
                topics: subscription.topics.into_iter().map(Into::into).collect(),
            });
        }
        let topics: BTreeSet<&str> = members.iter().flat_map(|member| &member.topics).map(String::as_str).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let metadata = self.client.metadata(&topics, false).await?;
        let count = |topic: &str| metadata.topics.get(topic).map(|found| (topic.to_owned(), found.partitions.len()));
        let partitions: BTreeMap<String, usize> = topics.iter().filter_map(|topic| count(topic)).collect();
        let encode = |(member_id, assigned): (String, Assignment)| {
            let assigned_partitions = assigned
                .into_iter()
                .map(|(topic, partitions)| TopicPartition { topic: topic.into(), partitions })
                .collect();
            let assignment = ConsumerProtocolAssignment { assigned_partitions, user_data: None };
            let assignment = self.encoded(encode_versioned(&assignment, CONSUMER_PROTOCOL))?;
            Ok(SyncGroupRequestAssignment { member_id: member_id.into(), assignment })
        };
        assign(&members, &partitions).into_iter().map(encode).collect()
    }

    async fn sync(
        &self,
        member: &Member,
        joined: &JoinGroupResponse<'static>,
        assignments: Vec<SyncGroupRequestAssignment<'static>>,
    ) -> Result<Assignment, GroupError> {
        let request = SyncGroupRequest {
            group_id: self.config.group.as_str().into(),
            generation_id: member.generation_id,
            member_id: member.id.as_str().into(),
            group_instance_id: self.instance(),
            protocol_type: Some(PROTOCOL_TYPE.into()),
            protocol_name: joined.protocol_name.clone(),
            assignments,
        };
        let answer = self.coordinator.send(&request, self.parked()).await?;
        self.coordinator.check(answer.error_code)?;
        if answer.assignment.is_empty() {
            return Ok(Assignment::new());
        }
        let (assignment, _) = decode_versioned::<ConsumerProtocolAssignment<'_>>(&answer.assignment)
            .map_err(|source| GroupError::Member { group: self.config.group.clone(), source })?;
        let topics = assignment.assigned_partitions.into_iter().map(|topic| (topic.topic.into(), topic.partitions));
        Ok(topics.collect())
    }

    fn encoded(&self, outcome: Result<Bytes, madang_protocol::EncodeError>) -> Result<Bytes, GroupError> {
        outcome.map_err(|source| GroupError::Encode { group: self.config.group.clone(), source })
    }
}

fn milliseconds(time: std::time::Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// The heartbeats of one generation; dropping it ends them.
#[derive(Debug)]
pub(super) struct Heartbeats {
    task: JoinHandle<()>,
    ended: watch::Receiver<Option<ErrorCode>>,
    last_poll: Arc<Mutex<Instant>>,
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Heartbeats {
    pub(super) fn start(client: &Client, config: &GroupConfig, member: &Member) -> Self {
        let (end, ended) = watch::channel(None);
        let last_poll = Arc::new(Mutex::new(Instant::now()));
        let beat = Beat {
            coordinator: Coordinator::new(client.clone(), &config.group),
            client: client.clone(),
            config: config.clone(),
            member: member.clone(),
            last_poll: Arc::clone(&last_poll),
        };
        let task = tokio::spawn(async move {
            // Nobody listens once the member is gone.
            let _ = end.send(Some(beat.run().await));
        });
        Self { task, ended, last_poll }
    }

    /// Notes that the member is alive, and answers why its generation ended, if it has.
    pub(super) fn polled(&self) -> Result<(), ErrorCode> {
        *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        match *self.ended.borrow() {
            None => Ok(()),
            Some(code) => Err(code),
        }
    }

    /// Waits until the generation ends.
    pub(super) async fn ended(&self) -> ErrorCode {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await.ok().and_then(|code| *code);
        // A task that ended without a word leaves the member to join again.
        end.unwrap_or(ErrorCode::RebalanceInProgress)
    }
}

struct Beat {
    coordinator: Coordinator,
    client: Client,
    config: GroupConfig,
    member: Member,
    last_poll: Arc<Mutex<Instant>>,
}

impl Beat {
    /// Beats until the coordinator says that the generation is over.
    async fn run(self) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: self.config.group.as_str().into(),
            generation_id: self.member.generation_id,
            member_id: self.member.id.as_str().into(),
            group_instance_id: self.config.group_instance_id.as_deref().map(Into::into),
        };
        loop {
            tokio::time::sleep(self.config.heartbeat_interval).await;
            let last_poll = *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner);
            if last_poll.elapsed() > self.config.max_poll_interval {
                // Whoever does not read must not hold partitions. The session runs out, and the next poll joins anew.
                return ErrorCode::UnknownMemberId;
            }
            let call = Call::within(self.client.config().request_timeout.min(self.config.session_timeout));
            // A lost connection is tried again at the next beat: the session timeout decides.
            let Ok(answer) = self.coordinator.send(&request, call).await else { continue };
            let code = error_code(answer.error_code);
            if means_rejoin(code) || code == ErrorCode::FencedInstanceId {
                return code;
            }
            if code != ErrorCode::None {
                drop(self.coordinator.failed(code));
            }
        }
    }
}
