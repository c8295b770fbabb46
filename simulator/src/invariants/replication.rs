//! R6 to R13: what a replica publishes and answers, against the history and against what the device really has.

use std::path::Path;

use madang_cluster::replica::{Appended, ReplicaSnapshot, RequiredAcks};
use madang_protocol::types::TopicPartition;

use crate::cover;
use crate::history::{Acked, PartitionHistory, Stored};
use crate::invariants::storage::{surviving, surviving_records};
use crate::invariants::{Read, compaction, read_view_with};
use crate::sim::Sim;

/// A replica publishes a snapshot of the log in `directory`.
pub fn published(sim: &Sim, partition: TopicPartition, directory: &Path, snapshot: &ReplicaSnapshot) {
    let view = &snapshot.view;
    let (start, end) = (view.log_start_offset().0, view.log_end_offset().0);
    let (stable, high) = (snapshot.last_stable_offset.0, snapshot.high_watermark.0);
    let what = || format!("{partition:?}: start {start}, stable {stable}, high watermark {high}, end {end}");
    sim.note("publish", &[start, high, end, snapshot.confirmed_end.0, i64::from(partition.partition)]);
    sim.require(start <= stable && stable <= high && high <= end, "R13", what);
    let mut history = sim.history.borrow_mut();
    let page_cache = history.page_cache;
    let known = history.of(partition).clone();
    sim.require(high >= known.high_watermark, "R6", || format!("{}, was {}", what(), known.high_watermark));
    sim.require(start >= known.log_start, "R6", || format!("{}, start was {}", what(), known.log_start));
    if start > known.log_start {
        let allowed = if known.retains { high } else { known.asked_start };
        sim.require(start <= allowed, "R12", || format!("{}, only {allowed} may go", what()));
    }
    sim.require(end >= known.end, "R8", || format!("{}, end was {}", what(), known.end));
    if !page_cache {
        sim.require(high <= snapshot.confirmed_end.0, "R9", || format!("{}, not confirmed", what()));
    }
    let fresh = sim.look(|| read_view_with(view, known.end.max(start), end, known.compacted)).unwrap_or_default();
    let sent = |content: u64| history.sent(content).is_some();
    for read in &fresh {
        sim.require(sent(read.content), "S6", || {
            format!("{}: nobody wrote the batch at {}", what(), read.header.base_offset)
        });
    }
    let slot = history.of(partition);
    take_in(sim, partition, slot, &fresh, end);
    let confirmed = (slot.confirmed.max(start), snapshot.confirmed_end.0);
    slot.high_watermark = high;
    slot.log_start = start;
    (slot.end, slot.kept) = (end, end);
    slot.confirmed = slot.confirmed.max(snapshot.confirmed_end.0);
    let slot = slot.clone();
    drop(history);
    if confirmed.1 > confirmed.0 {
        durable(sim, partition, directory, &slot, confirmed.0, confirmed.1);
    }
}

/// R7, R8, S2 over batches that were not known before.
fn take_in(sim: &Sim, partition: TopicPartition, known: &mut PartitionHistory, fresh: &[Read], end: i64) {
    let mut at = known.stored.last_key_value().map_or(known.end, |(_, last)| last.next);
    let mut epoch = known.stored.last_key_value().map_or(-1, |(_, last)| last.epoch);
    for read in fresh {
        let header = &read.header;
        let base = header.base_offset.0;
        sim.require(read.sound, "S2", || format!("{partition:?}: the batch at {base} fails its checksum"));
        sim.require(base == at || known.stored.is_empty(), "R8", || format!("{partition:?}: {base} follows {at}"));
        let new_epoch = header.partition_leader_epoch.0;
        sim.require(new_epoch >= epoch, "R7", || format!("{partition:?}: epoch {new_epoch} at {base} after {epoch}"));
        let first = *known.ever.entry((new_epoch, base)).or_insert(read.content);
        sim.require(first == read.content, "R7", || {
            format!("{partition:?}: two batches at offset {base} of epoch {new_epoch}")
        });
        at = header.next_offset().0;
        epoch = new_epoch;
        known.stored.insert(base, Stored { content: read.content, epoch, next: at });
        if known.compacted {
            compaction::appended(known, read);
        }
    }
    sim.require(at == end || fresh.is_empty(), "R8", || {
        format!("{partition:?}: batches end at {at}, the log at {end}")
    });
}

/// R10: what is said to be on the device is there, from `from` to `to`, under a name that is there too.
pub fn durable(sim: &Sim, partition: TopicPartition, directory: &Path, known: &PartitionHistory, from: i64, to: i64) {
    if known.compacted {
        return durable_records(sim, partition, directory, known, from..to);
    }
    let found = surviving(sim, directory, from);
    for (base, stored) in known.stored.range(..to).filter(|(_, stored)| stored.next > from) {
        let there = found.get(base) == Some(&stored.content);
        sim.require(there, "R10", || {
            format!("{}: the batch at {base} is said to be on the device and is not", directory.display())
        });
        if !there {
            return;
        }
    }
}

/// The same of a compacted partition, where a record may be gone because a later one of its key is there.
fn durable_records(
    sim: &Sim,
    partition: TopicPartition,
    directory: &Path,
    known: &PartitionHistory,
    range: std::ops::Range<i64>,
) {
    let on_device = surviving_records(sim, directory);
    for (offset, record) in known.records.range(range) {
        let there = on_device.get(offset) == Some(record);
        sim.require(there || compaction::superseded(known, *offset, *record), "R10", || {
            format!("{partition:?}: the record at {offset} is said to be on the device and is not")
        });
    }
}

/// A replica acknowledges a batch.
pub fn acknowledged(
    sim: &Sim,
    partition: TopicPartition,
    directory: &Path,
    content: u64,
    acks: RequiredAcks,
    appended: &Appended,
    published: Option<&ReplicaSnapshot>,
) {
    let (base, next) = (appended.base_offset.0, appended.last_offset.0 + 1);
    let mut history = sim.history.borrow_mut();
    let page_cache = history.page_cache;
    let records = history.sent(content).map_or(0, |sent| i64::from(sent.records));
    let known = history.of(partition);
    let stored = known.stored.get(&base).copied();
    if base >= known.log_start {
        sim.require(stored.is_some_and(|stored| stored.content == content) && next - base == records, "R7", || {
            format!("{partition:?}: acknowledged at {base}..{next}, where the log has {stored:?}, not {content:#x}")
        });
    }
    let all = acks == RequiredAcks::All;
    let before = known.acked.insert(base, Acked { content, all });
    if before.is_some_and(|before| before.content == content) {
        cover!("duplicate answered with its original");
    }
    let known = known.clone();
    drop(history);
    if !all {
        return;
    }
    if !page_cache && stored.is_some() && base >= known.log_start {
        durable(sim, partition, directory, &known, base, next);
    }
    let high = published.map_or(-1, |snapshot| snapshot.high_watermark.0);
    sim.require(high >= next, "R9", || format!("{partition:?}: acknowledged below {next}, high watermark {high}"));
    cover!("acked by the high watermark");
}

/// R7, R8: a client is told that its batch is at `offset`: it was there, and with acks=all it is there still.
pub fn heard(sim: &Sim, partition: TopicPartition, content: u64, offset: i64, acks: RequiredAcks) {
    let mut history = sim.history.borrow_mut();
    let known = history.of(partition);
    // A name may stand for another topic by now.
    if offset < known.log_start || offset >= known.end || known.losses > 0 || known.doomed {
        return;
    }
    let stored = known.stored.get(&offset).copied();
    // What the leader alone acknowledged may have gone with its power since the answer left.
    let was = acks == RequiredAcks::Leader && known.ever.iter().any(|(at, ever)| at.1 == offset && *ever == content);
    sim.require(was || stored.is_some_and(|stored| stored.content == content), "R7", || {
        format!("{partition:?}: a client is told {offset}, where the log has {stored:?}, not {content:#x}")
    });
}

/// R11: what a client read at an offset is what the log has there.
pub fn consumed(sim: &Sim, partition: TopicPartition, reads: &[Read], from: i64, high: i64, floor: i64) {
    let mut history = sim.history.borrow_mut();
    let known = history.of(partition);
    let mut at = None;
    if known.compacted {
        let next = reads.last().map_or(from, |last| last.header.next_offset().0);
        let start = from.max(known.log_start);
        compaction::faithful(sim, "R11", partition, known, reads, start..next);
    }
    let compacted = known.compacted;
    for read in reads {
        let (base, next) = (read.header.base_offset.0, read.header.next_offset().0);
        sim.require(read.sound, "S2", || format!("{partition:?}: served a damaged batch at {base}"));
        sim.require(at.is_none_or(|at| at == base || compacted && at < base), "R11", || {
            format!("{partition:?}: {base} was served after {at:?}")
        });
        let stored = known.stored.get(&base).copied();
        let committed = sim.swarm.nodes == 1 || stored.is_some();
        sim.require(
            committed && (compacted || stored.is_none_or(|stored| stored.content == read.content)),
            "R11",
            || format!("{partition:?}: served another batch at {base} than the log has"),
        );
        sim.require(next <= high, "R11", || format!("{partition:?}: served up to {next}, high watermark {high}"));
        at = Some(next);
    }
    if let Some(first) = reads.first() {
        let (base, next) = (first.header.base_offset.0, first.header.next_offset().0);
        sim.require((base <= from || compacted) && from < next, "R11", || {
            format!("{partition:?}: asked {from}, served {base}..{next}")
        });
    }
    sim.require(high >= floor, "R6", || format!("{partition:?}: high watermark {high} after {floor} was heard"));
    known.heard_high_watermark = known.heard_high_watermark.max(high);
}

/// R12: every acknowledged record that nobody deleted is at its offset, once.
pub fn nothing_lost(sim: &Sim, partition: TopicPartition, all: &[Read], range: std::ops::Range<i64>) {
    let mut history = sim.history.borrow_mut();
    if history.of(partition).compacted {
        let known = history.of(partition).clone();
        compaction::faithful(sim, "R12", partition, &known, all, range);
        if !known.internal {
            compaction::once(sim, partition, all);
        }
        return;
    }
    let known = history.of(partition).clone();
    let found: std::collections::BTreeMap<i64, u64> =
        all.iter().map(|read| (read.header.base_offset.0, read.content)).collect();
    for (base, acked) in known.acked.range(range) {
        sim.require(found.get(base) == Some(&acked.content), "R12", || {
            format!("{partition:?}: the batch acknowledged at {base} is not there")
        });
    }
    let mut seen = std::collections::BTreeMap::new();
    for (base, content) in &found {
        let once = history.sent(*content).is_some_and(|sent| sent.idempotent);
        let before = seen.insert(*content, *base);
        sim.require(!once || before.is_none(), "T6", || {
            format!("{partition:?}: an idempotent producer's batch is at {before:?} and at {base}")
        });
    }
}
