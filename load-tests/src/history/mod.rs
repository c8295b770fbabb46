//! What clients saw, one event after the other: what they asked for, before they did, and what came of it.
//! Invariant: an event holds what one client knew at one moment, and nothing that was worked out later.

mod errors;
mod json;

pub use self::errors::{Certainty, certainty};
pub use self::json::{parse, write};

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// A partition, as `topic/partition`.
pub type Key = String;

/// When in an operation an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Before the call.
    Invoke,
    /// It happened.
    Ok,
    /// It did not happen and will not.
    Fail,
    /// It may have happened, or may still.
    Info,
}

/// What a record read back holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The unique number of an intact payload.
    Value(u64),
    /// No payload of the load; says why.
    Damaged(String),
}

/// One record that a poll gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polled {
    /// Where it is.
    pub offset: i64,
    /// What it is.
    pub found: Found,
}

/// One record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Where to.
    pub key: Key,
    /// The unique number of its payload.
    pub value: u64,
    /// The offset that the broker gave it; none before it has.
    pub offset: Option<i64>,
}

/// What a client did, or was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes records. `acks` is -1 for all.
    Send {
        /// The records.
        sends: Vec<Sent>,
        /// How many replicas the producer waits for; -1 for all in sync.
        acks: i8,
        /// Whether the producer is idempotent.
        idempotent: bool,
    },
    /// Reads records.
    Poll {
        /// What came, by key in the order of its coming.
        records: BTreeMap<Key, Vec<Polled>>,
        /// The log start, where the answer told it.
        log_start: BTreeMap<Key, i64>,
        /// The high watermark, where the answer told it.
        high_watermark: BTreeMap<Key, i64>,
        /// Keys that came or went meanwhile.
        rebalanced: Vec<Key>,
        /// Keys whose end was come to: everything before it had been given by then.
        ends: BTreeSet<Key>,
    },
    /// Reads these keys from these offsets on, and no others.
    Assign {
        /// Each key with the offset that it is read from.
        from: BTreeMap<Key, i64>,
        /// Whether this is the full read at the end, after everything else has come to rest. It counts for the keys whose end it comes to.
        last_read: bool,
    },
    /// Reads what a group gives it.
    Subscribe {
        /// The group.
        group: String,
    },
    /// A group gave it keys, or took them.
    Rebalance {
        /// The group.
        group: String,
        /// The generation, where the client knows it.
        generation: Option<i64>,
        /// Keys that it owns from now on.
        assigned: Vec<Key>,
        /// Keys that it gave up, in order.
        revoked: Vec<Key>,
        /// Keys that were taken from it without its doing.
        lost: Vec<Key>,
    },
    /// Commits offsets.
    Commit {
        /// The group.
        group: String,
        /// The generation, where the client knows it.
        generation: Option<i64>,
        /// Next offset by key.
        offsets: BTreeMap<Key, i64>,
    },
    /// Asks for committed offsets; -1 where there is none.
    FetchOffset {
        /// The group.
        group: String,
        /// What the answer says.
        offsets: BTreeMap<Key, i64>,
    },
    /// Asks for the ends of logs.
    ListOffsets {
        /// First and next offset by key.
        ends: BTreeMap<Key, (i64, i64)>,
    },
    /// The client is gone, with all that it owned; another process number goes on.
    Crash,
    /// What whoever runs the test did, and what it says of the topics.
    Admin {
        /// In a word: `healed` when no fault is left, the name of a fault, or anything else.
        what: String,
        /// Keys whose records may be removed by compaction.
        compacted: Vec<Key>,
    },
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Place in the history, from 0, rising.
    pub index: u64,
    /// Nanoseconds of one monotonic clock.
    pub at_ns: u64,
    /// Who; a number is one client's life. All but sends of one process come one after the other.
    pub process: u32,
    /// When in the operation.
    pub kind: Kind,
    /// What.
    pub op: Op,
    /// Why it was not ok: a name that [`certainty`] knows.
    pub error: Option<String>,
}

/// Why a history is not judged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejected {
    /// A line that is no event.
    #[error("line {line}: {why}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// An event that cannot be where it is.
    #[error("event {index}: {why}")]
    Event {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        why: String,
    },
}
