//! CreatePartitions: topics grow; one result for each topic asked.

use madang_cluster::controller::{ApiResult, MorePartitions, Outcome, Proposal};
use madang_protocol::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult,
};
use madang_protocol::types::NodeId;

use crate::apis::proposals::{ask_within, first_of_each};
use crate::env::Env;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: CreatePartitionsRequest<'_>) -> CreatePartitionsResponse<'static> {
    let names: Vec<String> = request.topics.iter().map(|topic| topic.name.to_string()).collect();
    let proposal = Proposal::CreatePartitions {
        topics: request.topics.iter().map(more).collect(),
        validate_only: request.validate_only,
    };
    let take = |outcome| match outcome {
        Outcome::CreatePartitions(results) => Some(results),
        _ => None,
    };
    let results = match ask_within(env, proposal, request.timeout_ms, take).await {
        Ok(results) => names.into_iter().zip(results).map(|(name, result)| answer(name, result)).collect(),
        Err(error) => names.into_iter().map(|name| answer(name, Err(error.clone()))).collect(),
    };
    let results = first_of_each(results, |result: &CreatePartitionsTopicResult<'_>| result.name.to_string());
    CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() }
}

fn more(topic: &CreatePartitionsTopic<'_>) -> MorePartitions {
    let nodes = |ids: &[i32]| ids.iter().map(|&id| NodeId(id)).collect();
    MorePartitions {
        name: topic.name.to_string(),
        count: topic.count,
        assignments: topic.assignments.as_ref().map(|all| all.iter().map(|one| nodes(&one.broker_ids)).collect()),
    }
}

fn answer(name: String, result: ApiResult<()>) -> CreatePartitionsTopicResult<'static> {
    let (error_code, error_message) = match result {
        Ok(()) => (0, None),
        // As in Kafka, a text only where it says more than the code.
        Err(error) => (error.error.code(), error.message.map(|text| text.to_string().into())),
    };
    CreatePartitionsTopicResult { name: name.into(), error_code, error_message }
}
