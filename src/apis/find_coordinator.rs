//! FindCoordinator: the node that leads a group's partition of `__consumer_offsets`, which the first request creates.

use std::time::Duration;

use madang_cluster::controller::{InternalTopic, Proposal};
use madang_cluster::coordinator::OFFSETS_TOPIC;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::find_coordinator::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse};

use crate::apis::locate::serving;
use crate::env::{Client, Env};

/// The first version that asks for several keys at once.
const BATCHED: i16 = 4;
/// The kind of key that is a group.
const GROUP: i8 = 0;
/// How long the creation of the internal topic may take in the background.
const CREATION_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers one request.
pub fn handle<E: Env>(
    env: &E,
    client: &Client,
    request: &FindCoordinatorRequest<'_>,
    version: i16,
) -> FindCoordinatorResponse<'static> {
    if version >= BATCHED {
        let coordinators = request.coordinator_keys.iter().map(|key| find(env, client, request.key_type, key));
        return FindCoordinatorResponse { coordinators: coordinators.collect(), ..Default::default() };
    }
    let found = find(env, client, request.key_type, &request.key);
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    }
}

fn find<E: Env>(env: &E, client: &Client, key_type: i8, key: &str) -> Coordinator<'static> {
    let found = if key_type == GROUP {
        if env.image().topic(OFFSETS_TOPIC).is_none() {
            create_in_background(env);
        }
        locate(env, client, key)
    } else {
        // Transactions and share groups are not served; clients report this at once instead of asking again.
        Err(ErrorCode::InvalidRequest)
    };
    match found {
        Ok((node_id, host, port)) => Coordinator {
            key: key.to_owned().into(),
            node_id,
            host: host.into(),
            port,
            error_message: Some("".into()),
            ..Coordinator::default()
        },
        Err(error) => Coordinator {
            key: key.to_owned().into(),
            node_id: -1,
            host: "".into(),
            port: -1,
            error_code: error.code(),
            error_message: Some(error.message().into()),
        },
    }
}

fn locate<E: Env>(env: &E, client: &Client, group: &str) -> Result<(i32, String, i32), ErrorCode> {
    let unavailable = ErrorCode::CoordinatorNotAvailable;
    let image = env.image();
    let topic = image.topic(OFFSETS_TOPIC).ok_or(unavailable)?;
    let index = env.group_placement().partition(&image, group)?;
    let state = topic.partitions.get(&index).ok_or(unavailable)?;
    let broker = serving(&image, &env.gone(), state.leader).ok_or(unavailable)?;
    let endpoint = broker.endpoint(&client.listener).ok_or(unavailable)?;
    Ok((broker.node_id.0, endpoint.host.to_string(), i32::from(endpoint.port)))
}

fn create_in_background<E: Env>(env: &E) {
    let created =
        env.propose(Proposal::CreateInternalTopic(InternalTopic::ConsumerOffsets), env.now() + CREATION_TIMEOUT);
    env.in_background(Box::pin(async move {
        // The client asks again, and asks for the creation again if it failed.
        if let Err(error) = created.await {
            let why = error.message.as_deref().unwrap_or_else(|| error.error.message());
            tracing::warn!(topic = OFFSETS_TOPIC, why, "not created");
        }
    }));
}
