//! The records of `__consumer_offsets` as a shard works with them, from and to the messages that `madang_protocol` codes.
//! Invariant: what it keeps of a record shares no memory with the batch that the record came in.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use madang_protocol::message::{Message, decode_versioned, encode_versioned};
use madang_protocol::messages::group_records::{
    GroupMetadataKey, GroupMetadataValue, GroupRecordKey, MemberMetadata, OffsetCommitKey, OffsetCommitValue,
};
use madang_protocol::types::Uuid;
use madang_protocol::{DecodeError, EncodeError};

use super::message::Record;

/// The key of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A committed offset: key schemas 0 and 1, written as 1.
    Offset {
        /// The group id.
        group: Arc<str>,
        /// The topic's name.
        topic: Arc<str>,
        /// The partition index.
        partition: i32,
    },
    /// A classic group's metadata: key schema 2.
    Group {
        /// The group id.
        group: Arc<str>,
    },
    /// A schema that classic groups do not use.
    Other(i16),
}

impl Key {
    /// The group the record belongs to, if its schema is known.
    #[must_use]
    pub fn group(&self) -> Option<&Arc<str>> {
        match self {
            Self::Offset { group, .. } | Self::Group { group } => Some(group),
            Self::Other(_) => None,
        }
    }
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OffsetRecord {
    /// The next offset to read.
    pub offset: i64,
    /// −1 if unknown.
    pub leader_epoch: i32,
    /// The client's note.
    pub metadata: Arc<str>,
    /// Milliseconds since 1970.
    pub commit_timestamp: i64,
    /// Milliseconds since 1970, if the client asked for a retention of its own.
    pub expire_timestamp: Option<i64>,
    /// Zero if unknown.
    pub topic_id: Uuid,
}

/// A classic group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupRecord {
    /// Empty if the group never had a member.
    pub protocol_type: Arc<str>,
    /// The generation.
    pub generation: i32,
    /// The protocol chosen.
    pub protocol: Option<Arc<str>>,
    /// The leader's member id.
    pub leader: Option<Arc<str>>,
    /// Milliseconds since 1970 of the last change of state; −1 if unknown.
    pub state_timestamp: i64,
    /// The members.
    pub members: Vec<MemberRecord>,
}

/// A member of a classic group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemberRecord {
    /// The member id.
    pub member: Arc<str>,
    /// `group.instance.id`.
    pub group_instance_id: Option<Arc<str>>,
    /// The client id.
    pub client_id: Arc<str>,
    /// The client's host.
    pub client_host: Arc<str>,
    /// Milliseconds; −1 if unknown.
    pub rebalance_timeout_ms: i32,
    /// Milliseconds.
    pub session_timeout_ms: i32,
    /// The metadata for the protocol chosen.
    pub subscription: Bytes,
    /// The assignment.
    pub assignment: Bytes,
}

/// The value of a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// Of an offset key.
    Offset(OffsetRecord),
    /// Of a group key.
    Group(GroupRecord),
}

const GROUP_VALUE_VERSION: i16 = 3;
const OFFSET_VALUE_VERSION: i16 = 4;
/// The only version with a place for an expiry; like Kafka's, such a record carries neither epoch nor topic id.
const OFFSET_VALUE_VERSION_WITH_EXPIRY: i16 = 1;
/// An expiry that was not asked for.
const NO_EXPIRY: i64 = -1;

/// The record that stores `value` under `key`; none for a key of another schema or a value that the format cannot hold.
#[must_use]
pub fn encode(key: &Key, value: Option<&Value>) -> Option<Record> {
    let value = value.map(encode_value).transpose().ok()?;
    Some(Record { key: encode_key(key).ok()?, value })
}

fn encode_key(key: &Key) -> Result<Bytes, EncodeError> {
    let key = match key {
        Key::Offset { group, topic, partition } => GroupRecordKey::OffsetCommit(OffsetCommitKey {
            group: Cow::Borrowed(group),
            topic: Cow::Borrowed(topic),
            partition: *partition,
        }),
        Key::Group { group } => GroupRecordKey::GroupMetadata(GroupMetadataKey { group: Cow::Borrowed(group) }),
        Key::Other(schema) => GroupRecordKey::Other(*schema),
    };
    key.encode()
}

fn encode_value(value: &Value) -> Result<Bytes, EncodeError> {
    match value {
        Value::Offset(offset) if offset.expire_timestamp.is_some() => {
            encode_versioned(&offset.to_message(), OFFSET_VALUE_VERSION_WITH_EXPIRY)
        }
        Value::Offset(offset) => encode_versioned(&offset.to_message(), OFFSET_VALUE_VERSION),
        Value::Group(group) => encode_versioned(&group.to_message(), GROUP_VALUE_VERSION),
    }
}

/// Reads a key. Schemas other than 0, 1 and 2 are `Key::Other`.
///
/// # Errors
/// The bytes do not hold a key of the schema they name.
pub fn decode_key(bytes: &Bytes) -> Result<Key, DecodeError> {
    Ok(match GroupRecordKey::decode(bytes)? {
        GroupRecordKey::OffsetCommit(key) => {
            Key::Offset { group: key.group.into(), topic: key.topic.into(), partition: key.partition }
        }
        GroupRecordKey::GroupMetadata(key) => Key::Group { group: key.group.into() },
        GroupRecordKey::Other(schema) => Key::Other(schema),
    })
}

/// Reads the value stored under `key`.
///
/// # Errors
/// The bytes do not hold a value of the key's schema in a known version.
pub fn decode_value(key: &Key, bytes: &Bytes) -> Result<Value, DecodeError> {
    fn message<'a, M: Message<'a>>(bytes: &'a Bytes) -> Result<M, DecodeError> {
        decode_versioned(bytes).map(|(message, _)| message)
    }
    match key {
        Key::Offset { .. } => message(bytes).map(|message| Value::Offset(OffsetRecord::from_message(message))),
        Key::Group { .. } => message(bytes).map(|message| Value::Group(GroupRecord::from_message(message))),
        Key::Other(schema) => Err(DecodeError::UnsupportedVersion { version: *schema }),
    }
}

impl OffsetRecord {
    fn to_message(&self) -> OffsetCommitValue<'_> {
        OffsetCommitValue {
            offset: self.offset,
            leader_epoch: self.leader_epoch,
            metadata: Cow::Borrowed(&self.metadata),
            commit_timestamp: self.commit_timestamp,
            expire_timestamp: self.expire_timestamp.unwrap_or(NO_EXPIRY),
            topic_id: self.topic_id,
        }
    }

    fn from_message(message: OffsetCommitValue<'_>) -> Self {
        Self {
            offset: message.offset,
            leader_epoch: message.leader_epoch,
            metadata: message.metadata.into(),
            commit_timestamp: message.commit_timestamp,
            expire_timestamp: Some(message.expire_timestamp).filter(|expire| *expire != NO_EXPIRY),
            topic_id: message.topic_id,
        }
    }
}

impl GroupRecord {
    fn to_message(&self) -> GroupMetadataValue<'_> {
        GroupMetadataValue {
            protocol_type: Cow::Borrowed(&self.protocol_type),
            generation: self.generation,
            protocol: self.protocol.as_deref().map(Cow::Borrowed),
            leader: self.leader.as_deref().map(Cow::Borrowed),
            current_state_timestamp: self.state_timestamp,
            members: self.members.iter().map(MemberRecord::to_message).collect(),
        }
    }

    fn from_message(message: GroupMetadataValue<'_>) -> Self {
        Self {
            protocol_type: message.protocol_type.into(),
            generation: message.generation,
            protocol: message.protocol.map(Arc::from),
            leader: message.leader.map(Arc::from),
            state_timestamp: message.current_state_timestamp,
            members: message.members.into_iter().map(MemberRecord::from_message).collect(),
        }
    }
}

impl MemberRecord {
    fn to_message(&self) -> MemberMetadata<'_> {
        MemberMetadata {
            member_id: Cow::Borrowed(&self.member),
            group_instance_id: self.group_instance_id.as_deref().map(Cow::Borrowed),
            client_id: Cow::Borrowed(&self.client_id),
            client_host: Cow::Borrowed(&self.client_host),
            rebalance_timeout: self.rebalance_timeout_ms,
            session_timeout: self.session_timeout_ms,
            subscription: self.subscription.clone(),
            assignment: self.assignment.clone(),
        }
    }

    fn from_message(message: MemberMetadata<'_>) -> Self {
        Self {
            member: message.member_id.into(),
            group_instance_id: message.group_instance_id.map(Arc::from),
            client_id: message.client_id.into(),
            client_host: message.client_host.into(),
            rebalance_timeout_ms: message.rebalance_timeout,
            session_timeout_ms: message.session_timeout,
            // Copied, so that a small blob does not keep the whole batch it came in.
            subscription: Bytes::copy_from_slice(&message.subscription),
            assignment: Bytes::copy_from_slice(&message.assignment),
        }
    }
}
