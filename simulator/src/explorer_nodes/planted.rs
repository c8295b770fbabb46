//! The planted bugs of replication: each must be found by a named invariant from its situation.
//! Invariant: a bug is looked for in the same states that are explored without it, and nothing is found in those.

use madang_cluster::replica::Durability::{self, Fsync, PageCache};
use madang_storage::mutants;

use super::situations::SITUATIONS;
use super::{Event, Setup, run};
use crate::sim::Violation;

/// A planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    /// Its number.
    pub number: u32,
    /// What it does.
    pub what: &'static str,
    /// Where to begin, by its place in [`SITUATIONS`].
    pub situation: usize,
    /// In which mode.
    pub durability: Durability,
    /// Faults on a path.
    pub faults: usize,
    /// Events on a path.
    pub depth: usize,
}

const fn bug(
    number: u32,
    what: &'static str,
    situation: usize,
    durability: Durability,
    faults: usize,
    depth: usize,
) -> Planted {
    Planted { number, what, situation, durability, faults, depth }
}

/// All of them.
pub const BUGS: [Planted; 17] = [
    bug(1, "a diverging log cut to the high watermark", 9, Fsync, 1, 3),
    bug(2, "a follower joins below the epoch's start", 5, PageCache, 1, 7),
    bug(3, "what a follower had in an older epoch or life counts", 2, PageCache, 1, 5),
    bug(4, "high watermark over the committed in-sync set", 5, PageCache, 0, 6),
    bug(5, "high watermark moves under min.insync.replicas", 7, PageCache, 0, 3),
    bug(6, "in-sync sets without broker epochs", 2, PageCache, 1, 6),
    bug(7, "a lossy start believed to be a clean one", 5, PageCache, 1, 3),
    bug(12, "a new leader tells its end before it has reached the epoch's start", 1, Fsync, 1, 4),
    bug(31, "high watermark over a shrunken in-sync set that is not committed", 0, PageCache, 1, 6),
    bug(32, "leader epoch not raised when its node registers", 6, Fsync, 1, 4),
    bug(33, "a follower joins by its log's end", 4, Fsync, 0, 6),
    bug(34, "a restarted leader forgets the proposal in flight", 5, PageCache, 1, 6),
    bug(35, "a replica that found less goes on", 2, PageCache, 1, 3),
    bug(39, "unsynced copies counted in fsync mode", 4, Fsync, 0, 6),
    bug(45, "a log cut under a recovery point that stays", 9, Fsync, 1, 4),
    bug(46, "a replica that lost records notes its shorter end", 5, PageCache, 2, 3),
    bug(47, "a loss that is found at a process's start is kept to itself", 5, PageCache, 2, 3),
];

/// What was broken, by which path, after how many paths; none if the bug was not found.
#[must_use]
pub fn hunt(bug: &Planted) -> (u64, Option<(Violation, Vec<Event>)>) {
    let Some(situation) = SITUATIONS.get(bug.situation) else { return (0, None) };
    mutants::activate(Some(bug.number));
    let setup = Setup { durability: bug.durability, faults: bug.faults };
    let explored = run(setup, situation, bug.depth);
    mutants::activate(None);
    (explored.paths, explored.failed.filter(|(violation, _)| violation.code != "EVENT"))
}
