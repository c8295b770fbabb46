//! Groups: list, describe, committed offsets, delete.

use std::collections::BTreeMap;

use bytes::Bytes;
use madang_protocol::ErrorCode;
use madang_protocol::message::decode_versioned;
use madang_protocol::messages::consumer_protocol_assignment::ConsumerProtocolAssignment;
use madang_protocol::messages::delete_groups::DeleteGroupsRequest;
use madang_protocol::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup, DescribedGroupMember};
use madang_protocol::messages::list_groups::ListGroupsRequest;
use madang_protocol::types::Offset;

use super::{Admin, outcome};
use crate::backoff::Backoff;
use crate::client::Lane;
use crate::error::{AdminError, GroupError};
use crate::group::{Coordinator, Identified};

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupListing {
    /// The group's id.
    pub group: String,
    /// `consumer` for groups of consumers; empty for those that only commit.
    pub protocol_type: String,
    /// Its state, if the broker says.
    pub state: String,
    /// Its type, if the broker says.
    pub group_type: String,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id.
    pub member_id: String,
    /// Its instance id, if it is a static member.
    pub group_instance_id: Option<String>,
    /// The client's name for itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Topic to partitions; empty where the assignment is not one of consumers.
    pub assignment: BTreeMap<String, Vec<i32>>,
}

/// A group and its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// The group's id.
    pub group: String,
    /// Its state: `Empty`, `Stable`, `PreparingRebalance`, `CompletingRebalance` or `Dead`.
    pub state: String,
    /// `consumer` for groups of consumers.
    pub protocol_type: String,
    /// The assignor, while there are members.
    pub protocol: String,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// An offset that a group has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset that the group will read.
    pub offset: Offset,
    /// What was committed beside it.
    pub metadata: String,
}

/// What a group has committed, or is to commit, by topic and partition.
pub type CommittedOffsets = BTreeMap<(String, i32), CommittedOffset>;

/// Where a group is to go on: topic to partitions and offsets.
pub type OffsetReset = BTreeMap<String, Vec<(i32, Offset)>>;

impl Admin {
    /// The groups of all brokers, by id.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, AdminError> {
        let mut groups = Vec::new();
        let mut backoff = Backoff::within(self.client.config().retry_timeout);
        for broker in self.client.brokers().await? {
            loop {
                let request = ListGroupsRequest::default();
                let answer = self.client.to(&broker, Lane::SHARED, &request, self.client.call()).await?;
                match outcome("the list of groups", answer.error_code, None) {
                    Err(error) if error.is_retriable() && backoff.wait().await => continue,
                    result => result?,
                }
                groups.extend(answer.groups.into_iter().map(|found| GroupListing {
                    group: found.group_id.into(),
                    protocol_type: found.protocol_type.into(),
                    state: found.group_state.into(),
                    group_type: found.group_type.into(),
                }));
                break;
            }
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }

    /// A group and its members.
    ///
    /// # Errors
    /// [`AdminError`], with `GROUP_ID_NOT_FOUND` if there is no such group.
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, AdminError> {
        let coordinator = Coordinator::new(self.client.clone(), group);
        let mut backoff = Backoff::within(self.client.config().retry_timeout);
        loop {
            match self.describe_once(&coordinator, group).await {
                Err(error) if error.is_retriable() && backoff.wait().await => {}
                result => return result,
            }
        }
    }

    async fn describe_once(&self, coordinator: &Coordinator, group: &str) -> Result<GroupDescription, AdminError> {
        let request = DescribeGroupsRequest { groups: vec![group.into()], ..DescribeGroupsRequest::default() };
        let answer = coordinator.send(&request, self.client.call()).await.map_err(|error| of_group(group, error))?;
        let found = answer.groups.into_iter().find(|found| found.group_id == group);
        let found = found.ok_or_else(|| AdminError::Missing(group.to_owned()))?;
        coordinator.check(found.error_code).map_err(|error| of_group(group, error))?;
        if found.group_state == "Dead" {
            // As brokers before version 6 say it.
            return outcome(group, ErrorCode::GroupIdNotFound.code(), None).map(|()| described(found));
        }
        Ok(described(found))
    }

    /// What a group has committed, by topic and partition.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn committed_offsets(&self, group: &str) -> Result<CommittedOffsets, AdminError> {
        let coordinator = Coordinator::new(self.client.clone(), group);
        let mut backoff = Backoff::within(self.client.config().retry_timeout);
        loop {
            match coordinator.fetch_offsets(None).await {
                Err(error) if error.is_retriable() && backoff.wait().await => {}
                result => return result.map_err(|error| of_group(group, error)),
            }
        }
    }

    /// Commits offsets for a group that has no members.
    ///
    /// # Errors
    /// [`AdminError`], with `UNKNOWN_MEMBER_ID` while the group has members.
    pub async fn reset_offsets(&self, group: &str, offsets: &OffsetReset) -> Result<(), AdminError> {
        let of_topic = offsets.iter().flat_map(|(topic, list)| {
            list.iter().map(|(partition, offset)| {
                let committed = CommittedOffset { offset: *offset, metadata: String::new() };
                ((topic.clone(), *partition), committed)
            })
        });
        self.alter_offsets(group, &of_topic.collect()).await
    }

    /// As [`Admin::reset_offsets`], with what is committed beside each offset.
    ///
    /// # Errors
    /// [`AdminError`], with `UNKNOWN_MEMBER_ID` while the group has members.
    pub async fn alter_offsets(&self, group: &str, offsets: &CommittedOffsets) -> Result<(), AdminError> {
        let coordinator = Coordinator::new(self.client.clone(), group);
        let mut backoff = Backoff::within(self.client.config().retry_timeout);
        loop {
            match coordinator.commit(&Identified::NOBODY, offsets).await {
                // With members, the coordinator wants to know which one commits: waiting does not help.
                Err(GroupError::Broker { code, .. }) if !code.is_retriable() => {
                    return outcome(group, code.code(), None);
                }
                Err(error) if error.is_retriable() && backoff.wait().await => {}
                result => return result.map_err(|error| of_group(group, error)),
            }
        }
    }

    /// Deletes a group that has no members, with its offsets.
    ///
    /// # Errors
    /// [`AdminError`], with `NON_EMPTY_GROUP` or `GROUP_ID_NOT_FOUND`.
    pub async fn delete_group(&self, group: &str) -> Result<(), AdminError> {
        let coordinator = Coordinator::new(self.client.clone(), group);
        let request = DeleteGroupsRequest { groups_names: vec![group.into()] };
        let mut backoff = Backoff::within(self.client.config().retry_timeout);
        loop {
            let answer = coordinator.send(&request, self.client.call()).await;
            let result = match answer {
                Ok(answer) => {
                    let found = answer.results.iter().find(|found| found.group_id == group);
                    let found = found.ok_or_else(|| AdminError::Missing(group.to_owned()))?;
                    coordinator.check(found.error_code).map_err(|error| of_group(group, error))
                }
                Err(error) => Err(of_group(group, error)),
            };
            match result {
                // Only what the coordinator has not begun is sent again.
                Err(AdminError::Broker { code, .. }) if code.is_retriable() && backoff.wait().await => {}
                result => return result,
            }
        }
    }
}

pub(super) fn of_group(group: &str, error: GroupError) -> AdminError {
    match error {
        GroupError::Connection(error) => error.into(),
        GroupError::Metadata(error) => error.into(),
        GroupError::Consume(error) => error.into(),
        GroupError::Broker { code, .. } => AdminError::Broker { what: format!("group {group}"), code, message: None },
        error @ (GroupError::Fenced { .. } | GroupError::Member { .. } | GroupError::Encode { .. }) => {
            AdminError::Broker {
                what: format!("group {group}"),
                code: ErrorCode::UnknownServerError,
                message: Some(error.to_string()),
            }
        }
    }
}

fn described(found: DescribedGroup<'static>) -> GroupDescription {
    let mut members: Vec<_> = found.members.into_iter().map(member).collect();
    members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
    GroupDescription {
        group: found.group_id.into(),
        state: found.group_state.into(),
        protocol_type: found.protocol_type.into(),
        protocol: found.protocol_data.into(),
        members,
    }
}

fn member(found: DescribedGroupMember<'static>) -> GroupMember {
    GroupMember {
        member_id: found.member_id.into(),
        group_instance_id: found.group_instance_id.map(Into::into),
        client_id: found.client_id.into(),
        client_host: found.client_host.into(),
        assignment: assignment(&found.member_assignment),
    }
}

/// Members of other kinds of groups send what only they can read.
fn assignment(bytes: &Bytes) -> BTreeMap<String, Vec<i32>> {
    let Ok((decoded, _)) = decode_versioned::<ConsumerProtocolAssignment<'_>>(bytes) else {
        return BTreeMap::new();
    };
    decoded.assigned_partitions.into_iter().map(|topic| (topic.topic.into(), topic.partitions)).collect()
}
