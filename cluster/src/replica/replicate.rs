//! What a replica does with the metadata and with what other replicas send.
//! Invariant: a role is left with everything of it: no append waits on a follower, no fetch on a leader.

use std::collections::BTreeSet;
use std::mem;
use std::time::Duration;

use madang_actors::clock::{Mono, Wall};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::FollowerAppendError;
use madang_storage::mutants::mutant;

use super::append::reply;
use super::core::Role;
use super::follower::{Follower, cut_at};
use super::leader::Leader;
use super::replication::{
    Assignment, Confirmed, FetchAnswer, FetchBody, Fetched, Known, Loss, ReplicationEffect, ReplicationInput,
};
use super::{Replica, ReplicaEffect};

/// How long a report of a loss may stay without an effect on the metadata before it is made again.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(1);

impl Replica {
    pub(super) fn replicate(
        &mut self,
        now: Mono,
        wall: Wall,
        input: ReplicationInput,
        effects: &mut Vec<ReplicaEffect>,
    ) {
        match input {
            ReplicationInput::Assign(assignment) => self.assign(now, wall, assignment, effects),
            ReplicationInput::Fetched(fetched) => self.fetched(now, &fetched),
            ReplicationInput::Confirmed(confirmed) => self.confirmed(now, &confirmed),
            ReplicationInput::Answered(answer) => self.answered(now, wall, &answer, effects),
            ReplicationInput::ProposalEnded { number, outcome } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.proposal_ended(now, number, outcome);
                }
            }
            ReplicationInput::Lowered(number) => self.cut(now, wall, number, effects),
            ReplicationInput::Silent { node_id, session } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.silent(now, node_id, session);
                }
            }
            ReplicationInput::CutOff => self.end_leading(effects),
        }
        self.advance_high_watermark(now);
        self.publish_if_changed(effects);
        self.answer_pending(effects);
        self.tend_isr(now, effects);
    }

    fn assign(&mut self, now: Mono, wall: Wall, assignment: Box<Assignment>, effects: &mut Vec<ReplicaEffect>) {
        let state = (assignment.leader_epoch, assignment.partition_epoch);
        if state <= self.known {
            return self.refresh(assignment);
        }
        if let Role::Lost(loss) = &self.role
            && !is_reported(&assignment, loss)
        {
            // It acts on none of this, so it does not know it either: an unclean election on the way is still to be heeded.
            return self.report_loss(now, effects);
        }
        self.report_at = None;
        let before = mem::replace(&mut self.known, state);
        let leads = assignment.leader == Some(assignment.node_id);
        match &mut self.role {
            Role::Leader(leader) if leads && leader.epoch() == state.0 => leader.assigned(assignment),
            _ if leads => self.begin_leading(now, wall, assignment, effects),
            Role::Follower(follower) if follower.epoch() == state.0 => {}
            _ => {
                self.begin_following(&assignment, before.0, effects);
                // A cut that an earlier life, or an earlier leadership, left dirty.
                self.ask_for_sync(now, wall, effects);
            }
        }
    }

    pub(super) fn report_loss(&mut self, now: Mono, effects: &mut Vec<ReplicaEffect>) {
        let Role::Lost(loss) = &self.role else { return };
        effects.push(ReplicaEffect::Replication(ReplicationEffect::ReportLoss(*loss)));
        self.report_at = Some(now + REPORT_INTERVAL);
    }

    /// The same state of the partition, and maybe other brokers that are alive.
    fn refresh(&mut self, assignment: Box<Assignment>) {
        let same = (assignment.leader_epoch, assignment.partition_epoch) == self.known;
        if let Role::Leader(leader) = &mut self.role
            && same
        {
            leader.assigned(assignment);
        }
    }

    fn begin_leading(&mut self, now: Mono, wall: Wall, assignment: Box<Assignment>, effects: &mut Vec<ReplicaEffect>) {
        let epoch = assignment.leader_epoch;
        let newer = self.log.as_ref().and_then(|log| log.leader_epochs().latest()).filter(|last| last.epoch > epoch);
        if let Some(newer) = newer {
            // Metadata from before this log was written: the newer state is on its way.
            return tracing::warn!(%epoch, newer = %newer.epoch, "told to lead in an epoch older than the log");
        }
        self.end_leading(effects);
        let epoch_start = self.begin_epoch(epoch);
        let inherited = self.inherited.take().filter(|inherited| {
            inherited.leader_epoch == epoch && inherited.partition_epoch >= assignment.partition_epoch
        });
        let in_doubt = inherited.map_or_else(BTreeSet::new, |inherited| inherited.maximal);
        // Answers to another life's proposals are not for this one; its numbers are its own all the same.
        let first_number = (self.incarnation << 32) + 1;
        let mut leader = Leader::new(assignment, epoch_start, now, in_doubt, first_number);
        if let Role::Leader(old) = &self.role
            && mutant(3)
        {
            leader.keep_followers_of(old);
        }
        self.role = Role::Leader(leader);
        self.begin_forgiving(now);
        self.ask_for_sync(now, wall, effects);
    }

    /// What waits for an acknowledgement is left open: it may be in the log, and another leader may keep it.
    fn end_leading(&mut self, effects: &mut Vec<ReplicaEffect>) {
        for append in mem::take(&mut self.gathered) {
            reply(effects, append.request, Err(ErrorCode::NotLeaderOrFollower.into()));
        }
        for request in self.pending.drain() {
            reply(effects, request, Err(ErrorCode::NotLeaderOrFollower.into()));
        }
    }

    fn begin_following(&mut self, assignment: &Assignment, last_epoch: LeaderEpoch, effects: &mut Vec<ReplicaEffect>) {
        self.end_leading(effects);
        self.inherited = None;
        // A life that begins with a process knows of an election only what its log tells.
        let latest = self.log.as_ref().and_then(|log| log.leader_epochs().latest()).map(|last| last.epoch);
        let last_epoch = last_epoch.max(latest.unwrap_or(LeaderEpoch::NONE));
        if assignment.unclean_epoch > last_epoch && last_epoch > LeaderEpoch::NONE {
            let start = self.log.as_ref().map_or(Offset::ZERO, madang_storage::Log::log_start_offset);
            tracing::error!(epoch = %assignment.unclean_epoch, high_watermark = %self.high_watermark, "an unclean election may have lost records");
            self.high_watermark = start;
        }
        self.role = Role::Follower(Follower::new(assignment.leader, assignment.leader_epoch));
        self.fetch_next(false, effects);
    }

    pub(super) fn fetch_next(&mut self, after_error: bool, effects: &mut Vec<ReplicaEffect>) {
        if let (Role::Follower(follower), Some(log)) = (&mut self.role, &self.log)
            && let Some(position) = follower.next_fetch(log, self.incarnation, after_error)
        {
            effects.push(ReplicaEffect::Replication(ReplicationEffect::Fetch(position)));
        }
    }

    fn fetched(&mut self, now: Mono, fetched: &Fetched) {
        let Some(own) = self.own() else { return };
        if fetched.leader_incarnation != self.incarnation {
            return;
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.fetched(now, &fetched.fetch, own, self.config.durability);
        }
    }

    fn confirmed(&mut self, now: Mono, confirmed: &Confirmed) {
        let Some(own) = self.own() else { return };
        if let Role::Leader(leader) = &mut self.role {
            leader.confirmed(now, confirmed, own, self.config.durability);
        }
    }

    fn answered(&mut self, now: Mono, wall: Wall, answer: &FetchAnswer, effects: &mut Vec<ReplicaEffect>) {
        let (Role::Follower(follower), Some(log)) = (&self.role, &self.log) else { return };
        let current = answer.incarnation == self.incarnation
            && follower.cutting().is_none()
            && answer.leader_epoch == follower.epoch()
            && answer.fetch_offset == log.log_end_offset();
        if !current {
            return;
        }
        match &answer.body {
            FetchBody::Error(_) => self.fetch_next(true, effects),
            FetchBody::BelowStart { log_start_offset } => self.start_anew(now, wall, *log_start_offset, effects),
            FetchBody::Diverging { epoch, end_offset } => self.diverged(now, wall, (*epoch, *end_offset), effects),
            FetchBody::Records { records, high_watermark, log_start_offset } => {
                let Some(log) = &mut self.log else { return };
                // A log that was compacted once has gaps for ever, whatever its topic's policy is now.
                match log.append_as_follower(records, answer.leader_epoch, true, wall) {
                    Ok(_) => self.follow(now, wall, *high_watermark, *log_start_offset, effects),
                    Err(FollowerAppendError::Write(error)) if !error.definite => {
                        effects.push(ReplicaEffect::Restart(error.to_string()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, directory = %log.directory().display(), "what the leader sent is not appended");
                        self.fetch_next(true, effects);
                    }
                }
            }
        }
    }

    /// The log is the leader's up to its end.
    fn follow(
        &mut self,
        now: Mono,
        wall: Wall,
        high_watermark: Offset,
        log_start_offset: Offset,
        effects: &mut Vec<ReplicaEffect>,
    ) {
        if let Role::Follower(follower) = &mut self.role {
            follower.served(high_watermark);
        }
        self.advance_high_watermark(now);
        let started = self.log.as_mut().map(|log| log.set_log_start_offset(log_start_offset.min(self.high_watermark)));
        match (&mut self.role, started) {
            (_, Some(Err(error))) => {
                tracing::warn!(%error, "log start offset not moved; tried again with the next fetch");
            }
            // What lies above the high watermark is tried again.
            (Role::Follower(follower), Some(Ok(_))) if log_start_offset <= self.high_watermark => {
                follower.knows(Known { high_watermark, log_start_offset });
            }
            _ => {}
        }
        self.publish_if_changed(effects);
        self.ask_for_sync(now, wall, effects);
        self.fetch_next(false, effects);
    }

    /// The log parts from the leader's: what follows goes, unless it is known to be acknowledged. Before that nothing stored may say that there is
    /// more: the note goes down with the snapshot, the recovery point by its own way.
    fn diverged(
        &mut self,
        now: Mono,
        wall: Wall,
        (epoch, end_offset): (LeaderEpoch, Offset),
        effects: &mut Vec<ReplicaEffect>,
    ) {
        let (Role::Follower(follower), Some(log)) = (&mut self.role, &self.log) else { return };
        let to = cut_at(log, epoch, end_offset, self.high_watermark);
        if to < self.high_watermark {
            return self.halt(to, effects);
        }
        // A cut confirms nothing of what it leaves.
        let recovery_point = to.min(log.confirmed_offset());
        self.cuts += 1;
        let (number, high_watermark) = (self.cuts, self.high_watermark);
        follower.begin_cut(number, to);
        if mutant(45) {
            return self.cut(now, wall, number, effects);
        }
        self.publish_if_changed(effects);
        let lower = ReplicationEffect::LowerRecoveryPoint { number, recovery_point, high_watermark };
        effects.push(ReplicaEffect::Replication(lower));
    }

    /// The recovery point is lowered. What is fetched next waits for the cut to be on the device.
    fn cut(&mut self, now: Mono, wall: Wall, number: u64, effects: &mut Vec<ReplicaEffect>) {
        let (Role::Follower(follower), Some(log)) = (&mut self.role, &mut self.log) else { return };
        let Some(to) = follower.end_cut(number) else { return };
        if to < self.high_watermark {
            return self.halt(to, effects);
        }
        if let Err(error) = log.cut_to(to) {
            return effects.push(ReplicaEffect::FailDirectory(format!("cut the log: {error}")));
        }
        self.unsettled_cut = (!log.is_settled()).then(|| log.log_end_offset());
        self.publish_if_changed(effects);
        self.ask_for_sync(now, wall, effects);
        self.fetch_next(false, effects);
    }

    /// All that this log has lies below the leader's start, where it was deleted: nothing of it is kept.
    fn start_anew(&mut self, now: Mono, wall: Wall, start: Offset, effects: &mut Vec<ReplicaEffect>) {
        let Some(log) = &mut self.log else { return };
        let end = log.log_end_offset();
        if start <= end {
            return self.fetch_next(true, effects);
        }
        tracing::warn!(directory = %log.directory().display(), %end, %start, "the leader's log starts above this one's end; it starts anew there");
        if let Err(error) = log.start_anew_at(start) {
            return effects.push(ReplicaEffect::FailDirectory(format!("start the log anew: {error}")));
        }
        // Until it is on the device a later life may find the log as it was.
        self.unsettled_cut = Some(end);
        self.high_watermark = self.high_watermark.max(start);
        self.publish_if_changed(effects);
        self.ask_for_sync(now, wall, effects);
    }

    fn halt(&self, cut: Offset, effects: &mut Vec<ReplicaEffect>) {
        let known = self.high_watermark;
        let why = format!("the leader's log parts at {cut}, records up to {known} are acknowledged");
        // Nobody may elect a replica that is set aside.
        let loss = Loss { incarnation: self.incarnation, published: known, found: cut };
        effects.push(ReplicaEffect::Replication(ReplicationEffect::ReportLoss(loss)));
        effects.push(ReplicaEffect::Replication(ReplicationEffect::Halt(why)));
    }

    /// Tells the leader at once of a durable end that a sync has moved.
    pub(super) fn tell_confirmed(&mut self, effects: &mut Vec<ReplicaEffect>) {
        let (Role::Follower(follower), Some(log)) = (&mut self.role, &self.log) else { return };
        let confirmed_offset = log.confirmed_offset();
        if let Some(leader) = follower.tell(confirmed_offset) {
            let leader_epoch = follower.epoch();
            let tell = ReplicationEffect::Confirm { leader, leader_epoch, confirmed_offset };
            effects.push(ReplicaEffect::Replication(tell));
        }
    }

    /// Proposes another in-sync set if one is due. The maximal set with it is published before it is sent.
    pub(super) fn tend_isr(&mut self, now: Mono, effects: &mut Vec<ReplicaEffect>) {
        let Some(own) = self.own() else { return };
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(proposal) = leader.propose(now, own, self.high_watermark, &self.config) {
            self.publish_if_changed(effects);
            effects.push(ReplicaEffect::Replication(ReplicationEffect::Propose(proposal)));
        }
    }
}

/// Whether the controller is known to have heard of the loss. That it does not count on this node proves nothing: a leader may just have
/// proposed what an earlier life had.
fn is_reported(assignment: &Assignment, loss: &Loss) -> bool {
    assignment.reported_loss.is_some_and(|reported| reported >= loss.incarnation)
}
