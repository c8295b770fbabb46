//! The simulator's shell of the controller: its mailbox, its syncs, and the hand-over of what is committed.
//! Invariant: it decides nothing; a dead controller is opened anew from its log, a log that failed ends the process, whichever life asked.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use futures_channel::mpsc::{Receiver, Sender, channel};
use futures_util::StreamExt;
use futures_util::future::select;
use madang_actors::actor_ref::IncarnationRef;
use madang_actors::child_spec::Incarnation;
use madang_actors::machine::Machine;
use madang_actors::mailbox::ActorState;
use madang_actors::prng::Prng;
use madang_actors::reply::Reply;
use madang_cluster::controller::actor::ControllerMessage;
use madang_cluster::controller::{
    ApiResult, Controller, ControllerConfig, ControllerEffect, ControllerError, ControllerInput, Outcome, RaftLogError,
    SyncTicket,
};
use madang_cluster::request::RequestId;
use madang_storage::DiskFile;

use crate::cover;
use crate::executor::{Exit, Planted};
use crate::invariants::{metadata, supervision};
use crate::node::process::Process;
use crate::node::{DATA, Node, peers};
use crate::swarm::FaultClass;

/// Where the metadata log is.
#[must_use]
pub fn directory() -> std::path::PathBuf {
    Path::new(DATA).join("metadata")
}

/// As many as wait for a node's own thread.
const SYNC_QUEUE: usize = 4096;

/// A sync of the metadata log, and the life of the controller that waits for it.
struct SyncJob {
    life: IncarnationRef<ControllerMessage>,
    ticket: SyncTicket,
    file: Arc<dyn DiskFile>,
}

/// Supervises the controller.
pub fn start(node: &Rc<Node>, process: &Rc<Process>) {
    let (node, process) = (Rc::clone(node), Rc::clone(process));
    let (syncs, jobs) = channel(SYNC_QUEUE);
    node.sim.executor.detach(process.scope, sync_all(Rc::clone(&node), jobs));
    node.sim.clone().executor.detach(process.scope, async move {
        let sim = Rc::clone(&node.sim);
        let mailbox = Arc::clone(process.controller.mailbox());
        for life in 1.. {
            match open(&node, &process) {
                Ok(controller) => {
                    if let Some(cluster) = node.cluster() {
                        cluster.started(&node, controller.status());
                    }
                    mailbox.open(Incarnation(life));
                    let life_of = process.controller.pinned(Incarnation(life));
                    let shell = Shell::new(&node, &process, controller, life_of, syncs.clone());
                    let exit = sim.executor.spawn(process.scope, shell.live()).await;
                    mailbox.close(Incarnation(life), ActorState::Restarting);
                    supervision::closed(&sim, "the controller", process.controller.depth());
                    if let Ok(Exit::Panicked(Some(text))) = exit {
                        sim.violate("U2", format!("controller: {text}"));
                    }
                    cover!("controller opened anew");
                }
                Err(ControllerError::Log(RaftLogError::Io(_))) => {}
                Err(error) => sim.violate("C3", format!("the metadata log does not open: {error}")),
            }
            sim.pause(1000, 20_000).await;
        }
    });
}

fn open(node: &Node, process: &Process) -> Result<Controller, ControllerError> {
    let config = ControllerConfig {
        node_id: process.config.node_id,
        voters: node.voters(),
        cluster_id: None,
        broker: process.config.clone(),
        directory: directory(),
    };
    Controller::open(config, Arc::new(node.sim.disk.clone()))
}

/// One life of the controller.
struct Shell {
    node: Rc<Node>,
    process: Rc<Process>,
    controller: Controller,
    rng: Prng,
    next_request: u64,
    replies: BTreeMap<RequestId, Reply<ApiResult<Outcome>>>,
    life: IncarnationRef<ControllerMessage>,
    syncs: Sender<SyncJob>,
    ended: Rc<Cell<bool>>,
}

impl Shell {
    fn new(
        node: &Rc<Node>,
        process: &Rc<Process>,
        controller: Controller,
        life: IncarnationRef<ControllerMessage>,
        syncs: Sender<SyncJob>,
    ) -> Self {
        Self {
            node: Rc::clone(node),
            process: Rc::clone(process),
            controller,
            rng: node.sim.fork(),
            next_request: 0,
            replies: BTreeMap::new(),
            life,
            syncs,
            ended: Rc::default(),
        }
    }

    async fn live(mut self) {
        let sim = Rc::clone(&self.node.sim);
        self.step(ControllerInput::Start);
        while !self.ended.get() {
            while let Some(message) = self.process.controller.mailbox().pop() {
                self.handle(message);
                if self.ended.get() {
                    return;
                }
            }
            self.controller.check();
            self.wait().await;
            sim.pause(0, 200).await;
            if self.controller.deadline().is_some_and(|deadline| deadline <= sim.now()) {
                self.step(ControllerInput::Tick);
            }
        }
    }

    async fn wait(&self) {
        let mailbox = self.process.controller.mailbox();
        let woken = poll_fn(|context| if mailbox.sleep(context.waker()) { Poll::Pending } else { Poll::Ready(()) });
        match self.controller.deadline() {
            Some(deadline) => drop(select(woken, self.node.sim.executor.sleep_until(deadline)).await),
            None => woken.await,
        }
    }

    fn handle(&mut self, message: ControllerMessage) {
        match message {
            ControllerMessage::Synced { ticket, result } => self.step(ControllerInput::Synced { ticket, result }),
            ControllerMessage::Raft(message) => self.step(ControllerInput::Message(message)),
            ControllerMessage::Unreachable(voter) => self.step(ControllerInput::Unreachable(voter)),
            ControllerMessage::Dead(voter) => self.step(ControllerInput::Dead(voter)),
            ControllerMessage::SnapshotSent { to, delivered } => {
                self.step(ControllerInput::SnapshotSent { to, delivered });
            }
            ControllerMessage::Heartbeat { node_id, broker_epoch, reply } => {
                let request = self.awaited(reply);
                self.step(ControllerInput::Heartbeat { request, node_id, broker_epoch });
            }
            ControllerMessage::Propose { proposal, reply } => {
                let request = self.awaited(reply);
                self.step(ControllerInput::Propose { request, proposal });
                if self.process.controller_dies.take() {
                    self.node.sim.fault(FaultClass::ControllerDeath);
                    std::panic::panic_any(Planted);
                }
            }
        }
    }

    fn awaited(&mut self, reply: Reply<ApiResult<Outcome>>) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.replies.insert(request, reply);
        request
    }

    fn step(&mut self, input: ControllerInput) {
        let mut effects = Vec::new();
        self.controller.step(self.node.sim.now(), self.node.sim.wall(), input, &mut self.rng, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
        if let Some(cluster) = self.node.cluster() {
            cluster.stepped(&self.node, &self.controller);
        }
    }

    fn perform(&mut self, effect: ControllerEffect) {
        match effect {
            ControllerEffect::Sync { ticket, file } => {
                let asked = self.syncs.try_send(SyncJob { life: self.life.clone(), ticket, file });
                let full = asked.is_err_and(|refused| refused.is_full());
                self.node.sim.require(!full, "U3", || "more syncs of the metadata log wait than ever may".to_owned());
            }
            ControllerEffect::Publish { image, delta } => {
                metadata::committed(&self.node.sim, &image);
                if let Some(cluster) = self.node.cluster() {
                    cluster.committed(&self.node, &image);
                }
                self.process.committed.set(self.process.committed.get().max(image.version()));
                self.process.feed.publish(image, delta);
            }
            ControllerEffect::Reply { request, result } => match self.replies.remove(&request) {
                Some(reply) if self.node.cluster().is_some() => reply.send(result),
                Some(reply) => self.process.feed.answer(reply, result),
                None => self.node.sim.violate("U1", format!("controller: {request:?} is answered twice")),
            },
            ControllerEffect::Leader(leader) => {
                self.node.sim.note("led by", &[i64::from(leader.map_or(-1, |leader| leader.0))]);
                self.process.leader.set(leader);
            }
            // The members are those of the start.
            ControllerEffect::Voters(_) => {}
            ControllerEffect::Send { to, message, is_snapshot } => {
                if let Some(cluster) = self.node.cluster() {
                    cluster.sent(&self.node, &message);
                }
                peers::send_raft(&self.node, &self.process, to, &message, is_snapshot, self.life.clone());
            }
            ControllerEffect::Fatal(why) => {
                self.node.sim.note("controller failed", &[i64::try_from(why.len()).unwrap_or(0)]);
                self.ended.set(true);
                self.node.give_up();
            }
        }
    }
}

/// The metadata log's own sync thread: one for all lives of the controller. A sync that fails is its last one, and ends the process at once.
async fn sync_all(node: Rc<Node>, mut jobs: Receiver<SyncJob>) {
    let sim = Rc::clone(&node.sim);
    while let Some(SyncJob { life, ticket, file }) = jobs.next().await {
        sim.pause(10, sim.swarm.sync_us).await;
        if file.sync().is_err() {
            sim.fault(FaultClass::SyncError);
            cover!("sync of the metadata log failed");
            return node.give_up();
        }
        sim.pause(10, sim.swarm.sync_us / 4).await;
        drop(life.try_send(ControllerMessage::Synced { ticket, result: Ok(()) }));
    }
}
