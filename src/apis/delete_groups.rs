//! DeleteGroups: forgets groups that have no members, with their offsets.

use std::collections::HashSet;

use madang_cluster::coordinator::Request;
use madang_cluster::coordinator::Response;
use madang_cluster::coordinator::request::DeleteGroups;
use madang_protocol::messages::delete_groups::{DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse};

use crate::apis::groups::{ask, timeout};
use crate::env::Env;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: DeleteGroupsRequest<'_>) -> DeleteGroupsResponse<'static> {
    let mut results = Vec::with_capacity(request.groups_names.len());
    // A group that is named twice is answered once, as Kafka does.
    let mut seen = HashSet::new();
    for group in request.groups_names.iter().filter(|group| seen.insert(&***group)) {
        let delete = Request::DeleteGroups(DeleteGroups { groups: vec![(&**group).into()] });
        let take = |response| match response {
            Response::DeleteGroups(deleted) => deleted.into_iter().next().map(|(_, error)| error),
            _ => None,
        };
        let error = ask(env, group, delete, timeout(env), take).await.unwrap_or_else(|error| error);
        results.push(DeletableGroupResult { group_id: group.to_string().into(), error_code: error.code() });
    }
    DeleteGroupsResponse { results, ..DeleteGroupsResponse::default() }
}
