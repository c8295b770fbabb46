//! ListOffsets (key 2): finds offsets by time or by a special timestamp.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: finds offsets by time or by a special timestamp.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "1-11", flexible = "6+")]
pub struct ListOffsetsRequest<'a> {
    /// The follower; -1 for a consumer.
    pub replica_id: i32,
    /// 0: read uncommitted, 1: read committed.
    #[field(versions = "2+")]
    pub isolation_level: i8,
    /// By topic.
    pub topics: Vec<ListOffsetsTopic<'a>>,
    /// How long the broker may take, in milliseconds.
    #[field(versions = "10+", ignorable)]
    pub timeout_ms: i32,
}

impl<'a> Request<'a> for ListOffsetsRequest<'a> {
    const KEY: ApiKey = ApiKey::ListOffsets;
    type Response<'r> = ListOffsetsResponse<'r>;
}

/// The partitions asked about in one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ListOffsetsTopic<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<ListOffsetsPartition>,
}

/// What to look for in one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ListOffsetsPartition {
    /// The partition's index.
    pub partition_index: i32,
    /// The leader epoch the client knows; -1 if none.
    #[field(versions = "4+", default = -1, ignorable)]
    pub current_leader_epoch: i32,
    /// The timestamp in milliseconds, or what to find: -1 the end, -2 the start,
    /// -3 the record of the largest timestamp, -4 the local start, -5 the last tiered offset, -6 the earliest offset not yet tiered.
    pub timestamp: i64,
}

/// The answer to [`ListOffsetsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "1-11", flexible = "6+")]
pub struct ListOffsetsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    #[field(versions = "2+", ignorable)]
    pub throttle_time_ms: i32,
    /// By topic.
    pub topics: Vec<ListOffsetsTopicResponse<'a>>,
}

/// The offsets found in one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ListOffsetsTopicResponse<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<ListOffsetsPartitionResponse>,
}

/// The offset found in one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ListOffsetsPartitionResponse {
    /// The partition's index.
    pub partition_index: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The record's timestamp in milliseconds, or -1.
    #[field(default = -1)]
    pub timestamp: i64,
    /// The offset, or -1.
    #[field(default = -1)]
    pub offset: i64,
    /// The leader epoch; -1 if unknown.
    #[field(versions = "4+", default = -1)]
    pub leader_epoch: i32,
}
