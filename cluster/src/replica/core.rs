//! What a replica decides. Pure: its log writes through `trait Disk`, everything else is an effect.
//! Invariant: log_start_offset <= high_watermark <= log_end_offset, and in fsync mode high_watermark <= confirmed end.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use madang_actors::clock::{Mono, Wall};
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{LeaderEpoch, NodeId, Offset};
use madang_storage::mutants::mutant;
use madang_storage::{Log, LogError, SyncOutcome};

use super::append::{Forgiven, reply};
use super::compaction::Compaction;
use super::follower::Follower;
use super::leader::{Leader, Own};
use super::pending::Pending;
use super::publish::Published;
use super::replication::Loss;
use super::{
    Append, Durability, LostRecords, ReplicaConfig, ReplicaEffect, ReplicaInput, ReplicaSnapshot, fail_if_unsynced,
};
use crate::request::RequestId;

/// What a replica is for its partition.
#[derive(Debug)]
pub(super) enum Role {
    /// Nothing yet.
    Idle,
    Leader(Leader),
    Follower(Follower),
    /// It found less than its last life had published, and serves nobody until the metadata shows that the controller knows.
    Lost(Loss),
}

/// What an earlier life in this process had published of its leadership.
#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) partition_epoch: i32,
    pub(super) maximal: BTreeSet<NodeId>,
}

/// One replica of one partition.
#[derive(Debug)]
pub struct Replica {
    pub(super) incarnation: u64,
    pub(super) log: Option<Log>,
    pub(super) config: ReplicaConfig,
    pub(super) role: Role,
    /// The newest state of the partition that was acted on: leader epoch and partition epoch.
    pub(super) known: (LeaderEpoch, i32),
    pub(super) inherited: Option<Inherited>,
    /// Whether an earlier life has published what holds until this one has a role.
    pub(super) resumes: bool,
    pub(super) high_watermark: Offset,
    /// Gathered since the last write.
    pub(super) gathered: Vec<Append>,
    pub(super) pending: Pending,
    /// Until when gaps of producers count as left by what was refused, and by what came before this leadership.
    pub(super) forgives: Forgiven,
    syncs_in_flight: usize,
    /// When a loss is reported again, as nothing says yet that the controller has heard of it.
    pub(super) report_at: Option<Mono>,
    /// Cuts that this life has begun.
    pub(super) cuts: u64,
    /// Where the log was cut last, until that is on the device.
    pub(super) unsettled_cut: Option<Offset>,
    pub(super) compaction: Compaction,
    /// Page-cache mode: when `flush.ms` asks for a sync of what was appended first since the last one.
    flush_at: Option<Mono>,
    /// What the last snapshot said, so that nothing is published twice.
    pub(super) published: Option<Published>,
}

impl Replica {
    /// A replica over a recovered log. `before` is what an earlier life in this process published last, if there was one: its
    /// high watermark is kept, because readers have seen it.
    ///
    /// # Errors
    /// The log ends before what the earlier life had published: `earlier` and `found` ends. The partition must not be served.
    pub fn new(
        incarnation: u64,
        log: Log,
        config: ReplicaConfig,
        before: Option<&ReplicaSnapshot>,
    ) -> Result<Self, LostRecords> {
        let found = log.log_end_offset();
        let published = before.map_or(found, ReplicaSnapshot::known_end);
        if published > found && !mutant(35) {
            let high_watermark = before.map_or(Offset::ZERO, |before| before.high_watermark).min(found);
            let known_epoch = before.map_or(LeaderEpoch::NONE, |before| before.known_epoch);
            return Err(LostRecords { published, found, high_watermark, known_epoch });
        }
        #[cfg(feature = "mutants")]
        let log = plant_stale_end(log, before);
        // A loss that the controller may not know of is not forgotten by dying again.
        let role = before.and_then(|before| before.loss).map_or(Role::Idle, Role::Lost);
        let mut replica = Self::with(incarnation, log, config, role);
        if let Some(before) = before {
            replica.high_watermark = before.high_watermark.max(replica.high_watermark);
            // The same state gives the role back; an older one is older still.
            replica.known = (before.known_epoch, before.partition_epoch - 1);
            replica.resumes = true;
            replica.unsettled_cut = replica.unsettled_cut.min(before.cut_to.or(replica.unsettled_cut));
            replica.inherited = before.leader_epoch.filter(|_| !mutant(34)).map(|leader_epoch| Inherited {
                leader_epoch,
                partition_epoch: before.partition_epoch,
                maximal: before.maximal_isr.iter().copied().collect(),
            });
        }
        if mutant(35) {
            replica.high_watermark = replica.high_watermark.min(found);
        }
        Ok(replica)
    }

    /// The first life in a process: what was stored of the high watermark is believed as far as the log reaches.
    pub fn starts_at(&mut self, high_watermark: Offset) {
        if let Some(own) = self.own() {
            self.high_watermark = self.high_watermark.max(high_watermark.min(own.counted));
        }
    }

    /// A replica whose log ends before what its last life had published. It serves nobody and reports the loss until the metadata shows
    /// that the controller knows of it; then it takes the role that the metadata gives it.
    #[must_use]
    pub fn after_loss(incarnation: u64, log: Log, config: ReplicaConfig, lost: LostRecords) -> Self {
        let loss = Loss { incarnation, published: lost.published, found: lost.found };
        let mut replica = Self::with(incarnation, log, config, Role::Lost(loss));
        replica.high_watermark = replica.high_watermark.max(lost.high_watermark);
        // Whether an election was unclean since is told by what was known before it.
        replica.known = (lost.known_epoch, -1);
        replica
    }

    fn with(incarnation: u64, log: Log, config: ReplicaConfig, role: Role) -> Self {
        Self {
            incarnation,
            high_watermark: log.log_start_offset(),
            config,
            role,
            known: (LeaderEpoch::NONE, -1),
            inherited: None,
            resumes: false,
            gathered: Vec::new(),
            pending: Pending::default(),
            forgives: Forgiven::default(),
            syncs_in_flight: 0,
            report_at: None,
            cuts: 0,
            // A cut that an earlier life began, and that may be on no device.
            unsettled_cut: (!log.is_settled()).then(|| log.log_end_offset()),
            log: Some(log),
            compaction: Compaction::Idle,
            flush_at: None,
            published: None,
        }
    }

    /// The offset below which every record is acknowledged.
    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// The log, until the replica is closed.
    #[must_use]
    pub const fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// The epoch in which this node leads; none if it does not.
    pub(super) const fn leader_epoch(&self) -> Option<LeaderEpoch> {
        match &self.role {
            Role::Leader(leader) => Some(leader.epoch()),
            Role::Idle | Role::Follower(_) | Role::Lost(_) => None,
        }
    }

    /// The leader that it follows; none if it does not, or if nobody leads.
    #[must_use]
    pub const fn follows(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(follower) => follower.leader(),
            Role::Idle | Role::Leader(_) | Role::Lost(_) => None,
        }
    }

    /// Leads a partition that is on no other node.
    fn lead(&mut self, now: Mono, epoch: LeaderEpoch, effects: &mut Vec<ReplicaEffect>) {
        if self.leader_epoch().is_some_and(|current| current >= epoch) {
            return;
        }
        let epoch_start = self.begin_epoch(epoch);
        self.role = Role::Leader(Leader::sole(epoch, epoch_start, now));
        self.begin_forgiving(now);
        self.advance_high_watermark(now);
        self.publish_if_changed(effects);
    }

    /// Notes in the log that a leadership begins, if an earlier life has not; answers where it began.
    pub(super) fn begin_epoch(&mut self, epoch: LeaderEpoch) -> Offset {
        let Some(log) = &mut self.log else { return self.high_watermark };
        if let Err(error) = log.begin_epoch(epoch) {
            // Each batch carries its epoch, so the checkpoint is rebuilt from them; only an epoch without records is forgotten.
            tracing::warn!(%error, "leader epoch not checkpointed");
        }
        let begun = log.leader_epochs().latest().filter(|latest| latest.epoch == epoch);
        begun.map_or(log.log_end_offset(), |begun| begun.start_offset)
    }

    /// Whether acks=all may be served, and the high watermark may move.
    pub(super) fn has_quorum(&self) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.has_quorum(&self.config),
            Role::Idle | Role::Follower(_) | Role::Lost(_) => false,
        }
    }

    pub(super) fn ask_for_sync(&mut self, now: Mono, wall: Wall, effects: &mut Vec<ReplicaEffect>) {
        let Some(log) = &mut self.log else { return };
        let due = match self.config.durability {
            Durability::Fsync => log.is_due(),
            Durability::PageCache => log.sync_is_due(wall) || !log.is_settled(),
        };
        if due {
            self.flush_at = None;
            self.sync_now(effects);
        } else if self.config.durability == Durability::PageCache && log.is_dirty() && self.flush_at.is_none() {
            self.flush_at = log.sync_within().map(|interval| now + interval);
        }
    }

    /// One sync at a time: what is appended meanwhile goes into the next one.
    fn sync_now(&mut self, effects: &mut Vec<ReplicaEffect>) {
        if self.syncs_in_flight > 0 {
            return;
        }
        if let Some(request) = self.log.as_mut().and_then(Log::take_dirty) {
            self.syncs_in_flight += 1;
            effects.push(ReplicaEffect::Sync(request));
        }
    }

    fn synced(&mut self, now: Mono, wall: Wall, outcome: SyncOutcome, effects: &mut Vec<ReplicaEffect>) {
        let Some(log) = &mut self.log else { return };
        self.syncs_in_flight = self.syncs_in_flight.saturating_sub(1);
        match log.synced(outcome) {
            Ok(_) => {
                let settled = log.is_settled() && self.unsettled_cut.take().is_some();
                self.advance_high_watermark(now);
                self.publish_if_changed(effects);
                self.answer_pending(effects);
                self.tell_confirmed(effects);
                self.tend_isr(now, effects);
                self.ask_for_sync(now, wall, effects);
                if settled {
                    self.fetch_next(false, effects);
                }
            }
            // Nothing is retried: the pages may be gone, and a second sync would lie.
            Err(error) => effects.push(ReplicaEffect::FailDirectory(error.to_string())),
        }
    }

    /// What this log has, by its end and as the durability counts it.
    pub(super) fn own(&self) -> Option<Own> {
        let log = self.log.as_ref()?;
        let log_end = log.log_end_offset();
        let counted = match self.config.durability {
            Durability::Fsync if !mutant(67) => log.confirmed_offset(),
            Durability::Fsync | Durability::PageCache => log_end,
        };
        Some(Own { log_end, counted })
    }

    /// A leader's is the lowest counted offset of the maximal in-sync set, a follower's what it heard of as far as it has it. Never back.
    pub(super) fn advance_high_watermark(&mut self, now: Mono) {
        let Some(own) = self.own() else { return };
        let reached = match &self.role {
            Role::Leader(leader) => leader.high_watermark(now, own, &self.config),
            Role::Follower(follower) if mutant(68) => Some(follower.leader_high_watermark()),
            Role::Follower(follower) => Some(follower.leader_high_watermark().min(own.counted)),
            Role::Idle | Role::Lost(_) => None,
        };
        self.high_watermark = self.high_watermark.max(reached.unwrap_or(self.high_watermark));
    }

    pub(super) fn answer_pending(&mut self, effects: &mut Vec<ReplicaEffect>) {
        for (request, appended) in self.pending.passed(self.high_watermark) {
            reply(effects, request, Ok(appended));
        }
    }

    fn expire(&mut self, now: Mono, effects: &mut Vec<ReplicaEffect>) {
        // Appended, and not acknowledged in time: the client must not take it for refused.
        let under_min = self.leader_epoch().is_some() && !self.has_quorum();
        let error = if under_min { ErrorCode::NotEnoughReplicasAfterAppend } else { ErrorCode::RequestTimedOut };
        for request in self.pending.expired(now) {
            reply(effects, request, Err(error.into()));
        }
    }

    fn delete_records(&mut self, request: RequestId, before: Offset, effects: &mut Vec<ReplicaEffect>) {
        let result = self.move_log_start(before, effects);
        // Effective for readers before the client hears of it.
        self.publish_if_changed(effects);
        effects.push(ReplicaEffect::ReplyDeleted { request, result });
    }

    fn move_log_start(&mut self, before: Offset, effects: &mut Vec<ReplicaEffect>) -> Result<Offset, ErrorCode> {
        let leads = self.leader_epoch().is_some();
        let log = self.log.as_mut().filter(|_| leads).ok_or(ErrorCode::NotLeaderOrFollower)?;
        let before = if before == Offset::NONE { self.high_watermark } else { before };
        if before < Offset::ZERO || before > self.high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        match log.set_log_start_offset(before) {
            Ok(()) => Ok(log.log_start_offset()),
            Err(LogError::OutOfRange(_)) => Err(ErrorCode::OffsetOutOfRange),
            Err(error) => {
                fail_if_unsynced(&error, effects);
                Err(ErrorCode::KafkaStorageError)
            }
        }
    }

    fn retain(&mut self, now: Mono, wall: Wall, effects: &mut Vec<ReplicaEffect>) {
        // What a job has read may not go under it: its result would be worth nothing.
        let Some(log) = self.log.as_mut().filter(|_| self.compaction != Compaction::Running) else { return };
        if let Err(error) = log.delete_old_segments(self.high_watermark, wall) {
            tracing::warn!(%error, "old segments not deleted; tried again at the next round");
            fail_if_unsynced(&error, effects);
        }
        self.publish_if_changed(effects);
        self.ask_for_sync(now, wall, effects);
    }

    fn configure(&mut self, now: Mono, config: ReplicaConfig, effects: &mut Vec<ReplicaEffect>) {
        if let Some(log) = &mut self.log {
            log.apply_config(config.log.clone());
        }
        // A high watermark that went by the page cache is above what is on the device: another durability holds from the next start on.
        self.config = ReplicaConfig { durability: self.config.durability, ..config };
        self.advance_high_watermark(now);
        self.publish_if_changed(effects);
        self.answer_pending(effects);
    }

    /// An orderly end. What waits for a sync gets it here; afterwards nothing is appended.
    fn close(&mut self, now: Mono, effects: &mut Vec<ReplicaEffect>) {
        let Some(log) = self.log.take() else { return };
        let end = match log.close() {
            Ok(end) => end,
            // A sync is still under way, as it is when the flusher has died: the next life finds out, and this one does not count as closed.
            Err(LogError::Broken) => return,
            Err(error) => {
                effects.push(ReplicaEffect::FailDirectory(format!("close: {error}")));
                return;
            }
        };
        if let Role::Leader(leader) = &self.role {
            let reached = leader.high_watermark(now, Own { log_end: end, counted: end }, &self.config);
            self.high_watermark = self.high_watermark.max(reached.unwrap_or(self.high_watermark));
        }
        self.role = Role::Idle;
        self.answer_pending(effects);
        for request in self.pending.drain() {
            reply(effects, request, Err(ErrorCode::NotLeaderOrFollower.into()));
        }
        effects.push(ReplicaEffect::Closed);
    }
}

/// Planted bug 25: a restarted replica goes on at the end that its last life had published.
#[cfg(feature = "mutants")]
fn plant_stale_end(mut log: Log, before: Option<&ReplicaSnapshot>) -> Log {
    if let Some(before) = before.filter(|_| mutant(25)) {
        log.plant_end(before.view.log_end_offset());
    }
    log
}

impl Machine for Replica {
    type Input = ReplicaInput;
    type Effect = ReplicaEffect;

    fn step(&mut self, now: Mono, wall: Wall, input: ReplicaInput, _: &mut Prng, effects: &mut Vec<ReplicaEffect>) {
        match input {
            ReplicaInput::Append(append) => self.gather(now, append, effects),
            ReplicaInput::Refuse(request) => self.refuse(now, request, effects),
            ReplicaInput::EndBatch => self.write(now, wall, effects),
            ReplicaInput::Synced(outcome) => self.synced(now, wall, outcome, effects),
            ReplicaInput::Lead(epoch) => {
                self.lead(now, epoch, effects);
                self.ask_for_sync(now, wall, effects);
            }
            ReplicaInput::Configure(config) => self.configure(now, config, effects),
            ReplicaInput::DeleteRecords { request, before } => self.delete_records(request, before, effects),
            ReplicaInput::Retain => self.retain(now, wall, effects),
            ReplicaInput::Compact => self.compact(wall, effects),
            ReplicaInput::Compacted(result) => self.compacted(now, wall, *result, effects),
            ReplicaInput::Close => self.close(now, effects),
            ReplicaInput::Replication(input) => self.replicate(now, wall, input, effects),
            ReplicaInput::Tick => {
                self.expire(now, effects);
                if let Role::Leader(leader) = &mut self.role {
                    leader.forget_laggards(now, self.config.replica_lag_time_max);
                }
                self.advance_high_watermark(now);
                self.publish_if_changed(effects);
                self.answer_pending(effects);
                self.tend_isr(now, effects);
                if self.report_at.is_some_and(|at| at <= now) {
                    self.report_loss(now, effects);
                }
                if self.flush_at.is_some_and(|at| at <= now) {
                    self.flush_at = None;
                    self.sync_now(effects);
                }
            }
        }
    }

    fn deadline(&self) -> Option<Mono> {
        let isr = match (&self.role, self.own()) {
            (Role::Leader(leader), Some(own)) => leader.deadline(own, &self.config),
            _ => None,
        };
        [self.pending.deadline(), self.flush_at, self.report_at, isr].into_iter().flatten().min()
    }

    fn check(&self) {
        let Some(log) = &self.log else { return };
        assert!(log.log_start_offset() <= self.high_watermark, "the high watermark is below the log's start");
        if mutant(68) {
            // Who watches from outside is to find it.
            return;
        }
        assert!(self.high_watermark <= log.log_end_offset(), "the high watermark is above the log's end");
        if self.config.durability == Durability::Fsync {
            assert!(self.high_watermark <= log.confirmed_offset(), "the high watermark is above what is on the device");
        }
        self.pending.check(self.high_watermark);
        match &self.role {
            Role::Leader(leader) => leader.check(),
            Role::Idle | Role::Follower(_) | Role::Lost(_) => {
                assert_eq!(self.pending.len() + self.gathered.len(), 0, "only a leader has appends to answer");
            }
        }
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.incarnation.hash(&mut hasher);
        self.known.hash(&mut hasher);
        match &self.role {
            Role::Idle => 0.hash(&mut hasher),
            Role::Leader(leader) => leader.hash(&mut hasher),
            Role::Follower(follower) => follower.hash(&mut hasher),
            Role::Lost(loss) => loss.hash(&mut hasher),
        }
        (self.high_watermark, self.unsettled_cut).hash(&mut hasher);
        (self.pending.len(), self.gathered.len(), self.syncs_in_flight, self.compaction).hash(&mut hasher);
        if let Some(log) = &self.log {
            (log.log_start_offset(), log.log_end_offset(), log.confirmed_offset(), log.size_in_bytes())
                .hash(&mut hasher);
        }
        hasher.finish()
    }
}
