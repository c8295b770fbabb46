//! What a shard is told and what it asks for. The shell performs effects in order.

use bytes::Bytes;
use madang_protocol::types::Uuid;

use super::ErrorCode;
use super::request::Request;
use super::response::Response;
use crate::request::RequestId;

/// One append of this shard, numbered from 1 in the order of the `Append` effects of one incarnation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A record of `__consumer_offsets` as it is stored. A value of none is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key: a two-byte schema number and its fields.
    pub key: Bytes,
    /// The value: a two-byte version and its fields.
    pub value: Option<Bytes>,
}

/// What can happen to a shard.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A client asks. Each request gets exactly one `Effect::Reply`, in this incarnation or, after `Stop`, at once.
    Request {
        /// The number the reply carries; not in use by another open request.
        request: RequestId,
        /// What is asked.
        body: Request,
    },
    /// A slice of the partition's records in log order, while loading. Keys may be of any Kafka schema; unknown ones are skipped.
    Loaded {
        /// The records, control batches left out.
        records: Vec<Record>,
    },
    /// Everything up to the log end at the moment of leadership has been given and is committed: serve.
    LoadFinished,
    /// Every append up to `through` is below the high watermark. The shell gives this before it releases replies that wait for those tickets.
    Committed {
        /// The last committed append.
        through: Ticket,
    },
    /// An append failed, or its fate is unknown. The shard stops; the shell builds a new one that loads from the log.
    AppendFailed {
        /// The append.
        ticket: Ticket,
        /// Why.
        error: ErrorCode,
    },
    /// Whether the partition takes appends: an error says why not (not leader, too few in-sync replicas, disk full). Holds until the next one.
    Writable(Result<(), ErrorCode>),
    /// The partition is led elsewhere: answer everybody and stop.
    Resign,
    /// A topic was deleted: its offsets go.
    TopicDeleted {
        /// The topic's name.
        name: String,
        /// The topic's id; offsets committed for another topic of the same name stay.
        id: Uuid,
    },
    /// Drop a group's live state: its parked requests are answered with an error and it is rebuilt from its persisted state.
    KillGroup {
        /// The group id.
        group: String,
    },
    /// Refuse a group whose steps keep panicking. Its persisted state stays; `DeleteGroups` clears it.
    QuarantineGroup {
        /// The group id.
        group: String,
    },
    /// Time passed; `deadline()` has come.
    Tick,
}

/// What a shard asks of its shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Append these records to the shard's partition as one batch. Already replayed.
    Append {
        /// The number that `Committed` or `AppendFailed` names later.
        ticket: Ticket,
        /// At least one record.
        records: Vec<Record>,
    },
    /// Answer a request; if `after` is set, once the high watermark has passed that append.
    /// If that append fails, the shell answers `response.failed(error)` instead.
    Reply {
        /// The request.
        request: RequestId,
        /// Its answer.
        response: Response,
        /// The append it waits for.
        after: Option<Ticket>,
    },
    /// This shard serves no more. Build a new one that loads from the log, unless the partition is led elsewhere.
    Stop {
        /// For the log.
        why: &'static str,
    },
    /// A line for the log: something about one group that an operator should know.
    Report {
        /// The group id; empty if the record names none.
        group: String,
        /// What happened.
        what: &'static str,
    },
}
