//! SyncGroup: the leader gives the assignment, everybody gets theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::Context;
use super::classic::{Group, State};
use crate::coordinator::ErrorCode;
use crate::coordinator::message::Ticket;
use crate::coordinator::request::SyncGroup;
use crate::coordinator::response::{Response, SyncGroupResponse};
use crate::request::RequestId;

impl Group {
    /// Answers or parks a sync.
    pub(crate) fn sync(&mut self, ctx: &mut Context<'_>, request: RequestId, sync: SyncGroup) {
        if let Err(error) = self.validate_sync(&sync) {
            return refuse(ctx, request, error);
        }
        match self.state {
            State::Empty => refuse(ctx, request, ErrorCode::UnknownMemberId),
            State::PreparingRebalance => refuse(ctx, request, ErrorCode::RebalanceInProgress),
            State::CompletingRebalance => self.sync_completing(ctx, request, sync),
            State::Stable => {
                self.synced(ctx, &sync.member);
                self.touch(ctx, &sync.member);
                let after = self.append_in_flight(ctx);
                let response = self.assignment(&sync.member);
                ctx.reply(request, response, after);
            }
        }
    }

    fn validate_sync(&self, sync: &SyncGroup) -> Result<(), ErrorCode> {
        self.validate(&sync.member, sync.group_instance_id.as_deref())?;
        let differs = |asked: &Option<Arc<str>>, ours: &Option<Arc<str>>| asked.is_some() && asked != ours;
        if sync.generation_id != self.generation {
            Err(ErrorCode::IllegalGeneration)
        } else if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol_name, &self.protocol) {
            Err(ErrorCode::InconsistentGroupProtocol)
        } else {
            Ok(())
        }
    }

    fn sync_completing(&mut self, ctx: &mut Context<'_>, request: RequestId, sync: SyncGroup) {
        let leads = self.is_leader(&sync.member);
        if leads && let Err(error) = ctx.may_append() {
            // The leader joins again, is told the same, and syncs again.
            return refuse(ctx, request, error);
        }
        ctx.requests.park(request, &self.id);
        let parked = self.members.get_mut(&sync.member).and_then(|member| member.awaiting_sync.replace(request));
        if let Some(earlier) = parked {
            // The client has given its earlier try up.
            refuse(ctx, earlier, ErrorCode::RebalanceInProgress);
        }
        self.synced(ctx, &sync.member);
        if leads {
            self.assign(ctx, sync.assignments);
        }
    }

    /// Stores the leader's assignments and answers every parked sync once they are committed.
    fn assign(&mut self, ctx: &mut Context<'_>, assignments: Vec<(Arc<str>, Bytes)>) {
        let mut assignments: BTreeMap<Arc<str>, Bytes> = assignments.into_iter().collect();
        for (id, member) in &mut self.members {
            // Whom the leader left out gets nothing; whom it made up is nobody.
            member.assignment = assignments.remove(id).unwrap_or_default();
        }
        let before = self.state_timestamp;
        self.state_timestamp = Some(ctx.wall);
        let Some(ticket) = ctx.append(vec![self.change()]) else {
            // Too large to store.
            self.state_timestamp = before;
            self.fail_syncs(ctx, ErrorCode::UnknownServerError);
            return self.prepare_rebalance(ctx);
        };
        self.last_append = Some(ticket);
        self.transition(State::Stable, ctx.wall);
        self.answer_syncs(ctx, ticket);
    }

    fn answer_syncs(&mut self, ctx: &mut Context<'_>, ticket: Ticket) {
        let ids: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in ids {
            let response = self.assignment(&id);
            if let Some(request) = self.members.get_mut(&id).and_then(|member| member.awaiting_sync.take()) {
                ctx.reply(request, response, Some(ticket));
                self.touch(ctx, &id);
            }
        }
    }

    fn assignment(&self, id: &str) -> Response {
        Response::SyncGroup(SyncGroupResponse {
            error: ErrorCode::None,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment: self.members.get(id).map(|member| member.assignment.clone()).unwrap_or_default(),
        })
    }
}

fn refuse(ctx: &mut Context<'_>, request: RequestId, error: ErrorCode) {
    ctx.reply(request, Response::SyncGroup(SyncGroupResponse::refuse(error)), None);
}
