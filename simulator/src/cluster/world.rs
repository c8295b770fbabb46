//! One seed of a cluster from its start to its verdict: faults, healing, liveness, the last look at every replica.
//! Invariant: the verdict depends on the seed and the number of nodes alone.

use std::rc::Rc;
use std::time::Duration;

use madang_actors::mutants;
use madang_storage::Crash;

use super::{Cluster, faults};
use crate::clients::{Clients, probe};
use crate::invariants::several;
use crate::sim::{OUTSIDE, Sim};
use crate::swarm::Swarm;
use crate::world::Verdict;

/// Polls after which a run counts as spinning.
const MOST_POLLS: u64 = 60_000_000;
/// Virtual time that each part of healing may take.
const LONGEST_HEALING: Duration = Duration::from_secs(120);

/// Runs one seed of a cluster of so many nodes, with a planted bug or without.
#[must_use]
pub fn run(nodes: usize, seed: u64, mutant: Option<u32>) -> Verdict {
    let sim = Sim::drawn(seed, |rng| Swarm::of_cluster(nodes, rng));
    run_with(&sim, mutant, drive)
}

/// Runs what `drive` does with a cluster.
pub fn run_with(sim: &Rc<Sim>, mutant: Option<u32>, drive: impl FnOnce(&Rc<Cluster>)) -> Verdict {
    mutants::activate(mutant);
    let cluster = Cluster::new(sim);
    drive(&cluster);
    sim.executor.kill(OUTSIDE);
    cluster.dissolve();
    mutants::activate(None);
    let history = sim.history.borrow();
    Verdict {
        seed: sim.seed,
        violation: sim.violation(),
        ticks: sim.executor.polls(),
        digest: sim.digest(),
        faults: sim.faults(),
        acked: history.partitions.values().map(|known| known.acked.len()).sum(),
    }
}

fn drive(cluster: &Rc<Cluster>) {
    let sim = &cluster.sim;
    cluster.nodes().iter().for_each(|node| node.start());
    let clients = Clients::start(sim, cluster.nodes());
    let mut injecting = sim.executor.spawn(OUTSIDE, faults::inject(Rc::clone(&clients), Rc::clone(cluster)));
    if !cluster.run_until(MOST_POLLS, || matches!(injecting.try_recv(), Ok(Some(_)) | Err(_))) {
        return;
    }
    let seen = sim.faults();
    let (count, classes) = crate::faults::REQUIRED;
    sim.require(seen.values().sum::<u64>() >= count && seen.len() >= classes, "SWARM", || {
        format!("a required fault did not happen: {seen:?}")
    });
    settle(cluster, &clients);
}

/// Heals, and sees that everything comes back and nothing is missing.
pub fn settle(cluster: &Rc<Cluster>, clients: &Rc<Clients>) {
    let sim = &cluster.sim;
    cluster.heal();
    for node in cluster.nodes() {
        if node.process.borrow().as_ref().is_some_and(|process| process.offline.get() > 0) {
            // What an operator does about a partition that could not be created.
            node.die(Crash::Kill);
            node.restart_later();
        }
    }
    clients.stop();
    let limit = sim.now() + LONGEST_HEALING;
    if !cluster.run_until(MOST_POLLS, || clients.running() == 0 || sim.now() > limit) {
        return;
    }
    sim.require(clients.running() == 0, "L3", || format!("{} clients still wait after healing", clients.running()));
    if !whole(cluster, "L1") {
        return;
    }
    let mut probing = sim.executor.spawn(OUTSIDE, probe::run(Rc::clone(clients)));
    let limit = sim.now() + LONGEST_HEALING;
    if !cluster.run_until(MOST_POLLS, || matches!(probing.try_recv(), Ok(Some(_)) | Err(_)) || sim.now() > limit) {
        return;
    }
    sim.require(sim.now() <= limit, "L3", || "the last writes and reads do not end".to_owned());
    // The last high watermarks are on their way.
    let limit = sim.now() + Duration::from_secs(5);
    if cluster.run_until(MOST_POLLS, || sim.now() > limit) && whole(cluster, "L2") {
        several::at_rest(cluster);
        leftovers(cluster);
    }
}

/// Waits until every partition has all of its replicas in sync and every broker serves.
fn whole(cluster: &Rc<Cluster>, code: &'static str) -> bool {
    let limit = cluster.now() + LONGEST_HEALING;
    if !cluster.run_until(MOST_POLLS, || cluster.is_whole() || cluster.now() > limit) {
        return false;
    }
    let is_whole = cluster.is_whole();
    cluster.sim.require(is_whole, code, || {
        let image = cluster.newest.borrow();
        let fenced: Vec<_> = image.brokers().filter(|broker| broker.fenced).map(|broker| broker.node_id).collect();
        let states: Vec<_> = image.topics().flat_map(|topic| topic.partitions.values()).collect();
        let short = states.iter().find(|state| state.in_sync_replicas.len() < state.assigned_replicas.len());
        format!("long after everything has healed, fenced: {fenced:?}, short: {short:?}")
    })
}

/// U5: parked requests leave nothing behind, nor do killed processes.
fn leftovers(cluster: &Rc<Cluster>) {
    let sim = &cluster.sim;
    for node in cluster.nodes() {
        let Some(scope) = node.process.borrow().as_ref().map(|process| process.scope) else { continue };
        node.die(Crash::Kill);
        sim.require(sim.executor.tasks_in(scope) == 0, "U5", || "tasks outlive their process".to_owned());
    }
}
