//! The planted bugs that runs of clusters find: each by a named invariant within its budget of seeds.
//! Invariant: a panic or a run without its faults is no find.

use super::world;
use crate::sim::Violation;

/// A planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    /// Its number.
    pub number: u32,
    /// What it does.
    pub what: &'static str,
    /// The invariants that it breaks: a find by any other one does not count.
    pub by: &'static [&'static str],
}

const fn bug(number: u32, what: &'static str, by: &'static [&'static str]) -> Planted {
    Planted { number, what, by }
}

/// All of them. The other planted bugs of replication are for the explorer, which goes through orders that seeds seldom reach.
pub const BUGS: [Planted; 18] = [
    bug(5, "high watermark moves under min.insync.replicas", &["R9"]),
    bug(10, "acknowledged before the sync", &["R9", "R10"]),
    bug(14, "four batches remembered of a producer, not five", &["T6"]),
    bug(15, "a duplicate is answered with a new offset", &["R7", "R10"]),
    bug(21, "commit of an old generation accepted", &["G4"]),
    bug(32, "leader epoch not raised when its node registers", &["R7", "R14", "L1", "L3"]),
    bug(33, "a follower joins by its log's end", &["R3", "R10"]),
    bug(39, "unsynced copies counted in fsync mode", &["R3", "R10"]),
    bug(40, "a parked fetch is not woken by what is published", &["L3"]),
    bug(63, "a replica that lost records may still be elected", &["R2", "R3", "R5", "R10"]),
    bug(66, "a follower confirms what it has only written", &["R3", "R10"]),
    bug(67, "a leader counts what it has only written", &["R3", "R9", "R10"]),
    bug(68, "a follower's high watermark goes beyond its log", &["R13"]),
    bug(69, "a follower does not remember producers", &["R7", "T6"]),
    bug(71, "a node that registers anew stays in sync", &["R3", "R5", "R16"]),
    bug(72, "a follower joins below the high watermark", &["R3", "R10"]),
    bug(73, "a registration gets a broker epoch that there was", &["C10", "R14"]),
    bug(74, "a partition's state changes within its epoch", &["C9", "R4"]),
];

/// Seeds that a bug may take.
pub const BUDGET: u64 = 20;

/// The seeds it took and what was broken; none if none of its invariants found it.
#[must_use]
pub fn hunt(bug: &Planted) -> Option<(u64, Violation)> {
    (0..BUDGET).find_map(|seed| {
        let found = world::run(3, seed, Some(bug.number)).violation?;
        bug.by.contains(&found.code).then_some((seed + 1, found))
    })
}
