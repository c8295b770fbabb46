//! Heartbeat (key 12): keeps a member of a classic group alive.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: keeps a member of a classic group alive.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-4", flexible = "4+")]
pub struct HeartbeatRequest<'a> {
    /// The group's id.
    pub group_id: Cow<'a, str>,
    /// The generation, or -1.
    pub generation_id: i32,
    /// The member's id.
    pub member_id: Cow<'a, str>,
    /// The name of a static member, or null.
    #[field(versions = "3+", nullable, default = null)]
    pub group_instance_id: Option<Cow<'a, str>>,
}

impl<'a> Request<'a> for HeartbeatRequest<'a> {
    const KEY: ApiKey = ApiKey::Heartbeat;
    type Response<'r> = HeartbeatResponse;
}

/// The answer to [`HeartbeatRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-4", flexible = "4+")]
pub struct HeartbeatResponse {
    /// How long the client was throttled, in milliseconds.
    #[field(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
}
