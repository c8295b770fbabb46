//! LeaveGroup (key 13): takes members out of a classic group.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: takes members out of a classic group.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-5", flexible = "4+")]
pub struct LeaveGroupRequest<'a> {
    /// The group's id.
    pub group_id: Cow<'a, str>,
    /// The member, up to version 2.
    #[field(versions = "0-2")]
    pub member_id: Cow<'a, str>,
    /// The members, from version 3.
    #[field(versions = "3+")]
    pub members: Vec<MemberIdentity<'a>>,
}

impl<'a> Request<'a> for LeaveGroupRequest<'a> {
    const KEY: ApiKey = ApiKey::LeaveGroup;
    type Response<'r> = LeaveGroupResponse<'r>;
}

/// A member that leaves.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct MemberIdentity<'a> {
    /// The member's id.
    pub member_id: Cow<'a, str>,
    /// The name of a static member, or null.
    #[field(nullable, default = null)]
    pub group_instance_id: Option<Cow<'a, str>>,
    /// Why, in words, or null.
    #[field(versions = "5+", nullable, default = null, ignorable)]
    pub reason: Option<Cow<'a, str>>,
}

/// The answer to [`LeaveGroupRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-5", flexible = "4+")]
pub struct LeaveGroupResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    #[field(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The members.
    #[field(versions = "3+")]
    pub members: Vec<MemberResponse<'a>>,
}

/// The result for one member.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct MemberResponse<'a> {
    /// The member's id.
    pub member_id: Cow<'a, str>,
    /// The name of a static member, or null.
    #[field(nullable)]
    pub group_instance_id: Option<Cow<'a, str>>,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
}
