//! ElectLeaders: has partitions led by their preferred leader, or by any replica where nobody else may lead.

use std::collections::BTreeMap;

use madang_cluster::controller::{ApiError, NamedPartition, Outcome, Proposal};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};

use crate::apis::proposals::{ask_within, wire};
use crate::env::Env;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: ElectLeadersRequest<'_>) -> ElectLeadersResponse<'static> {
    let asked = named(&request);
    if !(PREFERRED..=UNCLEAN).contains(&request.election_type) {
        let message = format!("Unknown election type {}", request.election_type);
        return refused(asked.unwrap_or_default(), &ApiError::new(ErrorCode::InvalidRequest, message));
    }
    let proposal = Proposal::ElectLeaders { unclean: request.election_type == UNCLEAN, partitions: asked.clone() };
    let take = |outcome| match outcome {
        Outcome::ElectedLeaders(results) => Some(results),
        _ => None,
    };
    match ask_within(env, proposal, request.timeout_ms, take).await {
        Ok(results) => {
            let results = results.into_iter().map(|(partition, result)| match result {
                Ok(()) => (partition, (0, None)),
                Err(error) => (partition, wire(&error)),
            });
            ElectLeadersResponse { replica_election_results: by_topic(results), ..ElectLeadersResponse::default() }
        }
        Err(error) => refused(asked.unwrap_or_default(), &error),
    }
}

fn named(request: &ElectLeadersRequest<'_>) -> Option<Vec<NamedPartition>> {
    let topics = request.topic_partitions.as_ref()?;
    let named = topics.iter().flat_map(|topic| {
        let name = topic.topic.to_string();
        topic.partitions.iter().map(move |partition| NamedPartition { topic: name.clone(), partition: *partition })
    });
    Some(named.collect())
}

/// The request failed as a whole: it is said at the top, and of each partition for versions that have no room there.
fn refused(asked: Vec<NamedPartition>, error: &ApiError) -> ElectLeadersResponse<'static> {
    let results = asked.into_iter().map(|partition| (partition, wire(error)));
    ElectLeadersResponse {
        error_code: error.error.code(),
        replica_election_results: by_topic(results),
        ..ElectLeadersResponse::default()
    }
}

type Result = (NamedPartition, (i16, Option<std::borrow::Cow<'static, str>>));

fn by_topic(results: impl Iterator<Item = Result>) -> Vec<ReplicaElectionResult<'static>> {
    let mut topics: BTreeMap<String, Vec<PartitionResult<'static>>> = BTreeMap::new();
    for (partition, (error_code, error_message)) in results {
        let result = PartitionResult { partition_id: partition.partition, error_code, error_message };
        topics.entry(partition.topic).or_default().push(result);
    }
    let of_topic =
        |(topic, partition_result): (String, _)| ReplicaElectionResult { topic: topic.into(), partition_result };
    topics.into_iter().map(of_topic).collect()
}
