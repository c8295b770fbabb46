//! DeleteTopics: by name, or by id from version 6.

use std::collections::BTreeSet;

use madang_cluster::controller::{ApiResult, DeletedTopic, Outcome, Proposal, TopicRef};
use madang_cluster::metadata::MetadataImage;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use madang_protocol::types::TopicId;

use crate::apis::proposals::{ask_within, first_of_each, wire};
use crate::env::Env;

/// The first version that names topics in entries of their own.
const ENTRIES: i16 = 6;
/// The first version that can say that deletion is switched off.
const DISABLED: i16 = 3;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: DeleteTopicsRequest<'_>, version: i16) -> DeleteTopicsResponse<'static> {
    if !env.config().delete_topics {
        return disabled(&request, version);
    }
    let mut refused = Vec::new();
    let topics: Vec<TopicRef> = if version >= ENTRIES {
        let reference = |name: Option<&str>, id| name.map_or(TopicRef::Id(id), |name| TopicRef::Name(name.to_owned()));
        let both = |topic: &&DeleteTopicState<'_>| topic.name.is_some() && !topic.topic_id.is_zero();
        refused.extend(request.topics.iter().filter(both).map(named_twice));
        let supplied = supplied_twice(&env.image(), &request.topics);
        refused.extend(supplied.iter().map(|(name, id)| name_of_an_id(name, *id)));
        let again = |topic: &DeleteTopicState<'_>| {
            supplied.iter().any(|(name, id)| topic.name.as_deref() == Some(name) || topic.topic_id == *id)
        };
        let rest = request.topics.iter().filter(|topic| !both(topic) && !again(topic));
        rest.map(|topic| reference(topic.name.as_deref(), topic.topic_id)).collect()
    } else {
        request.topic_names.iter().map(|name| TopicRef::Name(name.to_string())).collect()
    };
    let take = |outcome| match outcome {
        Outcome::DeleteTopics(results) => Some(results),
        _ => None,
    };
    let results = ask_within(env, Proposal::DeleteTopics(topics.clone()), request.timeout_ms, take).await;
    let mut responses: Vec<_> = match results {
        Ok(results) => topics.into_iter().zip(results).map(|(topic, result)| answer(topic, result)).collect(),
        Err(error) => topics.into_iter().map(|topic| answer(topic, Err(error.clone()))).collect(),
    };
    responses.extend(refused);
    let responses = first_of_each(responses, |one: &DeletableTopicResult<'_>| (one.name.clone(), one.topic_id));
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

/// With `delete.topic.enable=false` each is refused as it was asked for, whatever else is wrong with it.
fn disabled(request: &DeleteTopicsRequest<'_>, version: i16) -> DeleteTopicsResponse<'static> {
    let error = if version >= DISABLED { ErrorCode::TopicDeletionDisabled } else { ErrorCode::InvalidRequest };
    let refuse = |name: Option<&str>, topic_id| DeletableTopicResult {
        name: name.map(|name| name.to_owned().into()),
        topic_id,
        error_code: error.code(),
        error_message: None,
    };
    let responses = if version >= ENTRIES {
        request.topics.iter().map(|topic| refuse(topic.name.as_deref(), topic.topic_id)).collect()
    } else {
        request.topic_names.iter().map(|name| refuse(Some(name), TopicId::ZERO)).collect()
    };
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

/// A topic that is asked for by name and by id, which may not be the same one.
fn named_twice(topic: &DeleteTopicState<'_>) -> DeletableTopicResult<'static> {
    DeletableTopicResult {
        name: topic.name.as_deref().map(|name| name.to_owned().into()),
        topic_id: topic.topic_id,
        error_code: ErrorCode::InvalidRequest.code(),
        error_message: Some("You may not specify both topic name and topic id.".into()),
    }
}

/// Names of topics whose ids are asked for beside them.
fn supplied_twice(image: &MetadataImage, topics: &[DeleteTopicState<'_>]) -> Vec<(String, TopicId)> {
    let ids: BTreeSet<TopicId> =
        topics.iter().filter(|topic| topic.name.is_none()).map(|topic| topic.topic_id).collect();
    let named = topics.iter().filter_map(|topic| {
        let name = topic.name.as_deref()?;
        Some((name.to_owned(), image.topic_id(name).filter(|id| ids.contains(id))?))
    });
    named.collect()
}

fn name_of_an_id(name: &str, topic_id: TopicId) -> DeletableTopicResult<'static> {
    DeletableTopicResult {
        name: Some(name.to_owned().into()),
        topic_id,
        error_code: ErrorCode::InvalidRequest.code(),
        error_message: Some("The provided topic name maps to an ID that was already supplied.".into()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_deletion_is_disabled_everything_is_refused_for_that() {
        let named = DeleteTopicsRequest { topic_names: vec!["a".into(), "a".into()], ..Default::default() };
        let codes = |response: DeleteTopicsResponse<'_>| {
            response.responses.iter().map(|one| one.error_code).collect::<Vec<_>>()
        };
        assert_eq!(codes(disabled(&named, 2)), [ErrorCode::InvalidRequest.code(); 2]);
        assert_eq!(codes(disabled(&named, 3)), [ErrorCode::TopicDeletionDisabled.code(); 2]);
        let both = DeleteTopicState { name: Some("a".into()), topic_id: TopicId::from_random(1, 2) };
        let response = disabled(&DeleteTopicsRequest { topics: vec![both], ..Default::default() }, 6);
        assert_eq!(
            (response.responses[0].name.as_deref(), response.responses[0].topic_id),
            (Some("a"), TopicId::from_random(1, 2))
        );
        assert_eq!(codes(response), [ErrorCode::TopicDeletionDisabled.code()]);
    }
}
