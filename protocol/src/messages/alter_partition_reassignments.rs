//! AlterPartitionReassignments (key 45): moves partitions to other brokers (KIP-455).

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: moves partitions to other brokers.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-1", flexible = "0+")]
pub struct AlterPartitionReassignmentsRequest<'a> {
    /// How long the broker may take, in milliseconds.
    #[field(default = 60_000)]
    pub timeout_ms: i32,
    /// Whether a partition may have another number of replicas afterwards.
    #[field(versions = "1+", default = true)]
    pub allow_replication_factor_change: bool,
    /// By topic.
    pub topics: Vec<ReassignableTopic<'a>>,
}

impl<'a> Request<'a> for AlterPartitionReassignmentsRequest<'a> {
    const KEY: ApiKey = ApiKey::AlterPartitionReassignments;
    type Response<'r> = AlterPartitionReassignmentsResponse<'r>;
}

/// The partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReassignableTopic<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<ReassignablePartition>,
}

/// Where one partition is to be.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReassignablePartition {
    /// The partition's index.
    pub partition_index: i32,
    /// The replicas it is to have, the preferred leader first; null to give up the move that is in progress.
    #[field(nullable, default = null)]
    pub replicas: Option<Vec<i32>>,
}

/// The answer to [`AlterPartitionReassignmentsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-1", flexible = "0+")]
pub struct AlterPartitionReassignmentsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// What the request said of it.
    #[field(versions = "1+", default = true, ignorable)]
    pub allow_replication_factor_change: bool,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(nullable)]
    pub error_message: Option<Cow<'a, str>>,
    /// By topic.
    pub responses: Vec<ReassignableTopicResponse<'a>>,
}

/// The results for one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReassignableTopicResponse<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<ReassignablePartitionResponse<'a>>,
}

/// The result for one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReassignablePartitionResponse<'a> {
    /// The partition's index.
    pub partition_index: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(nullable)]
    pub error_message: Option<Cow<'a, str>>,
}
