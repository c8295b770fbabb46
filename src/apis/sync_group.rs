//! SyncGroup: parks in the group's shard until the leader has said who gets what.

use std::time::Duration;

use madang_cluster::coordinator::Request;
use madang_cluster::coordinator::Response;
use madang_cluster::coordinator::request::SyncGroup;
use madang_cluster::coordinator::response::SyncGroupResponse as Synced;
use madang_protocol::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};

use crate::apis::groups::{ask, shared};
use crate::env::Env;

/// The shard lets go after the rebalance timeout, which may be as long as a client asked for.
const LONGEST_PARK: Duration = Duration::from_secs(3600);

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: SyncGroupRequest<'_>) -> SyncGroupResponse<'static> {
    let sync = SyncGroup {
        group: (&*request.group_id).into(),
        member: (&*request.member_id).into(),
        group_instance_id: shared(request.group_instance_id.as_deref()),
        generation_id: request.generation_id,
        protocol_type: shared(request.protocol_type.as_deref()),
        protocol_name: shared(request.protocol_name.as_deref()),
        assignments: request.assignments.into_iter().map(|one| ((&*one.member_id).into(), one.assignment)).collect(),
    };
    let take = |response| match response {
        Response::SyncGroup(synced) => Some(synced),
        _ => None,
    };
    let synced = ask(env, &request.group_id, Request::SyncGroup(sync), LONGEST_PARK, take).await;
    let synced = synced.unwrap_or_else(Synced::refuse);
    SyncGroupResponse {
        error_code: synced.error.code(),
        protocol_type: synced.protocol_type.map(|kind| kind.to_string().into()),
        protocol_name: synced.protocol_name.map(|name| name.to_string().into()),
        assignment: synced.assignment,
        ..SyncGroupResponse::default()
    }
}
