//! What every other thread sees of a replica: its last published snapshot, its settings, who waits on it, its mailbox.
//! Invariant: a reader works on one snapshot, so it can never mix the states of two moments.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use madang_actors::actor_ref::ActorRef;
use madang_actors::clock::{Mono, Wall};
use madang_actors::mailbox::{ActorState, SendError};
use madang_actors::published::Published;
use madang_actors::reply::{Answer, Reply};
use madang_actors::waiters::Waiters;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::record_batch::{ProduceRules, ValidatedBatch};
use madang_protocol::types::{LeaderEpoch, NodeId, Offset, TopicPartition};
use madang_storage::mutants::mutant;
use madang_storage::{LogView, Note};

use super::replication::{Assignment, FollowerFetch, Loss};
use super::{AppendResult, ReplicaConfig, ReplicaMessage, RequiredAcks};

/// The most parked fetches of one partition; one more is answered at once with what there is.
const MAX_WAITERS: usize = 100_000;

/// One moment of a replica, immutable.
#[derive(Clone, Debug)]
pub struct ReplicaSnapshot {
    /// The life of the replica that published it.
    pub incarnation: u64,
    /// The epoch in which this node leads; none if it does not.
    pub leader_epoch: Option<LeaderEpoch>,
    /// What was lost, while the controller may still count on this replica: it serves nobody.
    pub loss: Option<Loss>,
    /// The newest leader epoch that the replica knew of.
    pub known_epoch: LeaderEpoch,
    /// The state of the partition that the replica knew of; -1 if its leadership came without one.
    pub partition_epoch: i32,
    /// A leader's maximal in-sync set, the proposal in flight included: published before that is sent. Empty if it has no followers.
    pub maximal_isr: Arc<[NodeId]>,
    /// Where the log ended when the leadership began.
    pub epoch_start: Offset,
    /// Every record below it is acknowledged.
    pub high_watermark: Offset,
    /// No record at or above it is decided; the high watermark while there are no transactions.
    pub last_stable_offset: Offset,
    /// Every record below it is on the device, as far as this node knows.
    pub confirmed_end: Offset,
    /// Where the log is about to be cut, or was cut and no sync has brought that to the device: what lies above counts for nothing.
    pub cut_to: Option<Offset>,
    /// The log.
    pub view: LogView,
}

impl ReplicaSnapshot {
    /// What is noted of it where a kill leaves it.
    #[must_use]
    pub fn note(&self) -> Note {
        Note {
            incarnation: self.incarnation,
            // One that found less stays short of its note until the controller knows, also over a kill.
            log_end_offset: self.loss.filter(|_| !mutant(46)).map_or_else(|| self.known_end(), |loss| loss.published),
            confirmed_end: if mutant(42) { self.view.log_end_offset() } else { self.recovery_point() },
            high_watermark: self.high_watermark,
            unsettled: self.cut_to.is_some(),
        }
    }

    /// The end that a later life has to find at least.
    #[must_use]
    pub fn known_end(&self) -> Offset {
        let end = self.view.log_end_offset();
        self.cut_to.map_or(end, |cut| end.min(cut))
    }

    /// What may be kept as known to be on the device.
    #[must_use]
    pub fn recovery_point(&self) -> Offset {
        self.confirmed_end.min(self.known_end())
    }

    /// Where the log of the largest epoch not above `epoch` ends; none if the log knows none.
    #[must_use]
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        match self.leader_epoch {
            // The current epoch ends where the log does, whether or not it has written anything.
            Some(current) if epoch == current => Some((current, self.view.log_end_offset())),
            Some(current) if epoch > current => None,
            _ => self.view.end_offset_for_epoch(epoch),
        }
    }
}

/// The high watermark that a follower heard last, in one life of it.
#[derive(Clone, Copy, Debug)]
struct Told {
    life: (i64, u64),
    high_watermark: Offset,
}

/// A fetch that was counted, by which life of the replica, and when.
#[derive(Clone, Copy, Debug)]
struct Counted {
    fetch: FollowerFetch,
    leader_incarnation: u64,
    at: Mono,
}

/// How long a fetch that says nothing new need not be counted again: far shorter than any follower's lag may be.
const COUNTS_FOR: Duration = Duration::from_secs(1);

/// The shared side of one replica. It outlives the replica's restarts.
#[derive(Debug)]
pub struct SharedReplica {
    partition: TopicPartition,
    topic: Arc<str>,
    is_internal: bool,
    /// Offline: the partition cannot be served until the process starts again.
    published: Published<ReplicaSnapshot>,
    config: ArcSwap<ReplicaConfig>,
    /// The epoch that committed metadata lets this node lead in; negative if another node leads.
    leader_epoch: AtomicI32,
    /// What committed metadata says of a partition that several nodes hold.
    assignment: ArcSwapOption<Assignment>,
    /// What was lost by a replica that is set aside.
    set_aside: Mutex<Option<Loss>>,
    /// By follower: what it was told last, so that a fetch waits only if it would be told nothing new.
    told: Mutex<BTreeMap<NodeId, Told>>,
    /// By follower: the fetch that the replica has counted last.
    counted: Mutex<BTreeMap<NodeId, Counted>>,
    closed: AtomicBool,
    /// Whether another node may lead by now, as the controller has not been heard of for a session.
    cut_off: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No user code runs under these locks, so a poisoned one is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedReplica {
    /// The shared side of a replica that has not started yet.
    #[must_use]
    pub fn new(
        partition: TopicPartition,
        topic: Arc<str>,
        is_internal: bool,
        leader_epoch: Option<LeaderEpoch>,
        config: ReplicaConfig,
    ) -> Self {
        Self {
            partition,
            topic,
            is_internal,
            published: Published::new(MAX_WAITERS),
            config: ArcSwap::from_pointee(config),
            leader_epoch: AtomicI32::new(leader_epoch.unwrap_or(LeaderEpoch::NONE).0),
            assignment: ArcSwapOption::empty(),
            set_aside: Mutex::default(),
            told: Mutex::default(),
            counted: Mutex::default(),
            closed: AtomicBool::new(false),
            cut_off: AtomicBool::new(false),
        }
    }

    /// The partition.
    #[must_use]
    pub const fn partition(&self) -> TopicPartition {
        self.partition
    }

    /// The topic's name.
    #[must_use]
    pub const fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> Arc<ReplicaConfig> {
        self.config.load_full()
    }

    /// The epoch that committed metadata lets this node lead in.
    #[must_use]
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        let epoch = LeaderEpoch(self.leader_epoch.load(Ordering::Acquire));
        (epoch > LeaderEpoch::NONE).then_some(epoch)
    }

    /// Notes the epoch for the replica's next life; the running one learns of it by message.
    pub fn set_leader_epoch(&self, epoch: Option<LeaderEpoch>) {
        self.leader_epoch.store(epoch.unwrap_or(LeaderEpoch::NONE).0, Ordering::Release);
    }

    /// What committed metadata says of the partition, if it is one that several nodes hold.
    #[must_use]
    pub fn assignment(&self) -> Option<Arc<Assignment>> {
        self.assignment.load_full()
    }

    /// Notes what committed metadata says of the partition, for the replica's next life; the running one learns of it by message.
    pub fn set_assignment(&self, assignment: Arc<Assignment>) {
        self.assignment.store(Some(assignment));
    }

    /// What was lost by a replica that an earlier life has set aside.
    #[must_use]
    pub fn set_aside(&self) -> Option<Loss> {
        *lock(&self.set_aside)
    }

    /// Notes that the replica is set aside, for its next lives: each goes on telling the controller.
    pub fn note_set_aside(&self, loss: Loss) {
        *lock(&self.set_aside) = Some(loss);
    }

    /// The high watermark that the follower's present life was told last.
    pub(super) fn told(&self, follower: &FollowerFetch) -> Option<Offset> {
        let life = (follower.broker_epoch, follower.position.incarnation);
        lock(&self.told).get(&follower.node_id).filter(|told| told.life == life).map(|told| told.high_watermark)
    }

    pub(super) fn tell(&self, follower: &FollowerFetch, high_watermark: Offset) {
        let life = (follower.broker_epoch, follower.position.incarnation);
        lock(&self.told).insert(follower.node_id, Told { life, high_watermark });
    }

    /// Whether that life of the replica has counted the very same fetch a moment ago.
    pub(super) fn has_counted(&self, now: Mono, fetch: &FollowerFetch, leader_incarnation: u64) -> bool {
        lock(&self.counted).get(&fetch.node_id).is_some_and(|last| {
            (&last.fetch, last.leader_incarnation) == (fetch, leader_incarnation)
                && now.saturating_since(last.at) < COUNTS_FOR
        })
    }

    pub(super) fn counts(&self, at: Mono, fetch: FollowerFetch, leader_incarnation: u64) {
        lock(&self.counted).insert(fetch.node_id, Counted { fetch, leader_incarnation, at });
    }

    /// Changes the settings that produce requests are checked with; the replica itself learns of them by message.
    pub fn set_config(&self, config: ReplicaConfig) {
        self.config.store(Arc::new(config));
    }

    /// Publishes a snapshot and wakes whoever waits on the partition.
    pub fn publish(&self, snapshot: Arc<ReplicaSnapshot>) {
        self.published.publish(snapshot);
    }

    /// The last snapshot that any life published, for the next one to start from.
    #[must_use]
    pub fn last_published(&self) -> Option<Arc<ReplicaSnapshot>> {
        self.published.last()
    }

    /// Refuses every reader and writer from now on. Holds at once, whatever the replica's thread is doing.
    pub fn set_offline(&self) {
        self.published.set_offline();
    }

    /// Notes that the log was closed in order: all that was published is on the device.
    pub fn set_closed(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether the log was closed in order.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether its node has been without the controller for a session: clients are sent elsewhere, followers are served.
    pub fn set_cut_off(&self, cut_off: bool) {
        self.cut_off.store(cut_off, Ordering::Release);
    }

    /// See [`SharedReplica::set_cut_off`].
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Acquire)
    }

    /// Whether it refuses every reader and writer.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.published.is_offline()
    }

    /// Stops readers until the next snapshot, and wakes those who wait so that they find out.
    pub fn suspend(&self) {
        self.published.suspend();
    }
}

/// What API handlers and coordinators hold of a replica.
#[derive(Clone, Debug)]
pub struct ReplicaHandle {
    shared: Arc<SharedReplica>,
    actor: ActorRef<ReplicaMessage>,
}

impl ReplicaHandle {
    /// A handle to the replica with this shared side and mailbox.
    #[must_use]
    pub const fn new(shared: Arc<SharedReplica>, actor: ActorRef<ReplicaMessage>) -> Self {
        Self { shared, actor }
    }

    /// The shared side.
    #[must_use]
    pub const fn shared(&self) -> &Arc<SharedReplica> {
        &self.shared
    }

    /// The mailbox.
    #[must_use]
    pub const fn actor(&self) -> &ActorRef<ReplicaMessage> {
        &self.actor
    }

    /// Whether clients may not write to the topic.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.shared.is_internal
    }

    /// Whoever waits for the high watermark to move.
    #[must_use]
    pub fn waiters(&self) -> &Waiters {
        self.shared.published.waiters()
    }

    /// The snapshot to read, if this node leads and the client believes in the right epoch ([`LeaderEpoch::NONE`]: any).
    ///
    /// # Errors
    /// `KAFKA_STORAGE_ERROR` if the replica is down for good, `NOT_LEADER_OR_FOLLOWER` while it is starting or does not lead,
    /// `FENCED_LEADER_EPOCH`, `UNKNOWN_LEADER_EPOCH`.
    pub fn snapshot_for(&self, believed: LeaderEpoch) -> Result<Arc<ReplicaSnapshot>, ErrorCode> {
        if self.shared.is_cut_off() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        self.led_snapshot(believed)
    }

    /// As [`ReplicaHandle::snapshot_for`], for followers: to them a leader without its controller still leads.
    ///
    /// # Errors
    /// As there.
    pub fn led_snapshot(&self, believed: LeaderEpoch) -> Result<Arc<ReplicaSnapshot>, ErrorCode> {
        let Some(snapshot) = self.shared.published.readable() else { return Err(self.unavailable()) };
        if snapshot.loss.is_some() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let current = snapshot.leader_epoch.ok_or(ErrorCode::NotLeaderOrFollower)?;
        match believed {
            LeaderEpoch::NONE => Ok(snapshot),
            believed if believed < current => Err(ErrorCode::FencedLeaderEpoch),
            believed if believed > current => Err(ErrorCode::UnknownLeaderEpoch),
            _ => Ok(snapshot),
        }
    }

    /// The snapshot to read for a consumer that believes in the right epoch ([`LeaderEpoch::NONE`]: any), whether or not this node leads
    /// (KIP-392). What lies below its high watermark is acknowledged.
    ///
    /// # Errors
    /// As [`Self::snapshot_for`]; `NOT_LEADER_OR_FOLLOWER` if the replica has no role yet.
    pub fn snapshot_of_follower(&self, believed: LeaderEpoch) -> Result<Arc<ReplicaSnapshot>, ErrorCode> {
        let Some(snapshot) = self.shared.published.readable() else { return Err(self.unavailable()) };
        if snapshot.loss.is_some() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let known = Some(snapshot.known_epoch).filter(|known| *known > LeaderEpoch::NONE);
        let current = snapshot.leader_epoch.or(known).ok_or(ErrorCode::NotLeaderOrFollower)?;
        match believed {
            LeaderEpoch::NONE => Ok(snapshot),
            believed if believed < current => Err(ErrorCode::FencedLeaderEpoch),
            believed if believed > current => Err(ErrorCode::UnknownLeaderEpoch),
            _ => Ok(snapshot),
        }
    }

    /// Why there is nothing to read.
    fn unavailable(&self) -> ErrorCode {
        match self.actor.state() {
            _ if self.shared.is_offline() => ErrorCode::KafkaStorageError,
            ActorState::Quarantined | ActorState::Stopped => ErrorCode::KafkaStorageError,
            ActorState::Starting | ActorState::Running | ActorState::Restarting => ErrorCode::NotLeaderOrFollower,
        }
    }

    /// The rules that a batch for this partition must meet.
    #[must_use]
    pub fn produce_rules(&self, produce_version: i16, now: Wall) -> ProduceRules {
        ProduceRules { produce_version, now_ms: now.as_millis(), ..self.shared.config.load().produce }
    }

    /// The message that asks for an append, and its answer. A replica that dies before it answers leaves it open whether the
    /// batch was appended, and the answer says so: `NOT_LEADER_OR_FOLLOWER`.
    pub fn append_message(
        batch: ValidatedBatch,
        required_acks: RequiredAcks,
        deadline: Mono,
    ) -> (ReplicaMessage, Answer<AppendResult>) {
        let (reply, answer) = Reply::new(|| Err(ErrorCode::NotLeaderOrFollower.into()));
        (ReplicaMessage::Append { batch, required_acks, deadline, expected_epoch: None, reply }, answer)
    }

    /// Queues a message, waiting while the mailbox is full. Dropping the future withdraws the message.
    ///
    /// # Errors
    /// `KAFKA_STORAGE_ERROR` if the replica is down for good, `NOT_LEADER_OR_FOLLOWER` while it is starting,
    /// `REQUEST_TIMED_OUT` if too many wait already. Nothing was done in any of these cases.
    pub fn admit(&self, message: ReplicaMessage) -> impl Future<Output = Result<(), ErrorCode>> + use<> {
        let offline = self.shared.is_offline();
        let admission = self.actor.admit(message);
        async move {
            if offline {
                return Err(ErrorCode::KafkaStorageError);
            }
            admission.await.map_err(|error| match error {
                SendError::Full(_) | SendError::Deadline(_) => ErrorCode::RequestTimedOut,
                SendError::NotRunning { state: ActorState::Quarantined | ActorState::Stopped, .. } => {
                    ErrorCode::KafkaStorageError
                }
                SendError::NotRunning { .. } | SendError::Stale(_) => ErrorCode::NotLeaderOrFollower,
            })
        }
    }
}
