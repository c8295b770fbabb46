//! CreateTopics (key 19): creates topics.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};
use crate::types::Uuid;

/// The request: creates topics.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "2-7", flexible = "5+")]
pub struct CreateTopicsRequest<'a> {
    /// By topic.
    pub topics: Vec<CreatableTopic<'a>>,
    /// How long the broker may take, in milliseconds.
    #[field(default = 60_000)]
    pub timeout_ms: i32,
    /// Whether to check only.
    pub validate_only: bool,
}

impl<'a> Request<'a> for CreateTopicsRequest<'a> {
    const KEY: ApiKey = ApiKey::CreateTopics;
    type Response<'r> = CreateTopicsResponse<'r>;
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatableTopic<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// The number of partitions; -1 for the default or with manual assignments.
    pub num_partitions: i32,
    /// The replication factor; -1 for the default or with manual assignments.
    pub replication_factor: i16,
    /// Replicas by partition; empty to let the broker place them.
    pub assignments: Vec<CreatableReplicaAssignment>,
    /// By configuration key.
    pub configs: Vec<CreatableTopicConfig<'a>>,
}

/// Replicas of one partition, placed by the client.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatableReplicaAssignment {
    /// The partition's index.
    pub partition_index: i32,
    /// The replicas, preferred leader first.
    pub broker_ids: Vec<i32>,
}

/// A configuration key to set.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatableTopicConfig<'a> {
    /// The key.
    pub name: Cow<'a, str>,
    /// The value, or null.
    #[field(nullable)]
    pub value: Option<Cow<'a, str>>,
}

/// The answer to [`CreateTopicsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "2-7", flexible = "5+")]
pub struct CreateTopicsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// By topic.
    pub topics: Vec<CreatableTopicResult<'a>>,
}

/// The result for one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatableTopicResult<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// The topic's id.
    #[field(versions = "7+", ignorable)]
    pub topic_id: Uuid,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(nullable)]
    pub error_message: Option<Cow<'a, str>>,
    /// Why configs are missing, or 0.
    #[field(versions = "5+", tag = 0, ignorable)]
    pub topic_config_error_code: i16,
    /// The number of partitions; -1 for the default or with manual assignments.
    #[field(versions = "5+", default = -1, ignorable)]
    pub num_partitions: i32,
    /// The replication factor; -1 for the default or with manual assignments.
    #[field(versions = "5+", default = -1, ignorable)]
    pub replication_factor: i16,
    /// All configuration of the topic; null if withheld.
    #[field(versions = "5+", nullable, ignorable)]
    pub configs: Option<Vec<CreatableTopicConfigs<'a>>>,
}

/// A configuration key of the new topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatableTopicConfigs<'a> {
    /// The key.
    pub name: Cow<'a, str>,
    /// The value, or null.
    #[field(nullable)]
    pub value: Option<Cow<'a, str>>,
    /// Whether it cannot be changed while the broker runs.
    pub read_only: bool,
    /// Where the value comes from.
    #[field(default = -1)]
    pub config_source: i8,
    /// Whether the value is hidden.
    pub is_sensitive: bool,
}
