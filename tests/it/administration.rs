//! What operators do to three nodes under load: partitions move, leaders are elected, the quorum is described, a broker is forgotten.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use madang_protocol::ErrorCode;
use madang_protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use madang_protocol::messages::describe_quorum::{DescribeQuorumRequest, asked};
use madang_protocol::messages::describe_topic_partitions::{DescribeTopicPartitionsRequest, TopicRequest};
use madang_protocol::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use madang_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use madang_protocol::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;
use madang_protocol::messages::unregister_broker::UnregisterBrokerRequest;

use crate::ask::ask;
use crate::broker::binary;
use crate::cluster::{Cluster, places};
use crate::load::{Load, assert_all_there, idempotent, poll};

const TOPIC: &str = "numbers";
const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

fn request(replicas: Option<&[i32]>) -> AlterPartitionReassignmentsRequest<'static> {
    let partition =
        |partition_index| ReassignablePartition { partition_index, replicas: replicas.map(<[i32]>::to_vec) };
    let partitions = (0..PARTITIONS).map(partition).collect();
    let topics = vec![ReassignableTopic { name: TOPIC.into(), partitions }];
    AlterPartitionReassignmentsRequest { topics, ..Default::default() }
}

/// Asks for all partitions of the topic to be on these nodes; answers the error of each.
fn reassign(address: &str, replicas: Option<&[i32]>) -> Vec<i16> {
    ask(address, &request(replicas), 1, |answer| {
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer.responses[0].partitions.iter().map(|one| one.error_code).collect()
    })
}

fn is_moving(address: &str) -> bool {
    ask(address, &ListPartitionReassignmentsRequest::default(), 0, |answer| !answer.topics.is_empty())
}

/// Leader, replicas and in-sync set of each partition of the topic, as the node knows them.
fn described(address: &str) -> Vec<(i32, Vec<i32>, Vec<i32>)> {
    let topics = vec![TopicRequest { name: TOPIC.into() }];
    ask(address, &DescribeTopicPartitionsRequest { topics, ..Default::default() }, 0, |answer| {
        let partitions = answer.topics[0].partitions.iter();
        partitions.map(|one| (one.leader_id, one.replica_nodes.clone(), one.isr_nodes.clone())).collect()
    })
}

/// Moves the topic there, and waits until it is there on disk and nowhere else.
fn moved(cluster: &Cluster, data: &Path, replicas: &[i32]) {
    let address = cluster.address(0);
    assert_eq!(reassign(&address, Some(replicas)), [0; PARTITIONS as usize]);
    let there = poll(PATIENCE, || !is_moving(&address) && described(&address).iter().all(|one| one.1 == replicas));
    assert!(there, "{replicas:?}: {:?}", described(&address));
    let folder = |node: i32, partition: i32| data.join(format!("node-{node}/data/{TOPIC}-{partition}")).exists();
    let all = |node: i32| (0..PARTITIONS).all(|partition| folder(node, partition) == replicas.contains(&node));
    assert!(poll(PATIENCE, || (1..=3).all(all)), "{replicas:?}: folders are where the replicas are");
}

/// The error of each partition whose preferred leader is to lead.
fn elected(address: &str, all: bool) -> Vec<i16> {
    let named = TopicPartitions { topic: TOPIC.into(), partitions: (0..PARTITIONS).collect() };
    let topic_partitions = (!all).then(|| vec![named]);
    ask(address, &ElectLeadersRequest { topic_partitions, ..Default::default() }, 2, |answer| {
        assert_eq!(answer.error_code, 0, "{answer:?}");
        let results = answer.replica_election_results.iter().filter(|topic| topic.topic == TOPIC);
        results.flat_map(|topic| &topic.partition_result).map(|one| one.error_code).collect()
    })
}

#[test]
fn partitions_move_between_nodes_under_load_and_leave_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), &[]);
    let address = cluster.address(1);
    let mut command = Command::new(binary());
    command.args(["topic", "create", TOPIC, "--partitions", &PARTITIONS.to_string(), "--replication-factor", "1"]);
    assert!(command.args(["--server", &address]).status().expect("runs").success());
    let load = Load::start(&idempotent(&cluster.addresses()), &places());
    assert!(load.advances_by(100, PATIENCE), "the load starts");
    assert_eq!(reassign(&address, None), [ErrorCode::NoReassignmentInProgress.code(); 4]);
    assert_eq!(reassign(&address, Some(&[1, 9])), [ErrorCode::InvalidReplicaAssignment.code(); 4]);
    for replicas in [&[1][..], &[2, 3], &[3, 1, 2], &[3, 2], &[1, 2, 3]] {
        moved(&cluster, folder.path(), replicas);
        assert!(load.advances_by(100, PATIENCE), "{replicas:?}: the load goes on");
    }
    assert!(cluster.is_whole_within(PATIENCE), "{:?}", cluster.status());
    let not_needed = [ErrorCode::ElectionNotNeeded.code(); 4];
    // In words: what is asked, then whether it works, and what is said.
    let says = |words: &str, works: bool, what: &str| {
        let ran = Command::new(binary()).args(words.split(' ')).args(["--server", &address]).output().expect("runs");
        let said = [ran.stdout, ran.stderr].map(|text| String::from_utf8(text).expect("text")).concat();
        assert!(ran.status.success() == works && said.contains(what), "{words}: {said}");
    };
    says("cluster reassign --list", true, "nothing is being moved");
    says("cluster reassign --topic numbers --partition 0 --cancel", false, "NO_REASSIGNMENT_IN_PROGRESS");
    says("cluster reassign --topic numbers --cancel", true, "numbers: 0 moves given up");
    says("cluster reassign --topic numbers --replicas 1,9", false, "no such broker is registered");
    says("cluster reassign --topic numbers --partition 0 --replicas 1,2,3", true, "1 partitions move to 1,2,3");
    says("cluster forget --node 1", false, "partitions");
    says("cluster forget --node 9", false, "BROKER_ID_NOT_REGISTERED");
    says("cluster elect-leaders --topic numbers --partition 9", false, "no such leader to elect");
    says("cluster elect-leaders --topic numbers", true, "elect");
    says("cluster elect-leaders --topic numbers --output json", true, "ELECTION_NOT_NEEDED");
    assert!(described(&address).iter().all(|(leader, ..)| *leader == 1), "{:?}", described(&address));
    assert_eq!(elected(&address, false), not_needed);
    assert!(elected(&address, true).is_empty(), "of all partitions none of these needs it");
    assert!(load.advances_by(100, PATIENCE), "the load goes on");
    let (sent, outcomes) = load.finish();
    assert_all_there(&cluster.addresses(), &sent, &outcomes);
    cluster.stop();
}

/// Sets one key of a broker or, if it has no number, of the topic.
fn set(address: &str, broker: Option<i32>, key: &str, value: &str) {
    let (resource_type, resource_name) = broker.map_or((2, TOPIC.to_owned()), |broker| (4, broker.to_string()));
    let config = AlterableConfig { name: key.into(), config_operation: 0, value: Some(value.into()) };
    let resource = AlterConfigsResource { resource_type, resource_name: resource_name.into(), configs: vec![config] };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    ask(address, &request, 1, |answer| assert_eq!(answer.responses[0].error_code, 0, "{answer:?}"));
}

#[test]
fn replicas_that_are_added_take_no_more_than_their_throttle_allows() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), &[]);
    let address = cluster.address(0);
    let madang = |words: &str, input: &str| {
        let mut command = Command::new(binary());
        command.args(words.split(' ')).args(["--server", &address]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("it starts");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
        assert!(child.wait().expect("ends").success(), "{words}");
    };
    madang(&format!("topic create {TOPIC} --partitions {PARTITIONS} --replication-factor 1"), "");
    moved(&cluster, folder.path(), &[1]);
    // Of 64 megabytes eight are allowed at once, one answer of ten goes beyond that, and another one may be asked for before the settings hold.
    madang(&format!("produce {TOPIC}"), &format!("{}\n", "x".repeat(10_000)).repeat(6400));
    set(&address, None, "follower.replication.throttled.replicas", "*");
    set(&address, Some(2), "follower.replication.throttled.rate", "8000000");
    let began = Instant::now();
    moved(&cluster, folder.path(), &[2]);
    let held = began.elapsed();
    assert!(held > Duration::from_secs(3), "{held:?}");
    // Nobody has said how much the third may take.
    let began = Instant::now();
    moved(&cluster, folder.path(), &[3]);
    assert!(began.elapsed() < held, "{:?} and {held:?}", began.elapsed());
    assert!(cluster.is_whole_within(PATIENCE), "{:?}", cluster.status());
    cluster.stop();
}

#[test]
fn the_quorum_is_described_by_whoever_is_asked_and_a_broker_that_is_forgotten_registers_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), &[]);
    let asked = |topic: &'static str| {
        let partitions = vec![asked::PartitionData { partition_index: 0 }];
        DescribeQuorumRequest { topics: vec![asked::TopicData { topic_name: topic.into(), partitions }] }
    };
    let controller = cluster.controller();
    for node in 0..3 {
        ask(&cluster.address(node), &asked("__cluster_metadata"), 2, |answer| {
            assert_eq!((answer.error_code, answer.nodes.len()), (0, 3), "{answer:?}");
            let quorum = &answer.topics[0].partitions[0];
            assert_eq!((quorum.error_code, i64::from(quorum.leader_id)), (0, controller));
            let voters: Vec<i32> = quorum.current_voters.iter().map(|voter| voter.replica_id).collect();
            assert_eq!(voters, [1, 2, 3]);
            assert!(quorum.current_voters.iter().all(|voter| voter.log_end_offset > 0), "{quorum:?}");
            assert!(quorum.current_voters.iter().all(|voter| voter.last_fetch_timestamp > 0), "{quorum:?}");
        });
    }
    ask(&cluster.address(0), &asked("numbers"), 2, |answer| {
        assert_eq!(answer.topics[0].partitions[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
    });
    let forget = |broker_id| {
        let asked = UnregisterBrokerRequest { broker_id };
        ask(&cluster.address(0), &asked, 0, |answer| answer.error_code)
    };
    assert_eq!(forget(9), ErrorCode::BrokerIdNotRegistered.code());
    // One that controls the cluster too answers it all the same, before its process ends.
    assert_eq!(forget(i32::try_from(controller).expect("small")), 0);
    assert!(cluster.is_whole_within(PATIENCE), "it is started again and registers: {:?}", cluster.status());
    cluster.stop();
}
