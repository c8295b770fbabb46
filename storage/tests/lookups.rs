//! Reads by offset and by time against a model that looks at every record, with every codec.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::small;
use madang_actors::clock::Wall;
use madang_actors::prng::Prng;
use madang_protocol::compression::{Codec, Compression};
use madang_protocol::record_batch::{BatchBuilder, BatchOptions};
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{BatchToAppend, Disk, FaultDisk, Log, OpenLog, OpenMode, ReadError, Start};

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// A batch whose records have these timestamps.
fn batch(codec: Codec, timestamps: &[i64]) -> BatchToAppend {
    let options = BatchOptions { compression: Compression::of(codec), ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    for timestamp in timestamps {
        builder.append(*timestamp, Some(b"key"), Some(&[5; 40]), &[]).expect("fits");
    }
    BatchToAppend::new(builder.build().expect("a batch")).expect("a whole batch")
}

/// The first record at or after `timestamp`, by looking at all.
fn naive(records: &[i64], timestamp: i64, start: i64, upper: i64) -> Option<(i64, i64)> {
    let all = records.iter().enumerate().map(|(offset, time)| (offset as i64, *time));
    all.filter(|(offset, _)| (start..upper).contains(offset)).find(|(_, time)| *time >= timestamp)
}

fn compare(log: &Log, records: &[i64], prng: &mut Prng, what: &str) {
    let view = log.view();
    let (start, end) = (view.log_start_offset().0, view.log_end_offset().0);
    for _ in 0..300 {
        let timestamp = prng.below(1200) as i64;
        let found = view.offset_for_timestamp(timestamp, Offset(end)).expect("reads");
        let found = found.map(|found| (found.offset.0, found.timestamp));
        assert_eq!(found, naive(records, timestamp, start, end), "{what}: timestamp {timestamp}");
    }
    compare_highest(log, records, what);
}

fn compare_highest(log: &Log, records: &[i64], what: &str) {
    let view = log.view();
    let (start, end) = (view.log_start_offset().0, view.log_end_offset().0);
    let highest = records[start as usize..].iter().max().copied().unwrap_or(-1);
    let expected = naive(records, highest, start, end);
    let found = view.max_timestamp().expect("reads").map(|found| (found.offset.0, found.timestamp));
    assert_eq!(found, expected, "{what}: the newest");
}

#[test]
fn lookups_by_time_find_the_first_record() {
    for (seed, codec) in CODECS.into_iter().enumerate() {
        let mut prng = Prng::new(seed as u64);
        let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new());
        let path = Path::new("/d/t-0");
        let mut log = Log::open(Arc::clone(&disk), path, small(), &OpenLog::default()).expect("opens").0;
        let mut records = Vec::new();
        for at in 0..150 {
            let count = 1 + prng.below(6);
            let times: Vec<i64> = (0..count).map(|_| at * 7 + prng.below(60) as i64).collect();
            records.extend_from_slice(&times);
            log.append_as_leader(&[batch(codec, &times)], LeaderEpoch(1), Wall(at)).expect("appends");
        }
        compare(&log, &records, &mut prng, &format!("{codec}, appended"));
        log.close().expect("closes");
        let open = OpenLog { start: Start::Clean, ..OpenLog::default() };
        let mut log = Log::open(Arc::clone(&disk), path, small(), &open).expect("opens").0;
        compare(&log, &records, &mut prng, &format!("{codec}, reopened"));
        log.set_log_start_offset(Offset(101)).expect("moves");
        compare(&log, &records, &mut prng, &format!("{codec}, after delete-records"));
        drop(log);
        for name in disk.list(path).expect("lists") {
            if name.ends_with("index") {
                disk.remove_file(&path.join(name)).expect("removes");
            }
        }
        let log = Log::open(disk, path, small(), &OpenLog::default()).expect("opens").0;
        compare(&log, &records, &mut prng, &format!("{codec}, rebuilt"));
    }
}

#[test]
fn the_highest_time_is_that_of_a_record_that_is_left_also_where_the_log_starts_inside_a_batch() {
    for (seed, codec) in CODECS.into_iter().enumerate() {
        let mut prng = Prng::new(seed as u64);
        let path = Path::new("/d/t-0");
        let mut log = Log::open(Arc::new(FaultDisk::new()), path, small(), &OpenLog::default()).expect("opens").0;
        let mut records = Vec::new();
        for at in 0..10 {
            let times: Vec<i64> = (0..8).map(|_| prng.below(1000) as i64).collect();
            records.extend_from_slice(&times);
            log.append_as_leader(&[batch(codec, &times)], LeaderEpoch(1), Wall(at)).expect("appends");
        }
        for start in 1..=80 {
            log.set_log_start_offset(Offset(start)).expect("moves");
            compare_highest(&log, &records, &format!("{codec}, from {start}"));
        }
    }
}

/// A log of several segments, closed and opened again, so that no index has been looked at.
fn reopened(disk: &FaultDisk, path: &Path) -> Log {
    let handle = || -> Arc<dyn Disk> { Arc::new(disk.clone()) };
    let open = |start| OpenLog { start, ..OpenLog::default() };
    let mut log = Log::open(handle(), path, small(), &open(Start::Unclean)).expect("opens").0;
    for at in 0..200 {
        log.append_as_leader(&[batch(Codec::None, &[at])], LeaderEpoch(0), Wall(0)).expect("appends");
    }
    log.close().expect("closes");
    Log::open(handle(), path, small(), &open(Start::Clean)).expect("opens").0
}

/// What the disk could not read for a moment was no damage.
#[test]
fn an_index_that_could_not_be_read_once_is_looked_at_again() {
    let (disk, path) = (FaultDisk::new(), Path::new("/d/t-0"));
    let log = reopened(&disk, path);
    assert!(log.segment_count() > 2);
    let index = path.join("00000000000000000000.index");
    disk.fail_reads(&index, 0..u64::MAX).expect("there");
    let failed = log.view().read(Offset(8), Offset(9), 1000, true).expect_err("the disk fails");
    assert!(matches!(failed, ReadError::Io(_)), "{failed}");
    disk.mend();
    // Were the batches walked from the start in place of the index, this would fail.
    disk.fail_reads(&path.join("00000000000000000000.log"), 0..1).expect("there");
    let read = log.view().read(Offset(8), Offset(9), 1000, true).expect("reads");
    assert_eq!((read.first_offset, read.next_offset), (Offset(8), Offset(9)));
}

#[test]
fn an_index_that_is_damaged_is_answered_from_the_batches_for_good() {
    let (disk, path) = (FaultDisk::new(), Path::new("/d/t-0"));
    let log = reopened(&disk, path);
    let index = path.join("00000000000000000000.index");
    let last = disk.open(&index, OpenMode::Existing).and_then(|file| file.len()).expect("there") - 1;
    disk.flip_bit(&index, last, 3).expect("there");
    for _ in 0..2 {
        let read = log.view().read(Offset(8), Offset(9), 1000, true).expect("reads");
        assert_eq!((read.first_offset, read.next_offset), (Offset(8), Offset(9)));
        disk.fail_reads(&index, 0..u64::MAX).expect("there");
    }
}
