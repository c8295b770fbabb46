//! A node that cannot reach the other two, and whoever wakes after a sleep.

use std::time::Duration;

use madang_protocol::error_code::ErrorCode;
use rustix::process::Signal;

use crate::ask::{connect, is_closed};
use crate::cluster::Cluster;
use crate::impatient::{produce_over, produce_to};
use crate::load::poll;

const OK: i16 = ErrorCode::None.code();
const PATIENCE: Duration = Duration::from_secs(60);
const TOPIC: &str = "numbers";

/// Whether the node, from 0, takes a record for the partition.
fn takes(cluster: &Cluster, node: u16, partition: i32) -> bool {
    produce_to(&cluster.address(node), (TOPIC, partition), -1, 5000).0 == OK
}

/// A partition that the first node leads; none if it leads none now.
fn led_by_the_first(cluster: &Cluster) -> Option<i32> {
    (0..3).find(|partition| takes(cluster, 0, *partition))
}

#[test]
fn a_leader_that_hears_no_controller_for_a_session_sends_whoever_waits_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), &[]);
    cluster.create_topic(TOPIC, 3);
    assert!(poll(PATIENCE, || led_by_the_first(&cluster).is_some()), "node 1 leads");
    let led = led_by_the_first(&cluster).expect("as before");
    let processes = cluster.processes();
    let asleep = cluster.asleep(&[2, 3]);
    let not_leader = ErrorCode::NotLeaderOrFollower.code();
    let parked = produce_to(&cluster.address(0), (TOPIC, led), -1, 20_000);
    assert_eq!(parked.0, not_leader, "what waits for two who sleep");
    let mut stream = connect(&cluster.address(0));
    assert_eq!(produce_over(&mut stream, (TOPIC, led), 1, 20_000).0, not_leader, "what comes after");
    assert!(is_closed(stream), "one that knows no other node has to look for one");
    drop(asleep);
    assert!(cluster.is_whole_within(PATIENCE), "{:?}", cluster.status());
    let served = || (0..3).all(|partition| (0..3).any(|node| takes(&cluster, node, partition)));
    assert!(poll(PATIENCE, served), "every partition takes records again");
    assert_eq!(cluster.processes(), processes, "nobody is killed for a sleep that its supervisor shared");
    cluster.stop();
}

#[test]
fn a_machine_that_was_suspended_goes_on_with_the_processes_it_had() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), &[]);
    let processes = cluster.processes();
    let asleep = cluster.asleep(&[1, 2, 3]);
    // Longer than any session, and than a thread may be stuck.
    std::thread::sleep(Duration::from_secs(12));
    drop(asleep);
    assert!(cluster.is_whole_within(PATIENCE), "{:?}", cluster.status());
    assert_eq!(cluster.processes(), processes);
    cluster.signal(&[2], Signal::KILL);
    assert!(poll(PATIENCE, || cluster.status().is_some() && cluster.processes() != processes), "it still attends them");
    cluster.stop();
}
