//! Logs whose ends were noted in the same boot: what a start then trusts, what it still reads, and what it says when a note and the files differ.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{payload_batches, producer_batch, small};
use madang_actors::clock::Wall;
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{Disk, FaultDisk, Log, LogConfig, LogError, Note, OpenLog, OpenMode, Recovery, Start, read_small};

const DIRECTORY: &str = "/data/topic-0";

fn open_with(disk: &FaultDisk, config: &LogConfig, open: &OpenLog) -> Result<(Log, Recovery), LogError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Log::open(disk, Path::new(DIRECTORY), config.clone(), open)
}

fn append(log: &mut Log, batches: std::ops::Range<i32>) {
    for at in batches {
        let batch = producer_batch(7, at * 2, 2, 80, i64::from(at));
        log.append_as_leader(&[batch], LeaderEpoch(at / 25), Wall(i64::from(at))).expect("appends");
    }
}

/// 40 batches of two records that are synced and 20 that are not, as a kill leaves them, and the note of it.
fn killed(config: &LogConfig) -> (FaultDisk, Note) {
    let disk = FaultDisk::new();
    let mut log = open_with(&disk, config, &OpenLog::default()).expect("opens").0;
    append(&mut log, 0..40);
    let outcome = log.take_dirty().expect("dirty").perform();
    let confirmed_end = log.synced(outcome).expect("synced");
    append(&mut log, 40..60);
    let note = Note {
        incarnation: 1,
        log_end_offset: log.log_end_offset(),
        confirmed_end,
        high_watermark: confirmed_end,
        ..Note::default()
    };
    assert_eq!((note.log_end_offset, note.confirmed_end), (Offset(120), Offset(80)));
    (disk, note)
}

fn noted(start: Start, note: Note) -> OpenLog {
    OpenLog { start, noted: Some(note), recovery_point: Some(Offset::ZERO), wall: Wall(100), ..OpenLog::default() }
}

fn unnoted() -> OpenLog {
    OpenLog { recovery_point: Some(Offset(80)), wall: Wall(100), ..OpenLog::default() }
}

fn segments(disk: &FaultDisk) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIRECTORY)).expect("lists");
    names.iter().filter(|name| name.ends_with(".log")).map(|name| Path::new(DIRECTORY).join(name)).collect()
}

/// All that readers can tell one log from another by.
fn content(log: &Log) -> (Offset, Vec<u8>, Vec<u8>, Vec<u8>) {
    let view = log.view();
    let mut bytes = Vec::new();
    let mut at = view.log_start_offset();
    while at < view.log_end_offset() {
        let read = view.read(at, view.log_end_offset(), 500, true).expect("reads");
        assert!(!payload_batches(&read.records).is_empty());
        bytes.extend_from_slice(&read.records.read().expect("reads"));
        at = read.next_offset;
    }
    (view.log_end_offset(), bytes, log.leader_epochs().to_bytes(), log.producers().to_bytes())
}

/// One segment and many, with the active one's index written often and never.
fn configs() -> Vec<LogConfig> {
    let never = LogConfig { index_interval_bytes: 256, ..LogConfig::default() };
    let often = LogConfig { active_index_bytes: 500, ..never.clone() };
    vec![never, often, small(), LogConfig { active_index_bytes: 1 << 20, ..small() }]
}

#[test]
fn every_start_finds_the_same_log() {
    for config in configs() {
        let (disk, note) = killed(&config);
        let expected = content(&open_with(&disk, &config, &unnoted()).expect("opens").0);
        for start in [Start::Unclean, Start::SameBoot, Start::SameProcess] {
            for behind in 0..4_i64 {
                // A kill between a write and its note leaves the note behind.
                let (disk, note) = killed(&config);
                let note = Note { log_end_offset: note.log_end_offset + -behind * 2, ..note };
                let (log, report) = open_with(&disk, &config, &noted(start, note)).expect("opens");
                assert_eq!(content(&log), expected, "{start:?} {behind}");
                assert!(!report.below_noted_end && !report.below_recovery_point);
            }
        }
        let found = open_with(&disk, &config, &noted(Start::Unclean, note)).expect("opens").0;
        assert_eq!(content(&found), expected);
    }
}

#[test]
fn where_the_device_was_promised_only_the_tail_is_read_back() {
    let config = LogConfig::default();
    let (disk, note) = killed(&config);
    let size = disk.open(&segments(&disk)[0], OpenMode::Existing).expect("there").len().expect("a length");
    let (log, report) = open_with(&disk, &config, &noted(Start::Unclean, note)).expect("opens");
    assert_eq!((report.scanned_bytes, log.confirmed_offset()), (size / 3, Offset(120)));
    // Its pages were on no device yet: they are now.
    assert_eq!(disk.durable_bytes(&segments(&disk)[0]).expect("there").len() as u64, size);
    let all = Note { log_end_offset: Offset(120), confirmed_end: Offset(120), ..note };
    let (_, report) = open_with(&disk, &config, &noted(Start::Unclean, all)).expect("opens");
    assert_eq!(report.scanned_bytes, 0, "there is no tail");
}

/// What the index tells is not walked again: it could not be, where it cannot be read.
#[test]
fn the_index_of_the_active_segment_spares_a_walk() {
    let config = LogConfig { active_index_bytes: 1 << 20, ..LogConfig::default() };
    let disk = FaultDisk::new();
    let mut log = open_with(&disk, &config, &OpenLog::default()).expect("opens").0;
    for at in 0..60 {
        let batch = producer_batch(7, at * 2, 2, 40_000, i64::from(at));
        log.append_as_leader(&[batch], LeaderEpoch(0), Wall(i64::from(at))).expect("appends");
    }
    let end = log.log_end_offset();
    let note = Note { incarnation: 1, log_end_offset: end, ..Note::default() };
    let path = &segments(&disk)[0];
    let size = disk.open(path, OpenMode::Existing).expect("there").len().expect("a length");
    disk.fail_reads(path, size / 4..size / 2).expect("there");
    let (log, _) = open_with(&disk, &config, &noted(Start::SameBoot, note)).expect("opens");
    assert_eq!(log.log_end_offset(), end);
    disk.mend();
    disk.remove_file(&path.with_extension("index")).expect("there");
    disk.fail_reads(path, size / 4..size / 2).expect("there");
    let walked = open_with(&disk, &config, &noted(Start::SameBoot, note));
    assert!(matches!(walked, Err(LogError::Quarantine { .. })), "without it the headers are walked");
}

#[test]
fn where_the_page_cache_was_promised_nothing_is_read_and_all_is_synced_later() {
    for config in configs() {
        let (disk, note) = killed(&config);
        let (mut log, report) = open_with(&disk, &config, &noted(Start::SameBoot, note)).expect("opens");
        assert_eq!((report.scanned_bytes, log.confirmed_offset()), (0, Offset(80)));
        assert!(log.sync_within().is_some(), "the first sync is owed");
        let outcome = log.take_dirty().expect("dirty").perform();
        assert_eq!(log.synced(outcome).expect("synced"), Offset(120));
        assert!(log.sync_within().is_none() && !log.is_dirty());
        let length = |path: &PathBuf| disk.open(path, OpenMode::Existing).expect("there").len().expect("a length");
        for path in segments(&disk) {
            assert_eq!(disk.durable_bytes(&path).expect("there").len() as u64, length(&path));
        }
    }
}

#[test]
fn a_first_sync_that_fails_confirms_nothing_and_is_not_retried() {
    let config = LogConfig::default();
    let (disk, note) = killed(&config);
    let (mut log, _) = open_with(&disk, &config, &noted(Start::SameBoot, note)).expect("opens");
    disk.fail_next_sync(&segments(&disk)[0]).expect("there");
    let outcome = log.take_dirty().expect("dirty").perform();
    assert!(log.synced(outcome).is_err());
    assert_eq!(log.confirmed_offset(), Offset(80));
    assert!(log.take_dirty().is_none());
}

#[test]
fn a_log_below_its_noted_end_says_so() {
    let config = LogConfig::default();
    for (kept, confirmed_is_lost) in [(58, false), (40, false), (30, true)] {
        for start in [Start::Unclean, Start::SameBoot] {
            let (disk, note) = killed(&config);
            let path = &segments(&disk)[0];
            let file = disk.open(path, OpenMode::Existing).expect("there");
            let batch = file.len().expect("a length") / 60;
            file.truncate(kept * batch).expect("cuts");
            disk.settle();
            let (log, report) = open_with(&disk, &config, &noted(start, note)).expect("opens");
            assert_eq!(log.log_end_offset(), Offset(kept as i64 * 2), "{start:?} {kept}");
            assert!(report.below_noted_end, "{start:?} {kept}");
            assert_eq!(report.below_recovery_point, confirmed_is_lost, "{start:?} {kept}");
            assert!(log.confirmed_offset() <= log.log_end_offset());
        }
    }
}

#[test]
fn what_is_torn_above_the_noted_end_is_cut() {
    for config in configs() {
        for start in [Start::Unclean, Start::SameBoot] {
            let (disk, note) = killed(&config);
            let path = segments(&disk).pop().expect("a segment");
            let whole = read_small(&disk, &path, 1 << 20).expect("reads");
            let file = disk.open(&path, OpenMode::Existing).expect("there");
            file.write_at(whole.len() as u64, &[std::io::IoSlice::new(&whole[..100])]).expect("writes");
            let (log, report) = open_with(&disk, &config, &noted(start, note)).expect("opens");
            assert_eq!((log.log_end_offset(), report.truncated_bytes), (Offset(120), 100), "{start:?}");
            assert_eq!(file.len().expect("a length"), whole.len() as u64);
        }
    }
}

#[test]
fn damage_below_a_confirmed_end_sets_the_partition_aside_and_cuts_nothing() {
    let config = LogConfig::default();
    let (disk, note) = killed(&config);
    let path = &segments(&disk)[0];
    let length = disk.open(path, OpenMode::Existing).expect("there").len().expect("a length");
    // The length of a batch in the first third: the headers after it cannot be found.
    disk.flip_bit(path, length / 60 * 9 + 9, 5).expect("there");
    for start in [Start::Unclean, Start::SameBoot] {
        let error = open_with(&disk, &config, &noted(start, note)).expect_err("damaged");
        assert!(matches!(error, LogError::Quarantine { .. }), "{error}");
        assert_eq!(disk.open(path, OpenMode::Existing).expect("there").len().expect("a length"), length);
    }
}

#[test]
fn an_index_of_what_was_cut_is_never_taken_for_one_of_what_came_after() {
    let config = LogConfig { active_index_bytes: 500, index_interval_bytes: 256, ..LogConfig::default() };
    let (disk, _) = killed(&config);
    let path = &segments(&disk)[0];
    let file = disk.open(path, OpenMode::Existing).expect("there");
    let batch = file.len().expect("a length") / 60;
    file.truncate(45 * batch).expect("cuts");
    let config = LogConfig { active_index_bytes: 1 << 20, ..config };
    let mut log = open_with(&disk, &config, &unnoted()).expect("opens").0;
    for at in 45..80_i64 {
        let batch = producer_batch(7, at as i32 * 2, 2, 50, at);
        log.append_as_leader(&[batch], LeaderEpoch(3), Wall(at)).expect("appends");
    }
    let note = Note { log_end_offset: log.log_end_offset(), confirmed_end: Offset(90), ..Note::default() };
    let expected = content(&log);
    let (log, report) = open_with(&disk, &config, &noted(Start::SameBoot, note)).expect("opens");
    assert_eq!((content(&log), report.scanned_bytes), (expected, 0));
}

#[test]
fn an_epoch_that_could_not_be_written_down_is_found_in_the_batches() {
    let config = LogConfig::default();
    for start in [Start::Unclean, Start::SameBoot] {
        let (disk, mut note) = killed(&config);
        let path = Path::new(DIRECTORY).join("leader-epoch-checkpoint");
        let before = read_small(&disk, &path, 1 << 20).expect("reads");
        let mut log = open_with(&disk, &config, &unnoted()).expect("opens").0;
        for at in 60..70_i64 {
            let batch = producer_batch(7, at as i32 * 2, 2, 50, at);
            log.append_as_leader(&[batch], LeaderEpoch(8), Wall(at)).expect("appends");
        }
        let expected = content(&log);
        disk.overwrite(&path, 0, &before).expect("there");
        disk.open(&path, OpenMode::Existing).expect("there").truncate(before.len() as u64).expect("cuts");
        note = Note { log_end_offset: log.log_end_offset(), confirmed_end: log.log_end_offset(), ..note };
        let (log, _) = open_with(&disk, &config, &noted(start, note)).expect("opens");
        assert_eq!(content(&log), expected, "{start:?}");
    }
}

#[test]
fn snapshots_of_the_producers_do_not_pile_up() {
    let config = LogConfig { active_index_bytes: 300, ..LogConfig::default() };
    let (disk, _) = killed(&config);
    let names = disk.list(Path::new(DIRECTORY)).expect("lists");
    assert_eq!(names.iter().filter(|name| name.ends_with(".snapshot")).count(), 1, "{names:?}");
}

#[test]
fn a_sync_that_fails_while_a_log_is_opened_is_told_apart() {
    let config = LogConfig::default();
    let (disk, _) = killed(&config);
    disk.fail_next_sync(&segments(&disk)[0]).expect("there");
    let error = open_with(&disk, &config, &unnoted()).expect_err("fails");
    assert!(matches!(error, LogError::Sync { .. }), "{error}");
    // The same of a start that reads only the tail.
    let (disk, note) = killed(&config);
    disk.fail_next_sync(&segments(&disk)[0]).expect("there");
    let error = open_with(&disk, &config, &noted(Start::Unclean, note)).expect_err("fails");
    assert!(matches!(error, LogError::Sync { .. }), "{error}");
    let (disk, note) = killed(&config);
    disk.fail_next_sync(&Path::new(DIRECTORY).join("leader-epoch-checkpoint")).expect("there");
    let error = open_with(&disk, &config, &noted(Start::Unclean, note)).expect_err("fails");
    assert!(matches!(error, LogError::Sync { .. }), "{error}");
    // A full disk is no failed sync.
    let (disk, _) = killed(&config);
    disk.set_capacity(Some(0));
    let error = open_with(&disk, &config, &unnoted()).expect_err("full");
    assert!(matches!(error, LogError::Io { .. }), "{error}");
}

#[test]
fn what_the_device_cannot_read_sets_the_partition_aside() {
    for (config, which) in [(small(), 0), (small(), 2), (LogConfig::default(), 0)] {
        for open in [OpenLog { recovery_point: Some(Offset(120)), ..unnoted() }, unnoted()] {
            let (disk, _) = killed(&config);
            // The index is of no use either, so that a sealed segment is walked.
            for name in disk.list(Path::new(DIRECTORY)).expect("lists") {
                if name.ends_with(".index") {
                    disk.remove_file(&Path::new(DIRECTORY).join(name)).expect("removes");
                }
            }
            disk.fail_reads(&segments(&disk)[which], 0..64).expect("there");
            let error = open_with(&disk, &config, &open).expect_err("unreadable");
            assert!(matches!(error, LogError::Quarantine { .. }), "{which}: {error}");
        }
    }
}

#[test]
fn a_log_that_is_handed_on_hears_only_the_syncs_of_its_new_life() {
    let config = LogConfig::default();
    let (disk, _) = killed(&config);
    let mut log = open_with(&disk, &config, &unnoted()).expect("opens").0;
    append(&mut log, 60..61);
    let earlier = log.take_dirty().expect("dirty").perform();
    log.taken_by(9);
    append(&mut log, 61..62);
    let own = log.take_dirty().expect("dirty").perform();
    assert_eq!(log.synced(earlier).expect("dropped"), Offset(120));
    assert_eq!(log.synced(own).expect("synced"), Offset(124));
}
