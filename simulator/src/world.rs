//! One seed from its start to its verdict: faults, healing, liveness, the last look at everything.
//! Invariant: the verdict depends on the seed alone.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use madang_cluster::replica::RequiredAcks;
use madang_protocol::types::TopicPartition;
use madang_storage::{Crash, mutants};

use crate::clients::{Clients, producer};
use crate::executor::Scope;
use crate::faults;
use crate::invariants::{batches, replication};
use crate::node::Node;
use crate::sim::{OUTSIDE, Sim, Violation};
use crate::swarm::FaultClass;

/// Polls after which a run counts as spinning.
const MOST_POLLS: u64 = 20_000_000;
/// Virtual time that healing may take.
const LONGEST_HEALING: Duration = Duration::from_secs(120);
/// Writes and reads of each partition at the end.
const PROBES: usize = 10;

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
    let clients = Clients::start(sim, node);
    let mut injecting = sim.executor.spawn(OUTSIDE, faults::inject(Rc::clone(sim), Rc::clone(node)));
    if !run_until(sim, || matches!(injecting.try_recv(), Ok(Some(_)) | Err(_))) {
        return;
    }
    let faults = sim.faults();
    let (count, classes) = faults::REQUIRED;
    sim.require(faults.values().sum::<u64>() >= count && faults.len() >= classes, "SWARM", || {
        format!("a required fault did not happen: {faults:?}")
    });
    sim.heal();
    if !node.is_up() {
        node.restart_later();
    }
    clients.stop();
    let limit = sim.now() + LONGEST_HEALING;
    if !run_until(sim, || clients.running() == 0 || sim.now() > limit) {
        return;
    }
    sim.require(clients.running() == 0, "L3", || format!("{} clients still wait after healing", clients.running()));
    let mut probing = sim.executor.spawn(OUTSIDE, probe(Rc::clone(sim), Rc::clone(node)));
    let limit = sim.now() + LONGEST_HEALING;
    if run_until(sim, || matches!(probing.try_recv(), Ok(Some(_)) | Err(_)) || sim.now() > limit) {
        sim.require(sim.now() <= limit, "L3", || "the last writes and reads do not end".to_owned());
        leftovers(sim, node);
    }
}

/// Runs until `done`; false if the run is over for another reason.
fn run_until(sim: &Sim, mut done: impl FnMut() -> bool) -> bool {
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
        if !sim.executor.step() {
            sim.violate("L3", "nothing is left to run");
            return false;
        }
    }
}

/// Liveness, and a full read of everything.
async fn probe(sim: Rc<Sim>, node: Rc<Node>) {
    let partitions: Vec<(TopicPartition, bool)> =
        node.partitions.borrow().iter().map(|spec| (spec.partition, spec.internal)).collect();
    for (partition, internal) in partitions {
        for _ in 0..if internal { 0 } else { PROBES } {
            let mut answer = None;
            for _ in 0..50 {
                // A new batch each time: an attempt whose answer was lost may have been stored.
                let batch = vec![producer::batch(&sim, 2, None)];
                let answers = node.produce(partition, batch, RequiredAcks::All, Duration::from_secs(5)).await;
                answer = answers.into_iter().next();
                if matches!(answer, Some(Ok(_))) {
                    break;
                }
                sim.pause(10_000, 100_000).await;
            }
            sim.require(matches!(answer, Some(Ok(_))), "L3", || {
                format!("{partition:?}: no write succeeds: {answer:?}")
            });
        }
        read_all(&sim, &node, partition).await;
    }
}

async fn read_all(sim: &Sim, node: &Rc<Node>, partition: TopicPartition) {
    let high = sim.history.borrow_mut().of(partition).high_watermark;
    let start = sim.history.borrow_mut().of(partition).log_start;
    let (mut at, mut all) = (start, Vec::new());
    for _ in 0..100_000 {
        if at >= high {
            break;
        }
        match node.fetch(partition, at, 1 << 16, Duration::from_millis(10)).await {
            Ok(fetched) => {
                let reads = batches(&fetched.records);
                replication::consumed(sim, partition, &reads, at, fetched.high_watermark, -1);
                at = reads.last().map_or(at, |last| last.header.next_offset().0);
                all.extend(reads);
            }
            Err(failure) => {
                // Retention goes on meanwhile.
                let start = sim.history.borrow_mut().of(partition).log_start;
                if start > at {
                    at = start;
                    all.clear();
                }
                sim.note("full read failed", &[at]);
                sim.pause(1000, 10_000).await;
                if sim.now().since_start() > Duration::from_secs(400) {
                    return sim.violate("L3", format!("{partition:?}: {at} cannot be read: {failure:?}"));
                }
            }
        }
    }
    sim.require(at >= high, "L5", || format!("{partition:?}: read up to {at} of {high}"));
    for _ in 0..PROBES {
        let from = start + i64::try_from(sim.below(u64::try_from(high - start).unwrap_or(0).max(1))).unwrap_or(0);
        if let Ok(fetched) = node.fetch(partition, from, 1, Duration::ZERO).await {
            let reads = batches(&fetched.records);
            let found = reads.first().is_some_and(|read| read.header.next_offset().0 > from) || from >= high;
            sim.require(found, "L5", || format!("{partition:?}: nothing is read at {from}"));
            replication::consumed(sim, partition, &reads, from, fetched.high_watermark, -1);
        }
    }
    let start = sim.history.borrow_mut().of(partition).log_start;
    replication::nothing_lost(sim, partition, &all, start..high);
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
