//! The records of `__consumer_offsets` as Kafka 4.3 stores them: keys 0 to 2 and their values, bytes to values and back.
//! Invariant: decoding reads only what is there, allocates only for what is there, and never panics.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use madang_protocol::types::Uuid;

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

/// Bytes that are no record of their schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed record: {0}")]
pub struct Malformed(pub &'static str);

const GROUP_VALUE_VERSION: i16 = 3;
const OFFSET_VALUE_VERSION: i16 = 4;
const OFFSET_VALUE_VERSION_WITH_EXPIRY: i16 = 1;

/// The record that stores `value` under `key`; none for a key of another schema or a value that the format cannot hold.
#[must_use]
pub fn encode(key: &Key, value: Option<&Value>) -> Option<Record> {
    let key = encode_key(key)?;
    let value = match value {
        None => None,
        Some(Value::Offset(offset)) => Some(encode_offset(offset)?),
        Some(Value::Group(group)) => Some(encode_group(group)?),
    };
    Some(Record { key, value })
}

fn encode_key(key: &Key) -> Option<Bytes> {
    let mut out = Vec::new();
    match key {
        Key::Offset { group, topic, partition } => {
            out.put_i16(1);
            put_string(&mut out, group)?;
            put_string(&mut out, topic)?;
            out.put_i32(*partition);
        }
        Key::Group { group } => {
            out.put_i16(2);
            put_string(&mut out, group)?;
        }
        Key::Other(_) => return None,
    }
    Some(out.into())
}

fn encode_offset(value: &OffsetRecord) -> Option<Bytes> {
    let mut out = Vec::new();
    if let Some(expire) = value.expire_timestamp {
        // Only version 1 has a place for it; like Kafka's, such a record carries neither epoch nor topic id.
        out.put_i16(OFFSET_VALUE_VERSION_WITH_EXPIRY);
        out.put_i64(value.offset);
        put_string(&mut out, &value.metadata)?;
        out.put_i64(value.commit_timestamp);
        out.put_i64(expire);
        return Some(out.into());
    }
    out.put_i16(OFFSET_VALUE_VERSION);
    out.put_i64(value.offset);
    out.put_i32(value.leader_epoch);
    put_unsigned_varint(&mut out, u32::try_from(value.metadata.len()).ok()?.checked_add(1)?);
    out.put_slice(value.metadata.as_bytes());
    out.put_i64(value.commit_timestamp);
    if value.topic_id == Uuid::default() {
        out.put_u8(0);
    } else {
        out.put_slice(&[1, 0, 16]);
        out.put_slice(&value.topic_id.0);
    }
    Some(out.into())
}

fn encode_group(value: &GroupRecord) -> Option<Bytes> {
    let mut out = Vec::new();
    out.put_i16(GROUP_VALUE_VERSION);
    put_string(&mut out, &value.protocol_type)?;
    out.put_i32(value.generation);
    put_nullable(&mut out, value.protocol.as_deref())?;
    put_nullable(&mut out, value.leader.as_deref())?;
    out.put_i64(value.state_timestamp);
    out.put_i32(i32::try_from(value.members.len()).ok()?);
    for member in &value.members {
        put_string(&mut out, &member.member)?;
        put_nullable(&mut out, member.group_instance_id.as_deref())?;
        put_string(&mut out, &member.client_id)?;
        put_string(&mut out, &member.client_host)?;
        out.put_i32(member.rebalance_timeout_ms);
        out.put_i32(member.session_timeout_ms);
        put_bytes(&mut out, &member.subscription)?;
        put_bytes(&mut out, &member.assignment)?;
    }
    Some(out.into())
}

fn put_string(out: &mut Vec<u8>, text: &str) -> Option<()> {
    out.put_i16(i16::try_from(text.len()).ok()?);
    out.put_slice(text.as_bytes());
    Some(())
}

fn put_nullable(out: &mut Vec<u8>, text: Option<&str>) -> Option<()> {
    match text {
        Some(text) => put_string(out, text),
        None => {
            out.put_i16(-1);
            Some(())
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.put_i32(i32::try_from(bytes.len()).ok()?);
    out.put_slice(bytes);
    Some(())
}

fn put_unsigned_varint(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// Reads a key. Schemas other than 0, 1 and 2 are `Key::Other`.
///
/// # Errors
/// The bytes do not hold a key of the schema they name.
pub fn decode_key(bytes: &[u8]) -> Result<Key, Malformed> {
    let mut reader = Cursor(bytes);
    match reader.i16()? {
        0 | 1 => Ok(Key::Offset { group: reader.string()?, topic: reader.string()?, partition: reader.i32()? }),
        2 => Ok(Key::Group { group: reader.string()? }),
        other => Ok(Key::Other(other)),
    }
}

/// Reads the value stored under `key`.
///
/// # Errors
/// The bytes do not hold a value of the key's schema in a known version.
pub fn decode_value(key: &Key, bytes: &[u8]) -> Result<Value, Malformed> {
    match key {
        Key::Offset { .. } => decode_offset(bytes).map(Value::Offset),
        Key::Group { .. } => decode_group(bytes).map(Value::Group),
        Key::Other(_) => Err(Malformed("a value of another schema")),
    }
}

fn decode_offset(bytes: &[u8]) -> Result<OffsetRecord, Malformed> {
    let mut reader = Cursor(bytes);
    let version = reader.version(4)?;
    let offset = reader.i64()?;
    let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
    let metadata = if version >= 4 { reader.compact_string()? } else { reader.string()? };
    let commit_timestamp = reader.i64()?;
    let expire = if version == 1 { reader.i64()? } else { -1 };
    let mut topic_id = Uuid::default();
    if version >= 4 {
        reader.tagged_fields(|tag, bytes| {
            if tag == 0 {
                topic_id = Uuid(bytes.try_into().map_err(|_| Malformed("topic id"))?);
            }
            Ok(())
        })?;
    }
    let expire_timestamp = (expire != -1).then_some(expire);
    Ok(OffsetRecord { offset, leader_epoch, metadata, commit_timestamp, expire_timestamp, topic_id })
}

fn decode_group(bytes: &[u8]) -> Result<GroupRecord, Malformed> {
    let mut reader = Cursor(bytes);
    let version = reader.version(4)?;
    let flexible = version >= 4;
    let protocol_type = reader.text(flexible)?;
    let generation = reader.i32()?;
    let protocol = reader.nullable_text(flexible)?;
    let leader = reader.nullable_text(flexible)?;
    let state_timestamp = if version >= 2 { reader.i64()? } else { -1 };
    let count = if flexible { i64::from(reader.unsigned_varint()?) - 1 } else { i64::from(reader.i32()?) };
    if count < 0 {
        return Err(Malformed("member count"));
    }
    let mut members = Vec::new();
    for _ in 0..count {
        // Every member takes bytes, so a lying count ends at the end of the value.
        members.push(decode_member(&mut reader, version)?);
    }
    if flexible {
        reader.tagged_fields(|_, _| Ok(()))?;
    }
    Ok(GroupRecord { protocol_type, generation, protocol, leader, state_timestamp, members })
}

fn decode_member(reader: &mut Cursor<'_>, version: i16) -> Result<MemberRecord, Malformed> {
    let flexible = version >= 4;
    let member = MemberRecord {
        member: reader.text(flexible)?,
        group_instance_id: if version >= 3 { reader.nullable_text(flexible)? } else { None },
        client_id: reader.text(flexible)?,
        client_host: reader.text(flexible)?,
        rebalance_timeout_ms: if version >= 1 { reader.i32()? } else { -1 },
        session_timeout_ms: reader.i32()?,
        subscription: reader.blob(flexible)?,
        assignment: reader.blob(flexible)?,
    };
    if flexible {
        reader.tagged_fields(|_, _| Ok(()))?;
    }
    Ok(member)
}

/// A bounded reader over borrowed bytes.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed("too short"))
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    fn version(&mut self, highest: i16) -> Result<i16, Malformed> {
        let version = self.i16()?;
        if (0..=highest).contains(&version) { Ok(version) } else { Err(Malformed("unknown version")) }
    }

    fn unsigned_varint(&mut self) -> Result<u32, Malformed> {
        let mut number = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(number).map_err(|_| Malformed("varint"));
            }
        }
        Err(Malformed("varint"))
    }

    fn utf8(&mut self, length: usize) -> Result<Arc<str>, Malformed> {
        std::str::from_utf8(self.take(length)?).map(Arc::from).map_err(|_| Malformed("not UTF-8"))
    }

    pub(crate) fn nullable_string(&mut self) -> Result<Option<Arc<str>>, Malformed> {
        match self.i16()? {
            -1 => Ok(None),
            length => self.utf8(usize::try_from(length).map_err(|_| Malformed("string length"))?).map(Some),
        }
    }

    pub(crate) fn string(&mut self) -> Result<Arc<str>, Malformed> {
        self.nullable_string()?.ok_or(Malformed("null string"))
    }

    fn nullable_text(&mut self, flexible: bool) -> Result<Option<Arc<str>>, Malformed> {
        if !flexible {
            return self.nullable_string();
        }
        match self.unsigned_varint()? {
            0 => Ok(None),
            length => self.utf8(length as usize - 1).map(Some),
        }
    }

    fn text(&mut self, flexible: bool) -> Result<Arc<str>, Malformed> {
        self.nullable_text(flexible)?.ok_or(Malformed("null string"))
    }

    fn compact_string(&mut self) -> Result<Arc<str>, Malformed> {
        self.text(true)
    }

    fn blob(&mut self, flexible: bool) -> Result<Bytes, Malformed> {
        let length = if flexible { i64::from(self.unsigned_varint()?) - 1 } else { i64::from(self.i32()?) };
        let length = usize::try_from(length).map_err(|_| Malformed("bytes length"))?;
        // Copied, so that a small blob does not keep the whole batch it came in.
        self.take(length).map(Bytes::copy_from_slice)
    }

    fn tagged_fields(&mut self, mut field: impl FnMut(u32, &[u8]) -> Result<(), Malformed>) -> Result<(), Malformed> {
        for _ in 0..self.unsigned_varint()? {
            let tag = self.unsigned_varint()?;
            let length = self.unsigned_varint()? as usize;
            field(tag, self.take(length)?)?;
        }
        Ok(())
    }
}
