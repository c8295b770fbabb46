//! The simulator's shell of a group shard: loads it through the replica, appends for it, holds answers until their append is safe.
//! Invariant: it decides nothing; a stopped or dead shard answers everybody and is built again from the log.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select;
use madang::applier::group_config;
use madang_actors::actor_ref::{ActorRef, IncarnationRef};
use madang_actors::child_spec::Incarnation;
use madang_actors::machine::Machine;
use madang_actors::mailbox::ActorState;
use madang_actors::prng::Prng;
use madang_actors::reply::Reply;
use madang_cluster::coordinator::actor::ShardMessage;
use madang_cluster::coordinator::{Effect, GroupConfig, Input, Record, Request, Response, Shard, Ticket};
use madang_cluster::replica::{AppendResult, ReplicaHandle, ReplicaMessage, RequiredAcks};
use madang_cluster::request::RequestId;
use madang_protocol::compression::Limits;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::record::RecordSet;
use madang_protocol::record_batch::{
    BatchBuilder, BatchOptions, Batches, ProduceRules, ValidatedBatch, validate_produced,
};
use madang_protocol::types::{LeaderEpoch, Offset};

use crate::cover;
use crate::executor::{Exit, Planted, Scope};
use crate::history::{Sent, content};
use crate::invariants::supervision;
use crate::node::process::Process;
use crate::node::{Node, Slot};
use crate::sim::Sim;

type GroupReply = Reply<Result<Response, ErrorCode>>;

/// A shard's place in a process.
pub struct ShardSlot {
    /// How to reach it.
    pub actor: ActorRef<ShardMessage>,
    /// The next request kills it.
    pub dies: Cell<bool>,
    /// The leadership that it was started in.
    pub epoch: LeaderEpoch,
    life: Cell<u64>,
    ended: Cell<bool>,
}

impl ShardSlot {
    /// Ends it for good.
    pub fn end(&self) {
        self.ended.set(true);
        self.actor.mailbox().close(Incarnation(self.life.get()), ActorState::Stopped);
    }
}

/// Supervises the shard of a partition of the offsets topic.
pub fn start(node: &Rc<Node>, process: &Rc<Process>, slot: &Rc<Slot>, epoch: LeaderEpoch) {
    let index = slot.partition.partition;
    let actor = ActorRef::new(format!("shard-{index}"), node.capacity());
    let place =
        Rc::new(ShardSlot { actor, dies: Cell::default(), epoch, life: Cell::default(), ended: Cell::default() });
    process.shards.borrow_mut().insert(index, Rc::clone(&place));
    let config = group_config(&process.config);
    let (sim, scope, replica) = (Rc::clone(&node.sim), process.scope, slot.handle.clone());
    node.sim.executor.detach(scope, async move {
        let mailbox = Arc::clone(place.actor.mailbox());
        for life in 1.. {
            if place.ended.get() {
                return;
            }
            mailbox.open(Incarnation(life));
            place.life.set(life);
            let life_ref = place.actor.pinned(Incarnation(life));
            let shell = ShardShell::new(&sim, &place, replica.clone(), config.clone(), life_ref);
            let exit = sim.executor.spawn(scope, shell.live(scope)).await;
            if place.ended.get() {
                return;
            }
            mailbox.close(Incarnation(life), ActorState::Restarting);
            if let Ok(Exit::Panicked(Some(text))) = exit {
                sim.violate("U2", format!("group shard: {text}"));
            }
            supervision::closed(&sim, place.actor.id(), place.actor.depth());
            cover!("shard reloaded");
            sim.pause(1000, 20_000).await;
        }
    });
}

struct ShardShell {
    sim: Rc<Sim>,
    place: Rc<ShardSlot>,
    life: IncarnationRef<ShardMessage>,
    replica: ReplicaHandle,
    shard: Shard,
    rng: Prng,
    next_request: u64,
    replies: BTreeMap<RequestId, GroupReply>,
    held: BTreeMap<Ticket, Vec<(RequestId, Response)>>,
    stopped: bool,
}

impl ShardShell {
    fn new(
        sim: &Rc<Sim>,
        place: &Rc<ShardSlot>,
        replica: ReplicaHandle,
        config: GroupConfig,
        life: IncarnationRef<ShardMessage>,
    ) -> Self {
        Self {
            sim: Rc::clone(sim),
            place: Rc::clone(place),
            life,
            replica,
            shard: Shard::new(config),
            rng: sim.fork(),
            next_request: 0,
            replies: BTreeMap::new(),
            held: BTreeMap::new(),
            stopped: false,
        }
    }

    async fn live(mut self, scope: Scope) {
        let mut loading: Option<(Offset, Offset)> = None;
        let mut loaded = false;
        while !self.stopped && !self.place.ended.get() {
            let message = self.place.actor.mailbox().pop();
            match message {
                Some(ShardMessage::Request { body, reply }) => self.request(body, reply, scope),
                Some(ShardMessage::Appended { ticket, result }) => self.appended(ticket, result, scope),
                Some(ShardMessage::TopicDeleted { name, id }) => self.step(Input::TopicDeleted { name, id }, scope),
                None if loaded => self.wait(scope).await,
                None => match self.load(&mut loading, scope).await {
                    Some(done) => loaded = done,
                    None => return,
                },
            }
            self.shard.check();
        }
    }

    /// One slice of the log; whether it was the last. None if it cannot be loaded.
    async fn load(&mut self, range: &mut Option<(Offset, Offset)>, scope: Scope) -> Option<bool> {
        let Ok(snapshot) = self.replica.snapshot_for(LeaderEpoch::NONE) else {
            self.sim.executor.sleep(Duration::from_millis(5)).await;
            return Some(false);
        };
        let view = &snapshot.view;
        let (next, end) = range.map_or((view.log_start_offset(), view.log_end_offset()), |range| range);
        *range = Some((next, end));
        if next >= end {
            self.step(Input::LoadFinished, scope);
            return Some(true);
        }
        if snapshot.high_watermark < end {
            self.sim.executor.sleep(Duration::from_millis(5)).await;
            return Some(false);
        }
        let (records, following) = slice(view, next, end)?;
        self.step(Input::Loaded { records }, scope);
        *range = Some((following, end));
        self.sim.pause(1, 100).await;
        Some(false)
    }

    async fn wait(&mut self, scope: Scope) {
        let far = self.sim.now() + Duration::from_millis(500);
        let deadline = self.shard.deadline().map_or(far, |deadline| deadline.min(far));
        let mailbox = self.place.actor.mailbox();
        let woken = poll_fn(|context| if mailbox.sleep(context.waker()) { Poll::Pending } else { Poll::Ready(()) });
        drop(select(woken, self.sim.executor.sleep_until(deadline)).await);
        if self.shard.deadline().is_some_and(|deadline| deadline <= self.sim.now()) {
            self.step(Input::Tick, scope);
        }
    }

    fn request(&mut self, body: Request, reply: GroupReply, scope: Scope) {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.replies.insert(request, reply);
        self.step(Input::Request { request, body }, scope);
        if self.place.dies.take() {
            std::panic::panic_any(Planted);
        }
        self.shard.check_all();
    }

    fn step(&mut self, input: Input, scope: Scope) {
        if self.place.ended.get() {
            return;
        }
        let mut effects = Vec::new();
        self.shard.step(self.sim.now(), self.sim.wall(), input, &mut self.rng, &mut effects);
        for effect in effects {
            self.perform(effect, scope);
        }
    }

    fn perform(&mut self, effect: Effect, scope: Scope) {
        match effect {
            Effect::Append { ticket, records } => self.append(ticket, &records, scope),
            Effect::Reply { request, response, after: Some(ticket) } => {
                self.held.entry(ticket).or_default().push((request, response));
            }
            Effect::Reply { request, response, after: None } => self.answer(request, response),
            Effect::Stop { .. } => self.stopped = true,
            Effect::Report { what, .. } => self.sim.violate("G6", what),
        }
    }

    fn answer(&mut self, request: RequestId, response: Response) {
        match self.replies.remove(&request) {
            Some(reply) => reply.send(Ok(response)),
            None => self.sim.violate("U1", format!("group shard: {request:?} is answered twice")),
        }
    }

    fn append(&mut self, ticket: Ticket, records: &[Record], scope: Scope) {
        let (reply, answer) = Reply::new(|| Err(ErrorCode::NotLeaderOrFollower.into()));
        let deadline = self.sim.now() + Duration::from_secs(2);
        let sent = batch(records, self.sim.wall().as_millis(), self.sim.serial()).and_then(|batch| {
            let sent = Sent { serial: 0, records: batch.header.record_count, idempotent: false };
            self.sim.history.borrow_mut().send(content(&batch.bytes), sent);
            let (required_acks, expected_epoch) = (RequiredAcks::All, None);
            let message = ReplicaMessage::Append { batch, required_acks, deadline, expected_epoch, reply };
            self.replica.actor().try_send(message).map_err(|_| ErrorCode::NotLeaderOrFollower)
        });
        let life = self.life.clone();
        self.sim.executor.detach(scope, async move {
            let result = match sent {
                Ok(()) => answer.await,
                Err(error) => Err(error.into()),
            };
            drop(life.try_send(ShardMessage::Appended { ticket, result }));
        });
    }

    fn appended(&mut self, ticket: Ticket, result: AppendResult, scope: Scope) {
        match result {
            Ok(_) => {
                self.step(Input::Committed { through: ticket }, scope);
                while let Some(first) = self.held.first_entry().filter(|first| *first.key() <= ticket) {
                    for (request, response) in first.remove() {
                        self.answer(request, response);
                    }
                }
            }
            Err(refused) => {
                for (request, response) in std::mem::take(&mut self.held).into_values().flatten() {
                    self.answer(request, response.failed(ErrorCode::CoordinatorNotAvailable));
                }
                self.step(Input::AppendFailed { ticket, error: refused.error }, scope);
            }
        }
    }
}

/// Records from `next` on, below `end`, and where the following slice starts.
fn slice(view: &madang_storage::LogView, next: Offset, end: Offset) -> Option<(Vec<Record>, Offset)> {
    let found = view.read(next, end, 2048, true).ok()?;
    if found.size == 0 {
        return Some((Vec::new(), end));
    }
    let bytes = found.records.read().ok()?;
    let mut records = Vec::new();
    for batch in Batches::new(&bytes) {
        let batch = batch.ok()?;
        let set = RecordSet::of(&batch, &Limits::for_max_message_bytes(1 << 20)).ok()?;
        for record in &set {
            let record = record.ok()?;
            let value = record.value.map(Bytes::copy_from_slice);
            records.extend(record.key.map(|key| Record { key: Bytes::copy_from_slice(key), value }));
        }
    }
    Some((records, found.next_offset))
}

/// One batch of the shard's records. `serial` goes into the timestamp's place of the batch so that no two are alike.
fn batch(records: &[Record], timestamp: i64, serial: u64) -> Result<ValidatedBatch, ErrorCode> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let serial = serial.to_be_bytes();
    for record in records {
        let headers: [(&[u8], Option<&[u8]>); 1] = [(b"n", Some(&serial))];
        let appended = builder.append(timestamp, Some(&record.key), record.value.as_deref(), &headers);
        appended.map_err(|_| ErrorCode::UnknownServerError)?;
    }
    let bytes = builder.build().map_err(|_| ErrorCode::UnknownServerError)?;
    let rules = ProduceRules { now_ms: timestamp, max_message_bytes: usize::MAX, ..ProduceRules::default() };
    validate_produced(&bytes, &rules).map_err(|_| ErrorCode::UnknownServerError)
}
