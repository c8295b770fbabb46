//! What nodes say to each other: messages with a tag, in levels, of fields that speedy encodes, little endian.
//! Invariant: at each level a message has one encoding; nothing is allocated for a length that the bytes which are there cannot hold.
//!
//! The transport carries a message as the head of a frame, its tag beside it. Both sides agree on a level when they open a lane.
//!
//! How messages change:
//! - A field comes at the end of its message, with the level at which it begins. None is removed, moved or given another type.
//! - Whoever writes for a peer of level N leaves out what began later. Whoever reads what was written at level N gives the rest its default.
//! - Bytes after the last field are an error. Only where the peer's level is above our newest they are its newer fields, and ignored.
//! - What stands inside of a field never changes: another layout is a new field, or a new message. A new variant of an enum is written only
//!   from the level on at which it began.
//! - A tag is never used again.

mod control;
mod fetch;
mod macros;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use speedy::{LittleEndian, Readable, Writable};
use thiserror::Error;

pub use self::control::{
    Confirm, Death, Heartbeat, HeartbeatAnswer, HeartbeatResult, PartitionConfirm, Raft, Received, Refusal, Rejected,
};
pub use self::fetch::{AnswerBody, PartitionAnswer, PartitionFetch, PartitionKnown, ReplicaFetch, ReplicaFetchAnswer};

/// The lowest and the highest level that this build speaks.
pub const LEVELS: (u16, u16) = (1, 2);

/// What a message is: its number on the wire. 0 is the transport's hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Tag {
    /// [`Received`], on any lane.
    Received = 1,
    /// [`Rejected`], on any lane.
    Rejected = 2,
    /// [`Raft`], on the control lane; answered by [`Received`].
    Raft = 3,
    /// A proposal for the controller, on the control lane; answered by [`Tag::ProposeAnswer`]. What both hold is the controller's.
    Propose = 4,
    /// How a proposal ended.
    ProposeAnswer = 5,
    /// [`Heartbeat`], on the control lane; answered by [`HeartbeatAnswer`].
    Heartbeat = 6,
    /// [`HeartbeatAnswer`].
    HeartbeatAnswer = 7,
    /// [`Confirm`], on the control lane; answered by [`Received`].
    Confirm = 8,
    /// [`ReplicaFetch`], on a data lane; answered by [`ReplicaFetchAnswer`].
    ReplicaFetch = 9,
    /// [`ReplicaFetchAnswer`].
    ReplicaFetchAnswer = 10,
    /// [`Death`], on a supervisor's lane; answered by [`HeartbeatAnswer`].
    Death = 11,
}

impl Tag {
    /// All of them, ascending.
    pub const ALL: &[Self] = &[
        Self::Received,
        Self::Rejected,
        Self::Raft,
        Self::Propose,
        Self::ProposeAnswer,
        Self::Heartbeat,
        Self::HeartbeatAnswer,
        Self::Confirm,
        Self::ReplicaFetch,
        Self::ReplicaFetchAnswer,
        Self::Death,
    ];

    /// Its number on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The tag of this number; none if a newer node has it, or nobody.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|tag| tag.code() == code)
    }
}

/// Why bytes are not a message, or a message has no bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NodeError {
    /// The level is below our lowest, or it is to be written and above our newest.
    #[error("level {0} is not spoken here")]
    Level(u16),
    /// The bytes end too early, or hold what no field can be.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// Bytes are left after the last field.
    #[error("{0} bytes left after the message")]
    TrailingBytes(usize),
    /// It can be read, but nobody writes it so.
    #[error("not the encoding of its message")]
    NotCanonical,
    /// The lengths in the head do not add up to the payload.
    #[error("{announced} bytes announced, a payload of {there}")]
    Payload {
        /// Their sum.
        announced: u64,
        /// Bytes of the payload.
        there: usize,
    },
    /// It has more elements than a length can say.
    #[error("cannot be encoded: {0}")]
    Unwritable(String),
}

/// One message, as `node_message!` declares it.
pub trait NodeMessage: Sized {
    /// What it is.
    const TAG: Tag;

    /// Appends the fields that `level` has to `head`.
    ///
    /// # Errors
    /// [`NodeError::Unwritable`]
    fn write_fields(&self, level: u16, head: &mut Vec<u8>) -> Result<(), NodeError>;

    /// Takes the fields that `level` has from `head`; the others get their defaults.
    ///
    /// # Errors
    /// [`NodeError::Malformed`]
    fn read_fields(level: u16, head: &mut &[u8]) -> Result<Self, NodeError>;

    /// The message for a peer with which `level` was agreed.
    ///
    /// # Errors
    /// A level that is not spoken here; [`NodeError::Unwritable`].
    fn write(&self, level: u16) -> Result<Bytes, NodeError> {
        write_at(self, LEVELS.1, level)
    }

    /// What a peer wrote at `level`.
    ///
    /// # Errors
    /// Bytes that are no such message, or not all of them one.
    fn read(level: u16, head: &[u8]) -> Result<Self, NodeError> {
        read_at(LEVELS.1, level, head)
    }
}

/// A message that has an answer.
pub trait NodeRequest: NodeMessage {
    /// What answers it; [`Rejected`] may come instead.
    type Answer: NodeMessage;
}

fn write_at<M: NodeMessage>(message: &M, newest: u16, level: u16) -> Result<Bytes, NodeError> {
    if level < LEVELS.0 || level > newest {
        return Err(NodeError::Level(level));
    }
    let mut head = Vec::new();
    message.write_fields(level, &mut head)?;
    Ok(head.into())
}

fn read_at<M: NodeMessage>(newest: u16, level: u16, head: &[u8]) -> Result<M, NodeError> {
    if level < LEVELS.0 {
        return Err(NodeError::Level(level));
    }
    let mut rest = head;
    let message = M::read_fields(level.min(newest), &mut rest)?;
    if level <= newest && !rest.is_empty() {
        return Err(NodeError::TrailingBytes(rest.len()));
    }
    // speedy takes every byte but 0 for true, and maps in any order.
    if write_at(&message, newest, level.min(newest))? != head[..head.len() - rest.len()] {
        return Err(NodeError::NotCanonical);
    }
    Ok(message)
}

/// Appends a field.
///
/// # Errors
/// [`NodeError::Unwritable`]
pub fn put<T: Writable<LittleEndian>>(head: &mut Vec<u8>, field: &T) -> Result<(), NodeError> {
    let bytes = field.write_to_vec_with_ctx(LittleEndian {}).map_err(|why| NodeError::Unwritable(why.to_string()))?;
    head.extend_from_slice(&bytes);
    Ok(())
}

/// Takes a field from the front.
///
/// # Errors
/// [`NodeError::Malformed`]
pub fn take<T: for<'a> Readable<'a, LittleEndian>>(head: &mut &[u8]) -> Result<T, NodeError> {
    let (field, read) = T::read_with_length_from_buffer_with_ctx(LittleEndian {}, head);
    let field = field.map_err(|why| NodeError::Malformed(why.to_string()))?;
    *head = &head[read..];
    Ok(field)
}
