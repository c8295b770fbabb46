//! Who is in sync, who may lead and who leads: what a partition becomes when a broker comes, goes, loses records or proposes.
//! Invariant: while unclean elections are off, only a member of the in-sync set or an eligible leader replica is elected, and neither set holds
//! a replica that may have lost records since it was counted; every change raises the partition epoch by one.

use std::collections::BTreeMap;
use std::sync::Arc;

use madang_protocol::ErrorCode;
use madang_protocol::types::{LeaderEpoch, NodeId, TopicId, TopicPartition};
use madang_storage::mutants::mutant;

use super::api::{AlterPartition, ApiError, ApiResult, Outcome, ReportLoss};
use super::draft::Draft;
use super::records::{MetadataRecord, PartitionRecord};
use crate::configs::TopicConfig;
use crate::metadata::{NO_LEADER, PartitionImage, ReportedLoss};

/// The settings of a topic that decide here.
#[derive(Clone, Copy, Debug)]
struct Rules {
    min_in_sync_replicas: usize,
    unclean: bool,
}

/// What happens to a partition.
#[derive(Debug, Default)]
struct Event<'a> {
    /// The in-sync set from now on.
    in_sync: Vec<NodeId>,
    /// A replica that may have lost records.
    lost: Option<NodeId>,
    /// A node that counts as alive, registered or not.
    coming: Option<NodeId>,
    /// Every leadership of before is over, whoever leads next.
    ends_leadership: bool,
    /// It is a change even if all stays as it is.
    always: bool,
    /// Brokers that are not fenced.
    live: &'a [NodeId],
}

fn rules(draft: &Draft<'_>, topic: &str) -> Rules {
    let config = TopicConfig::resolve(&draft.image, draft.defaults, draft.defaults.node_id, topic);
    Rules { min_in_sync_replicas: config.min_insync_replicas as usize, unclean: config.unclean_leader_election }
}

impl Event<'_> {
    fn is_live(&self, node: NodeId) -> bool {
        self.coming == Some(node) || self.live.contains(&node)
    }

    /// What the partition becomes; none if nothing changes.
    fn settle(&self, before: &PartitionImage, rules: Rules) -> Option<PartitionImage> {
        let mut next = before.clone();
        next.in_sync_replicas.clone_from(&self.in_sync);
        next.eligible_leader_replicas = self.eligible(before, rules);
        if next.leader != NO_LEADER && !(self.is_live(next.leader) && self.in_sync.contains(&next.leader)) {
            next.last_known_leader = next.leader;
            next.leader = NO_LEADER;
        }
        if next.leader == NO_LEADER {
            self.elect(&mut next, rules);
        }
        let raise = next.leader != before.leader || self.ends_leadership;
        if raise {
            next.leader_epoch = LeaderEpoch(before.leader_epoch.0 + 1);
        }
        if next == *before && !self.always {
            return None;
        }
        next.partition_epoch = before.partition_epoch + 1;
        Some(next)
    }

    /// Who has every acknowledged record though not in sync: below the minimum the high watermark stands, so whoever was counted when it last
    /// moved still has all of it.
    fn eligible(&self, before: &PartitionImage, rules: Rules) -> Vec<NodeId> {
        if self.in_sync.len() >= rules.min_in_sync_replicas.min(before.assigned_replicas.len()) {
            return Vec::new();
        }
        let was =
            |node: &NodeId| before.in_sync_replicas.contains(node) || before.eligible_leader_replicas.contains(node);
        let stays = |node: &NodeId| was(node) && !self.in_sync.contains(node) && self.lost != Some(*node);
        before.assigned_replicas.iter().copied().filter(stays).collect()
    }

    fn elect(&self, next: &mut PartitionImage, rules: Rules) {
        let first_of = |nodes: &[NodeId]| {
            next.assigned_replicas.iter().copied().find(|node| nodes.contains(node) && self.is_live(*node))
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
        // A sole replica has all there is, whatever it has lost; its node logs the range.
        let sole = (next.assigned_replicas.len() == 1).then(|| first_of(&next.assigned_replicas)).flatten();
        let last = first_of(&[next.last_known_leader]).or_else(|| first_of(&next.assigned_replicas));
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
/// `is_lossy` allows. The records are to follow the registration.
pub(super) fn restarted(
    draft: &Draft<'_>,
    node: NodeId,
    is_lossy: impl Fn(&PartitionImage) -> bool,
) -> Vec<MetadataRecord> {
    let live = draft.live_nodes();
    change_all(draft, &live, |_, state| {
        state.assigned_replicas.contains(&node).then(|| Event {
            in_sync: without(&state.in_sync_replicas, node),
            lost: is_lossy(state).then_some(node),
            coming: Some(node),
            ends_leadership: state.leader == node && !mutant(32),
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

/// `min.insync.replicas` has changed, in the draft already. Where enough are in sync by the new one, the high watermark moves without those who
/// were eligible.
pub(super) fn minimum_changed(draft: &Draft<'_>) -> Vec<MetadataRecord> {
    let live = draft.live_nodes();
    change_all(draft, &live, |_, state| {
        let some = !state.eligible_leader_replicas.is_empty();
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

/// A leader's proposal of another in-sync set.
pub(super) fn alter_partition(draft: &mut Draft<'_>, asked: &AlterPartition) -> ApiResult<Outcome> {
    check_broker(draft, asked.node_id, asked.broker_epoch)?;
    let (topic, state) = find(draft, asked.partition)?;
    check_proposal(draft, asked, &state)?;
    let live = draft.live_nodes();
    let in_sync = asked.in_sync_replicas.iter().map(|member| member.node_id).collect();
    let event = Event { in_sync, always: true, live: &live, ..Event::default() };
    let next = event.settle(&state, rules(draft, &topic)).ok_or(ErrorCode::UnknownServerError)?;
    let partition_epoch = next.partition_epoch;
    push(draft, asked.partition, &next);
    Ok(Outcome::AlterPartition { partition_epoch })
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
        return Ok(Outcome::LossReported);
    }
    let live = draft.live_nodes();
    let event = Event {
        in_sync: without(&state.in_sync_replicas, report.node_id),
        lost: Some(report.node_id),
        ends_leadership: true,
        always: true,
        live: &live,
        ..Event::default()
    };
    let mut next = event.settle(&state, rules(draft, &topic)).ok_or(ErrorCode::UnknownServerError)?;
    let current = |known: &ReportedLoss| {
        known.node_id != loss.node_id
            && draft.image.broker(known.node_id).is_some_and(|broker| broker.broker_epoch == known.broker_epoch)
    };
    next.losses.retain(current);
    next.losses.push(loss);
    push(draft, report.partition, &next);
    Ok(Outcome::LossReported)
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

fn push(draft: &mut Draft<'_>, partition: TopicPartition, next: &PartitionImage) {
    let record = PartitionRecord::of(partition.topic_id, partition.partition, next);
    draft.push(MetadataRecord::Partition(record));
}

#[cfg(test)]
mod tests {
    use madang_actors::prng::Prng;
    use madang_protocol::types::Uuid;
    use madang_storage::RestartKind;

    use super::super::{AlterOp, ConfigAlteration, Decision, LogDirStart, NewTopic, Proposal, RegisterBroker, decide};
    use super::*;
    use crate::configs::BrokerConfig;
    use crate::controller::ResourceAlteration;
    use crate::metadata::MetadataImage;
    use crate::replica::replication::IsrMember;

    /// Three brokers and one partition on all of them, led by node 1, two of them to be in sync.
    struct World {
        image: MetadataImage,
        rng: Prng,
    }

    fn directory(node: i32) -> Uuid {
        Uuid([u8::try_from(node).expect("a small node"); 16])
    }

    impl World {
        fn new() -> Self {
            let mut world = Self { image: MetadataImage::default(), rng: Prng::new(1) };
            for node in 1..=3 {
                world.register(node, RestartKind::Lossy, -1);
            }
            let topic = NewTopic {
                name: "a".into(),
                partitions: -1,
                replication_factor: -1,
                assignments: vec![(0, vec![NodeId(1), NodeId(2), NodeId(3)])],
                configs: vec![("min.insync.replicas".into(), Some("2".into()))],
            };
            world.ask(Proposal::CreateTopics { topics: vec![topic], validate_only: false }).expect("created");
            world
        }

        fn ask(&mut self, proposal: Proposal) -> ApiResult<Outcome> {
            let Decision { image, result, .. } = decide(&self.image, &BrokerConfig::default(), &mut self.rng, proposal);
            image.check();
            self.image = image;
            result
        }

        fn register(&mut self, node: i32, kind: RestartKind, broker_epoch: i64) -> i64 {
            let result = self.ask(Proposal::RegisterBroker(RegisterBroker {
                node_id: NodeId(node),
                incarnation_id: Uuid([9; 16]),
                endpoints: Vec::new(),
                rack: None,
                log_dirs: vec![directory(node)],
                starts: vec![LogDirStart { directory: directory(node), kind, broker_epoch }],
            }));
            match result {
                Ok(Outcome::Registered(epoch)) => epoch,
                other => panic!("{other:?}"),
            }
        }

        fn broker_epoch(&self, node: i32) -> i64 {
            self.image.broker(NodeId(node)).expect("registered").broker_epoch
        }

        fn restart(&mut self, node: i32, kind: RestartKind) {
            self.register(node, kind, self.broker_epoch(node));
        }

        fn fence(&mut self, node: i32) {
            let broker_epoch = self.broker_epoch(node);
            self.ask(Proposal::FenceBroker { node_id: NodeId(node), broker_epoch }).expect("fenced");
        }

        fn unfence(&mut self, node: i32) {
            let broker_epoch = self.broker_epoch(node);
            self.ask(Proposal::UnfenceBroker { node_id: NodeId(node), broker_epoch }).expect("unfenced");
        }

        fn partition(&self) -> Arc<PartitionImage> {
            Arc::clone(self.image.partition("a", 0).expect("there"))
        }

        /// Leader, in-sync set, eligible leader replicas, leader epoch.
        fn state(&self) -> (i32, Vec<i32>, Vec<i32>, i32) {
            let partition = self.partition();
            let raw = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
            let (in_sync, eligible) = (raw(&partition.in_sync_replicas), raw(&partition.eligible_leader_replicas));
            (partition.leader.0, in_sync, eligible, partition.leader_epoch.0)
        }

        fn at(&self) -> TopicPartition {
            TopicPartition { topic_id: self.image.topic_id("a").expect("there"), partition: 0 }
        }

        /// What the leader would propose of the partition as it is now.
        fn proposal(&self, members: &[i32]) -> AlterPartition {
            let state = self.partition();
            let member = |node: &i32| IsrMember {
                node_id: NodeId(*node),
                broker_epoch: self.broker_epoch(*node),
                incarnation: 1,
            };
            AlterPartition {
                partition: self.at(),
                node_id: state.leader,
                broker_epoch: self.broker_epoch(state.leader.0),
                leader_epoch: state.leader_epoch,
                partition_epoch: state.partition_epoch,
                in_sync_replicas: members.iter().map(member).collect(),
            }
        }

        fn alter(&mut self, members: &[i32]) -> ApiResult<Outcome> {
            let proposal = self.proposal(members);
            self.ask(Proposal::AlterPartition(proposal))
        }

        fn report_loss(&mut self, node: i32, incarnation: u64) {
            let (partition, broker_epoch) = (self.at(), self.broker_epoch(node));
            let report = ReportLoss { partition, node_id: NodeId(node), broker_epoch, incarnation };
            assert_eq!(self.ask(Proposal::ReportLoss(report)), Ok(Outcome::LossReported));
        }
    }

    #[test]
    fn a_member_that_leaves_below_the_minimum_may_still_lead_and_one_that_leaves_above_it_may_not() {
        let mut world = World::new();
        assert_eq!(world.state(), (1, vec![1, 2, 3], vec![], 0));
        world.alter(&[1, 2]).expect("committed");
        assert_eq!(world.state(), (1, vec![1, 2], vec![], 0));
        world.alter(&[1]).expect("committed");
        assert_eq!(world.state(), (1, vec![1], vec![2], 0));
        world.fence(1);
        assert_eq!(world.state(), (2, vec![2], vec![1], 1), "elected from those who are eligible");
        world.unfence(1);
        world.alter(&[2, 1]).expect("committed");
        assert_eq!(world.state(), (2, vec![2, 1], vec![], 1));
    }

    #[test]
    fn nobody_who_may_lack_records_is_elected_unless_the_topic_allows_it() {
        let mut world = World::new();
        world.alter(&[1]).expect("committed");
        world.alter(&[1, 2]).expect("committed");
        world.alter(&[1]).expect("committed");
        world.fence(2);
        world.fence(1);
        assert_eq!(world.state(), (-1, vec![], vec![1, 2], 1), "3 is alive, and counted on by nobody");
        assert_eq!(world.partition().last_known_leader, NodeId(1));
        world.unfence(2);
        assert_eq!(world.state(), (2, vec![2], vec![1], 2));
        world.fence(2);
        let set = ConfigAlteration {
            key: "unclean.leader.election.enable".into(),
            op: AlterOp::Set,
            value: Some("true".into()),
        };
        let resources = vec![ResourceAlteration { resource_type: 2, name: "a".into(), alterations: vec![set] }];
        world.ask(Proposal::IncrementalAlterConfigs { resources, validate_only: false }).expect("set");
        world.fence(3);
        world.unfence(3);
        assert_eq!((world.state(), world.partition().unclean_epoch.0), ((3, vec![3], vec![], 4), 4));
    }

    #[test]
    fn a_restart_ends_every_leadership_and_only_a_lossy_one_costs_the_right_to_lead() {
        for kind in [RestartKind::Clean, RestartKind::Durable, RestartKind::SameBoot] {
            let mut world = World::new();
            world.alter(&[1]).expect("committed");
            world.fence(2);
            world.fence(3);
            world.restart(1, kind);
            assert_eq!(world.state(), (1, vec![1], vec![2, 3], 1), "{kind:?}: it leads again, in a new epoch");
        }
        let mut world = World::new();
        world.alter(&[1]).expect("committed");
        world.restart(1, RestartKind::Lossy);
        assert_eq!(world.state(), (2, vec![2], vec![3], 1));
        world.restart(2, RestartKind::Durable);
        assert_eq!(world.state(), (2, vec![2], vec![3], 2), "1 is not among them");
    }

    #[test]
    fn a_restarted_follower_is_not_in_sync_until_its_leader_says_so() {
        let mut world = World::new();
        let stale = world.proposal(&[1, 2, 3]);
        world.restart(3, RestartKind::Clean);
        assert_eq!(world.state(), (1, vec![1, 2], vec![], 0));
        let with_old_epoch = AlterPartition { partition_epoch: world.partition().partition_epoch, ..stale };
        let refused = world.ask(Proposal::AlterPartition(with_old_epoch));
        assert_eq!(refused, Err(ErrorCode::IneligibleReplica.into()), "found in sync under its old registration");
        world.alter(&[1, 2, 3]).expect("committed");
    }

    #[test]
    fn a_directory_that_is_not_the_last_that_served_or_has_a_new_id_is_lossy_whatever_it_says() {
        let mut world = World::new();
        let before = world.broker_epoch(1);
        world.restart(1, RestartKind::Clean);
        world.alter(&[2]).expect("committed");
        world.register(1, RestartKind::Clean, before);
        assert_eq!(world.state().2, vec![3], "an older copy of the directory");
        let mut world = World::new();
        world.alter(&[1]).expect("committed");
        let broker_epoch = world.broker_epoch(2);
        let start = LogDirStart { directory: directory(7), kind: RestartKind::Clean, broker_epoch };
        let broker = RegisterBroker {
            node_id: NodeId(2),
            incarnation_id: Uuid([9; 16]),
            endpoints: Vec::new(),
            rack: None,
            log_dirs: vec![directory(7)],
            starts: vec![start],
        };
        world.ask(Proposal::RegisterBroker(broker)).expect("registered");
        assert_eq!(world.state().2, vec![3], "another directory");
    }

    #[test]
    fn a_proposal_of_another_state_leader_or_registration_is_refused() {
        let mut world = World::new();
        let good = world.proposal(&[1, 2]);
        let node_two = world.broker_epoch(2);
        let cases = [
            (AlterPartition { broker_epoch: 99, ..good.clone() }, ErrorCode::StaleBrokerEpoch),
            (AlterPartition { node_id: NodeId(2), broker_epoch: node_two, ..good.clone() }, ErrorCode::InvalidRequest),
            (AlterPartition { leader_epoch: LeaderEpoch(-1), ..good.clone() }, ErrorCode::FencedLeaderEpoch),
            (AlterPartition { leader_epoch: LeaderEpoch(1), ..good.clone() }, ErrorCode::NotController),
            (AlterPartition { partition_epoch: 1, ..good.clone() }, ErrorCode::NotController),
            (AlterPartition { partition_epoch: -1, ..good.clone() }, ErrorCode::InvalidUpdateVersion),
        ];
        for (asked, error) in cases {
            let result = world.ask(Proposal::AlterPartition(asked.clone()));
            assert_eq!(result.map_err(|refused| refused.error), Err(error), "{asked:?}");
        }
        for members in [&[2, 3][..], &[1, 1], &[]] {
            let result = world.alter(members).map_err(|refused| refused.error);
            assert_eq!(result, Err(ErrorCode::InvalidRequest), "{members:?}");
        }
        world.fence(3);
        assert_eq!(world.alter(&[1, 2, 3]), Err(ErrorCode::IneligibleReplica.into()), "3 is fenced");
        let same = world.alter(&[1, 2]);
        assert_eq!(same, Ok(Outcome::AlterPartition { partition_epoch: 2 }), "even no change raises the epoch");
    }

    #[test]
    fn a_reported_loss_takes_the_replica_out_and_ends_the_leadership_in_one_record() {
        let mut world = World::new();
        world.alter(&[1]).expect("committed");
        world.report_loss(1, 4);
        assert_eq!(world.state(), (2, vec![2], vec![3], 1));
        let epoch = world.partition().partition_epoch;
        world.report_loss(1, 4);
        assert_eq!(world.partition().partition_epoch, epoch, "told again, nothing new");
        assert_eq!(world.alter(&[2, 1]), Err(ErrorCode::IneligibleReplica.into()), "what its first life had is gone");
        let mut proposal = world.proposal(&[2, 1]);
        proposal.in_sync_replicas[1].incarnation = 4;
        assert!(world.ask(Proposal::AlterPartition(proposal)).is_ok());
        world.report_loss(1, 5);
        assert_eq!(world.state(), (2, vec![2], vec![], 2), "a follower's loss ends the epoch too");
    }

    #[test]
    fn a_lower_minimum_leaves_nobody_eligible_whom_the_high_watermark_no_longer_waits_for() {
        let mut world = World::new();
        world.alter(&[1]).expect("committed");
        assert_eq!(world.state().2, vec![2, 3]);
        let set = ConfigAlteration { key: "min.insync.replicas".into(), op: AlterOp::Set, value: Some("1".into()) };
        let resources = vec![ResourceAlteration { resource_type: 2, name: "a".into(), alterations: vec![set] }];
        world.ask(Proposal::IncrementalAlterConfigs { resources, validate_only: false }).expect("set");
        assert_eq!(world.state(), (1, vec![1], vec![], 0));
    }

    #[test]
    fn the_preferred_leader_leads_where_it_is_in_sync() {
        let mut world = World::new();
        let at = world.at();
        let elect = |world: &mut World| match world.ask(Proposal::ElectPreferredLeaders(vec![at])) {
            Ok(Outcome::PreferredLeaders(results)) => results.into_iter().next().expect("one").map_err(|e| e.error),
            other => panic!("{other:?}"),
        };
        assert_eq!(elect(&mut world), Err(ErrorCode::ElectionNotNeeded));
        world.fence(1);
        assert_eq!(world.state(), (2, vec![2, 3], vec![], 1));
        world.unfence(1);
        assert_eq!(elect(&mut world), Err(ErrorCode::PreferredLeaderNotAvailable));
        world.alter(&[1, 2, 3]).expect("committed");
        assert_eq!(elect(&mut world), Ok(()));
        assert_eq!(world.state(), (1, vec![1, 2, 3], vec![], 2));
    }
}
