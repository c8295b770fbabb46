//! DescribeGroups (key 15): state and members of classic groups.

use std::borrow::Cow;

use bytes::Bytes;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: state and members of classic groups.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-6", flexible = "5+")]
pub struct DescribeGroupsRequest<'a> {
    /// The ids of the groups.
    pub groups: Vec<Cow<'a, str>>,
    /// Whether to say what the client may do.
    #[field(versions = "3+")]
    pub include_authorized_operations: bool,
}

impl<'a> Request<'a> for DescribeGroupsRequest<'a> {
    const KEY: ApiKey = ApiKey::DescribeGroups;
    type Response<'r> = DescribeGroupsResponse<'r>;
}

/// The answer to [`DescribeGroupsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-6", flexible = "5+")]
pub struct DescribeGroupsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    #[field(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// By group.
    pub groups: Vec<DescribedGroup<'a>>,
}

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribedGroup<'a> {
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(versions = "6+", nullable, default = null)]
    pub error_message: Option<Cow<'a, str>>,
    /// The group's id.
    pub group_id: Cow<'a, str>,
    /// The state's name.
    pub group_state: Cow<'a, str>,
    /// The kind of group, `consumer` for consumers.
    pub protocol_type: Cow<'a, str>,
    /// The chosen protocol, or empty.
    pub protocol_data: Cow<'a, str>,
    /// The members.
    pub members: Vec<DescribedGroupMember<'a>>,
    /// What the client may do, one bit an operation; `i32::MIN` if not asked for.
    #[field(versions = "3+", default = i32::MIN)]
    pub authorized_operations: i32,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribedGroupMember<'a> {
    /// The member's id.
    pub member_id: Cow<'a, str>,
    /// The name of a static member, or null.
    #[field(versions = "4+", nullable, default = null, ignorable)]
    pub group_instance_id: Option<Cow<'a, str>>,
    /// The member's client id.
    pub client_id: Cow<'a, str>,
    /// The member's host.
    pub client_host: Cow<'a, str>,
    /// What the member sent for the chosen protocol.
    pub member_metadata: Bytes,
    /// What the leader assigned to it.
    pub member_assignment: Bytes,
}
