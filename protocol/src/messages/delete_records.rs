//! DeleteRecords (key 21): deletes the records before an offset.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: deletes the records before an offset.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-2", flexible = "2+")]
pub struct DeleteRecordsRequest<'a> {
    /// By topic.
    pub topics: Vec<DeleteRecordsTopic<'a>>,
    /// How long the broker may take, in milliseconds.
    pub timeout_ms: i32,
}

impl<'a> Request<'a> for DeleteRecordsRequest<'a> {
    const KEY: ApiKey = ApiKey::DeleteRecords;
    type Response<'r> = DeleteRecordsResponse<'r>;
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteRecordsTopic<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<DeleteRecordsPartition>,
}

/// Up to where to delete in one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteRecordsPartition {
    /// The partition's index.
    pub partition_index: i32,
    /// The first offset to keep; -1 for the high watermark.
    pub offset: i64,
}

/// The answer to [`DeleteRecordsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-2", flexible = "2+")]
pub struct DeleteRecordsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// By topic.
    pub topics: Vec<DeleteRecordsTopicResult<'a>>,
}

/// Results for one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteRecordsTopicResult<'a> {
    /// The topic's name.
    pub name: Cow<'a, str>,
    /// By partition.
    pub partitions: Vec<DeleteRecordsPartitionResult>,
}

/// The result for one partition.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteRecordsPartitionResult {
    /// The partition's index.
    pub partition_index: i32,
    /// The first offset left; -1 on error.
    pub low_watermark: i64,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
}
