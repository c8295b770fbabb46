//! Heartbeat: a member of a group is alive.

use madang_cluster::coordinator::Request;
use madang_cluster::coordinator::Response;
use madang_cluster::coordinator::request::Heartbeat;
use madang_protocol::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};

use crate::apis::groups::{ask, shared, timeout};
use crate::env::Env;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: &HeartbeatRequest<'_>) -> HeartbeatResponse {
    let heartbeat = Heartbeat {
        group: (&*request.group_id).into(),
        member: (&*request.member_id).into(),
        group_instance_id: shared(request.group_instance_id.as_deref()),
        generation_id: request.generation_id,
    };
    let take = |response| match response {
        Response::Heartbeat(error) => Some(error),
        _ => None,
    };
    let error = ask(env, &request.group_id, Request::Heartbeat(heartbeat), timeout(env), take).await;
    HeartbeatResponse { error_code: error.unwrap_or_else(|error| error).code(), ..HeartbeatResponse::default() }
}
