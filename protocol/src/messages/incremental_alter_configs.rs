//! IncrementalAlterConfigs (key 44): changes single configuration keys of resources.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: changes single configuration keys of resources.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-1", flexible = "1+")]
pub struct IncrementalAlterConfigsRequest<'a> {
    /// The resources.
    pub resources: Vec<AlterConfigsResource<'a>>,
    /// Whether to check only.
    pub validate_only: bool,
}

impl<'a> Request<'a> for IncrementalAlterConfigsRequest<'a> {
    const KEY: ApiKey = ApiKey::IncrementalAlterConfigs;
    type Response<'r> = IncrementalAlterConfigsResponse<'r>;
}

/// A resource to change.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AlterConfigsResource<'a> {
    /// 2: topic, 4: broker, 8: broker logger, 32: group.
    pub resource_type: i8,
    /// Its name.
    pub resource_name: Cow<'a, str>,
    /// By configuration key.
    pub configs: Vec<AlterableConfig<'a>>,
}

/// A configuration key to change.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AlterableConfig<'a> {
    /// The key.
    pub name: Cow<'a, str>,
    /// 0: set, 1: delete, 2: append, 3: subtract.
    pub config_operation: i8,
    /// The value, or null.
    #[field(nullable)]
    pub value: Option<Cow<'a, str>>,
}

/// The answer to [`IncrementalAlterConfigsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-1", flexible = "1+")]
pub struct IncrementalAlterConfigsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// By topic.
    pub responses: Vec<AlterConfigsResourceResponse<'a>>,
}

/// The result for one resource.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct AlterConfigsResourceResponse<'a> {
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(nullable)]
    pub error_message: Option<Cow<'a, str>>,
    /// 2: topic, 4: broker, 8: broker logger, 32: group.
    pub resource_type: i8,
    /// Its name.
    pub resource_name: Cow<'a, str>,
}
