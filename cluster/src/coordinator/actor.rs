//! The shell of a shard: loads its partition in slices, appends what the machine asks for, releases answers when the high
//! watermark has passed them. It decides nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use madang_actors::clock::Mono;
use madang_actors::host::{Behavior, ShellContext};
use madang_actors::machine::Machine;
use madang_actors::messages;
use madang_actors::prng::Prng;
use madang_actors::reply::Reply;
use madang_protocol::compression::Limits;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::record::RecordSet;
use madang_protocol::record_batch::{BatchBuilder, BatchOptions, Batches, ProduceRules, validate_produced};
use madang_protocol::types::{LeaderEpoch, Offset, Uuid};

use super::{Effect, GroupConfig, Input, Record, Request, Response, Shard, Ticket};
use crate::replica::{AppendResult, ReplicaHandle, ReplicaMessage, RequiredAcks};
use crate::request::RequestId;

/// Bytes of the log that one turn of the loading takes in.
const SLICE: usize = 256 << 10;
/// How long an append of the shard may wait for the high watermark before its fate counts as unknown.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon the loading looks again at a replica that does not serve yet.
const LOAD_RETRY: Duration = Duration::from_millis(20);
/// Panics at one group after which it is refused.
const PANICS_BEFORE_QUARANTINE: u32 = 3;

messages! {
    /// What a shard's actor is sent.
    #[derive(Debug)]
    pub enum ShardMessage {
        control {
            /// An append of this shard has ended.
            Appended {
                /// Which.
                ticket: Ticket,
                /// How.
                result: AppendResult,
            },
            /// A topic was deleted.
            TopicDeleted {
                /// Its name.
                name: String,
                /// Its id.
                id: Uuid,
            },
        }
        data {
            /// A client or administrator asks.
            Request {
                /// What is asked.
                body: Request,
                /// The answer's slot.
                reply: Reply<Result<Response, ErrorCode>>,
            },
        }
    }
}

/// What a shard's lives leave to the next: which group was being stepped when one died.
#[derive(Debug, Default)]
pub struct ShardHistory {
    inner: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    stepping: Option<String>,
    panics: BTreeMap<String, u32>,
}

impl ShardHistory {
    fn lock(&self) -> MutexGuard<'_, History> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stepping(&self, group: Option<&str>) {
        self.lock().stepping = group.map(str::to_owned);
    }

    /// Charges the group that the last life died on, and names those that are to be refused from now on.
    fn settle(&self) -> Vec<String> {
        let mut history = self.lock();
        if let Some(group) = history.stepping.take() {
            *history.panics.entry(group).or_default() += 1;
        }
        let poisonous = history.panics.iter().filter(|(_, panics)| **panics >= PANICS_BEFORE_QUARANTINE);
        poisonous.map(|(group, _)| group.clone()).collect()
    }
}

/// How far the loading is.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// The replica has not said yet where its log ends.
    Waiting,
    /// From here to the end that the log had when the replica began to lead.
    Reading {
        next: Offset,
        end: Offset,
    },
    Done,
}

/// One shard as an actor.
pub struct ShardActor {
    shard: Shard,
    replica: ReplicaHandle,
    history: Arc<ShardHistory>,
    poisonous: Vec<String>,
    rng: Prng,
    load: Load,
    retry_at: Option<Mono>,
    next_request: u64,
    replies: HashMap<RequestId, Reply<Result<Response, ErrorCode>>>,
    /// Answers that wait for an append.
    held: BTreeMap<Ticket, Vec<(RequestId, Response)>>,
}

impl ShardActor {
    /// A shard over its partition's replica. `seed` feeds the member ids.
    #[must_use]
    pub fn new(
        config: GroupConfig,
        replica: ReplicaHandle,
        history: Arc<ShardHistory>,
        seed: u64,
        context: &mut ShellContext<ShardMessage>,
    ) -> Self {
        Self {
            shard: Shard::new(config),
            replica,
            poisonous: history.settle(),
            history,
            rng: Prng::new(seed ^ context.incarnation().0),
            load: Load::Waiting,
            retry_at: Some(context.now()),
            next_request: 0,
            replies: HashMap::new(),
            held: BTreeMap::new(),
        }
    }

    fn step(&mut self, input: Input, context: &mut ShellContext<ShardMessage>) {
        let mut effects = Vec::new();
        self.history.stepping(group_of(&input));
        self.shard.step(context.now(), context.wall(), input, &mut self.rng, &mut effects);
        self.history.stepping(None);
        for effect in effects {
            self.perform(effect, context);
        }
    }

    fn perform(&mut self, effect: Effect, context: &mut ShellContext<ShardMessage>) {
        match effect {
            Effect::Append { ticket, records } => self.append(ticket, &records, context),
            Effect::Reply { request, response, after: Some(ticket) } => {
                self.held.entry(ticket).or_default().push((request, response));
            }
            Effect::Reply { request, response, after: None } => self.answer(request, Ok(response)),
            Effect::Stop { why } => {
                tracing::warn!(shard = context.path(), why, "group shard reloads");
                context.stop();
            }
            Effect::Report { group, what } => tracing::warn!(shard = context.path(), group, what, "group"),
        }
    }

    fn answer(&mut self, request: RequestId, response: Result<Response, ErrorCode>) {
        if let Some(reply) = self.replies.remove(&request) {
            reply.send(response);
        }
    }

    /// Appends without waiting: the machine has fewer appends in flight than the replica's mailbox has room for.
    fn append(&mut self, ticket: Ticket, records: &[Record], context: &mut ShellContext<ShardMessage>) {
        let (reply, answer) = Reply::new(|| Err(ErrorCode::NotLeaderOrFollower.into()));
        let life = context.this_life();
        let sent = batch(records, context.wall().as_millis()).and_then(|batch| {
            let deadline = context.now() + APPEND_TIMEOUT;
            let (required_acks, expected_epoch) = (RequiredAcks::All, None);
            let message = ReplicaMessage::Append { batch, required_acks, deadline, expected_epoch, reply };
            self.replica.actor().try_send(message).map_err(|_| ErrorCode::NotLeaderOrFollower)
        });
        context.spawn(async move {
            let result = match sent {
                Ok(()) => answer.await,
                Err(error) => Err(error.into()),
            };
            // A full control lane or a later life: the shard is reloading, and knows nothing of this append.
            drop(life.try_send(ShardMessage::Appended { ticket, result }));
        });
    }

    fn appended(&mut self, ticket: Ticket, result: AppendResult, context: &mut ShellContext<ShardMessage>) {
        match result {
            Ok(_) => {
                self.step(Input::Committed { through: ticket }, context);
                while let Some(first) = self.held.first_entry().filter(|first| *first.key() <= ticket) {
                    for (request, response) in first.remove() {
                        self.answer(request, Ok(response));
                    }
                }
            }
            Err(refused) => {
                for (request, response) in std::mem::take(&mut self.held).into_values().flatten() {
                    self.answer(request, Ok(response.failed(ErrorCode::CoordinatorNotAvailable)));
                }
                self.step(Input::AppendFailed { ticket, error: refused.error }, context);
            }
        }
    }

    /// One slice of the log; the next one comes with the deadline that this sets.
    fn load_next(&mut self, context: &mut ShellContext<ShardMessage>) {
        let Ok(snapshot) = self.replica.snapshot_for(LeaderEpoch::NONE) else {
            self.retry_at = Some(context.now() + LOAD_RETRY);
            return;
        };
        let (next, end) = match self.load {
            Load::Waiting => (snapshot.view.log_start_offset(), snapshot.view.log_end_offset()),
            Load::Reading { next, end } => (next.max(snapshot.view.log_start_offset()), end),
            Load::Done => return,
        };
        self.load = Load::Reading { next, end };
        if next >= end {
            return self.finish_load(context);
        }
        if snapshot.high_watermark < end {
            // What is not yet acknowledged might still be lost; a load must not build on it.
            self.retry_at = Some(context.now() + LOAD_RETRY);
            return;
        }
        match slice(&snapshot.view, next, end) {
            Ok((records, next)) => {
                self.load = Load::Reading { next, end };
                self.step(Input::Loaded { records }, context);
                self.retry_at = Some(context.now());
            }
            Err(error) => {
                tracing::error!(shard = context.path(), %error, "group shard cannot load");
                context.stop();
            }
        }
    }

    fn finish_load(&mut self, context: &mut ShellContext<ShardMessage>) {
        self.load = Load::Done;
        for group in std::mem::take(&mut self.poisonous) {
            self.step(Input::QuarantineGroup { group }, context);
        }
        self.step(Input::LoadFinished, context);
    }
}

/// Records from `next` on, below `end`, and where the following slice starts.
fn slice(
    view: &madang_storage::LogView,
    next: Offset,
    end: Offset,
) -> Result<(Vec<Record>, Offset), Box<dyn std::error::Error>> {
    let found = view.read(next, end, SLICE, true)?;
    let following = found.next_offset.max(next);
    if found.size == 0 {
        // Nothing is left of this range: compaction took it.
        return Ok((Vec::new(), end));
    }
    let bytes = found.records.read()?;
    let mut records = Vec::new();
    for batch in Batches::new(&bytes) {
        let batch = batch?;
        batch.verify_crc()?;
        if batch.header.is_control() {
            continue;
        }
        let set = RecordSet::of(&batch, &Limits::for_max_message_bytes(1 << 20))?;
        for record in &set {
            let record = record?;
            let value = record.value.map(Bytes::copy_from_slice);
            records.extend(record.key.map(|key| Record { key: Bytes::copy_from_slice(key), value }));
        }
    }
    Ok((records, following))
}

/// One batch of the shard's records.
fn batch(records: &[Record], timestamp: i64) -> Result<madang_protocol::record_batch::ValidatedBatch, ErrorCode> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for record in records {
        let appended = builder.append(timestamp, Some(&record.key), record.value.as_deref(), &[]);
        appended.map_err(|_| ErrorCode::UnknownServerError)?;
    }
    let bytes = builder.build().map_err(|_| ErrorCode::UnknownServerError)?;
    let rules = ProduceRules { now_ms: timestamp, max_message_bytes: usize::MAX, ..ProduceRules::default() };
    validate_produced(&bytes, &rules).map_err(|_| ErrorCode::UnknownServerError)
}

/// The group that an input is about, if it is about one.
fn group_of(input: &Input) -> Option<&str> {
    let Input::Request { body, .. } = input else { return None };
    match body {
        Request::JoinGroup(body) => Some(&body.group),
        Request::SyncGroup(body) => Some(&body.group),
        Request::Heartbeat(body) => Some(&body.group),
        Request::LeaveGroup(body) => Some(&body.group),
        Request::OffsetCommit(body) => Some(&body.group),
        Request::OffsetFetch(body) => Some(&body.group),
        Request::OffsetDelete(body) => Some(&body.group),
        Request::DescribeGroup(body) => Some(&body.group),
        Request::ListGroups(_) | Request::DeleteGroups(_) => None,
    }
}

impl Behavior for ShardActor {
    type Message = ShardMessage;

    fn handle(&mut self, message: ShardMessage, context: &mut ShellContext<ShardMessage>) {
        match message {
            ShardMessage::Appended { ticket, result } => self.appended(ticket, result, context),
            ShardMessage::TopicDeleted { name, id } => self.step(Input::TopicDeleted { name, id }, context),
            ShardMessage::Request { body, reply } => {
                self.next_request += 1;
                let request = RequestId(self.next_request);
                self.replies.insert(request, reply);
                self.step(Input::Request { request, body }, context);
            }
        }
    }

    fn end_batch(&mut self, _: &mut ShellContext<ShardMessage>) {
        self.shard.check();
    }

    fn deadline(&self) -> Option<Mono> {
        [self.shard.deadline(), self.retry_at].into_iter().flatten().min()
    }

    fn on_deadline(&mut self, context: &mut ShellContext<ShardMessage>) {
        if self.retry_at.is_some_and(|at| at <= context.now()) {
            self.retry_at = None;
            self.load_next(context);
        }
        self.step(Input::Tick, context);
    }
}
