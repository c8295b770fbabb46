//! What goes wrong, when and where.
//! Invariant: a fault is counted when it happens, or when it is certain to.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use madang_cluster::replica::ReplicaMessage;
use madang_storage::{Crash, Disk, Fault};

use crate::node::replica::Death;
use crate::node::{Node, Slot, process};
use crate::sim::Sim;
use crate::swarm::FaultClass;

/// Virtual time after which a run gives up waiting for its faults.
const LONGEST: Duration = Duration::from_secs(120);
/// Faults and classes that every run has to see.
pub const REQUIRED: (u64, usize) = (50, 6);

/// Injects faults until there were enough of them.
pub async fn inject(sim: Rc<Sim>, node: Rc<Node>) {
    while !enough(&sim) {
        if sim.now().since_start() > LONGEST {
            let seen = sim.faults();
            return sim.violate("SWARM", format!("too few faults happened: {seen:?}"));
        }
        let mean = u64::try_from(sim.swarm.fault_interval.as_micros()).unwrap_or(50_000);
        sim.pause(mean / 4, mean * 2).await;
        let total: u64 = sim.swarm.classes.iter().map(|(_, weight)| weight).sum();
        let mut drawn = sim.below(total);
        let picked = sim.swarm.classes.iter().find(|(_, weight)| match drawn.checked_sub(*weight) {
            Some(left) => {
                drawn = left;
                false
            }
            None => true,
        });
        if let Some((class, _)) = picked {
            strike(&sim, &node, *class).await;
        }
    }
}

fn enough(sim: &Sim) -> bool {
    let faults = sim.faults();
    faults.values().sum::<u64>() >= sim.swarm.faults && faults.len() >= REQUIRED.1
}

fn any_slot(sim: &Sim, node: &Node) -> Option<Rc<Slot>> {
    let partitions = node.partitions.borrow();
    let spec = partitions.get(sim.below(partitions.len() as u64) as usize)?;
    node.slot(spec.partition)
}

async fn strike(sim: &Rc<Sim>, node: &Rc<Node>, class: FaultClass) {
    match class {
        FaultClass::Kill | FaultClass::PowerCut | FaultClass::MissingMetadata => crash(sim, node, class),
        FaultClass::ActorPanic => {
            if let Some(slot) = any_slot(sim, node) {
                let death = [Death::AtMessage, Death::AfterWrite, Death::Idle];
                slot.death.set(death.get(sim.below(3) as usize).copied());
            }
        }
        FaultClass::SyncError => {
            if let Some(path) = any_slot(sim, node).and_then(|slot| newest_segment(sim, &slot)) {
                drop(sim.disk.fail_next_sync(&path));
            }
        }
        FaultClass::SlowSync => {
            let wait = Duration::from_millis(50 + sim.below(1500));
            node.slow_sync.set(Some(if sim.chance(1, 4) { None } else { Some(wait) }));
        }
        FaultClass::ShortWrite => {
            let length = sim.below(400) as usize;
            plan(sim, class, Fault::Short(length));
        }
        FaultClass::WriteError => plan(sim, class, Fault::Error(ErrorKind::Other)),
        FaultClass::DiskFull => {
            sim.fault(class);
            sim.disk.set_capacity(Some(0));
            sim.pause(5000, 200_000).await;
            sim.disk.set_capacity(None);
        }
        FaultClass::ReadError => unreadable(sim, node).await,
        // Drawn for each answer where it travels.
        FaultClass::ConnectionLoss => {}
        FaultClass::ClockJump => {
            sim.fault(class);
            let by = i64::try_from(sim.below(7_200_000)).unwrap_or(0);
            sim.jump(if sim.chance(1, 2) { by } else { -by });
        }
        FaultClass::Reconfigure => reconfigure(sim, node),
        FaultClass::ShardDeath => {
            if let Some(shard) = node.shard() {
                sim.fault(class);
                shard.dies.set(true);
            }
        }
        FaultClass::CleanRestart => clean_restart(sim, node).await,
    }
}

fn plan(sim: &Sim, class: FaultClass, fault: Fault) {
    sim.fault(class);
    sim.disk.plan(sim.disk.operations() + sim.below(8), fault);
}

fn crash(sim: &Rc<Sim>, node: &Rc<Node>, class: FaultClass) {
    if !node.is_up() {
        return;
    }
    sim.fault(class);
    node.forgetful.set(class == FaultClass::MissingMetadata);
    node.die(if class == FaultClass::PowerCut { Crash::Power } else { Crash::Kill });
    node.restart_later();
}

fn newest_segment(sim: &Sim, slot: &Slot) -> Option<PathBuf> {
    let names = sim.disk.list(&slot.directory).ok()?;
    let newest = names.iter().rfind(|name| name.ends_with(".log"))?;
    Some(slot.directory.join(newest))
}

async fn unreadable(sim: &Rc<Sim>, node: &Rc<Node>) {
    let Some(slot) = any_slot(sim, node) else { return };
    let names = sim.disk.list(&slot.directory).unwrap_or_default();
    let Some(name) = names.get(sim.below(names.len() as u64) as usize) else { return };
    if sim.disk.fail_reads(&slot.directory.join(name), 0..u64::MAX).is_ok() {
        sim.fault(FaultClass::ReadError);
        sim.pause(5000, 200_000).await;
        sim.disk.mend();
    }
}

fn reconfigure(sim: &Sim, node: &Node) {
    let Some(slot) = any_slot(sim, node) else { return };
    let mut config = node.replica_config(&slot.spec);
    config.log.segment_bytes = 2600 + sim.below(8000);
    config.log.index_interval_bytes = 64 + sim.below(700);
    slot.handle.shared().set_config(config.clone());
    if slot.handle.actor().try_send(ReplicaMessage::Configure(Box::new(config))).is_ok() {
        crate::cover!("configuration changed");
        sim.fault(FaultClass::Reconfigure);
    }
}

async fn clean_restart(sim: &Rc<Sim>, node: &Rc<Node>) {
    let running = node.process.borrow().clone();
    let Some(running) = running.filter(|running| running.log_dir.borrow().is_some()) else { return };
    sim.fault(FaultClass::CleanRestart);
    process::close(node, &running).await;
    if sim.chance(1, 2) {
        sim.fault(FaultClass::PowerCut);
        node.die(Crash::Power);
    }
    node.restart_later();
}
