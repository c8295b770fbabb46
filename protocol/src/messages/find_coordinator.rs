//! FindCoordinator (key 10): which broker coordinates a group or a transaction.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: which broker coordinates a group or a transaction.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-6", flexible = "3+")]
pub struct FindCoordinatorRequest<'a> {
    /// The key, up to version 3.
    #[field(versions = "0-3")]
    pub key: Cow<'a, str>,
    /// 0: group, 1: transaction, 2: share group.
    #[field(versions = "1+")]
    pub key_type: i8,
    /// The keys.
    #[field(versions = "4+")]
    pub coordinator_keys: Vec<Cow<'a, str>>,
}

impl<'a> Request<'a> for FindCoordinatorRequest<'a> {
    const KEY: ApiKey = ApiKey::FindCoordinator;
    type Response<'r> = FindCoordinatorResponse<'r>;
}

/// The answer to [`FindCoordinatorRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-6", flexible = "3+")]
pub struct FindCoordinatorResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    #[field(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    #[field(versions = "0-3")]
    pub error_code: i16,
    /// The error in words, or null.
    #[field(versions = "1-3", nullable, ignorable)]
    pub error_message: Option<Cow<'a, str>>,
    /// The broker's id.
    #[field(versions = "0-3")]
    pub node_id: i32,
    /// Its host name.
    #[field(versions = "0-3")]
    pub host: Cow<'a, str>,
    /// Its port.
    #[field(versions = "0-3")]
    pub port: i32,
    /// By key.
    #[field(versions = "4+")]
    pub coordinators: Vec<Coordinator<'a>>,
}

/// The coordinator of one key.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct Coordinator<'a> {
    /// The key.
    pub key: Cow<'a, str>,
    /// The broker's id.
    pub node_id: i32,
    /// Its host name.
    pub host: Cow<'a, str>,
    /// Its port.
    pub port: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(nullable)]
    pub error_message: Option<Cow<'a, str>>,
}
