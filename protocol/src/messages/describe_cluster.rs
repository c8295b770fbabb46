//! DescribeCluster (key 60): the id of the cluster and its brokers.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: the id of the cluster and its brokers.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-2", flexible = "0+")]
pub struct DescribeClusterRequest {
    /// Whether to say what the client may do to the cluster.
    pub include_cluster_authorized_operations: bool,
    /// 1: brokers, 2: controllers.
    #[field(versions = "1+", default = 1)]
    pub endpoint_type: i8,
    /// Whether to list fenced brokers too.
    #[field(versions = "2+")]
    pub include_fenced_brokers: bool,
}

impl Request<'_> for DescribeClusterRequest {
    const KEY: ApiKey = ApiKey::DescribeCluster;
    type Response<'r> = DescribeClusterResponse<'r>;
}

/// The answer to [`DescribeClusterRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-2", flexible = "0+")]
pub struct DescribeClusterResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(nullable, default = null)]
    pub error_message: Option<Cow<'a, str>>,
    /// 1: brokers, 2: controllers.
    #[field(versions = "1+", default = 1)]
    pub endpoint_type: i8,
    /// The id of the cluster.
    pub cluster_id: Cow<'a, str>,
    /// The controller, or -1.
    #[field(default = -1)]
    pub controller_id: i32,
    /// The brokers.
    pub brokers: Vec<DescribeClusterBroker<'a>>,
    /// What the client may do, one bit an operation; `i32::MIN` if not asked for.
    #[field(default = i32::MIN)]
    pub cluster_authorized_operations: i32,
}

/// A broker and its address.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeClusterBroker<'a> {
    /// The broker's id.
    pub broker_id: i32,
    /// Its host name.
    pub host: Cow<'a, str>,
    /// Its port.
    pub port: i32,
    /// Its rack, or null.
    #[field(nullable, default = null)]
    pub rack: Option<Cow<'a, str>>,
    /// Whether it is fenced.
    #[field(versions = "2+")]
    pub is_fenced: bool,
}
