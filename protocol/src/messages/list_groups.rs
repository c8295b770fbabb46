//! ListGroups (key 16): the groups that a broker coordinates.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: the groups that a broker coordinates.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-5", flexible = "3+")]
pub struct ListGroupsRequest<'a> {
    /// States to list; empty for all.
    #[field(versions = "4+")]
    pub states_filter: Vec<Cow<'a, str>>,
    /// Types to list; empty for all.
    #[field(versions = "5+")]
    pub types_filter: Vec<Cow<'a, str>>,
}

impl<'a> Request<'a> for ListGroupsRequest<'a> {
    const KEY: ApiKey = ApiKey::ListGroups;
    type Response<'r> = ListGroupsResponse<'r>;
}

/// The answer to [`ListGroupsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-5", flexible = "3+")]
pub struct ListGroupsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    #[field(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The groups.
    pub groups: Vec<ListedGroup<'a>>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ListedGroup<'a> {
    /// The group's id.
    pub group_id: Cow<'a, str>,
    /// The kind of group, `consumer` for consumers.
    pub protocol_type: Cow<'a, str>,
    /// The state's name.
    #[field(versions = "4+", ignorable)]
    pub group_state: Cow<'a, str>,
    /// The type's name.
    #[field(versions = "5+", ignorable)]
    pub group_type: Cow<'a, str>,
}
