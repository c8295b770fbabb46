//! What clients hear of a leader whose process has just been killed, before anybody is told of its death.

use std::time::Duration;

use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::find_coordinator::FindCoordinatorRequest;
use madang_protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponsePartition};
use rustix::process::Signal;

use crate::ask::ask;
use crate::cluster::Cluster;
use crate::load::poll;

const PATIENCE: Duration = Duration::from_secs(60);
const TOPIC: &str = "numbers";
const NONE: i16 = ErrorCode::None.code();

/// The topic's partitions, as the node, from 0, has them.
fn partitions(cluster: &Cluster, node: u16) -> Vec<MetadataResponsePartition> {
    let topic = MetadataRequestTopic { name: Some(TOPIC.into()), ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![topic]), ..Default::default() };
    ask(&cluster.address(node), &request, 9, |answer| answer.topics[0].partitions.clone())
}

/// Who coordinates a group, as the node has it: error and node.
fn coordinator(cluster: &Cluster, node: u16, group: &str) -> (i16, i32) {
    let request = FindCoordinatorRequest { coordinator_keys: vec![group.into()], ..Default::default() };
    ask(&cluster.address(node), &request, 4, |answer| {
        (answer.coordinators[0].error_code, answer.coordinators[0].node_id)
    })
}

#[test]
fn nobody_is_sent_to_a_node_that_is_gone_though_nobody_has_taken_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), &["broker.session.timeout.ms=40000"]);
    cluster.create_topic(TOPIC, 3);
    assert!(cluster.is_whole_within(PATIENCE), "{:?}", cluster.status());
    // Whoever is elected in the place of a controller fences it at once.
    let controller = i32::try_from(cluster.controller()).expect("a node");
    let all = partitions(&cluster, 0);
    let before = all.iter().find(|one| one.leader_id > 0 && one.leader_id != controller).expect("one of three").clone();
    let (victim, other) = (before.leader_id, u16::from(before.leader_id == 1));
    let coordinated = || {
        (0..20)
            .map(|number| format!("group-{number}"))
            .find(|group| coordinator(&cluster, other, group) == (NONE, victim))
    };
    assert!(poll(PATIENCE, || coordinated().is_some()), "it coordinates something");
    let group = coordinated().expect("as before");
    // The supervisor sleeps, so that it tells nobody.
    let asleep = cluster.asleep(&[]);
    cluster.signal(&[i64::from(victim)], Signal::KILL);
    let mut seen = before.clone();
    let leaderless = || {
        seen = partitions(&cluster, other)
            .into_iter()
            .find(|one| one.partition_index == before.partition_index)
            .expect("it exists");
        seen.error_code == ErrorCode::LeaderNotAvailable.code()
    };
    assert!(poll(PATIENCE / 4, leaderless), "{seen:?}");
    assert_eq!((seen.leader_id, seen.leader_epoch), (-1, before.leader_epoch), "nobody has decided anything");
    assert_eq!(seen.offline_replicas, [victim]);
    assert_eq!(coordinator(&cluster, other, &group), (ErrorCode::CoordinatorNotAvailable.code(), -1));
    drop(asleep);
    let led = || partitions(&cluster, other).iter().all(|one| one.leader_id > 0);
    assert!(poll(PATIENCE, led), "{:?}", partitions(&cluster, other));
    assert!(poll(PATIENCE, || coordinator(&cluster, other, &group).0 == NONE));
    assert!(cluster.is_whole_within(PATIENCE), "{:?}", cluster.status());
    cluster.stop();
}
