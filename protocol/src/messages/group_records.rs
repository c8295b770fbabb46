//! Records of the group coordinator: committed offsets, and generations of classic groups.
//! A key is stored behind its type, a value behind its version ([`crate::message::encode_versioned`]), each a number of 16 bits.

use std::borrow::Cow;

use bytes::Bytes;

use crate::message::Message;
use crate::reader::{DecodeError, Reader};
use crate::types::Uuid;
use crate::writer::{EncodeError, Writer};

/// The type of a committed offset's key.
const OFFSET_COMMIT: i16 = 1;
/// The same key as old brokers wrote it.
const LEGACY_OFFSET_COMMIT: i16 = 0;
/// The type of a classic group's key.
const GROUP_METADATA: i16 = 2;

/// The key of any of the coordinator's records.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupRecordKey<'a> {
    /// The value is an [`OffsetCommitValue`].
    OffsetCommit(OffsetCommitKey<'a>),
    /// The value is a [`GroupMetadataValue`].
    GroupMetadata(GroupMetadataKey<'a>),
    /// A type that this codec does not read, as those of the newer group protocols.
    Other(i16),
}

impl<'a> GroupRecordKey<'a> {
    /// Reads a record's key.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are no key of their type; an unknown type is [`Self::Other`].
    pub fn decode(bytes: &'a Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let key = match reader.read_i16()? {
            OFFSET_COMMIT | LEGACY_OFFSET_COMMIT => Self::OffsetCommit(Message::decode(&mut reader, 0)?),
            GROUP_METADATA => Self::GroupMetadata(Message::decode(&mut reader, 0)?),
            other => return Ok(Self::Other(other)),
        };
        reader.expect_end()?;
        Ok(key)
    }

    /// The key as it is stored.
    ///
    /// # Errors
    /// [`EncodeError::StringTooLong`]; [`EncodeError::UnsupportedVersion`] for [`Self::Other`].
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        let mut writer = Writer::new();
        match self {
            Self::OffsetCommit(key) => {
                writer.put_i16(OFFSET_COMMIT);
                key.encode(&mut writer, 0)?;
            }
            Self::GroupMetadata(key) => {
                writer.put_i16(GROUP_METADATA);
                key.encode(&mut writer, 0)?;
            }
            Self::Other(version) => return Err(EncodeError::UnsupportedVersion { version: *version }),
        }
        writer.into_bytes()
    }
}

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

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use bytes::Bytes;

    use super::{GroupMetadataKey, GroupRecordKey, OffsetCommitKey};

    #[test]
    fn a_key_is_behind_its_type() {
        let group = GroupRecordKey::GroupMetadata(GroupMetadataKey { group: Cow::Borrowed("g") });
        let bytes = group.encode().unwrap();
        assert_eq!(&bytes[..], [0, 2, 0, 1, b'g']);
        assert_eq!(GroupRecordKey::decode(&bytes), Ok(group));
        let key = OffsetCommitKey { group: Cow::Borrowed("g"), topic: Cow::Borrowed("t"), partition: 3 };
        let offset = GroupRecordKey::OffsetCommit(key);
        let bytes = offset.encode().unwrap();
        assert_eq!(&bytes[..], [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 3]);
        let legacy = Bytes::from([&[0, 0], &bytes[2..]].concat());
        assert_eq!(GroupRecordKey::decode(&legacy), Ok(offset));
    }

    #[test]
    fn keys_of_newer_protocols_are_told_apart() {
        assert_eq!(GroupRecordKey::decode(&Bytes::from_static(&[0, 3, 0, 1])), Ok(GroupRecordKey::Other(3)));
        assert!(GroupRecordKey::decode(&Bytes::from_static(&[0])).is_err());
        assert!(GroupRecordKey::decode(&Bytes::from_static(&[0, 2, 0, 1, b'g', 0])).is_err());
        assert!(GroupRecordKey::Other(3).encode().is_err());
    }
}
