//! DeleteGroups (key 42): deletes empty groups with their offsets.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: deletes empty groups with their offsets.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-2", flexible = "2+")]
pub struct DeleteGroupsRequest<'a> {
    /// The groups.
    pub groups_names: Vec<Cow<'a, str>>,
}

impl<'a> Request<'a> for DeleteGroupsRequest<'a> {
    const KEY: ApiKey = ApiKey::DeleteGroups;
    type Response<'r> = DeleteGroupsResponse<'r>;
}

/// The answer to [`DeleteGroupsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-2", flexible = "2+")]
pub struct DeleteGroupsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// The results.
    pub results: Vec<DeletableGroupResult<'a>>,
}

/// The result for one group.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DeletableGroupResult<'a> {
    /// The group's id.
    pub group_id: Cow<'a, str>,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
}
