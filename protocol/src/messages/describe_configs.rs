//! DescribeConfigs (key 32): configuration of topics, brokers and groups.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: configuration of topics, brokers and groups.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "1-4", flexible = "4+")]
pub struct DescribeConfigsRequest<'a> {
    /// The resources.
    pub resources: Vec<DescribeConfigsResource<'a>>,
    /// Whether to list the other places of each value.
    pub include_synonyms: bool,
    /// Whether to explain each key.
    #[field(versions = "3+")]
    pub include_documentation: bool,
}

impl<'a> Request<'a> for DescribeConfigsRequest<'a> {
    const KEY: ApiKey = ApiKey::DescribeConfigs;
    type Response<'r> = DescribeConfigsResponse<'r>;
}

/// A resource to describe.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeConfigsResource<'a> {
    /// 2: topic, 4: broker, 8: broker logger, 32: group.
    pub resource_type: i8,
    /// Its name.
    pub resource_name: Cow<'a, str>,
    /// The keys to list; null for all.
    #[field(nullable)]
    pub configuration_keys: Option<Vec<Cow<'a, str>>>,
}

/// The answer to [`DescribeConfigsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "1-4", flexible = "4+")]
pub struct DescribeConfigsResponse<'a> {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// By resource.
    pub results: Vec<DescribeConfigsResult<'a>>,
}

/// The configuration of one resource.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeConfigsResult<'a> {
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The error in words, or null.
    #[field(nullable)]
    pub error_message: Option<Cow<'a, str>>,
    /// 2: topic, 4: broker, 8: broker logger, 32: group.
    pub resource_type: i8,
    /// Its name.
    pub resource_name: Cow<'a, str>,
    /// By configuration key.
    pub configs: Vec<DescribeConfigsResourceResult<'a>>,
}

/// A configuration key and its value.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeConfigsResourceResult<'a> {
    /// The key.
    pub name: Cow<'a, str>,
    /// The value, or null.
    #[field(nullable)]
    pub value: Option<Cow<'a, str>>,
    /// Whether it cannot be changed while the broker runs.
    pub read_only: bool,
    /// Where the value comes from.
    #[field(default = -1)]
    pub config_source: i8,
    /// Whether the value is hidden.
    pub is_sensitive: bool,
    /// The other places, by precedence.
    pub synonyms: Vec<DescribeConfigsSynonym<'a>>,
    /// The value's type.
    #[field(versions = "3+", ignorable)]
    pub config_type: i8,
    /// What the key is for, or null.
    #[field(versions = "3+", nullable, ignorable)]
    pub documentation: Option<Cow<'a, str>>,
}

/// A place that also gives the key a value.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct DescribeConfigsSynonym<'a> {
    /// The key in that place.
    pub name: Cow<'a, str>,
    /// The value, or null.
    #[field(nullable)]
    pub value: Option<Cow<'a, str>>,
    /// The kind of place.
    pub source: i8,
}
