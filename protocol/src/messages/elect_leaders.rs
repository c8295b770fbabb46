//! ElectLeaders (key 43): makes preferred or unclean leaders lead.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: makes preferred or unclean leaders lead.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-2", flexible = "2+")]
pub struct ElectLeadersRequest<'a> {
    /// 0: the preferred leader, 1: any replica, where nobody else may lead.
    #[field(versions = "1+")]
    pub election_type: i8,
    /// By topic; null for all.
    #[field(nullable)]
    pub topic_partitions: Option<Vec<TopicPartitions<'a>>>,
    /// How long the broker may take, in milliseconds.
    #[field(default = 60_000)]
    pub timeout_ms: i32,
}

impl<'a> Request<'a> for ElectLeadersRequest<'a> {
    const KEY: ApiKey = ApiKey::ElectLeaders;
    type Response<'r> = ElectLeadersResponse<'r>;
}

/// The partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicPartitions<'a> {
    /// The topic's name.
    pub topic: Cow<'a, str>,
    /// The indexes of the partitions.
    pub partitions: Vec<i32>,
}

/// The answer to [`ElectLeadersRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-2", flexible = "2+")]
pub struct ElectLeadersResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    #[field(versions = "1+")]
    pub error_code: i16,
    /// By topic.
    pub replica_election_results: Vec<ReplicaElectionResult<'a>>,
}

/// The results for one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReplicaElectionResult<'a> {
    /// The topic's name.
    pub topic: Cow<'a, str>,
    /// By partition.
    pub partition_result: Vec<PartitionResult<'a>>,
}

/// The result for one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct PartitionResult<'a> {
    /// The partition's index.
    pub partition_id: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(nullable)]
    pub error_message: Option<Cow<'a, str>>,
}
