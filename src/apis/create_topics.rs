//! CreateTopics: each topic on its own, with all its configuration in the answer.

use madang_cluster::configs::{DescribedConfig, describe_new_topic};
use madang_cluster::controller::{ApiResult, CreatedTopic, NewTopic, Outcome, Proposal};
use madang_protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse,
};
use madang_protocol::types::NodeId;

use crate::apis::proposals::{ask_within, first_of_each, wire};
use crate::env::Env;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: CreateTopicsRequest<'_>) -> CreateTopicsResponse<'static> {
    let names: Vec<String> = request.topics.iter().map(|topic| topic.name.to_string()).collect();
    let proposal = Proposal::CreateTopics {
        topics: request.topics.iter().map(new_topic).collect(),
        validate_only: request.validate_only,
    };
    let take = |outcome| match outcome {
        Outcome::CreateTopics(results) => Some(results),
        _ => None,
    };
    let topics = match ask_within(env, proposal, request.timeout_ms, take).await {
        Ok(results) => names.into_iter().zip(results).map(|(name, result)| answer(env, name, result)).collect(),
        Err(error) => names.into_iter().map(|name| answer(env, name, Err(error.clone()))).collect(),
    };
    let topics = first_of_each(topics, |topic: &CreatableTopicResult<'_>| topic.name.to_string());
    CreateTopicsResponse { topics, ..CreateTopicsResponse::default() }
}

fn new_topic(topic: &CreatableTopic<'_>) -> NewTopic {
    let nodes = |ids: &[i32]| ids.iter().map(|&id| NodeId(id)).collect();
    NewTopic {
        name: topic.name.to_string(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic.assignments.iter().map(|one| (one.partition_index, nodes(&one.broker_ids))).collect(),
        configs: topic
            .configs
            .iter()
            .map(|config| (config.name.to_string(), config.value.as_deref().map(str::to_owned)))
            .collect(),
    }
}

fn answer<E: Env>(env: &E, name: String, result: ApiResult<CreatedTopic>) -> CreatableTopicResult<'static> {
    match result {
        Ok(created) => {
            let described = describe_new_topic(&env.image(), env.config(), env.node_id(), &created.configs);
            CreatableTopicResult {
                name: name.into(),
                topic_id: created.topic_id,
                num_partitions: created.partitions,
                replication_factor: created.replication_factor,
                error_message: None,
                configs: Some(described.into_iter().map(config).collect()),
                ..CreatableTopicResult::default()
            }
        }
        Err(error) => {
            let (error_code, error_message) = wire(&error);
            CreatableTopicResult { name: name.into(), error_code, error_message, ..CreatableTopicResult::default() }
        }
    }
}

fn config(described: DescribedConfig) -> CreatableTopicConfigs<'static> {
    CreatableTopicConfigs {
        name: described.name.into(),
        value: described.value.map(Into::into),
        read_only: described.read_only,
        config_source: described.source.code(),
        is_sensitive: described.sensitive,
    }
}
