//! What clients and administrators ask of a shard: owned values, free of the wire's layout.
//! A version is carried only where the answer depends on it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_protocol::types::Uuid;

/// One request to the shard that holds its group.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Become or stay a member.
    JoinGroup(JoinGroup),
    /// Give (as the leader) or get the assignment of a generation.
    SyncGroup(SyncGroup),
    /// Stay alive.
    Heartbeat(Heartbeat),
    /// Leave, or remove members.
    LeaveGroup(LeaveGroup),
    /// Store offsets.
    OffsetCommit(OffsetCommit),
    /// Read stored offsets of one group.
    OffsetFetch(OffsetFetch),
    /// Remove stored offsets.
    OffsetDelete(OffsetDelete),
    /// Describe one group.
    DescribeGroup(DescribeGroup),
    /// List this shard's groups.
    ListGroups(ListGroups),
    /// Delete groups of this shard.
    DeleteGroups(DeleteGroups),
}

/// A JoinGroup request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinGroup {
    /// The API version: from 4 a new dynamic member is first given an id; from 9 the answer can say to skip the assignment.
    pub version: i16,
    /// The group id.
    pub group: Arc<str>,
    /// Empty for a new member.
    pub member: Arc<str>,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Arc<str>>,
    /// The client id of the request header; empty if null.
    pub client_id: Arc<str>,
    /// The peer's address as Kafka prints it: `/127.0.0.1`.
    pub client_host: Arc<str>,
    /// How long the member may stay silent. A negative number on the wire is zero here.
    pub session_timeout: Duration,
    /// How long a rebalance may wait for the member; the session timeout if the version has none.
    pub rebalance_timeout: Duration,
    /// `consumer`, `connect`, …
    pub protocol_type: Arc<str>,
    /// Protocols the member speaks with its metadata for each, most preferred first.
    pub protocols: Vec<(Arc<str>, Bytes)>,
}

/// A SyncGroup request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SyncGroup {
    /// The group id.
    pub group: Arc<str>,
    /// The member id.
    pub member: Arc<str>,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Arc<str>>,
    /// The generation the member joined.
    pub generation_id: i32,
    /// Checked if present (version 5).
    pub protocol_type: Option<Arc<str>>,
    /// Checked if present (version 5).
    pub protocol_name: Option<Arc<str>>,
    /// The leader's assignments; nobody else's count.
    pub assignments: Vec<(Arc<str>, Bytes)>,
}

/// A Heartbeat request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heartbeat {
    /// The group id.
    pub group: Arc<str>,
    /// The member id.
    pub member: Arc<str>,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Arc<str>>,
    /// The generation the member is in.
    pub generation_id: i32,
}

/// A LeaveGroup request. Versions before 3 name one member and no instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaveGroup {
    /// The API version: before 3 the single member's error is the answer's own.
    pub version: i16,
    /// The group id.
    pub group: Arc<str>,
    /// Who leaves.
    pub members: Vec<LeavingMember>,
}

/// Who leaves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeavingMember {
    /// The member id; empty to remove a static member by its instance id.
    pub member: Arc<str>,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Arc<str>>,
}

/// An OffsetCommit request. The broker has checked that the topics exist and may be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OffsetCommit {
    /// The API version: from 9 an unknown group is `GROUP_ID_NOT_FOUND`.
    pub version: i16,
    /// The group id; may be empty for a consumer that assigns partitions itself.
    pub group: Arc<str>,
    /// The member id; empty without membership.
    pub member: Arc<str>,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<Arc<str>>,
    /// The member's generation; negative without membership.
    pub generation_id: i32,
    /// How long to keep the offsets from now (versions 2 to 4); none for the broker's retention.
    pub retention: Option<Duration>,
    /// What to store.
    pub topics: Vec<CommitTopic>,
}

/// One topic of an OffsetCommit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommitTopic {
    /// The topic's name.
    pub name: Arc<str>,
    /// The topic's id; zero if unknown.
    pub id: Uuid,
    /// What to store.
    pub partitions: Vec<CommitPartition>,
}

/// One partition of an OffsetCommit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommitPartition {
    /// The partition index.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch of the last record read; −1 if unknown.
    pub leader_epoch: i32,
    /// The client's own note; null is empty.
    pub metadata: Arc<str>,
}

/// An OffsetFetch of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OffsetFetch {
    /// The group id.
    pub group: Arc<str>,
    /// What to read; none for every stored offset.
    pub topics: Option<Vec<FetchTopic>>,
}

/// One topic of an OffsetFetch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FetchTopic {
    /// The topic's name.
    pub name: Arc<str>,
    /// The topic's id; zero if unknown. An offset stored for another topic of the same name is not answered.
    pub id: Uuid,
    /// The partition indexes.
    pub partitions: Vec<i32>,
}

/// An OffsetDelete request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OffsetDelete {
    /// The group id.
    pub group: Arc<str>,
    /// Topics with the partitions whose offsets go.
    pub topics: Vec<(Arc<str>, Vec<i32>)>,
}

/// A DescribeGroups request for one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DescribeGroup {
    /// The API version: from 6 an unknown group is `GROUP_ID_NOT_FOUND`.
    pub version: i16,
    /// The group id.
    pub group: Arc<str>,
}

/// A ListGroups request. Filters ignore case; an empty one passes everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListGroups {
    /// State names.
    pub states: Vec<Arc<str>>,
    /// Group type names; groups here are `classic`.
    pub types: Vec<Arc<str>>,
}

/// A DeleteGroups request for groups of this shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteGroups {
    /// The group ids.
    pub groups: Vec<Arc<str>>,
}
