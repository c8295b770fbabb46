//! OffsetDelete: forgets a group's committed offsets of topics that it no longer reads.

use madang_cluster::coordinator::Request;
use madang_cluster::coordinator::Response;
use madang_cluster::coordinator::request::OffsetDelete;
use madang_cluster::coordinator::response::OffsetDeleteResponse as Deleted;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use crate::apis::groups::{ask, timeout};
use crate::apis::locate;
use crate::env::Env;
use crate::fetch_sessions::TopicKey;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: OffsetDeleteRequest<'_>) -> OffsetDeleteResponse<'static> {
    let mut answer: Vec<OffsetDeleteResponseTopic<'static>> = Vec::with_capacity(request.topics.len());
    let mut asked = Vec::new();
    for topic in &request.topics {
        let key = TopicKey::Name((&*topic.name).into());
        let (mut known, mut partitions) = (Vec::new(), Vec::new());
        for one in &topic.partitions {
            match locate::partition(env, &key, one.partition_index) {
                Ok(_) => known.push(one.partition_index),
                Err(error) => partitions.push(partition(one.partition_index, error)),
            }
        }
        answer.push(OffsetDeleteResponseTopic { name: topic.name.to_string().into(), partitions });
        asked.push(((&*topic.name).into(), known));
    }
    let delete = OffsetDelete { group: (&*request.group_id).into(), topics: asked };
    let take = |response| match response {
        Response::OffsetDelete(deleted) => Some(deleted),
        _ => None,
    };
    let outcome = ask(env, &request.group_id, Request::OffsetDelete(delete), timeout(env), take).await;
    let deleted = outcome.unwrap_or_else(|error| Deleted { error, topics: Vec::new() });
    if deleted.error != ErrorCode::None {
        return OffsetDeleteResponse { error_code: deleted.error.code(), ..OffsetDeleteResponse::default() };
    }
    for (topic, (_, partitions)) in answer.iter_mut().zip(deleted.topics) {
        topic.partitions.extend(partitions.into_iter().map(|(index, error)| partition(index, error)));
    }
    answer.retain(|topic| !topic.partitions.is_empty());
    OffsetDeleteResponse { topics: answer, ..OffsetDeleteResponse::default() }
}

fn partition(partition_index: i32, error: ErrorCode) -> OffsetDeleteResponsePartition {
    OffsetDeleteResponsePartition { partition_index, error_code: error.code() }
}
