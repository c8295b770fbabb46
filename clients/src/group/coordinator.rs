//! Requests to a group's coordinator: finding it, committed offsets, leaving.
//! Invariant: an answer that says the coordinator is elsewhere makes the next request look for it again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use madang_protocol::messages::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use madang_protocol::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use madang_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use madang_protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics, OffsetFetchResponse,
};
use madang_protocol::types::{NodeId, Offset};
use madang_protocol::{ErrorCode, Request};

use crate::admin::CommittedOffset;
use crate::client::{Answer, Client, Lane};
use crate::connection::Call;
use crate::error::{GroupError, check, error_code, is_coordinator_elsewhere};
use crate::metadata::Broker;

/// FindCoordinator and OffsetFetch carry several groups from these versions on; before, one.
const FIND_BATCHED: i16 = 4;
const GROUP: i8 = 0;

/// By topic and partition: only what was, or is to be, committed.
pub(crate) type Committed = BTreeMap<(String, i32), CommittedOffset>;

/// Who commits. Nobody in particular: empty id, generation -1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identified<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) group_instance_id: Option<&'a str>,
    pub(crate) generation_id: i32,
}

impl Identified<'_> {
    pub(crate) const NOBODY: Self = Self { member_id: "", group_instance_id: None, generation_id: -1 };
}

/// The coordinator of one group, over a connection of its own: joining parks it.
#[derive(Debug)]
pub(crate) struct Coordinator {
    client: Client,
    group: String,
    lane: Lane,
    found: Mutex<Option<Broker>>,
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.client.close_lane(self.lane);
    }
}

impl Coordinator {
    pub(crate) fn new(client: Client, group: &str) -> Self {
        let lane = client.new_lane();
        Self { client, group: group.to_owned(), lane, found: Mutex::default() }
    }

    pub(crate) fn failed(&self, code: ErrorCode) -> GroupError {
        if is_coordinator_elsewhere(code) {
            self.forget();
        }
        GroupError::Broker { group: self.group.clone(), code }
    }

    pub(crate) fn check(&self, code: i16) -> Result<(), GroupError> {
        check(code).map_err(|code| self.failed(code))
    }

    fn forget(&self) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Sends a request to the coordinator, which is looked for first if it is not known.
    pub(crate) fn send<'a, 'q: 'a, R>(
        &'a self,
        request: &'a R,
        call: Call,
    ) -> Answer<'a, R::Response<'static>, GroupError>
    where
        R: Request<'q> + Sync,
        R::Response<'static>: Send,
    {
        Box::pin(async move {
            let known = self.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let broker = match known {
                Some(broker) => broker,
                None => self.find().await?,
            };
            let answer = self.client.to(&broker, self.lane, request, call).await;
            if answer.is_err() {
                self.forget();
            }
            Ok(answer?)
        })
    }

    async fn find(&self) -> Result<Broker, GroupError> {
        // Both forms: the codec writes the one that the version has.
        let request = FindCoordinatorRequest {
            key_type: GROUP,
            coordinator_keys: vec![self.group.as_str().into()],
            ..FindCoordinatorRequest::default()
        };
        let answer = match self.client.any(&request).await {
            Err(crate::ConnectionError::Encode { .. }) => self.find_single().await?,
            answer => answer?,
        };
        let broker = self.found_in(answer)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(broker.clone());
        Ok(broker)
    }

    /// As brokers before Kafka 3.0 know it.
    async fn find_single(&self) -> Result<FindCoordinatorResponse<'static>, GroupError> {
        let request = FindCoordinatorRequest {
            key: self.group.as_str().into(),
            key_type: GROUP,
            ..FindCoordinatorRequest::default()
        };
        let brokers = self.client.brokers().await?;
        let broker = brokers.first().ok_or_else(|| self.failed(ErrorCode::CoordinatorNotAvailable))?;
        let call = self.client.call().up_to(FIND_BATCHED - 1);
        Ok(self.client.to(broker, Lane::SHARED, &request, call).await?)
    }

    fn found_in(&self, answer: FindCoordinatorResponse<'static>) -> Result<Broker, GroupError> {
        let (code, node_id, host, port) = match answer.coordinators.into_iter().next() {
            Some(found) => (found.error_code, found.node_id, found.host, found.port),
            None => (answer.error_code, answer.node_id, answer.host, answer.port),
        };
        self.check(code)?;
        if node_id < 0 || host.is_empty() {
            return Err(self.failed(ErrorCode::CoordinatorNotAvailable));
        }
        Ok(Broker { node_id: NodeId(node_id), host: host.into(), port, rack: None })
    }

    pub(crate) async fn commit(&self, by: &Identified<'_>, offsets: &Committed) -> Result<(), GroupError> {
        let mut topics: Vec<OffsetCommitRequestTopic<'_>> = Vec::new();
        for ((topic, index), committed) in offsets {
            let partition = OffsetCommitRequestPartition {
                partition_index: *index,
                committed_offset: committed.offset.0,
                committed_metadata: Some(committed.metadata.as_str().into()),
                ..OffsetCommitRequestPartition::default()
            };
            match topics.last_mut() {
                Some(last) if last.name == *topic => last.partitions.push(partition),
                _ => topics.push(OffsetCommitRequestTopic {
                    name: topic.as_str().into(),
                    partitions: vec![partition],
                    ..OffsetCommitRequestTopic::default()
                }),
            }
        }
        let request = OffsetCommitRequest {
            group_id: self.group.as_str().into(),
            generation_id_or_member_epoch: by.generation_id,
            member_id: by.member_id.into(),
            group_instance_id: by.group_instance_id.map(Into::into),
            topics,
            ..OffsetCommitRequest::default()
        };
        let answer = self.send(&request, self.client.call()).await?;
        let mut codes = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code);
        codes.try_for_each(|code| self.check(code))
    }

    /// What the group has committed, of these partitions or of all.
    pub(crate) async fn fetch_offsets(
        &self,
        partitions: Option<&BTreeMap<String, Vec<i32>>>,
    ) -> Result<Committed, GroupError> {
        let topics = partitions.map(|topics| {
            let topics = topics.iter().map(|(name, list)| OffsetFetchRequestTopics {
                name: name.as_str().into(),
                partition_indexes: list.clone(),
                ..OffsetFetchRequestTopics::default()
            });
            topics.collect()
        });
        let group = OffsetFetchRequestGroup {
            group_id: self.group.as_str().into(),
            topics,
            ..OffsetFetchRequestGroup::default()
        };
        let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
        match self.send(&request, self.client.call()).await {
            Err(GroupError::Connection(crate::ConnectionError::Encode { .. })) => {
                self.fetch_offsets_single(partitions).await
            }
            answer => self.committed(answer?),
        }
    }

    /// As brokers before Kafka 3.0 know it.
    async fn fetch_offsets_single(
        &self,
        partitions: Option<&BTreeMap<String, Vec<i32>>>,
    ) -> Result<Committed, GroupError> {
        let topics = partitions.map(|topics| {
            let topics = topics.iter().map(|(name, list)| OffsetFetchRequestTopic {
                name: name.as_str().into(),
                partition_indexes: list.clone(),
            });
            topics.collect()
        });
        let request =
            OffsetFetchRequest { group_id: self.group.as_str().into(), topics, ..OffsetFetchRequest::default() };
        let answer = self.send(&request, self.client.call()).await?;
        self.committed(answer)
    }

    fn committed(&self, answer: OffsetFetchResponse<'static>) -> Result<Committed, GroupError> {
        self.check(answer.error_code)?;
        let mut all = Vec::new();
        for group in answer.groups {
            self.check(group.error_code)?;
            for topic in group.topics {
                let name = topic.name.to_string();
                all.extend(topic.partitions.into_iter().map(|found| {
                    let metadata = found.metadata.map(Into::into);
                    (name.clone(), found.partition_index, found.committed_offset, metadata, found.error_code)
                }));
            }
        }
        for topic in answer.topics {
            let name = topic.name.to_string();
            all.extend(topic.partitions.into_iter().map(|found| {
                let metadata = found.metadata.map(Into::into);
                (name.clone(), found.partition_index, found.committed_offset, metadata, found.error_code)
            }));
        }
        let mut committed = Committed::new();
        for (topic, partition, offset, metadata, code) in all {
            self.check(code)?;
            if offset >= 0 {
                let metadata: Option<String> = metadata;
                let metadata = metadata.unwrap_or_default();
                committed.insert((topic, partition), CommittedOffset { offset: Offset(offset), metadata });
            }
        }
        Ok(committed)
    }

    pub(crate) async fn leave(&self, member_id: &str) -> Result<(), GroupError> {
        let member = MemberIdentity { member_id: member_id.into(), ..MemberIdentity::default() };
        let request = LeaveGroupRequest {
            group_id: self.group.as_str().into(),
            members: vec![member],
            ..LeaveGroupRequest::default()
        };
        let answer = match self.send(&request, self.client.call()).await {
            Err(GroupError::Connection(crate::ConnectionError::Encode { .. })) => {
                let single = LeaveGroupRequest {
                    group_id: self.group.as_str().into(),
                    member_id: member_id.into(),
                    ..LeaveGroupRequest::default()
                };
                self.send(&single, self.client.call()).await?
            }
            answer => answer?,
        };
        let codes = std::iter::once(answer.error_code).chain(answer.members.iter().map(|member| member.error_code));
        for code in codes.map(error_code) {
            // A member that is gone has left.
            if !matches!(code, ErrorCode::None | ErrorCode::UnknownMemberId) {
                return Err(self.failed(code));
            }
        }
        Ok(())
    }
}
