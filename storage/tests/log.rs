//! A log over the memory disk and over the operating system's: append, read, roll, cut, delete, reopen.

mod common;

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::{batch, payload_batches, small};
use madang_actors::clock::Wall;
use madang_actors::prng::Prng;
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{
    AppendOutcome, Crash, Disk, Fault, FaultDisk, Log, LogConfig, OpenLog, OpenMode, RealDisk, Start,
};

const EPOCH: LeaderEpoch = LeaderEpoch(3);

fn open(disk: &Arc<dyn Disk>, path: &Path, config: LogConfig, start: Start) -> Log {
    Log::open(Arc::clone(disk), path, config, &OpenLog { start, ..OpenLog::default() }).expect("opens").0
}

fn append(log: &mut Log, records: i32, size: usize, timestamp: i64) -> Offset {
    match log.append_as_leader(&[batch(records, size, timestamp)], EPOCH, Wall(timestamp)).expect("appends")[0] {
        AppendOutcome::Appended(appended) => appended.base_offset,
        other => panic!("not appended: {other:?}"),
    }
}

fn on_both_disks(test: impl Fn(Arc<dyn Disk>, &Path)) {
    test(Arc::new(FaultDisk::new()), Path::new("/data/topic-0"));
    let directory = tempfile::tempdir().expect("a directory");
    test(Arc::new(RealDisk::new(4)), &directory.path().join("topic-0"));
}

#[test]
fn what_was_appended_is_read_from_the_batch_that_holds_it() {
    on_both_disks(|disk, path| {
        let mut log = open(&disk, path, LogConfig::default(), Start::Unclean);
        for at in 0..300 {
            assert_eq!(append(&mut log, 3, 100, at), Offset(at * 3));
        }
        let view = log.view();
        for from in [0, 1, 2, 3, 500, 898, 899] {
            let read = view.read(Offset(from), Offset(900), 1000, true).expect("reads");
            assert_eq!(read.first_offset, Offset(from / 3 * 3));
            assert!(read.size <= 1000);
            let batches = payload_batches(&read.records);
            assert_eq!(batches[0].base_offset, read.first_offset);
            assert_eq!(batches[0].partition_leader_epoch, EPOCH);
            assert_eq!(batches.last().map(|last| last.next_offset()), Some(read.next_offset));
        }
        let all = view.read(Offset(0), Offset(i64::MAX), usize::MAX, true).expect("reads");
        assert_eq!(payload_batches(&all.records).len(), 300);
        assert!(view.read(Offset(900), Offset(900), 1000, true).expect("reads").records.is_empty());
        assert!(view.read(Offset(901), Offset(901), 1000, true).is_err());
    });
}

#[test]
fn a_read_spans_segments_and_stops_below_its_bound() {
    on_both_disks(|disk, path| {
        let mut log = open(&disk, path, small(), Start::Unclean);
        for at in 0..200 {
            append(&mut log, 2, 50, at);
        }
        assert!(log.segment_count() > 5);
        let view = log.view();
        for from in (0..400).step_by(7) {
            for upper in [from, from + 1, from + 2, 200, 400] {
                let read = view.read(Offset(from), Offset(upper), 3000, true).expect("reads");
                let batches = payload_batches(&read.records);
                assert!(batches.iter().all(|batch| batch.next_offset() <= Offset(upper)), "{from} {upper}");
                assert_eq!(batches.is_empty(), upper < (from / 2 * 2) + 2, "{from} {upper}");
            }
        }
    });
}

#[test]
fn only_what_was_appended_last_is_found_without_waiting() {
    on_both_disks(|disk, path| {
        let config = LogConfig { warm_bytes: 20_000, ..small() };
        let mut log = open(&disk, path, config.clone(), Start::Unclean);
        for at in 0..200 {
            append(&mut log, 2, 400, at);
        }
        assert!(log.segment_count() > 5);
        let view = log.view();
        assert!(view.finds_without_waiting(Offset(399)), "the last batch");
        assert!(!view.finds_without_waiting(Offset(0)), "the first batch, in a segment of long ago");
        for outside in [-1, 400, 401] {
            assert!(view.finds_without_waiting(Offset(outside)), "{outside}: nothing is looked up");
        }
        let first_warm = (0..400).find(|from| view.finds_without_waiting(Offset(*from))).expect("some are");
        assert!((first_warm..400).all(|from| view.finds_without_waiting(Offset(from))));
        log.close().expect("closes");
        let log = open(&disk, path, config, Start::Clean);
        assert!(!log.view().finds_without_waiting(Offset(398)), "another process appended it");
    });
}

#[test]
fn a_log_is_as_it_was_after_a_clean_close() {
    on_both_disks(|disk, path| {
        let mut log = open(&disk, path, small(), Start::Unclean);
        for at in 0..100 {
            append(&mut log, 2, 50, at);
        }
        let segments = log.segment_count();
        log.set_log_start_offset(Offset(31)).expect("moves");
        assert_eq!(log.close().expect("closes"), Offset(200));
        let log = open(&disk, path, small(), Start::Clean);
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(31), Offset(200)));
        assert_eq!((log.segment_count(), log.confirmed_offset()), (segments, Offset(200)));
        assert!(log.view().read(Offset(30), Offset(200), 100, true).is_err());
        assert_eq!(log.view().read(Offset(31), Offset(200), 100, true).expect("reads").first_offset, Offset(30));
    });
}

#[test]
fn a_cut_log_goes_on_where_it_was_cut() {
    on_both_disks(|disk, path| {
        for cut in [0, 1, 2, 7, 50, 99, 100, 101, 150, 199] {
            let path = path.with_extension(cut.to_string());
            let mut log = open(&disk, &path, small(), Start::Unclean);
            for at in 0..100 {
                append(&mut log, 2, 50, at);
            }
            let before = log.view();
            log.truncate_to(Offset(cut)).expect("cuts");
            let end = Offset(cut / 2 * 2);
            assert_eq!(log.log_end_offset(), end, "cut {cut}");
            assert_eq!(append(&mut log, 1, 10, 1), end);
            assert_eq!(log.view().read(end, end + 1, 1, true).expect("reads").first_offset, end);
            assert_eq!(before.log_end_offset(), Offset(200));
        }
    });
}

#[test]
fn a_cut_at_the_end_forgets_an_epoch_that_began_there_and_stays_so() {
    on_both_disks(|disk, path| {
        let mut log = open(&disk, path, LogConfig::default(), Start::Unclean);
        append(&mut log, 2, 50, 0);
        log.begin_epoch(LeaderEpoch(4)).expect("begins");
        log.truncate_to(Offset(2)).expect("cuts");
        assert_eq!(log.leader_epochs().latest().map(|last| last.epoch), Some(EPOCH));
        drop(log);
        let log = open(&disk, path, LogConfig::default(), Start::Unclean);
        assert_eq!(log.leader_epochs().latest().map(|last| last.epoch), Some(EPOCH));
    });
}

#[test]
fn a_region_outlives_its_segment() {
    on_both_disks(|disk, path| {
        let mut log = open(&disk, path, small(), Start::Unclean);
        for at in 0..100 {
            append(&mut log, 2, 50, at);
        }
        let view = log.view();
        let read = view.read(Offset(0), Offset(200), 500, true).expect("reads");
        log.set_log_start_offset(Offset(100)).expect("moves");
        let gone = log.delete_old_segments(Offset(200), Wall(200)).expect("deletes");
        assert!(gone > 0 && log.log_start_offset() == Offset(100));
        assert!(!payload_batches(&read.records).is_empty());
        assert!(log.view().read(Offset(0), Offset(200), 500, true).is_err());
    });
}

#[test]
fn a_log_that_nobody_writes_to_any_more_ends_up_empty_and_goes_on_where_it_was() {
    on_both_disks(|disk, path| {
        let aging = LogConfig { retention: Some(Duration::from_millis(500)), ..small() };
        let mut log = open(&disk, path, aging.clone(), Start::Unclean);
        for at in 0..100 {
            append(&mut log, 2, 50, at);
        }
        assert_eq!(log.delete_old_segments(Offset(200), Wall(400)).expect("looks"), 0);
        assert!(log.delete_old_segments(Offset(199), Wall(700)).expect("deletes") > 0, "what is not confirmed stays");
        assert_eq!((log.segment_count(), log.log_end_offset()), (1, Offset(200)));
        assert!(log.log_start_offset() < Offset(200));
        log.delete_old_segments(Offset(200), Wall(700)).expect("deletes");
        assert_eq!((log.segment_count(), log.log_start_offset()), (1, Offset(200)));
        drop(log);
        let mut log = open(&disk, path, aging, Start::Unclean);
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(200), Offset(200)));
        append(&mut log, 2, 50, 800);
        let read = log.view().read(Offset(200), Offset(202), usize::MAX, true).expect("reads");
        assert_eq!((payload_batches(&read.records).len(), log.log_end_offset()), (1, Offset(202)));
    });
}

/// As in Kafka, records without any timestamp are as old as their file: its time holds over a restart and is a compaction's to keep.
#[test]
fn records_without_timestamps_go_by_the_time_at_which_they_were_written() {
    let memory = FaultDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(memory.clone());
    let (path, aging) =
        (Path::new("/data/untimed-0"), LogConfig { retention: Some(Duration::from_millis(500)), ..small() });
    let mut log = open(&disk, path, aging.clone(), Start::Unclean);
    for written in [1000, 2000] {
        memory.set_wall(Wall(written));
        while log.segment_count() < usize::try_from(written / 1000 + 1).expect("few") {
            append(&mut log, 2, 50, -1);
        }
    }
    let end = log.log_end_offset();
    let request = log.take_dirty().expect("dirty");
    log.synced(request.perform()).expect("synced");
    memory.set_wall(Wall(9000));
    drop(log);
    memory.crash(Crash::Kill, &mut Prng::new(1));
    let mut log = open(&disk, path, aging, Start::Unclean);
    assert_eq!((log.segment_count(), log.log_end_offset()), (3, end));
    assert_eq!(log.delete_old_segments(end, Wall(1500)).expect("looks"), 0);
    assert_eq!(log.delete_old_segments(end, Wall(1501)).expect("deletes"), 1);
    assert_eq!(log.delete_old_segments(end, Wall(2500)).expect("looks"), 0);
    assert_eq!(log.delete_old_segments(end, Wall(2501)).expect("deletes"), 2, "the active one too");
}

#[test]
fn records_whose_age_nobody_knows_stay() {
    let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new());
    let aging = LogConfig { retention: Some(Duration::from_millis(500)), ..small() };
    let mut log = open(&disk, Path::new("/data/unknown-0"), aging, Start::Unclean);
    append(&mut log, 2, 50, -1);
    assert_eq!(log.delete_old_segments(Offset(2), Wall(i64::MAX)).expect("looks"), 0);
}

#[test]
fn a_file_tells_when_it_was_written_and_a_copy_what_it_was_told() {
    on_both_disks(|disk, path| {
        disk.create_dir(path).expect("creates");
        let file = disk.open(&path.join("a"), OpenMode::Create).expect("opens");
        file.set_modified(Wall(1_234_567)).expect("sets");
        assert_eq!(file.modified().expect("tells"), Wall(1_234_567));
        drop(file);
        let file = disk.open(&path.join("a"), OpenMode::Existing).expect("opens");
        assert_eq!(file.modified().expect("tells"), Wall(1_234_567));
        file.write_at(0, &[IoSlice::new(b"x")]).expect("writes");
        assert!(file.modified().map_or(true, |now| now > Wall(1_700_000_000_000)));
    });
}

#[test]
fn a_shorter_life_of_producers_holds_at_once() {
    let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new());
    let kept = LogConfig { producer_id_expiration: Duration::from_millis(1000), ..small() };
    let mut log = open(&disk, Path::new("/data/producers-0"), kept.clone(), Start::Unclean);
    let produce = |log: &mut Log, sequence, wall| {
        let batch = common::producer_batch(7, sequence, 1, 50, wall);
        log.append_as_leader(&[batch], EPOCH, Wall(wall)).expect("appends")[0]
    };
    assert!(matches!(produce(&mut log, 0, 1000), AppendOutcome::Appended(_)));
    assert!(matches!(produce(&mut log, 5, 1600), AppendOutcome::Refused(_)));
    log.apply_config(LogConfig { producer_id_expiration: Duration::from_millis(500), ..kept });
    assert!(matches!(produce(&mut log, 5, 1600), AppendOutcome::Appended(_)), "it was forgotten");
}

#[test]
fn a_segment_ends_by_age_by_index_and_by_the_reach_of_its_offsets() {
    let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new());
    let by_age = LogConfig { segment_age: Duration::from_millis(100), ..LogConfig::default() };
    let mut log = open(&disk, Path::new("/data/age-0"), by_age, Start::Unclean);
    for (timestamp, segments) in [(1000, 1), (1100, 1), (1101, 2), (1150, 2), (1300, 3)] {
        append(&mut log, 1, 50, timestamp);
        assert_eq!(log.segment_count(), segments, "at {timestamp}");
    }
    let by_index = LogConfig { segment_index_bytes: 16, index_interval_bytes: 1, ..LogConfig::default() };
    let mut log = open(&disk, Path::new("/data/index-0"), by_index, Start::Unclean);
    for (count, segments) in [(1, 1), (2, 1), (3, 1), (4, 2)] {
        append(&mut log, 1, 50, 0);
        assert_eq!(log.segment_count(), segments, "batch {count}");
    }
    let mut log = open(&disk, Path::new("/data/reach-0"), LogConfig::default(), Start::Unclean);
    append(&mut log, i32::MAX, 50, 0);
    append(&mut log, 1, 50, 0);
    assert_eq!(log.segment_count(), 1, "the last relative offset is the highest there is");
    append(&mut log, 1, 50, 0);
    assert_eq!(log.segment_count(), 2);
    let read = log.view().read(Offset(5), log.log_end_offset(), usize::MAX, true).expect("reads");
    assert_eq!(payload_batches(&read.records).len(), 3);
}

#[test]
fn a_failed_write_is_definite_only_if_it_was_cut_back() {
    for (cut_fails, definite) in [(false, true), (true, false)] {
        let disk = FaultDisk::new();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut log = open(&shared, Path::new("/data/t-0"), LogConfig::default(), Start::Unclean);
        append(&mut log, 2, 50, 0);
        let next = disk.operations();
        disk.plan(next, Fault::Short(30));
        if cut_fails {
            disk.plan(next + 1, Fault::Error(std::io::ErrorKind::Other));
        }
        let error = log.append_as_leader(&[batch(2, 50, 0)], EPOCH, Wall(0)).expect_err("short");
        assert_eq!((error.definite, log.log_end_offset()), (definite, Offset(2)));
        let again = log.append_as_leader(&[batch(2, 50, 0)], EPOCH, Wall(0));
        assert_eq!(again.is_ok(), definite, "a log whose end is not known takes nothing");
        assert_eq!(payload_batches(&log.view().read(Offset(0), Offset(2), 999, true).expect("reads").records).len(), 1);
    }
}

#[test]
fn a_log_with_a_failed_or_unfinished_sync_does_not_close_clean() {
    for fail in [true, false] {
        let disk = FaultDisk::new();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let mut log = open(&shared, Path::new("/data/t-0"), LogConfig::default(), Start::Unclean);
        append(&mut log, 2, 50, 0);
        if fail {
            disk.fail_next_sync(Path::new("/data/t-0/00000000000000000000.log")).expect("there");
        }
        let outcome = log.take_dirty().expect("dirty").perform();
        if fail {
            assert!(log.synced(outcome).is_err());
        }
        assert!(log.close().is_err());
    }
}

#[test]
fn flush_settings_ask_for_a_sync() {
    let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new());
    let config =
        LogConfig { flush_messages: Some(3), flush_interval: Some(Duration::from_millis(10)), ..LogConfig::default() };
    let mut log = open(&disk, Path::new("/data/t-0"), config, Start::Unclean);
    append(&mut log, 2, 50, 100);
    assert!(!log.sync_is_due(Wall(109)));
    assert!(log.sync_is_due(Wall(110)), "by time");
    append(&mut log, 2, 50, 100);
    assert!(log.sync_is_due(Wall(100)), "four messages");
    let outcome = log.take_dirty().expect("dirty").perform();
    assert!(log.synced(outcome).is_ok() && !log.sync_is_due(Wall(500)));
}

#[test]
fn only_a_sync_confirms_and_a_cut_takes_it_back() {
    on_both_disks(|disk, path| {
        let mut log = open(&disk, path, small(), Start::Unclean);
        append(&mut log, 2, 50, 0);
        assert_eq!(log.confirmed_offset(), Offset(0));
        let first = log.take_dirty().expect("dirty");
        append(&mut log, 2, 50, 0);
        let second = log.take_dirty().expect("dirty");
        let (first, second) = (first.perform(), second.perform());
        assert_eq!(log.synced(second).expect("synced"), Offset(0), "an earlier request is not done");
        assert_eq!(log.synced(first).expect("synced"), Offset(4));
        append(&mut log, 2, 50, 0);
        let stale = log.take_dirty().expect("dirty").perform();
        log.truncate_to(Offset(2)).expect("cuts");
        append(&mut log, 4, 50, 0);
        assert_eq!(log.synced(stale).expect("synced"), Offset(2), "it knows nothing of what came after the cut");
    });
}

#[test]
fn nothing_is_appended_to_a_cut_log_before_the_cut_is_on_the_device() {
    on_both_disks(|disk, path| {
        let mut log = open(&disk, path, small(), Start::Unclean);
        for at in 0..100 {
            append(&mut log, 2, 50, at);
        }
        let before = log.take_dirty().expect("dirty");
        log.cut_to(Offset(60)).expect("cuts");
        assert!(!log.is_settled());
        log.append_as_leader(&[batch(1, 10, 0)], EPOCH, Wall(0)).expect_err("refused");
        let _ = log.synced(before.perform());
        assert!(!log.is_settled(), "a sync from before the cut says nothing of it");
        let cut = log.take_dirty().expect("dirty");
        let _ = log.synced(cut.perform());
        assert!(log.is_settled());
        assert_eq!((append(&mut log, 1, 10, 1), log.confirmed_offset()), (Offset(60), Offset(60)));
    });
}

#[test]
fn a_start_compares_the_epochs_with_the_last_batch_even_below_its_recovery_point() {
    let (disk, path) = (FaultDisk::new(), Path::new("/data/topic-0"));
    let file = path.join("leader-epoch-checkpoint");
    let mut log = open(&(Arc::new(disk.clone()) as _), path, LogConfig::default(), Start::Unclean);
    append(&mut log, 2, 50, 0);
    let outcome = log.take_dirty().expect("dirty").perform();
    assert_eq!(log.synced(outcome).expect("synced"), Offset(2));
    let older = disk.durable_bytes(&file).expect("synced");
    log.append_as_leader(&[batch(2, 50, 0)], LeaderEpoch(4), Wall(0)).expect("appends");
    let outcome = log.take_dirty().expect("dirty").perform();
    assert_eq!(log.synced(outcome).expect("synced"), Offset(4));
    drop(log);
    let replaced = disk.open(&file, madang_storage::OpenMode::Truncate).expect("opens");
    replaced.write_at(0, &[std::io::IoSlice::new(&older)]).expect("writes");
    let known = OpenLog { recovery_point: Some(Offset(4)), ..OpenLog::default() };
    let log = Log::open(Arc::new(disk), path, LogConfig::default(), &known).expect("opens").0;
    assert_eq!(log.leader_epochs().epoch_at(Offset(3)), Some(LeaderEpoch(4)));
}

/// A power cut at any operation of a cut: every record that is still there belongs to the epoch that the epochs say.
#[test]
fn no_power_cut_in_a_cut_leaves_records_of_an_epoch_that_is_forgotten() {
    let path = Path::new("/data/topic-0");
    let mut operation = 0;
    loop {
        let disk = FaultDisk::new();
        let open = |start, recovery_point| OpenLog { start, recovery_point, ..OpenLog::default() };
        let opened = Log::open(Arc::new(disk.clone()), path, LogConfig::default(), &open(Start::Unclean, None));
        let mut log = opened.expect("opens").0;
        for epoch in [5, 5, 6, 6] {
            log.append_as_leader(&[batch(1, 100, 0)], LeaderEpoch(epoch), Wall(0)).expect("appends");
        }
        let outcome = log.take_dirty().expect("dirty").perform();
        assert_eq!(log.synced(outcome).expect("synced"), Offset(4));
        disk.settle();
        disk.plan(disk.operations() + operation, Fault::Crash);
        let whole = log.truncate_to(Offset(2)).is_ok();
        drop(log);
        disk.lose_unsynced();
        let opened =
            Log::open(Arc::new(disk.clone()), path, LogConfig::default(), &open(Start::Unclean, Some(Offset(2))));
        let log = opened.expect("opens").0;
        let end = log.log_end_offset();
        assert!(end == Offset(4) || end == Offset(2), "{end}");
        let last = log.leader_epochs().epoch_at(end + -1);
        assert_eq!(last, Some(LeaderEpoch(if end == Offset(4) { 6 } else { 5 })), "operation {operation}");
        if whole {
            assert!(operation > 4, "each operation had its turn");
            return;
        }
        operation += 1;
    }
}
