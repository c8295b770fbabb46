//! What a seed decides before it starts: which faults happen and how often, how large things are, who the clients are.
//! Invariant: at least eight classes of faults are on in every run.

use std::time::Duration;

use madang_actors::prng::Prng;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultClass {
    /// The process dies, the page cache stays.
    Kill,
    /// The machine loses power.
    PowerCut,
    /// A replica dies at a message, or after its write and before its effects.
    ActorPanic,
    /// A sync fails, and its pages are gone.
    SyncError,
    /// A sync takes seconds, or never ends.
    SlowSync,
    /// A write stores a part and fails.
    ShortWrite,
    /// An operation fails with an I/O error and does nothing.
    WriteError,
    /// No file can grow.
    DiskFull,
    /// A file cannot be read.
    ReadError,
    /// A client's connection breaks with its requests' fate unknown.
    ConnectionLoss,
    /// The wall clock jumps.
    ClockJump,
    /// A topic's configuration changes, or old segments go.
    Reconfigure,
    /// A group shard dies.
    ShardDeath,
    /// An orderly stop, with or without a power cut after it.
    CleanRestart,
    /// A start that meets tombstones that are not of its topics.
    MissingMetadata,
    /// The controller dies.
    ControllerDeath,
    /// A connection's handler dies.
    HandlerPanic,
    /// The notes cannot be written, or something happens to them while no process runs.
    Notes,
}

/// All of them.
pub const CLASSES: [FaultClass; 18] = [
    FaultClass::Kill,
    FaultClass::PowerCut,
    FaultClass::ActorPanic,
    FaultClass::SyncError,
    FaultClass::SlowSync,
    FaultClass::ShortWrite,
    FaultClass::WriteError,
    FaultClass::DiskFull,
    FaultClass::ReadError,
    FaultClass::ConnectionLoss,
    FaultClass::ClockJump,
    FaultClass::Reconfigure,
    FaultClass::ShardDeath,
    FaultClass::CleanRestart,
    FaultClass::MissingMetadata,
    FaultClass::ControllerDeath,
    FaultClass::HandlerPanic,
    FaultClass::Notes,
];

/// A run's parameters.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// Whether partitions are of page-cache durability.
    pub page_cache: bool,
    /// The classes that are on, each with its weight.
    pub classes: Vec<(FaultClass, u64)>,
    /// Mean time between two faults.
    pub fault_interval: Duration,
    /// Faults after which the run heals.
    pub faults: u64,
    /// `segment.bytes`, scaled down.
    pub segment_bytes: u64,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u64,
    /// Messages that a replica's mailbox holds.
    pub mailbox_items: usize,
    /// A sync takes up to so many microseconds.
    pub sync_us: u64,
    /// A message between client and node takes up to so many microseconds.
    pub network_us: u64,
    /// Idempotent producers.
    pub idempotent: u64,
    /// Plain producers.
    pub plain: u64,
    /// Consumers without a group.
    pub consumers: u64,
    /// Group members.
    pub members: u64,
    /// Partitions of the offsets topic.
    pub offsets_partitions: u64,
    /// The largest value of a record in bytes.
    pub value_bytes: u64,
}

impl Swarm {
    /// Draws a run.
    #[must_use]
    pub fn draw(rng: &mut Prng) -> Self {
        let mut classes: Vec<(FaultClass, u64)> = CLASSES.iter().map(|class| (*class, 1 + rng.below(4))).collect();
        let off = rng.below(CLASSES.len() as u64 - 7);
        for _ in 0..off {
            let at = rng.below(classes.len() as u64) as usize;
            classes.remove(at);
        }
        Self {
            page_cache: rng.chance(1, 5),
            classes,
            fault_interval: Duration::from_millis(20 + rng.below(130)),
            faults: 55 + rng.below(30),
            segment_bytes: 2600 + rng.below(7000),
            index_interval_bytes: 64 + rng.below(700),
            mailbox_items: 2 + rng.below(12) as usize,
            sync_us: [300, 3000, 30_000].get(rng.below(3) as usize).copied().unwrap_or(3000),
            network_us: 100 + rng.below(5000),
            idempotent: 1 + rng.below(3),
            plain: 1 + rng.below(3),
            consumers: 1 + rng.below(3),
            members: 1 + rng.below(3),
            offsets_partitions: 1 + rng.below(2),
            value_bytes: 20 + rng.below(400),
        }
    }
}
