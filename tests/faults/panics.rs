//! The sweep of panics: each kind of actor panics at each kind of message it takes, and a connection at each API,
//! under a load of producers, a consumer group and an administrator. The kinds come from the types, so that a new one is swept too.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use madang::directory::FlusherMessage;
use madang::follower::FollowerMessage;
use madang_actors::message::ActorMessage;
use madang_cluster::controller::actor::ControllerMessage;
use madang_cluster::coordinator::actor::ShardMessage;
use madang_cluster::replica::ReplicaMessage;
use madang_protocol::api_key::ApiKey;

use crate::broker::{Broker, Launch};
use crate::load::{Load, Place, assert_all_there, idempotent, poll};
use crate::stir::{Stirrer, TOPIC};

/// A member that went unheard is waited for until its session of 6 s ends, and so is the leader of the generation that this makes; a client
/// backs off for seconds more. On a machine that does other work, twice that.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a fault may wait for its message before the broker is started again with the fault planted.
const LIVE: Duration = Duration::from_secs(25);
/// Why the load does not ask for what moves and describes clusters.
const TOOLS: &str = "operators' tools alone ask for it, and a handler's panic ends its connection whichever it is";
/// What one node under this load never sends, and why.
const NOT_SENT: &[(&str, &str, &str)] = &[
    ("/controller", "Raft", "a lone voter hears of no other"),
    ("/controller", "Unreachable", "a lone voter sends nothing"),
    ("/controller", "Dead", "a lone voter hears of no other"),
    ("/controller", "SnapshotSent", "a lone voter sends nothing"),
    ("/controller", "Heartbeat", "the broker of a lone node lives as long as its controller"),
    ("/replicas/", "Lead", "no partition of a lone node changes its leader while the node lives"),
    ("/replicas/", "Lowered", "no log of a lone node is cut behind its end while the node lives"),
    ("/replicas/", "Assign", "a lone node's replicas lead without an assignment"),
    ("/replicas/", "Fetched", "a lone node has no followers that fetch"),
    ("/replicas/", "Confirmed", "a lone node has no followers that confirm"),
    ("/replicas/", "ProposalEnded", "a lone node proposes no in-sync set"),
    ("/replicas/", "Silent", "a lone node has no neighbour that falls silent"),
    ("/replicas/", "CutOff", "a lone node is its own controller"),
    ("/replicas/", "Answered", "a lone node's replicas fetch from nobody"),
    ("/replicas/load-0", "Compact", "the topic of the load is not compacted"),
    ("/replicas/load-0", "Compacted", "the topic of the load is not compacted"),
    ("connection", "ElectLeaders", TOOLS),
    ("connection", "AlterPartitionReassignments", TOOLS),
    ("connection", "ListPartitionReassignments", TOOLS),
    ("connection", "DescribeLogDirs", TOOLS),
    ("connection", "DescribeQuorum", TOOLS),
    ("connection", "UnregisterBroker", TOOLS),
    ("connection", "DescribeTopicPartitions", TOOLS),
    ("/replicas/__consumer_offsets", "DeleteRecords", "records of an internal topic are not deleted, as in Kafka"),
];

/// One fault: who, at what.
struct Case {
    actor: &'static str,
    kind: &'static str,
}

fn cases() -> Vec<Case> {
    let of = |actor, kinds: &'static [&'static str]| kinds.iter().map(move |kind| Case { actor, kind });
    let apis = ApiKey::ALL.iter().map(|key| Case { actor: "connection", kind: key.name() });
    of("node/metadata/controller", ControllerMessage::KINDS)
        .chain(of("node/metadata/follower", FollowerMessage::KINDS))
        .chain(of("node/log_dirs/directory-0/flusher", FlusherMessage::KINDS))
        .chain(of("node/log_dirs/directory-0/replicas/load-0", ReplicaMessage::KINDS))
        .chain(of("node/log_dirs/directory-0/replicas/__consumer_offsets-*", ReplicaMessage::KINDS))
        .chain(of("node/coordinators/*", ShardMessage::KINDS))
        .chain(apis)
        .collect()
}

fn places() -> Vec<Place> {
    (0..3).map(|partition| (TOPIC.to_owned(), partition)).collect()
}

/// A broker whose faults are planted by lines in a file.
struct Yard {
    data: PathBuf,
    plan: PathBuf,
    log: PathBuf,
}

impl Yard {
    fn new(folder: &Path) -> Self {
        let yard = Self { data: folder.join("data"), plan: folder.join("plan"), log: folder.join("log") };
        std::fs::write(&yard.plan, "").expect("the plan can be written");
        yard
    }

    fn start(&self, listen: &str) -> Broker {
        let launch = Launch::new(&self.data).env("MADANG_FAILPOINTS", self.plan.to_str().expect("text"));
        let launch = launch.set("num.partitions=3").set("log.retention.check.interval.ms=100");
        let launch = launch.set("offsets.topic.num.partitions=1").set("group.initial.rebalance.delay.ms=0");
        // A segment for each half second of commits, compacted whenever one has been superseded.
        let launch = launch.set("log.roll.ms=500").set("log.cleaner.min.cleanable.ratio=0.01");
        launch.set("log.cleaner.backoff.ms=100").log_to(&self.log).start(listen)
    }

    fn plant(&self, case: &Case) {
        let mut plan = std::fs::File::options().append(true).open(&self.plan).expect("the plan");
        writeln!(plan, "{} {} 1 panic", case.actor, case.kind).expect("the plan can be written");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn struck(&self) -> bool {
        self.log().contains("planted: ")
    }
}

/// Whether the fault struck; everything else that is promised is asserted.
fn sweep(case: &Case) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let yard = Yard::new(folder.path());
    let mut broker = yard.start("127.0.0.1:0");
    let load = Load::start(&idempotent(&broker.address), &places());
    let mut stirrer = Stirrer::new(&broker.address);
    assert!(load.advances_by(100, PATIENCE), "the load starts");
    yard.plant(case);
    let mut struck = poll(LIVE, || stirrer.stir() || yard.struck());
    struck = struck && yard.struck();
    if !struck {
        let address = broker.address.clone();
        broker.kill();
        broker = yard.start(&address);
        struck = poll(LIVE, || {
            stirrer.stir();
            yard.struck()
        });
    }
    assert!(load.advances_by(200, PATIENCE), "every producer goes on\n{}", yard.log());
    stirrer.assert_all_works(PATIENCE, &|| yard.log());
    let (sent, outcomes) = load.finish();
    assert!(broker.lives(), "the process lives\n{}", yard.log());
    assert_all_there(&broker.address, &sent, &outcomes);
    if struck && case.actor != "connection" {
        assert_restarted(&broker, case);
    }
    assert!(!yard.log().contains("quarantined"), "nothing is set aside\n{}", yard.log());
    assert!(broker.stop(), "an orderly end");
    struck
}

/// The tree shows the restart; replicas that were not meant did not restart, unless the tree restarts them with the one that was.
fn assert_restarted(broker: &Broker, case: &Case) {
    let tree: serde_json::Value = serde_json::from_str(&broker.page("/tree?format=json")).expect("the tree");
    let mut restarted = Vec::new();
    walk(&tree, "", &mut restarted);
    assert!(!restarted.is_empty(), "the tree shows the restart:\n{tree:#}");
    if case.actor.contains("/replicas/") {
        let name = case.actor.rsplit('/').next().unwrap_or_default().trim_end_matches('*');
        for path in restarted.iter().filter(|path| path.contains("/replicas/")) {
            assert!(path.contains(name), "{path} restarted too");
        }
    }
}

fn walk(tree: &serde_json::Value, above: &str, restarted: &mut Vec<String>) {
    let path = format!("{above}/{}", tree["id"].as_str().unwrap_or_default());
    if tree["restarts"].as_u64().unwrap_or(0) > 0 {
        restarted.push(path.clone());
    }
    for child in tree["children"].as_array().into_iter().flatten() {
        walk(child, &path, restarted);
    }
}

/// Every case, one after the other; the cases that are not met, and those that fail, are named at the end.
pub(crate) fn run() {
    let (mut failed, mut missed, mut passed) = (Vec::new(), Vec::new(), 0);
    let only = std::env::args().nth(2);
    for case in cases() {
        let name = format!("{} {}", case.actor, case.kind);
        if only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let not_sent = NOT_SENT.iter().find(|(actor, kind, _)| case.actor.contains(actor) && case.kind == *kind);
        if let Some((_, _, why)) = not_sent {
            println!("panics: {name}: not sent, as {why}");
            continue;
        }
        match std::panic::catch_unwind(|| sweep(&case)) {
            Ok(true) => passed += 1,
            Ok(false) => missed.push(name.clone()),
            Err(_) => failed.push(name.clone()),
        }
        println!(
            "panics: {name}: {}",
            if failed.contains(&name) {
                "FAILED"
            } else if missed.contains(&name) {
                "never met"
            } else {
                "ok"
            }
        );
    }
    println!("panics: {passed} ok; never met {missed:?}; failed {failed:?}");
    assert!(failed.is_empty() && missed.is_empty(), "failed: {failed:?}; never met: {missed:?}");
}
