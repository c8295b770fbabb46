//! S1 to S6: what is found after a restart, against what was there before it and against the device.

use std::collections::BTreeMap;
use std::path::Path;

use madang_protocol::types::TopicPartition;
use madang_storage::{Disk, LogView};

use crate::cover;
use crate::history::PartitionHistory;
use crate::invariants::{batches, compaction, read_batches, read_view, read_view_with, replication};
use crate::sim::Sim;

/// How a log was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything written is in the page cache.
    Kill,
    /// What was not synced may be gone.
    Lossy,
    /// Everything was flushed.
    Clean,
}

fn base_of(name: &str) -> Option<i64> {
    name.strip_suffix(".log")?.parse().ok()
}

/// The batches of a partition that would survive the worst power cut, by base offset, from the segment that holds `from` on.
#[must_use]
pub fn surviving(sim: &Sim, directory: &Path, from: i64) -> BTreeMap<i64, u64> {
    let names = sim.disk.list(directory).unwrap_or_default();
    let bases: Vec<(i64, &String)> = names.iter().filter_map(|name| Some((base_of(name)?, name))).collect();
    let first = bases.iter().rposition(|(base, _)| *base <= from).unwrap_or(0);
    let mut found = BTreeMap::new();
    let mut at = 0;
    for (base, name) in bases.iter().skip(first) {
        let Some(bytes) = sim.disk.surviving_bytes(&directory.join(name)) else { continue };
        at = at.max(*base);
        for read in batches(&bytes).iter().filter(|read| read.sound) {
            // The checksum covers no offset: one whose first bytes are not on the device yet has a lower one, and recovery cuts it off.
            if read.header.base_offset.0 >= at {
                at = read.header.next_offset().0;
                found.insert(read.header.base_offset.0, read.content);
            }
        }
    }
    found
}

/// The same of a compacted partition, with its records. A file that is about to take others' names counts as well: recovery ends that.
/// So does one that has taken another's where only the page cache knows of it.
#[must_use]
pub fn surviving_records(sim: &Sim, directory: &Path) -> BTreeMap<i64, compaction::Record> {
    let names = sim.disk.surviving_names(directory);
    let mut found = BTreeMap::new();
    for name in names.iter().filter(|name| name.ends_with(".log") || name.ends_with(".swap")) {
        let Some(bytes) = sim.disk.surviving_bytes(&directory.join(name)) else { continue };
        found.extend(read_batches(&bytes, true).into_iter().filter(|read| read.sound).flat_map(|read| read.records));
    }
    found
}

/// How a partition's log was left by a process that did not close it: what a power cut or a failed sync took is not known before it is
/// recovered.
#[must_use]
pub fn ending(sim: &Sim, partition: TopicPartition) -> Ending {
    if sim.history.borrow_mut().of(partition).suspect { Ending::Lossy } else { Ending::Kill }
}

/// S1: durable ⊑ recovered ⊑ written. Called before anything of the recovered log is published. Answers whether promised records are lost.
pub fn recovered(sim: &Sim, partition: TopicPartition, view: &LogView, ending: Ending, confirmed: i64) -> bool {
    let promised = sim.history.borrow_mut().of(partition).high_watermark;
    check_recovered(sim, partition, view, ending, confirmed);
    view.log_end_offset().0 < promised
}

fn check_recovered(sim: &Sim, partition: TopicPartition, view: &LogView, ending: Ending, confirmed: i64) {
    let (start, end) = (view.log_start_offset().0, view.log_end_offset().0);
    sim.note("recovered", &[start, end, confirmed, i64::from(partition.partition)]);
    let mut history = sim.history.borrow_mut();
    let page_cache = history.page_cache;
    let known = history.of(partition);
    known.suspect = false;
    // What was about to be cut may have been, and something else written there.
    known.stored.split_off(&known.kept);
    let floor = floor(known, ending, page_cache);
    if end < floor {
        let code = if ending == Ending::Clean { "S5" } else { "S1" };
        return sim.violate(code, format!("{partition:?}: ends at {end} after {ending:?}, {floor} was safe"));
    }
    if end < known.end {
        cover!("records lost that were never acknowledged");
        if end < known.high_watermark {
            cover!("page cache lost records");
        }
        known.cut(end);
    }
    sim.require(start >= known.log_start.min(end), "R6", || {
        format!("{partition:?}: starts at {start} after {ending:?}, it started at {}", known.log_start)
    });
    let compacted = known.compacted;
    let Ok(found) = sim.look(|| read_view_with(view, start, end, compacted)) else {
        return sim.violate("S4", format!("{partition:?}: what was recovered cannot be read"));
    };
    let known = known.clone();
    if compacted {
        drop(history);
        return recovered_compacted(sim, partition, view, &known, &found);
    }
    let mut at = None;
    for read in &found {
        let base = read.header.base_offset.0;
        sim.require(read.sound, "S2", || format!("{partition:?}: recovered a damaged batch at {base}"));
        sim.require(at.is_none_or(|at| at == base), "S4", || {
            format!("{partition:?}: a hole before {base}, after {at:?}")
        });
        at = Some(read.header.next_offset().0);
        let sent = history.sent(read.content).is_some();
        sim.require(sent, "S6", || format!("{partition:?}: nobody wrote what was recovered at {base}"));
        let before = known.stored.get(&base);
        sim.require(before.is_none_or(|before| before.content == read.content), "S1", || {
            format!("{partition:?}: another batch at {base} after {ending:?}")
        });
    }
    sim.require(at.is_none_or(|at| at == end), "S4", || {
        format!("{partition:?}: batches end at {at:?}, the log at {end}")
    });
    index_is_a_rebuild(sim, partition, view, &found);
}

/// The same of a partition from which superseded records may be gone, and with them whole batches.
fn recovered_compacted(
    sim: &Sim,
    partition: TopicPartition,
    view: &LogView,
    known: &PartitionHistory,
    found: &[super::Read],
) {
    let (start, end) = (view.log_start_offset().0, view.log_end_offset().0);
    for read in found {
        sim.require(read.sound, "S2", || format!("{partition:?}: recovered a damaged batch"));
    }
    // What is beyond the published end was written and never shown: nobody knows its records yet.
    let (older, newer): (Vec<_>, Vec<_>) =
        found.iter().cloned().partition(|read| read.header.base_offset.0 < known.end.min(end));
    compaction::faithful(sim, "S1", partition, known, &older, start..known.end.min(end));
    for read in &newer {
        let sent = sim.history.borrow().sent(read.content).is_some();
        sim.require(sent, "S6", || format!("{partition:?}: nobody wrote {:?}", read.header.base_offset));
    }
    index_is_a_rebuild(sim, partition, view, found);
}

/// What must be there again.
fn floor(known: &PartitionHistory, ending: Ending, page_cache: bool) -> i64 {
    match ending {
        Ending::Kill | Ending::Clean => known.kept,
        Ending::Lossy if page_cache => known.confirmed,
        Ending::Lossy => known.high_watermark.max(known.confirmed),
    }
}

/// S3: every offset is found where a walk finds it.
fn index_is_a_rebuild(sim: &Sim, partition: TopicPartition, view: &LogView, all: &[super::Read]) {
    for read in all {
        let last = read.header.last_offset().0;
        if last < view.log_start_offset().0 {
            continue;
        }
        let found = sim.look(|| read_view(view, last, last + 1));
        let right = match &found {
            Ok(found) => found.first().is_some_and(|first| first.content == read.content),
            Err(_) => true,
        };
        sim.require(right, "S3", || format!("{partition:?}: offset {last} is not found where it is"));
    }
}

/// S5: the marker says clean, so all that was published is on the device.
pub fn closed_clean(sim: &Sim, partition: TopicPartition, directory: &Path) {
    let known = sim.history.borrow_mut().of(partition).clone();
    if known.compacted {
        let found = surviving_records(sim, directory);
        for (offset, record) in known.records.range(known.log_start..) {
            let there = found.get(offset) == Some(record);
            sim.require(there || compaction::superseded(&known, *offset, *record), "S5", || {
                format!("{partition:?}: the marker says clean, and the record at {offset} is not on the device")
            });
        }
        return;
    }
    let found = surviving(sim, directory, known.log_start);
    for (base, stored) in known.stored.range(known.log_start..) {
        sim.require(found.get(base) == Some(&stored.content), "S5", || {
            format!("{}: the marker says clean, and the batch at {base} is not on the device", directory.display())
        });
    }
}

/// R10 for a start: what a restarted replica counts as confirmed is on the device.
pub fn confirmed_at_start(sim: &Sim, partition: TopicPartition, directory: &Path, view: &LogView, confirmed: i64) {
    let start = view.log_start_offset().0;
    if sim.history.borrow_mut().of(partition).compacted {
        let Ok(found) = sim.look(|| read_view_with(view, start, confirmed, true)) else { return };
        return confirmed_compacted(sim, partition, directory, &found, confirmed);
    }
    let Ok(found) = sim.look(|| read_view(view, start, confirmed)) else { return };
    let mut known = PartitionHistory::default();
    for read in found.iter().filter(|read| read.header.next_offset().0 <= confirmed) {
        let stored = crate::history::Stored { content: read.content, epoch: 0, next: read.header.next_offset().0 };
        known.stored.insert(read.header.base_offset.0, stored);
    }
    replication::durable(sim, partition, directory, &known, start, confirmed);
}

fn confirmed_compacted(sim: &Sim, partition: TopicPartition, directory: &Path, found: &[super::Read], confirmed: i64) {
    let on_device = surviving_records(sim, directory);
    for (offset, record) in found.iter().flat_map(|read| &read.records).filter(|(offset, _)| *offset < confirmed) {
        sim.require(on_device.get(offset) == Some(record), "R10", || {
            format!("{partition:?}: the record at {offset} counts as on the device and is not")
        });
    }
}
