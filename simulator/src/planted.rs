//! The planted bugs: each must be found by a named invariant within its budget of seeds.
//! Invariant: a panic or a run without its faults is no find.

use madang_actors::mutants;
use madang_storage::Crash;

use crate::sim::Violation;
use crate::world;
use crate::{cuts, scenario};

/// A planted bug.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    /// Its number.
    pub number: u32,
    /// What it does.
    pub what: &'static str,
    /// The invariants that it breaks: a find by any other one does not count.
    pub by: &'static [&'static str],
    /// Where it is found.
    pub place: Place,
}

/// Where a planted bug is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In runs of a whole node.
    Node,
    /// In the scenario of one log.
    Log,
    /// In a follower's log that is cut.
    Cuts,
}

const fn node(number: u32, what: &'static str, by: &'static [&'static str]) -> Planted {
    Planted { number, what, by, place: Place::Node }
}

const fn log(number: u32, what: &'static str, by: &'static [&'static str]) -> Planted {
    Planted { number, what, by, place: Place::Log }
}

/// All that concern one node.
pub const BUGS: [Planted; 20] = [
    node(8, "clean marker written before the flush", &["S5"]),
    node(9, "a failed sync is tried again", &["R10", "S1"]),
    node(10, "acknowledged before the sync", &["R9", "R10"]),
    node(14, "four batches remembered of a producer, not five", &["T6"]),
    node(15, "a duplicate is answered with a new offset", &["R7"]),
    node(21, "commit of an old generation accepted", &["G4"]),
    node(23, "data of unknown topics deleted", &["S1"]),
    node(25, "a restarted replica keeps its old end", &["S1", "S4", "R10", "R11"]),
    log(26, "index not truncated with the log", &["S3"]),
    node(27, "segment rolled without a sync of its name", &["R10", "S1"]),
    node(28, "reply slot lost in a panic", &["U1"]),
    node(29, "mailbox without bounds", &["U3"]),
    node(36, "durable claimed without a sync point", &["S7"]),
    node(37, "recovered end confirmed without reading it back", &["R10", "S1"]),
    log(38, "sync from before a truncation accepted", &["R10", "S1"]),
    node(41, "notes believed after a power cut", &["S7"]),
    node(42, "a note says confirmed of what is only written", &["R10", "S1"]),
    node(43, "notes stay believed after a failed sync", &["S7"]),
    node(44, "durable claimed over a failed sync", &["S7"]),
    Planted { number: 51, what: "appended above a cut that is not on the device", by: &["S1"], place: Place::Cuts },
];

/// Seeds that a bug may take.
pub const BUDGET: u64 = 200;

/// The seeds it took and what was broken; none if none of its invariants found it.
#[must_use]
pub fn hunt(bug: &Planted) -> Option<(u64, Violation)> {
    for seed in 0..BUDGET {
        mutants::activate(Some(bug.number));
        let violation = match bug.place {
            Place::Log => scenario::run(seed, 300, None, Crash::Power).err(),
            Place::Cuts => cuts::run(seed).err(),
            Place::Node => world::run(seed, Some(bug.number)).violation,
        };
        mutants::activate(None);
        if let Some(violation) = violation.filter(|violation| bug.by.contains(&violation.code)) {
            return Some((seed + 1, violation));
        }
    }
    None
}
