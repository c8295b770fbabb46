//! The simulator's shell of a group shard: loads it through the replica, appends for it, holds answers until their append is safe.
//! Invariant: it decides nothing; a stopped or dead shard answers everybody and is built again from the log.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select;
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_actors::reply::Reply;
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
use crate::executor::{Exit, Planted};
use crate::history::{Sent, content};
use crate::node::{Node, Process, Slot};
use crate::sim::Sim;

type GroupReply = Reply<Result<Response, ErrorCode>>;

/// What a shard is told.
enum Message {
    Request(Request, GroupReply),
    Appended(Ticket, AppendResult),
}

/// How to reach a shard.
#[derive(Default)]
pub struct ShardHandle {
    queue: RefCell<VecDeque<Message>>,
    waker: RefCell<Option<Waker>>,
    open: Cell<bool>,
    /// The next request kills it.
    pub dies: Cell<bool>,
}

impl ShardHandle {
    /// Asks; a shard that is down answers that it is loading.
    pub fn ask(&self, body: Request, reply: GroupReply) {
        if self.open.get() {
            self.push(Message::Request(body, reply));
        } else {
            reply.send(Err(ErrorCode::CoordinatorLoadInProgress));
        }
    }

    fn push(&self, message: Message) {
        self.queue.borrow_mut().push_back(message);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Timeouts that fit a run of seconds.
#[must_use]
pub fn config() -> GroupConfig {
    GroupConfig {
        min_session_timeout: Duration::from_millis(100),
        initial_rebalance_delay: Duration::from_millis(50),
        offsets_retention_check_interval: Duration::from_secs(1),
        ..GroupConfig::default()
    }
}

/// Supervises the shard of each partition of the offsets topic.
pub fn start(node: &Rc<Node>, process: &Rc<Process>) {
    let slots: Vec<Rc<Slot>> = process.slots.borrow().values().filter(|slot| slot.spec.internal).cloned().collect();
    for slot in slots {
        let handle = Rc::new(ShardHandle::default());
        process.shards.borrow_mut().insert(slot.spec.partition.partition, Rc::clone(&handle));
        let (sim, scope) = (Rc::clone(&node.sim), process.scope);
        node.sim.executor.detach(process.scope, async move {
            loop {
                let shell = ShardShell::new(&sim, &handle, slot.handle.clone());
                let exit = sim.executor.spawn(scope, shell.live(scope)).await;
                handle.open.set(false);
                // Dropped requests answer by default.
                let left = std::mem::take(&mut *handle.queue.borrow_mut());
                drop(left);
                if let Ok(Exit::Panicked(Some(text))) = exit {
                    sim.violate("U2", format!("group shard: {text}"));
                }
                cover!("shard reloaded");
                sim.pause(1000, 20_000).await;
            }
        });
    }
}

struct ShardShell {
    sim: Rc<Sim>,
    handle: Rc<ShardHandle>,
    replica: ReplicaHandle,
    shard: Shard,
    rng: Prng,
    next_request: u64,
    replies: BTreeMap<RequestId, GroupReply>,
    held: BTreeMap<Ticket, Vec<(RequestId, Response)>>,
    stopped: bool,
}

impl ShardShell {
    fn new(sim: &Rc<Sim>, handle: &Rc<ShardHandle>, replica: ReplicaHandle) -> Self {
        Self {
            sim: Rc::clone(sim),
            handle: Rc::clone(handle),
            replica,
            shard: Shard::new(config()),
            rng: sim.fork(),
            next_request: 0,
            replies: BTreeMap::new(),
            held: BTreeMap::new(),
            stopped: false,
        }
    }

    async fn live(mut self, scope: crate::executor::Scope) {
        if self.load(scope).await.is_none() {
            return;
        }
        self.handle.open.set(true);
        while !self.stopped {
            let message = self.handle.queue.borrow_mut().pop_front();
            match message {
                Some(Message::Request(body, reply)) => self.request(body, reply, scope),
                Some(Message::Appended(ticket, result)) => self.appended(ticket, result, scope),
                None => self.wait(scope).await,
            }
            self.shard.check();
        }
    }

    async fn load(&mut self, scope: crate::executor::Scope) -> Option<()> {
        let mut range: Option<(Offset, Offset)> = None;
        loop {
            let Ok(snapshot) = self.replica.snapshot_for(LeaderEpoch::NONE) else {
                self.sim.executor.sleep(Duration::from_millis(5)).await;
                continue;
            };
            let view = &snapshot.view;
            let (next, end) = range.map_or((view.log_start_offset(), view.log_end_offset()), |range| range);
            range = Some((next, end));
            if next >= end {
                self.step(Input::LoadFinished, scope);
                return Some(());
            }
            if snapshot.high_watermark < end {
                self.sim.executor.sleep(Duration::from_millis(5)).await;
                continue;
            }
            let (records, following) = slice(view, next, end)?;
            self.step(Input::Loaded { records }, scope);
            range = Some((following, end));
            self.sim.pause(1, 100).await;
        }
    }

    async fn wait(&mut self, scope: crate::executor::Scope) {
        let far = self.sim.now() + Duration::from_millis(500);
        let deadline = self.shard.deadline().map_or(far, |deadline| deadline.min(far));
        let handle = Rc::clone(&self.handle);
        let woken = poll_fn(move |context| {
            *handle.waker.borrow_mut() = Some(context.waker().clone());
            if handle.queue.borrow().is_empty() { Poll::Pending } else { Poll::Ready(()) }
        });
        drop(select(woken, self.sim.executor.sleep_until(deadline)).await);
        if self.shard.deadline().is_some_and(|deadline| deadline <= self.sim.now()) {
            self.step(Input::Tick, scope);
        }
    }

    fn request(&mut self, body: Request, reply: GroupReply, scope: crate::executor::Scope) {
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.replies.insert(request, reply);
        self.step(Input::Request { request, body }, scope);
        if self.handle.dies.take() {
            std::panic::panic_any(Planted);
        }
        self.shard.check_all();
    }

    fn step(&mut self, input: Input, scope: crate::executor::Scope) {
        let mut effects = Vec::new();
        self.shard.step(self.sim.now(), self.sim.wall(), input, &mut self.rng, &mut effects);
        for effect in effects {
            self.perform(effect, scope);
        }
    }

    fn perform(&mut self, effect: Effect, scope: crate::executor::Scope) {
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

    fn append(&mut self, ticket: Ticket, records: &[Record], scope: crate::executor::Scope) {
        let (reply, answer) = Reply::new(|| Err(ErrorCode::NotLeaderOrFollower.into()));
        let deadline = self.sim.now() + Duration::from_secs(2);
        let sent = batch(records, self.sim.wall().as_millis(), self.sim.serial()).and_then(|batch| {
            let sent = Sent { serial: 0, records: batch.header.record_count, idempotent: false };
            self.sim.history.borrow_mut().send(content(&batch.bytes), sent);
            let (required_acks, expected_epoch) = (RequiredAcks::All, None);
            let message = ReplicaMessage::Append { batch, required_acks, deadline, expected_epoch, reply };
            self.replica.actor().try_send(message).map_err(|_| ErrorCode::NotLeaderOrFollower)
        });
        let handle = Rc::clone(&self.handle);
        self.sim.executor.detach(scope, async move {
            let result = match sent {
                Ok(()) => answer.await,
                Err(error) => Err(error.into()),
            };
            if handle.open.get() {
                handle.push(Message::Appended(ticket, result));
            }
        });
    }

    fn appended(&mut self, ticket: Ticket, result: AppendResult, scope: crate::executor::Scope) {
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
