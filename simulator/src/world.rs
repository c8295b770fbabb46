//! One seed from its start to its verdict: faults, healing, liveness, the last look at everything.
//! Invariant: the verdict depends on the seed alone.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use madang_actors::mutants;
use madang_storage::Crash;

use crate::clients::{Clients, probe};
use crate::executor::Scope;
use crate::faults;
use crate::node::Node;
use crate::sim::{OUTSIDE, Sim, Violation};
use crate::swarm::FaultClass;

/// Polls after which a run counts as spinning.
const MOST_POLLS: u64 = 20_000_000;
/// Virtual time that healing may take.
const LONGEST_HEALING: Duration = Duration::from_secs(120);

/// How a seed ended.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// The first broken invariant.
    pub violation: Option<Violation>,
    /// Polls of tasks.
    pub ticks: u64,
    /// Of every event.
    pub digest: u64,
    /// By class.
    pub faults: BTreeMap<FaultClass, u64>,
    /// Batches acknowledged.
    pub acked: usize,
}

/// Runs one seed, with a planted bug or without.
#[must_use]
pub fn run(seed: u64, mutant: Option<u32>) -> Verdict {
    mutants::activate(mutant);
    let sim = Sim::new(seed);
    let node = Node::new(&sim);
    drive(&sim, &node);
    sim.executor.kill(OUTSIDE);
    if let Some(process) = node.process.borrow_mut().take() {
        sim.executor.kill(process.scope);
    }
    mutants::activate(None);
    let history = sim.history.borrow();
    Verdict {
        seed,
        violation: sim.violation(),
        ticks: sim.executor.polls(),
        digest: sim.digest(),
        faults: sim.faults(),
        acked: history.partitions.values().map(|known| known.acked.len()).sum(),
    }
}

fn drive(sim: &Rc<Sim>, node: &Rc<Node>) {
    node.start();
    let clients = Clients::start(sim, vec![Rc::clone(node)]);
    let mut injecting = sim.executor.spawn(OUTSIDE, faults::inject(Rc::clone(&clients)));
    if !run_until(sim, node, || matches!(injecting.try_recv(), Ok(Some(_)) | Err(_))) {
        return;
    }
    let faults = sim.faults();
    let (count, classes) = faults::REQUIRED;
    sim.require(faults.values().sum::<u64>() >= count && faults.len() >= classes, "SWARM", || {
        format!("a required fault did not happen: {faults:?}")
    });
    sim.heal();
    if node.process.borrow().as_ref().is_some_and(|process| process.offline.get() > 0) {
        // What an operator does about a partition that could not be created.
        node.die(Crash::Kill);
    }
    if !node.is_up() {
        node.restart_later();
    }
    clients.stop();
    let limit = sim.now() + LONGEST_HEALING;
    if !run_until(sim, node, || clients.running() == 0 || sim.now() > limit) {
        return;
    }
    sim.require(clients.running() == 0, "L3", || format!("{} clients still wait after healing", clients.running()));
    let mut probing = sim.executor.spawn(OUTSIDE, probe::run(Rc::clone(&clients)));
    let limit = sim.now() + LONGEST_HEALING;
    if run_until(sim, node, || matches!(probing.try_recv(), Ok(Some(_)) | Err(_)) || sim.now() > limit) {
        sim.require(sim.now() <= limit, "L3", || "the last writes and reads do not end".to_owned());
        leftovers(sim, node);
    }
}

/// Runs until `done`; false if the run is over for another reason.
fn run_until(sim: &Sim, node: &Rc<Node>, mut done: impl FnMut() -> bool) -> bool {
    loop {
        if sim.violation().is_some() {
            return false;
        }
        if done() {
            return true;
        }
        if sim.executor.polls() > MOST_POLLS {
            sim.violate("L3", "the run spins");
            return false;
        }
        if sim.disk.is_crashed() {
            let crash = if sim.chance(1, 2) { Crash::Power } else { Crash::Kill };
            sim.fault(if crash == Crash::Power { FaultClass::PowerCut } else { FaultClass::Kill });
            node.die(crash);
            node.restart_later();
        }
        if !sim.executor.step() {
            sim.violate("L3", "nothing is left to run");
            return false;
        }
    }
}

/// U5: parked requests leave nothing behind, nor does a killed process.
fn leftovers(sim: &Rc<Sim>, node: &Rc<Node>) {
    let process = node.process.borrow().clone();
    let Some(process) = process else { return };
    for slot in process.slots.borrow().values() {
        let waiting = slot.handle.waiters().len();
        sim.require(waiting == 0, "U5", || {
            format!("{} parked fetches are left on {}", waiting, slot.handle.actor().id())
        });
    }
    let scope: Scope = process.scope;
    drop(process);
    node.die(Crash::Kill);
    sim.require(sim.executor.tasks_in(scope) == 0, "U5", || "tasks outlive their process".to_owned());
}
