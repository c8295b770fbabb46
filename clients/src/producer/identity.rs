//! What makes a producer idempotent: an id and an epoch from the cluster, and a sequence per partition.

use madang_protocol::ErrorCode;
use madang_protocol::messages::init_producer_id::InitProducerIdRequest;
use thiserror::Error;

use crate::client::Client;
use crate::error::{ConnectionError, check};

/// What a partition's batches are stamped with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    pub(super) next_sequence: i32,
}

/// Why there is no id.
#[derive(Debug, Error)]
pub(super) enum IdentityError {
    #[error("{0}")]
    Connection(ConnectionError),
    #[error("{0}")]
    Broker(ErrorCode),
}

/// Asks the cluster for an id that nobody has used.
pub(super) async fn new_identity(client: &Client) -> Result<Identity, IdentityError> {
    let request = InitProducerIdRequest {
        // Null, as an empty one is refused; the timeout is then not used.
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        ..InitProducerIdRequest::default()
    };
    let answer = client.any(&request).await.map_err(IdentityError::Connection)?;
    check(answer.error_code).map_err(IdentityError::Broker)?;
    Ok(Identity { producer_id: answer.producer_id, producer_epoch: answer.producer_epoch, next_sequence: 0 })
}
