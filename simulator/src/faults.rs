//! What goes wrong, when and where.
//! Invariant: a fault is counted when it happens, or when it is certain to.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use madang_storage::{Crash, Disk, Fault};

use crate::clients::wire::Link;
use crate::clients::{Clients, topics};
use crate::node::replica::Death;
use crate::node::{Node, SCALE, Slot, controller, notes, process};
use crate::sim::Sim;
use crate::swarm::FaultClass;

/// Virtual time after which a run gives up waiting for its faults.
const LONGEST: Duration = Duration::from_secs(120);
/// Faults and classes that every run has to see.
pub const REQUIRED: (u64, usize) = (50, 6);

/// Injects faults until there were enough of them.
pub async fn inject(clients: Rc<Clients>) {
    let sim = Rc::clone(&clients.sim);
    while !enough(&sim) {
        if sim.now().since_start() > LONGEST {
            let seen = sim.faults();
            return sim.violate("SWARM", format!("too few faults happened: {seen:?}"));
        }
        let mean = u64::try_from(sim.swarm.fault_interval.as_micros()).unwrap_or(50_000);
        sim.pause(mean / 4, mean * 2).await;
        if let Some(class) = sim.next_fault() {
            strike(&clients, class).await;
        }
    }
}

fn enough(sim: &Sim) -> bool {
    let faults = sim.faults();
    faults.values().sum::<u64>() >= sim.swarm.faults && faults.len() >= REQUIRED.1
}

fn any_slot(sim: &Sim, node: &Node) -> Option<Rc<Slot>> {
    let slots = node.slots();
    slots.get(sim.below((slots.len() as u64).max(1)) as usize).cloned()
}

async fn strike(clients: &Rc<Clients>, class: FaultClass) {
    let (sim, node) = (&clients.sim, &clients.node);
    match class {
        FaultClass::Kill | FaultClass::PowerCut | FaultClass::MissingMetadata => crash(sim, node, class),
        FaultClass::ActorPanic => {
            if let Some(slot) = any_slot(sim, node) {
                let death = [Death::AtMessage, Death::AfterWrite, Death::Idle];
                slot.death.set(death.get(sim.below(3) as usize).copied());
            }
        }
        FaultClass::SyncError => {
            let data = || any_slot(sim, node).and_then(|slot| newest(sim, &slot.directory));
            let path = if sim.chance(1, 5) { newest(sim, &controller::directory()) } else { data() };
            if let Some(path) = path {
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
        FaultClass::Reconfigure => reconfigure(clients).await,
        FaultClass::ShardDeath => {
            let process = node.process.borrow().clone();
            if let Some(shard) = process.and_then(|process| process.shards.borrow().values().next().cloned()) {
                sim.fault(class);
                shard.dies.set(true);
            }
        }
        FaultClass::ControllerDeath => {
            if let Some(process) = node.serving() {
                process.controller_dies.set(true);
            }
        }
        FaultClass::HandlerPanic => {
            if let Some(process) = node.serving() {
                process.handler_dies.set(Some(sim.below(3)));
            }
        }
        FaultClass::CleanRestart => clean_restart(sim, node).await,
        FaultClass::Notes => spoil_notes(sim, node).await,
        // Of clusters.
        FaultClass::PowerCutOfAll
        | FaultClass::KillOfAll
        | FaultClass::Freeze
        | FaultClass::LinkCut
        | FaultClass::LinkReset
        | FaultClass::LinkClog
        | FaultClass::WipedDirectory
        | FaultClass::OldDirectory => {}
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

/// The newest file of a log, by name.
pub fn newest(sim: &Sim, directory: &Path) -> Option<PathBuf> {
    let names = sim.disk.list(directory).ok()?;
    let newest = names.iter().rfind(|name| name.ends_with(".log"))?;
    Some(directory.join(newest))
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

/// A topic's settings change, as an administrator changes them.
async fn reconfigure(clients: &Rc<Clients>) {
    let sim = &clients.sim;
    let Some(target) = clients.any_target() else { return };
    let configs = [
        ("segment.bytes", ((2600 + sim.below(8000)) * SCALE).to_string()),
        ("index.interval.bytes", (64 + sim.below(700)).to_string()),
    ];
    if topics::configure(clients, &mut Link::default(), &target.topic, &configs).await {
        sim.fault(FaultClass::Reconfigure);
    }
}

async fn spoil_notes(sim: &Rc<Sim>, node: &Rc<Node>) {
    if sim.chance(1, 3) {
        sim.fault(FaultClass::Notes);
        node.memory.file.set_full(true);
        sim.pause(5000, 200_000).await;
        node.memory.file.set_full(false);
    } else if node.is_up() {
        crash(sim, node, FaultClass::Notes);
        notes::mishap(node);
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
