//! ListPartitionReassignments: which partitions are being moved, of those that are asked about.

use madang_cluster::metadata::{PartitionImage, TopicImage};
use madang_protocol::messages::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, OngoingPartitionReassignment,
    OngoingTopicReassignment,
};
use madang_protocol::types::NodeId;

use crate::env::Env;

/// Answers one request. What is not there, or not being moved, is left out.
pub fn handle<E: Env>(
    env: &E,
    request: &ListPartitionReassignmentsRequest<'_>,
) -> ListPartitionReassignmentsResponse<'static> {
    let image = env.image();
    let topics = match &request.topics {
        None => image.topics().filter_map(|topic| ongoing(topic, |_| true)).collect(),
        Some(topics) => topics
            .iter()
            .filter_map(|asked| ongoing(image.topic(&asked.name)?, |index| asked.partition_indexes.contains(&index)))
            .collect(),
    };
    ListPartitionReassignmentsResponse { topics, ..ListPartitionReassignmentsResponse::default() }
}

fn ongoing(topic: &TopicImage, asked: impl Fn(i32) -> bool) -> Option<OngoingTopicReassignment<'static>> {
    let moving = topic.partitions.iter().filter(|(index, state)| state.is_reassigning() && asked(**index));
    let partitions: Vec<_> = moving.map(|(index, state)| partition(*index, state)).collect();
    (!partitions.is_empty()).then(|| OngoingTopicReassignment { name: topic.name.to_string().into(), partitions })
}

fn partition(partition_index: i32, state: &PartitionImage) -> OngoingPartitionReassignment {
    let raw = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    OngoingPartitionReassignment {
        partition_index,
        replicas: raw(&state.assigned_replicas),
        adding_replicas: raw(&state.adding_replicas),
        removing_replicas: raw(&state.removing_replicas),
    }
}
