//! The lives of a replica in one process: built from disk, run, and built again.
//! Invariant: a replica's life ends before the next begins, and its mailbox is closed between the two.

use std::rc::Rc;
use std::sync::Arc;

use madang::found::Found;
use madang_actors::child_spec::Incarnation;
use madang_actors::mailbox::ActorState;
use madang_cluster::replica::{LostRecords, Replica, ReplicaConfig};
use madang_protocol::types::Offset;
use madang_storage::{Checkpoint, Log, LogError, OpenLog, Recovery, Start};

use crate::cover;
use crate::executor::Exit;
use crate::invariants::storage::{self, Ending};
use crate::invariants::{restarts, supervision};
use crate::node::process::Process;
use crate::node::replica::ReplicaShell;
use crate::node::{Node, Slot};

/// Supervises a replica.
pub fn supervise(node: &Rc<Node>, process: &Rc<Process>, slot: &Rc<Slot>, found: Found) {
    let lives = lives(Rc::clone(node), Rc::clone(process), Rc::clone(slot), found);
    node.sim.executor.detach(process.scope, lives);
}

/// Runs one life after the other.
async fn lives(node: Rc<Node>, process: Rc<Process>, slot: Rc<Slot>, mut found: Found) {
    let sim = Rc::clone(&node.sim);
    while !slot.gone.get() {
        let incarnation = slot.incarnation.get() + 1;
        slot.incarnation.set(incarnation);
        match build(&node, &process, &slot, found) {
            Ok(shell) => {
                let mailbox = Arc::clone(slot.handle.actor().mailbox());
                mailbox.open(Incarnation(incarnation));
                let ended = sim.executor.spawn(process.scope, shell.live());
                let exit = ended.await;
                mailbox.close(Incarnation(incarnation), ActorState::Restarting);
                slot.handle.shared().suspend();
                supervision::closed(&sim, slot.handle.actor().id(), slot.handle.actor().depth());
                match exit {
                    Ok(Exit::Panicked(Some(text))) => {
                        sim.violate("U2", format!("{}: {text}", slot.handle.actor().id()));
                    }
                    Ok(Exit::Returned) if process.closing.get() || slot.gone.get() => return,
                    _ => cover!("replica restarted in its process"),
                }
            }
            Err(Unbuilt::Disk) => {}
            Err(Unbuilt::PagesLost) => {
                return node.sync_failed(&process, "a sync of a recovery failed");
            }
            Err(Unbuilt::Broken(code, what)) => sim.violate(code, what),
        }
        // What this life wrote is not synced.
        found = found.after_sync(false);
        sim.pause(1000, 20_000).await;
    }
}

/// Why a replica could not be built.
enum Unbuilt {
    /// The disk failed; it is tried again.
    Disk,
    /// A sync failed while the tail was recovered: what only the page cache had may be gone.
    PagesLost,
    /// An invariant is broken.
    Broken(&'static str, String),
}

fn build(node: &Rc<Node>, process: &Rc<Process>, slot: &Rc<Slot>, found: Found) -> Result<ReplicaShell, Unbuilt> {
    let sim = &node.sim;
    let partition = slot.partition;
    let before = slot.handle.shared().last_published();
    let found = before.as_deref().map_or(found, |before| found.after(before));
    let start = found.start;
    let ending = if start == Start::Clean { Ending::Clean } else { storage::ending(sim, partition) };
    if before.is_none() {
        restarts::opening(sim, partition, start, found.noted.is_some(), ending);
    }
    let open = found.open(slot.incarnation.get(), sim.wall());
    let config = (*slot.handle.shared().config()).clone();
    let (log, report) = open_log(node, slot, &config, &open, ending)?;
    if report.truncated_bytes > 0 {
        cover!("torn tail cut");
    }
    if report.below_recovery_point && before.is_none() {
        // What is appended from here on would pass for what was there.
        let end = report.log_end_offset;
        node.checkpoints.borrow_mut().insert(partition, Checkpoint { recovery_point: end, high_watermark: end });
    }
    let view = log.view();
    let lost = storage::recovered(sim, partition, &view, ending, log.confirmed_offset().0);
    if before.is_none()
        && let Some(log_dir) = process.log_dir.borrow_mut().as_mut()
    {
        log_dir.recovered(&report);
        restarts::recovered(sim, partition, log_dir.restart_facts().kind(), lost);
    }
    if start != Start::SameProcess {
        storage::confirmed_at_start(sim, partition, &slot.directory, &view, log.confirmed_offset().0);
    }
    let incarnation = slot.incarnation.get();
    let several = config.replication_factor > 1;
    let at_start = before.is_none().then(|| LostRecords::at_start(&report, found.high_watermark)).flatten();
    let replica = match at_start.filter(|_| several) {
        Some(lost) => {
            cover!("loss found at a start");
            Replica::after_loss(incarnation, log, config, lost)
        }
        None => match Replica::new(incarnation, log, config.clone(), before.as_deref()) {
            Ok(replica) => starting(replica, found.high_watermark, before.is_none() && several),
            // The first try has taken the log along.
            Err(lost) if several => {
                cover!("loss found at a restart");
                let (log, _) = open_log(node, slot, &config, &OpenLog { synced: false, ..open.clone() }, ending)?;
                Replica::after_loss(incarnation, log, config, lost)
            }
            Err(lost) => return Err(Unbuilt::Broken("S1", format!("{partition:?}: {lost}"))),
        },
    };
    Ok(ReplicaShell::new(node, process, slot, replica))
}

fn starting(mut replica: Replica, high_watermark: Offset, first: bool) -> Replica {
    if first {
        replica.starts_at(high_watermark);
    }
    replica
}

fn open_log(
    node: &Node,
    slot: &Slot,
    config: &ReplicaConfig,
    open: &OpenLog,
    ending: Ending,
) -> Result<(Log, Recovery), Unbuilt> {
    let (sim, partition) = (&node.sim, slot.partition);
    match Log::open(Arc::new(sim.disk.clone()), &slot.directory, config.log.clone(), open) {
        Ok(_) if sim.disk.is_crashed() => Err(Unbuilt::Disk),
        Ok(opened) => Ok(opened),
        // The device could not be read just now; it is tried again.
        Err(LogError::Quarantine { reason }) if reason.contains("cannot read") => Err(Unbuilt::Disk),
        Err(LogError::Quarantine { reason }) => {
            let what = format!("{partition:?} is set aside after {ending:?}: {reason}");
            Err(Unbuilt::Broken(if ending == Ending::Clean { "S5" } else { "S1" }, what))
        }
        Err(error) => {
            let text = error.to_string();
            sim.note("not opened", &[text.len() as i64]);
            Err(if text.starts_with("sync") { Unbuilt::PagesLost } else { Unbuilt::Disk })
        }
    }
}
