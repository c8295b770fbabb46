//! InitProducerId (key 22): gives an idempotent or transactional producer its id and epoch.

use std::borrow::Cow;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};

/// The request: gives an idempotent or transactional producer its id and epoch.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-6", flexible = "2+")]
pub struct InitProducerIdRequest<'a> {
    /// The transactional id; null if the producer is not transactional.
    #[field(nullable)]
    pub transactional_id: Option<Cow<'a, str>>,
    /// How long a transaction may stay open, in milliseconds.
    pub transaction_timeout_ms: i32,
    /// The id the producer has, or -1.
    #[field(versions = "3+", default = -1)]
    pub producer_id: i64,
    /// The epoch the producer has, or -1.
    #[field(versions = "3+", default = -1)]
    pub producer_epoch: i16,
    /// Whether transactions are part of a two-phase commit.
    #[field(versions = "6+")]
    pub enable_2pc: bool,
    /// Whether to keep the open transaction instead of aborting it.
    #[field(versions = "6+")]
    pub keep_prepared_txn: bool,
}

impl<'a> Request<'a> for InitProducerIdRequest<'a> {
    const KEY: ApiKey = ApiKey::InitProducerId;
    type Response<'r> = InitProducerIdResponse;
}

/// The answer to [`InitProducerIdRequest`].
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-6", flexible = "2+")]
pub struct InitProducerIdResponse {
    /// How long the client was throttled, in milliseconds.
    pub throttle_time_ms: i32,
    /// An [`ErrorCode`](crate::ErrorCode), or 0.
    pub error_code: i16,
    /// The producer id.
    #[field(default = -1)]
    pub producer_id: i64,
    /// The producer epoch.
    pub producer_epoch: i16,
    /// The producer id of the kept transaction, or -1.
    #[field(versions = "6+", default = -1)]
    pub ongoing_txn_producer_id: i64,
    /// The producer epoch of the kept transaction, or -1.
    #[field(versions = "6+", default = -1)]
    pub ongoing_txn_producer_epoch: i16,
}
