//! Partitions where clients want them, and more partitions of a topic.
//! Invariant: a partition's replicas are distinct; its first leader is its first replica that is not fenced.

use madang_protocol::ErrorCode;
use madang_protocol::types::{LeaderEpoch, NodeId, TopicId, Uuid};

use super::api::{ApiError, ApiResult, MAX_PARTITIONS_PER_REQUEST, MorePartitions};
use super::draft::{Draft, duplicate};
use super::elections::rules;
use super::placement::place;
use super::records::{MetadataRecord, PartitionRecord};
use super::topics::mentioned_twice;
use crate::metadata::{NO_LEADER, PartitionImage};

/// Checks replicas that the client chose and sorts them by partition.
pub(super) fn manual(draft: &Draft<'_>, assignments: Vec<(i32, Vec<NodeId>)>) -> ApiResult<Vec<Vec<NodeId>>> {
    let mut sorted = std::collections::BTreeMap::new();
    for (partition, replicas) in assignments {
        if sorted.insert(partition, replicas).is_some() {
            let message = format!("Found multiple manual partition assignments for partition {partition}");
            return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
        }
    }
    if !sorted.keys().copied().eq((0..).take(sorted.len())) {
        let message = "partitions should be a consecutive 0-based integer sequence";
        return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    let factor = sorted.get(&0).map_or(0, Vec::len);
    for (partition, replicas) in &sorted {
        check_assignment(draft, *partition, replicas, factor)?;
    }
    Ok(sorted.into_values().collect())
}

/// Whether a partition may be on these nodes, alive or not.
pub(super) fn check_replicas(draft: &Draft<'_>, replicas: &[NodeId]) -> ApiResult<()> {
    let refuse = |message: String| Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
    if replicas.is_empty() {
        return refuse("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let mut sorted = replicas.to_vec();
    sorted.sort_unstable();
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return refuse(format!("The manual partition assignment includes the broker {} more than once.", pair[0]));
    }
    if let Some(node) = sorted.iter().find(|node| draft.image.broker(**node).is_none()) {
        return refuse(format!(
            "The manual partition assignment includes broker {node}, but no such broker is registered."
        ));
    }
    Ok(())
}

fn check_assignment(draft: &Draft<'_>, partition: i32, replicas: &[NodeId], factor: usize) -> ApiResult<()> {
    let refuse = |message: String| Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
    check_replicas(draft, replicas)?;
    if replicas.len() != factor {
        return refuse(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with \
             previous partitions, which have {factor} replica(s).",
            replicas.len()
        ));
    }
    if !replicas.iter().any(|node| is_live(draft, *node)) {
        return refuse(format!(
            "All brokers specified in the manual partition assignment for partition {partition} are fenced or in controlled shutdown."
        ));
    }
    Ok(())
}

fn is_live(draft: &Draft<'_>, node: NodeId) -> bool {
    draft.image.broker(node).is_some_and(|broker| !broker.fenced)
}

/// Adds a new partition with these replicas, to a topic that is in the draft with its settings. Below the minimum nothing is committed, so that
/// whoever is not alive yet has all there is: such a partition outlives the loss of the few that are.
pub(super) fn push_partition(draft: &mut Draft<'_>, topic: (TopicId, &str), index: i32, replicas: Vec<NodeId>) {
    let (topic_id, name) = topic;
    let (in_sync_replicas, others): (Vec<NodeId>, Vec<NodeId>) =
        replicas.iter().copied().partition(|node| is_live(draft, *node));
    let is_short = || in_sync_replicas.len() < rules(draft, name).min_in_sync_replicas.min(replicas.len());
    let eligible_leader_replicas = if !others.is_empty() && is_short() { others } else { Vec::new() };
    let state = PartitionImage {
        leader: in_sync_replicas.first().copied().unwrap_or(NO_LEADER),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: 0,
        directories: vec![Uuid::ZERO; replicas.len()],
        eligible_leader_replicas,
        in_sync_replicas,
        assigned_replicas: replicas,
        last_known_leader: NO_LEADER,
        unclean_epoch: LeaderEpoch::NONE,
        losses: Vec::new(),
        adding_replicas: Vec::new(),
        removing_replicas: Vec::new(),
        former_replicas: Vec::new(),
    };
    draft.push(MetadataRecord::Partition(PartitionRecord::of(topic_id, index, &state)));
}

pub(super) fn create(draft: &mut Draft<'_>, topics: Vec<MorePartitions>) -> Vec<ApiResult<()>> {
    let twice = mentioned_twice(topics.iter().map(|topic| topic.name.as_str()));
    let mut budget = MAX_PARTITIONS_PER_REQUEST;
    let one = |topic: MorePartitions| {
        if twice.contains(&topic.name) {
            return Err(duplicate("Duplicate topic name."));
        }
        create_one(draft, topic, &mut budget)
    };
    topics.into_iter().map(one).collect()
}

fn create_one(draft: &mut Draft<'_>, more: MorePartitions, budget: &mut usize) -> ApiResult<()> {
    let topic = draft.image.topic(&more.name).cloned().ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let present = topic.partitions.len();
    let wanted = usize::try_from(more.count).unwrap_or(0);
    if wanted == present {
        let message = format!("Topic already has {present} partition(s).");
        return Err(ApiError::new(ErrorCode::InvalidPartitions, message));
    }
    if wanted < present {
        let message = format!(
            "The topic {} currently has {present} partition(s); {} would not be an increase.",
            more.name, more.count
        );
        return Err(ApiError::new(ErrorCode::InvalidPartitions, message));
    }
    let added = wanted - present;
    if added > *budget {
        return Err(ApiError::new(ErrorCode::PolicyViolation, "Excessively large number of partitions per request."));
    }
    let factor = topic.replication_factor();
    let assignments = match more.assignments {
        None => place(draft, added, factor)?,
        Some(assignments) => chosen(draft, assignments, added, present, factor)?,
    };
    *budget -= added;
    for (offset, replicas) in assignments.into_iter().enumerate() {
        push_partition(
            draft,
            (topic.topic_id, &topic.name),
            i32::try_from(present + offset).unwrap_or(i32::MAX),
            replicas,
        );
    }
    Ok(())
}

fn chosen(
    draft: &Draft<'_>,
    assignments: Vec<Vec<NodeId>>,
    added: usize,
    present: usize,
    factor: usize,
) -> ApiResult<Vec<Vec<NodeId>>> {
    if assignments.len() != added {
        let message = format!(
            "Attempted to add {added} additional partition(s), but only {} assignment(s) were specified.",
            assignments.len()
        );
        return Err(ApiError::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    for (offset, replicas) in assignments.iter().enumerate() {
        check_assignment(draft, i32::try_from(present + offset).unwrap_or(i32::MAX), replicas, factor)?;
    }
    Ok(assignments)
}
