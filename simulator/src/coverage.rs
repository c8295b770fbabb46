//! Marks that say that a seed reached a place worth reaching. A batch of seeds must reach all of the mandatory ones.
//! Invariant: a mark is a name and nothing else; reaching it changes no run.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static REACHED: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// What a batch of seeds has to reach.
pub const MANDATORY: &[&str] = &[
    "acked by the high watermark",
    "duplicate answered with its original",
    "append timed out after it was written",
    "replica restarted in its process",
    "panic before the write",
    "panic after the write",
    "torn tail cut",
    "records lost that were never acknowledged",
    "sync failed",
    "directory left for a restart",
    "disk full",
    "clean shutdown",
    "start with missing metadata",
    "segment rolled",
    "segments deleted by retention",
    "records deleted on request",
    "configuration changed",
    "mailbox full",
    "long poll woken",
    "fetch out of range",
    "connection lost",
    "unknown outcome resolved by a retry",
    "group rebalanced",
    "commit of an old generation refused",
    "shard reloaded",
    "committed offset read back",
    "page cache lost records",
    "controller opened anew",
    "sync of the metadata log failed",
    "panic in a handler",
    "topic deleted",
    "topic deletion acknowledged",
    "deleted topic's data removed at a start",
    "partitions added",
    "incremental fetch",
    "no room for a fetch session",
    "compaction ran",
    "compaction stopped",
    "death in a compaction",
    "superseded records are gone",
    "same-boot start that trusts its notes",
    "durable start",
    "lossy start of a page-cache directory",
    "lossy start after a failed sync",
    "noted end trusted where the device was promised",
    "notes as they were a while ago",
    "notes refused: damaged",
    "notes refused: of another boot or directory",
    "notes refused: incomplete",
    "no notes found",
    "notes could not be written",
];

/// Notes that the mark was reached.
pub fn reach(mark: &'static str) {
    REACHED.with_borrow_mut(|reached| *reached.entry(mark).or_default() += 1);
}

/// The marks reached on this thread so far, with how often.
#[must_use]
pub fn reached() -> BTreeMap<&'static str, u64> {
    REACHED.with_borrow(Clone::clone)
}

/// Mandatory marks that were not reached on this thread.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let reached = reached();
    MANDATORY.iter().copied().filter(|mark| !reached.contains_key(mark)).collect()
}

/// Marks that this place was reached.
#[macro_export]
macro_rules! cover {
    ($mark:literal) => {
        $crate::coverage::reach($mark)
    };
}
