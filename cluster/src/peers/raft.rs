//! Raft's messages as bytes: the protobuf encoding that raft-rs brings with it.
//! Invariant: bytes reach protobuf's decoder only if every length in them is covered by bytes, and every field is one that Raft has. The
//! decoder alone would allocate for a length of up to 10 MB before it looks, and keep unknown fields at many times their size.

use bytes::Bytes;
use madang_protocol::node::NodeError;
use madang_protocol::types::NodeId;
use protobuf::Message as _;
use raft::eraftpb::{Message, MessageType};

use crate::controller::raft_id;

/// Fewest bytes of an entry: each has a term and an index.
const MIN_ENTRY: usize = 4;

/// The payload that carries `message`.
///
/// # Errors
/// [`NodeError::Unwritable`] if it is longer than 4 GiB.
pub fn raft_payload(message: &Message) -> Result<Bytes, NodeError> {
    message.write_to_bytes().map(Bytes::from).map_err(|why| NodeError::Unwritable(why.to_string()))
}

/// The message that `peer` has sent.
///
/// # Errors
/// [`NodeError::Malformed`]; also for a message that no voter sends to another, or not in its own name.
pub fn raft_message(peer: NodeId, payload: &[u8]) -> Result<Message, NodeError> {
    let malformed = |why: &str| NodeError::Malformed(why.to_owned());
    check(payload, Part::Message).ok_or_else(|| malformed("not a message of Raft"))?;
    let message = Message::parse_from_bytes(payload).map_err(|why| malformed(&why.to_string()))?;
    if message.from != raft_id(peer) {
        return Err(malformed("in another node's name"));
    }
    if message.entries.iter().any(|entry| entry.term == 0 || entry.index == 0) {
        return Err(malformed("an entry without a place in the log"));
    }
    if is_between_voters(message.msg_type) { Ok(message) } else { Err(malformed("not for another voter")) }
}

/// Whether voters send it to each other. Proposals go to the controller, which decides about them, and not around it.
const fn is_between_voters(message: MessageType) -> bool {
    use MessageType::*;
    matches!(
        message,
        MsgAppend
            | MsgAppendResponse
            | MsgRequestVote
            | MsgRequestVoteResponse
            | MsgRequestPreVote
            | MsgRequestPreVoteResponse
            | MsgSnapshot
            | MsgHeartbeat
            | MsgHeartbeatResponse
            | MsgTimeoutNow
    )
}

/// What the bytes of a message are made of.
#[derive(Clone, Copy)]
enum Part {
    Message,
    Entry,
    Snapshot,
    SnapshotMetadata,
    ConfState,
}

impl Part {
    /// The highest number of a field.
    const fn last_field(self) -> u64 {
        match self {
            Self::Message => 16,
            Self::Entry => 6,
            Self::Snapshot => 2,
            Self::SnapshotMetadata => 3,
            Self::ConfState => 5,
        }
    }

    /// What stands in a field, if it is made of fields itself.
    const fn inside(self, field: u64) -> Option<Self> {
        match (self, field) {
            (Self::Message, 7) => Some(Self::Entry),
            (Self::Message, 9) => Some(Self::Snapshot),
            (Self::Snapshot, 2) => Some(Self::SnapshotMetadata),
            (Self::SnapshotMetadata, 1) => Some(Self::ConfState),
            _ => None,
        }
    }
}

/// Walks over the fields; none if there is one that Raft does not have, or one that ends after the bytes. It is at most four calls deep.
fn check(mut bytes: &[u8], part: Part) -> Option<()> {
    if matches!(part, Part::Entry) && bytes.len() < MIN_ENTRY {
        return None;
    }
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let field = key >> 3;
        if field == 0 || field > part.last_field() {
            return None;
        }
        match key & 7 {
            0 => drop(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                if let Some(inside) = part.inside(field) {
                    check(value, inside)?;
                }
                bytes = rest;
            }
            _ => return None,
        }
    }
    Some(())
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
