//! Three nodes as processes, under load from a real client, while each of them is killed in turn.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rustix::process::{Pid, Signal, kill_process};

use crate::broker::binary;
use crate::load::{Load, Outcomes, Place, assert_all_there, idempotent, poll};

const NODES: u16 = 3;
/// Ports of a cluster: Kafka's, the admin listeners' 1000 above, the nodes' own 2000 above.
const PORTS: [u16; 3] = [0, 1000, 2000];
/// Those over QUIC are so far above Kafka's.
const QUIC: u16 = 3000;
const TOPIC: &str = "numbers";
const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// One cluster at a time: each has three processes, and the machine may have two cores.
static ONE: Mutex<()> = Mutex::new(());

/// A cluster that runs.
pub(crate) struct Cluster {
    process: Child,
    base: u16,
    _one: MutexGuard<'static, ()>,
}

/// A port from which on the cluster's are free.
fn free_ports() -> u16 {
    let start = 20_000 + u16::try_from(std::process::id() % 500).expect("small") * 10;
    let is_free = |base: u16| {
        let all = PORTS.iter().flat_map(|above| (0..2 * NODES).map(move |one| base + above + one));
        let mut sockets = all.map(|port| TcpListener::bind(("127.0.0.1", port)));
        sockets.all(|socket| socket.is_ok())
    };
    (start..start + 5000).step_by(10).find(|base| is_free(*base)).expect("free ports")
}

impl Cluster {
    /// Starts three nodes in `data` and waits until they serve.
    pub(crate) fn start(data: &Path, settings: &[&str]) -> Self {
        let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        Self::start_with(data, &settings)
    }

    /// The same, with these arguments.
    pub(crate) fn start_with(data: &Path, arguments: &[&str]) -> Self {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let base = free_ports();
        let mut command = Command::new(binary());
        command.args(["cluster", "dev", "--nodes", "3", "--base-port", &base.to_string(), "--data"]).arg(data);
        command.args(arguments);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
        let cluster = Self { process, base, _one: one };
        assert!(cluster.is_whole_within(PATIENCE), "three nodes serve");
        cluster
    }

    /// The address of a node, from 0.
    pub(crate) fn address(&self, node: u16) -> String {
        format!("127.0.0.1:{}", self.base + node)
    }

    /// Where a node serves clients over QUIC, if the cluster was started so.
    pub(crate) fn quic_address(&self, node: u16) -> String {
        format!("127.0.0.1:{}", self.base + QUIC + node)
    }

    /// All of them, to begin with.
    pub(crate) fn addresses(&self) -> String {
        (0..NODES).map(|node| self.address(node)).collect::<Vec<_>>().join(",")
    }

    /// What `madang cluster status` says; none if it says nothing.
    pub(crate) fn status(&self) -> Option<serde_json::Value> {
        (0..NODES).find_map(|node| {
            let mut command = Command::new(binary());
            command.args(["cluster", "status", "--output", "json", "--server", &self.address(node)]);
            let ran = command.stderr(Stdio::null()).output().ok().filter(|ran| ran.status.success())?;
            serde_json::from_slice(&ran.stdout).ok()
        })
    }

    /// Whether every node serves and every partition has all its replicas, at the latest after `patience`.
    pub(crate) fn is_whole_within(&self, patience: Duration) -> bool {
        poll(patience, || {
            let Some(status) = self.status() else { return false };
            let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
            let serve = nodes.iter().filter(|node| node["state"] == "serving" && node["pid"].is_number()).count();
            let lacks = ["under_replicated", "under_min_isr", "offline"];
            serve == usize::from(NODES) && lacks.iter().all(|what| status["partitions"][what] == 0)
        })
    }

    /// The process of a node, by its number.
    fn process(&self, node: i64) -> Pid {
        let status = self.status().expect("a status");
        let nodes = status["nodes"].as_array().expect("nodes");
        let pid = nodes.iter().find(|one| one["id"] == node).and_then(|one| one["pid"].as_i64()).expect("a process");
        i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid")
    }

    /// The processes of all nodes.
    pub(crate) fn processes(&self) -> Vec<Option<i64>> {
        let status = self.status().expect("a status");
        status["nodes"].as_array().expect("nodes").iter().map(|node| node["pid"].as_i64()).collect()
    }

    /// Creates a topic with the cluster's own number of replicas.
    pub(crate) fn create_topic(&self, name: &str, partitions: i32) {
        let mut command = Command::new(binary());
        command.args(["topic", "create", name, "--partitions", &partitions.to_string(), "--server", &self.address(0)]);
        assert!(command.status().expect("runs").success(), "{name} is there");
    }

    /// Ends the processes of these nodes at once; their supervisor starts others.
    pub(crate) fn signal(&self, nodes: &[i64], signal: Signal) {
        let processes: Vec<Pid> = nodes.iter().map(|node| self.process(*node)).collect();
        processes.into_iter().for_each(|process| kill_process(process, signal).expect("it is there"));
    }

    /// Stops the processes of these nodes without their supervisor's notice, which sleeps as they do, until the answer is dropped.
    pub(crate) fn asleep(&self, nodes: &[i64]) -> Asleep {
        let mut processes = vec![pid(&self.process)];
        processes.extend(nodes.iter().map(|node| self.process(*node)));
        processes.iter().for_each(|process| kill_process(*process, Signal::STOP).expect("it is there"));
        Asleep(processes)
    }

    /// Who is the controller.
    pub(crate) fn controller(&self) -> i64 {
        self.status().and_then(|status| status["controller"].as_i64()).expect("a controller")
    }

    /// Ends all of it in order.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = kill_process(pid(&self.process), Signal::TERM);
        drop(self.process.wait());
    }
}

fn pid(process: &Child) -> Pid {
    i32::try_from(process.id()).ok().and_then(Pid::from_raw).expect("a pid")
}

/// Processes that do not run until this is dropped.
pub(crate) struct Asleep(Vec<Pid>);

impl Drop for Asleep {
    fn drop(&mut self) {
        for process in &self.0 {
            // It may have been killed.
            let _ = kill_process(*process, Signal::CONT);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

/// The partitions of the load.
pub(crate) fn places() -> Vec<Place> {
    (0..PARTITIONS).map(|partition| (TOPIC.to_owned(), partition)).collect()
}

/// Whether every partition gets more acknowledgements from now on: those that a dead node led wait for another leader.
pub(crate) fn goes_on(load: &Load) -> bool {
    let count = |of: &Outcomes, place: &Place| of.acknowledged.get(place).map_or(0, BTreeMap::len);
    let before = load.outcomes();
    poll(PATIENCE, || {
        let now = load.outcomes();
        places().iter().all(|place| count(&now, place) > count(&before, place) + 100)
    })
}

/// Has `fault` happen again and again to a cluster that is whole, while a client writes, and reads all of it in the end. Answers how long after
/// each fault all partitions went on.
pub(crate) fn under_load(rounds: usize, data: &Path, fault: impl Fn(&Cluster, usize)) -> Vec<Duration> {
    under_load_with(idempotent, &Ballast { partitions: 0 }, rounds, data, fault)
}

/// A topic that nobody writes to.
pub(crate) struct Ballast {
    pub(crate) partitions: i32,
}

/// As [`under_load`], with this client and this much beside the load.
pub(crate) fn under_load_with(
    client: impl Fn(&str) -> ClientConfig,
    ballast: &Ballast,
    rounds: usize,
    data: &Path,
    fault: impl Fn(&Cluster, usize),
) -> Vec<Duration> {
    let cluster = Cluster::start(data, &[&format!("num.partitions={PARTITIONS}")]);
    if ballast.partitions > 0 {
        cluster.create_topic("ballast", ballast.partitions);
    }
    let load = Load::start(&client(&cluster.addresses()), &places());
    assert!(load.advances_by(100, PATIENCE), "the load starts");
    let mut stalls = Vec::new();
    for round in 0..rounds {
        assert!(cluster.is_whole_within(PATIENCE), "round {round}: all replicas are in sync: {:?}", cluster.status());
        fault(&cluster, round);
        let began = Instant::now();
        assert!(goes_on(&load), "round {round}: the load goes on: {:?}", cluster.status());
        stalls.push(began.elapsed());
    }
    assert!(cluster.is_whole_within(PATIENCE), "all replicas are in sync again: {:?}", cluster.status());
    let (sent, outcomes) = load.finish();
    assert_all_there(&cluster.addresses(), &sent, &outcomes);
    eprintln!("cluster: {rounds} faults, {} acknowledged records, each there once at its offset", outcomes.count());
    eprintln!("until all partitions went on: {stalls:?}");
    cluster.stop();
    stalls
}

#[test]
fn what_was_acknowledged_survives_the_death_of_each_node_in_turn() {
    let folder = tempfile::tempdir().expect("a folder");
    under_load(4, folder.path(), |cluster, round| {
        let victim = if round == 0 { cluster.controller() } else { i64::try_from(round).expect("small") };
        cluster.signal(&[victim], Signal::KILL);
    });
}

#[test]
fn a_cluster_of_which_every_process_was_killed_comes_back_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    under_load(2, folder.path(), |cluster, _| cluster.signal(&[1, 2, 3], Signal::KILL));
}

#[test]
fn a_rolling_restart_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    under_load(3, folder.path(), |cluster, round| {
        cluster.signal(&[i64::try_from(round).expect("small") + 1], Signal::TERM);
    });
}

#[test]
fn a_node_that_hangs_is_killed_so_that_its_clients_are_freed() {
    let folder = tempfile::tempdir().expect("a folder");
    under_load(2, folder.path(), |cluster, round| {
        let victim = if round == 0 { cluster.controller() } else { i64::try_from(round).expect("small") };
        cluster.signal(&[victim], Signal::STOP);
    });
}
