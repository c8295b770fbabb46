//! AlterPartitionReassignments: partitions move to other brokers, or stay where they were (KIP-455); one result for each partition asked.

use madang_cluster::controller::{ApiResult, NamedPartition, Outcome, Proposal, Reassignment};
use madang_protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignablePartitionResponse, ReassignableTopic, ReassignableTopicResponse,
};
use madang_protocol::types::NodeId;

use crate::apis::proposals::{ask_within, wire};
use crate::env::Env;

/// Answers one request.
pub async fn handle<E: Env>(
    env: &E,
    request: AlterPartitionReassignmentsRequest<'_>,
) -> AlterPartitionReassignmentsResponse<'static> {
    let allow_factor_change = request.allow_replication_factor_change;
    let proposal = Proposal::AlterReassignments { reassignments: reassignments(&request), allow_factor_change };
    let take = |outcome| match outcome {
        Outcome::Reassigned(results) => Some(results),
        _ => None,
    };
    let mut response = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: allow_factor_change,
        ..AlterPartitionReassignmentsResponse::default()
    };
    match ask_within(env, proposal, request.timeout_ms, take).await {
        Ok(results) => response.responses = answers(&request, results),
        Err(error) => {
            (response.error_code, response.error_message) = wire(&error);
            let asked = request.topics.iter().map(|topic| topic.partitions.len()).sum();
            response.responses = answers(&request, vec![Err(error); asked]);
        }
    }
    response
}

fn reassignments(request: &AlterPartitionReassignmentsRequest<'_>) -> Vec<Reassignment> {
    let of_topic = |topic: &ReassignableTopic<'_>| {
        let one = |asked: &ReassignablePartition| {
            let partition = NamedPartition { topic: topic.name.to_string(), partition: asked.partition_index };
            let replicas = asked.replicas.as_ref().map(|nodes| nodes.iter().copied().map(NodeId).collect());
            Reassignment { partition, replicas }
        };
        topic.partitions.iter().map(one).collect::<Vec<_>>()
    };
    request.topics.iter().flat_map(of_topic).collect()
}

fn answers(
    request: &AlterPartitionReassignmentsRequest<'_>,
    results: Vec<ApiResult<()>>,
) -> Vec<ReassignableTopicResponse<'static>> {
    let mut results = results.into_iter();
    let topics = request.topics.iter().map(|topic| ReassignableTopicResponse {
        name: topic.name.to_string().into(),
        partitions: topic
            .partitions
            .iter()
            .zip(&mut results)
            .map(|(asked, result)| {
                let (error_code, error_message) = match result {
                    Ok(()) => (0, None),
                    Err(error) => wire(&error),
                };
                ReassignablePartitionResponse { partition_index: asked.partition_index, error_code, error_message }
            })
            .collect(),
    });
    topics.collect()
}
