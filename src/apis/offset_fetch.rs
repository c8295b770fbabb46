//! OffsetFetch: the committed offsets of one group (up to version 7) or of several.

use std::sync::Arc;

use madang_cluster::coordinator::Request;
use madang_cluster::coordinator::Response;
use madang_cluster::coordinator::request::{FetchTopic, OffsetFetch};
use madang_cluster::coordinator::response::{FetchedOffset, OffsetFetchResponse as Fetched};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

use crate::apis::groups::{ask, timeout};
use crate::env::Env;

/// The first version that asks for several groups at once.
const BATCHED: i16 = 8;
/// The first version that has room for an error of the whole group.
const GROUP_ERROR: i16 = 2;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: OffsetFetchRequest<'_>, version: i16) -> OffsetFetchResponse<'static> {
    if version < BATCHED {
        let topics = request
            .topics
            .as_ref()
            .map(|topics| topics.iter().map(|topic| fetch_topic(&topic.name, &topic.partition_indexes)).collect());
        let fetched = fetch(env, &request.group_id, topics).await;
        return respond_single(fetched, version);
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in &request.groups {
        let topics = group
            .topics
            .as_ref()
            .map(|topics| topics.iter().map(|topic| fetch_topic(&topic.name, &topic.partition_indexes)).collect());
        let fetched = fetch(env, &group.group_id, topics).await;
        groups.push(respond_group(&group.group_id, fetched));
    }
    OffsetFetchResponse { groups, ..OffsetFetchResponse::default() }
}

fn fetch_topic(name: &str, partitions: &[i32]) -> FetchTopic {
    FetchTopic { name: name.into(), partitions: partitions.to_vec(), ..FetchTopic::default() }
}

async fn fetch<E: Env>(env: &E, group: &str, topics: Option<Vec<FetchTopic>>) -> Fetched {
    let request = Request::OffsetFetch(OffsetFetch { group: group.into(), topics: topics.clone() });
    let take = |response| match response {
        Response::OffsetFetch(fetched) => Some(fetched),
        _ => None,
    };
    ask(env, group, request, timeout(env), take).await.unwrap_or_else(|error| unreachable_shard(error, topics))
}

/// The answer when the shard could not be asked: the error stands for the group and for each partition.
fn unreachable_shard(error: ErrorCode, topics: Option<Vec<FetchTopic>>) -> Fetched {
    let topics = topics.unwrap_or_default().into_iter().map(|topic| {
        let none = topic.partitions.iter().map(|&partition| FetchedOffset::none(partition, error)).collect();
        (topic.name, none)
    });
    Fetched { error, topics: topics.collect() }
}

fn respond_single(fetched: Fetched, version: i16) -> OffsetFetchResponse<'static> {
    let failed = fetched.error != ErrorCode::None;
    let topics = fetched.topics.into_iter().map(|(name, offsets)| OffsetFetchResponseTopic {
        name: text(&name),
        partitions: offsets
            .into_iter()
            .map(|one| OffsetFetchResponsePartition {
                partition_index: one.partition,
                committed_offset: one.offset,
                committed_leader_epoch: one.leader_epoch,
                metadata: Some(text(&one.metadata)),
                error_code: if failed { fetched.error.code() } else { one.error.code() },
            })
            .collect(),
    });
    // From version 2 on an error of the group stands alone.
    let topics = if failed && version >= GROUP_ERROR { Vec::new() } else { topics.collect() };
    OffsetFetchResponse { topics, error_code: fetched.error.code(), ..OffsetFetchResponse::default() }
}

fn respond_group(group: &str, fetched: Fetched) -> OffsetFetchResponseGroup<'static> {
    let failed = fetched.error != ErrorCode::None;
    let topics = fetched.topics.into_iter().map(|(name, offsets)| OffsetFetchResponseTopics {
        name: text(&name),
        partitions: offsets
            .into_iter()
            .map(|one| OffsetFetchResponsePartitions {
                partition_index: one.partition,
                committed_offset: one.offset,
                committed_leader_epoch: one.leader_epoch,
                metadata: Some(text(&one.metadata)),
                error_code: one.error.code(),
            })
            .collect(),
        ..OffsetFetchResponseTopics::default()
    });
    OffsetFetchResponseGroup {
        group_id: group.to_owned().into(),
        topics: if failed { Vec::new() } else { topics.collect() },
        error_code: fetched.error.code(),
    }
}

fn text(text: &Arc<str>) -> std::borrow::Cow<'static, str> {
    text.to_string().into()
}
