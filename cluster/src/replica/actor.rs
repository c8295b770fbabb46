//! The shell of a replica: feeds the machine what its mailbox brings and performs what it asks. It decides nothing.

use std::collections::HashMap;
use std::sync::Arc;

use madang_actors::clock::Mono;
use madang_actors::host::{Behavior, ShellContext};
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_actors::reply::Reply;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{Offset, TopicPartition};
use madang_storage::{Checkpoint, CompactionJob, SyncRequest};

use super::outside::{Neighbours, Outside};
use super::replication::{ReplicationEffect, ReplicationInput};
use super::{
    Append, AppendResult, Replica, ReplicaEffect, ReplicaInput, ReplicaMessage, ReplicaSnapshot, SharedReplica,
};
use crate::request::RequestId;

/// What a replica needs of its log directory.
pub trait Directory: 'static {
    /// Has `request` performed on another thread and returns the outcome to this life of the replica, as a `Synced` message.
    fn sync(&self, request: SyncRequest, context: &ShellContext<ReplicaMessage>);
    /// Has `job` run beside the disk thread and returns the outcome to this life of the replica, as a `Compacted` message, whatever
    /// becomes of it; a job whose replica ends is stopped.
    fn compact(&self, job: CompactionJob, context: &mut ShellContext<ReplicaMessage>);
    /// Notes what `snapshot` is about to tell of a log, before anybody hears of it.
    fn note(&self, partition: TopicPartition, snapshot: &ReplicaSnapshot);
    /// Has the log's checkpoint lowered to `checkpoint`, durably and beside the disk thread, and returns `Lowered(number)` to this life of the
    /// replica. A checkpoint that was taken of an older snapshot is not stored after it.
    fn lower(
        &self,
        partition: TopicPartition,
        checkpoint: Checkpoint,
        number: u64,
        context: &mut ShellContext<ReplicaMessage>,
    );
    /// The directory can no longer be trusted.
    fn fail(&self, why: &str);
}

/// One replica as an actor on its directory's disk arbiter.
pub struct ReplicaActor<D> {
    /// None once the partition is offline: every request is refused, and nothing touches the disk.
    replica: Option<Replica>,
    shared: Arc<SharedReplica>,
    directory: D,
    /// None on a node that has no others: its replicas ask nothing of them.
    outside: Option<Outside>,
    /// Whether the metadata is still to be looked at with the mailbox open: what changed while this life began was told to nobody.
    looks_again: bool,
    rng: Prng,
    next_request: u64,
    appends: HashMap<RequestId, Reply<AppendResult>>,
    deletes: HashMap<RequestId, Reply<Result<Offset, ErrorCode>>>,
    effects: Vec<ReplicaEffect>,
}

impl<D: Directory> ReplicaActor<D> {
    /// An actor around a replica that was built from disk.
    #[must_use]
    pub fn new(replica: Replica, shared: Arc<SharedReplica>, directory: D) -> Self {
        Self::build(Some(replica), shared, directory)
    }

    /// An actor for a partition whose log cannot be served: it refuses everything, and its neighbours serve on.
    #[must_use]
    pub fn offline(shared: Arc<SharedReplica>, directory: D, why: &str) -> Self {
        tracing::error!(partition = %shared.partition(), topic = %shared.topic(), why, "partition is offline");
        shared.set_offline();
        Self::build(None, shared, directory)
    }

    fn build(replica: Option<Replica>, shared: Arc<SharedReplica>, directory: D) -> Self {
        Self {
            replica,
            shared,
            directory,
            outside: None,
            looks_again: false,
            rng: Prng::new(0),
            next_request: 0,
            appends: HashMap::new(),
            deletes: HashMap::new(),
            effects: Vec::new(),
        }
    }

    /// Gives it the ways to other nodes and to the controller.
    #[must_use]
    pub fn linked(mut self, neighbours: Neighbours) -> Self {
        self.outside = Some(Outside::new(neighbours, self.shared.partition()));
        self
    }

    /// Publishes the first snapshot of this life, and leads or follows as committed metadata says.
    pub fn begin(&mut self, context: &mut ShellContext<ReplicaMessage>) {
        if let Some(outside) = &mut self.outside {
            outside.begin(self.shared.set_aside(), context);
        }
        self.looks_again = self.outside.is_some();
        if self.shared.is_offline() {
            // An earlier life was set aside: what it must not do this one must not either.
            return self.go_offline();
        }
        if !self.assign(context) {
            let leads = self.shared.leader_epoch();
            self.step(leads.map_or(ReplicaInput::Tick, ReplicaInput::Lead), context);
        }
    }

    /// Acts on what the metadata says of a partition that several nodes hold; false if this is not one.
    fn assign(&mut self, context: &mut ShellContext<ReplicaMessage>) -> bool {
        let Some(assignment) = self.shared.assignment() else { return false };
        // Read after it and acted on before it: who learns of an in-sync set knows the settings that it was judged by.
        self.step(ReplicaInput::Configure((*self.shared.config()).clone()), context);
        if let Some(outside) = &mut self.outside {
            outside.assigned(&assignment);
        }
        let assignment = Box::new((*assignment).clone());
        self.step(ReplicaInput::Replication(ReplicationInput::Assign(assignment)), context);
        true
    }

    fn new_request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    fn step(&mut self, input: ReplicaInput, context: &mut ShellContext<ReplicaMessage>) {
        let Some(replica) = &mut self.replica else { return };
        replica.step(context.now(), context.wall(), input, &mut self.rng, &mut self.effects);
        for effect in std::mem::take(&mut self.effects) {
            self.perform(effect, context);
        }
    }

    fn perform(&mut self, effect: ReplicaEffect, context: &mut ShellContext<ReplicaMessage>) {
        match effect {
            ReplicaEffect::Publish(snapshot) => {
                self.directory.note(self.shared.partition(), &snapshot);
                self.shared.publish(snapshot);
            }
            ReplicaEffect::Reply { request, result } => {
                if let Some(reply) = self.appends.remove(&request) {
                    reply.send(result);
                }
            }
            ReplicaEffect::ReplyDeleted { request, result } => {
                if let Some(reply) = self.deletes.remove(&request) {
                    reply.send(result);
                }
            }
            ReplicaEffect::Sync(request) => self.directory.sync(request, context),
            ReplicaEffect::Compact(job) => self.directory.compact(*job, context),
            ReplicaEffect::FailDirectory(why) => {
                self.directory.fail(&why);
                self.go_offline();
            }
            ReplicaEffect::Restart(why) => {
                tracing::error!(partition = %self.shared.partition(), topic = %self.shared.topic(), why, "replica is rebuilt from disk");
                self.shared.suspend();
                context.stop();
            }
            ReplicaEffect::Closed => self.shared.set_closed(),
            ReplicaEffect::Replication(asked) => self.replicate(asked, context),
        }
    }

    fn replicate(&mut self, asked: ReplicationEffect, context: &mut ShellContext<ReplicaMessage>) {
        match asked {
            ReplicationEffect::Halt(why) => {
                tracing::error!(partition = %self.shared.partition(), topic = %self.shared.topic(), why, "partition is set aside");
                if let Some(loss) = self.outside.as_mut().and_then(|outside| outside.set_aside(context.now())) {
                    self.shared.note_set_aside(loss);
                }
                self.go_offline();
            }
            ReplicationEffect::LowerRecoveryPoint { number, recovery_point, high_watermark } => {
                let checkpoint = Checkpoint { recovery_point, high_watermark };
                self.directory.lower(self.shared.partition(), checkpoint, number, context);
            }
            asked => {
                if let Some(outside) = &mut self.outside {
                    outside.perform(asked, context);
                }
            }
        }
    }
}

impl<D> ReplicaActor<D> {
    /// Lets go of the log. What was asked and not answered stays open for the client: some of it may be on the disk.
    fn go_offline(&mut self) {
        self.shared.set_offline();
        self.replica = None;
        self.appends.clear();
        self.deletes.clear();
        self.keep_to_leader();
    }

    /// Wants nothing more of a leader that it does not follow any more.
    fn keep_to_leader(&mut self) {
        if let Some(outside) = &mut self.outside {
            outside.follows(self.replica.as_ref().and_then(Replica::follows));
        }
    }

    /// Answers a message without a log. Nothing was done, so the error is definite.
    fn refuse(message: ReplicaMessage) {
        match message {
            ReplicaMessage::Append { reply, .. } => reply.send(Err(ErrorCode::KafkaStorageError.into())),
            ReplicaMessage::DeleteRecords { reply, .. } => reply.send(Err(ErrorCode::KafkaStorageError)),
            _ => {}
        }
    }
}

impl<D: Directory> Behavior for ReplicaActor<D> {
    type Message = ReplicaMessage;

    fn handle(&mut self, message: ReplicaMessage, context: &mut ShellContext<ReplicaMessage>) {
        if self.shared.is_offline() && self.replica.is_some() {
            // Its directory has failed meanwhile, by a neighbour's sync or by the watchdog.
            self.go_offline();
        }
        if let (ReplicaMessage::Assign(assignment), Some(outside)) = (&message, &mut self.outside) {
            outside.assigned(assignment);
        }
        if self.replica.is_none() {
            return Self::refuse(message);
        }
        let replication = ReplicaInput::Replication;
        let input = match message {
            ReplicaMessage::Lead { leader_epoch } => ReplicaInput::Lead(leader_epoch),
            ReplicaMessage::Configure(config) => ReplicaInput::Configure(*config),
            ReplicaMessage::Synced(outcome) => ReplicaInput::Synced(outcome),
            ReplicaMessage::Lowered(number) => replication(ReplicationInput::Lowered(number)),
            ReplicaMessage::Retain => ReplicaInput::Retain,
            ReplicaMessage::Compact => ReplicaInput::Compact,
            ReplicaMessage::Compacted(result) => ReplicaInput::Compacted(result),
            ReplicaMessage::Assign(assignment) => replication(ReplicationInput::Assign(assignment)),
            ReplicaMessage::Fetched(fetched) => replication(ReplicationInput::Fetched(fetched)),
            ReplicaMessage::Confirmed(confirmed) => replication(ReplicationInput::Confirmed(confirmed)),
            ReplicaMessage::Answered { answer } => replication(ReplicationInput::Answered(answer)),
            ReplicaMessage::ProposalEnded { number, outcome } => {
                replication(ReplicationInput::ProposalEnded { number, outcome })
            }
            ReplicaMessage::Silent { node_id, session } => replication(ReplicationInput::Silent { node_id, session }),
            ReplicaMessage::CutOff => replication(ReplicationInput::CutOff),
            ReplicaMessage::Append { reply, .. } if self.shared.is_cut_off() => {
                let request = self.new_request();
                self.appends.insert(request, reply);
                ReplicaInput::Refuse(request)
            }
            ReplicaMessage::Append { batch, required_acks, deadline, expected_epoch, reply } => {
                let request = self.new_request();
                self.appends.insert(request, reply);
                ReplicaInput::Append(Append { request, batch, required_acks, deadline, expected_epoch })
            }
            ReplicaMessage::DeleteRecords { before, reply } => {
                let request = self.new_request();
                self.deletes.insert(request, reply);
                ReplicaInput::DeleteRecords { request, before }
            }
        };
        self.step(input, context);
    }

    fn end_batch(&mut self, context: &mut ShellContext<ReplicaMessage>) {
        self.step(ReplicaInput::EndBatch, context);
        if let Some(replica) = &self.replica {
            replica.check();
        }
        self.keep_to_leader();
    }

    fn deadline(&self) -> Option<Mono> {
        if self.looks_again {
            return Some(Mono::ZERO);
        }
        let outside = self.outside.as_ref().and_then(Outside::deadline);
        [self.replica.as_ref().and_then(Machine::deadline), outside].into_iter().flatten().min()
    }

    fn on_deadline(&mut self, context: &mut ShellContext<ReplicaMessage>) {
        if std::mem::take(&mut self.looks_again) {
            self.assign(context);
        }
        if let Some(outside) = &mut self.outside {
            outside.on_deadline(context);
        }
        self.step(ReplicaInput::Tick, context);
    }

    fn stopping(&mut self, context: &mut ShellContext<ReplicaMessage>) {
        self.shared.suspend();
        self.step(ReplicaInput::Close, context);
        self.keep_to_leader();
    }
}
