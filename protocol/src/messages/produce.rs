//! Produce (key 0): appends record batches to partitions.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};
use crate::payload::Payload;
use crate::types::Uuid;

/// The request: appends record batches to partitions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "3-13", flexible = "9+")]
pub struct ProduceRequest<'a> {
    /// The transactional id; null if the producer is not transactional.
    #[field(nullable, default = null)]
    pub transactional_id: Option<Cow<'a, str>>,
    /// -1: all in-sync replicas, 1: the leader, 0: no answer.
    pub acks: i16,
    /// How long the broker may take, in milliseconds.
    pub timeout_ms: i32,
    /// By topic.
    pub topic_data: Vec<TopicProduceData<'a>>,
}

impl<'a> Request<'a> for ProduceRequest<'a> {
    const KEY: ApiKey = ApiKey::Produce;
    type Response<'r> = ProduceResponse<'r>;
}

/// The batches for one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicProduceData<'a> {
    /// The topic's name.
    #[field(versions = "0-12", ignorable)]
    pub name: Cow<'a, str>,
    /// The topic's id.
    #[field(versions = "13+", ignorable)]
    pub topic_id: Uuid,
    /// By partition.
    pub partition_data: Vec<PartitionProduceData>,
}

/// The batches for one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct PartitionProduceData {
    /// The partition's index.
    pub index: i32,
    /// Record batches.
    #[field(nullable)]
    pub records: Option<Payload>,
}

/// The answer to [`ProduceRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "3-13", flexible = "9+")]
pub struct ProduceResponse<'a> {
    /// By topic.
    pub responses: Vec<TopicProduceResponse<'a>>,
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// Addresses of the leaders named above.
    #[field(versions = "10+", tag = 0)]
    pub node_endpoints: Vec<NodeEndpoint<'a>>,
}

/// The results for one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicProduceResponse<'a> {
    /// The topic's name.
    #[field(versions = "0-12", ignorable)]
    pub name: Cow<'a, str>,
    /// The topic's id.
    #[field(versions = "13+", ignorable)]
    pub topic_id: Uuid,
    /// By partition.
    pub partition_responses: Vec<PartitionProduceResponse<'a>>,
}

/// The result for one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct PartitionProduceResponse<'a> {
    /// The partition's index.
    pub index: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The offset of the first record appended.
    pub base_offset: i64,
    /// The broker's time of append, in milliseconds; -1 if the topic keeps the producer's timestamps.
    #[field(default = -1)]
    pub log_append_time_ms: i64,
    /// The first offset that can be read; -1 if unknown.
    #[field(versions = "5+", default = -1, ignorable)]
    pub log_start_offset: i64,
    /// Records that caused the batch to be refused.
    #[field(versions = "8+", ignorable)]
    pub record_errors: Vec<BatchIndexAndErrorMessage<'a>>,
    /// The error in words, or null.
    #[field(versions = "8+", nullable, default = null, ignorable)]
    pub error_message: Option<Cow<'a, str>>,
    /// The leader to turn to.
    #[field(versions = "10+", tag = 0)]
    pub current_leader: LeaderIdAndEpoch,
}

/// A record that was refused, with the reason.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct BatchIndexAndErrorMessage<'a> {
    /// The record's index in the batch.
    pub batch_index: i32,
    /// Why the record was refused; null for the common reason.
    #[field(nullable, default = null)]
    pub batch_index_error_message: Option<Cow<'a, str>>,
}

/// Who leads a partition now.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct LeaderIdAndEpoch {
    /// The leader, or -1.
    #[field(default = -1)]
    pub leader_id: i32,
    /// The leader epoch; -1 if unknown.
    #[field(default = -1)]
    pub leader_epoch: i32,
}

/// Where a new leader can be reached.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct NodeEndpoint<'a> {
    /// The broker's id.
    pub node_id: i32,
    /// Its host name.
    pub host: Cow<'a, str>,
    /// Its port.
    pub port: i32,
    /// Its rack, or null.
    #[field(nullable, default = null)]
    pub rack: Option<Cow<'a, str>>,
}
