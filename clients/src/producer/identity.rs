//! What makes a producer idempotent: an id and an epoch from the cluster, and a sequence per partition.

use madang_protocol::messages::init_producer_id::InitProducerIdRequest;

use crate::client::Client;
use crate::error::{ConnectionError, error_code};
use madang_protocol::ErrorCode;

/// What a partition's batches are stamped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    pub(super) next_sequence: i32,
}

/// Asks the cluster for an id that nobody has used.
pub(super) async fn new_identity(client: &Client) -> Result<Result<Identity, ErrorCode>, ConnectionError> {
    let request = InitProducerIdRequest {
        // Not used without a transactional id; brokers refuse 0 in some versions.
        transaction_timeout_ms: i32::MAX,
        ..InitProducerIdRequest::default()
    };
    let answer = client.any(&request).await?;
    Ok(match error_code(answer.error_code) {
        ErrorCode::None => {
            Ok(Identity { producer_id: answer.producer_id, producer_epoch: answer.producer_epoch, next_sequence: 0 })
        }
        error => Err(error),
    })
}
