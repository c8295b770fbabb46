//! DescribeLogDirs (key 35): the log directories of a broker and what is in them.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: the log directories of a broker and what is in them.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "1-5", flexible = "2+")]
pub struct DescribeLogDirsRequest<'a> {
    /// By topic; null for all.
    #[field(nullable)]
    pub topics: Option<Vec<DescribableLogDirTopic<'a>>>,
}

impl<'a> Request<'a> for DescribeLogDirsRequest<'a> {
    const KEY: ApiKey = ApiKey::DescribeLogDirs;
    type Response<'r> = DescribeLogDirsResponse<'r>;
}

/// Partitions asked about in one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribableLogDirTopic<'a> {
    /// The topic's name.
    pub topic: Cow<'a, str>,
    /// The indexes of the partitions.
    pub partitions: Vec<i32>,
}

/// The answer to [`DescribeLogDirsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "1-5", flexible = "2+")]
pub struct DescribeLogDirsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    #[field(versions = "3+", ignorable)]
    pub error_code: i16,
    /// By log directory.
    pub results: Vec<DescribeLogDirsResult<'a>>,
}

/// One log directory.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeLogDirsResult<'a> {
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// Where it is.
    pub log_dir: Cow<'a, str>,
    /// By topic.
    pub topics: Vec<DescribeLogDirsTopic<'a>>,
    /// Bytes of the volume; -1 if that is not known.
    #[field(versions = "4+", default = -1, ignorable)]
    pub total_bytes: i64,
    /// Bytes of the volume that are free; -1 if that is not known.
    #[field(versions = "4+", default = -1, ignorable)]
    pub usable_bytes: i64,
    /// Whether no new replica goes there.
    #[field(versions = "5+", ignorable)]
    pub is_cordoned: bool,
}

/// The replicas of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeLogDirsTopic<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<DescribeLogDirsPartition>,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeLogDirsPartition {
    /// The partition's index.
    pub partition_index: i32,
    /// Bytes of its segments.
    pub partition_size: i64,
    /// Records that it lacks of those that are known to be acknowledged.
    pub offset_lag: i64,
    /// Whether it is being moved here from another directory of the broker.
    pub is_future_key: bool,
}
