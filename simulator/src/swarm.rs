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
    /// All machines of a cluster lose power at once.
    PowerCutOfAll,
    /// All processes of a cluster die at once.
    KillOfAll,
    /// A process stands still for a while.
    Freeze,
    /// A link carries nothing, one way or both.
    LinkCut,
    /// What is on its way between two nodes is lost.
    LinkReset,
    /// What is on its way between two nodes stays there for a while.
    LinkClog,
    /// A node comes back with an empty log directory.
    WipedDirectory,
    /// A node comes back with its directory as it was once.
    OldDirectory,
}

/// The classes of a cluster, each with the weight that it may have at most.
pub const OF_CLUSTERS: [(FaultClass, u64); 18] = [
    (FaultClass::Kill, 6),
    (FaultClass::PowerCut, 4),
    (FaultClass::PowerCutOfAll, 2),
    (FaultClass::KillOfAll, 1),
    (FaultClass::Freeze, 4),
    (FaultClass::ActorPanic, 6),
    (FaultClass::ControllerDeath, 3),
    (FaultClass::ShardDeath, 3),
    (FaultClass::SyncError, 3),
    (FaultClass::SlowSync, 3),
    (FaultClass::LinkCut, 6),
    (FaultClass::LinkReset, 6),
    (FaultClass::LinkClog, 3),
    (FaultClass::ConnectionLoss, 1),
    (FaultClass::ClockJump, 2),
    (FaultClass::CleanRestart, 3),
    (FaultClass::WipedDirectory, 2),
    (FaultClass::OldDirectory, 2),
];

/// What a cluster's seed draws beside what a node's does.
#[derive(Clone, Copy, Debug)]
pub struct Links {
    /// The shortest way between two nodes, in microseconds.
    pub min_us: u64,
    /// What is added to it on the average.
    pub mean_us: u64,
    /// `replica.lag.time.max.ms`.
    pub lag_ms: u64,
    /// `broker.session.timeout.ms`.
    pub session_ms: u64,
    /// A node stays down for up to so many microseconds.
    pub outage_us: u64,
    /// The one node that loses stored data: more of them and nothing would be promised.
    pub victim: i32,
}

impl Default for Links {
    fn default() -> Self {
        Self { min_us: 50, mean_us: 500, lag_ms: 30_000, session_ms: 2_500, outage_us: 60_000, victim: 1 }
    }
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
    /// Nodes of the cluster.
    pub nodes: usize,
    /// What is between them.
    pub links: Links,
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
            nodes: 1,
            links: Links::default(),
        }
    }

    /// Draws a run of a cluster of so many nodes.
    #[must_use]
    pub fn of_cluster(nodes: usize, rng: &mut Prng) -> Self {
        let node = Self::draw(rng);
        let mut classes: Vec<(FaultClass, u64)> =
            OF_CLUSTERS.iter().map(|(class, most)| (*class, 1 + rng.below(*most))).collect();
        for _ in 0..rng.below(OF_CLUSTERS.len() as u64 - 9) {
            let at = rng.below(classes.len() as u64) as usize;
            classes.remove(at);
        }
        let one = |rng: &mut Prng, of: &[u64]| rng.pick(of).copied().unwrap_or_default();
        let links = Links {
            min_us: 20 + rng.below(200),
            mean_us: one(rng, &[100, 500, 3_000, 20_000]),
            lag_ms: 1_000 + rng.below(4_000),
            session_ms: 1_500 + rng.below(2_000),
            outage_us: one(rng, &[60_000, 600_000, 5_000_000]),
            victim: 1 + i32::try_from(rng.below(nodes as u64)).unwrap_or(0),
        };
        Self { classes, nodes, links, fault_interval: Duration::from_millis(60 + rng.below(300)), ..node }
    }

    /// How many nodes hold a partition.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.nodes.min(3)
    }
}
