//! DeleteTopics: by name, or by id from version 6.

use madang_cluster::controller::{ApiResult, DeletedTopic, Outcome, Proposal, TopicRef};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::delete_topics::{DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse};
use madang_protocol::types::TopicId;

use crate::apis::proposals::{ask, timeout, wire};
use crate::env::Env;

/// The first version that names topics in entries of their own.
const ENTRIES: i16 = 6;
/// The first version that can say that deletion is switched off.
const DISABLED: i16 = 3;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: DeleteTopicsRequest<'_>, version: i16) -> DeleteTopicsResponse<'static> {
    let topics: Vec<TopicRef> = if version >= ENTRIES {
        let reference = |name: Option<&str>, id| name.map_or(TopicRef::Id(id), |name| TopicRef::Name(name.to_owned()));
        request.topics.iter().map(|topic| reference(topic.name.as_deref(), topic.topic_id)).collect()
    } else {
        request.topic_names.iter().map(|name| TopicRef::Name(name.to_string())).collect()
    };
    let take = |outcome| match outcome {
        Outcome::DeleteTopics(results) => Some(results),
        _ => None,
    };
    let results = if env.config().delete_topics {
        ask(env, Proposal::DeleteTopics(topics.clone()), timeout(request.timeout_ms), take).await
    } else {
        let error = if version >= DISABLED { ErrorCode::TopicDeletionDisabled } else { ErrorCode::InvalidRequest };
        Err(error.into())
    };
    let responses = match results {
        Ok(results) => topics.into_iter().zip(results).map(|(topic, result)| answer(topic, result)).collect(),
        Err(error) => topics.into_iter().map(|topic| answer(topic, Err(error.clone()))).collect(),
    };
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

fn answer(topic: TopicRef, result: ApiResult<DeletedTopic>) -> DeletableTopicResult<'static> {
    match result {
        Ok(deleted) => DeletableTopicResult {
            name: Some(deleted.name.to_string().into()),
            topic_id: deleted.topic_id,
            ..DeletableTopicResult::default()
        },
        Err(error) => {
            let (error_code, error_message) = wire(&error);
            let (name, topic_id) = match topic {
                TopicRef::Name(name) => (Some(name.into()), TopicId::ZERO),
                TopicRef::Id(id) => (None, id),
            };
            DeletableTopicResult { name, topic_id, error_code, error_message }
        }
    }
}
