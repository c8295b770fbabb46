//! LeaveGroup: a member leaves, or an administrator removes members, several at once.

use super::Context;
use super::classic::Group;
use crate::coordinator::ErrorCode;
use crate::coordinator::request::{LeaveGroup, LeavingMember};
use crate::coordinator::response::{LeaveGroupResponse, LeftMember};
use crate::coordinator::timers::Timer;

impl Group {
    /// Removes the members named and answers for each.
    pub(crate) fn leave(&mut self, ctx: &mut Context<'_>, leave: LeaveGroup) -> LeaveGroupResponse {
        let errors: Vec<ErrorCode> = leave.members.iter().map(|member| self.leave_one(ctx, member)).collect();
        if errors.contains(&ErrorCode::None) {
            self.after_removal(ctx);
        }
        left(leave, |index| errors.get(index).copied().unwrap_or(ErrorCode::UnknownMemberId))
    }

    fn leave_one(&mut self, ctx: &mut Context<'_>, leaving: &LeavingMember) -> ErrorCode {
        let instance = leaving.group_instance_id.as_deref();
        if leaving.member.is_empty() {
            // An administrator knows the instance, not the id.
            let Some(member) = instance.and_then(|instance| self.static_members.get(instance)).cloned() else {
                return ErrorCode::UnknownMemberId;
            };
            self.remove_member(ctx, &member, ErrorCode::UnknownMemberId);
            return ErrorCode::None;
        }
        if self.pending.remove(&leaving.member) {
            ctx.timers.cancel(&Timer::Member { group: self.id.clone(), member: leaving.member.clone() });
            return ErrorCode::None;
        }
        if let Err(error) = self.validate(&leaving.member, instance) {
            return error;
        }
        self.remove_member(ctx, &leaving.member, ErrorCode::UnknownMemberId);
        ErrorCode::None
    }
}

/// The answer to `leave` with each member's error by its place in the request.
pub(crate) fn left(leave: LeaveGroup, error: impl Fn(usize) -> ErrorCode) -> LeaveGroupResponse {
    let member = |(index, member): (usize, LeavingMember)| LeftMember {
        member: member.member,
        group_instance_id: member.group_instance_id,
        error: error(index),
    };
    let members: Vec<LeftMember> = leave.members.into_iter().enumerate().map(member).collect();
    let single = if leave.version < 3 { members.first().map(|member| member.error) } else { None };
    LeaveGroupResponse { error: single.unwrap_or(ErrorCode::None), members }
}
