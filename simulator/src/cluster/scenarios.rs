//! Fixed stories of clusters: all processes die at once, all machines lose power at once.
//! Invariant: nobody helps: a cluster whose durability promises it comes back by itself, and one whose durability does not stops and says so.

use std::rc::Rc;
use std::time::Duration;

use madang_cluster::metadata::NO_LEADER;
use madang_storage::Crash;

use super::{Cluster, world};
use crate::clients::Clients;
use crate::sim::{OUTSIDE, Sim};
use crate::swarm::{FaultClass, Swarm};
use crate::world::Verdict;

/// Polls after which a story counts as spinning.
const MOST_POLLS: u64 = 60_000_000;
/// Acknowledged batches between two blows.
const ENOUGH: usize = 60;

/// A story.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What happens.
    pub name: &'static str,
    /// Whether records are of page-cache durability.
    page_cache: bool,
    crash: Crash,
}

/// All of them.
pub const ALL: [Scenario; 4] = [
    Scenario { name: "all machines lose power, fsync", page_cache: false, crash: Crash::Power },
    Scenario { name: "all processes are killed, fsync", page_cache: false, crash: Crash::Kill },
    Scenario { name: "all processes are killed, page-cache", page_cache: true, crash: Crash::Kill },
    Scenario { name: "all machines lose power, page-cache", page_cache: true, crash: Crash::Power },
];

/// Tells the story with what `seed` draws.
#[must_use]
pub fn run(scenario: &Scenario, seed: u64) -> Verdict {
    let sim = Sim::drawn(seed, |rng| Swarm {
        page_cache: scenario.page_cache,
        classes: Vec::new(),
        ..Swarm::of_cluster(3, rng)
    });
    world::run_with(&sim, None, |cluster| tell(cluster, scenario))
}

impl Scenario {
    /// Whether more is lost than the durability allows for.
    fn halts(self) -> bool {
        self.page_cache && self.crash == Crash::Power
    }
}

fn tell(cluster: &Rc<Cluster>, scenario: &Scenario) {
    let sim = &cluster.sim;
    cluster.nodes().iter().for_each(|node| node.start());
    let clients = Clients::start(sim, cluster.nodes());
    for blow in 1..=if scenario.halts() { 1 } else { 3 } {
        let limit = sim.now() + Duration::from_secs(120);
        let noted = || !scenario.page_cache || cluster.nodes().iter().all(|node| node.truth.has_notes());
        let ready = || cluster.acked() >= ENOUGH * blow && cluster.is_whole() && noted() || sim.now() > limit;
        if !cluster.run_until(MOST_POLLS, ready) {
            return;
        }
        sim.require(sim.now() <= limit, "L1", || format!("not whole, or nothing acknowledged, before blow {blow}"));
        for node in cluster.nodes() {
            node.die(scenario.crash);
        }
        sim.fault(if scenario.crash == Crash::Power { FaultClass::PowerCutOfAll } else { FaultClass::KillOfAll });
        for node in cluster.nodes() {
            if scenario.halts() {
                node.doubt();
            }
            node.restart_later();
        }
    }
    if scenario.halts() {
        halts(cluster, &clients);
    } else {
        world::settle(cluster, &clients);
    }
}

/// More is lost than the promise allows for: every partition stops, and nothing more is acknowledged.
fn halts(cluster: &Rc<Cluster>, clients: &Rc<Clients>) {
    let sim = &cluster.sim;
    clients.stop();
    let back = || cluster.nodes().iter().all(|node| node.serving().is_some());
    let limit = sim.now() + Duration::from_secs(60);
    if !cluster.run_until(MOST_POLLS, || back() || sim.now() > limit) {
        return;
    }
    sim.require(back(), "L8", || "a node does not serve after the power is back".to_owned());
    let (before, limit) = (cluster.acked(), sim.now() + Duration::from_secs(10));
    let waited = sim.executor.spawn(OUTSIDE, sim.executor.sleep(Duration::from_secs(10)));
    drop(waited);
    if !cluster.run_until(MOST_POLLS, || sim.now() >= limit) {
        return;
    }
    sim.require(cluster.acked() == before, "R12", || "a partition that may have lost records goes on".to_owned());
    let image = cluster.newest.borrow();
    for (topic, state) in image.topics().flat_map(|topic| topic.partitions.values().map(move |state| (topic, state))) {
        let stops = state.leader == NO_LEADER;
        sim.require(stops, "R12", || {
            format!("{} goes on as {state:?}, and all of its replicas are in doubt", topic.name)
        });
    }
}
