//! UnregisterBroker: a broker is forgotten, until it registers again.

use std::time::Duration;

use madang_cluster::controller::{Outcome, Proposal};
use madang_protocol::messages::unregister_broker::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use madang_protocol::types::NodeId;

use crate::apis::proposals::{ask, wire};
use crate::env::Env;

/// The request gives no time; Kafka's clients wait for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: &UnregisterBrokerRequest) -> UnregisterBrokerResponse<'static> {
    let proposal = Proposal::UnregisterBroker(NodeId(request.broker_id));
    let take = |outcome| matches!(outcome, Outcome::Unregistered).then_some(());
    let (error_code, error_message) = match ask(env, proposal, PATIENCE, take).await {
        Ok(()) => (0, None),
        Err(error) => wire(&error),
    };
    UnregisterBrokerResponse { error_code, error_message, ..UnregisterBrokerResponse::default() }
}
