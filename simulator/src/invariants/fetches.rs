//! What a fetch may tell a client, and above all leave out: R6, R13 and the rule of incremental sessions (KIP-227), which name
//! only what has changed, and never less.

use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::fetch::PartitionData;
use madang_protocol::types::TopicPartition;

use crate::sim::Sim;

/// What a session has told of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its high watermark; -1 if nothing was told.
    pub high_watermark: i64,
    /// Its start.
    pub log_start: i64,
}

impl Default for Told {
    fn default() -> Self {
        Self { high_watermark: -1, log_start: -1 }
    }
}

/// What a client may rely on before it asks.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    losses: u64,
    /// The highest high watermark that any client had heard of.
    pub high_watermark: i64,
    /// The highest start that any client had heard of.
    pub log_start: i64,
    /// What the partition had published.
    published: Told,
}

impl Before {
    /// Whether nothing could be read at `position` when the client asked.
    #[must_use]
    pub const fn has_nothing_at(&self, position: i64) -> bool {
        self.published.high_watermark <= position
    }
}

/// As of now.
pub fn before(sim: &Sim, partition: TopicPartition) -> Before {
    let mut history = sim.history.borrow_mut();
    let known = history.of(partition);
    Before {
        losses: known.losses,
        high_watermark: known.heard_high_watermark,
        log_start: known.heard_log_start,
        published: Told { high_watermark: known.high_watermark, log_start: known.log_start },
    }
}

/// Whether records were lost meanwhile, as the durability allows, or the topic may be gone.
pub fn lost_since(sim: &Sim, partition: TopicPartition, before: &Before) -> bool {
    let mut history = sim.history.borrow_mut();
    let known = history.of(partition);
    known.losses != before.losses || known.doomed
}

/// R13 of an answer: its own numbers are in order.
pub fn ordered(sim: &Sim, partition: TopicPartition, data: &PartitionData) {
    let (start, stable, high) = (data.log_start_offset, data.last_stable_offset, data.high_watermark);
    sim.require(start <= stable && stable <= high, "R13", || {
        format!("{partition:?}: a client is told start {start}, stable {stable}, high watermark {high}")
    });
}

/// R6 of the log's start.
pub fn log_start(sim: &Sim, partition: TopicPartition, start: i64, before: &Before) {
    if start < 0 {
        return;
    }
    sim.require(start >= before.log_start, "R6", || {
        format!("{partition:?}: a client is told that it starts at {start}, {} was heard", before.log_start)
    });
    let mut history = sim.history.borrow_mut();
    let known = history.of(partition);
    known.heard_log_start = known.heard_log_start.max(start);
}

/// A partition is not in the answer: nothing that was published when the client asked is news to it. `full` is an answer that leaves
/// nothing out, `records` one that had room for records of others first.
pub fn left_out(
    sim: &Sim,
    partition: TopicPartition,
    before: &Before,
    told: Told,
    position: i64,
    (full, records): (bool, bool),
) {
    sim.require(!full, "F1", || format!("{partition:?}: a full fetch leaves it out"));
    if lost_since(sim, partition, before) {
        return;
    }
    let published = before.published;
    sim.require(told.high_watermark >= published.high_watermark && told.log_start >= published.log_start, "F1", || {
        format!("{partition:?}: a session was told {told:?} and is not told of {published:?}")
    });
    sim.require(records || position >= published.high_watermark, "F1", || {
        format!("{partition:?}: a session at {position} is not given records up to {}", published.high_watermark)
    });
}

/// A fetch of one partition is refused.
pub fn refused(sim: &Sim, partition: TopicPartition, code: ErrorCode) {
    let doomed = sim.history.borrow_mut().of(partition).doomed;
    let passing = matches!(code, ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError);
    // Of several nodes one may not have heard of a topic yet.
    let doomed = doomed || sim.swarm.nodes > 1;
    let gone = matches!(code, ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId);
    sim.require(passing || doomed && gone, "U1", || format!("{partition:?}: a sound fetch is answered {code:?}"));
}
