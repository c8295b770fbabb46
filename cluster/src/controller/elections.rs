//! Who is in sync, who may lead and who leads: what a partition becomes when a broker comes, goes, loses records or proposes.
//! Invariant: while unclean elections are off, only a member of the in-sync set or an eligible leader replica is elected, and neither set holds
//! a replica that may have lost records since it was counted; every change raises the partition epoch by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use madang_protocol::ErrorCode;
use madang_protocol::types::{LeaderEpoch, NodeId, TopicId, TopicPartition};
use madang_storage::mutants::mutant;

use super::api::{AlterPartition, ApiError, ApiResult, NamedPartition, Outcome, ReportLoss};
use super::draft::Draft;
use super::reassignments::complete;
use super::records::{MetadataRecord, PartitionRecord};
use crate::configs::TopicConfig;
use crate::metadata::{NO_LEADER, PartitionImage, ReportedLoss};

/// The keys that decide here.
pub(super) const RULES: [&str; 2] = ["min.insync.replicas", "unclean.leader.election.enable"];

/// The settings of a topic that decide here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) min_in_sync_replicas: usize,
    pub(super) unclean: bool,
}

/// What happens to a partition.
#[derive(Debug, Default)]
pub(super) struct Event<'a> {
    /// The in-sync set from now on.
    pub(super) in_sync: Vec<NodeId>,
    /// A replica that may have lost records.
    pub(super) lost: Option<NodeId>,
    /// Every leadership of before is over, whoever leads next.
    pub(super) ends_leadership: bool,
    /// It is a change even if all stays as it is.
    pub(super) always: bool,
    /// A broker that registers anew: what its replicas said in the registration before counts no more.
    pub(super) registers: Option<NodeId>,
    /// Brokers that are not fenced.
    pub(super) live: &'a [NodeId],
}

pub(super) fn rules(draft: &Draft<'_>, topic: &str) -> Rules {
    let config = TopicConfig::resolve(&draft.image, draft.defaults, draft.defaults.node_id, topic);
    Rules { min_in_sync_replicas: config.min_insync_replicas as usize, unclean: config.unclean_leader_election }
}

impl Event<'_> {
    fn is_live(&self, node: NodeId) -> bool {
        self.live.contains(&node)
    }

    /// What the partition becomes; none if nothing changes. A reassignment ends here, as soon as what it adds is in sync.
    pub(super) fn settle(&self, before: &PartitionImage, rules: Rules) -> Option<PartitionImage> {
        let mut next = before.clone();
        next.losses.retain(|loss| Some(loss.node_id) != self.registers);
        next.in_sync_replicas.clone_from(&self.in_sync);
        // A leader that still counts on a replica that has left would wait for it for ever.
        let some_left = complete(&mut next, rules.min_in_sync_replicas);
        next.eligible_leader_replicas = self.eligible(before, &next, rules);
        if next.leader != NO_LEADER && !(self.is_live(next.leader) && next.in_sync_replicas.contains(&next.leader)) {
            next.last_known_leader = next.leader;
            next.leader = NO_LEADER;
        }
        if next.leader == NO_LEADER {
            self.elect(&mut next, rules);
        }
        let raise = (next.leader != before.leader || self.ends_leadership || some_left) && !mutant(32);
        if raise {
            next.leader_epoch = LeaderEpoch(before.leader_epoch.0 + 1);
        }
        if next == *before && !self.always {
            return None;
        }
        next.partition_epoch = before.partition_epoch + i32::from(!mutant(74));
        Some(next)
    }

    /// Who has every acknowledged record though not in sync: below the minimum the high watermark stands, so whoever was counted when it last
    /// moved still has all of it.
    fn eligible(&self, before: &PartitionImage, next: &PartitionImage, rules: Rules) -> Vec<NodeId> {
        if next.in_sync_replicas.len() >= rules.min_in_sync_replicas.min(next.replication_factor()) {
            return Vec::new();
        }
        let was =
            |node: &NodeId| before.in_sync_replicas.contains(node) || before.eligible_leader_replicas.contains(node);
        let stays = |node: &NodeId| {
            was(node) && !next.in_sync_replicas.contains(node) && (self.lost != Some(*node) || mutant(63))
        };
        next.assigned_replicas.iter().copied().filter(stays).collect()
    }

    fn elect(&self, next: &mut PartitionImage, rules: Rules) {
        let first_of = |nodes: &[NodeId]| {
            let may = |node: &NodeId| nodes.contains(node) && self.is_live(*node) && !next.is_given_up(*node);
            next.assigned_replicas.iter().copied().find(may)
        };
        if let Some(leader) = first_of(&next.in_sync_replicas) {
            next.leader = leader;
            return;
        }
        if let Some(leader) = first_of(&next.eligible_leader_replicas) {
            (next.leader, next.in_sync_replicas) = (leader, vec![leader]);
            next.eligible_leader_replicas.retain(|node| *node != leader);
            if rules.min_in_sync_replicas <= 1 {
                next.eligible_leader_replicas.clear();
            }
            return;
        }
        // A sole replica has all there is, whatever it has lost; its node logs the range. One that is only being added has nothing.
        let settled: Vec<NodeId> = next.settled_replicas().collect();
        let sole = (settled.len() == 1).then(|| first_of(&settled)).flatten();
        let last = first_of(&[next.last_known_leader]).or_else(|| first_of(&settled));
        let last = last.or_else(|| first_of(&next.assigned_replicas));
        if let Some(leader) = sole.or_else(|| last.filter(|_| rules.unclean)) {
            (next.leader, next.in_sync_replicas) = (leader, vec![leader]);
            next.eligible_leader_replicas.clear();
            next.unclean_epoch = LeaderEpoch(next.leader_epoch.0 + 1);
        }
    }
}

/// Changes every partition that `event` makes one of; it answers what happens to one.
fn change_all<'a>(
    draft: &Draft<'_>,
    live: &'a [NodeId],
    mut event: impl FnMut(TopicId, &PartitionImage) -> Option<Event<'a>>,
) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    for (topic_id, topic) in &draft.image.topics {
        let mut known = None;
        for (index, state) in &topic.partitions {
            let Some(event) = event(*topic_id, state) else { continue };
            let event = Event { live, ..event };
            let rules = *known.get_or_insert_with(|| rules(draft, &topic.name));
            if let Some(next) = event.settle(state, rules) {
                records.push(MetadataRecord::Partition(PartitionRecord::of(*topic_id, *index, &next)));
            }
        }
    }
    records
}

fn without(nodes: &[NodeId], gone: NodeId) -> Vec<NodeId> {
    nodes.iter().copied().filter(|node| *node != gone).collect()
}

/// The broker registers anew, its old registration already fenced in the draft: what it led is over, what it held counts only as far as
/// `is_lossy` allows. It leads again only once it is unfenced. The records are to follow the registration.
pub(super) fn restarted(
    draft: &Draft<'_>,
    node: NodeId,
    is_lossy: impl Fn(&PartitionImage) -> bool,
) -> Vec<MetadataRecord> {
    let live = draft.live_nodes();
    change_all(draft, &live, |_, state| {
        state.assigned_replicas.contains(&node).then(|| Event {
            in_sync: if mutant(71) { state.in_sync_replicas.clone() } else { without(&state.in_sync_replicas, node) },
            lost: is_lossy(state).then_some(node),
            registers: Some(node),
            ..Event::default()
        })
    })
}

/// The broker is fenced, in the draft already.
pub(super) fn fenced(draft: &Draft<'_>, node: NodeId) -> Vec<MetadataRecord> {
    let live = draft.live_nodes();
    change_all(draft, &live, |_, state| {
        let counts = state.leader == node || state.in_sync_replicas.contains(&node);
        counts.then(|| Event { in_sync: without(&state.in_sync_replicas, node), ..Event::default() })
    })
}

/// The broker is no longer fenced, in the draft already: it may lead what nobody leads.
pub(super) fn unfenced(draft: &Draft<'_>, node: NodeId) -> Vec<MetadataRecord> {
    let live = draft.live_nodes();
    change_all(draft, &live, |_, state| {
        let leaderless = state.leader == NO_LEADER && state.assigned_replicas.contains(&node);
        leaderless.then(|| Event { in_sync: state.in_sync_replicas.clone(), ..Event::default() })
    })
}

/// One of [`RULES`] has changed, in the draft already. Where enough are in sync by the new minimum, the high watermark moves without those who
/// were eligible; where nobody leads, somebody may by the new rule.
pub(super) fn rules_changed(draft: &Draft<'_>) -> Vec<MetadataRecord> {
    let live = draft.live_nodes();
    change_all(draft, &live, |_, state| {
        let some = !state.eligible_leader_replicas.is_empty() || state.leader == NO_LEADER;
        some.then(|| Event { in_sync: state.in_sync_replicas.clone(), ..Event::default() })
    })
}

fn find(draft: &Draft<'_>, partition: TopicPartition) -> ApiResult<(Arc<str>, Arc<PartitionImage>)> {
    let topic = draft.image.topic_by_id(partition.topic_id).ok_or(ErrorCode::UnknownTopicId)?;
    let state = topic.partitions.get(&partition.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok((Arc::clone(&topic.name), Arc::clone(state)))
}

fn check_broker(draft: &Draft<'_>, node: NodeId, broker_epoch: i64) -> ApiResult<()> {
    match draft.image.broker(node) {
        Some(broker) if broker.broker_epoch == broker_epoch => Ok(()),
        Some(_) => Err(ErrorCode::StaleBrokerEpoch.into()),
        None => Err(ErrorCode::BrokerIdNotRegistered.into()),
    }
}

/// A leader's proposal of another in-sync set; answers the epoch of the partition's state that has it.
pub(super) fn alter_partition(draft: &mut Draft<'_>, asked: &AlterPartition) -> ApiResult<i32> {
    check_broker(draft, asked.node_id, asked.broker_epoch)?;
    let (topic, state) = find(draft, asked.partition)?;
    check_proposal(draft, asked, &state)?;
    let live = draft.live_nodes();
    let in_sync = asked.in_sync_replicas.iter().map(|member| member.node_id).collect();
    let event = Event { in_sync, always: true, live: &live, ..Event::default() };
    let next = event.settle(&state, rules(draft, &topic)).ok_or(ErrorCode::UnknownServerError)?;
    let partition_epoch = next.partition_epoch;
    push(draft, asked.partition, &next);
    Ok(partition_epoch)
}

fn check_proposal(draft: &Draft<'_>, asked: &AlterPartition, state: &PartitionImage) -> ApiResult<()> {
    if asked.leader_epoch > state.leader_epoch || asked.partition_epoch > state.partition_epoch {
        // Somebody has seen what this controller has not: it is one no more.
        return Err(ErrorCode::NotController.into());
    }
    if asked.leader_epoch < state.leader_epoch {
        return Err(ErrorCode::FencedLeaderEpoch.into());
    }
    if asked.node_id != state.leader {
        return Err(ApiError::new(ErrorCode::InvalidRequest, "only the leader proposes"));
    }
    if asked.partition_epoch < state.partition_epoch {
        return Err(ErrorCode::InvalidUpdateVersion.into());
    }
    let mut members = BTreeMap::new();
    for member in &asked.in_sync_replicas {
        let assigned = state.assigned_replicas.contains(&member.node_id);
        if !assigned || members.insert(member.node_id, member).is_some() {
            return Err(ApiError::new(ErrorCode::InvalidRequest, "members are assigned, and named once"));
        }
    }
    if !members.contains_key(&state.leader) {
        return Err(ApiError::new(ErrorCode::InvalidRequest, "the leader is in sync"));
    }
    for member in members.values() {
        // A member that stays was judged when it joined: had anything happened to it since, the partition epoch would have moved.
        let stays = state.in_sync_replicas.contains(&member.node_id);
        let registered = draft.image.broker(member.node_id).filter(|broker| !broker.fenced);
        let current = registered.is_some_and(|broker| stays || mutant(6) || broker.broker_epoch == member.broker_epoch);
        let lost = |loss: &ReportedLoss| {
            loss.node_id == member.node_id
                && loss.broker_epoch == member.broker_epoch
                && member.incarnation < loss.incarnation
        };
        if !current || (state.losses.iter().any(lost) && !mutant(3)) {
            return Err(ErrorCode::IneligibleReplica.into());
        }
    }
    Ok(())
}

/// A replica has found less than it had published: one record takes it out of both sets and elects another, in a new epoch, so that nothing
/// that its last life said counts any more.
pub(super) fn report_loss(draft: &mut Draft<'_>, report: &ReportLoss) -> ApiResult<Outcome> {
    check_broker(draft, report.node_id, report.broker_epoch)?;
    lose(draft, report)?;
    Ok(Outcome::LossReported)
}

/// As if each replica had lost its records before the life that it names.
pub(super) fn give_up(
    draft: &mut Draft<'_>,
    node_id: NodeId,
    broker_epoch: i64,
    partitions: &[(TopicPartition, u64)],
) -> ApiResult<Outcome> {
    check_broker(draft, node_id, broker_epoch)?;
    for &(partition, incarnation) in partitions {
        // One that is not, or no longer, its own is nothing to give up.
        drop(lose(draft, &ReportLoss { partition, node_id, broker_epoch, incarnation }));
    }
    Ok(Outcome::ReplicasGivenUp)
}

fn lose(draft: &mut Draft<'_>, report: &ReportLoss) -> ApiResult<()> {
    let (topic, state) = find(draft, report.partition)?;
    if !state.assigned_replicas.contains(&report.node_id) {
        return Err(ErrorCode::ReplicaNotAvailable.into());
    }
    let loss =
        ReportedLoss { node_id: report.node_id, broker_epoch: report.broker_epoch, incarnation: report.incarnation };
    let known = |known: &ReportedLoss| {
        (known.node_id, known.broker_epoch) == (loss.node_id, loss.broker_epoch)
            && known.incarnation >= loss.incarnation
    };
    if state.losses.iter().any(known) {
        return Ok(());
    }
    let current = |known: &ReportedLoss| {
        known.node_id != loss.node_id
            && draft.image.broker(known.node_id).is_some_and(|broker| broker.broker_epoch == known.broker_epoch)
    };
    let mut state = (*state).clone();
    // The election knows of it.
    state.losses.retain(current);
    state.losses.push(loss);
    let live = draft.live_nodes();
    let event = Event {
        in_sync: without(&state.in_sync_replicas, report.node_id),
        lost: Some(report.node_id),
        ends_leadership: true,
        always: true,
        registers: None,
        live: &live,
    };
    let next = event.settle(&state, rules(draft, &topic)).ok_or(ErrorCode::UnknownServerError)?;
    push(draft, report.partition, &next);
    Ok(())
}

/// Makes the first assigned replica lead, where it is in sync.
pub(super) fn elect_preferred(draft: &mut Draft<'_>, partitions: &[TopicPartition]) -> Vec<ApiResult<()>> {
    partitions.iter().map(|partition| prefer(draft, *partition)).collect()
}

fn prefer(draft: &mut Draft<'_>, partition: TopicPartition) -> ApiResult<()> {
    let (_, state) = find(draft, partition)?;
    let preferred = state.assigned_replicas.first().copied().unwrap_or(NO_LEADER);
    if state.leader == preferred {
        return Err(ErrorCode::ElectionNotNeeded.into());
    }
    let live = draft.image.broker(preferred).is_some_and(|broker| !broker.fenced);
    if !live || !state.in_sync_replicas.contains(&preferred) {
        return Err(ErrorCode::PreferredLeaderNotAvailable.into());
    }
    let mut next = (*state).clone();
    next.leader = preferred;
    next.leader_epoch = LeaderEpoch(next.leader_epoch.0 + 1);
    next.partition_epoch += 1;
    push(draft, partition, &next);
    Ok(())
}

/// Has these partitions led by their first replica, or, `unclean`, by any that is alive where nobody else may lead. All partitions if none is named.
pub(super) fn elect(
    draft: &mut Draft<'_>,
    unclean: bool,
    partitions: Option<Vec<NamedPartition>>,
) -> Vec<(NamedPartition, ApiResult<()>)> {
    let named = partitions.is_some();
    let asked = partitions.unwrap_or_else(|| every_partition(draft));
    let elected = asked.into_iter().map(|one| {
        let result = named_partition(draft, &one)
            .and_then(|partition| if unclean { elect_any(draft, partition) } else { prefer(draft, partition) });
        (one, result)
    });
    let needed = |(_, result): &(_, ApiResult<()>)| {
        named || !matches!(result, Err(ApiError { error: ErrorCode::ElectionNotNeeded, .. }))
    };
    elected.filter(needed).collect()
}

fn every_partition(draft: &Draft<'_>) -> Vec<NamedPartition> {
    let of_topic = |topic: &Arc<crate::metadata::TopicImage>| {
        let name = topic.name.to_string();
        let named = topic.partitions.keys().map(move |partition| (name.clone(), *partition));
        named.map(|(topic, partition)| NamedPartition { topic, partition }).collect::<Vec<_>>()
    };
    draft.image.topics().flat_map(of_topic).collect()
}

fn named_partition(draft: &Draft<'_>, named: &NamedPartition) -> ApiResult<TopicPartition> {
    let unknown = |message: String| ApiError::new(ErrorCode::UnknownTopicOrPartition, message);
    let NamedPartition { topic, partition } = named;
    let found = draft.image.topic(topic).ok_or_else(|| unknown(format!("No such topic as {topic}")))?;
    if !found.partitions.contains_key(partition) {
        return Err(unknown(format!("No such partition as {topic}-{partition}")));
    }
    Ok(TopicPartition { topic_id: found.topic_id, partition: *partition })
}

/// An operator's word that some loss is better than no leader.
fn elect_any(draft: &mut Draft<'_>, partition: TopicPartition) -> ApiResult<()> {
    let (topic, state) = find(draft, partition)?;
    if state.leader != NO_LEADER {
        return Err(ErrorCode::ElectionNotNeeded.into());
    }
    let live = draft.live_nodes();
    let event = Event { in_sync: state.in_sync_replicas.clone(), live: &live, ..Event::default() };
    let next = event.settle(&state, Rules { unclean: true, ..rules(draft, &topic) });
    match next.filter(|next| next.leader != NO_LEADER) {
        Some(next) => {
            push(draft, partition, &next);
            Ok(())
        }
        None => Err(ErrorCode::EligibleLeadersNotAvailable.into()),
    }
}

pub(super) fn push(draft: &mut Draft<'_>, partition: TopicPartition, next: &PartitionImage) {
    let record = PartitionRecord::of(partition.topic_id, partition.partition, next);
    draft.push(MetadataRecord::Partition(record));
}

#[cfg(test)]
#[path = "elections_tests.rs"]
mod tests;
