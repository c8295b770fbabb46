//! CreatePartitions (key 37): adds partitions to topics.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: adds partitions to topics.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-3", flexible = "2+")]
pub struct CreatePartitionsRequest<'a> {
    /// By topic.
    pub topics: Vec<CreatePartitionsTopic<'a>>,
    /// How long the broker may take, in milliseconds.
    pub timeout_ms: i32,
    /// Whether to check only.
    pub validate_only: bool,
}

impl<'a> Request<'a> for CreatePartitionsRequest<'a> {
    const KEY: ApiKey = ApiKey::CreatePartitions;
    type Response<'r> = CreatePartitionsResponse<'r>;
}

/// A topic that gets partitions.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatePartitionsTopic<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// The new number of partitions.
    pub count: i32,
    /// Replicas by new partition; null to let the broker place them.
    #[field(nullable)]
    pub assignments: Option<Vec<CreatePartitionsAssignment>>,
}

/// Replicas of one new partition, placed by the client.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatePartitionsAssignment {
    /// The replicas, preferred leader first.
    pub broker_ids: Vec<i32>,
}

/// The answer to [`CreatePartitionsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-3", flexible = "2+")]
pub struct CreatePartitionsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// The results.
    pub results: Vec<CreatePartitionsTopicResult<'a>>,
}

/// The result for one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct CreatePartitionsTopicResult<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(nullable, default = null)]
    pub error_message: Option<Cow<'a, str>>,
}
