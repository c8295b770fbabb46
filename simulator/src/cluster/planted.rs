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
pub const BUGS: [Planted; 8] = [
    bug(5, "high watermark moves under min.insync.replicas", &["R9"]),
    bug(10, "acknowledged before the sync", &["R9", "R10"]),
    bug(14, "four batches remembered of a producer, not five", &["T6"]),
    bug(15, "a duplicate is answered with a new offset", &["R7", "R10"]),
    bug(21, "commit of an old generation accepted", &["G4"]),
    bug(32, "leader epoch not raised when its node registers", &["R7", "R14", "L1", "L3"]),
    bug(33, "a follower joins by its log's end", &["R3", "R10"]),
    bug(39, "unsynced copies counted in fsync mode", &["R3", "R10"]),
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
