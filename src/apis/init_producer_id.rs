//! InitProducerId: an id for an idempotent producer. Transactional ids are refused at once.

use std::time::Duration;

use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

use crate::env::Env;
use crate::producer_ids;

/// How long a new block of ids may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: &InitProducerIdRequest<'_>) -> InitProducerIdResponse {
    let outcome = match request.transactional_id {
        Some(_) => Err(ErrorCode::InvalidRequest),
        // One without the other says nothing (KIP-360).
        None if (request.producer_id == -1) != (request.producer_epoch == -1) => Err(ErrorCode::InvalidRequest),
        None => producer_ids::next(env, env.now() + TIMEOUT).await,
    };
    match outcome {
        Ok(producer_id) => InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() },
        Err(error) => InitProducerIdResponse {
            error_code: error.code(),
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdResponse::default()
        },
    }
}
