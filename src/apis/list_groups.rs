//! ListGroups: the groups that this node coordinates.

use madang_cluster::coordinator::Request;
use madang_cluster::coordinator::Response;
use madang_cluster::coordinator::request::ListGroups;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};

use crate::apis::groups::timeout;
use crate::env::Env;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: ListGroupsRequest<'_>) -> ListGroupsResponse<'static> {
    let list = Request::ListGroups(ListGroups {
        states: request.states_filter.iter().map(|state| (&**state).into()).collect(),
        types: request.types_filter.iter().map(|kind| (&**kind).into()).collect(),
    });
    let answers = match env.every_group_shard(list, env.now() + timeout(env)).await {
        Ok(answers) => answers,
        Err(error) => return ListGroupsResponse { error_code: error.code(), ..ListGroupsResponse::default() },
    };
    let mut error = ErrorCode::None;
    let mut groups = Vec::new();
    for answer in answers {
        if let Response::ListGroups(listed) = answer {
            if listed.error != ErrorCode::None {
                error = listed.error;
            }
            groups.extend(listed.groups.into_iter().map(|group| ListedGroup {
                group_id: group.group.to_string().into(),
                protocol_type: group.protocol_type.to_string().into(),
                group_state: group.state.into(),
                group_type: group.group_type.into(),
            }));
        }
    }
    ListGroupsResponse { error_code: error.code(), groups, ..ListGroupsResponse::default() }
}
