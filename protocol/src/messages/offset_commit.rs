//! OffsetCommit (key 8): stores the offsets that a group has consumed.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};
use crate::types::Uuid;

/// The request: stores the offsets that a group has consumed.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "2-10", flexible = "8+")]
pub struct OffsetCommitRequest<'a> {
    /// The group's id.
    pub group_id: Cow<'a, str>,
    /// The generation or member epoch; -1 for a consumer outside of the group protocol.
    #[field(default = -1)]
    pub generation_id_or_member_epoch: i32,
    /// The member's id.
    pub member_id: Cow<'a, str>,
    /// The name of a static member, or null.
    #[field(versions = "7+", nullable, default = null)]
    pub group_instance_id: Option<Cow<'a, str>>,
    /// How long to keep the offset, in milliseconds; -1 for the default.
    #[field(versions = "2-4", default = -1, ignorable)]
    pub retention_time_ms: i64,
    /// By topic.
    pub topics: Vec<OffsetCommitRequestTopic<'a>>,
}

impl<'a> Request<'a> for OffsetCommitRequest<'a> {
    const KEY: ApiKey = ApiKey::OffsetCommit;
    type Response<'r> = OffsetCommitResponse<'r>;
}

/// Offsets of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetCommitRequestTopic<'a> {
    /// The topic's name.
    #[field(versions = "0-9", ignorable)]
    pub name: Cow<'a, str>,
    /// The topic's id.
    #[field(versions = "10+", ignorable)]
    pub topic_id: Uuid,
    /// By partition.
    pub partitions: Vec<OffsetCommitRequestPartition<'a>>,
}

/// The offset of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetCommitRequestPartition<'a> {
    /// The partition's index.
    pub partition_index: i32,
    /// The committed offset.
    pub committed_offset: i64,
    /// The leader epoch of the record before it; -1 if unknown.
    #[field(versions = "6+", default = -1, ignorable)]
    pub committed_leader_epoch: i32,
    /// The client's note, or null.
    #[field(nullable)]
    pub committed_metadata: Option<Cow<'a, str>>,
}

/// The answer to [`OffsetCommitRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "2-10", flexible = "8+")]
pub struct OffsetCommitResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    #[field(versions = "3+", ignorable)]
    pub throttle_time_ms: i32,
    /// By topic.
    pub topics: Vec<OffsetCommitResponseTopic<'a>>,
}

/// Results for one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetCommitResponseTopic<'a> {
    /// The topic's name.
    #[field(versions = "0-9", ignorable)]
    pub name: Cow<'a, str>,
    /// The topic's id.
    #[field(versions = "10+", ignorable)]
    pub topic_id: Uuid,
    /// By partition.
    pub partitions: Vec<OffsetCommitResponsePartition>,
}

/// The result for one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetCommitResponsePartition {
    /// The partition's index.
    pub partition_index: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
}
