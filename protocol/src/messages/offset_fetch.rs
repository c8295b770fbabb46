//! OffsetFetch (key 9): the offsets that groups have committed.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};
use crate::types::Uuid;

/// The request: the offsets that groups have committed.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "1-10", flexible = "6+")]
pub struct OffsetFetchRequest<'a> {
    /// The group's id.
    #[field(versions = "0-7")]
    pub group_id: Cow<'a, str>,
    /// By topic; null for all.
    #[field(versions = "0-7", nullable = "2-7")]
    pub topics: Option<Vec<OffsetFetchRequestTopic<'a>>>,
    /// By group.
    #[field(versions = "8+")]
    pub groups: Vec<OffsetFetchRequestGroup<'a>>,
    /// Whether pending transactional offsets are an error instead of being passed over.
    #[field(versions = "7+")]
    pub require_stable: bool,
}

impl<'a> Request<'a> for OffsetFetchRequest<'a> {
    const KEY: ApiKey = ApiKey::OffsetFetch;
    type Response<'r> = OffsetFetchResponse<'r>;
}

/// Partitions asked about in one topic, up to version 7.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchRequestTopic<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// The indexes of the partitions.
    pub partition_indexes: Vec<i32>,
}

/// A group asked about, from version 8.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchRequestGroup<'a> {
    /// The group's id.
    pub group_id: Cow<'a, str>,
    /// The member's id.
    #[field(versions = "9+", nullable, default = null, ignorable)]
    pub member_id: Option<Cow<'a, str>>,
    /// The member epoch; -1 for a classic group.
    #[field(versions = "9+", default = -1, ignorable)]
    pub member_epoch: i32,
    /// By topic; null for all.
    #[field(nullable)]
    pub topics: Option<Vec<OffsetFetchRequestTopics<'a>>>,
}

/// Partitions asked about in one topic of a group.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchRequestTopics<'a> {
    /// The topic's name.
    #[field(versions = "8-9", ignorable)]
    pub name: Cow<'a, str>,
    /// The topic's id.
    #[field(versions = "10+", ignorable)]
    pub topic_id: Uuid,
    /// The indexes of the partitions.
    pub partition_indexes: Vec<i32>,
}

/// The answer to [`OffsetFetchRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "1-10", flexible = "6+")]
pub struct OffsetFetchResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    #[field(versions = "3+", ignorable)]
    pub throttle_time_ms: i32,
    /// By topic.
    #[field(versions = "0-7")]
    pub topics: Vec<OffsetFetchResponseTopic<'a>>,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    #[field(versions = "2-7", ignorable)]
    pub error_code: i16,
    /// By group.
    #[field(versions = "8+")]
    pub groups: Vec<OffsetFetchResponseGroup<'a>>,
}

/// Offsets of one topic, up to version 7.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchResponseTopic<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<OffsetFetchResponsePartition<'a>>,
}

/// The offset of one partition, up to version 7.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchResponsePartition<'a> {
    /// The partition's index.
    pub partition_index: i32,
    /// The committed offset.
    pub committed_offset: i64,
    /// The leader epoch of the record before it; -1 if unknown.
    #[field(versions = "5-7", default = -1, ignorable)]
    pub committed_leader_epoch: i32,
    /// The client's note, or null.
    #[field(nullable)]
    pub metadata: Option<Cow<'a, str>>,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
}

/// Offsets of one group, from version 8.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchResponseGroup<'a> {
    /// The group's id.
    pub group_id: Cow<'a, str>,
    /// By topic.
    pub topics: Vec<OffsetFetchResponseTopics<'a>>,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
}

/// Offsets of one topic of a group.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchResponseTopics<'a> {
    /// The topic's name.
    #[field(versions = "8-9", ignorable)]
    pub name: Cow<'a, str>,
    /// The topic's id.
    #[field(versions = "10+", ignorable)]
    pub topic_id: Uuid,
    /// By partition.
    pub partitions: Vec<OffsetFetchResponsePartitions<'a>>,
}

/// The offset of one partition of a group.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetFetchResponsePartitions<'a> {
    /// The partition's index.
    pub partition_index: i32,
    /// The committed offset.
    pub committed_offset: i64,
    /// The leader epoch of the record before it; -1 if unknown.
    #[field(default = -1)]
    pub committed_leader_epoch: i32,
    /// The client's note, or null.
    #[field(nullable)]
    pub metadata: Option<Cow<'a, str>>,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
}
