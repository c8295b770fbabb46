//! SyncGroup (key 14): distributes the assignment of a generation.

use std::borrow::Cow;

use bytes::Bytes;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: distributes the assignment of a generation.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-5", flexible = "4+")]
pub struct SyncGroupRequest<'a> {
    /// The group's id.
    pub group_id: Cow<'a, str>,
    /// The generation, or -1.
    pub generation_id: i32,
    /// The member's id.
    pub member_id: Cow<'a, str>,
    /// The name of a static member, or null.
    #[field(versions = "3+", nullable, default = null)]
    pub group_instance_id: Option<Cow<'a, str>>,
    /// The kind of group, `consumer` for consumers.
    #[field(versions = "5+", nullable, default = null, ignorable)]
    pub protocol_type: Option<Cow<'a, str>>,
    /// The protocol that was chosen.
    #[field(versions = "5+", nullable, default = null, ignorable)]
    pub protocol_name: Option<Cow<'a, str>>,
    /// By member; only the leader sends them.
    pub assignments: Vec<SyncGroupRequestAssignment<'a>>,
}

impl<'a> Request<'a> for SyncGroupRequest<'a> {
    const KEY: ApiKey = ApiKey::SyncGroup;
    type Response<'r> = SyncGroupResponse<'r>;
}

/// The assignment of one member.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct SyncGroupRequestAssignment<'a> {
    /// The member's id.
    pub member_id: Cow<'a, str>,
    /// The member's assignment, opaque to the broker.
    pub assignment: Bytes,
}

/// The answer to [`SyncGroupRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-5", flexible = "4+")]
pub struct SyncGroupResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    #[field(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The kind of group, `consumer` for consumers.
    #[field(versions = "5+", nullable, default = null, ignorable)]
    pub protocol_type: Option<Cow<'a, str>>,
    /// The protocol that was chosen.
    #[field(versions = "5+", nullable, default = null, ignorable)]
    pub protocol_name: Option<Cow<'a, str>>,
    /// The member's assignment, opaque to the broker.
    pub assignment: Bytes,
}
