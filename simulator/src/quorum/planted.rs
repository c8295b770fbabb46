//! The planted bugs of the quorum: each must be found by one of the invariants that are named for it.

use super::{Verdict, run};

/// Seeds that a bug has to be found within.
pub const BUDGET: u64 = 100;
/// Where the seeds begin.
const FIRST: u64 = 10_000;

/// A planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    /// Its number.
    pub number: u32,
    /// What it does.
    pub what: &'static str,
    /// The invariants that may find it.
    pub by: &'static [&'static str],
}

/// All of them.
pub const BUGS: [Planted; 5] = [
    Planted { number: 11, what: "votes and appends are told before they are synced", by: &["C1", "C3", "C4", "C5"] },
    Planted { number: 48, what: "a snapshot says that it has what is not applied yet", by: &["C3", "C4"] },
    Planted { number: 49, what: "a snapshot counts as applied before it is durable", by: &["U2"] },
    Planted { number: 50, what: "a proposal is answered before it is committed", by: &["C3"] },
    Planted { number: 61, what: "a sole voter speaks in a term that it may forget", by: &["C1", "C4", "C5"] },
];

/// How many seeds it took, and what was broken; none if the bug was not found by an invariant named for it.
#[must_use]
pub fn hunt(bug: &Planted) -> Option<(u64, Verdict)> {
    let seeds = FIRST..FIRST + BUDGET;
    let nodes = if bug.number == 61 { (1, 4) } else { (3, 3) };
    seeds.map(|seed| run(nodes, seed, Some(bug.number))).zip(1..).find_map(|(verdict, seeds)| {
        let found = verdict.violation.as_ref().is_some_and(|violation| bug.by.contains(&violation.code));
        found.then_some((seeds, verdict))
    })
}
