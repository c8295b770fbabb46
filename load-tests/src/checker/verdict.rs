//! What the checker has to say of a history.

use std::collections::BTreeMap;
use std::fmt;

/// Examples that are kept of each anomaly.
const EXAMPLES: usize = 10;

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// A0: a record that is damaged.
    Corrupt,
    /// A0: a record of another key.
    Misrouted,
    /// A0: a record that nobody wrote.
    Phantom,
    /// A2: an offset with two values.
    InconsistentOffset,
    /// A3: a value of an idempotent producer at two offsets.
    Duplicate,
    /// A4: an acknowledged record that is not there, though readers came by.
    LostWrite,
    /// A5: a record that was read, and whose writer was told that it was not written.
    AbortedRead,
    /// A8: within one poll, a record left out or out of order.
    InternalPoll,
    /// A9: between two polls of one reader, records left out or out of order.
    ExternalPoll,
    /// A10: a producer's records in another order than it sent them.
    SendOrder,
    /// A11: a record before another one that was acknowledged before the first was sent.
    AppendOrder,
    /// A12: a record that was read once and is not there any more.
    Vanished,
    /// A13: a high watermark, or an end of a log, that went back.
    WatermarkRegress,
    /// A15: two members of a group that own a partition at once.
    GroupOwnership,
    /// A17: a committed offset that nobody committed, or that was overwritten, or a commit of a generation that was over.
    CommittedOffset,
    /// A19: an acknowledged record that stayed unread for too long after everything was healed.
    Unseen,
}

impl Anomaly {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Corrupt,
        Self::Misrouted,
        Self::Phantom,
        Self::InconsistentOffset,
        Self::Duplicate,
        Self::LostWrite,
        Self::AbortedRead,
        Self::InternalPoll,
        Self::ExternalPoll,
        Self::SendOrder,
        Self::AppendOrder,
        Self::Vanished,
        Self::WatermarkRegress,
        Self::GroupOwnership,
        Self::CommittedOffset,
        Self::Unseen,
    ];

    /// Its number in docs/history.md.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Corrupt | Self::Misrouted | Self::Phantom => "A0",
            Self::InconsistentOffset => "A2",
            Self::Duplicate => "A3",
            Self::LostWrite => "A4",
            Self::AbortedRead => "A5",
            Self::InternalPoll => "A8",
            Self::ExternalPoll => "A9",
            Self::SendOrder => "A10",
            Self::AppendOrder => "A11",
            Self::Vanished => "A12",
            Self::WatermarkRegress => "A13",
            Self::GroupOwnership => "A15",
            Self::CommittedOffset => "A17",
            Self::Unseen => "A19",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {self:?}", self.code())
    }
}

/// One place where an anomaly shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// The key, or the group and the key.
    pub of: String,
    /// What is there.
    pub what: String,
}

/// What a history shows.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// How often each anomaly shows, and the first few places.
    pub anomalies: BTreeMap<Anomaly, (u64, Vec<Example>)>,
    /// Operations that were begun.
    pub operations: u64,
    /// Records that were sent.
    pub sent: u64,
    /// Of those, acknowledged.
    pub acknowledged: u64,
    /// Of those, given up without knowing whether they are there.
    pub unknown: u64,
    /// Of those, refused.
    pub refused: u64,
    /// Records that polls gave, each as often as it was given.
    pub read: u64,
    /// Acknowledged records that are gone, among them those of producers that do not wait for all replicas.
    pub lost: u64,
    /// Records at more than one offset, among them those of producers that are not idempotent.
    pub duplicates: u64,
    /// The longest time from an acknowledgement until somebody had read the record, in nanoseconds.
    pub worst_lag_ns: u64,
    /// Keys that were read in full at the end.
    pub read_in_full: u64,
    /// Keys of which a full read at the end stopped before their end, and no other one came to it.
    pub read_short: u64,
    /// Keys in all.
    pub keys: u64,
}

impl Verdict {
    pub(super) fn report(&mut self, anomaly: Anomaly, of: &str, what: impl FnOnce() -> String) {
        let (count, examples) = self.anomalies.entry(anomaly).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(Example { of: of.to_owned(), what: what() });
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// Whether the anomaly shows.
    #[must_use]
    pub fn shows(&self, anomaly: Anomaly) -> bool {
        self.anomalies.contains_key(&anomaly)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} operations; {} records sent: {} acknowledged, {} unknown, {} refused; {} read; {} of {} keys read in full at the end",
            self.operations,
            self.sent,
            self.acknowledged,
            self.unknown,
            self.refused,
            self.read,
            self.read_in_full,
            self.keys
        )?;
        writeln!(
            f,
            "{} acknowledged records lost, {} duplicates; an acknowledged record was unread for {} ms at most",
            self.lost,
            self.duplicates,
            self.worst_lag_ns / 1_000_000
        )?;
        if self.read_short > 0 {
            writeln!(f, "the read of everything at the end stops short of the end of {} keys", self.read_short)?;
        }
        for (anomaly, (count, examples)) in &self.anomalies {
            writeln!(f, "{anomaly}: {count}")?;
            for example in examples {
                writeln!(f, "  {}: {}", example.of, example.what)?;
            }
        }
        write!(f, "{}", if self.is_clean() { "no anomaly" } else { "ANOMALIES" })
    }
}
