//! One life of the node: opening the directory, supervising replicas, an orderly end.
//! Invariant: a replica's life ends before the next begins, and its mailbox is closed between the two.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use madang_actors::actor_ref::ActorRef;
use madang_actors::child_spec::Incarnation;
use madang_actors::mailbox::ActorState;
use madang_cluster::replica::{Replica, ReplicaHandle, ReplicaMessage, SharedReplica};
use madang_protocol::types::{LeaderEpoch, NodeId, Offset, Uuid};
use madang_storage::{Crash, Log, LogDir, LogDirError, LogError, OpenLog, OpenLogDir, Start};

use crate::cover;
use crate::executor::Exit;
use crate::invariants::storage::{self, Ending};
use crate::invariants::supervision;
use crate::node::replica::ReplicaShell;
use crate::node::shard;
use crate::node::{DATA, Node, PartitionSpec, Process, Slot};

/// Opens the directory and starts everything. Returns at once if the disk fails, else when the process ends.
pub async fn run(node: Rc<Node>, process: Rc<Process>, ending: Ending) {
    let Ok(clean) = open_directory(&node, &process) else { return };
    let how = match (ending, clean) {
        (_, true) => (Start::Clean, Ending::Clean),
        (Ending::First, _) => (Start::Unclean, Ending::First),
        (other, _) => (Start::Unclean, other),
    };
    if node.forgetful.take() {
        meet_strays(&node, &process);
    }
    let specs = node.partitions.borrow().clone();
    for spec in specs {
        if start_replica(&node, &process, &spec, how).is_err() {
            // Nothing but the disk can fail here; the process exits.
            process.log_dir.borrow_mut().take();
            return;
        }
    }
    shard::start(&node, &process);
    loop {
        node.sim.executor.sleep(Duration::from_millis(250)).await;
        for slot in process.slots.borrow().values() {
            drop(slot.handle.actor().try_send(ReplicaMessage::Retain));
        }
    }
}

fn open_directory(node: &Rc<Node>, process: &Process) -> Result<bool, LogDirError> {
    let who = OpenLogDir {
        cluster_id: "simulated".to_owned(),
        node_id: NodeId(1),
        new_directory_id: Uuid([7; 16]),
        boot_id: "boot".to_owned(),
    };
    let directory = LogDir::open(Arc::new(node.sim.disk.clone()), Path::new(DATA), &who)?;
    let clean = directory.restart_facts().clean_marker;
    *process.log_dir.borrow_mut() = Some(directory);
    Ok(clean)
}

/// The metadata is not there yet: what lies in the directory belongs to nobody that is known, and stays.
fn meet_strays(node: &Node, process: &Process) {
    cover!("start with missing metadata");
    let directory = process.log_dir.borrow();
    let Some(directory) = directory.as_ref() else { return };
    for stray in directory.partitions().unwrap_or_default() {
        // No tombstone names it, so there is no id to delete it by.
        if directory.delete_partition(&stray, Uuid([0; 16])).is_ok() {
            node.sim.note("stray deleted", &[i64::from(stray.partition)]);
        }
    }
}

fn start_replica(
    node: &Rc<Node>,
    process: &Rc<Process>,
    spec: &PartitionSpec,
    how: (Start, Ending),
) -> Result<(), LogDirError> {
    let directory = match process.log_dir.borrow().as_ref() {
        Some(log_dir) => log_dir.create_partition(&spec.topic, spec.partition.partition, spec.partition.topic_id)?,
        None => return Ok(()),
    };
    let config = node.replica_config(spec);
    let epoch = Some(leader_epoch(process));
    let shared = Arc::new(SharedReplica::new(spec.partition, Arc::clone(&spec.topic), spec.internal, epoch, config));
    let actor = ActorRef::new(format!("{}-{}", spec.topic, spec.partition.partition), node.capacity());
    let slot = Rc::new(Slot {
        spec: spec.clone(),
        directory,
        handle: ReplicaHandle::new(shared, actor),
        incarnation: Cell::new(0),
        death: Cell::new(None),
        close: RefCell::new(None),
    });
    process.slots.borrow_mut().insert(spec.partition, Rc::clone(&slot));
    node.sim.executor.detach(process.scope, supervise(Rc::clone(node), Rc::clone(process), slot, how));
    Ok(())
}

fn leader_epoch(process: &Process) -> LeaderEpoch {
    LeaderEpoch(i32::try_from(process.number).unwrap_or(i32::MAX))
}

/// Runs one life of a replica after the other.
async fn supervise(node: Rc<Node>, process: Rc<Process>, slot: Rc<Slot>, mut how: (Start, Ending)) {
    let sim = Rc::clone(&node.sim);
    loop {
        let incarnation = slot.incarnation.get() + 1;
        slot.incarnation.set(incarnation);
        match build(&node, &process, &slot, how) {
            Ok(shell) => {
                how = (Start::SameProcess, Ending::Kill);
                let mailbox = Arc::clone(slot.handle.actor().mailbox());
                mailbox.open(Incarnation(incarnation));
                drop(slot.handle.actor().try_send(ReplicaMessage::Lead { leader_epoch: leader_epoch(&process) }));
                let ended = sim.executor.spawn(process.scope, shell.live());
                let exit = ended.await;
                mailbox.close(Incarnation(incarnation), ActorState::Restarting);
                slot.handle.shared().suspend();
                supervision::closed(&sim, slot.handle.actor().id(), slot.handle.actor().depth());
                match exit {
                    Ok(Exit::Panicked(Some(text))) => {
                        sim.violate("U2", format!("{}: {text}", slot.handle.actor().id()));
                    }
                    Ok(Exit::Returned) if process.log_dir.borrow().is_none() => return,
                    _ => cover!("replica restarted in its process"),
                }
            }
            Err(Unbuilt::Disk) => {}
            Err(Unbuilt::PagesLost) => {
                node.pages_lost.set(true);
                how.1 = Ending::Lossy;
            }
            Err(Unbuilt::Broken(code, what)) => sim.violate(code, what),
        }
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

fn build(
    node: &Rc<Node>,
    process: &Rc<Process>,
    slot: &Rc<Slot>,
    (start, ending): (Start, Ending),
) -> Result<ReplicaShell, Unbuilt> {
    let sim = &node.sim;
    let partition = slot.spec.partition;
    let before = slot.handle.shared().last_published();
    // The node notes a recovery point when it creates a partition.
    let checkpoint = Some(Offset(*node.checkpoints.borrow_mut().entry(partition).or_insert(0)));
    let recovery_point = before.as_ref().map(|before| before.confirmed_end).or(checkpoint);
    let open = OpenLog {
        start,
        recovery_point,
        incarnation: slot.incarnation.get(),
        wall: sim.wall(),
        seed: sim.random(),
        ..OpenLog::default()
    };
    let config = (*slot.handle.shared().config()).clone();
    let opened = Log::open(Arc::new(sim.disk.clone()), &slot.directory, config.log.clone(), &open);
    let (log, report) = match opened {
        Ok(opened) => opened,
        // The device could not be read just now; it is tried again.
        Err(LogError::Quarantine { reason }) if reason.contains("cannot read") => return Err(Unbuilt::Disk),
        Err(LogError::Quarantine { reason }) => {
            let what = format!("{partition:?} is set aside after {ending:?}: {reason}");
            return Err(Unbuilt::Broken(if ending == Ending::Clean { "S5" } else { "S1" }, what));
        }
        Err(error) => {
            let text = error.to_string();
            sim.note("not opened", &[text.len() as i64]);
            return Err(if text.starts_with("sync") { Unbuilt::PagesLost } else { Unbuilt::Disk });
        }
    };
    if report.truncated_bytes > 0 {
        cover!("torn tail cut");
    }
    let view = log.view();
    storage::recovered(sim, partition, &view, ending, log.confirmed_offset().0);
    if start != Start::SameProcess {
        storage::confirmed_at_start(sim, partition, &slot.directory, &view, log.confirmed_offset().0);
    }
    match Replica::new(slot.incarnation.get(), log, config, before.as_deref()) {
        Ok(replica) => Ok(ReplicaShell::new(Rc::clone(node), Rc::clone(process), Rc::clone(slot), replica)),
        Err(lost) => Err(Unbuilt::Broken("S1", format!("{partition:?}: {lost}"))),
    }
}

/// Stops the process in order: closes every log, writes the marker. False if something failed, and then the end is as a kill's.
pub async fn close(node: &Rc<Node>, process: &Rc<Process>) -> bool {
    // Whoever asks from now on finds no node.
    node.process.borrow_mut().take();
    let slots: Vec<Rc<Slot>> = process.slots.borrow().values().cloned().collect();
    let log_dir = process.log_dir.borrow_mut().take();
    let mut closed = true;
    for slot in &slots {
        let (done, answer) = oneshot::channel();
        let asked = slot.close.borrow_mut().take().is_some_and(|close| close.send(done).is_ok());
        closed &= asked && answer.await.unwrap_or(false);
    }
    let marked = closed && log_dir.is_some_and(|log_dir| log_dir.close_clean().is_ok());
    if marked && !node.pages_lost.get() {
        cover!("clean shutdown");
        for slot in &slots {
            storage::closed_clean(&node.sim, slot.spec.partition, &slot.directory);
        }
    }
    node.sim.executor.kill(process.scope);
    let lossy = node.pages_lost.get();
    node.die(Crash::Kill);
    node.ending.set(match (marked, lossy) {
        (true, false) => Ending::Clean,
        (_, true) => Ending::Lossy,
        (false, false) => Ending::Kill,
    });
    marked
}
