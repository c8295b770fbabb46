//! Members and single offsets of groups, from outside.

use std::collections::BTreeMap;

use madang_protocol::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use madang_protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};

use super::groups::of_group;
use super::{Admin, outcome};
use crate::backoff::Backoff;
use crate::error::{AdminError, is_coordinator_elsewhere};
use crate::group::Coordinator;

/// Who is to leave a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeavingMember {
    /// A member by its id.
    Id(String),
    /// A static member by its instance id.
    Instance(String),
}

impl Admin {
    /// Deletes what a group has committed in partitions that it does not read any more.
    ///
    /// # Errors
    /// [`AdminError`], with `GROUP_SUBSCRIBED_TO_TOPIC` while the group reads the topic, `GROUP_ID_NOT_FOUND` if there is no such group. Other partitions
    /// may be done then.
    pub async fn delete_offsets(&self, group: &str, partitions: &[(String, i32)]) -> Result<(), AdminError> {
        let mut topics: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
        for (topic, partition) in partitions {
            topics.entry(topic).or_default().push(OffsetDeleteRequestPartition { partition_index: *partition });
        }
        let topic =
            |(name, partitions): (&str, _)| OffsetDeleteRequestTopic { name: name.to_owned().into(), partitions };
        let topics = topics.into_iter().map(topic).collect();
        let request = OffsetDeleteRequest { group_id: group.into(), topics };
        let coordinator = Coordinator::new(self.client.clone(), group);
        let mut backoff = Backoff::within(self.client.config().retry_timeout);
        loop {
            let answer =
                coordinator.send(&request, self.client.call()).await.map_err(|error| of_group(group, error))?;
            match coordinator.check(answer.error_code).map_err(|error| of_group(group, error)) {
                Err(AdminError::Broker { code, .. }) if is_coordinator_elsewhere(code) && backoff.wait().await => {
                    continue;
                }
                result => result?,
            }
            for topic in &answer.topics {
                for partition in &topic.partitions {
                    outcome(&format!("{}-{}", topic.name, partition.partition_index), partition.error_code, None)?;
                }
            }
            return Ok(());
        }
    }

    /// Has members leave their group, for processes that will not come back: static ones would else hold their partitions until their sessions run out.
    ///
    /// # Errors
    /// [`AdminError`], with `UNKNOWN_MEMBER_ID` for one that is no member. Others may have left then.
    pub async fn remove_members(&self, group: &str, members: &[LeavingMember]) -> Result<(), AdminError> {
        let identity = |member: &LeavingMember| match member {
            LeavingMember::Id(id) => MemberIdentity { member_id: id.clone().into(), ..MemberIdentity::default() },
            LeavingMember::Instance(id) => {
                MemberIdentity { group_instance_id: Some(id.clone().into()), ..MemberIdentity::default() }
            }
        };
        let members = members.iter().map(identity).collect();
        let request = LeaveGroupRequest { group_id: group.into(), members, ..LeaveGroupRequest::default() };
        let coordinator = Coordinator::new(self.client.clone(), group);
        let mut backoff = Backoff::within(self.client.config().retry_timeout);
        loop {
            let answer =
                coordinator.send(&request, self.client.call()).await.map_err(|error| of_group(group, error))?;
            match coordinator.check(answer.error_code).map_err(|error| of_group(group, error)) {
                Err(AdminError::Broker { code, .. }) if is_coordinator_elsewhere(code) && backoff.wait().await => {
                    continue;
                }
                result => result?,
            }
            for member in &answer.members {
                let named = member.group_instance_id.as_deref().unwrap_or(&member.member_id);
                outcome(&format!("member {named} of group {group}"), member.error_code, None)?;
            }
            return Ok(());
        }
    }
}
