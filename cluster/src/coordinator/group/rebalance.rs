//! From one generation to the next: gathering joins, choosing protocol and leader, waiting for syncs.

use std::sync::Arc;

use bytes::Bytes;

use super::Context;
use super::classic::{Group, InitialDelay, State};
use crate::coordinator::ErrorCode;
use crate::coordinator::response::{Response, SyncGroupResponse};
use crate::coordinator::timers::Timer;

impl Group {
    /// Something changed that needs a rebalance: starts one, or ends the one that runs if everybody is in.
    pub(super) fn prepare_or_complete(&mut self, ctx: &mut Context<'_>) {
        if self.state == State::PreparingRebalance {
            self.complete_if_all_joined(ctx)
        } else {
            self.prepare_rebalance(ctx)
        }
    }

    pub(super) fn prepare_rebalance(&mut self, ctx: &mut Context<'_>) {
        if self.state == State::CompletingRebalance {
            self.fail_syncs(ctx, ErrorCode::RebalanceInProgress);
        }
        self.cancel_sync_wait(ctx);
        if self.state == State::Empty {
            // Members of a new group start together: waiting a little saves a rebalance for each of them.
            let delay = ctx.config.initial_rebalance_delay;
            let remaining = self.rebalance_timeout().saturating_sub(delay);
            self.initial_delay = Some(InitialDelay { remaining, new_member: false });
            self.transition(State::PreparingRebalance, ctx.wall);
            ctx.arm(self.join_timer(), delay);
            return;
        }
        self.initial_delay = None;
        self.transition(State::PreparingRebalance, ctx.wall);
        if self.has_all_joined() {
            return self.complete_join(ctx);
        }
        ctx.arm(self.join_timer(), self.rebalance_timeout());
    }

    /// Ends the rebalance that runs if nobody is missing; the wait of a new group runs its time.
    pub(super) fn complete_if_all_joined(&mut self, ctx: &mut Context<'_>) {
        if self.state == State::PreparingRebalance && self.initial_delay.is_none() && self.has_all_joined() {
            self.complete_join(ctx);
        }
    }

    /// The wait for joins is over, or a new group's first wait is.
    pub(crate) fn join_timeout(&mut self, ctx: &mut Context<'_>) {
        if self.state != State::PreparingRebalance {
            return;
        }
        if let Some(delay) = &mut self.initial_delay
            && delay.new_member
            && !delay.remaining.is_zero()
        {
            let next = ctx.config.initial_rebalance_delay.min(delay.remaining);
            delay.new_member = false;
            delay.remaining = delay.remaining.saturating_sub(ctx.config.initial_rebalance_delay);
            let timer = self.join_timer();
            return ctx.arm(timer, next);
        }
        self.complete_join(ctx);
    }

    fn complete_join(&mut self, ctx: &mut Context<'_>) {
        ctx.timers.cancel(&self.join_timer());
        self.initial_delay = None;
        let missing = |m: &super::classic::Member| m.awaiting_join.is_none() && m.group_instance_id.is_none();
        let late: Vec<Arc<str>> = self.members.iter().filter(|(_, m)| missing(m)).map(|(id, _)| id.clone()).collect();
        for id in late {
            self.remove_member(ctx, &id, ErrorCode::UnknownMemberId);
        }
        if !self.elect_leader() && !self.members.is_empty() {
            // Only static members, and none of them here: their sessions decide.
            return ctx.arm(self.join_timer(), self.rebalance_timeout());
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.pending_sync.clear();
        if self.members.is_empty() {
            return self.become_empty(ctx);
        }
        let protocol = self.select_protocol();
        assert!(protocol.is_some(), "group {}: members without a common protocol", self.id);
        self.protocol = protocol;
        self.subscribed = self.compute_subscribed();
        self.transition(State::CompletingRebalance, ctx.wall);
        self.answer_joins(ctx);
        ctx.arm(Timer::Sync { group: self.id.clone() }, self.rebalance_timeout());
    }

    fn become_empty(&mut self, ctx: &mut Context<'_>) {
        self.protocol = None;
        self.leader = None;
        self.subscribed = self.compute_subscribed();
        self.transition(State::Empty, ctx.wall);
        self.persist_empty(ctx);
    }

    /// Stores that the group is empty, at once or when the partition takes appends again.
    pub(crate) fn persist_empty(&mut self, ctx: &mut Context<'_>) {
        self.unpersisted = true;
        if self.state == State::Empty && ctx.may_append().is_ok() {
            self.last_append = ctx.append(vec![self.change()]);
            self.unpersisted = false;
        }
    }

    fn answer_joins(&mut self, ctx: &mut Context<'_>) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let response = self.joined(&id, true);
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.is_new = false;
            if let Some(request) = member.awaiting_join.take() {
                self.awaiting_join -= 1;
                ctx.reply(request, Response::JoinGroup(response), None);
            }
            self.pending_sync.insert(id.clone());
            self.touch(ctx, &id);
        }
    }

    /// The generation's members that never synced go, and the rest rebalance.
    pub(crate) fn sync_timeout(&mut self, ctx: &mut Context<'_>) {
        if !matches!(self.state, State::CompletingRebalance | State::Stable) || self.pending_sync.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            self.remove_member(ctx, &id, ErrorCode::UnknownMemberId);
        }
        self.prepare_rebalance(ctx);
    }

    /// Notes that a member has synced; when all have, nobody need be waited for.
    pub(super) fn synced(&mut self, ctx: &mut Context<'_>, id: &str) {
        self.pending_sync.remove(id);
        if self.pending_sync.is_empty() {
            self.cancel_sync_wait(ctx);
        }
    }

    fn cancel_sync_wait(&mut self, ctx: &mut Context<'_>) {
        self.pending_sync.clear();
        ctx.timers.cancel(&Timer::Sync { group: self.id.clone() });
    }

    /// Answers every parked sync with `error`; assignments of the generation that did not come to be are void.
    pub(super) fn fail_syncs(&mut self, ctx: &mut Context<'_>, error: ErrorCode) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.assignment = Bytes::new();
            if let Some(request) = member.awaiting_sync.take() {
                ctx.reply(request, Response::SyncGroup(SyncGroupResponse::refuse(error)), None);
                self.touch(ctx, &id);
            }
        }
    }

    /// Starts a member's session anew.
    pub(super) fn touch(&self, ctx: &mut Context<'_>, id: &Arc<str>) {
        if let Some(member) = self.members.get(id) {
            ctx.arm(Timer::Member { group: self.id.clone(), member: id.clone() }, member.session_timeout);
        }
    }

    fn join_timer(&self) -> Timer {
        Timer::Join { group: self.id.clone() }
    }
}
