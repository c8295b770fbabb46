//! JoinGroup: parks in the group's shard until the rebalance is over.

use std::time::Duration;

use madang_cluster::coordinator::Request;
use madang_cluster::coordinator::Response;
use madang_cluster::coordinator::request::JoinGroup;
use madang_cluster::coordinator::response::JoinGroupResponse as Joined;
use madang_protocol::messages::join_group::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};

use crate::apis::groups::{ask, shared};
use crate::env::{Client, Env};

/// The first version in which the protocol's type comes back and a refused protocol name is null.
const TYPED: i16 = 7;
/// A join is parked for as long as the rebalance takes: the members' longest timeout, and five minutes for a newcomer.
const LONGEST_PARK: Duration = Duration::from_secs(3600);

/// Answers one request.
pub async fn handle<E: Env>(
    env: &E,
    client: &Client,
    request: JoinGroupRequest<'_>,
    version: i16,
) -> JoinGroupResponse<'static> {
    let millis = |millis: i32| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    let session_timeout = millis(request.session_timeout_ms);
    let rebalance_timeout =
        if request.rebalance_timeout_ms < 0 { session_timeout } else { millis(request.rebalance_timeout_ms) };
    let join = JoinGroup {
        version,
        group: (&*request.group_id).into(),
        member: (&*request.member_id).into(),
        group_instance_id: shared(request.group_instance_id.as_deref()),
        client_id: client.id.clone(),
        client_host: format!("/{}", client.address.ip()).into(),
        session_timeout,
        rebalance_timeout,
        protocol_type: (&*request.protocol_type).into(),
        protocols: request.protocols.into_iter().map(|one| ((&*one.name).into(), one.metadata)).collect(),
    };
    let take = |response| match response {
        Response::JoinGroup(joined) => Some(joined),
        _ => None,
    };
    let joined = ask(env, &request.group_id, Request::JoinGroup(join), LONGEST_PARK, take).await;
    respond(joined.unwrap_or_else(|error| Joined::refuse(error, (&*request.member_id).into())), version)
}

fn respond(joined: Joined, version: i16) -> JoinGroupResponse<'static> {
    let protocol_name = match joined.protocol_name {
        Some(name) => Some(name.to_string().into()),
        None if version >= TYPED => None,
        None => Some("".into()),
    };
    let members = joined.members.into_iter().map(|member| JoinGroupResponseMember {
        member_id: member.member.to_string().into(),
        group_instance_id: member.group_instance_id.map(|id| id.to_string().into()),
        metadata: member.metadata,
    });
    JoinGroupResponse {
        error_code: joined.error.code(),
        generation_id: joined.generation_id,
        protocol_type: joined.protocol_type.filter(|_| version >= TYPED).map(|kind| kind.to_string().into()),
        protocol_name,
        leader: joined.leader.to_string().into(),
        skip_assignment: joined.skip_assignment,
        member_id: joined.member.to_string().into(),
        members: members.collect(),
        ..JoinGroupResponse::default()
    }
}
