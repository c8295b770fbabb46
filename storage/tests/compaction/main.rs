//! Compaction against naive models: what stays, when it goes, what readers and recovery see, and what a crash at any operation leaves.
#![allow(missing_docs, unreachable_pub)]

mod crash;
mod model;
mod readers;
mod rules;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use madang_actors::clock::Wall;
use madang_protocol::compression::{Codec, Compression};
use madang_protocol::record::RecordSet;
use madang_protocol::record_batch::{BatchBuilder, BatchHeader, BatchOptions, Batches};
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{
    AppendOutcome, BatchToAppend, CompactionJob, CompactionSettings, Disk, FaultDisk, Installed, Log, LogConfig,
    LogView, OpenLog, Pace, Start,
};

pub const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
pub const DIRECTORY: &str = "/data/topic-0";

/// A record as a test writes and reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rec {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp: i64,
}

pub fn rec(key: &str, value: Option<&str>, timestamp: i64) -> Rec {
    Rec { key: Some(key.into()), value: value.map(Into::into), timestamp }
}

/// Of an idempotent producer: its id and the first sequence.
pub type Producer = Option<(i64, i32)>;

pub fn batch(records: &[Rec], codec: Codec, producer: Producer) -> Bytes {
    let mut options = BatchOptions { compression: Compression::of(codec), ..BatchOptions::default() };
    if let Some((id, sequence)) = producer {
        (options.producer_id, options.producer_epoch, options.base_sequence) = (id, 0, sequence);
    }
    let mut builder = BatchBuilder::new(options);
    let header: (&[u8], Option<&[u8]>) = (b"h", Some(b"1"));
    for record in records {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.append(record.timestamp, key, value, &[header]).expect("fits");
    }
    builder.build().expect("builds")
}

pub fn append_outcome(log: &mut Log, bytes: Bytes) -> AppendOutcome {
    let batch = BatchToAppend::new(bytes).expect("a batch");
    log.append_as_leader(&[batch], LeaderEpoch(1), Wall(0)).expect("appends")[0]
}

pub fn append(log: &mut Log, records: &[Rec]) -> Offset {
    match append_outcome(log, batch(records, Codec::None, None)) {
        AppendOutcome::Appended(appended) => appended.base_offset,
        other => panic!("not appended: {other:?}"),
    }
}

pub fn open(disk: &Arc<dyn Disk>, directory: &Path, config: LogConfig, start: Start) -> Log {
    Log::open(Arc::clone(disk), directory, config, &OpenLog { start, ..OpenLog::default() }).expect("opens").0
}

pub fn memory_log(config: LogConfig) -> (Arc<dyn Disk>, Log) {
    let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new());
    let log = open(&disk, Path::new(DIRECTORY), config, Start::Unclean);
    (disk, log)
}

/// Compacts whenever anything is dirty.
pub fn eager() -> CompactionSettings {
    CompactionSettings { min_cleanable_dirty_ratio: 0.0, ..CompactionSettings::default() }
}

pub fn plan(log: &Log, wall: i64, settings: &CompactionSettings) -> Option<CompactionJob> {
    log.compaction_plan(log.log_end_offset(), Wall(wall), settings)
}

/// Plans, runs and installs; false if there was nothing to do.
pub fn compact(log: &mut Log, wall: i64, settings: &CompactionSettings) -> bool {
    let Some(job) = plan(log, wall, settings) else { return false };
    let result = job.run(|_| Pace::Continue).expect("runs");
    matches!(log.install(result).expect("installs"), Installed::Swapped(_))
}

/// Rolls, so that all there is can be compacted, and compacts.
pub fn compact_all(log: &mut Log, wall: i64, settings: &CompactionSettings) {
    log.roll(Wall(wall)).expect("rolls");
    assert!(compact(log, wall, settings), "nothing to compact");
}

/// All batches of a view, read in pieces of `piece` bytes, each with its CRC checked.
pub fn read_batches(view: &LogView, piece: usize) -> Vec<Bytes> {
    let (mut at, end) = (view.log_start_offset(), view.log_end_offset());
    let mut batches = Vec::new();
    while at < end {
        let read = view.read(at, end, piece, true).expect("reads");
        assert!(read.next_offset > at, "no progress at {at} of {end}");
        let bytes = read.records.read().expect("readable");
        for found in Batches::new(&bytes) {
            let found = found.expect("whole");
            found.verify_crc().expect("sound");
            batches.push(Bytes::copy_from_slice(found.bytes));
        }
        at = read.next_offset;
    }
    batches
}

/// The records of a batch by offset.
pub fn records_of(bytes: &[u8]) -> Vec<(i64, Rec)> {
    let view = Batches::new(bytes).next().expect("one").expect("whole");
    let set = RecordSet::of(&view, &Default::default()).expect("decodes");
    let record = |record: madang_protocol::record::Record<'_>| {
        assert_eq!(record.headers.collect::<Vec<_>>(), [(&b"h"[..], Some(&b"1"[..]))]);
        let timestamp = record.timestamp(&view.header);
        let (key, value) = (record.key.map(Into::into), record.value.map(Into::into));
        (record.offset(&view.header).0, Rec { key, value, timestamp })
    };
    set.iter().map(|found| record(found.expect("a record"))).collect()
}

pub fn read_records(view: &LogView) -> BTreeMap<i64, Rec> {
    read_batches(view, 4096).iter().flat_map(|batch| records_of(batch)).collect()
}

pub fn headers(view: &LogView) -> Vec<BatchHeader> {
    read_batches(view, 4096).iter().map(|batch| BatchHeader::parse(batch).expect("a header")).collect()
}

/// What a table built from the records holds: the last value of each key.
pub fn table<'a>(records: impl Iterator<Item = &'a Rec>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut table = BTreeMap::new();
    for record in records {
        let Some(key) = record.key.clone() else { continue };
        match record.value.clone() {
            Some(value) => drop(table.insert(key, value)),
            None => drop(table.remove(&key)),
        }
    }
    table
}

pub fn names(disk: &dyn Disk) -> Vec<String> {
    disk.list(Path::new(DIRECTORY)).expect("lists")
}
