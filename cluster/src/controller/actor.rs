//! The shell of the controller: its mailbox, its sync thread, and the hand-over of what is committed. It decides nothing.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Builder;

use madang_actors::actor_ref::IncarnationRef;
use madang_actors::clock::Mono;
use madang_actors::host::{Behavior, ShellContext, StartResult};
use madang_actors::machine::Machine;
use madang_actors::messages;
use madang_actors::prng::Prng;
use madang_actors::reply::Reply;
use madang_protocol::types::NodeId;
use madang_storage::{Disk, DiskFile};
pub use raft::eraftpb::Message as RaftMessage;

use super::{
    ApiResult, Controller, ControllerConfig, ControllerEffect, ControllerInput, Outcome, Proposal, SyncTicket,
};
use crate::metadata::{MetadataDelta, MetadataImage};
use crate::request::RequestId;

/// Syncs of the metadata log that may wait for its thread; more than ever wait, as each step asks for one at most.
const SYNC_QUEUE: usize = 4096;

messages! {
    /// What the controller's actor is sent.
    #[derive(Debug)]
    pub enum ControllerMessage {
        control {
            /// A sync of the metadata log has ended.
            Synced {
                /// Which.
                ticket: SyncTicket,
                /// How; an error's text.
                result: Result<(), String>,
            },
            /// Another voter's message.
            Raft(Box<RaftMessage>),
            /// A message to that voter was lost.
            Unreachable(NodeId),
            /// The process of that voter is dead.
            Dead(NodeId),
            /// A snapshot has reached that voter, or has not.
            SnapshotSent {
                /// The voter.
                to: NodeId,
                /// Whether it has it.
                delivered: bool,
            },
        }
        data {
            /// Something to change.
            Propose {
                /// What.
                proposal: Proposal,
                /// The answer's slot.
                reply: Reply<ApiResult<Outcome>>,
            },
            /// A broker is alive.
            Heartbeat {
                /// The broker.
                node_id: NodeId,
                /// The registration it has.
                broker_epoch: i64,
                /// The answer's slot.
                reply: Reply<ApiResult<Outcome>>,
            },
        }
    }
}

/// Who carries messages to the other voters.
pub trait VoterLinks: Send + Sync + 'static {
    /// Sends the message, or drops it if it cannot leave soon: must not block. Where it is known to be lost, `controller` is told
    /// [`ControllerMessage::Unreachable`]; a snapshot's fate is always told as [`ControllerMessage::SnapshotSent`].
    fn send(
        &self,
        to: NodeId,
        message: Box<RaftMessage>,
        is_snapshot: bool,
        controller: IncarnationRef<ControllerMessage>,
    );
}

/// The links of a lone voter: there is nobody to send to.
#[derive(Clone, Copy, Debug)]
pub struct NoVoters;

impl VoterLinks for NoVoters {
    fn send(&self, to: NodeId, _: Box<RaftMessage>, _: bool, _: IncarnationRef<ControllerMessage>) {
        tracing::error!(%to, "a lone voter has a message for another one");
    }
}

/// Who applies committed metadata on this node. Calls come in the order of the log; none may block.
pub trait MetadataSink: Send + Sync + 'static {
    /// Committed metadata changed.
    fn publish(&self, image: Arc<MetadataImage>, delta: Arc<MetadataDelta>);
    /// Who leads the quorum has changed, as far as this node's voter knows.
    fn leader(&self, leader: Option<NodeId>);
    /// Who votes has changed, as far as this node knows.
    fn voters(&self, voters: Vec<NodeId>);
    /// Answer `reply` with `result`, which rests on what was published before. Where nobody but this node asks, it is answered once that has been
    /// applied.
    fn answer(&self, reply: Reply<ApiResult<Outcome>>, result: ApiResult<Outcome>);
    /// The metadata log cannot be written, synced or understood: this process may not go on with it.
    fn failed(&self, why: &str);
}

/// One sync, and the life of the controller that waits for it.
struct SyncJob {
    life: IncarnationRef<ControllerMessage>,
    ticket: SyncTicket,
    file: Arc<dyn DiskFile>,
}

/// The thread that syncs the metadata log. It outlives the controller's lives: they write the same file, so a failed sync of one of them has
/// lost what the next has written since, and no sync of the next may succeed after it.
#[derive(Clone)]
pub struct MetadataSyncs {
    jobs: SyncSender<SyncJob>,
}

impl MetadataSyncs {
    /// Starts the thread, which ends when nobody can ask it any more, or at the first sync that fails: it tells `sink` so.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(sink: Arc<dyn MetadataSink>) -> io::Result<Self> {
        let (jobs, asked) = sync_channel(SYNC_QUEUE);
        Builder::new().name("metadata-sync".to_owned()).spawn(move || sync_all(&asked, sink.as_ref()))?;
        Ok(Self { jobs })
    }
}

/// The controller as an actor on the metadata arbiter.
pub struct ControllerActor {
    controller: Controller,
    sink: Arc<dyn MetadataSink>,
    syncs: MetadataSyncs,
    links: Arc<dyn VoterLinks>,
    rng: Prng,
    next_request: u64,
    replies: HashMap<RequestId, Reply<ApiResult<Outcome>>>,
    started: bool,
}

impl ControllerActor {
    /// Opens the metadata log, which `syncs` syncs. `links` lead to the other voters. `seed` feeds ids and election timeouts.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub fn open(
        config: ControllerConfig,
        disk: Arc<dyn Disk>,
        sink: Arc<dyn MetadataSink>,
        syncs: MetadataSyncs,
        links: Arc<dyn VoterLinks>,
        seed: u64,
    ) -> StartResult<Self> {
        let controller = Controller::open(config, disk)?;
        Ok(Self {
            controller,
            sink,
            syncs,
            links,
            rng: Prng::new(seed),
            next_request: 0,
            replies: HashMap::new(),
            started: false,
        })
    }

    fn awaited(&mut self, reply: Reply<ApiResult<Outcome>>) -> RequestId {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.replies.insert(request, reply);
        request
    }

    fn step(&mut self, input: ControllerInput, context: &mut ShellContext<ControllerMessage>) {
        let mut effects = Vec::new();
        self.controller.step(context.now(), context.wall(), input, &mut self.rng, &mut effects);
        for effect in effects {
            self.perform(effect, context);
        }
    }

    fn perform(&mut self, effect: ControllerEffect, context: &mut ShellContext<ControllerMessage>) {
        match effect {
            ControllerEffect::Sync { ticket, file } => {
                let life = context.this_life();
                if self.syncs.jobs.try_send(SyncJob { life, ticket, file }).is_err() {
                    tracing::error!("the metadata log's sync thread does not keep up or has ended");
                    context.stop();
                }
            }
            ControllerEffect::Publish { image, delta } => self.sink.publish(image, delta),
            ControllerEffect::Reply { request, result } => {
                if let Some(reply) = self.replies.remove(&request) {
                    self.sink.answer(reply, result);
                }
            }
            ControllerEffect::Send { to, message, is_snapshot } => {
                self.links.send(to, message, is_snapshot, context.this_life());
            }
            ControllerEffect::Leader(leader) => self.sink.leader(leader),
            ControllerEffect::Voters(voters) => self.sink.voters(voters),
            ControllerEffect::Fatal(why) => {
                // A later life would find in the page cache what no device has, and a later sync would not tell.
                self.sink.failed(&why);
                context.stop();
            }
        }
    }
}

/// The thread's loop: one sync for all that wait for the same file.
fn sync_all(jobs: &Receiver<SyncJob>, sink: &dyn MetadataSink) {
    while let Ok(mut job) = jobs.recv() {
        while let Ok(next) = jobs.try_recv() {
            if !Arc::ptr_eq(&job.file, &next.file) && !perform(&job, sink) {
                return;
            }
            job = next;
        }
        if !perform(&job, sink) {
            return;
        }
    }
}

/// Syncs and tells whoever asked; false if the sync failed, and then none may follow.
fn perform(job: &SyncJob, sink: &dyn MetadataSink) -> bool {
    let result = job.file.sync().map_err(|error| error.to_string());
    let failed = result.as_ref().err().cloned();
    if let Some(why) = &failed {
        // Before anybody hears of it: the life that asked may be over, and the one after it has written to the same pages.
        sink.failed(&format!("sync of the metadata log: {why}"));
    }
    // A refusal means that this life is over: the next one opens the log and finds out what is in it.
    drop(job.life.try_send(ControllerMessage::Synced { ticket: job.ticket, result }));
    failed.is_none()
}

impl Behavior for ControllerActor {
    type Message = ControllerMessage;

    fn handle(&mut self, message: ControllerMessage, context: &mut ShellContext<ControllerMessage>) {
        match message {
            ControllerMessage::Synced { ticket, result } => {
                self.step(ControllerInput::Synced { ticket, result }, context);
            }
            ControllerMessage::Raft(message) => self.step(ControllerInput::Message(message), context),
            ControllerMessage::Unreachable(voter) => self.step(ControllerInput::Unreachable(voter), context),
            ControllerMessage::Dead(voter) => self.step(ControllerInput::Dead(voter), context),
            ControllerMessage::SnapshotSent { to, delivered } => {
                self.step(ControllerInput::SnapshotSent { to, delivered }, context);
            }
            ControllerMessage::Propose { proposal, reply } => {
                let request = self.awaited(reply);
                self.step(ControllerInput::Propose { request, proposal }, context);
            }
            ControllerMessage::Heartbeat { node_id, broker_epoch, reply } => {
                let request = self.awaited(reply);
                self.step(ControllerInput::Heartbeat { request, node_id, broker_epoch }, context);
            }
        }
    }

    fn end_batch(&mut self, _: &mut ShellContext<ControllerMessage>) {
        self.controller.check();
    }

    fn deadline(&self) -> Option<Mono> {
        if self.started { self.controller.deadline() } else { Some(Mono::ZERO) }
    }

    fn on_deadline(&mut self, context: &mut ShellContext<ControllerMessage>) {
        let input = if self.started { ControllerInput::Tick } else { ControllerInput::Start };
        self.started = true;
        self.step(input, context);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use madang_actors::actor_ref::ActorRef;
    use madang_actors::child_spec::Incarnation;
    use madang_actors::mailbox::{ActorState, Capacity};
    use madang_storage::{FaultDisk, OpenMode};

    use super::*;

    #[derive(Default)]
    struct Ended(Mutex<Vec<String>>);

    impl MetadataSink for Ended {
        fn publish(&self, _: Arc<MetadataImage>, _: Arc<MetadataDelta>) {}
        fn leader(&self, _: Option<NodeId>) {}
        fn voters(&self, _: Vec<NodeId>) {}
        fn answer(&self, _: Reply<ApiResult<Outcome>>, _: ApiResult<Outcome>) {}
        fn failed(&self, why: &str) {
            self.0.lock().unwrap().push(why.to_owned());
        }
    }

    #[test]
    fn a_sync_that_fails_ends_the_process_whichever_life_asked_and_no_later_one_succeeds() {
        let (disk, path) = (FaultDisk::new(), Path::new("/metadata/00000000000000000000.log"));
        disk.create_dir(Path::new("/metadata")).unwrap();
        let open = || disk.open(path, OpenMode::Create).unwrap();
        let actor: ActorRef<ControllerMessage> = ActorRef::new("controller", Capacity::default());
        let (older, newer) = (actor.pinned(Incarnation(1)), actor.pinned(Incarnation(2)));
        actor.mailbox().open(Incarnation(1));
        let (jobs, asked) = sync_channel(2);
        jobs.send(SyncJob { life: older, ticket: SyncTicket(7), file: open() }).unwrap();
        actor.mailbox().close(Incarnation(1), ActorState::Restarting);
        actor.mailbox().open(Incarnation(2));
        jobs.send(SyncJob { life: newer, ticket: SyncTicket(1), file: open() }).unwrap();
        drop(jobs);
        disk.fail_next_sync(path).unwrap();
        let sink = Ended::default();
        sync_all(&asked, &sink);
        assert_eq!(sink.0.lock().unwrap().len(), 1);
        let heard = actor.mailbox().pop();
        assert!(heard.is_none(), "its pages went with the older life's sync: {heard:?}");
    }
}
