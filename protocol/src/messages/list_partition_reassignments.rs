//! ListPartitionReassignments (key 46): replica moves that are in progress.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: replica moves that are in progress.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0", flexible = "0+")]
pub struct ListPartitionReassignmentsRequest<'a> {
    /// How long the broker may take, in milliseconds.
    #[field(default = 60_000)]
    pub timeout_ms: i32,
    /// By topic; null for all.
    #[field(nullable, default = null)]
    pub topics: Option<Vec<ListPartitionReassignmentsTopics<'a>>>,
}

impl<'a> Request<'a> for ListPartitionReassignmentsRequest<'a> {
    const KEY: ApiKey = ApiKey::ListPartitionReassignments;
    type Response<'r> = ListPartitionReassignmentsResponse<'r>;
}

/// Partitions asked about in one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ListPartitionReassignmentsTopics<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// The indexes of the partitions.
    pub partition_indexes: Vec<i32>,
}

/// The answer to [`ListPartitionReassignmentsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0", flexible = "0+")]
pub struct ListPartitionReassignmentsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(nullable)]
    pub error_message: Option<Cow<'a, str>>,
    /// By topic.
    pub topics: Vec<OngoingTopicReassignment<'a>>,
}

/// The moves of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OngoingTopicReassignment<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<OngoingPartitionReassignment>,
}

/// The move of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct OngoingPartitionReassignment {
    /// The partition's index.
    pub partition_index: i32,
    /// The replicas now.
    pub replicas: Vec<i32>,
    /// Replicas that are coming.
    pub adding_replicas: Vec<i32>,
    /// Replicas that are going.
    pub removing_replicas: Vec<i32>,
}
