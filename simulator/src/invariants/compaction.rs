//! What compaction may do to a partition: of each key the last record below the high watermark stays, at its offset; nothing moves,
//! and nothing is missing but what a later record of its key has superseded.

use std::collections::BTreeMap;
use std::ops::Range;

use madang_protocol::types::TopicPartition;

use crate::history::PartitionHistory;
use crate::invariants::Read;
use crate::sim::Sim;

/// A record, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of its key.
    pub key: u64,
    /// Of its key, value and headers.
    pub hash: u64,
}

/// Takes in batches as they were appended.
pub fn appended(known: &mut PartitionHistory, read: &Read) {
    for (offset, record) in &read.records {
        known.records.insert(*offset, *record);
        known.of_key.entry(record.key).or_default().insert(*offset);
    }
}

/// Whether a later record of the same key was acknowledged.
#[must_use]
pub fn superseded(known: &PartitionHistory, offset: i64, record: Record) -> bool {
    let later = known.of_key.get(&record.key).and_then(|all| all.range(offset + 1..).next().copied());
    // What was lost with the page cache may have superseded as well.
    later.is_some_and(|later| later < known.high_watermark || known.losses > 0)
}

/// Every record of `found` is what was written at its offset, and what is not among them in `range` was superseded.
pub fn faithful(
    sim: &Sim,
    code: &'static str,
    partition: TopicPartition,
    known: &PartitionHistory,
    found: &[Read],
    range: Range<i64>,
) {
    let mut seen = BTreeMap::new();
    for (offset, record) in found.iter().flat_map(|read| &read.records) {
        let written = known.records.get(offset);
        sim.require(written == Some(record), code, || {
            format!("{partition:?}: {record:?} is at {offset}, where {written:?} was written")
        });
        let twice = seen.insert(*offset, *record).is_some();
        sim.require(!twice, code, || format!("{partition:?}: two records at {offset}"));
    }
    if range.is_empty() {
        return;
    }
    for (offset, record) in known.records.range(range).filter(|(offset, _)| !seen.contains_key(offset)) {
        crate::cover!("superseded records are gone");
        sim.require(superseded(known, *offset, *record), code, || {
            format!("{partition:?}: the last record of a key, at {offset}, is not there")
        });
    }
}

/// T6: no record of an idempotent producer is there twice. Values are all different.
pub fn once(sim: &Sim, partition: TopicPartition, found: &[Read]) {
    let mut seen = BTreeMap::new();
    for (offset, record) in found.iter().flat_map(|read| &read.records) {
        let before = seen.insert(record.hash, *offset);
        sim.require(before.is_none(), "T6", || format!("{partition:?}: one record is at {before:?} and at {offset}"));
    }
}
