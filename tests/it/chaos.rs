//! `madang chaos` against a cluster for development, and against what it must not touch.

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::broker::{Broker, binary};
use crate::cluster::Cluster;

const PATIENCE: Duration = Duration::from_secs(60);

fn chaos(what: &str, server: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(["chaos", what, "struck", "--output", "json", "--server", server]);
    command.output().expect("the binary runs")
}

fn create(server: &str) {
    let mut command = Command::new(binary());
    command.args(["topic", "create", "struck", "--server", server]);
    assert!(command.status().expect("the binary runs").success(), "the topic is there");
}

#[test]
fn a_leader_that_is_killed_or_frozen_loses_nothing_and_another_one_leads() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path(), &[]);
    create(&cluster.address(0));
    for what in ["kill-leader", "freeze-leader"] {
        assert!(cluster.is_whole_within(PATIENCE), "{:?}", cluster.status());
        let ran = chaos(what, &cluster.address(0));
        assert!(ran.status.success(), "{what}: {}", String::from_utf8_lossy(&ran.stderr));
        let said: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
        assert_eq!((said["acknowledged"].as_u64(), said["lost"].as_u64()), (Some(101), Some(0)), "{said}");
        assert!(said["leader"].is_number() && said["leader"] != said["node"], "{said}");
    }
    cluster.stop();
}

#[test]
fn a_broker_that_no_development_cluster_runs_is_not_struck() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut broker = Broker::start(folder.path(), &[]);
    create(&broker.address);
    let admin = broker.admin.clone();
    let mut command = Command::new(binary());
    command.args(["chaos", "kill-leader", "struck", "--server", &broker.address, "--admin", &admin]);
    let ran = command.output().expect("the binary runs");
    let why = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success() && why.contains("only nodes that madang cluster dev runs"), "{why}");
    assert!(why.contains("\n  try: "), "{why}");
    assert!(broker.lives(), "nothing has happened to it");
    assert!(broker.stop(), "an orderly end");
}
