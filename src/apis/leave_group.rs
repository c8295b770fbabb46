//! LeaveGroup: one member (up to version 2) or several leave a group.

use madang_cluster::coordinator::Request;
use madang_cluster::coordinator::Response;
use madang_cluster::coordinator::request::{LeaveGroup, LeavingMember};
use madang_cluster::coordinator::response::LeaveGroupResponse as Left;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse, MemberResponse};

use crate::apis::groups::{ask, shared, timeout};
use crate::env::Env;

/// The first version that names several members.
const BATCHED: i16 = 3;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: LeaveGroupRequest<'_>, version: i16) -> LeaveGroupResponse<'static> {
    let members = if version >= BATCHED {
        let identity = |member: &madang_protocol::messages::leave_group::MemberIdentity<'_>| LeavingMember {
            member: (&*member.member_id).into(),
            group_instance_id: shared(member.group_instance_id.as_deref()),
        };
        request.members.iter().map(identity).collect()
    } else {
        vec![LeavingMember { member: (&*request.member_id).into(), group_instance_id: None }]
    };
    let leave = LeaveGroup { version, group: (&*request.group_id).into(), members };
    let take = |response| match response {
        Response::LeaveGroup(left) => Some(left),
        _ => None,
    };
    let left = ask(env, &request.group_id, Request::LeaveGroup(leave), timeout(env), take).await;
    respond(left.unwrap_or_else(|error| Left { error, members: Vec::new() }), version)
}

fn respond(left: Left, version: i16) -> LeaveGroupResponse<'static> {
    if version < BATCHED {
        // One member, and no room for its own error: the whole answer carries it.
        let member = left.members.first().map_or(ErrorCode::None, |member| member.error);
        let error = if left.error == ErrorCode::None { member } else { left.error };
        return LeaveGroupResponse { error_code: error.code(), ..LeaveGroupResponse::default() };
    }
    let members = left.members.into_iter().map(|member| MemberResponse {
        member_id: member.member.to_string().into(),
        group_instance_id: member.group_instance_id.map(|id| id.to_string().into()),
        error_code: member.error.code(),
    });
    LeaveGroupResponse { error_code: left.error.code(), members: members.collect(), ..LeaveGroupResponse::default() }
}
