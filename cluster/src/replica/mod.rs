//! One replica of one partition: it owns the partition's log, decides what is acknowledged, and publishes what readers see.
//!
//! `core.rs` decides and is pure, by role: `leader.rs` with `isr.rs`, and `follower.rs`; `replicate.rs` takes what comes from the metadata and from
//! other replicas; `replication.rs` is what they say to each other; `shared.rs` is what every other thread sees of it; `actor.rs` runs it on its
//! directory's disk arbiter, and `outside.rs` performs what it asks of other nodes. Other nodes are reached by `links.rs`: `fetching/` asks each
//! remote leader for all followers at once, `serving.rs` answers that.

#[cfg(feature = "host")]
pub mod actor;
mod append;
mod compaction;
mod core;
#[cfg(test)]
mod failure_tests;
pub mod fetcher;
pub mod fetching;
mod follower;
mod isr;
mod leader;
pub mod links;
#[cfg(feature = "host")]
mod outside;
mod pending;
mod publish;
mod replicate;
pub mod replication;
pub mod serving;
mod shared;
#[cfg(test)]
mod tests;
pub mod throttle;

use std::sync::Arc;
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_actors::messages;
use madang_actors::reply::Reply;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::record_batch::{ProduceRules, ValidatedBatch};
use madang_protocol::types::{LeaderEpoch, NodeId, Offset};
use madang_storage::mutants::mutant;
use madang_storage::{
    CompactionError, CompactionJob, CompactionResult, CompactionSettings, LogConfig, LogError, Recovery, SyncOutcome,
    SyncRequest,
};

pub use self::core::Replica;
#[cfg(feature = "host")]
pub use self::outside::Neighbours;
use self::replication::{
    Assignment, Confirmed, FetchAnswer, Fetched, ProposalOutcome, ReplicationEffect, ReplicationInput,
};
pub use self::shared::{ReplicaHandle, ReplicaSnapshot, SharedReplica};
pub use crate::configs::Durability;
use crate::request::RequestId;

/// Which copies must have a record before its append is answered (Produce's `acks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredAcks {
    /// `acks=0`: answered on append, and only so that the connection knows of an error.
    None,
    /// `acks=1`: the leader's.
    Leader,
    /// `acks=all`: answered when the high watermark has passed the record.
    All,
}

/// What the committed metadata and the node's configuration say of a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaConfig {
    /// Its log's settings.
    pub log: LogConfig,
    /// What a batch must meet; the request's version and the time are filled in for each request.
    pub produce: ProduceRules,
    /// When a record counts as stored.
    pub durability: Durability,
    /// `min.insync.replicas`; counts as the replication factor where that is lower.
    pub min_in_sync_replicas: usize,
    /// Whether `cleanup.policy` has `delete`, so that records may be deleted on request.
    pub deletes_old_records: bool,
    /// How to compact the log, if `cleanup.policy` has `compact`.
    pub compaction: Option<CompactionSettings>,
    /// How many nodes hold the partition, without those that a reassignment is only adding.
    pub replication_factor: usize,
    /// How many nodes are in sync by committed metadata, this one included, for a leader by [`ReplicaInput::Lead`].
    pub in_sync_replicas: usize,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_time_max: Duration,
}

/// A batch to append, already validated.
#[derive(Clone, Debug)]
pub struct Append {
    /// Who asks.
    pub request: RequestId,
    /// The batch.
    pub batch: ValidatedBatch,
    /// When to answer.
    pub required_acks: RequiredAcks,
    /// When to answer `REQUEST_TIMED_OUT` instead, should the high watermark not have passed the batch. It is appended all the same.
    pub deadline: Mono,
    /// Refuse unless the replica leads in this epoch.
    pub expected_epoch: Option<LeaderEpoch>,
}

/// Where a batch was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// The broker's time that its records carry, in milliseconds since 1970; -1 if they carry the producer's.
    pub log_append_time_ms: i64,
    /// Where the log starts.
    pub log_start_offset: Offset,
    /// The epoch it was appended in.
    pub leader_epoch: LeaderEpoch,
}

/// Why a batch was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Kafka's code.
    pub error: ErrorCode,
    /// What a person should know beyond the code.
    pub message: Option<Arc<str>>,
}

impl From<ErrorCode> for Refused {
    fn from(error: ErrorCode) -> Self {
        Self { error, message: None }
    }
}

/// A log that ends before what was already published of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log ends at {found}, but {published} was published")]
pub struct LostRecords {
    /// The end that readers have seen.
    pub published: Offset,
    /// The end that is there.
    pub found: Offset,
    /// What is left of the high watermark that was published.
    pub high_watermark: Offset,
    /// The newest leader epoch that the earlier life knew of.
    pub known_epoch: LeaderEpoch,
}

impl LostRecords {
    /// What a log that a process found at its start lacks of what was stored of it; none if it lacks nothing. `high_watermark` was stored too.
    #[must_use]
    pub fn at_start(recovery: &Recovery, high_watermark: Offset) -> Option<Self> {
        let found = recovery.log_end_offset;
        let published = recovery.known_end.filter(|known| *known > found && !mutant(47))?;
        Some(Self { published, found, high_watermark: high_watermark.min(found), known_epoch: LeaderEpoch::NONE })
    }
}

/// How an append ended.
pub type AppendResult = Result<Appended, Refused>;

/// How a compaction ended.
pub type Compacted = Result<CompactionResult, CompactionError>;

/// What can happen to a replica.
#[derive(Debug)]
pub enum ReplicaInput {
    /// A batch to append. Nothing is written before [`ReplicaInput::EndBatch`].
    Append(Append),
    /// An append that is refused as the node may not lead any more: `NOT_LEADER_OR_FOLLOWER`.
    Refuse(RequestId),
    /// The mailbox is drained for now: write what was gathered.
    EndBatch,
    /// A sync that this replica asked for has ended.
    Synced(SyncOutcome),
    /// This node leads the partition from now on, and no other node holds it.
    Lead(LeaderEpoch),
    /// Something about a partition that several nodes hold.
    Replication(ReplicationInput),
    /// The metadata or the node's configuration has changed.
    Configure(ReplicaConfig),
    /// Records below the offset are no longer wanted; [`Offset::NONE`] means all up to the high watermark.
    DeleteRecords {
        /// Who asks.
        request: RequestId,
        /// The offset to keep from.
        before: Offset,
    },
    /// Time to look for segments that retention no longer wants.
    Retain,
    /// Time to look whether the log is to be compacted.
    Compact,
    /// A job that this replica asked for has ended.
    Compacted(Box<Compacted>),
    /// An orderly end: sync everything, write the clean side files.
    Close,
    /// Time alone has passed.
    Tick,
}

/// What a replica asks of its shell. Effects are performed in order.
#[derive(Debug)]
pub enum ReplicaEffect {
    /// Publish the snapshot, then wake whoever waits on the partition. Comes before any reply that follows from it.
    Publish(Arc<ReplicaSnapshot>),
    /// Answer an append.
    Reply {
        /// Who asked.
        request: RequestId,
        /// How it ended.
        result: AppendResult,
    },
    /// Answer a delete-records request with the new log start offset.
    ReplyDeleted {
        /// Who asked.
        request: RequestId,
        /// The log start offset now.
        result: Result<Offset, ErrorCode>,
    },
    /// Have this synced and return the outcome as [`ReplicaInput::Synced`].
    Sync(SyncRequest),
    /// Have this run beside the disk thread and return the outcome as [`ReplicaInput::Compacted`].
    Compact(Box<CompactionJob>),
    /// The log directory can no longer be trusted: nothing in it is retried.
    FailDirectory(String),
    /// This replica must be rebuilt from disk.
    Restart(String),
    /// The log is closed: all of it is on the device, and the next start finds it clean.
    Closed,
    /// Something about a partition that several nodes hold.
    Replication(ReplicationEffect),
}

/// After a failed sync nothing is retried, whatever it was for.
fn fail_if_unsynced(error: &LogError, effects: &mut Vec<ReplicaEffect>) {
    if matches!(error, LogError::Sync { .. }) {
        effects.push(ReplicaEffect::FailDirectory(error.to_string()));
    }
}

messages! {
    /// What a replica's actor is sent.
    #[derive(Debug)]
    pub enum ReplicaMessage {
        control {
            /// This node leads the partition from now on.
            Lead {
                /// The number of its leadership.
                leader_epoch: LeaderEpoch,
            },
            /// The settings have changed.
            Configure(Box<ReplicaConfig>),
            /// A sync has ended.
            Synced(SyncOutcome),
            /// The recovery point is lowered for the cut of that number.
            Lowered(u64),
            /// Time to delete what retention no longer wants.
            Retain,
            /// Time to compact, if enough has been superseded.
            Compact,
            /// A compaction has ended.
            Compacted(Box<Compacted>),
            /// The metadata says this of the partition.
            Assign(Box<Assignment>),
            /// A follower's fetch was served. Goes before appends, as they wait for the high watermark that it moves.
            Fetched(Fetched),
            /// A follower's durable end has moved.
            Confirmed(Confirmed),
            /// A proposal to the controller has ended.
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
            /// The node has had no answer of the controller for a session. No append is taken while [`SharedReplica::is_cut_off`].
            CutOff,
        }
        data {
            /// Append a batch.
            Append {
                /// The batch.
                batch: ValidatedBatch,
                /// When to answer.
                required_acks: RequiredAcks,
                /// Until when to wait for the high watermark.
                deadline: Mono,
                /// The epoch to lead in.
                expected_epoch: Option<LeaderEpoch>,
                /// The answer's slot.
                reply: Reply<AppendResult>,
            } => batch.bytes.len(),
            /// Delete records below an offset; [`Offset::NONE`]: below the high watermark.
            DeleteRecords {
                /// The offset to keep from.
                before: Offset,
                /// The answer's slot.
                reply: Reply<Result<Offset, ErrorCode>>,
            },
            /// The leader has answered this follower's fetch.
            Answered {
                /// What it answers.
                answer: FetchAnswer,
            } => answer.size_in_bytes(),
        }
    }
}
