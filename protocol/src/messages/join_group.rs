//! JoinGroup (key 11): enters a classic group and waits for its next generation.

use std::borrow::Cow;

use bytes::Bytes;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: enters a classic group and waits for its next generation.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-9", flexible = "6+")]
pub struct JoinGroupRequest<'a> {
    /// The group's id.
    pub group_id: Cow<'a, str>,
    /// Silence after which the member is dead, in milliseconds.
    pub session_timeout_ms: i32,
    /// How long a rebalance waits for the member, in milliseconds; -1: the session timeout.
    #[field(versions = "1+", default = -1, ignorable)]
    pub rebalance_timeout_ms: i32,
    /// The member's id; empty at its first join.
    pub member_id: Cow<'a, str>,
    /// The name of a static member, or null.
    #[field(versions = "5+", nullable, default = null)]
    pub group_instance_id: Option<Cow<'a, str>>,
    /// The kind of group, `consumer` for consumers.
    pub protocol_type: Cow<'a, str>,
    /// The protocols, best first.
    pub protocols: Vec<JoinGroupRequestProtocol<'a>>,
    /// Why, in words, or null.
    #[field(versions = "8+", nullable, default = null, ignorable)]
    pub reason: Option<Cow<'a, str>>,
}

impl<'a> Request<'a> for JoinGroupRequest<'a> {
    const KEY: ApiKey = ApiKey::JoinGroup;
    type Response<'r> = JoinGroupResponse<'r>;
}

/// An assignment protocol that the member supports.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct JoinGroupRequestProtocol<'a> {
    /// The protocol's name.
    pub name: Cow<'a, str>,
    /// What the protocol says of the member, opaque to the broker.
    pub metadata: Bytes,
}

/// The answer to [`JoinGroupRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-9", flexible = "6+")]
pub struct JoinGroupResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    #[field(versions = "2+", ignorable)]
    pub throttle_time_ms: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The generation, or -1.
    #[field(default = -1)]
    pub generation_id: i32,
    /// The kind of group, `consumer` for consumers.
    #[field(versions = "7+", nullable, default = null, ignorable)]
    pub protocol_type: Option<Cow<'a, str>>,
    /// The protocol that was chosen.
    #[field(nullable = "7+")]
    pub protocol_name: Option<Cow<'a, str>>,
    /// The leader's member id.
    pub leader: Cow<'a, str>,
    /// Whether the leader keeps the present assignment.
    #[field(versions = "9+")]
    pub skip_assignment: bool,
    /// The member's id.
    pub member_id: Cow<'a, str>,
    /// The members.
    pub members: Vec<JoinGroupResponseMember<'a>>,
}

/// A member, as the leader sees it.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct JoinGroupResponseMember<'a> {
    /// The member's id.
    pub member_id: Cow<'a, str>,
    /// The name of a static member, or null.
    #[field(versions = "5+", nullable, default = null, ignorable)]
    pub group_instance_id: Option<Cow<'a, str>>,
    /// What it sent for the chosen protocol.
    pub metadata: Bytes,
}
