//! What administrators see of a group.

use std::sync::Arc;

use super::Context;
use super::classic::{Group, Member, State};
use crate::coordinator::ErrorCode;
use crate::coordinator::message::Ticket;
use crate::coordinator::request::ListGroups;
use crate::coordinator::response::{DescribedGroup, DescribedMember, ListedGroup};

const CLASSIC: &str = "classic";

impl Group {
    /// Removes every trace of a group without members.
    pub(crate) fn delete(&mut self, ctx: &mut Context<'_>) -> Result<Option<Ticket>, ErrorCode> {
        if self.state != State::Empty {
            return Err(ErrorCode::NonEmptyGroup);
        }
        ctx.may_append()?;
        self.abandon(ctx, ErrorCode::UnknownMemberId);
        let changes = self.tombstones(ctx.store);
        Ok(ctx.append(changes))
    }

    /// The group and its members; metadata only while they are settled.
    pub(crate) fn describe(&self) -> DescribedGroup {
        let stable = self.state == State::Stable;
        let protocol = self.protocol.clone().filter(|_| stable);
        let member = |(id, member): (&Arc<str>, &Member)| DescribedMember {
            member: id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol.as_ref().map(|protocol| member.metadata(protocol)).unwrap_or_default(),
            // Until the next one is made, the last assignment is what the member works by.
            assignment: member.assignment.clone(),
        };
        DescribedGroup {
            error: ErrorCode::None,
            error_message: None,
            group: self.id.clone(),
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol_data: protocol.clone().unwrap_or_default(),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// The group's line in a list, if it passes the filters.
    pub(crate) fn listed(&self, list: &ListGroups) -> Option<ListedGroup> {
        let passes = |filter: &[Arc<str>], name: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
        };
        let shown = passes(&list.states, self.state.name()) && passes(&list.types, CLASSIC);
        shown.then(|| ListedGroup {
            group: self.id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.state.name(),
            group_type: CLASSIC,
        })
    }
}
