//! Reassignments, decided on an image and replayed.

use madang_actors::prng::Prng;
use madang_storage::RestartKind;

use super::super::{
    AlterPartition, Decision, LogDirStart, NewTopic, Outcome, Proposal, RegisterBroker, decide, dump, replay,
};
use super::*;
use crate::configs::BrokerConfig;
use crate::controller::tests::process;
use crate::metadata::MetadataDelta;
use crate::replica::replication::IsrMember;

/// Five brokers, and one partition on some of them.
struct World {
    image: MetadataImage,
    rng: Prng,
}

fn nodes(raw: &[i32]) -> Vec<NodeId> {
    raw.iter().copied().map(NodeId).collect()
}

fn raw(nodes: &[NodeId]) -> Vec<i32> {
    nodes.iter().map(|node| node.0).collect()
}

impl World {
    fn new(replicas: &[i32], min_in_sync: &str) -> Self {
        let mut world = Self { image: MetadataImage::default(), rng: Prng::new(1) };
        for node in 1..=5 {
            world.register(node);
        }
        let topic = NewTopic {
            name: "a".into(),
            partitions: -1,
            replication_factor: -1,
            assignments: vec![(0, nodes(replicas))],
            configs: vec![("min.insync.replicas".into(), Some(min_in_sync.into()))],
        };
        world.ask(Proposal::CreateTopics { topics: vec![topic], validate_only: false }).expect("created");
        world
    }

    fn register(&mut self, node: i32) {
        let directory = Uuid([u8::try_from(node).expect("small"); 16]);
        let broker = RegisterBroker {
            node_id: NodeId(node),
            incarnation_id: process(&self.image),
            endpoints: Vec::new(),
            rack: None,
            log_dirs: vec![directory],
            starts: vec![LogDirStart { directory, kind: RestartKind::Lossy, broker_epoch: -1 }],
        };
        let Ok(Outcome::Registered(broker_epoch)) = self.ask(Proposal::RegisterBroker(broker)) else {
            panic!("registered")
        };
        self.ask(Proposal::UnfenceBroker { node_id: NodeId(node), broker_epoch }).expect("unfenced");
    }

    fn ask(&mut self, proposal: Proposal) -> ApiResult<Outcome> {
        let Decision { image, result, records } =
            decide(&self.image, &BrokerConfig::default(), &mut self.rng, proposal);
        image.check();
        let mut replayed = self.image.clone();
        records.into_iter().for_each(|record| replay(&mut replayed, &mut MetadataDelta::default(), record));
        assert_eq!(replayed, image, "the records say all of it");
        let mut dumped = MetadataImage::default();
        dump(&image).into_iter().for_each(|record| replay(&mut dumped, &mut MetadataDelta::default(), record));
        assert_eq!(dumped.partition("a", 0), image.partition("a", 0), "a snapshot keeps all of it");
        self.image = image;
        result
    }

    fn alter(&mut self, replicas: Option<&[i32]>, allow_factor_change: bool) -> Result<(), ErrorCode> {
        let partition = NamedPartition { topic: "a".into(), partition: 0 };
        let reassignments = vec![Reassignment { partition, replicas: replicas.map(nodes) }];
        match self.ask(Proposal::AlterReassignments { reassignments, allow_factor_change }) {
            Ok(Outcome::Reassigned(mut results)) => results.remove(0).map_err(|refused| refused.error),
            other => panic!("{other:?}"),
        }
    }

    fn move_to(&mut self, replicas: &[i32]) -> Result<(), ErrorCode> {
        self.alter(Some(replicas), true)
    }

    /// The leader finds these in sync.
    fn in_sync(&mut self, members: &[i32]) {
        let state = self.partition();
        let epoch = |node: NodeId| self.image.broker(node).expect("registered").broker_epoch;
        let member = |node: &i32| {
            let node_id = NodeId(*node);
            IsrMember { node_id, broker_epoch: epoch(node_id), incarnation: 1 }
        };
        let asked = AlterPartition {
            partition: TopicPartition { topic_id: self.image.topic_id("a").expect("there"), partition: 0 },
            node_id: state.leader,
            broker_epoch: epoch(state.leader),
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            in_sync_replicas: members.iter().map(member).collect(),
        };
        self.ask(Proposal::AlterPartition(asked)).expect("committed");
    }

    fn fence(&mut self, node: i32) {
        let broker_epoch = self.image.broker(NodeId(node)).expect("registered").broker_epoch;
        self.ask(Proposal::FenceBroker { node_id: NodeId(node), broker_epoch }).expect("fenced");
    }

    fn partition(&self) -> Arc<PartitionImage> {
        Arc::clone(self.image.partition("a", 0).expect("there"))
    }

    /// Replicas, those that come, those that go, those that have left.
    fn moves(&self) -> [Vec<i32>; 4] {
        let state = self.partition();
        let all = [&state.assigned_replicas, &state.adding_replicas, &state.removing_replicas, &state.former_replicas];
        all.map(|nodes| raw(nodes))
    }

    fn led(&self) -> (i32, Vec<i32>, i32) {
        let state = self.partition();
        (state.leader.0, raw(&state.in_sync_replicas), state.leader_epoch.0)
    }
}

#[test]
fn what_is_added_comes_first_and_what_is_removed_goes_when_all_of_it_is_in_sync() {
    let mut world = World::new(&[1, 2, 3], "2");
    assert_eq!(world.move_to(&[4, 5, 3]), Ok(()));
    assert_eq!(world.moves(), [vec![4, 5, 3, 1, 2], vec![4, 5], vec![1, 2], vec![]]);
    assert_eq!(world.led(), (1, vec![1, 2, 3], 0), "nothing moves yet");
    world.in_sync(&[1, 2, 3, 4]);
    assert_eq!(world.moves()[1], [4, 5], "one of two has come");
    world.in_sync(&[1, 2, 3, 4, 5]);
    assert_eq!(world.moves(), [vec![4, 5, 3], vec![], vec![], vec![1, 2]]);
    assert_eq!(world.led(), (4, vec![3, 4, 5], 1), "its leader has left, and another leads in a new epoch");
    assert!(world.partition().has_left(NodeId(1)) && !world.partition().has_left(NodeId(4)));
    assert_eq!(world.move_to(&[1, 4, 5]), Ok(()));
    assert_eq!(world.moves(), [vec![1, 4, 5, 3], vec![1], vec![3], vec![2]], "who comes back has not left");
}

#[test]
fn what_was_where_it_is_to_be_is_no_change() {
    let mut world = World::new(&[1, 2, 3], "2");
    let epoch = world.partition().partition_epoch;
    assert_eq!(world.move_to(&[1, 2, 3]), Ok(()));
    assert_eq!(world.partition().partition_epoch, epoch);
    assert_eq!(world.move_to(&[2, 1, 3]), Ok(()), "another order is another preferred leader");
    assert_eq!((world.moves()[0].clone(), world.led()), (vec![2, 1, 3], (1, vec![1, 2, 3], 0)));
}

#[test]
fn a_reassignment_that_is_given_up_goes_back_to_where_it_began() {
    let mut world = World::new(&[1, 2, 3], "2");
    assert_eq!(world.alter(None, true), Err(ErrorCode::NoReassignmentInProgress));
    world.move_to(&[4, 2, 3]).expect("begun");
    assert_eq!(world.alter(None, true), Ok(()));
    assert_eq!(world.moves(), [vec![2, 3, 1], vec![], vec![], vec![4]]);
    assert_eq!(world.led(), (1, vec![1, 2, 3], 1), "who may count on 4 leads no more in that epoch");
    assert_eq!(world.alter(None, true), Err(ErrorCode::NoReassignmentInProgress));
}

#[test]
fn a_reassignment_whose_newcomers_alone_are_in_sync_is_not_given_up() {
    let mut world = World::new(&[1], "1");
    world.move_to(&[2, 3]).expect("begun");
    world.in_sync(&[1, 2]);
    world.fence(1);
    assert_eq!(world.led().1, [2]);
    assert_eq!(world.alter(None, true), Err(ErrorCode::InvalidReplicaAssignment));
    assert_eq!(world.moves()[1], [2, 3]);
}

#[test]
fn another_reassignment_over_a_running_one_keeps_what_it_still_waits_for() {
    let mut world = World::new(&[1, 2, 3], "2");
    world.move_to(&[1, 2, 4]).expect("begun");
    world.move_to(&[1, 4, 5]).expect("changed");
    assert_eq!(world.moves(), [vec![1, 4, 5, 2, 3], vec![4, 5], vec![2, 3], vec![]]);
    world.in_sync(&[1, 2, 3, 5]);
    assert_eq!(world.moves()[1], [4, 5], "4 is not in sync yet");
    world.move_to(&[1, 2, 3]).expect("back");
    assert_eq!(world.moves(), [vec![1, 2, 3], vec![], vec![], vec![4, 5]]);
    assert_eq!(world.led().1, [1, 2, 3]);
}

#[test]
fn nobody_leaves_whose_copy_the_minimum_still_needs() {
    let mut world = World::new(&[1, 2, 3], "2");
    world.in_sync(&[1, 3]);
    world.move_to(&[1, 2]).expect("begun");
    assert_eq!(world.moves()[2], [3], "2 is behind");
    world.in_sync(&[1, 2, 3]);
    assert_eq!(world.moves(), [vec![1, 2], vec![], vec![], vec![3]]);
    let mut world = World::new(&[1, 2, 3], "2");
    world.in_sync(&[1, 3]);
    world.move_to(&[2]).expect("begun");
    assert_eq!(world.moves()[2], [1, 3], "the one that stays is not in sync");
}

#[test]
fn those_who_are_only_being_added_do_not_count_for_the_minimum() {
    let mut world = World::new(&[1], "2");
    world.move_to(&[1, 2, 3]).expect("begun");
    assert_eq!(world.partition().replication_factor(), 1);
    world.in_sync(&[1, 2, 3]);
    assert_eq!(world.partition().replication_factor(), 3);
    assert_eq!(world.moves(), [vec![1, 2, 3], vec![], vec![], vec![]]);
    let topic = world.image.topic("a").expect("there");
    assert_eq!(topic.replication_factor(), 3);
}

#[test]
fn a_newcomer_that_has_nothing_does_not_lead_when_the_old_ones_are_gone() {
    let mut world = World::new(&[1], "1");
    world.move_to(&[2]).expect("begun");
    world.fence(1);
    assert_eq!(world.led().0, -1);
    world.register(1);
    assert_eq!(world.led().0, 1, "the sole replica leads again, whatever it has lost");
    world.in_sync(&[1, 2]);
    assert_eq!((world.moves()[0].clone(), world.led().0), (vec![2], 2));
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut world = World::new(&[1, 2, 3], "2");
    let before = world.partition();
    for target in [&[][..], &[1, 1, 2], &[1, 2, 9], &[-1]] {
        assert_eq!(world.move_to(target), Err(ErrorCode::InvalidReplicaAssignment), "{target:?}");
    }
    assert_eq!(world.alter(Some(&[1, 2]), false), Err(ErrorCode::InvalidReplicationFactor));
    assert_eq!(world.alter(Some(&[1, 2, 4]), false), Ok(()));
    assert_eq!(world.alter(Some(&[1, 2, 5]), false), Ok(()), "a running one has the factor that it ends with");
    assert_ne!(world.partition(), before);
    for (topic, partition) in [("b", 0), ("a", 1), ("a", -1)] {
        let partition = NamedPartition { topic: topic.into(), partition };
        let reassignments = vec![Reassignment { partition, replicas: Some(nodes(&[1])) }];
        let asked = Proposal::AlterReassignments { reassignments, allow_factor_change: true };
        let Ok(Outcome::Reassigned(results)) = world.ask(asked) else { panic!("answered") };
        assert_eq!(results[0].clone().map_err(|refused| refused.error), Err(ErrorCode::UnknownTopicOrPartition));
    }
}

#[test]
fn a_broker_that_is_forgotten_counts_nowhere_and_leads_nothing() {
    let mut world = World::new(&[1, 2, 3], "3");
    world.fence(2);
    assert_eq!(raw(&world.partition().eligible_leader_replicas), [2]);
    for node in [2, 1] {
        assert_eq!(world.ask(Proposal::UnregisterBroker(NodeId(node))), Ok(Outcome::Unregistered));
        assert!(world.image.broker(NodeId(node)).is_none());
    }
    assert!(world.partition().eligible_leader_replicas.is_empty());
    assert_eq!((world.led().0, world.led().1), (3, vec![3]));
    assert_eq!(world.moves()[0], [1, 2, 3], "it is still to hold the partition");
    let again = world.ask(Proposal::UnregisterBroker(NodeId(1))).map_err(|refused| refused.error);
    assert_eq!(again, Err(ErrorCode::BrokerIdNotRegistered));
    world.register(1);
    assert_eq!(world.led().1, [3], "what comes back under its number begins anew");
    world.move_to(&[3, 4, 5]).expect("begun");
    world.in_sync(&[3, 4, 5]);
    assert_eq!(world.moves(), [vec![3, 4, 5], vec![], vec![], vec![1, 2]]);
}
