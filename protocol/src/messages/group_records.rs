//! Records of the group coordinator: committed offsets, and generations of classic groups.

use std::borrow::Cow;

use bytes::Bytes;

use crate::message::Message;
use crate::types::Uuid;

/// Key of a partition's committed offset.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0")]
pub struct OffsetCommitKey<'a> {
    /// The group's id.
    pub group: Cow<'a, str>,
    /// The topic's name.
    pub topic: Cow<'a, str>,
    /// The partition's index.
    pub partition: i32,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-4", flexible = "4+")]
pub struct OffsetCommitValue<'a> {
    /// The committed offset.
    pub offset: i64,
    /// The leader epoch of the record before it; -1 if unknown.
    #[field(versions = "3+", default = -1, ignorable)]
    pub leader_epoch: i32,
    /// The client's note.
    pub metadata: Cow<'a, str>,
    /// When it was committed, in milliseconds.
    pub commit_timestamp: i64,
    /// When it expires, in milliseconds; -1: by the retention.
    #[field(versions = "1", default = -1, ignorable)]
    pub expire_timestamp: i64,
    /// The topic's id; zero if unknown.
    #[field(versions = "4+", tag = 0, ignorable)]
    pub topic_id: Uuid,
}

/// Key of a group's metadata.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0")]
pub struct GroupMetadataKey<'a> {
    /// The group's id.
    pub group: Cow<'a, str>,
}

/// A generation of a classic group.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-4", flexible = "4+")]
pub struct GroupMetadataValue<'a> {
    /// The kind of group.
    pub protocol_type: Cow<'a, str>,
    /// The generation.
    pub generation: i32,
    /// The chosen protocol; null while there is none.
    #[field(nullable)]
    pub protocol: Option<Cow<'a, str>>,
    /// The leader's member id; null while there is none.
    #[field(nullable)]
    pub leader: Option<Cow<'a, str>>,
    /// When the state was entered, in milliseconds; -1 if unknown.
    #[field(versions = "2+", default = -1, ignorable)]
    pub current_state_timestamp: i64,
    /// The members.
    pub members: Vec<MemberMetadata<'a>>,
}

/// A member of the group.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct MemberMetadata<'a> {
    /// The member's id.
    pub member_id: Cow<'a, str>,
    /// The name of a static member, or null.
    #[field(versions = "3+", nullable, default = null, ignorable)]
    pub group_instance_id: Option<Cow<'a, str>>,
    /// The member's client id.
    pub client_id: Cow<'a, str>,
    /// The member's host.
    pub client_host: Cow<'a, str>,
    /// The rebalance timeout in milliseconds; -1: the session timeout.
    #[field(versions = "1+", default = -1, ignorable)]
    pub rebalance_timeout: i32,
    /// The session timeout in milliseconds.
    pub session_timeout: i32,
    /// What the member sent for the chosen protocol.
    pub subscription: Bytes,
    /// What the leader assigned to it.
    pub assignment: Bytes,
}
