//! What a leader does with appends: gather them, write them at once, and decide for each when it is answered.
//! Invariant: nothing is answered before it is written, and nothing is written that was refused.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use madang_actors::clock::{Mono, Wall};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::record_batch::{BatchHeader, TimestampType};
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::mutants::mutant;
use madang_storage::{AppendError, AppendOutcome, BatchToAppend, Log, SequenceError};

use super::core::Role;
use super::{Append, AppendResult, Appended, Refused, Replica, ReplicaEffect, RequiredAcks};
use crate::request::RequestId;

/// Appends that may wait for the high watermark at once; beyond it an append is refused before it is written.
const MAX_PENDING: usize = 100_000;
/// How long a request may be on its way that was sent before the one before it was refused for now.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

/// Whether a gap in a producer's sequence numbers is one that a refusal has left: of a request before it, here or by whoever led until now. Its producer
/// sends both again if it is told to, in order. Told `OUT_OF_ORDER_SEQUENCE_NUMBER`, librdkafka begins a new epoch instead and sends under that
/// also what other partitions may have written already, which is there twice then (its issue 4953).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Forgiven {
    /// After a refusal: until then of any producer.
    refused_until: Mono,
    /// After the leadership has begun: until then of producers that have written nothing in it.
    begun_until: Mono,
}

impl Forgiven {
    fn refuses(&mut self, now: Mono) {
        self.refused_until = now + ON_ITS_WAY;
    }

    /// `of_this_leadership`: nobody else can have been sent what came before.
    fn forgives(&self, now: Mono, of_this_leadership: bool) -> bool {
        now < self.refused_until || (now < self.begun_until && !of_this_leadership)
    }
}

/// Whether a sequence number is after the one that was to come, not before it. They go from 2,147,483,647 on to 0.
fn is_ahead(given: i32, expected: i32) -> bool {
    (1..1 << 30).contains(&(given.wrapping_sub(expected) & i32::MAX))
}

impl Replica {
    pub(super) fn gather(&mut self, now: Mono, append: Append, effects: &mut Vec<ReplicaEffect>) {
        let refusal = if matches!(self.role, Role::Lost(_)) {
            Some(ErrorCode::KafkaStorageError)
        } else if self.leader_epoch().is_none()
            || append.expected_epoch.is_some_and(|expected| Some(expected) != self.leader_epoch())
        {
            Some(ErrorCode::NotLeaderOrFollower)
        } else if self.unsettled_cut.is_some() {
            // It leads since a moment ago, and its cut as a follower is not on the device yet.
            Some(ErrorCode::NotLeaderOrFollower)
        } else if append.required_acks == RequiredAcks::All && !self.has_quorum() {
            Some(ErrorCode::NotEnoughReplicas)
        } else if self.pending.len() + self.gathered.len() >= MAX_PENDING {
            Some(ErrorCode::RequestTimedOut)
        } else {
            None
        };
        match refusal {
            Some(error) => {
                self.forgives.refuses(now);
                reply(effects, append.request, Err(error.into()));
            }
            None => self.gathered.push(append),
        }
    }

    /// What this leadership is to forgive. An earlier life in this process may have refused something a moment ago.
    pub(super) fn begin_forgiving(&mut self, now: Mono) {
        self.forgives.begun_until = now + ON_ITS_WAY;
        if self.resumes {
            self.forgives.refuses(now);
        }
    }

    /// The node may not take appends at all for now.
    pub(super) fn refuse(&mut self, now: Mono, request: RequestId, effects: &mut Vec<ReplicaEffect>) {
        self.forgives.refuses(now);
        reply(effects, request, Err(ErrorCode::NotLeaderOrFollower.into()));
    }

    /// Whether a batch is not the first of its producer, of which nothing is known, while what came before it may have been refused: it would be taken, and
    /// what it follows could never be.
    fn is_orphan(&self, now: Mono, wall: Wall, batch: &BatchHeader) -> bool {
        let Some(log) = &self.log else { return false };
        let begins = batch.base_sequence <= 0 || batch.is_control();
        let is_new = self.leadership_start() == Offset::ZERO;
        !begins && self.forgives.forgives(now, is_new) && !log.producers().knows(batch, wall.0)
    }

    /// One write for all that was gathered. State follows the write.
    pub(super) fn write(&mut self, now: Mono, wall: Wall, effects: &mut Vec<ReplicaEffect>) {
        let Some(epoch) = self.leader_epoch() else { return };
        if self.gathered.is_empty() || self.log.is_none() {
            return;
        }
        let (mut batches, mut asked) = (Vec::new(), Vec::new());
        let mut begun = BTreeSet::new();
        for append in mem::take(&mut self.gathered) {
            let about = Asked::from(&append);
            let producer_id = append.batch.header.producer_id;
            if !begun.contains(&producer_id) && self.is_orphan(now, wall, &append.batch.header) {
                let message = "nothing is known of the producer, and what it sent before may have been refused";
                let refused =
                    Refused { error: ErrorCode::NotLeaderOrFollower, message: Some(message.to_owned().into()) };
                reply(effects, about.request, Err(refused));
                continue;
            }
            begun.insert(producer_id);
            match BatchToAppend::new(append.batch.bytes) {
                Ok(batch) => {
                    batches.push(batch);
                    asked.push(about);
                }
                Err(_) => reply(effects, about.request, Err(ErrorCode::CorruptMessage.into())),
            }
        }
        let Some(log) = self.log.as_mut() else { return };
        let (outcomes, error) = match log.append_as_leader(&batches, epoch, wall) {
            Ok(outcomes) => (outcomes, None),
            Err(mut error) => (mem::take(&mut error.outcomes), Some(error)),
        };
        let failed = asked.split_off(outcomes.len().min(asked.len()));
        let mut replies = Vec::new();
        for (asked, outcome) in asked.into_iter().zip(outcomes) {
            self.appended(now, asked, outcome, epoch, &mut replies);
        }
        self.after_append(now, wall, replies, effects);
        if let Some(error) = error {
            self.forgives.refuses(now);
            write_failed(&error, failed, effects);
        }
    }

    /// Decides for one batch when it is answered; what can be answered now goes to `replies`.
    fn appended(
        &mut self,
        now: Mono,
        asked: Asked,
        outcome: AppendOutcome,
        leader_epoch: LeaderEpoch,
        replies: &mut Vec<(RequestId, AppendResult)>,
    ) {
        let (place, log_append_time) = match outcome {
            AppendOutcome::Appended(place) => (place, asked.log_append_time),
            // As Kafka answers it: what is kept of the batch does not say whose clock its time is of.
            AppendOutcome::Duplicate(place) => (place, true),
            AppendOutcome::Refused(error) => {
                return replies.push((asked.request, Err(self.refused_sequence(now, error))));
            }
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

    /// Where the log ended when the leadership began.
    const fn leadership_start(&self) -> Offset {
        match &self.role {
            Role::Leader(leader) => leader.epoch_start(),
            Role::Idle | Role::Follower(_) | Role::Lost(_) => Offset::ZERO,
        }
    }

    fn refused_sequence(&self, now: Mono, error: SequenceError) -> Refused {
        let begun = self.leadership_start();
        let code = match error {
            SequenceError::OldEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            SequenceError::OutOfOrder { expected, given, last_offset }
                if is_ahead(given, expected) && self.forgives.forgives(now, last_offset >= begun) =>
            {
                ErrorCode::NotLeaderOrFollower
            }
            SequenceError::OutOfOrder { .. } => ErrorCode::OutOfOrderSequenceNumber,
        };
        Refused { error: code, message: Some(error.to_string().into()) }
    }

    fn after_append(
        &mut self,
        now: Mono,
        wall: Wall,
        replies: Vec<(RequestId, AppendResult)>,
        effects: &mut Vec<ReplicaEffect>,
    ) {
        self.advance_high_watermark(now);
        self.publish_if_changed(effects);
        for (request, result) in replies {
            reply(effects, request, result);
        }
        self.answer_pending(effects);
        self.ask_for_sync(now, wall, effects);
    }
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

pub(super) fn reply(effects: &mut Vec<ReplicaEffect>, request: RequestId, result: AppendResult) {
    effects.push(ReplicaEffect::Reply { request, result });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_are_ahead_across_their_end_too() {
        assert!(is_ahead(7, 5) && is_ahead(1, i32::MAX) && is_ahead(0, i32::MAX));
        assert!(!is_ahead(5, 5) && !is_ahead(4, 5) && !is_ahead(i32::MAX, 0) && !is_ahead(0, 1));
    }
}
