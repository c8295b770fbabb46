//! What a shard answers: owned values, free of the wire's layout.

use std::sync::Arc;

use bytes::Bytes;

use super::ErrorCode;

/// A topic's partitions, each with its error.
pub type TopicErrors = (Arc<str>, Vec<(i32, ErrorCode)>);

/// The answer to the request of the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// To JoinGroup.
    JoinGroup(JoinGroupResponse),
    /// To SyncGroup.
    SyncGroup(SyncGroupResponse),
    /// To Heartbeat.
    Heartbeat(ErrorCode),
    /// To LeaveGroup.
    LeaveGroup(LeaveGroupResponse),
    /// To OffsetCommit: for each topic of the request, in order, each partition with its error.
    OffsetCommit(Vec<TopicErrors>),
    /// To OffsetFetch.
    OffsetFetch(OffsetFetchResponse),
    /// To OffsetDelete.
    OffsetDelete(OffsetDeleteResponse),
    /// To DescribeGroup.
    DescribeGroup(DescribedGroup),
    /// To ListGroups.
    ListGroups(ListGroupsResponse),
    /// To DeleteGroups: each group of the request, in order, with its error.
    DeleteGroups(Vec<(Arc<str>, ErrorCode)>),
}

/// The answer to JoinGroup.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinGroupResponse {
    /// The error.
    pub error: ErrorCode,
    /// The generation joined; −1 with an error.
    pub generation_id: i32,
    /// The group's protocol type.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol chosen. Versions before 7 print none as an empty string.
    pub protocol_name: Option<Arc<str>>,
    /// The leader's member id; empty with an error.
    pub leader: Arc<str>,
    /// The leader must not assign (version 9).
    pub skip_assignment: bool,
    /// The member's id.
    pub member: Arc<str>,
    /// For the leader: everybody.
    pub members: Vec<JoinedMember>,
}

/// What the leader learns of a member.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinedMember {
    /// The member id.
    pub member: Arc<str>,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Arc<str>>,
    /// The member's metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// The answer to SyncGroup.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncGroupResponse {
    /// The error.
    pub error: ErrorCode,
    /// The group's protocol type.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol chosen.
    pub protocol_name: Option<Arc<str>>,
    /// The member's assignment; empty with an error.
    pub assignment: Bytes,
}

/// The answer to LeaveGroup.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaveGroupResponse {
    /// The error of the whole request; before version 3 the single member's.
    pub error: ErrorCode,
    /// Each member of the request, in order.
    pub members: Vec<LeftMember>,
}

/// One member of a LeaveGroup answer.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftMember {
    /// As in the request.
    pub member: Arc<str>,
    /// As in the request.
    pub group_instance_id: Option<Arc<str>>,
    /// The error.
    pub error: ErrorCode,
}

/// The answer to OffsetFetch.
#[derive(Clone, Debug, PartialEq)]
pub struct OffsetFetchResponse {
    /// The error of the whole group. With an error every asked partition is listed with it.
    pub error: ErrorCode,
    /// The offsets: as asked, or all.
    pub topics: Vec<(Arc<str>, Vec<FetchedOffset>)>,
}

/// One partition of an OffsetFetch answer.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchedOffset {
    /// The partition index.
    pub partition: i32,
    /// The committed offset; −1 if there is none.
    pub offset: i64,
    /// The leader epoch committed with it; −1 if there is none.
    pub leader_epoch: i32,
    /// The metadata committed with it; empty if there is none.
    pub metadata: Arc<str>,
    /// The error.
    pub error: ErrorCode,
}

/// The answer to OffsetDelete.
#[derive(Clone, Debug, PartialEq)]
pub struct OffsetDeleteResponse {
    /// The error of the whole request.
    pub error: ErrorCode,
    /// As asked, each partition with its error; empty with an error above.
    pub topics: Vec<TopicErrors>,
}

/// The answer to DescribeGroup.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedGroup {
    /// The error.
    pub error: ErrorCode,
    /// Says what an error is about (version 6).
    pub error_message: Option<String>,
    /// The group id.
    pub group: Arc<str>,
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable` or `Dead`; empty if unknown.
    pub state: &'static str,
    /// The protocol type; empty if there is none.
    pub protocol_type: Arc<str>,
    /// The protocol chosen, in `Stable` only; empty otherwise.
    pub protocol_data: Arc<str>,
    /// The members.
    pub members: Vec<DescribedMember>,
}

/// One member of a DescribeGroup answer.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedMember {
    /// The member id.
    pub member: Arc<str>,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Arc<str>>,
    /// The client id.
    pub client_id: Arc<str>,
    /// The client's host.
    pub client_host: Arc<str>,
    /// The metadata for the chosen protocol, in `Stable` only.
    pub metadata: Bytes,
    /// The assignment, in `Stable` only.
    pub assignment: Bytes,
}

/// The answer to ListGroups.
#[derive(Clone, Debug, PartialEq)]
pub struct ListGroupsResponse {
    /// The error of this shard.
    pub error: ErrorCode,
    /// The groups that pass the filters.
    pub groups: Vec<ListedGroup>,
}

/// One group of a ListGroups answer.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedGroup {
    /// The group id.
    pub group: Arc<str>,
    /// The protocol type; empty if there is none.
    pub protocol_type: Arc<str>,
    /// The state's name.
    pub state: &'static str,
    /// The group's type: `classic`.
    pub group_type: &'static str,
}

impl JoinGroupResponse {
    /// A refusal.
    #[must_use]
    pub fn refuse(error: ErrorCode, member: Arc<str>) -> Self {
        Self {
            error,
            generation_id: -1,
            protocol_type: None,
            protocol_name: None,
            leader: Arc::default(),
            skip_assignment: false,
            member,
            members: Vec::new(),
        }
    }
}

impl SyncGroupResponse {
    /// A refusal.
    #[must_use]
    pub fn refuse(error: ErrorCode) -> Self {
        Self { error, protocol_type: None, protocol_name: None, assignment: Bytes::new() }
    }
}

impl FetchedOffset {
    /// No offset, with an error or without.
    #[must_use]
    pub fn none(partition: i32, error: ErrorCode) -> Self {
        Self { partition, offset: -1, leader_epoch: -1, metadata: Arc::default(), error }
    }
}

impl DescribedGroup {
    /// An answer without a group.
    #[must_use]
    pub fn none(group: Arc<str>, error: ErrorCode, error_message: Option<String>, state: &'static str) -> Self {
        Self {
            error,
            error_message,
            group,
            state,
            protocol_type: Arc::default(),
            protocol_data: Arc::default(),
            members: Vec::new(),
        }
    }
}

impl Response {
    /// The answer to give instead when the append it waits for has failed: the same shape, every success replaced by `error`.
    #[must_use]
    pub fn failed(&self, error: ErrorCode) -> Self {
        let over = |was: ErrorCode| if was == ErrorCode::None { error } else { was };
        let partitions = |topics: &[TopicErrors]| {
            topics.iter().map(|(name, all)| (name.clone(), all.iter().map(|&(p, e)| (p, over(e))).collect())).collect()
        };
        match self {
            Self::JoinGroup(join) => Self::JoinGroup(JoinGroupResponse::refuse(over(join.error), join.member.clone())),
            Self::SyncGroup(sync) => Self::SyncGroup(SyncGroupResponse::refuse(over(sync.error))),
            Self::Heartbeat(was) => Self::Heartbeat(over(*was)),
            Self::LeaveGroup(left) => Self::LeaveGroup(LeaveGroupResponse {
                error: over(left.error),
                members: left.members.iter().map(|m| LeftMember { error: over(m.error), ..m.clone() }).collect(),
            }),
            Self::OffsetCommit(topics) => Self::OffsetCommit(partitions(topics)),
            Self::OffsetFetch(fetched) => {
                let none =
                    |all: &[FetchedOffset]| all.iter().map(|o| FetchedOffset::none(o.partition, error)).collect();
                let topics = fetched.topics.iter().map(|(name, all)| (name.clone(), none(all))).collect();
                Self::OffsetFetch(OffsetFetchResponse { error: over(fetched.error), topics })
            }
            Self::OffsetDelete(deleted) => Self::OffsetDelete(OffsetDeleteResponse {
                error: over(deleted.error),
                topics: partitions(&deleted.topics),
            }),
            Self::DescribeGroup(group) => {
                Self::DescribeGroup(DescribedGroup::none(group.group.clone(), over(group.error), None, ""))
            }
            Self::ListGroups(list) => {
                Self::ListGroups(ListGroupsResponse { error: over(list.error), groups: Vec::new() })
            }
            Self::DeleteGroups(groups) => {
                Self::DeleteGroups(groups.iter().map(|(group, was)| (group.clone(), over(*was))).collect())
            }
        }
    }
}
