//! Every way in which the files of one log can be found, and what opening makes of them.

mod common;

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{batch, payload_batches, producer_batch, small};
use madang_actors::clock::Wall;
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{
    AppendOutcome, Disk, FaultDisk, Log, LogConfig, LogError, OpenLog, OpenMode, Recovery, Start, read_small,
};

const DIRECTORY: &str = "/data/topic-0";

/// A closed log of 60 batches of two records, in several segments and three epochs, with an idempotent producer.
fn written(config: &LogConfig) -> FaultDisk {
    let disk = FaultDisk::new();
    let mut log = open_with(&disk, config, &OpenLog::default()).expect("opens").0;
    for at in 0..60 {
        let epoch = LeaderEpoch(at / 25);
        let batch = producer_batch(7, at * 2, 2, 80, i64::from(at));
        log.append_as_leader(&[batch], epoch, Wall(i64::from(at))).expect("appends");
    }
    log.close().expect("closes");
    disk.settle();
    disk
}

fn open_with(disk: &FaultDisk, config: &LogConfig, open: &OpenLog) -> Result<(Log, Recovery), LogError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Log::open(disk, Path::new(DIRECTORY), config.clone(), open)
}

fn unclean(recovery_point: Option<i64>) -> OpenLog {
    OpenLog { recovery_point: recovery_point.map(Offset), wall: Wall(100), ..OpenLog::default() }
}

fn files(disk: &FaultDisk, suffix: &str) -> Vec<PathBuf> {
    let names = disk.list(Path::new(DIRECTORY)).expect("lists");
    names.iter().filter(|name| name.ends_with(suffix)).map(|name| Path::new(DIRECTORY).join(name)).collect()
}

/// All that readers can tell one log from another by.
fn content(log: &Log) -> (Offset, Offset, Vec<u8>, Vec<u8>, Vec<u8>) {
    let view = log.view();
    let mut bytes = Vec::new();
    let mut at = view.log_start_offset();
    while at < view.log_end_offset() {
        let read = view.read(at, view.log_end_offset(), 500, true).expect("reads");
        assert!(!payload_batches(&read.records).is_empty());
        bytes.extend_from_slice(&read.records.read().expect("reads"));
        at = read.next_offset;
    }
    let epochs = log.leader_epochs().to_bytes();
    (view.log_start_offset(), view.log_end_offset(), bytes, epochs, log.producers().to_bytes())
}

#[test]
fn a_torn_end_is_cut_at_the_last_whole_batch() {
    let config = LogConfig::default();
    let disk = written(&config);
    let log_file = files(&disk, ".log").pop().expect("a segment");
    let whole = read_small(&disk, &log_file, 1 << 20).expect("reads");
    let size = whole.len() / 60;
    for length in whole.len() - 3 * size..=whole.len() {
        for garbage in [&[][..], &[0; 200], &[0xa5; 200], &whole[..150]] {
            let file = disk.open(&log_file, OpenMode::Existing).expect("opens");
            file.truncate(0).expect("cuts");
            file.write_at(0, &[std::io::IoSlice::new(&whole[..length]), std::io::IoSlice::new(garbage)])
                .expect("writes");
            let (log, report) = open_with(&disk, &config, &unclean(Some(100))).expect("opens");
            let kept = length / size;
            assert_eq!(log.log_end_offset(), Offset(kept as i64 * 2), "length {length}");
            assert_eq!(report.truncated_bytes, (length - kept * size + garbage.len()) as u64, "length {length}");
            assert_eq!(file.len().expect("a length"), (kept * size) as u64);
            assert_eq!(log.confirmed_offset(), log.log_end_offset());
        }
    }
}

#[test]
fn no_flipped_bit_is_served() {
    let config = LogConfig::default();
    let disk = written(&config);
    let log_file = files(&disk, ".log").pop().expect("a segment");
    let whole = read_small(&disk, &log_file, 1 << 20).expect("reads");
    let size = whole.len() / 60;
    for position in whole.len() - 2 * size..whole.len() {
        // Offset and epoch lie outside of the CRC; the offset is held by the order of the batches.
        if (8..12).contains(&(position % size)) || (12..16).contains(&(position % size)) || position % size < 8 {
            continue;
        }
        disk.overwrite(&log_file, 0, &whole).expect("there");
        disk.flip_bit(&log_file, position as u64, 3).expect("there");
        let below = open_with(&disk, &config, &unclean(Some(120)));
        assert!(matches!(below, Err(LogError::Quarantine { .. })), "position {position}");
        assert_eq!(
            disk.open(&log_file, OpenMode::Existing).expect("there").len().expect("a length"),
            whole.len() as u64
        );
        let (log, _) = open_with(&disk, &config, &unclean(Some(100))).expect("opens");
        assert_eq!(log.log_end_offset(), Offset((position / size) as i64 * 2), "position {position}");
        let file = disk.open(&log_file, OpenMode::Existing).expect("there");
        file.write_at(0, &[std::io::IoSlice::new(&whole)]).expect("writes");
        disk.settle();
    }
}

/// An index with entries is taken over as it is: a start that walks headers instead finds the same log, only later.
#[test]
fn a_start_rebuilds_no_index_that_is_whole() {
    let config = LogConfig { index_interval_bytes: 100, ..small() };
    let disk = written(&config);
    let indexes = files(&disk, ".index");
    let entries = |path: &PathBuf| read_small(&disk, path, 1 << 20).expect("reads").len();
    assert!(indexes.len() > 2 && indexes.iter().all(|path| entries(path) > 64 + 8), "several entries each");
    for start in [Start::Clean, Start::Unclean] {
        let (log, report) = open_with(&disk, &config, &OpenLog { start, ..unclean(Some(120)) }).expect("opens");
        assert_eq!(report.rebuilt, Vec::<String>::new(), "{start:?}");
        assert_eq!(content(&log), content(&open_with(&written(&config), &config, &unclean(None)).expect("opens").0));
    }
}

#[test]
fn side_files_are_rebuilt_from_the_batches() {
    let config = small();
    for start in [Start::Clean, Start::Unclean] {
        let open = OpenLog { start, ..unclean(Some(120)) };
        let expected = content(&open_with(&written(&config), &config, &open).expect("opens").0);
        for suffix in [".index", ".timeindex", ".snapshot", "leader-epoch-checkpoint"] {
            let count = files(&written(&config), suffix).len();
            assert!(count > 0, "{suffix}");
            for which in 0..count {
                for damage in 0..5 {
                    let disk = written(&config);
                    let path = &files(&disk, suffix)[which];
                    harm(&disk, path, damage);
                    disk.settle();
                    let (log, _) = open_with(&disk, &config, &open).expect("opens");
                    assert_eq!(content(&log), expected, "{} {damage} {start:?}", path.display());
                }
            }
        }
    }
}

fn harm(disk: &FaultDisk, path: &Path, damage: usize) {
    let length = disk.open(path, OpenMode::Existing).expect("there").len().expect("a length");
    match damage {
        0 => disk.remove_file(path).expect("removes"),
        1 => disk.overwrite(path, 0, &vec![0; length as usize]).expect("there"),
        2 => disk.flip_bit(path, length - 1, 0).expect("there"),
        3 => disk.flip_bit(path, length / 2, 5).expect("there"),
        _ => disk.open(path, OpenMode::Existing).expect("there").truncate(length / 2).expect("cuts"),
    }
}

#[test]
fn damage_in_a_sealed_segment_is_reported_and_nothing_is_cut() {
    let config = small();
    let disk = written(&config);
    let first = files(&disk, ".log").remove(0);
    let length = disk.open(&first, OpenMode::Existing).expect("there").len().expect("a length");
    disk.flip_bit(&first, length / 2, 1).expect("there");
    for point in [None, Some(120)] {
        if point.is_none() {
            let error = open_with(&disk, &config, &unclean(point)).expect_err("damaged");
            assert!(matches!(error, LogError::Quarantine { .. }));
        }
        assert_eq!(disk.open(&first, OpenMode::Existing).expect("there").len().expect("a length"), length);
    }
}

/// The base offset is in no checksum: a batch that claims to lie beyond its segment is no torn write, and neither are bytes after the last one.
#[test]
fn what_is_set_aside_is_left_as_it_was() {
    let config = small();
    let whole = written(&config);
    let first = files(&whole, ".log").remove(0);
    let length = whole.open(&first, OpenMode::Existing).expect("there").len().expect("a length");
    let far = |disk: &FaultDisk| disk.flip_bit(&first, 0, 0).expect("there");
    let longer = |disk: &FaultDisk| {
        let file = disk.open(&first, OpenMode::Existing).expect("there");
        file.write_at(length, &[IoSlice::new(b"garbage")]).expect("written");
    };
    let harms: [&dyn Fn(&FaultDisk); 2] = [&far, &longer];
    for harm in harms {
        let disk = written(&config);
        harm(&disk);
        disk.settle();
        let before = read_small(&disk, &first, 1 << 20).expect("reads");
        let error = open_with(&disk, &config, &unclean(Some(0))).expect_err("damaged");
        assert!(matches!(error, LogError::Quarantine { .. }), "{error}");
        assert_eq!(read_small(&disk, &first, 1 << 20).expect("reads"), before);
    }
}

#[test]
fn a_missing_segment_sets_the_partition_aside() {
    let config = small();
    let disk = written(&config);
    disk.remove_file(&files(&disk, ".log")[1]).expect("removes");
    disk.settle();
    for start in [Start::Clean, Start::Unclean] {
        let error = open_with(&disk, &config, &OpenLog { start, ..unclean(Some(120)) }).expect_err("a hole");
        assert!(matches!(error, LogError::Quarantine { .. }));
    }
}

#[test]
fn a_lost_log_start_brings_records_back_rather_than_losing_any() {
    let config = small();
    let disk = written(&config);
    let (mut log, _) = open_with(&disk, &config, &unclean(Some(120))).expect("opens");
    log.set_log_start_offset(Offset(50)).expect("moves");
    let (log, _) = open_with(&disk, &config, &unclean(Some(120))).expect("opens");
    assert_eq!(log.log_start_offset(), Offset(50));
    disk.flip_bit(&files(&disk, "log-start-offset")[0], 20, 1).expect("there");
    let (log, _) = open_with(&disk, &config, &unclean(Some(120))).expect("opens");
    assert_eq!(log.log_start_offset(), Offset(0));
}

#[test]
fn duplicates_are_known_after_every_kind_of_start() {
    for start in [Start::Clean, Start::SameProcess, Start::Unclean] {
        let disk = written(&small());
        let open = OpenLog { start, ..unclean(Some(120)) };
        let mut log = open_with(&disk, &small(), &open).expect("opens").0;
        let batches: Vec<_> = (55..61).map(|at| producer_batch(7, at * 2, 2, 80, i64::from(at))).collect();
        let outcomes = log.append_as_leader(&batches, LeaderEpoch(9), Wall(100)).expect("appends");
        for (at, outcome) in (55..60).zip(&outcomes) {
            assert!(matches!(outcome, AppendOutcome::Duplicate(first) if first.base_offset == Offset(at * 2)));
        }
        assert!(matches!(outcomes[5], AppendOutcome::Appended(appended) if appended.base_offset == Offset(120)));
    }
}

#[test]
fn the_recovered_end_is_what_the_device_has() {
    let config = LogConfig::default();
    let disk = FaultDisk::new();
    let mut log = open_with(&disk, &config, &OpenLog::default()).expect("opens").0;
    log.append_as_leader(&[batch(2, 80, 0)], LeaderEpoch(0), Wall(0)).expect("appends");
    assert!(log.take_dirty().expect("dirty").perform().is_ok());
    log.append_as_leader(&[batch(2, 80, 1)], LeaderEpoch(0), Wall(0)).expect("appends");
    disk.fail_next_sync(&files(&disk, ".log")[0]).expect("there");
    let outcome = log.take_dirty().expect("dirty").perform();
    assert!(log.synced(outcome).is_err());
    log.append_as_leader(&[batch(2, 80, 2)], LeaderEpoch(0), Wall(0)).expect("appends");
    assert!(log.take_dirty().is_none(), "a failed sync is not retried");
    let (log, _) = open_with(&disk, &config, &unclean(Some(2))).expect("opens");
    assert_eq!(log.log_end_offset(), Offset(2), "the page cache still showed more");
}

#[test]
fn a_full_disk_loses_nothing_and_serves_on() {
    let config = LogConfig::default();
    let disk = FaultDisk::new();
    let mut log = open_with(&disk, &config, &OpenLog::default()).expect("opens").0;
    log.append_as_leader(&[batch(2, 80, 0)], LeaderEpoch(0), Wall(0)).expect("appends");
    let before = log.size_in_bytes();
    disk.set_capacity(Some(1000));
    let error = log.append_as_leader(&vec![batch(2, 400, 1); 3], LeaderEpoch(0), Wall(0)).expect_err("full");
    assert!(error.definite && error.outcomes.is_empty());
    assert_eq!((log.log_end_offset(), log.size_in_bytes()), (Offset(2), before));
    disk.set_capacity(None);
    log.append_as_leader(&[batch(2, 80, 2)], LeaderEpoch(0), Wall(0)).expect("appends");
    assert_eq!(payload_batches(&log.view().read(Offset(0), Offset(4), 9999, true).expect("reads").records).len(), 2);
}

/// A log of three batches, the last of which is in the page cache alone, as a kill leaves it.
fn killed(config: &LogConfig) -> FaultDisk {
    let disk = FaultDisk::new();
    disk.create_dir(Path::new("/data")).expect("creates");
    disk.settle();
    let mut log = open_with(&disk, config, &OpenLog::default()).expect("opens").0;
    for at in 0..3 {
        log.append_as_leader(&[producer_batch(7, at, 1, 80, i64::from(at))], LeaderEpoch(1), Wall(0)).expect("appends");
        if at == 1 {
            let request = log.take_dirty().expect("dirty");
            log.synced(request.perform()).expect("synced");
        }
    }
    drop(log);
    disk
}

#[test]
fn after_one_sync_of_the_file_system_opening_takes_none_of_its_own_and_finds_the_same() {
    let config = small();
    let (alone, together) = (killed(&config), killed(&config));
    let (expected, report) = open_with(&alone, &config, &unclean(Some(2))).expect("opens");
    assert!(together.sync_all(Path::new("/data")).expect("syncs"));
    for name in together.list(Path::new(DIRECTORY)).expect("lists") {
        together.fail_next_sync(&Path::new(DIRECTORY).join(name)).expect("plans");
    }
    let before = together.operations();
    let open = OpenLog { synced: true, ..unclean(Some(2)) };
    let (log, found) = open_with(&together, &config, &open).expect("opens");
    assert_eq!((content(&log), found), (content(&expected), report));
    assert_eq!(log.confirmed_offset(), Offset(3));
    // The index and the producers beside it, that may be of something else.
    let removals = together.operations() - before;
    drop((log, expected));
    together.lose_unsynced();
    let log = open_with(&together, &config, &unclean(Some(3))).expect("opens").0;
    assert_eq!(log.log_end_offset(), Offset(3), "what was confirmed is on the device");
    assert!(removals <= 2, "{removals} operations");
}

#[test]
fn a_sync_of_the_file_system_that_fails_says_so() {
    let disk = killed(&small());
    let segment = files(&disk, ".log").pop().expect("a segment");
    disk.fail_next_sync(&segment).expect("plans");
    assert!(disk.sync_all(Path::new("/data")).is_err());
}

#[test]
fn the_start_of_an_epoch_asks_for_no_sync_and_goes_with_the_next_one() {
    let (disk, config) = (killed(&small()), small());
    let mut log = open_with(&disk, &config, &unclean(Some(2))).expect("opens").0;
    log.begin_epoch(LeaderEpoch(5)).expect("begins");
    assert!(log.is_dirty() && !log.is_due());
    log.append_as_leader(&[producer_batch(7, 3, 1, 80, 3)], LeaderEpoch(5), Wall(0)).expect("appends");
    assert!(log.is_due());
    let request = log.take_dirty().expect("dirty");
    log.synced(request.perform()).expect("synced");
    log.begin_epoch(LeaderEpoch(6)).expect("begins");
    drop(log);
    disk.lose_unsynced();
    let log = open_with(&disk, &config, &unclean(Some(4))).expect("opens").0;
    let latest = log.leader_epochs().latest().map(|last| (last.epoch, last.start_offset));
    assert_eq!(latest, Some((LeaderEpoch(5), Offset(3))), "an epoch that wrote nothing may be forgotten");
}

#[test]
fn a_log_that_is_on_the_device_is_closed_without_a_sync_and_opens_as_it_was() {
    let (disk, config) = (killed(&small()), small());
    let mut log = open_with(&disk, &config, &unclean(Some(2))).expect("opens").0;
    log.begin_epoch(LeaderEpoch(5)).expect("begins");
    let request = log.take_dirty().expect("dirty");
    log.synced(request.perform()).expect("synced");
    let expected = content(&log);
    for name in disk.list(Path::new(DIRECTORY)).expect("lists") {
        disk.fail_next_sync(&Path::new(DIRECTORY).join(name)).expect("plans");
    }
    assert_eq!(log.close().expect("closes"), Offset(3));
    disk.lose_unsynced();
    let clean = OpenLog { start: Start::Clean, ..unclean(Some(3)) };
    let log = open_with(&disk, &config, &clean).expect("opens").0;
    assert_eq!(content(&log), expected);
}

#[test]
fn a_log_is_not_closed_over_a_sync_that_is_under_way() {
    let (disk, config) = (killed(&small()), small());
    let mut log = open_with(&disk, &config, &unclean(Some(2))).expect("opens").0;
    log.begin_epoch(LeaderEpoch(5)).expect("begins");
    let under_way = log.take_dirty().expect("dirty");
    assert!(log.close().is_err());
    drop(under_way);
}
