//! Moving partitions between nodes (KIP-455): replicas are added, and when they are in sync others go.
//! Invariant: a replica goes only by a record that names it as one that has left, and only when what stays holds every acknowledged record
//! as often as `min.insync.replicas` wants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use madang_protocol::ErrorCode;
use madang_protocol::types::{NodeId, TopicPartition, Uuid};

use super::api::{ApiError, ApiResult, NamedPartition, Reassignment};
use super::draft::Draft;
use super::elections::{Event, push, rules};
use super::partitions::check_replicas;
use crate::metadata::{MetadataImage, PartitionImage};

/// Begins, changes or gives up reassignments, each on its own.
pub(super) fn alter(
    draft: &mut Draft<'_>,
    reassignments: Vec<Reassignment>,
    allow_factor_change: bool,
) -> Vec<ApiResult<()>> {
    let one = |Reassignment { partition, replicas }| {
        let (at, state) = find(&draft.image, &partition)?;
        match replicas {
            Some(target) => begin(draft, &partition, at, &state, &target, allow_factor_change),
            None => give_up(draft, &partition, at, &state),
        }
    };
    reassignments.into_iter().map(one).collect()
}

fn find(image: &MetadataImage, named: &NamedPartition) -> ApiResult<(TopicPartition, Arc<PartitionImage>)> {
    let unknown = |message: String| ApiError::new(ErrorCode::UnknownTopicOrPartition, message);
    let NamedPartition { topic, partition } = named;
    let found = image.topic(topic).ok_or_else(|| unknown(format!("Unable to find a topic named {topic}.")))?;
    let state = found.partitions.get(partition);
    let state = state.ok_or_else(|| unknown(format!("Unable to find partition {topic}:{partition}.")))?;
    Ok((TopicPartition { topic_id: found.topic_id, partition: *partition }, Arc::clone(state)))
}

/// The partition is to be on `target`. What an earlier reassignment was adding and is not wanted any more goes with the others.
fn begin(
    draft: &mut Draft<'_>,
    named: &NamedPartition,
    at: TopicPartition,
    state: &PartitionImage,
    target: &[NodeId],
    allow_factor_change: bool,
) -> ApiResult<()> {
    check_replicas(draft, target)?;
    let factor = state.assigned_replicas.len() - state.removing_replicas.len();
    if !allow_factor_change && target.len() != factor {
        let message = format!("The replication factor is changed from {factor} to {}", target.len());
        return Err(ApiError::new(ErrorCode::InvalidReplicationFactor, message));
    }
    let settled: BTreeSet<NodeId> = state.settled_replicas().collect();
    let goes = |node: &NodeId| !target.contains(node);
    let removing: Vec<NodeId> = state.assigned_replicas.iter().copied().filter(goes).collect();
    let adding: Vec<NodeId> = target.iter().copied().filter(|node| !settled.contains(node)).collect();
    let mut wanted = state.clone();
    let assigned: Vec<NodeId> = target.iter().chain(&removing).copied().collect();
    assign(&mut wanted, assigned);
    (wanted.adding_replicas, wanted.removing_replicas) = (adding, removing);
    if wanted == *state {
        return Ok(());
    }
    let event = Event { in_sync: state.in_sync_replicas.clone(), always: true, ..Event::default() };
    change(draft, &named.topic, at, &wanted, event)
}

/// The partition stays where it was: what was being added goes.
fn give_up(draft: &mut Draft<'_>, named: &NamedPartition, at: TopicPartition, state: &PartitionImage) -> ApiResult<()> {
    if !state.is_reassigning() {
        return Err(ErrorCode::NoReassignmentInProgress.into());
    }
    let stays = |node: &NodeId| !state.adding_replicas.contains(node);
    let in_sync: Vec<NodeId> = state.in_sync_replicas.iter().copied().filter(stays).collect();
    let leads_nobody = in_sync.is_empty() && !state.in_sync_replicas.is_empty();
    if leads_nobody && !rules(draft, &named.topic).unclean {
        let message = format!(
            "Unable to revert partition assignment for {}:{} because it would require an unclean leader election.",
            named.topic, named.partition
        );
        return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    let mut wanted = state.clone();
    assign(&mut wanted, state.settled_replicas().collect());
    wanted.adding_replicas.clear();
    wanted.removing_replicas.clear();
    let some_leave = !state.adding_replicas.is_empty();
    let event = Event { in_sync, always: true, ends_leadership: some_leave, ..Event::default() };
    change(draft, &named.topic, at, &wanted, event)
}

fn change(
    draft: &mut Draft<'_>,
    topic: &str,
    at: TopicPartition,
    wanted: &PartitionImage,
    event: Event<'_>,
) -> ApiResult<()> {
    let live = draft.live_nodes();
    let event = Event { live: &live, ..event };
    let next = event.settle(wanted, rules(draft, topic)).ok_or(ErrorCode::UnknownServerError)?;
    push(draft, at, &next);
    Ok(())
}

/// Ends a reassignment if it can: everybody who is added is in sync, and of those who stay as many as `min` wants. Answers whether anybody left
/// by it.
pub(super) fn complete(next: &mut PartitionImage, min: usize) -> bool {
    if !next.is_reassigning() {
        return false;
    }
    let stays = |node: &NodeId| !next.removing_replicas.contains(node);
    let in_sync: Vec<NodeId> = next.in_sync_replicas.iter().copied().filter(stays).collect();
    let target: Vec<NodeId> = next.assigned_replicas.iter().copied().filter(stays).collect();
    let arrived = next.adding_replicas.iter().all(|node| in_sync.contains(node));
    // Whoever leaves takes its copy along: records that only few others have would be one failure from being lost.
    if !arrived || in_sync.len() < min.min(target.len()).max(1) {
        return false;
    }
    let some_left = !next.removing_replicas.is_empty();
    next.in_sync_replicas = in_sync;
    assign(next, target);
    next.adding_replicas.clear();
    next.removing_replicas.clear();
    some_left
}

/// The partition is on `nodes` from now on: who is not among them has left, with all that was known of its replica.
fn assign(state: &mut PartitionImage, nodes: Vec<NodeId>) {
    let known: BTreeMap<NodeId, Uuid> =
        state.assigned_replicas.iter().copied().zip(state.directories.iter().copied()).collect();
    let left = state.assigned_replicas.iter().copied().filter(|node| !nodes.contains(node));
    state.former_replicas.extend(left.collect::<Vec<_>>());
    state.former_replicas.retain(|node| !nodes.contains(node));
    state.former_replicas.sort_unstable();
    state.directories = nodes.iter().map(|node| known.get(node).copied().unwrap_or(Uuid::ZERO)).collect();
    state.losses.retain(|loss| nodes.contains(&loss.node_id));
    state.eligible_leader_replicas.retain(|node| nodes.contains(node));
    state.assigned_replicas = nodes;
}

#[cfg(test)]
#[path = "reassignments_tests.rs"]
mod tests;
