//! What a replica decides. Pure: its log writes through `trait Disk`, everything else is an effect.
//! Invariant: log_start_offset <= high_watermark <= log_end_offset, and in fsync mode high_watermark <= confirmed end.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem;
use std::sync::Arc;

use madang_actors::clock::{Mono, Wall};
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::record_batch::TimestampType;
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::mutants::mutant;
use madang_storage::{AppendError, AppendOutcome, BatchToAppend, Log, LogError, SequenceError, SyncOutcome};

use super::compaction::Compaction;
use super::pending::Pending;
use super::{
    Append, AppendResult, Appended, Durability, LostRecords, Refused, ReplicaConfig, ReplicaEffect, ReplicaInput,
    ReplicaSnapshot, RequiredAcks, fail_if_unsynced,
};
use crate::request::RequestId;

/// Appends that may wait for the high watermark at once; beyond it an append is refused before it is written.
const MAX_PENDING: usize = 100_000;

/// One replica of one partition.
#[derive(Debug)]
pub struct Replica {
    incarnation: u64,
    pub(super) log: Option<Log>,
    pub(super) config: ReplicaConfig,
    /// None while this node does not lead the partition.
    leader_epoch: Option<LeaderEpoch>,
    pub(super) high_watermark: Offset,
    /// Gathered since the last write.
    gathered: Vec<Append>,
    pending: Pending,
    syncs_in_flight: usize,
    pub(super) compaction: Compaction,
    /// Page-cache mode: when `flush.ms` asks for a sync of what was appended first since the last one.
    flush_at: Option<Mono>,
    /// What the last snapshot said, so that nothing is published twice.
    pub(super) published: Option<Published>,
}

/// What of a snapshot can change without the log's view changing in a way that the offsets do not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    leader_epoch: Option<LeaderEpoch>,
    high_watermark: Offset,
    confirmed_end: Offset,
    log_start_offset: Offset,
    log_end_offset: Offset,
    segments: usize,
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
        if let Some(before) = before.filter(|before| before.view.log_end_offset() > found) {
            return Err(LostRecords { published: before.view.log_end_offset(), found });
        }
        let high_watermark = before.map_or(log.log_start_offset(), |before| before.high_watermark);
        #[cfg(feature = "mutants")]
        let log = plant_stale_end(log, before);
        let mut replica = Self {
            incarnation,
            high_watermark: high_watermark.max(log.log_start_offset()),
            log: Some(log),
            config,
            leader_epoch: None,
            gathered: Vec::new(),
            pending: Pending::default(),
            syncs_in_flight: 0,
            compaction: Compaction::Idle,
            flush_at: None,
            published: None,
        };
        replica.advance_high_watermark();
        Ok(replica)
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

    fn lead(&mut self, epoch: LeaderEpoch, effects: &mut Vec<ReplicaEffect>) {
        if self.leader_epoch.is_some_and(|current| current >= epoch) {
            return;
        }
        self.leader_epoch = Some(epoch);
        if let Some(log) = &mut self.log
            && let Err(error) = log.begin_epoch(epoch)
        {
            // Each batch carries its epoch, so the checkpoint is rebuilt from them; only an epoch without records is forgotten.
            tracing::warn!(%error, "leader epoch not checkpointed");
        }
        self.publish_if_changed(effects);
    }

    fn gather(&mut self, append: Append, effects: &mut Vec<ReplicaEffect>) {
        let refusal = if self.leader_epoch.is_none()
            || append.expected_epoch.is_some_and(|expected| Some(expected) != self.leader_epoch)
        {
            Some(ErrorCode::NotLeaderOrFollower)
        } else if append.required_acks == RequiredAcks::All && !self.has_quorum() {
            Some(ErrorCode::NotEnoughReplicas)
        } else if self.pending.len() + self.gathered.len() >= MAX_PENDING {
            Some(ErrorCode::RequestTimedOut)
        } else {
            None
        };
        match refusal {
            Some(error) => reply(effects, append.request, Err(error.into())),
            None => self.gathered.push(append),
        }
    }

    /// Whether the committed in-sync set is large enough for acks=all and for the high watermark to move.
    fn has_quorum(&self) -> bool {
        self.config.in_sync_replicas >= self.config.min_in_sync_replicas.min(self.config.replication_factor)
    }

    /// One write for all that was gathered. State follows the write.
    fn write(&mut self, now: Mono, wall: Wall, effects: &mut Vec<ReplicaEffect>) {
        let (Some(log), Some(epoch)) = (self.log.as_mut(), self.leader_epoch) else { return };
        if self.gathered.is_empty() {
            return;
        }
        let (mut batches, mut asked) = (Vec::new(), Vec::new());
        for append in mem::take(&mut self.gathered) {
            let about = Asked::from(&append);
            match BatchToAppend::new(append.batch.bytes) {
                Ok(batch) => {
                    batches.push(batch);
                    asked.push(about);
                }
                Err(_) => reply(effects, about.request, Err(ErrorCode::CorruptMessage.into())),
            }
        }
        let (outcomes, error) = match log.append_as_leader(&batches, epoch, wall) {
            Ok(outcomes) => (outcomes, None),
            Err(mut error) => (mem::take(&mut error.outcomes), Some(error)),
        };
        let failed = asked.split_off(outcomes.len().min(asked.len()));
        let mut replies = Vec::new();
        for (asked, outcome) in asked.into_iter().zip(outcomes) {
            self.appended(asked, outcome, epoch, &mut replies);
        }
        self.after_append(now, wall, replies, effects);
        if let Some(error) = error {
            write_failed(&error, failed, effects);
        }
    }

    /// Decides for one batch when it is answered; what can be answered now goes to `replies`.
    fn appended(
        &mut self,
        asked: Asked,
        outcome: AppendOutcome,
        leader_epoch: LeaderEpoch,
        replies: &mut Vec<(RequestId, AppendResult)>,
    ) {
        let (place, log_append_time) = match outcome {
            AppendOutcome::Appended(place) => (place, asked.log_append_time),
            // As Kafka answers it: what is kept of the batch does not say whose clock its time is of.
            AppendOutcome::Duplicate(place) => (place, true),
            AppendOutcome::Refused(error) => return replies.push((asked.request, Err(refused_sequence(error)))),
            AppendOutcome::TooLarge => {
                return replies.push((asked.request, Err(ErrorCode::RecordListTooLarge.into())));
            }
        };
        let appended = Appended {
            base_offset: place.base_offset,
            last_offset: place.last_offset,
            log_append_time_ms: if log_append_time { place.max_timestamp } else { -1 },
            log_start_offset: self.log.as_ref().map_or(Offset::ZERO, Log::log_start_offset),
            leader_epoch,
        };
        match asked.required_acks {
            RequiredAcks::None | RequiredAcks::Leader => replies.push((asked.request, Ok(appended))),
            RequiredAcks::All if mutant(10) => replies.push((asked.request, Ok(appended))),
            // A duplicate waits for its original's high watermark as the original did.
            RequiredAcks::All => {
                self.pending.insert(place.last_offset + 1, asked.request, appended, asked.deadline);
            }
        }
    }

    fn after_append(
        &mut self,
        now: Mono,
        wall: Wall,
        replies: Vec<(RequestId, AppendResult)>,
        effects: &mut Vec<ReplicaEffect>,
    ) {
        self.advance_high_watermark();
        self.publish_if_changed(effects);
        for (request, result) in replies {
            reply(effects, request, result);
        }
        self.answer_pending(effects);
        self.ask_for_sync(now, wall, effects);
    }

    pub(super) fn ask_for_sync(&mut self, now: Mono, wall: Wall, effects: &mut Vec<ReplicaEffect>) {
        let Some(log) = &mut self.log else { return };
        let due = match self.config.durability {
            Durability::Fsync => log.is_dirty(),
            Durability::PageCache => log.sync_is_due(wall),
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
                self.advance_high_watermark();
                self.publish_if_changed(effects);
                self.answer_pending(effects);
                self.ask_for_sync(now, wall, effects);
            }
            // Nothing is retried: the pages may be gone, and a second sync would lie.
            Err(error) => effects.push(ReplicaEffect::FailDirectory(error.to_string())),
        }
    }

    /// The high watermark is the lowest counted offset of the maximal in-sync set; here that is this log alone. Never back.
    fn advance_high_watermark(&mut self) {
        let Some(log) = &self.log else { return };
        if !self.has_quorum() {
            return;
        }
        let counted = match self.config.durability {
            Durability::Fsync => log.confirmed_offset(),
            Durability::PageCache => log.log_end_offset(),
        };
        self.high_watermark = self.high_watermark.max(counted);
    }

    fn answer_pending(&mut self, effects: &mut Vec<ReplicaEffect>) {
        for (request, appended) in self.pending.passed(self.high_watermark) {
            reply(effects, request, Ok(appended));
        }
    }

    fn expire(&mut self, now: Mono, effects: &mut Vec<ReplicaEffect>) {
        for request in self.pending.expired(now) {
            // Appended, and not acknowledged in time: the client must not take it for refused.
            reply(effects, request, Err(ErrorCode::RequestTimedOut.into()));
        }
    }

    pub(super) fn publish_if_changed(&mut self, effects: &mut Vec<ReplicaEffect>) {
        let Some(log) = &self.log else { return };
        let now = Published {
            leader_epoch: self.leader_epoch,
            high_watermark: self.high_watermark,
            confirmed_end: log.confirmed_offset(),
            log_start_offset: log.log_start_offset(),
            log_end_offset: log.log_end_offset(),
            segments: log.segment_count(),
        };
        if self.published == Some(now) {
            return;
        }
        self.published = Some(now);
        effects.push(ReplicaEffect::Publish(Arc::new(ReplicaSnapshot {
            incarnation: self.incarnation,
            leader_epoch: self.leader_epoch,
            high_watermark: self.high_watermark,
            last_stable_offset: self.high_watermark,
            confirmed_end: now.confirmed_end,
            view: log.view(),
        })));
    }

    fn delete_records(&mut self, request: RequestId, before: Offset, effects: &mut Vec<ReplicaEffect>) {
        let result = self.move_log_start(before, effects);
        // Effective for readers before the client hears of it.
        self.publish_if_changed(effects);
        effects.push(ReplicaEffect::ReplyDeleted { request, result });
    }

    fn move_log_start(&mut self, before: Offset, effects: &mut Vec<ReplicaEffect>) -> Result<Offset, ErrorCode> {
        let log = self.log.as_mut().filter(|_| self.leader_epoch.is_some()).ok_or(ErrorCode::NotLeaderOrFollower)?;
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

    fn configure(&mut self, config: ReplicaConfig, effects: &mut Vec<ReplicaEffect>) {
        if let Some(log) = &mut self.log {
            log.apply_config(config.log.clone());
        }
        self.config = config;
        self.advance_high_watermark();
        self.publish_if_changed(effects);
        self.answer_pending(effects);
    }

    /// An orderly end. What waits for a sync gets it here; afterwards nothing is appended.
    fn close(&mut self, effects: &mut Vec<ReplicaEffect>) {
        let Some(log) = self.log.take() else { return };
        self.leader_epoch = None;
        let end = match log.close() {
            Ok(end) => end,
            // A sync is still under way, as it is when the flusher has died: the next life finds out, and this one does not count as closed.
            Err(LogError::Broken) => return,
            Err(error) => {
                effects.push(ReplicaEffect::FailDirectory(format!("close: {error}")));
                return;
            }
        };
        if self.has_quorum() {
            self.high_watermark = self.high_watermark.max(end);
        }
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

/// What is kept of an append while its batch is written.
#[derive(Clone, Copy, Debug)]
struct Asked {
    request: RequestId,
    required_acks: RequiredAcks,
    deadline: Mono,
    log_append_time: bool,
}

impl From<&Append> for Asked {
    fn from(append: &Append) -> Self {
        Self {
            request: append.request,
            required_acks: append.required_acks,
            deadline: append.deadline,
            log_append_time: append.batch.header.timestamp_type() == TimestampType::LogAppendTime,
        }
    }
}

fn reply(effects: &mut Vec<ReplicaEffect>, request: RequestId, result: AppendResult) {
    effects.push(ReplicaEffect::Reply { request, result });
}

fn refused_sequence(error: SequenceError) -> Refused {
    let code = match error {
        SequenceError::OldEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        SequenceError::OutOfOrder { .. } => ErrorCode::OutOfOrderSequenceNumber,
    };
    Refused { error: code, message: Some(error.to_string().into()) }
}

/// Answers what a failed write has left unwritten.
fn write_failed(error: &AppendError, asked: Vec<Asked>, effects: &mut Vec<ReplicaEffect>) {
    let message: Arc<str> = error.to_string().into();
    // Indeterminate unless the file was cut back: the bytes may come to light at the next recovery.
    let code = if error.definite { ErrorCode::KafkaStorageError } else { ErrorCode::NotLeaderOrFollower };
    for asked in asked {
        reply(effects, asked.request, Err(Refused { error: code, message: Some(message.clone()) }));
    }
    if error.definite && error.source.kind() == std::io::ErrorKind::StorageFull {
        // The file is as before: reads go on, and appends as well once there is room.
        tracing::warn!(%error, "append refused");
    } else {
        effects.push(ReplicaEffect::Restart(message.to_string()));
    }
}

impl Machine for Replica {
    type Input = ReplicaInput;
    type Effect = ReplicaEffect;

    fn step(&mut self, now: Mono, wall: Wall, input: ReplicaInput, _: &mut Prng, effects: &mut Vec<ReplicaEffect>) {
        match input {
            ReplicaInput::Append(append) => self.gather(append, effects),
            ReplicaInput::EndBatch => self.write(now, wall, effects),
            ReplicaInput::Synced(outcome) => self.synced(now, wall, outcome, effects),
            ReplicaInput::Lead(epoch) => {
                self.lead(epoch, effects);
                self.ask_for_sync(now, wall, effects);
            }
            ReplicaInput::Configure(config) => self.configure(config, effects),
            ReplicaInput::DeleteRecords { request, before } => self.delete_records(request, before, effects),
            ReplicaInput::Retain => self.retain(now, wall, effects),
            ReplicaInput::Compact => self.compact(wall, effects),
            ReplicaInput::Compacted(result) => self.compacted(now, wall, *result, effects),
            ReplicaInput::Close => self.close(effects),
            ReplicaInput::Tick => {
                self.expire(now, effects);
                self.publish_if_changed(effects);
                if self.flush_at.is_some_and(|at| at <= now) {
                    self.flush_at = None;
                    self.sync_now(effects);
                }
            }
        }
    }

    fn deadline(&self) -> Option<Mono> {
        [self.pending.deadline(), self.flush_at].into_iter().flatten().min()
    }

    fn check(&self) {
        let Some(log) = &self.log else { return };
        assert!(log.log_start_offset() <= self.high_watermark, "the high watermark is below the log's start");
        assert!(self.high_watermark <= log.log_end_offset(), "the high watermark is above the log's end");
        if self.config.durability == Durability::Fsync {
            assert!(self.high_watermark <= log.confirmed_offset(), "the high watermark is above what is on the device");
        }
        self.pending.check(self.high_watermark);
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.incarnation.hash(&mut hasher);
        self.leader_epoch.hash(&mut hasher);
        self.high_watermark.hash(&mut hasher);
        (self.pending.len(), self.gathered.len(), self.syncs_in_flight, self.compaction).hash(&mut hasher);
        if let Some(log) = &self.log {
            (log.log_start_offset(), log.log_end_offset(), log.confirmed_offset(), log.size_in_bytes())
                .hash(&mut hasher);
        }
        hasher.finish()
    }
}
