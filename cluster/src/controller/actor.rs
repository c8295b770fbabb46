//! The shell of the controller: its mailbox, its sync thread, and the hand-over of what is committed. It decides nothing.

use std::collections::HashMap;
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
use madang_storage::{Disk, DiskFile};

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
        }
        data {
            /// Something to change.
            Propose {
                /// What.
                proposal: Proposal,
                /// The answer's slot.
                reply: Reply<ApiResult<Outcome>>,
            },
        }
    }
}

/// Who applies committed metadata on this node. Calls come in the order of the log; none may block.
pub trait MetadataSink: Send + Sync + 'static {
    /// Committed metadata changed.
    fn publish(&self, image: Arc<MetadataImage>, delta: Arc<MetadataDelta>);
    /// Answer `reply` with `result` once everything published before has been applied.
    fn answer(&self, reply: Reply<ApiResult<Outcome>>, result: ApiResult<Outcome>);
    /// The metadata log cannot be written, synced or understood: this process may not go on with it.
    fn failed(&self, why: &str);
}

type SyncJob = (SyncTicket, Arc<dyn DiskFile>);

/// The controller as an actor on the metadata arbiter.
pub struct ControllerActor {
    controller: Controller,
    sink: Arc<dyn MetadataSink>,
    syncs: SyncSender<SyncJob>,
    rng: Prng,
    next_request: u64,
    replies: HashMap<RequestId, Reply<ApiResult<Outcome>>>,
    started: bool,
}

impl ControllerActor {
    /// Opens the metadata log and starts the thread that syncs it. `seed` feeds ids and election timeouts.
    ///
    /// # Errors
    /// The log cannot be opened, or the thread not be started.
    pub fn open(
        config: ControllerConfig,
        disk: Arc<dyn Disk>,
        sink: Arc<dyn MetadataSink>,
        seed: u64,
        context: &mut ShellContext<ControllerMessage>,
    ) -> StartResult<Self> {
        let controller = Controller::open(config, disk)?;
        let (syncs, jobs) = sync_channel(SYNC_QUEUE);
        let life = context.this_life();
        Builder::new().name("metadata-sync".to_owned()).spawn(move || sync_all(&jobs, &life))?;
        Ok(Self {
            controller,
            sink,
            syncs,
            rng: Prng::new(seed),
            next_request: 0,
            replies: HashMap::new(),
            started: false,
        })
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
                if self.syncs.try_send((ticket, file)).is_err() {
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
            // A lone voter has nobody to send to.
            ControllerEffect::Send { .. } => {}
            ControllerEffect::Fatal(why) => {
                // A later life would find in the page cache what no device has, and a later sync would not tell.
                self.sink.failed(&why);
                context.stop();
            }
        }
    }
}

/// The thread's loop: one sync for all that wait for the same file. Ends with the actor's life.
fn sync_all(jobs: &Receiver<SyncJob>, life: &IncarnationRef<ControllerMessage>) {
    while let Ok((mut ticket, mut file)) = jobs.recv() {
        while let Ok((next, other)) = jobs.try_recv() {
            if !Arc::ptr_eq(&file, &other) {
                report(life, ticket, file.sync());
            }
            (ticket, file) = (next, other);
        }
        report(life, ticket, file.sync());
    }
}

fn report(life: &IncarnationRef<ControllerMessage>, ticket: SyncTicket, result: std::io::Result<()>) {
    let result = result.map_err(|error| error.to_string());
    // A refusal means that this life is over: the next one opens the log and finds out what is in it.
    drop(life.try_send(ControllerMessage::Synced { ticket, result }));
}

impl Behavior for ControllerActor {
    type Message = ControllerMessage;

    fn handle(&mut self, message: ControllerMessage, context: &mut ShellContext<ControllerMessage>) {
        match message {
            ControllerMessage::Synced { ticket, result } => {
                self.step(ControllerInput::Synced { ticket, result }, context);
            }
            ControllerMessage::Propose { proposal, reply } => {
                self.next_request += 1;
                let request = RequestId(self.next_request);
                self.replies.insert(request, reply);
                self.step(ControllerInput::Propose { request, proposal }, context);
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
