//! What goes wrong in a cluster, when and where.
//! Invariant: stored data is lost by one node alone in a run, so that what was promised is due; a fault is counted when it happens.

use std::rc::Rc;
use std::time::Duration;

use madang_storage::Crash;

use super::{Cluster, disks};
use crate::clients::Clients;
use crate::cover;
use crate::faults::{REQUIRED, newest};
use crate::node::replica::Death;
use crate::node::{Node, Slot, controller, process};
use crate::sim::{OUTSIDE, Sim};
use crate::swarm::FaultClass;

/// Virtual time after which a run gives up waiting for its faults.
const LONGEST: Duration = Duration::from_secs(240);

/// Injects faults until there were enough of them.
pub async fn inject(clients: Rc<Clients>, cluster: Rc<Cluster>) {
    let sim = Rc::clone(&clients.sim);
    while !enough(&sim) {
        if sim.now().since_start() > LONGEST {
            let seen = sim.faults();
            return sim.violate("SWARM", format!("too few faults happened: {seen:?}"));
        }
        let mean = u64::try_from(sim.swarm.fault_interval.as_micros()).unwrap_or(50_000);
        sim.pause(mean / 4, mean * 2).await;
        if sim.chance(1, 12) {
            // Time to come back: what strikes a cluster that is down anyway shows little.
            sim.pause(1_000_000, 5_000_000).await;
        }
        if let Some(class) = sim.next_fault() {
            strike(&cluster, class).await;
        }
    }
}

fn enough(sim: &Sim) -> bool {
    let faults = sim.faults();
    faults.values().sum::<u64>() >= sim.swarm.faults && faults.len() >= REQUIRED.1
}

fn any_node(cluster: &Cluster) -> Option<Rc<Node>> {
    let nodes = cluster.nodes();
    nodes.get(cluster.sim.below((nodes.len() as u64).max(1)) as usize).cloned()
}

fn victim(cluster: &Cluster) -> Option<Rc<Node>> {
    cluster.nodes().into_iter().find(|node| node.id.0 == cluster.sim.swarm.links.victim)
}

/// A node whose machine may lose power: with page-cache durability that costs what its logs were counted on for.
fn mortal(cluster: &Cluster) -> Option<Rc<Node>> {
    if cluster.sim.swarm.page_cache { victim(cluster) } else { any_node(cluster) }
}

/// A node whose process may die: a kill costs nothing that is promised, but with page-cache durability while not every log is noted yet.
fn killable(cluster: &Cluster) -> Option<Rc<Node>> {
    any_node(cluster).filter(|node| survives(cluster, node)).or_else(|| victim(cluster))
}

fn survives(cluster: &Cluster, node: &Node) -> bool {
    !cluster.sim.swarm.page_cache || node.truth.has_notes() || node.id.0 == cluster.sim.swarm.links.victim
}

fn any_slot(sim: &Sim, node: &Node) -> Option<Rc<Slot>> {
    let slots = node.slots();
    slots.get(sim.below((slots.len() as u64).max(1)) as usize).cloned()
}

async fn strike(cluster: &Rc<Cluster>, class: FaultClass) {
    let sim = &cluster.sim;
    match class {
        FaultClass::Kill | FaultClass::PowerCut | FaultClass::WipedDirectory | FaultClass::OldDirectory => {
            end_one(cluster, class);
        }
        FaultClass::PowerCutOfAll | FaultClass::KillOfAll => end_all(cluster, class),
        FaultClass::Freeze => freeze(cluster),
        FaultClass::LinkCut | FaultClass::LinkReset | FaultClass::LinkClog => links(cluster, class),
        FaultClass::ActorPanic => {
            if let Some(slot) = any_node(cluster).and_then(|node| any_slot(sim, &node)) {
                let death = [Death::AtMessage, Death::AfterWrite, Death::Idle];
                slot.death.set(death.get(sim.below(3) as usize).copied());
            }
        }
        FaultClass::ControllerDeath => {
            if let Some(process) = any_node(cluster).and_then(|node| node.serving()) {
                process.controller_dies.set(true);
            }
        }
        FaultClass::ShardDeath => {
            let running = |node: Rc<Node>| node.process.borrow().clone();
            let mut all = cluster.nodes().into_iter().filter_map(running);
            if let Some(shard) = all.find_map(|process| process.shards.borrow().values().next().cloned()) {
                sim.fault(class);
                shard.dies.set(true);
            }
        }
        FaultClass::SyncError => fail_sync(cluster),
        FaultClass::SlowSync => {
            let wait = Duration::from_millis(50 + sim.below(1500));
            let wait = if sim.chance(1, 4) { None } else { Some(wait) };
            // One that does not end costs the node its directory.
            if let Some(node) = if wait.is_some() { mortal(cluster) } else { victim(cluster) } {
                node.slow_sync.set(Some(wait));
            }
        }
        FaultClass::ClockJump => {
            sim.fault(class);
            let by = i64::try_from(sim.below(7_200_000)).unwrap_or(0);
            if let Some(node) = any_node(cluster) {
                node.sim.jump(if sim.chance(1, 2) { by } else { -by });
            }
        }
        FaultClass::CleanRestart => {
            if let Some(node) = any_node(cluster).filter(|node| survives(cluster, node)) {
                sim.executor.detach(OUTSIDE, clean_restart(Rc::clone(cluster), node));
            }
        }
        // Drawn for each answer where it travels, or of a lone node.
        _ => {}
    }
}

fn end_one(cluster: &Rc<Cluster>, class: FaultClass) {
    let sim = &cluster.sim;
    let loses = matches!(class, FaultClass::WipedDirectory | FaultClass::OldDirectory);
    let node = match class {
        _ if loses => victim(cluster),
        FaultClass::Kill => killable(cluster),
        _ => mortal(cluster),
    };
    let Some(node) = node.filter(|node| node.is_up()) else { return };
    if class == FaultClass::OldDirectory && node.backup.borrow().is_none() {
        node.die(Crash::Kill);
        disks::back_up(&node);
        node.restart_later();
        return sim.fault(FaultClass::Kill);
    }
    let crash = if class == FaultClass::PowerCut { Crash::Power } else { Crash::Kill };
    end(cluster, &node, crash);
    match class {
        FaultClass::WipedDirectory => disks::wipe(&node),
        FaultClass::OldDirectory => drop(disks::restore(&node)),
        _ => {}
    }
    sim.fault(class);
    node.restart_later();
}

fn end(cluster: &Cluster, node: &Rc<Node>, crash: Crash) {
    node.die(crash);
    if crash == Crash::Power && cluster.sim.swarm.page_cache {
        node.doubt();
    }
}

/// What page-cache durability promises does not outlive a power cut of all.
fn end_all(cluster: &Rc<Cluster>, class: FaultClass) {
    let power = class == FaultClass::PowerCutOfAll;
    if cluster.sim.swarm.page_cache && (power || !cluster.nodes().iter().all(|node| survives(cluster, node))) {
        return;
    }
    cluster.sim.fault(class);
    let crash = if power { Crash::Power } else { Crash::Kill };
    for node in cluster.nodes() {
        end(cluster, &node, crash);
    }
    for node in cluster.nodes() {
        node.restart_later();
    }
}

fn freeze(cluster: &Rc<Cluster>) {
    let sim = Rc::clone(&cluster.sim);
    let Some(process) = any_node(cluster).and_then(|node| node.process.borrow().clone()) else { return };
    if sim.executor.is_frozen(process.scope) {
        return;
    }
    sim.fault(FaultClass::Freeze);
    let session = sim.swarm.links.session_ms * 1000;
    let longest = if sim.chance(1, 2) { session / 2 } else { session * 3 };
    let scope = process.scope;
    sim.executor.freeze(scope);
    sim.clone().executor.detach(OUTSIDE, async move {
        sim.pause(10_000, longest).await;
        if sim.executor.is_frozen(scope) {
            cover!("process goes on after a freeze");
            sim.executor.thaw(scope);
        }
    });
}

fn links(cluster: &Rc<Cluster>, class: FaultClass) {
    let sim = Rc::clone(&cluster.sim);
    let (Some(one), Some(other)) = (any_node(cluster), any_node(cluster)) else { return };
    if one.id == other.id {
        return;
    }
    sim.fault(class);
    let (one, other) = (one.id, other.id);
    match class {
        FaultClass::LinkReset => cluster.network.reset(one, other),
        FaultClass::LinkClog => {
            cluster.network.clog(one, other, sim.now() + Duration::from_millis(20 + sim.below(1500)));
        }
        _ => {
            // One way, both ways, or all that one of them has.
            let all = sim.chance(1, 3);
            let ways: Vec<_> = match sim.below(2) {
                _ if all => {
                    let others = cluster.ids().into_iter().filter(|id| *id != one);
                    others.flat_map(|id| [(one, id), (id, one)]).collect()
                }
                0 => vec![(one, other)],
                _ => vec![(one, other), (other, one)],
            };
            ways.iter().for_each(|(from, to)| cluster.network.cut(*from, *to));
            let cluster = Rc::clone(cluster);
            sim.clone().executor.detach(OUTSIDE, async move {
                sim.pause(50_000, 8_000_000).await;
                ways.iter().for_each(|(from, to)| cluster.network.mend(*from, *to));
            });
        }
    }
}

fn fail_sync(cluster: &Cluster) {
    let sim = &cluster.sim;
    let of_metadata = sim.chance(1, 3);
    let node = if of_metadata { mortal(cluster) } else { victim(cluster) };
    let Some(node) = node else { return };
    let path = match of_metadata {
        true => newest(&node.sim, &controller::directory()),
        false => any_slot(sim, &node).and_then(|slot| newest(&node.sim, &slot.directory)),
    };
    if let Some(path) = path {
        drop(node.sim.disk.fail_next_sync(&path));
    }
}

async fn clean_restart(cluster: Rc<Cluster>, node: Rc<Node>) {
    let running = node.process.borrow().clone().filter(|running| running.serving.get() && !running.closing.get());
    let Some(running) = running else { return };
    cluster.sim.fault(FaultClass::CleanRestart);
    let marked = process::close(&node, &running).await;
    if !marked && cluster.sim.swarm.page_cache {
        cover!("stop that was not clean");
    }
    if !node.is_up() {
        node.restart_later();
    }
}
