//! OffsetDelete (key 47): deletes committed offsets of a group.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: deletes committed offsets of a group.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0")]
pub struct OffsetDeleteRequest<'a> {
    /// The group's id.
    pub group_id: Cow<'a, str>,
    /// By topic.
    pub topics: Vec<OffsetDeleteRequestTopic<'a>>,
}

impl<'a> Request<'a> for OffsetDeleteRequest<'a> {
    const KEY: ApiKey = ApiKey::OffsetDelete;
    type Response<'r> = OffsetDeleteResponse<'r>;
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetDeleteRequestTopic<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<OffsetDeleteRequestPartition>,
}

/// A partition whose offset goes.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetDeleteRequestPartition {
    /// The partition's index.
    pub partition_index: i32,
}

/// The answer to [`OffsetDeleteRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0")]
pub struct OffsetDeleteResponse<'a> {
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// By topic.
    pub topics: Vec<OffsetDeleteResponseTopic<'a>>,
}

/// Results for one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetDeleteResponseTopic<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<OffsetDeleteResponsePartition>,
}

/// The result for one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OffsetDeleteResponsePartition {
    /// The partition's index.
    pub partition_index: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
}
