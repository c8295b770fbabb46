//! Fetch (key 1): reads record batches, for consumers and followers.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};
use crate::payload::Payload;
use crate::types::Uuid;

/// The request: reads record batches, for consumers and followers.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "4-18", flexible = "12+")]
pub struct FetchRequest<'a> {
    /// The id of the cluster that the follower expects, or null.
    #[field(versions = "12+", nullable, tag = 0, default = null, ignorable)]
    pub cluster_id: Option<Cow<'a, str>>,
    /// The follower; -1 for a consumer.
    #[field(versions = "0-14", default = -1)]
    pub replica_id: i32,
    /// The follower.
    #[field(versions = "15+", tag = 1)]
    pub replica_state: ReplicaState,
    /// How long to wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// Bytes worth answering before `max_wait_ms` is over.
    pub min_bytes: i32,
    /// Bytes to answer at most; the first batch may exceed it.
    #[field(default = i32::MAX)]
    pub max_bytes: i32,
    /// 0: read uncommitted, 1: read committed.
    pub isolation_level: i8,
    /// The fetch session; 0 for none.
    #[field(versions = "7+", ignorable)]
    pub session_id: i32,
    /// The number of this fetch in its session; -1 for no session, 0 for a new one.
    #[field(versions = "7+", default = -1, ignorable)]
    pub session_epoch: i32,
    /// By topic.
    pub topics: Vec<FetchTopic<'a>>,
    /// What leaves the session.
    #[field(versions = "7+")]
    pub forgotten_topics_data: Vec<ForgottenTopic<'a>>,
    /// The consumer's rack.
    #[field(versions = "11+", ignorable)]
    pub rack_id: Cow<'a, str>,
}

impl<'a> Request<'a> for FetchRequest<'a> {
    const KEY: ApiKey = ApiKey::Fetch;
    type Response<'r> = FetchResponse<'r>;
}

/// Which follower is fetching.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReplicaState {
    /// The follower; -1 for a consumer.
    #[field(default = -1)]
    pub replica_id: i32,
    /// The follower's broker epoch; -1 if unknown.
    #[field(default = -1)]
    pub replica_epoch: i64,
}

/// The partitions to read of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct FetchTopic<'a> {
    /// The topic's name.
    #[field(versions = "0-12", ignorable)]
    pub topic: Cow<'a, str>,
    /// The topic's id.
    #[field(versions = "13+", ignorable)]
    pub topic_id: Uuid,
    /// By partition.
    pub partitions: Vec<FetchPartition>,
}

/// Where to read in one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct FetchPartition {
    /// The partition's index.
    pub partition: i32,
    /// The leader epoch the client knows; -1 if none.
    #[field(versions = "9+", default = -1, ignorable)]
    pub current_leader_epoch: i32,
    /// The offset to read from.
    pub fetch_offset: i64,
    /// The epoch of the last record fetched; -1 if none.
    #[field(versions = "12+", default = -1)]
    pub last_fetched_epoch: i32,
    /// The follower's log start offset; -1 from a consumer.
    #[field(versions = "5+", default = -1, ignorable)]
    pub log_start_offset: i64,
    /// Bytes of this partition to answer at most; the first batch may exceed it.
    pub partition_max_bytes: i32,
    /// The follower's log directory.
    #[field(versions = "17+", tag = 0, ignorable)]
    pub replica_directory_id: Uuid,
    /// The high watermark that the follower knows; -1 if unknown, `i64::MAX` if it does not say.
    #[field(versions = "18+", tag = 1, default = i64::MAX, ignorable)]
    pub high_watermark: i64,
}

/// Partitions to remove from the fetch session.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ForgottenTopic<'a> {
    /// The topic's name.
    #[field(versions = "7-12", ignorable)]
    pub topic: Cow<'a, str>,
    /// The topic's id.
    #[field(versions = "13+", ignorable)]
    pub topic_id: Uuid,
    /// The indexes of the partitions.
    pub partitions: Vec<i32>,
}

/// The answer to [`FetchRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "4-18", flexible = "12+")]
pub struct FetchResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    #[field(versions = "7+", ignorable)]
    pub error_code: i16,
    /// The fetch session; 0 for none.
    #[field(versions = "7+")]
    pub session_id: i32,
    /// By topic.
    pub responses: Vec<FetchableTopicResponse<'a>>,
    /// Addresses of the leaders named above.
    #[field(versions = "16+", tag = 0)]
    pub node_endpoints: Vec<NodeEndpoint<'a>>,
}

/// The records of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct FetchableTopicResponse<'a> {
    /// The topic's name.
    #[field(versions = "0-12", ignorable)]
    pub topic: Cow<'a, str>,
    /// The topic's id.
    #[field(versions = "13+", ignorable)]
    pub topic_id: Uuid,
    /// By partition.
    pub partitions: Vec<PartitionData>,
}

/// The records of one partition, and how far it reaches.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct PartitionData {
    /// The partition's index.
    pub partition_index: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The partition's high watermark.
    pub high_watermark: i64,
    /// The offset up to which all transactions are decided; -1 if unknown.
    #[field(default = -1)]
    pub last_stable_offset: i64,
    /// The first offset that can be read; -1 if unknown.
    #[field(versions = "5+", default = -1, ignorable)]
    pub log_start_offset: i64,
    /// The largest epoch at which the follower's log may agree; -1 if there is no divergence.
    #[field(versions = "12+", tag = 0)]
    pub diverging_epoch: EpochEndOffset,
    /// The leader to turn to.
    #[field(versions = "12+", tag = 1)]
    pub current_leader: LeaderIdAndEpoch,
    /// The snapshot to fetch; -1 if none.
    #[field(versions = "12+", tag = 2)]
    pub snapshot_id: SnapshotId,
    /// Aborted transactions among the records; null for readers of uncommitted records.
    #[field(nullable)]
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// A nearer replica to read from, or -1.
    #[field(versions = "11+", default = -1)]
    pub preferred_read_replica: i32,
    /// Record batches.
    #[field(nullable)]
    pub records: Option<Payload>,
}

/// A leader epoch and where it ends.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct EpochEndOffset {
    /// The epoch.
    #[field(default = -1)]
    pub epoch: i32,
    /// Where it ends, or -1.
    #[field(default = -1)]
    pub end_offset: i64,
}

/// Who leads a partition now.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct LeaderIdAndEpoch {
    /// The leader, or -1.
    #[field(default = -1)]
    pub leader_id: i32,
    /// The leader epoch; -1 if unknown.
    #[field(default = -1)]
    pub leader_epoch: i32,
}

/// The end of a snapshot to fetch instead.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct SnapshotId {
    /// Its end, or -1.
    #[field(default = -1)]
    pub end_offset: i64,
    /// The epoch of its last record, or -1.
    #[field(default = -1)]
    pub epoch: i32,
}

/// An aborted transaction whose records a committed reader drops.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AbortedTransaction {
    /// The producer id.
    pub producer_id: i64,
    /// The transaction's first offset.
    pub first_offset: i64,
}

/// Where a new leader can be reached.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct NodeEndpoint<'a> {
    /// The broker's id.
    pub node_id: i32,
    /// Its host name.
    pub host: Cow<'a, str>,
    /// Its port.
    pub port: i32,
    /// Its rack, or null.
    #[field(nullable, default = null)]
    pub rack: Option<Cow<'a, str>>,
}
