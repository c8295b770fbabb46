//! DescribeTopicPartitions (key 75): topics and their partitions, in pages.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};
use crate::types::Uuid;

/// The request: topics and their partitions, in pages.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0", flexible = "0+")]
pub struct DescribeTopicPartitionsRequest<'a> {
    /// The topics; empty for all.
    pub topics: Vec<TopicRequest<'a>>,
    /// Partitions in one answer, at most.
    #[field(default = 2000)]
    pub response_partition_limit: i32,
    /// Where to go on; null for the first page.
    #[field(nullable, default = null)]
    pub cursor: Option<Cursor<'a>>,
}

impl<'a> Request<'a> for DescribeTopicPartitionsRequest<'a> {
    const KEY: ApiKey = ApiKey::DescribeTopicPartitions;
    type Response<'r> = DescribeTopicPartitionsResponse<'r>;
}

/// A topic that is asked for.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicRequest<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
}

/// The first partition of a page.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Cursor<'a> {
    /// The topic's name.
    pub topic_name: Cow<'a, str>,
    /// The partition's index.
    pub partition_index: i32,
}

/// The answer to [`DescribeTopicPartitionsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0", flexible = "0+")]
pub struct DescribeTopicPartitionsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// By topic.
    pub topics: Vec<DescribeTopicPartitionsResponseTopic<'a>>,
    /// Where the next page begins; null after the last one.
    #[field(nullable, default = null)]
    pub next_cursor: Option<Cursor<'a>>,
}

/// One topic, or a part of it.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeTopicPartitionsResponseTopic<'a> {
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The topic's name.
    #[field(nullable)]
    pub name: Option<Cow<'a, str>>,
    /// The topic's id.
    pub topic_id: Uuid,
    /// Whether the cluster keeps it for itself.
    pub is_internal: bool,
    /// By partition.
    pub partitions: Vec<DescribeTopicPartitionsResponsePartition>,
    /// What the client may do to the topic, as bits; the lowest number if it did not ask.
    #[field(default = i32::MIN)]
    pub topic_authorized_operations: i32,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeTopicPartitionsResponsePartition {
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The partition's index.
    pub partition_index: i32,
    /// The leader, or -1.
    pub leader_id: i32,
    /// The leader epoch.
    #[field(default = -1)]
    pub leader_epoch: i32,
    /// The replicas.
    pub replica_nodes: Vec<i32>,
    /// The replicas in sync.
    pub isr_nodes: Vec<i32>,
    /// Those who may lead though not in sync (KIP-966).
    #[field(nullable, default = null)]
    pub eligible_leader_replicas: Option<Vec<i32>>,
    /// Those who were eligible last.
    #[field(nullable, default = null)]
    pub last_known_elr: Option<Vec<i32>>,
    /// The replicas that are down.
    pub offline_replicas: Vec<i32>,
}
