//! DescribeQuorum (key 55): the voters of the metadata log and how far each of them is.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};
use crate::types::Uuid;

/// The request: the voters of the metadata log and how far each of them is.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-2", flexible = "0+")]
pub struct DescribeQuorumRequest<'a> {
    /// By topic.
    pub topics: Vec<asked::TopicData<'a>>,
}

impl<'a> Request<'a> for DescribeQuorumRequest<'a> {
    const KEY: ApiKey = ApiKey::DescribeQuorum;
    type Response<'r> = DescribeQuorumResponse<'r>;
}

/// The answer to [`DescribeQuorumRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-2", flexible = "0+")]
pub struct DescribeQuorumResponse<'a> {
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(versions = "2+", nullable, ignorable)]
    pub error_message: Option<Cow<'a, str>>,
    /// By topic.
    pub topics: Vec<TopicData<'a>>,
    /// The voters that are known by address.
    #[field(versions = "2+")]
    pub nodes: Vec<Node<'a>>,
}

/// The quorum of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicData<'a> {
    /// The topic's name.
    pub topic_name: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<PartitionData<'a>>,
}

/// The quorum of one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct PartitionData<'a> {
    /// The partition's index.
    pub partition_index: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(versions = "2+", nullable, ignorable)]
    pub error_message: Option<Cow<'a, str>>,
    /// Who leads; -1 if that is not known.
    pub leader_id: i32,
    /// Number of the leadership.
    pub leader_epoch: i32,
    /// The first offset that is not committed.
    pub high_watermark: i64,
    /// Those whose copy counts.
    pub current_voters: Vec<ReplicaState>,
    /// Those who copy only.
    pub observers: Vec<ReplicaState>,
}

/// How far one copy is.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ReplicaState {
    /// Its node.
    pub replica_id: i32,
    /// Its directory; zero if that is not known.
    #[field(versions = "2+")]
    pub replica_directory_id: Uuid,
    /// The first offset that it does not have; -1 if that is not known.
    pub log_end_offset: i64,
    /// When it fetched last by the leader's clock, in milliseconds; -1 if that is not known.
    #[field(versions = "1+", default = -1, ignorable)]
    pub last_fetch_timestamp: i64,
    /// When it last had all there was, in milliseconds; -1 if that is not known.
    #[field(versions = "1+", default = -1, ignorable)]
    pub last_caught_up_timestamp: i64,
}

/// A voter and its addresses.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Node<'a> {
    /// Its node.
    pub node_id: i32,
    /// Its listeners.
    pub listeners: Vec<Listener<'a>>,
}

/// One listener of a voter.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Listener<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Its host.
    pub host: Cow<'a, str>,
    /// Its port.
    pub port: u16,
}

/// What the request asks about: Kafka gives it the names of what the answer holds.
pub mod asked {
    use std::borrow::Cow;

    use crate::message::Message;

    /// The partitions of one topic.
    #[derive(Clone, Debug, PartialEq, Message)]
    pub struct TopicData<'a> {
        /// The topic's name.
        pub topic_name: Cow<'a, str>,
        /// By partition.
        pub partitions: Vec<PartitionData>,
    }

    /// One partition.
    #[derive(Clone, Debug, PartialEq, Message)]
    pub struct PartitionData {
        /// The partition's index.
        pub partition_index: i32,
    }
}
