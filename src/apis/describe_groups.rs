//! DescribeGroups: state and members of each group.

use madang_cluster::coordinator::Request;
use madang_cluster::coordinator::Response;
use madang_cluster::coordinator::request::DescribeGroup;
use madang_cluster::coordinator::response::DescribedGroup as Described;
use madang_protocol::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};

use crate::apis::groups::{ask, timeout};
use crate::apis::operations;
use crate::env::Env;

/// The first version that has room for a text beside the error.
const MESSAGES: i16 = 6;

/// Answers one request.
pub async fn handle<E: Env>(
    env: &E,
    request: DescribeGroupsRequest<'_>,
    version: i16,
) -> DescribeGroupsResponse<'static> {
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in &request.groups {
        let describe = Request::DescribeGroup(DescribeGroup { version, group: (&**group).into() });
        let take = |response| match response {
            Response::DescribeGroup(described) => Some(described),
            _ => None,
        };
        let described = ask(env, group, describe, timeout(env), take).await;
        let described = described.unwrap_or_else(|error| Described::none((&**group).into(), error, None, ""));
        let mut described = respond(described, version);
        if request.include_authorized_operations && described.error_code == 0 {
            described.authorized_operations = operations::GROUP;
        }
        groups.push(described);
    }
    DescribeGroupsResponse { groups, ..DescribeGroupsResponse::default() }
}

fn respond(described: Described, version: i16) -> DescribedGroup<'static> {
    let members = described.members.into_iter().map(|member| DescribedGroupMember {
        member_id: member.member.to_string().into(),
        group_instance_id: member.group_instance_id.map(|id| id.to_string().into()),
        client_id: member.client_id.to_string().into(),
        client_host: member.client_host.to_string().into(),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    });
    DescribedGroup {
        error_code: described.error.code(),
        error_message: described.error_message.filter(|_| version >= MESSAGES).map(Into::into),
        group_id: described.group.to_string().into(),
        group_state: described.state.into(),
        protocol_type: described.protocol_type.to_string().into(),
        protocol_data: described.protocol_data.to_string().into(),
        members: members.collect(),
        ..DescribedGroup::default()
    }
}
