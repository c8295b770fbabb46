//! The simulator's shell of a replica: drains the mailbox, performs effects in order, and dies where it is told to.
//! Invariant: it decides nothing; every effect is checked against the history before it is performed.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::{Either, select};
use madang_actors::child_spec::Incarnation;
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_actors::reply::Reply;
use madang_cluster::replica::replication::ReplicationInput;
use madang_cluster::replica::{
    Append, AppendResult, Replica, ReplicaEffect, ReplicaInput, ReplicaMessage, ReplicaSnapshot, RequiredAcks,
};
use madang_cluster::request::RequestId;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::Offset;
use madang_storage::{Checkpoint, CompactionError, CompactionJob, Fault, Notes, Pace, SyncRequest};

use crate::cover;
use crate::executor::Planted;
use crate::history::content;
use crate::invariants::{replication, supervision};
use crate::node::outside::Outside;
use crate::node::process::Process;
use crate::node::{Node, Slot, notes};
use crate::sim::Sim;
use crate::swarm::FaultClass;

/// Messages that one wake drains at most.
const BUDGET: usize = 64;

/// Where a planted panic strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// At the next append, before it is written.
    AtMessage,
    /// After the write, before any effect of it.
    AfterWrite,
    /// Between two batches.
    Idle,
}

/// One life of a replica.
pub struct ReplicaShell {
    sim: Rc<Sim>,
    node: Rc<Node>,
    process: Rc<Process>,
    slot: Rc<Slot>,
    replica: Replica,
    /// None on a node that has no others.
    outside: Option<Outside>,
    rng: Prng,
    next_request: u64,
    appends: BTreeMap<RequestId, (Reply<AppendResult>, u64, RequiredAcks)>,
    deletes: BTreeMap<RequestId, Reply<Result<Offset, ErrorCode>>>,
    published: Option<std::sync::Arc<ReplicaSnapshot>>,
    ended: bool,
    closed: bool,
}

impl ReplicaShell {
    /// A life around a machine that was built from disk.
    #[must_use]
    pub fn new(node: &Rc<Node>, process: &Rc<Process>, slot: &Rc<Slot>, replica: Replica) -> Self {
        Self {
            sim: Rc::clone(&node.sim),
            outside: Outside::new(node, process, slot),
            node: Rc::clone(node),
            process: Rc::clone(process),
            slot: Rc::clone(slot),
            replica,
            rng: Prng::new(0),
            next_request: 0,
            appends: BTreeMap::new(),
            deletes: BTreeMap::new(),
            published: None,
            ended: false,
            closed: false,
        }
    }

    /// Runs until it is told to stop, or dies.
    pub async fn live(mut self) {
        let (close, mut closing) = oneshot::channel::<oneshot::Sender<bool>>();
        *self.slot.close.borrow_mut() = Some(close);
        let shared = std::sync::Arc::clone(self.slot.handle.shared());
        match (shared.assignment(), shared.leader_epoch()) {
            (Some(assignment), _) => {
                self.input(ReplicaInput::Configure((*shared.config()).clone()));
                self.replicate(ReplicationInput::Assign(Box::new((*assignment).clone())));
            }
            (None, Some(leader_epoch)) => self.input(ReplicaInput::Lead(leader_epoch)),
            (None, None) => self.input(ReplicaInput::Tick),
        }
        while !self.ended {
            self.drain();
            if self.ended {
                break;
            }
            if let Ok(Some(done)) = closing.try_recv() {
                self.input(ReplicaInput::Close);
                let _ = done.send(self.closed);
                return;
            }
            self.wait().await;
            self.sim.pause(0, 400).await;
        }
    }

    /// Sleeps until a message, the machine's deadline, or the wish to close.
    async fn wait(&self) {
        let mailbox = self.slot.handle.actor().mailbox();
        let far = self.sim.now() + Duration::from_millis(500);
        let deadline = self.replica.deadline().map_or(far, |deadline| deadline.min(far));
        let woken = poll_fn(|context| {
            let asked = self.slot.close.borrow().as_ref().is_none_or(oneshot::Sender::is_canceled);
            if asked || !mailbox.sleep(context.waker()) { Poll::Ready(()) } else { Poll::Pending }
        });
        let timer = self.sim.executor.sleep_until(deadline);
        match select(std::pin::pin!(woken), timer).await {
            Either::Left(_) | Either::Right(_) => {}
        }
    }

    fn drain(&mut self) {
        let actor = self.slot.handle.actor().clone();
        // Control messages are few, and have bounds of their own.
        supervision::bounded(&self.sim, actor.id(), actor.depth(), self.sim.swarm.mailbox_items + 16);
        if actor.depth().waiting > 0 {
            cover!("mailbox full");
        }
        let mut appended = false;
        for _ in 0..BUDGET {
            let Some(message) = actor.mailbox().pop() else { break };
            let is_append = matches!(message, ReplicaMessage::Append { .. });
            appended |= is_append;
            self.handle(message);
            if is_append && self.slot.death.get() == Some(Death::AtMessage) {
                self.slot.death.set(None);
                self.sim.fault(FaultClass::ActorPanic);
                cover!("panic before the write");
                std::panic::panic_any(Planted);
            }
            if self.ended {
                return;
            }
        }
        self.end_batch(appended);
    }

    fn end_batch(&mut self, appended: bool) {
        let mut effects = Vec::new();
        let (now, wall) = (self.sim.now(), self.sim.wall());
        self.replica.step(now, wall, ReplicaInput::EndBatch, &mut self.rng, &mut effects);
        if self.replica.deadline().is_some_and(|deadline| deadline <= now) {
            self.replica.step(now, wall, ReplicaInput::Tick, &mut self.rng, &mut effects);
        }
        match self.slot.death.get() {
            Some(Death::AfterWrite) if appended => {
                self.slot.death.set(None);
                self.sim.fault(FaultClass::ActorPanic);
                cover!("panic after the write");
                std::panic::panic_any(Planted);
            }
            Some(Death::Idle) => {
                self.slot.death.set(None);
                self.sim.fault(FaultClass::ActorPanic);
                std::panic::panic_any(Planted);
            }
            _ => {}
        }
        self.perform_all(effects);
        self.replica.check();
        if let Some(outside) = &mut self.outside {
            outside.follows(self.replica.follows());
        }
    }

    fn replicate(&mut self, input: ReplicationInput) {
        self.input(ReplicaInput::Replication(input));
    }

    fn input(&mut self, input: ReplicaInput) {
        let mut effects = Vec::new();
        self.replica.step(self.sim.now(), self.sim.wall(), input, &mut self.rng, &mut effects);
        self.perform_all(effects);
    }

    fn handle(&mut self, message: ReplicaMessage) {
        match message {
            ReplicaMessage::Append { batch, required_acks, deadline, expected_epoch, reply } => {
                self.next_request += 1;
                let request = RequestId(self.next_request);
                let what = content(&batch.bytes);
                self.appends.insert(request, (reply, what, required_acks));
                self.input(ReplicaInput::Append(Append { request, batch, required_acks, deadline, expected_epoch }));
            }
            ReplicaMessage::DeleteRecords { before, reply } => {
                self.next_request += 1;
                let request = RequestId(self.next_request);
                self.deletes.insert(request, reply);
                self.input(ReplicaInput::DeleteRecords { request, before });
            }
            ReplicaMessage::Lead { leader_epoch } => self.input(ReplicaInput::Lead(leader_epoch)),
            ReplicaMessage::Configure(config) => self.input(ReplicaInput::Configure(*config)),
            ReplicaMessage::Synced(outcome) => self.input(ReplicaInput::Synced(outcome)),
            ReplicaMessage::Lowered(number) => self.replicate(ReplicationInput::Lowered(number)),
            ReplicaMessage::Assign(assignment) => self.replicate(ReplicationInput::Assign(assignment)),
            ReplicaMessage::Fetched(fetched) => self.replicate(ReplicationInput::Fetched(fetched)),
            ReplicaMessage::Confirmed(confirmed) => self.replicate(ReplicationInput::Confirmed(confirmed)),
            ReplicaMessage::ProposalEnded { number, outcome } => {
                self.replicate(ReplicationInput::ProposalEnded { number, outcome });
            }
            ReplicaMessage::Silent { node_id, session } => {
                self.replicate(ReplicationInput::Silent { node_id, session });
            }
            ReplicaMessage::CutOff => self.replicate(ReplicationInput::CutOff),
            ReplicaMessage::Answered { answer } => self.replicate(ReplicationInput::Answered(answer)),
            ReplicaMessage::Compact => self.input(ReplicaInput::Compact),
            ReplicaMessage::Compacted(result) => self.input(ReplicaInput::Compacted(result)),
            ReplicaMessage::Retain => {
                let segments = self.replica.log().map_or(0, madang_storage::Log::segment_count);
                self.input(ReplicaInput::Retain);
                if self.replica.log().map_or(0, madang_storage::Log::segment_count) < segments {
                    cover!("segments deleted by retention");
                }
            }
        }
    }

    fn perform_all(&mut self, effects: Vec<ReplicaEffect>) {
        for effect in effects {
            if self.sim.disk.is_crashed() {
                // The machine died in the middle of this step, and nobody hears of it.
                self.ended = true;
            }
            if self.ended {
                return;
            }
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: ReplicaEffect) {
        let partition = self.slot.partition;
        match effect {
            ReplicaEffect::Publish(snapshot) => {
                notes::keep(&self.node, &self.process, |notes| {
                    if notes.store(partition, snapshot.note()).is_err() {
                        cover!("notes could not be written");
                    }
                });
                match self.node.cluster() {
                    Some(cluster) => cluster.published(&self.node, &self.slot, &snapshot),
                    None => replication::published(&self.sim, partition, &self.slot.directory, &snapshot),
                }
                if self.sim.chance(1, 8) {
                    let (recovery_point, high_watermark) = (snapshot.recovery_point(), snapshot.high_watermark);
                    let checkpoint = Checkpoint { recovery_point, high_watermark };
                    self.node.checkpoints.borrow_mut().insert(partition, checkpoint);
                }
                self.published = Some(std::sync::Arc::clone(&snapshot));
                if self.replica.log().is_some_and(|log| log.segment_count() > 1) {
                    cover!("segment rolled");
                }
                self.slot.handle.shared().publish(snapshot);
            }
            ReplicaEffect::Reply { request, result } => self.reply(request, result),
            ReplicaEffect::ReplyDeleted { request, result } => {
                if let Some(reply) = self.deletes.remove(&request) {
                    reply.send(result);
                }
            }
            ReplicaEffect::Sync(request) => self.sync(request),
            ReplicaEffect::Compact(job) => {
                self.compact(*job);
            }
            ReplicaEffect::FailDirectory(why) => {
                self.slot.handle.shared().suspend();
                self.node.sync_failed(&self.process, &why);
                self.ended = true;
            }
            ReplicaEffect::Restart(why) => {
                self.sim.note("replica restarts", &[i64::try_from(why.len()).unwrap_or(0)]);
                self.slot.handle.shared().suspend();
                self.ended = true;
            }
            ReplicaEffect::Closed => self.closed = true,
            ReplicaEffect::Replication(asked) => match &mut self.outside {
                Some(outside) => outside.perform(asked),
                None => self.sim.violate("R15", format!("a lone leader asks for {asked:?}")),
            },
        }
    }

    fn reply(&mut self, request: RequestId, result: AppendResult) {
        let Some((reply, content, acks)) = self.appends.remove(&request) else {
            return self.sim.violate("U1", format!("{}: {request:?} is answered twice", self.slot.handle.actor().id()));
        };
        match &result {
            Ok(appended) => {
                let (base, partition) = (appended.base_offset.0, self.slot.partition);
                self.sim.note("ack", &[base, i64::from(partition.partition)]);
                let published = self.published.as_deref();
                let directory = &self.slot.directory;
                match self.node.cluster() {
                    Some(cluster) => cluster.acknowledged(&self.node, partition, content, acks, appended, published),
                    None => {
                        replication::acknowledged(&self.sim, partition, directory, content, acks, appended, published);
                    }
                }
            }
            Err(refused) => {
                self.sim.note("refused", &[i64::from(refused.error.code())]);
                if refused.error == ErrorCode::RequestTimedOut {
                    cover!("append timed out after it was written");
                }
            }
        }
        reply.send(result);
    }

    /// A compaction beside the writer. It may be stopped on its way, and the machine may die at any of its operations.
    fn compact(&self, job: CompactionJob) {
        let (sim, node, process) = (Rc::clone(&self.sim), Rc::clone(&self.node), Rc::clone(&self.process));
        let scope = process.scope;
        let life = self.slot.handle.actor().pinned(Incarnation(self.slot.incarnation.get()));
        sim.clone().executor.detach(scope, async move {
            sim.pause(100, 30_000).await;
            if !sim.is_healed() && sim.chance(1, 12) {
                cover!("death in a compaction");
                sim.disk.plan(sim.disk.operations() + sim.below(12), Fault::Crash);
            }
            let mut left = if sim.chance(1, 10) { sim.below(4) } else { u64::MAX };
            let result = job.run(|_| {
                left = left.saturating_sub(1);
                if left == 0 { Pace::Stop } else { Pace::Continue }
            });
            match &result {
                Ok(_) => cover!("compaction ran"),
                Err(CompactionError::Stopped) => cover!("compaction stopped"),
                Err(CompactionError::Sync(_)) => node.sync_failed(&process, "a sync of a compaction failed"),
                Err(CompactionError::Damaged { .. }) => sim.violate("S2", "compaction met a damaged batch"),
                Err(CompactionError::Io(_)) => {}
            }
            sim.pause(100, 30_000).await;
            drop(life.try_send(ReplicaMessage::Compacted(Box::new(result))));
        });
    }

    /// The flusher: performs the sync on its own time, and tells this life alone.
    fn sync(&self, request: SyncRequest) {
        let (sim, node, slot) = (Rc::clone(&self.sim), Rc::clone(&self.node), Rc::clone(&self.slot));
        let life = self.slot.handle.actor().pinned(Incarnation(slot.incarnation.get()));
        let slow = node.slow_sync.take();
        let process = Rc::clone(&self.process);
        let scope = process.scope;
        if slow.is_some() {
            sim.fault(FaultClass::SlowSync);
        }
        sim.clone().executor.detach(scope, async move {
            sim.pause(10, sim.swarm.sync_us).await;
            match slow {
                // It never ends; the watchdog gives the directory up.
                Some(None) => {
                    sim.executor.sleep(Duration::from_secs(3)).await;
                    return node.fail_directory(&process, "a sync does not end");
                }
                Some(Some(wait)) => sim.executor.sleep(wait).await,
                None => {}
            }
            let outcome = request.perform();
            if !outcome.is_ok() {
                sim.fault(FaultClass::SyncError);
                cover!("sync failed");
                node.sync_failed(&process, "a sync failed");
            }
            sim.pause(10, sim.swarm.sync_us).await;
            drop(life.try_send(ReplicaMessage::Synced(outcome)));
        });
    }
}
