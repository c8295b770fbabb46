//! ApiVersions (key 18): which APIs and versions the broker serves.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: which APIs and versions the broker serves.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-4", flexible = "3+")]
pub struct ApiVersionsRequest<'a> {
    /// The client library's name.
    #[field(versions = "3+", ignorable)]
    pub client_software_name: Cow<'a, str>,
    /// The client library's version.
    #[field(versions = "3+", ignorable)]
    pub client_software_version: Cow<'a, str>,
}

impl<'a> Request<'a> for ApiVersionsRequest<'a> {
    const KEY: ApiKey = ApiKey::ApiVersions;
    type Response<'r> = ApiVersionsResponse<'r>;
}

/// The answer to [`ApiVersionsRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-4", flexible = "3+")]
pub struct ApiVersionsResponse<'a> {
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// By API.
    pub api_keys: Vec<ApiVersion>,
    /// How long the client was throttled, in milliseconds.
    #[field(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// What the broker supports.
    #[field(versions = "3+", tag = 0, ignorable)]
    pub supported_features: Vec<SupportedFeatureKey<'a>>,
    /// Grows with each change of the finalized features; -1 if unknown.
    #[field(versions = "3+", tag = 1, default = -1, ignorable)]
    pub finalized_features_epoch: i64,
    /// What the cluster has settled on.
    #[field(versions = "3+", tag = 2, ignorable)]
    pub finalized_features: Vec<FinalizedFeatureKey<'a>>,
    /// Set only while a cluster leaves ZooKeeper.
    #[field(versions = "3+", tag = 3, ignorable)]
    pub zk_migration_ready: bool,
}

/// The versions served of one API.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct ApiVersion {
    /// The API's number.
    pub api_key: i16,
    /// The lowest.
    pub min_version: i16,
    /// The highest.
    pub max_version: i16,
}

/// A feature and the levels the broker supports.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct SupportedFeatureKey<'a> {
    /// The feature's name.
    pub name: Cow<'a, str>,
    /// The lowest.
    pub min_version: i16,
    /// The highest.
    pub max_version: i16,
}

/// A feature and the levels the cluster has settled on.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct FinalizedFeatureKey<'a> {
    /// The feature's name.
    pub name: Cow<'a, str>,
    /// The highest level.
    pub max_version_level: i16,
    /// The lowest level.
    pub min_version_level: i16,
}
