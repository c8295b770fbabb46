//! Elections, in-sync sets and restarts, decided on an image and replayed.

use madang_actors::prng::Prng;
use madang_protocol::types::Uuid;
use madang_storage::RestartKind;

use super::super::{AlterOp, ConfigAlteration, Decision, LogDirStart, NewTopic, Proposal, RegisterBroker, decide};
use super::*;
use crate::configs::BrokerConfig;
use crate::controller::ResourceAlteration;
use crate::controller::tests::process;
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
        Self::with_fenced(&[])
    }

    /// These brokers are fenced while the topic is created.
    fn with_fenced(fenced: &[i32]) -> Self {
        let mut world = Self { image: MetadataImage::default(), rng: Prng::new(1) };
        for node in 1..=3 {
            world.register(node, RestartKind::Lossy, -1);
        }
        fenced.iter().for_each(|node| world.fence(*node));
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
        let broker_epoch = self.register_only(node, kind, broker_epoch);
        self.ask(Proposal::UnfenceBroker { node_id: NodeId(node), broker_epoch }).expect("unfenced");
        broker_epoch
    }

    fn register_only(&mut self, node: i32, kind: RestartKind, broker_epoch: i64) -> i64 {
        let result = self.ask(Proposal::RegisterBroker(RegisterBroker {
            node_id: NodeId(node),
            incarnation_id: process(&self.image),
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
        let member =
            |node: &i32| IsrMember { node_id: NodeId(*node), broker_epoch: self.broker_epoch(*node), incarnation: 1 };
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

/// Found by seeds 104 and 282 of clusters: created while one node was alive, which then lost its disk, a partition had nobody left to lead it.
#[test]
fn whoever_was_not_alive_when_too_few_were_may_lead_as_nothing_was_committed() {
    let mut world = World::with_fenced(&[1, 2]);
    assert_eq!(world.state(), (3, vec![3], vec![1, 2], 0));
    world.unfence(2);
    world.restart(3, RestartKind::Lossy);
    assert_eq!(world.state(), (2, vec![2], vec![1], 1));
    world.alter(&[2, 3]).expect("committed");
    assert_eq!(world.state(), (2, vec![2, 3], vec![], 1), "from here on records may be committed");
    assert_eq!(World::with_fenced(&[1]).state(), (2, vec![2, 3], vec![], 0), "enough are alive");
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
    let set =
        ConfigAlteration { key: "unclean.leader.election.enable".into(), op: AlterOp::Set, value: Some("true".into()) };
    let resources = vec![ResourceAlteration { resource_type: 2, name: "a".into(), alterations: vec![set] }];
    world.ask(Proposal::IncrementalAlterConfigs { resources, validate_only: false }).expect("set");
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
        assert_eq!(world.state(), (1, vec![1], vec![2, 3], 2), "{kind:?}: it leads again, in a new epoch");
    }
    let mut world = World::new();
    world.alter(&[1]).expect("committed");
    world.restart(1, RestartKind::Lossy);
    assert_eq!(world.state(), (2, vec![2], vec![3], 1));
    world.restart(2, RestartKind::Durable);
    assert_eq!(world.state(), (3, vec![3], vec![2], 2), "1 is not among them");
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
fn a_registration_serves_nobody_before_its_directories_name_it_and_a_crash_on_the_way_costs_nothing() {
    for named in [0, 1] {
        let mut world = World::new();
        let served = world.broker_epoch(1);
        let registered = world.register_only(1, RestartKind::Durable, served);
        assert!(world.image.broker(NodeId(1)).expect("registered").fenced);
        assert_eq!((world.state().0, world.state().1), (2, vec![2, 3]), "another leads");
        // It dies before it has noted the registration, or after that.
        let again = world.register_only(1, RestartKind::Durable, [served, registered][named]);
        assert_eq!(world.image.broker(NodeId(1)).expect("registered").served_epoch, served);
        world.ask(Proposal::UnfenceBroker { node_id: NodeId(1), broker_epoch: again }).expect("unfenced");
        assert_eq!(world.image.broker(NodeId(1)).expect("registered").served_epoch, again);
    }
    let mut world = World::new();
    for node in [2, 3] {
        world.fence(node);
    }
    let served = world.broker_epoch(1);
    let registered = world.register_only(1, RestartKind::Durable, served);
    world.register_only(1, RestartKind::Durable, registered);
    assert!(world.state().2.contains(&1), "it is still counted on");
    world.register(1, RestartKind::Durable, served);
    world.register(1, RestartKind::Durable, served);
    assert!(!world.state().2.contains(&1), "an older copy: another has served since");
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
        incarnation_id: process(&world.image),
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

#[test]
fn a_replica_that_is_given_up_leads_nothing_and_joins_nothing_before_its_broker_registers_anew() {
    let mut world = World::new();
    let (at, broker_epoch) = (world.at(), world.broker_epoch(1));
    let (elsewhere, never) = (TopicPartition { partition: 7, ..at }, ReportedLoss::GIVEN_UP);
    let give_up = Proposal::GiveUpReplicas {
        node_id: NodeId(1),
        broker_epoch,
        partitions: vec![(elsewhere, never), (at, never)],
    };
    assert_eq!(world.ask(give_up.clone()), Ok(Outcome::ReplicasGivenUp));
    assert_eq!(world.state(), (2, vec![2, 3], vec![], 1));
    assert!(world.partition().is_given_up(NodeId(1)));
    let told_once = world.partition().partition_epoch;
    assert_eq!(world.ask(give_up.clone()), Ok(Outcome::ReplicasGivenUp));
    assert_eq!(world.partition().partition_epoch, told_once);
    assert_eq!(world.alter(&[2, 3, 1]), Err(ErrorCode::IneligibleReplica.into()));
    world.alter(&[2]).expect("committed");
    world.fence(3);
    world.fence(2);
    let set =
        ConfigAlteration { key: "unclean.leader.election.enable".into(), op: AlterOp::Set, value: Some("true".into()) };
    let resources = vec![ResourceAlteration { resource_type: 2, name: "a".into(), alterations: vec![set] }];
    world.ask(Proposal::IncrementalAlterConfigs { resources, validate_only: false }).expect("set");
    assert_eq!(world.state().0, -1, "node 1 lives, and has nothing to lead with");
    world.restart(1, RestartKind::Lossy);
    assert_eq!((world.state().0, world.partition().is_given_up(NodeId(1))), (1, false));
    assert_eq!(world.ask(give_up), Err(ErrorCode::StaleBrokerEpoch.into()));
}

#[test]
fn a_replica_that_is_given_up_until_a_later_life_joins_again_in_that_life() {
    let mut world = World::new();
    let (at, broker_epoch) = (world.at(), world.broker_epoch(1));
    let give_up = Proposal::GiveUpReplicas { node_id: NodeId(1), broker_epoch, partitions: vec![(at, 2)] };
    assert_eq!(world.ask(give_up), Ok(Outcome::ReplicasGivenUp));
    assert_eq!((world.state(), world.partition().is_given_up(NodeId(1))), ((2, vec![2, 3], vec![], 1), false));
    assert_eq!(world.alter(&[2, 3, 1]), Err(ErrorCode::IneligibleReplica.into()), "its first life");
    let mut proposal = world.proposal(&[2, 3, 1]);
    proposal.in_sync_replicas[2].incarnation = 2;
    world.ask(Proposal::AlterPartition(proposal)).expect("committed");
    assert_eq!(world.state(), (2, vec![2, 3, 1], vec![], 1));
}

#[test]
fn leaders_are_elected_when_asked_preferred_or_any_that_is_alive() {
    let mut world = World::new();
    let named = |topic: &str, partition| NamedPartition { topic: topic.into(), partition };
    let elect = |world: &mut World, unclean, partitions| match world.ask(Proposal::ElectLeaders { unclean, partitions })
    {
        Ok(Outcome::ElectedLeaders(results)) => {
            results.into_iter().map(|(_, result)| result.map_err(|refused| refused.error)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let here = || Some(vec![named("a", 0)]);
    assert_eq!(elect(&mut world, false, here()), [Err(ErrorCode::ElectionNotNeeded)]);
    assert_eq!(elect(&mut world, true, here()), [Err(ErrorCode::ElectionNotNeeded)]);
    assert_eq!(elect(&mut world, false, None), [], "of all those that need none are left out");
    let nowhere = vec![named("b", 0), named("a", 1)];
    assert_eq!(elect(&mut world, false, Some(nowhere)), [Err(ErrorCode::UnknownTopicOrPartition); 2]);
    world.fence(1);
    assert_eq!(elect(&mut world, false, here()), [Err(ErrorCode::PreferredLeaderNotAvailable)]);
    world.unfence(1);
    world.alter(&[2, 1]).expect("committed");
    assert_eq!(elect(&mut world, false, None), [Ok(())]);
    assert_eq!(world.state().0, 1);
    world.alter(&[1, 2]).expect("committed");
    world.alter(&[1, 2, 3]).expect("committed");
    world.alter(&[1, 2]).expect("committed");
    world.fence(2);
    world.fence(1);
    assert_eq!(world.state().0, -1, "3 is alive, and may lack records");
    assert_eq!(elect(&mut world, false, here()), [Err(ErrorCode::PreferredLeaderNotAvailable)]);
    assert_eq!(elect(&mut world, true, here()), [Ok(())]);
    let epoch = world.state().3;
    assert_eq!((world.state().0, world.partition().unclean_epoch.0), (3, epoch));
    world.fence(3);
    assert_eq!(elect(&mut world, true, here()), [Err(ErrorCode::EligibleLeadersNotAvailable)]);
}

#[test]
fn a_process_that_registers_twice_as_it_heard_no_answer_has_one_registration() {
    let mut world = World::new();
    let broker = RegisterBroker {
        node_id: NodeId(1),
        incarnation_id: process(&world.image),
        endpoints: Vec::new(),
        rack: None,
        log_dirs: vec![directory(1)],
        starts: Vec::new(),
    };
    let first = world.ask(Proposal::RegisterBroker(broker.clone()));
    let Ok(Outcome::Registered(broker_epoch)) = first else { panic!("{first:?}") };
    assert_eq!(world.ask(Proposal::RegisterBroker(broker.clone())), first);
    world.ask(Proposal::UnfenceBroker { node_id: NodeId(1), broker_epoch }).expect("unfenced");
    let before = world.image.clone();
    assert_eq!(world.ask(Proposal::RegisterBroker(broker)), first, "late, and the broker serves already");
    assert_eq!(world.image, before);
}
