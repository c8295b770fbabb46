//! Metadata (key 3): brokers, topics and who leads their partitions.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};
use crate::types::Uuid;

/// The request: brokers, topics and who leads their partitions.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-13", flexible = "9+")]
pub struct MetadataRequest<'a> {
    /// The topics; null for all, in version 0 empty for all.
    #[field(nullable = "1+")]
    pub topics: Option<Vec<MetadataRequestTopic<'a>>>,
    /// Whether unknown topics may be created.
    #[field(versions = "4+", default = true)]
    pub allow_auto_topic_creation: bool,
    /// Whether to say what the client may do to the cluster.
    #[field(versions = "8-10")]
    pub include_cluster_authorized_operations: bool,
    /// Whether to say what the client may do to each topic.
    #[field(versions = "8+")]
    pub include_topic_authorized_operations: bool,
}

impl<'a> Request<'a> for MetadataRequest<'a> {
    const KEY: ApiKey = ApiKey::Metadata;
    type Response<'r> = MetadataResponse<'r>;
}

/// A topic to describe, by id or by name.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct MetadataRequestTopic<'a> {
    /// Its id, or zero if named by name.
    #[field(versions = "10+", ignorable)]
    pub topic_id: Uuid,
    /// Its name, or null if named by id.
    #[field(nullable = "10+")]
    pub name: Option<Cow<'a, str>>,
}

/// The answer to [`MetadataRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-13", flexible = "9+")]
pub struct MetadataResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    #[field(versions = "3+", ignorable)]
    pub throttle_time_ms: i32,
    /// The brokers.
    pub brokers: Vec<MetadataResponseBroker<'a>>,
    /// The id of the cluster, or null.
    #[field(versions = "2+", nullable, default = null, ignorable)]
    pub cluster_id: Option<Cow<'a, str>>,
    /// The controller, or -1.
    #[field(versions = "1+", default = -1, ignorable)]
    pub controller_id: i32,
    /// By topic.
    pub topics: Vec<MetadataResponseTopic<'a>>,
    /// What the client may do, one bit an operation; `i32::MIN` if not asked for.
    #[field(versions = "8-10", default = i32::MIN)]
    pub cluster_authorized_operations: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    #[field(versions = "13+", ignorable)]
    pub error_code: i16,
}

/// A broker and its address.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct MetadataResponseBroker<'a> {
    /// The broker's id.
    pub node_id: i32,
    /// Its host name.
    pub host: Cow<'a, str>,
    /// Its port.
    pub port: i32,
    /// Its rack, or null.
    #[field(versions = "1+", nullable, default = null, ignorable)]
    pub rack: Option<Cow<'a, str>>,
}

/// A topic and its partitions.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct MetadataResponseTopic<'a> {
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// Its name; null if the id is unknown.
    #[field(nullable = "12+")]
    pub name: Option<Cow<'a, str>>,
    /// The topic's id.
    #[field(versions = "10+", ignorable)]
    pub topic_id: Uuid,
    /// Whether the topic is internal.
    #[field(versions = "1+", ignorable)]
    pub is_internal: bool,
    /// By partition.
    pub partitions: Vec<MetadataResponsePartition>,
    /// What the client may do, one bit an operation; `i32::MIN` if not asked for.
    #[field(versions = "8+", default = i32::MIN)]
    pub topic_authorized_operations: i32,
}

/// A partition and its replicas.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct MetadataResponsePartition {
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The partition's index.
    pub partition_index: i32,
    /// The leader, or -1.
    pub leader_id: i32,
    /// The leader epoch; -1 if unknown.
    #[field(versions = "7+", default = -1, ignorable)]
    pub leader_epoch: i32,
    /// The assigned replicas.
    pub replica_nodes: Vec<i32>,
    /// The in-sync replicas.
    pub isr_nodes: Vec<i32>,
    /// Replicas that are offline.
    #[field(versions = "5+", ignorable)]
    pub offline_replicas: Vec<i32>,
}
