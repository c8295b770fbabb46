//! OffsetForLeaderEpoch (key 23): where a leader epoch ended, to find divergence.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: where a leader epoch ended, to find divergence.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "2-4", flexible = "4+")]
pub struct OffsetForLeaderEpochRequest<'a> {
    /// The follower; -1 for a consumer.
    #[field(versions = "3+", default = -2, ignorable)]
    pub replica_id: i32,
    /// By topic.
    pub topics: Vec<OffsetForLeaderTopic<'a>>,
}

impl<'a> Request<'a> for OffsetForLeaderEpochRequest<'a> {
    const KEY: ApiKey = ApiKey::OffsetForLeaderEpoch;
    type Response<'r> = OffsetForLeaderEpochResponse<'r>;
}

/// Partitions asked about in one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetForLeaderTopic<'a> {
    /// The topic's name.
    pub topic: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<OffsetForLeaderPartition>,
}

/// The epoch asked about in one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetForLeaderPartition {
    /// The partition's index.
    pub partition: i32,
    /// The leader epoch the client knows; -1 if none.
    #[field(default = -1)]
    pub current_leader_epoch: i32,
    /// The epoch asked about.
    pub leader_epoch: i32,
}

/// The answer to [`OffsetForLeaderEpochRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "2-4", flexible = "4+")]
pub struct OffsetForLeaderEpochResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// By topic.
    pub topics: Vec<OffsetForLeaderTopicResult<'a>>,
}

/// Results for one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetForLeaderTopicResult<'a> {
    /// The topic's name.
    pub topic: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<EpochEndOffset>,
}

/// A leader epoch and where it ends.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct EpochEndOffset {
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The partition's index.
    pub partition: i32,
    /// The leader epoch; -1 if unknown.
    #[field(default = -1)]
    pub leader_epoch: i32,
    /// Where it ends, or -1.
    #[field(default = -1)]
    pub end_offset: i64,
}
