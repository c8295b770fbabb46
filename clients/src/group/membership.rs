//! Joining a classic group, and staying in it: JoinGroup, SyncGroup, heartbeats in a task of their own.
//! Invariant: at most one heartbeat task lives per member; it ends with its generation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use madang_protocol::ErrorCode;
use madang_protocol::messages::heartbeat::HeartbeatRequest;
use madang_protocol::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use madang_protocol::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::GroupConfig;
use super::assignor::{Assignment, Assignor};
use super::coordinator::Coordinator;
use super::wire::{Itself, assignment, encode_assignment, subscriber};
use crate::client::Client;
use crate::connection::Call;
use crate::error::{GroupError, error_code, means_rejoin};

const PROTOCOL_TYPE: &str = "consumer";

/// Who this member is to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) generation_id: i32,
    /// What it got in that generation.
    pub(super) last: Assignment,
    /// As the leader: the partitions of the topics that the group subscribes to, as they were when it assigned them.
    pub(super) led: Option<BTreeMap<String, usize>>,
}

impl Default for Member {
    fn default() -> Self {
        Self { id: String::new(), generation_id: -1, last: Assignment::new(), led: None }
    }
}

/// What joining needs.
pub(super) struct Membership<'a> {
    pub(super) client: &'a Client,
    pub(super) config: &'a GroupConfig,
    pub(super) topics: &'a [String],
    pub(super) coordinator: &'a Coordinator,
    /// What this member keeps during the rebalance.
    pub(super) owned: &'a Assignment,
}

impl Membership<'_> {
    /// Joins the next generation; `member.last` is what this member has in it.
    pub(super) async fn join(&self, member: &mut Member) -> Result<(), GroupError> {
        let mut joined = self.send_join(member).await?;
        if error_code(joined.error_code) == ErrorCode::MemberIdRequired {
            member.id = joined.member_id.into();
            joined = self.send_join(member).await?;
        }
        self.coordinator.check(joined.error_code)?;
        member.id = joined.member_id.to_string();
        member.generation_id = joined.generation_id;
        member.led = None;
        let assignments = if joined.leader == joined.member_id && !joined.skip_assignment {
            self.assign(member, &joined).await?
        } else {
            Vec::new()
        };
        member.last = self.sync(member, &joined, assignments).await?;
        Ok(())
    }

    fn instance(&self) -> Option<std::borrow::Cow<'_, str>> {
        self.config.group_instance_id.as_deref().map(Into::into)
    }

    async fn send_join(&self, member: &Member) -> Result<JoinGroupResponse<'static>, GroupError> {
        let itself = Itself {
            topics: self.topics,
            owned: self.owned,
            last: &member.last,
            generation: member.generation_id,
            rack: self.config.rack.as_deref(),
        };
        let offer = |assignor: &Assignor| {
            let metadata = self.encoded(itself.subscription(*assignor))?;
            Ok(JoinGroupRequestProtocol { name: assignor.name().into(), metadata })
        };
        let protocols: Result<Vec<_>, GroupError> = self.config.assignors.iter().map(offer).collect();
        let request = JoinGroupRequest {
            group_id: self.config.group.as_str().into(),
            session_timeout_ms: milliseconds(self.config.session_timeout),
            rebalance_timeout_ms: milliseconds(self.config.max_poll_interval),
            member_id: member.id.as_str().into(),
            group_instance_id: self.instance(),
            protocol_type: PROTOCOL_TYPE.into(),
            protocols: protocols?,
            ..JoinGroupRequest::default()
        };
        self.coordinator.send(&request, self.parked()).await
    }

    /// A call that the coordinator may park for a whole rebalance.
    fn parked(&self) -> Call {
        Call::within(self.client.config().request_timeout.saturating_add(self.config.max_poll_interval))
    }

    /// As the leader: what every member gets.
    async fn assign(
        &self,
        member: &mut Member,
        joined: &JoinGroupResponse<'static>,
    ) -> Result<Vec<SyncGroupRequestAssignment<'static>>, GroupError> {
        let chosen = Assignor::of_name(joined.protocol_name.as_deref().unwrap_or_default());
        let assignor = chosen.ok_or_else(|| self.coordinator.failed(ErrorCode::InconsistentGroupProtocol))?;
        let mut members = Vec::new();
        for other in &joined.members {
            let read = subscriber(assignor, &other.member_id, other.group_instance_id.as_deref(), &other.metadata);
            members.push(read.map_err(|source| GroupError::Member { group: self.config.group.clone(), source })?);
        }
        let topics: BTreeSet<&str> = members.iter().flat_map(|member| &member.topics).map(String::as_str).collect();
        let topics: Vec<&str> = topics.into_iter().collect();
        let metadata = self.client.metadata(&topics, false).await?;
        let count = |topic: &str| metadata.topics.get(topic).map_or(0, |found| found.partitions.len());
        let partitions: BTreeMap<String, usize> =
            topics.iter().map(|topic| ((*topic).to_owned(), count(topic))).collect();
        let encode = |(member_id, assigned): (String, Assignment)| {
            let assignment = self.encoded(encode_assignment(assigned))?;
            Ok(SyncGroupRequestAssignment { member_id: member_id.into(), assignment })
        };
        let assigned = assignor.assign(&members, &partitions).into_iter().map(encode).collect();
        member.led = Some(partitions);
        assigned
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
        let read = assignment(&answer.assignment);
        read.map_err(|source| GroupError::Member { group: self.config.group.clone(), source })
    }

    fn encoded<T>(&self, outcome: Result<T, madang_protocol::EncodeError>) -> Result<T, GroupError> {
        outcome.map_err(|source| GroupError::Encode { group: self.config.group.clone(), source })
    }
}

fn milliseconds(time: std::time::Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// Why a generation is over for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The group rebalances; what the member has is still its own.
    Rebalance,
    /// The coordinator has dropped the member, or it has left because it did not poll: others may have its partitions.
    Lost,
    /// Another process has taken the member's instance id.
    Fenced,
}

impl End {
    /// What an answer with this error means; nothing if the member can go on.
    pub(super) fn of(code: ErrorCode) -> Option<Self> {
        match code {
            ErrorCode::FencedInstanceId => Some(Self::Fenced),
            ErrorCode::RebalanceInProgress => Some(Self::Rebalance),
            code => means_rejoin(code).then_some(Self::Lost),
        }
    }
}

/// The heartbeats of one generation; dropping it ends them.
#[derive(Debug)]
pub(super) struct Heartbeats {
    task: JoinHandle<()>,
    ended: watch::Receiver<Option<End>>,
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
    pub(super) fn polled(&self) -> Result<(), End> {
        *self.last_poll.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        match *self.ended.borrow() {
            None => Ok(()),
            Some(end) => Err(end),
        }
    }

    /// Waits until the generation ends.
    pub(super) async fn ended(&self) -> End {
        let mut ended = self.ended.clone();
        let end = ended.wait_for(Option::is_some).await.ok().and_then(|end| *end);
        // A task that ended without a word leaves the member to join again.
        end.unwrap_or(End::Rebalance)
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
    /// Beats until the coordinator says that the generation is over, or the member does not poll.
    async fn run(self) -> End {
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
                // Whoever does not read must not hold partitions. A static member's session runs out, as it is meant to come back.
                if self.config.group_instance_id.is_none() {
                    drop(self.coordinator.leave(&self.member.id).await);
                }
                return End::Lost;
            }
            let call = Call::within(self.client.config().request_timeout.min(self.config.session_timeout));
            // A lost connection is tried again at the next beat: the session timeout decides.
            let Ok(answer) = self.coordinator.send(&request, call).await else { continue };
            let code = error_code(answer.error_code);
            if let Some(end) = End::of(code) {
                return end;
            }
            if code != ErrorCode::None {
                drop(self.coordinator.failed(code));
            }
        }
    }
}
