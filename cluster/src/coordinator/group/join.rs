//! Becoming a member and coming back: JoinGroup in every state, dynamic and static.

use std::sync::Arc;

use bytes::Bytes;

use super::classic::{Group, Member, State};
use super::{Context, append_error};
use crate::coordinator::ErrorCode;
use crate::coordinator::message::Ticket;
use crate::coordinator::request::JoinGroup;
use crate::coordinator::response::{JoinGroupResponse, JoinedMember, Response, SyncGroupResponse};
use crate::coordinator::timers::Timer;
use crate::request::RequestId;

impl Group {
    /// Answers or parks a join that has passed the checks which need no group.
    pub(crate) fn join(&mut self, ctx: &mut Context<'_>, request: RequestId, join: JoinGroup) {
        if !self.accepts(&join.member, ctx.config.max_group_size) {
            if self.remove_member(ctx, &join.member, ErrorCode::GroupMaxSizeReached) {
                self.after_removal(ctx);
            }
            return refuse(ctx, request, ErrorCode::GroupMaxSizeReached, Arc::default());
        }
        if !self.supports(&join.protocol_type, &join.protocols) {
            return refuse(ctx, request, ErrorCode::InconsistentGroupProtocol, join.member);
        }
        if !join.member.is_empty() {
            return self.join_known(ctx, request, join);
        }
        let id = new_member_id(ctx, &join);
        match &join.group_instance_id {
            None if join.version >= 4 => self.reserve(ctx, request, &join, id),
            None => self.add_member(ctx, request, join, id),
            Some(instance) => match self.static_members.get(instance).cloned() {
                None => self.add_member(ctx, request, join, id),
                Some(before) => self.replace_static(ctx, request, join, &before, id),
            },
        }
    }

    /// New members are taken up to the group's size. While a rebalance gathers members, those who came first count: so the last to
    /// come are turned away if the limit was lowered.
    fn accepts(&self, member: &str, max: usize) -> bool {
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                self.members.get(member).is_some_and(|m| m.awaiting_join.is_some()) || self.awaiting_join < max
            }
            State::CompletingRebalance | State::Stable => self.members.contains_key(member) || self.members.len() < max,
        }
    }

    /// Gives a new dynamic member its id; it has one session timeout to join with it.
    fn reserve(&mut self, ctx: &mut Context<'_>, request: RequestId, join: &JoinGroup, id: Arc<str>) {
        if self.pending.len() >= ctx.config.max_pending_members {
            return refuse(ctx, request, ErrorCode::GroupMaxSizeReached, Arc::default());
        }
        ctx.arm(Timer::Member { group: self.id.clone(), member: id.clone() }, join.session_timeout);
        self.pending.insert(id.clone());
        refuse(ctx, request, ErrorCode::MemberIdRequired, id);
    }

    fn join_known(&mut self, ctx: &mut Context<'_>, request: RequestId, join: JoinGroup) {
        let id = join.member.clone();
        if self.pending.contains(&id) && join.group_instance_id.is_none() {
            return self.add_member(ctx, request, join, id);
        }
        if let Err(error) = self.validate(&id, join.group_instance_id.as_deref()) {
            return refuse(ctx, request, error, id);
        }
        let unchanged = self.members.get(&id).is_some_and(|member| member.protocols == join.protocols);
        let rejoins = match self.state {
            State::Empty => return refuse(ctx, request, ErrorCode::UnknownMemberId, id),
            State::PreparingRebalance => true,
            State::CompletingRebalance => !unchanged,
            // The leader joins again when it wants a rebalance: its metadata need not show why.
            State::Stable => !unchanged || self.is_leader(&id),
        };
        if rejoins {
            return self.rejoin(ctx, request, join, &id);
        }
        // The answer was lost on its way, or a follower joins a generation it is in already.
        let after = self.append_in_flight(ctx);
        let with_members = self.state == State::CompletingRebalance;
        let response = self.joined(&id, with_members);
        ctx.reply(request, Response::JoinGroup(response), after);
    }

    fn rejoin(&mut self, ctx: &mut Context<'_>, request: RequestId, join: JoinGroup, id: &Arc<str>) {
        let Some(mut member) = self.take_keeping_leader(id) else { return };
        if let Some(earlier) = member.awaiting_join.replace(request) {
            // The client has given its earlier try up.
            refuse(ctx, earlier, ErrorCode::RebalanceInProgress, id.clone());
        }
        ctx.requests.park(request, &self.id);
        update(&mut member, join);
        self.insert(id.clone(), member);
        self.prepare_or_complete(ctx);
    }

    fn add_member(&mut self, ctx: &mut Context<'_>, request: RequestId, join: JoinGroup, id: Arc<str>) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        let mut member = Member {
            group_instance_id: join.group_instance_id.clone(),
            client_id: Arc::default(),
            client_host: Arc::default(),
            rebalance_timeout: join.rebalance_timeout,
            session_timeout: join.session_timeout,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            is_new: true,
            awaiting_join: Some(request),
            awaiting_sync: None,
        };
        update(&mut member, join);
        ctx.requests.park(request, &self.id);
        if let Some(delay) = &mut self.initial_delay {
            delay.new_member = true;
        }
        // It knows no id to heartbeat with, and a lost connection does not show while its join is parked.
        ctx.arm(Timer::Member { group: self.id.clone(), member: id.clone() }, ctx.config.new_member_join_timeout);
        self.insert(id, member);
        self.prepare_or_complete(ctx);
    }

    /// A static member is back under a new id: the old id is fenced, and while the group is stable nobody else need notice.
    fn replace_static(
        &mut self,
        ctx: &mut Context<'_>,
        request: RequestId,
        join: JoinGroup,
        before: &Arc<str>,
        id: Arc<str>,
    ) {
        if self.state == State::Stable
            && let Err(error) = ctx.may_append()
        {
            return refuse(ctx, request, error, Arc::default());
        }
        let version = join.version;
        let old_leader = self.leader.clone();
        let was_leader = self.is_leader(before);
        let Some(mut member) = self.take(before) else { return };
        fence(ctx, &mut member, before);
        ctx.timers.cancel(&Timer::Member { group: self.id.clone(), member: before.clone() });
        update(&mut member, join);
        member.is_new = false;
        if was_leader {
            self.leader = Some(id.clone());
        }
        ctx.arm(Timer::Member { group: self.id.clone(), member: id.clone() }, member.session_timeout);
        if self.state == State::Stable {
            self.insert(id.clone(), member);
            if self.select_protocol() == self.protocol {
                return self.keep_assignment(ctx, request, version, &id, old_leader);
            }
            let Some(taken) = self.take_keeping_leader(&id) else { return };
            member = taken;
        }
        member.awaiting_join = Some(request);
        ctx.requests.park(request, &self.id);
        self.insert(id, member);
        self.prepare_or_complete(ctx);
    }

    fn keep_assignment(
        &mut self,
        ctx: &mut Context<'_>,
        request: RequestId,
        version: i16,
        id: &Arc<str>,
        old_leader: Option<Arc<str>>,
    ) {
        let Some(ticket) = ctx.append(vec![self.change()]) else {
            self.prepare_rebalance(ctx);
            return refuse(ctx, request, ErrorCode::UnknownServerError, id.clone());
        };
        self.last_append = Some(ticket);
        let skips = version >= 9;
        let mut response = self.joined(id, skips);
        if skips {
            response.skip_assignment = self.is_leader(id);
        } else {
            // Named leader, an older client would compute an assignment nobody asked for: so it is told the leader's old id.
            response.leader = old_leader.unwrap_or_default();
        }
        ctx.reply(request, Response::JoinGroup(response), Some(ticket));
    }

    /// Takes a member out to put it back changed: it stays the leader if it is, and keeps its place in the sync.
    fn take_keeping_leader(&mut self, id: &Arc<str>) -> Option<Member> {
        let leader = self.leader.clone();
        let member = self.take(id)?;
        self.leader = leader;
        Some(member)
    }

    /// The successful answer to a member's join.
    pub(super) fn joined(&self, id: &Arc<str>, with_members: bool) -> JoinGroupResponse {
        let members = if with_members && self.is_leader(id) { self.joined_members() } else { Vec::new() };
        JoinGroupResponse {
            error: ErrorCode::None,
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member: id.clone(),
            members,
        }
    }

    fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let describe = |(id, member): (&Arc<str>, &Member)| JoinedMember {
            member: id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            metadata: member.metadata(protocol),
        };
        self.members.iter().map(describe).collect()
    }

    /// The group's own append that is not committed yet: answers that show what it stores wait for it.
    pub(crate) fn append_in_flight(&self, ctx: &Context<'_>) -> Option<Ticket> {
        self.last_append.filter(|ticket| ctx.store.is_in_flight(*ticket))
    }

    /// Takes a member out, ends its timer and answers what it has parked. False if it is no member.
    pub(super) fn remove_member(&mut self, ctx: &mut Context<'_>, id: &str, error: ErrorCode) -> bool {
        let id: Arc<str> = Arc::from(id);
        let Some(mut member) = self.take(&id) else { return false };
        ctx.timers.cancel(&Timer::Member { group: self.id.clone(), member: id });
        answer_parked(ctx, &mut member, error, &Arc::default());
        true
    }

    /// Creates the group's record, so that it is listed and outlives this shard.
    pub(crate) fn create(&mut self, ctx: &mut Context<'_>) {
        self.last_append = ctx.append(vec![self.change()]);
    }

    /// Answers every parked request with `error` and forgets every timer: the group is about to be dropped.
    pub(crate) fn abandon(&mut self, ctx: &mut Context<'_>, error: ErrorCode) {
        let members: Vec<Arc<str>> = self.members.keys().cloned().collect();
        for id in members {
            if let Some(member) = self.members.get_mut(&id) {
                self.awaiting_join -= usize::from(member.awaiting_join.is_some());
                answer_parked(ctx, member, append_error(error), &id);
            }
            ctx.timers.cancel(&Timer::Member { group: self.id.clone(), member: id });
        }
        for member in &self.pending {
            ctx.timers.cancel(&Timer::Member { group: self.id.clone(), member: member.clone() });
        }
        ctx.timers.cancel(&Timer::Join { group: self.id.clone() });
        ctx.timers.cancel(&Timer::Sync { group: self.id.clone() });
    }
}

fn update(member: &mut Member, join: JoinGroup) {
    member.client_id = join.client_id;
    member.client_host = join.client_host;
    member.rebalance_timeout = join.rebalance_timeout;
    member.session_timeout = join.session_timeout;
    member.protocols = join.protocols;
}

fn fence(ctx: &mut Context<'_>, member: &mut Member, id: &Arc<str>) {
    answer_parked(ctx, member, ErrorCode::FencedInstanceId, id);
}

fn answer_parked(ctx: &mut Context<'_>, member: &mut Member, error: ErrorCode, id: &Arc<str>) {
    if let Some(request) = member.awaiting_join.take() {
        refuse(ctx, request, error, id.clone());
    }
    if let Some(request) = member.awaiting_sync.take() {
        ctx.reply(request, Response::SyncGroup(SyncGroupResponse::refuse(error)), None);
    }
}

pub(super) fn refuse(ctx: &mut Context<'_>, request: RequestId, error: ErrorCode, member: Arc<str>) {
    ctx.reply(request, Response::JoinGroup(JoinGroupResponse::refuse(error, member)), None);
}

fn new_member_id(ctx: &mut Context<'_>, join: &JoinGroup) -> Arc<str> {
    let (high, low) = (ctx.rng.next_u64(), ctx.rng.next_u64());
    // RFC 9562 version 4, variant 1.
    let (high, low) = (high & !0xf000 | 0x4000, low & !(0b11 << 62) | 0b10 << 62);
    let prefix = join.group_instance_id.as_ref().unwrap_or(&join.client_id);
    let (a, b, c) = (high >> 32, (high >> 16) & 0xffff, high & 0xffff);
    let (d, e) = (low >> 48, low & 0xffff_ffff_ffff);
    format!("{prefix}-{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}").into()
}
