//! What replicas of one partition, their controller and the metadata say to each other.
//! Invariant: every message names the leader epoch it belongs to; one of another epoch is dropped or refused, never counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{LeaderEpoch, NodeId, Offset, TopicPartition};
use speedy::{Readable, Writable};

use super::ReplicaSnapshot;
use crate::metadata::{MetadataImage, NO_LEADER};

/// What committed metadata says of the partition, as this node has to know it. Comes from an image of the metadata and from nowhere else, after
/// the settings of the same image: who learns of a smaller in-sync set knows the `min.insync.replicas` that it was judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// This node.
    pub node_id: NodeId,
    /// Who leads; none if nobody does.
    pub leader: Option<NodeId>,
    /// Number of the leadership.
    pub leader_epoch: LeaderEpoch,
    /// Number of this state.
    pub partition_epoch: i32,
    /// The nodes that hold the partition.
    pub assigned_replicas: BTreeSet<NodeId>,
    /// The in-sync set.
    pub in_sync_replicas: BTreeSet<NodeId>,
    /// Who may lead though not in sync.
    pub eligible_leader_replicas: BTreeSet<NodeId>,
    /// Broker epochs of the assigned nodes that are not fenced.
    pub broker_epochs: BTreeMap<NodeId, i64>,
    /// The last epoch whose leader was elected though it may lack acknowledged records; [`LeaderEpoch::NONE`] if there was none.
    pub unclean_epoch: LeaderEpoch,
    /// The life of this node's replica whose loss the controller knows of, under its present registration.
    pub reported_loss: Option<u64>,
}

impl Assignment {
    /// What `image` says of the partition to `node_id`; none if the node does not hold it.
    #[must_use]
    pub fn of(image: &MetadataImage, partition: TopicPartition, node_id: NodeId) -> Option<Self> {
        let state = image.partition_by_id(partition)?;
        if !state.assigned_replicas.contains(&node_id) {
            return None;
        }
        let live =
            |node: &NodeId| image.broker(*node).filter(|broker| !broker.fenced).map(|broker| broker.broker_epoch);
        let epochs = state.assigned_replicas.iter().filter_map(|node| Some((*node, live(node)?)));
        let registered = image.broker(node_id).map(|broker| broker.broker_epoch);
        let mine = state.losses.iter().filter(|loss| loss.node_id == node_id && Some(loss.broker_epoch) == registered);
        Some(Self {
            node_id,
            reported_loss: mine.map(|loss| loss.incarnation).max(),
            leader: Some(state.leader).filter(|leader| *leader != NO_LEADER),
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            assigned_replicas: state.assigned_replicas.iter().copied().collect(),
            in_sync_replicas: state.in_sync_replicas.iter().copied().collect(),
            eligible_leader_replicas: state.eligible_leader_replicas.iter().copied().collect(),
            broker_epochs: epochs.collect(),
            unclean_epoch: state.unclean_epoch,
        })
    }
}

/// What a leader has told a follower of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Known {
    /// Its high watermark.
    pub high_watermark: Offset,
    /// Where its log starts.
    pub log_start_offset: Offset,
}

/// What a follower wants next of its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FetchPosition {
    /// Whom to ask.
    pub leader: NodeId,
    /// The leadership that the follower knows.
    pub leader_epoch: LeaderEpoch,
    /// The follower's life within its process.
    pub incarnation: u64,
    /// The offset it wants next: its log's end.
    pub fetch_offset: Offset,
    /// The epoch of its log's last record; [`LeaderEpoch::NONE`] if it has none.
    pub last_fetched_epoch: LeaderEpoch,
    /// Its durable end.
    pub confirmed_offset: Offset,
    /// What the leader has told it in this leadership; none if that is nothing yet, or if the follower does not say.
    pub known: Option<Known>,
    /// Whether the last answer could not be used, so that the next request should wait a little.
    pub after_error: bool,
}

/// A follower's fetch as it reaches the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FollowerFetch {
    /// Who asks.
    pub node_id: NodeId,
    /// Its registration.
    pub broker_epoch: i64,
    /// What it wants.
    pub position: FetchPosition,
}

/// A fetch that was found valid against a snapshot, for the leader to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fetched {
    /// The fetch.
    pub fetch: FollowerFetch,
    /// The life of the leader whose snapshot it was judged by.
    pub leader_incarnation: u64,
}

/// A sync has moved a follower's durable end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Confirmed {
    /// The follower.
    pub node_id: NodeId,
    /// Its registration.
    pub broker_epoch: i64,
    /// Its life within its process.
    pub incarnation: u64,
    /// The leadership under which its log was found to match.
    pub leader_epoch: LeaderEpoch,
    /// Its durable end.
    pub confirmed_offset: Offset,
}

/// The answer to a fetch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchAnswer {
    /// The leadership that answers.
    pub leader_epoch: LeaderEpoch,
    /// The follower's life that asked.
    pub incarnation: u64,
    /// What was asked for.
    pub fetch_offset: Offset,
    /// The answer.
    pub body: FetchBody,
}

impl FetchAnswer {
    /// The bytes of its records.
    #[must_use]
    pub fn size_in_bytes(&self) -> usize {
        match &self.body {
            FetchBody::Records { records, .. } => records.len(),
            FetchBody::Diverging { .. } | FetchBody::BelowStart { .. } | FetchBody::Error(_) => 0,
        }
    }

    /// The answer of a node that serves nobody of the partition.
    #[must_use]
    pub const fn refused(position: &FetchPosition, error: ErrorCode) -> Self {
        let (incarnation, fetch_offset) = (position.incarnation, position.fetch_offset);
        Self { leader_epoch: LeaderEpoch::NONE, incarnation, fetch_offset, body: FetchBody::Error(error) }
    }
}

/// What a leader answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FetchBody {
    /// Batches from the offset that was asked for; none if there are none yet.
    Records {
        /// Whole batches; the last one may be cut short.
        records: Bytes,
        /// The leader's high watermark.
        high_watermark: Offset,
        /// Where the leader's log starts.
        log_start_offset: Offset,
    },
    /// The logs part before the offset that was asked for.
    Diverging {
        /// The largest epoch of the leader's that is not above the follower's last.
        epoch: LeaderEpoch,
        /// Where it ends.
        end_offset: Offset,
    },
    /// What was asked for lies below the log's start, as all that the follower has.
    BelowStart {
        /// Where the leader's log starts.
        log_start_offset: Offset,
    },
    /// Refused.
    Error(ErrorCode),
}

/// A member of a proposed in-sync set. Nodes send it to each other with the proposal: the order of fields is a layout on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Readable, Writable)]
pub struct IsrMember {
    /// The node.
    pub node_id: NodeId,
    /// The registration under which it was found in sync; -1 for a member that stays and has not fetched in this epoch.
    pub broker_epoch: i64,
    /// The life of its replica that was found in sync; 0 where `broker_epoch` is -1.
    pub incarnation: u64,
}

/// A leader's wish to change the in-sync set (`AlterPartition`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IsrProposal {
    /// Number of the proposal within this life of the leader.
    pub number: u64,
    /// The leader.
    pub leader: NodeId,
    /// Its leadership.
    pub leader_epoch: LeaderEpoch,
    /// The state it would change.
    pub partition_epoch: i32,
    /// The set, by node id, the leader included.
    pub members: Vec<IsrMember>,
}

/// How a proposal ended, as far as its answer says. What is in force comes with the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProposalOutcome {
    /// It is committed.
    Committed,
    /// It was refused and will never be committed.
    Refused(ErrorCode),
    /// It may be committed, now or later.
    Unknown,
}

/// A replica that found less than its last life had published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Loss {
    /// The life that found it.
    pub incarnation: u64,
    /// The end that was published.
    pub published: Offset,
    /// The end that is there.
    pub found: Offset,
}

/// What can happen to a replica of a replicated partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicationInput {
    /// The metadata says this of the partition. An older state than the last is dropped.
    Assign(Box<Assignment>),
    /// A follower's fetch was served.
    Fetched(Fetched),
    /// A follower's durable end has moved.
    Confirmed(Confirmed),
    /// The leader has answered this follower's fetch.
    Answered(FetchAnswer),
    /// The proposal of that number has ended.
    ProposalEnded {
        /// Which.
        number: u64,
        /// How.
        outcome: ProposalOutcome,
    },
    /// Nothing has come from that node for a session.
    Silent {
        /// The node.
        node_id: NodeId,
        /// How long a session is.
        session: Duration,
    },
    /// The node has had no answer of the controller for a session: another may lead, and whoever waits has to find out.
    CutOff,
    /// What [`ReplicationEffect::LowerRecoveryPoint`] of that number asked for is durable.
    Lowered(u64),
}

/// What a replica of a replicated partition asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicationEffect {
    /// Fetch, and return the answer as [`ReplicationInput::Answered`]. A later one replaces it.
    Fetch(FetchPosition),
    /// Tell the leader; a later one may replace it before it is sent.
    Confirm {
        /// The leader.
        leader: NodeId,
        /// Its leadership.
        leader_epoch: LeaderEpoch,
        /// The durable end.
        confirmed_offset: Offset,
    },
    /// Send to the controller and return how it ended. The snapshot with these members in the maximal in-sync set was published before.
    Propose(IsrProposal),
    /// Tell the controller, again and again until the metadata shows that it knows.
    ReportLoss(Loss),
    /// The log is about to be cut: have the stored recovery point lowered to this, durably, and return [`ReplicationInput::Lowered`]. A higher
    /// one would have a later start believe what is written above the cut. No checkpoint that was taken of an older snapshot may be stored after
    /// it.
    LowerRecoveryPoint {
        /// Number of the cut within this life.
        number: u64,
        /// What will be on the device of what is left.
        recovery_point: Offset,
        /// The high watermark.
        high_watermark: Offset,
    },
    /// The partition here is set aside: going on would lose acknowledged records. Nothing was cut. The [`ReplicationEffect::ReportLoss`] before it
    /// takes this replica out of what the controller may elect from.
    Halt(String),
}

impl ReplicaSnapshot {
    /// Judges a follower's fetch by the state that it would be served from. `Ok` if it is to be served and counted.
    ///
    /// # Errors
    /// What to answer instead; such a fetch is not counted.
    pub fn judge(&self, position: &FetchPosition) -> Result<(), FetchBody> {
        let error = |code| Err(FetchBody::Error(code));
        let Some(current) = self.leader_epoch else { return error(ErrorCode::NotLeaderOrFollower) };
        if position.leader_epoch < current {
            return error(ErrorCode::FencedLeaderEpoch);
        }
        if position.leader_epoch > current {
            return error(ErrorCode::UnknownLeaderEpoch);
        }
        let log_start_offset = self.view.log_start_offset();
        if position.fetch_offset < log_start_offset {
            return Err(FetchBody::BelowStart { log_start_offset });
        }
        if position.last_fetched_epoch > LeaderEpoch::NONE {
            let known = self.end_offset_for_epoch(position.last_fetched_epoch);
            let Some((epoch, end_offset)) = known else { return error(ErrorCode::OffsetOutOfRange) };
            if epoch < position.last_fetched_epoch || end_offset < position.fetch_offset {
                return Err(FetchBody::Diverging { epoch, end_offset });
            }
        }
        let range = self.view.log_start_offset()..=self.view.log_end_offset();
        if range.contains(&position.fetch_offset) { Ok(()) } else { error(ErrorCode::OffsetOutOfRange) }
    }

    /// Answers a follower's fetch with at most `max_bytes`, the first batch aside. The flag says whether the fetch counts.
    #[must_use]
    pub fn answer(&self, position: &FetchPosition, max_bytes: usize) -> (FetchAnswer, bool) {
        self.answer_within(position, max_bytes, true)
    }

    /// As [`ReplicaSnapshot::answer`]; `at_least_one` says whether a first batch that is longer than `max_bytes` is answered all the same.
    #[must_use]
    pub fn answer_within(&self, position: &FetchPosition, max_bytes: usize, at_least_one: bool) -> (FetchAnswer, bool) {
        let body = self.judge(position).and_then(|()| self.records(position.fetch_offset, max_bytes, at_least_one));
        let counts = body.is_ok();
        let body = body.unwrap_or_else(|refusal| refusal);
        let leader_epoch = self.leader_epoch.unwrap_or(LeaderEpoch::NONE);
        let (incarnation, fetch_offset) = (position.incarnation, position.fetch_offset);
        (FetchAnswer { leader_epoch, incarnation, fetch_offset, body }, counts)
    }

    fn records(&self, from: Offset, max_bytes: usize, at_least_one: bool) -> Result<FetchBody, FetchBody> {
        let storage = FetchBody::Error(ErrorCode::KafkaStorageError);
        let read = self.view.read(from, self.view.log_end_offset(), max_bytes, at_least_one);
        let read = read.map_err(|_| storage.clone())?;
        Ok(FetchBody::Records {
            records: read.records.read().map_err(|_| storage)?,
            high_watermark: self.high_watermark,
            log_start_offset: self.view.log_start_offset(),
        })
    }

    /// The end that clients may be told: the high watermark, once it is known to be current.
    ///
    /// # Errors
    /// `OFFSET_NOT_AVAILABLE` while a new leader's high watermark may be behind what its predecessor told.
    pub fn end_for_clients(&self) -> Result<Offset, ErrorCode> {
        let settled = self.high_watermark >= self.epoch_start || madang_storage::mutants::mutant(12);
        if settled { Ok(self.high_watermark) } else { Err(ErrorCode::OffsetNotAvailable) }
    }
}
