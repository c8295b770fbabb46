//! Staying alive: heartbeats, and what happens to members that stop.

use std::sync::Arc;

use super::Context;
use super::classic::{Group, State};
use crate::coordinator::ErrorCode;
use crate::coordinator::request::Heartbeat;

impl Group {
    /// The answer to a heartbeat.
    pub(crate) fn heartbeat(&mut self, ctx: &mut Context<'_>, heartbeat: &Heartbeat) -> ErrorCode {
        if let Err(error) = self.validate(&heartbeat.member, heartbeat.group_instance_id.as_deref()) {
            return error;
        }
        if heartbeat.generation_id != self.generation {
            return ErrorCode::IllegalGeneration;
        }
        match self.state {
            State::Empty => ErrorCode::UnknownMemberId,
            State::PreparingRebalance => {
                self.touch(ctx, &heartbeat.member);
                ErrorCode::RebalanceInProgress
            }
            // Members heartbeat from the answer to their join on, before they have an assignment.
            State::CompletingRebalance | State::Stable => {
                self.touch(ctx, &heartbeat.member);
                ErrorCode::None
            }
        }
    }

    /// A member's timer has come due: its session, its reservation or its first join's time.
    pub(crate) fn member_timeout(&mut self, ctx: &mut Context<'_>, id: &Arc<str>) {
        if self.pending.remove(id) {
            return self.complete_if_all_joined(ctx);
        }
        let Some(member) = self.members.get(id) else { return };
        if !member.is_new && (member.awaiting_join.is_some() || member.awaiting_sync.is_some()) {
            return; // It waits for us; its session starts anew with the answer.
        }
        self.remove_member(ctx, id, ErrorCode::UnknownMemberId);
        self.after_removal(ctx);
    }

    /// Rebalances without the members that went.
    pub(super) fn after_removal(&mut self, ctx: &mut Context<'_>) {
        if self.state != State::Empty {
            self.prepare_or_complete(ctx);
        }
    }

    /// After a load: starts every session, and rebalances a group that has grown beyond the limit.
    pub(crate) fn loaded(&mut self, ctx: &mut Context<'_>) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in &ids {
            self.touch(ctx, id);
        }
        if ids.len() > ctx.config.max_group_size {
            self.prepare_rebalance(ctx);
        }
    }
}
