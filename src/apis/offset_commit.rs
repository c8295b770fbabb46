//! OffsetCommit: answered when the commit is stored. Partitions that do not exist are refused one by one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use madang_cluster::coordinator::Request;
use madang_cluster::coordinator::Response;
use madang_cluster::coordinator::request::{CommitPartition, CommitTopic, OffsetCommit};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestTopic, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};

use crate::apis::groups::{ask, shared, timeout};
use crate::apis::locate;
use crate::env::Env;
use crate::fetch_sessions::TopicKey;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: OffsetCommitRequest<'_>, version: i16) -> OffsetCommitResponse<'static> {
    let mut answer: Vec<OffsetCommitResponseTopic<'static>> = Vec::with_capacity(request.topics.len());
    let mut asked = Vec::with_capacity(request.topics.len());
    for topic in &merged(&request) {
        let (known, refused) = split(env, topic);
        let partitions = refused.into_iter().map(|(index, error)| partition(index, error)).collect();
        answer.push(OffsetCommitResponseTopic {
            name: topic.name.to_string().into(),
            partitions,
            ..OffsetCommitResponseTopic::default()
        });
        asked.push(known);
    }
    let anything = asked.iter().any(|topic| !topic.partitions.is_empty());
    if !anything {
        return OffsetCommitResponse { topics: answer, ..OffsetCommitResponse::default() };
    }
    let listed: Vec<Vec<i32>> =
        asked.iter().map(|topic| topic.partitions.iter().map(|one| one.partition).collect()).collect();
    let commit = OffsetCommit {
        version,
        group: (&*request.group_id).into(),
        member: (&*request.member_id).into(),
        group_instance_id: shared(request.group_instance_id.as_deref()),
        generation_id: request.generation_id_or_member_epoch,
        retention: u64::try_from(request.retention_time_ms).ok().map(Duration::from_millis),
        topics: asked,
    };
    let take = |response| match response {
        Response::OffsetCommit(topics) => Some(topics),
        _ => None,
    };
    let outcome = ask(env, &request.group_id, Request::OffsetCommit(commit), timeout(env), take).await;
    for (place, (topic, listed)) in answer.iter_mut().zip(listed).enumerate() {
        match &outcome {
            Ok(topics) => topic.partitions.extend(
                topics.get(place).into_iter().flat_map(|(_, all)| all).map(|&(index, error)| partition(index, error)),
            ),
            Err(error) => topic.partitions.extend(listed.into_iter().map(|index| partition(index, *error))),
        }
    }
    OffsetCommitResponse { topics: answer, ..OffsetCommitResponse::default() }
}

/// The topics that are asked for. What is said of one in several places is answered in the first.
fn merged<'a>(request: &OffsetCommitRequest<'a>) -> Vec<OffsetCommitRequestTopic<'a>> {
    let mut topics: Vec<OffsetCommitRequestTopic<'a>> = Vec::with_capacity(request.topics.len());
    let mut places = HashMap::with_capacity(request.topics.len());
    for topic in &request.topics {
        match places.entry(&*topic.name) {
            Entry::Occupied(place) => {
                let first: Option<&mut OffsetCommitRequestTopic<'a>> = topics.get_mut(*place.get());
                first.into_iter().for_each(|first| first.partitions.extend_from_slice(&topic.partitions));
            }
            Entry::Vacant(place) => {
                place.insert(topics.len());
                topics.push(topic.clone());
            }
        }
    }
    topics
}

/// What is to be committed of a topic, and what is refused before the group is asked.
fn split<E: Env>(env: &E, topic: &OffsetCommitRequestTopic<'_>) -> (CommitTopic, Vec<(i32, ErrorCode)>) {
    let key = TopicKey::Name((&*topic.name).into());
    let mut known = CommitTopic { name: (&*topic.name).into(), ..CommitTopic::default() };
    let mut refused = Vec::new();
    for one in &topic.partitions {
        match locate::partition(env, &key, one.partition_index) {
            Ok(id) => {
                known.id = id.topic_id;
                known.partitions.push(CommitPartition {
                    partition: one.partition_index,
                    offset: one.committed_offset,
                    leader_epoch: one.committed_leader_epoch,
                    metadata: Arc::from(one.committed_metadata.as_deref().unwrap_or_default()),
                });
            }
            Err(error) => refused.push((one.partition_index, error)),
        }
    }
    (known, refused)
}

fn partition(partition_index: i32, error: ErrorCode) -> OffsetCommitResponsePartition {
    OffsetCommitResponsePartition { partition_index, error_code: error.code() }
}
