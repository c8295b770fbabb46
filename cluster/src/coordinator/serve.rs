//! Requests to groups: the checks that need no group, finding or creating it, and the answers where there is none.

use std::sync::Arc;

use super::ErrorCode;
use super::group::{Group, fetch, left};
use super::request::{
    DeleteGroups, DescribeGroup, JoinGroup, LeaveGroup, ListGroups, OffsetCommit, OffsetDelete, Request,
};
use super::response::{
    DescribedGroup, FetchedOffset, JoinGroupResponse, LeaveGroupResponse, ListGroupsResponse, OffsetDeleteResponse,
    OffsetFetchResponse, Response, SyncGroupResponse,
};
use super::shard::{Shard, Step};
use crate::request::RequestId;

/// Bytes of a string that the stored records can hold.
const LONGEST_STRING: usize = i16::MAX as usize;

impl Request {
    /// The group asked for; none for a request to several.
    #[must_use]
    pub fn group(&self) -> Option<&Arc<str>> {
        match self {
            Self::JoinGroup(join) => Some(&join.group),
            Self::SyncGroup(sync) => Some(&sync.group),
            Self::Heartbeat(heartbeat) => Some(&heartbeat.group),
            Self::LeaveGroup(leave) => Some(&leave.group),
            Self::OffsetCommit(commit) => Some(&commit.group),
            Self::OffsetFetch(fetch) => Some(&fetch.group),
            Self::OffsetDelete(delete) => Some(&delete.group),
            Self::DescribeGroup(describe) => Some(&describe.group),
            Self::ListGroups(_) | Self::DeleteGroups(_) => None,
        }
    }

    /// The answer that refuses the whole request.
    #[must_use]
    pub fn refusal(&self, error: ErrorCode) -> Response {
        match self {
            Self::JoinGroup(join) => Response::JoinGroup(JoinGroupResponse::refuse(error, join.member.clone())),
            Self::SyncGroup(_) => Response::SyncGroup(SyncGroupResponse::refuse(error)),
            Self::Heartbeat(_) => Response::Heartbeat(error),
            Self::LeaveGroup(_) => Response::LeaveGroup(LeaveGroupResponse { error, members: Vec::new() }),
            Self::OffsetCommit(commit) => {
                let all = |partitions: &[super::request::CommitPartition]| {
                    partitions.iter().map(|partition| (partition.partition, error)).collect()
                };
                let topics = commit.topics.iter().map(|topic| (topic.name.clone(), all(&topic.partitions)));
                Response::OffsetCommit(topics.collect())
            }
            Self::OffsetFetch(fetch) => {
                let none = |partitions: &[i32]| partitions.iter().map(|p| FetchedOffset::none(*p, error)).collect();
                let topics = fetch.topics.iter().flatten().map(|topic| (topic.name.clone(), none(&topic.partitions)));
                Response::OffsetFetch(OffsetFetchResponse { error, topics: topics.collect() })
            }
            Self::OffsetDelete(_) => Response::OffsetDelete(OffsetDeleteResponse { error, topics: Vec::new() }),
            Self::DescribeGroup(describe) => {
                Response::DescribeGroup(DescribedGroup::none(describe.group.clone(), error, None, ""))
            }
            Self::ListGroups(_) => Response::ListGroups(ListGroupsResponse { error, groups: Vec::new() }),
            Self::DeleteGroups(delete) => {
                Response::DeleteGroups(delete.groups.iter().map(|group| (group.clone(), error)).collect())
            }
        }
    }
}

impl Shard {
    pub(super) fn serve(&mut self, step: &mut Step<'_>, request: RequestId, body: Request) {
        if let Some(error) = self.unfit(&body) {
            let refusal = body.refusal(error);
            return self.reply(step, request, refusal);
        }
        match body {
            Request::JoinGroup(join) => self.serve_join(step, request, join),
            Request::SyncGroup(sync) => {
                let id = sync.group.clone();
                if self.with_group(step, &id, |group, ctx| group.sync(ctx, request, sync)).is_none() {
                    let refusal = SyncGroupResponse::refuse(ErrorCode::UnknownMemberId);
                    self.reply(step, request, Response::SyncGroup(refusal));
                }
            }
            Request::Heartbeat(heartbeat) => {
                let answer = self.with_group(step, &heartbeat.group, |group, ctx| group.heartbeat(ctx, &heartbeat));
                let error = answer.unwrap_or(ErrorCode::UnknownMemberId);
                self.reply(step, request, Response::Heartbeat(error));
            }
            Request::LeaveGroup(leave) => self.serve_leave(step, request, leave),
            Request::OffsetCommit(commit) => self.serve_commit(step, request, &commit),
            Request::OffsetFetch(body) => {
                let answer = fetch(&self.store, &body);
                self.reply(step, request, Response::OffsetFetch(answer));
            }
            Request::OffsetDelete(delete) => self.serve_offset_delete(step, request, &delete),
            Request::DescribeGroup(describe) => self.serve_describe(step, request, &describe),
            Request::ListGroups(list) => self.serve_list(step, request, &list),
            Request::DeleteGroups(delete) => self.serve_delete(step, request, &delete),
        }
    }

    /// Why a request is refused before its group is looked for.
    fn unfit(&self, body: &Request) -> Option<ErrorCode> {
        let group = body.group()?;
        let named = matches!(
            body,
            Request::JoinGroup(_)
                | Request::SyncGroup(_)
                | Request::Heartbeat(_)
                | Request::LeaveGroup(_)
                | Request::OffsetDelete(_)
        );
        if named && group.is_empty() || group.len() > LONGEST_STRING {
            return Some(ErrorCode::InvalidGroupId);
        }
        if self.quarantined.contains(group) || self.store.corrupt_keys(group).is_some() {
            return Some(ErrorCode::UnknownServerError);
        }
        match body {
            Request::JoinGroup(join) => self.unfit_join(join),
            _ => None,
        }
    }

    fn unfit_join(&self, join: &JoinGroup) -> Option<ErrorCode> {
        let config = &self.config;
        if !(config.min_session_timeout..=config.max_session_timeout).contains(&join.session_timeout) {
            return Some(ErrorCode::InvalidSessionTimeout);
        }
        let instance = join.group_instance_id.as_ref().map_or(0, |instance| instance.len());
        // Room for the hyphen and the UUID of a member id that begins with either.
        let longest = join.protocols.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let longest = longest.max(join.protocol_type.len()).max(join.client_host.len());
        if longest.max(instance + 37).max(join.client_id.len() + 37) > LONGEST_STRING {
            return Some(ErrorCode::InvalidRequest);
        }
        let bytes: usize = join.protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum();
        if bytes > config.max_member_metadata_bytes || join.protocols.len() > config.max_member_protocols {
            return Some(ErrorCode::InvalidRequest);
        }
        None
    }

    /// Makes a group if there is room for one and its first record can be stored.
    fn create(&mut self, step: &mut Step<'_>, id: &Arc<str>) -> Result<(), ErrorCode> {
        if self.groups.len() >= self.config.max_groups {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        self.context(step).may_append()?;
        self.groups.insert(id.clone(), Group::new(id.clone(), Some(step.wall)));
        Ok(())
    }

    fn serve_join(&mut self, step: &mut Step<'_>, request: RequestId, join: JoinGroup) {
        let id = join.group.clone();
        if !self.groups.contains_key(&id) {
            let created = if !join.member.is_empty() {
                Err(ErrorCode::UnknownMemberId)
            } else if join.protocol_type.is_empty() || join.protocols.is_empty() {
                Err(ErrorCode::InconsistentGroupProtocol)
            } else {
                self.create(step, &id)
            };
            if let Err(error) = created {
                return self.reply(step, request, Response::JoinGroup(JoinGroupResponse::refuse(error, join.member)));
            }
            self.with_group(step, &id, |group, ctx| group.create(ctx));
            self.forget_if_void(&id);
            if !self.groups.contains_key(&id) {
                // Its record could not be stored.
                let refusal = JoinGroupResponse::refuse(ErrorCode::UnknownServerError, join.member);
                return self.reply(step, request, Response::JoinGroup(refusal));
            }
        }
        self.with_group(step, &id, |group, ctx| group.join(ctx, request, join));
    }

    fn serve_leave(&mut self, step: &mut Step<'_>, request: RequestId, leave: LeaveGroup) {
        let id = leave.group.clone();
        if !self.groups.contains_key(&id) {
            // Nobody is a member of what does not exist.
            let answer = left(leave, |_| ErrorCode::UnknownMemberId);
            return self.reply(step, request, Response::LeaveGroup(answer));
        }
        self.with_group(step, &id, |group, ctx| {
            let answer = group.leave(ctx, leave);
            let after = group.append_in_flight(ctx);
            ctx.reply(request, Response::LeaveGroup(answer), after);
        });
    }

    fn serve_commit(&mut self, step: &mut Step<'_>, request: RequestId, commit: &OffsetCommit) {
        let id = &commit.group;
        if !self.groups.contains_key(id) {
            let created = if commit.generation_id < 0 {
                self.create(step, id)
            } else if commit.version >= 9 {
                Err(ErrorCode::GroupIdNotFound)
            } else {
                Err(ErrorCode::IllegalGeneration)
            };
            if let Err(error) = created {
                return self.reply(step, request, Request::OffsetCommit(commit.clone()).refusal(error));
            }
        }
        self.with_group(step, id, |group, ctx| group.commit(ctx, request, commit));
    }

    fn serve_offset_delete(&mut self, step: &mut Step<'_>, request: RequestId, delete: &OffsetDelete) {
        let served = self.with_group(step, &delete.group, |group, ctx| group.delete_offsets(ctx, request, delete));
        if served.is_none() {
            let answer = OffsetDeleteResponse { error: ErrorCode::GroupIdNotFound, topics: Vec::new() };
            self.reply(step, request, Response::OffsetDelete(answer));
        }
    }

    fn serve_describe(&mut self, step: &mut Step<'_>, request: RequestId, describe: &DescribeGroup) {
        let served = self.with_group(step, &describe.group, |group, ctx| {
            let after = group.append_in_flight(ctx);
            ctx.reply(request, Response::DescribeGroup(group.describe()), after);
        });
        if served.is_none() {
            let id = describe.group.clone();
            let answer = if describe.version >= 6 {
                let message = format!("Group {id} not found.");
                DescribedGroup::none(id, ErrorCode::GroupIdNotFound, Some(message), "Dead")
            } else {
                DescribedGroup::none(id, ErrorCode::None, None, "Dead")
            };
            self.reply(step, request, Response::DescribeGroup(answer));
        }
    }

    fn serve_list(&mut self, step: &mut Step<'_>, request: RequestId, list: &ListGroups) {
        let groups = self.groups.values().filter_map(|group| group.listed(list)).collect();
        let answer = ListGroupsResponse { error: ErrorCode::None, groups };
        self.reply(step, request, Response::ListGroups(answer));
    }

    fn serve_delete(&mut self, step: &mut Step<'_>, request: RequestId, delete: &DeleteGroups) {
        let mut last = None;
        let mut answer = Vec::with_capacity(delete.groups.len());
        for id in &delete.groups {
            let deleted = self.with_group(step, id, |group, ctx| group.delete(ctx));
            let error = match deleted {
                None => ErrorCode::GroupIdNotFound,
                Some(Err(error)) => error,
                Some(Ok(ticket)) => {
                    last = last.max(ticket);
                    self.groups.remove(id);
                    self.quarantined.remove(id);
                    ErrorCode::None
                }
            };
            answer.push((id.clone(), error));
        }
        self.context(step).reply(request, Response::DeleteGroups(answer), last);
    }
}
