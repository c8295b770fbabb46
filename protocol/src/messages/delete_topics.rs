//! DeleteTopics (key 20): deletes topics by name or id.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};
use crate::types::Uuid;

/// The request: deletes topics by name or id.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "1-6", flexible = "4+")]
pub struct DeleteTopicsRequest<'a> {
    /// By id or name, from version 6.
    #[field(versions = "6+")]
    pub topics: Vec<DeleteTopicState<'a>>,
    /// By name, up to version 5.
    #[field(versions = "0-5", ignorable)]
    pub topic_names: Vec<Cow<'a, str>>,
    /// How long the broker may take, in milliseconds.
    pub timeout_ms: i32,
}

impl<'a> Request<'a> for DeleteTopicsRequest<'a> {
    const KEY: ApiKey = ApiKey::DeleteTopics;
    type Response<'r> = DeleteTopicsResponse<'r>;
}

/// A topic to delete, by id or by name.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeleteTopicState<'a> {
    /// Its name, or null if named by id.
    #[field(nullable, default = null)]
    pub name: Option<Cow<'a, str>>,
    /// The topic's id.
    pub topic_id: Uuid,
}

/// The answer to [`DeleteTopicsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "1-6", flexible = "4+")]
pub struct DeleteTopicsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// By topic.
    pub responses: Vec<DeletableTopicResult<'a>>,
}

/// The result for one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeletableTopicResult<'a> {
    /// Its name, or null if unknown.
    #[field(nullable = "6+")]
    pub name: Option<Cow<'a, str>>,
    /// The topic's id.
    #[field(versions = "6+", ignorable)]
    pub topic_id: Uuid,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(versions = "5+", nullable, default = null, ignorable)]
    pub error_message: Option<Cow<'a, str>>,
}
