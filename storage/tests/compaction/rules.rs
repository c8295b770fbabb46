//! The rules one by one: lags, ratio, tombstones, memory, and what a pass may not touch.

use std::time::Duration;

use madang_actors::clock::Wall;
use madang_protocol::record_batch::{BatchHeader, layout, write_crc};
use madang_protocol::types::Offset;
use madang_storage::{AppendOutcome, CompactionError, CompactionSettings, LogConfig};

use super::*;

fn keys(log: &Log) -> Vec<(i64, String, bool)> {
    let text = |key: &Option<Vec<u8>>| String::from_utf8_lossy(key.as_deref().unwrap_or_default()).into_owned();
    read_records(&log.view()).iter().map(|(at, found)| (*at, text(&found.key), found.value.is_some())).collect()
}

fn entry(offset: i64, key: &str, value: bool) -> (i64, String, bool) {
    (offset, key.to_owned(), value)
}

#[test]
fn a_tombstone_stays_until_its_horizon_and_only_the_second_pass_removes_it() {
    let settings = CompactionSettings { delete_retention: Duration::from_secs(10), ..eager() };
    for codec in CODECS {
        let (_, mut log) = memory_log(LogConfig::default());
        append(&mut log, &[rec("a", Some("1"), 5), rec("b", Some("1"), 5)]);
        let deletion = batch(&[rec("a", None, 6), rec("c", Some("1"), 7)], codec, None);
        assert!(matches!(append_outcome(&mut log, deletion), AppendOutcome::Appended(_)));
        compact_all(&mut log, 1000, &settings);
        let all = [entry(1, "b", true), entry(2, "a", false), entry(3, "c", true)];
        assert_eq!(keys(&log), all);
        let horizon = headers(&log.view()).iter().find_map(madang_protocol::record_batch::BatchHeader::delete_horizon);
        assert_eq!(horizon, Some(11_000));
        assert_eq!(read_records(&log.view())[&3].timestamp, 7, "times count from the horizon now, and are the same");
        // A later pass before the horizon keeps tombstone and horizon, the first pass after it removes it.
        append(&mut log, &[rec("d", Some("1"), 8)]);
        compact_all(&mut log, 10_999, &settings);
        assert_eq!(keys(&log), [&all[..], &[entry(4, "d", true)]].concat());
        append(&mut log, &[rec("d", Some("2"), 9)]);
        compact_all(&mut log, 11_000, &settings);
        assert_eq!(keys(&log), [entry(1, "b", true), entry(3, "c", true), entry(5, "d", true)]);
    }
}

#[test]
fn a_delete_horizon_that_a_client_set_is_not_believed() {
    let settings = CompactionSettings { delete_retention: Duration::from_secs(10), ..eager() };
    for codec in CODECS {
        let (_, mut log) = memory_log(LogConfig::default());
        append(&mut log, &[rec("a", Some("1"), 5)]);
        let mut forged = batch(&[rec("a", None, 6), rec("b", Some("1"), 7)], codec, None).to_vec();
        forged[layout::ATTRIBUTES + 1] |= layout::DELETE_HORIZON as u8;
        write_crc(&mut forged).expect("a batch");
        assert!(matches!(append_outcome(&mut log, forged.into()), AppendOutcome::Appended(_)));
        compact_all(&mut log, 1000, &settings);
        let all = [entry(1, "a", false), entry(2, "b", true)];
        assert_eq!(keys(&log), all, "long past the client's horizon");
        let horizons: Vec<_> = headers(&log.view()).iter().filter_map(BatchHeader::delete_horizon).collect();
        assert_eq!(horizons, [11_000]);
        append(&mut log, &[rec("c", Some("1"), 8)]);
        compact_all(&mut log, 10_999, &settings);
        assert_eq!(keys(&log), [&all[..], &[entry(3, "c", true)]].concat());
        append(&mut log, &[rec("c", Some("2"), 9)]);
        compact_all(&mut log, 11_000, &settings);
        assert_eq!(keys(&log), [entry(2, "b", true), entry(4, "c", true)]);
    }
}

#[test]
fn every_time_that_can_be_produced_survives_a_pass() {
    let (_, mut log) = memory_log(LogConfig::default());
    let times = [i64::MAX, -5, 1 - i64::MAX, 0];
    append(&mut log, &[rec("a", None, 0), rec("b", Some("1"), times[0]), rec("a", None, times[1])]);
    append(&mut log, &[rec("c", Some("1"), times[2]), rec("d", Some("1"), times[3])]);
    compact_all(&mut log, 1000, &eager());
    let found: Vec<i64> = read_records(&log.view()).values().map(|record| record.timestamp).collect();
    assert_eq!(found, times);
}

#[test]
fn the_active_segment_and_what_is_above_the_high_watermark_stay() {
    let (_, mut log) = memory_log(LogConfig::default());
    for _ in 0..3 {
        append(&mut log, &[rec("a", Some("1"), 1)]);
        log.roll(Wall(0)).expect("rolls");
    }
    append(&mut log, &[rec("a", Some("2"), 1)]);
    append(&mut log, &[rec("a", Some("2"), 1)]);
    let job = log.compaction_plan(Offset(2), Wall(0), &eager()).expect("two segments");
    let result = job.run(|_| Pace::Continue).expect("runs");
    assert!(matches!(log.install(result), Ok(Installed::Swapped(_))));
    assert_eq!(log.first_dirty_offset(), Offset(2));
    assert_eq!(keys(&log).iter().map(|found| found.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(compact(&mut log, 0, &eager()));
    assert_eq!(keys(&log).iter().map(|found| found.0).collect::<Vec<_>>(), [2, 3, 4]);
    assert!(!compact(&mut log, 0, &eager()), "nothing is dirty but the active segment");
}

#[test]
fn lags_and_the_ratio_decide_when() {
    let (_, mut log) = memory_log(LogConfig::default());
    append(&mut log, &[rec("a", Some("1"), 1000)]);
    append(&mut log, &[rec("a", Some("2"), 2000)]);
    log.roll(Wall(0)).expect("rolls");
    let slow = CompactionSettings { min_compaction_lag: Duration::from_secs(5), ..eager() };
    assert!(plan(&log, 6999, &slow).is_none());
    assert!(plan(&log, 7000, &slow).is_some());
    assert!(compact(&mut log, 7000, &slow));
    append(&mut log, &[rec("b", Some("1"), 3000)]);
    log.roll(Wall(0)).expect("rolls");
    let lazy = CompactionSettings {
        min_cleanable_dirty_ratio: 0.9,
        max_compaction_lag: Some(Duration::from_secs(9)),
        ..CompactionSettings::default()
    };
    assert!(plan(&log, 12_000, &lazy).is_none());
    assert!(plan(&log, 12_001, &lazy).is_some());
    assert!(plan(&log, i64::MAX, &CompactionSettings { max_compaction_lag: None, ..lazy }).is_none());
}

#[test]
fn a_record_without_a_key_goes() {
    let (_, mut log) = memory_log(LogConfig::default());
    let nobody = Rec { key: None, value: Some(b"1".to_vec()), timestamp: 1 };
    append(&mut log, &[nobody, rec("a", Some("1"), 1)]);
    compact_all(&mut log, 0, &eager());
    assert_eq!(keys(&log), [entry(1, "a", true)]);
}

#[test]
fn a_batch_of_which_all_stays_is_copied_as_it_is() {
    for codec in CODECS {
        let (_, mut log) = memory_log(LogConfig::default());
        append_outcome(&mut log, batch(&[rec("a", Some("1"), 1)], codec, None));
        append_outcome(&mut log, batch(&[rec("b", Some("1"), 1), rec("c", Some("1"), 9)], codec, Some((7, 0))));
        append_outcome(&mut log, batch(&[rec("a", Some("2"), 1), rec("d", Some("2"), 2)], codec, None));
        let before = read_batches(&log.view(), 4096);
        compact_all(&mut log, 0, &eager());
        assert_eq!(read_batches(&log.view(), 4096), before[1..]);
        append_outcome(&mut log, batch(&[rec("c", Some("2"), 1)], codec, None));
        compact_all(&mut log, 0, &eager());
        let after = read_batches(&log.view(), 4096);
        assert_eq!(headers(&log.view())[0].codec(), Ok(codec), "rewritten with its own codec");
        assert_eq!(after[1..2], before[2..]);
    }
}

#[test]
fn a_pass_goes_as_far_as_its_memory_reaches() {
    let (_, mut log) = memory_log(LogConfig::default());
    for round in 0..3 {
        for key in 0..100 {
            append(&mut log, &[rec(&format!("{key}"), Some(&format!("{round}")), 1)]);
        }
    }
    log.roll(Wall(0)).expect("rolls");
    let small = CompactionSettings { dedupe_buffer_bytes: 0, ..eager() };
    let mut passes = 0;
    while compact(&mut log, 0, &small) {
        passes += 1;
        assert!(passes < 20, "no progress");
    }
    assert!(passes > 2);
    assert_eq!(keys(&log).iter().map(|found| found.0).collect::<Vec<_>>(), (200..300).collect::<Vec<_>>());
}

#[test]
fn small_segments_are_joined_and_an_untouched_one_is_not_written() {
    let config = LogConfig { segment_bytes: 4000, ..LogConfig::default() };
    let (_, mut log) = memory_log(config);
    for round in 0..200 {
        append(&mut log, &[rec(&format!("{}", round % 10), Some(&"x".repeat(100)), round)]);
    }
    let before = log.segment_count();
    compact_all(&mut log, 0, &eager());
    // Neighbours are joined by the size they had before.
    assert!(before > 7 && log.segment_count() == before + 1);
    for round in 0..3 {
        append(&mut log, &[rec("other", Some("x"), 300 + round)]);
        compact_all(&mut log, 0, &eager());
    }
    assert_eq!(log.segment_count(), 2);
    append(&mut log, &[rec("new", Some("x"), 400)]);
    log.roll(Wall(0)).expect("rolls");
    let far = CompactionSettings::default();
    let settings = CompactionSettings { min_cleanable_dirty_ratio: 0.01, ..far };
    log.apply_config(LogConfig { segment_bytes: 100, ..LogConfig::default() });
    let result = plan(&log, 0, &settings).expect("dirty").run(|_| Pace::Continue).expect("runs");
    assert_eq!(result.stats().bytes_written, 0, "every batch stays, and no two segments fit into one");
    assert!(matches!(log.install(result), Ok(Installed::Swapped(_))));
}

#[test]
fn a_stopped_or_failed_job_leaves_nothing() {
    let (disk, mut log) = memory_log(LogConfig { segment_bytes: 2000, ..LogConfig::default() });
    for round in 0..200 {
        append(&mut log, &[rec("a", Some("1"), round)]);
    }
    let before = names(disk.as_ref());
    let mut asked = 0;
    loop {
        let job = plan(&log, 0, &eager()).expect("dirty");
        let mut left = asked;
        let result = job.run(|_| {
            left -= 1;
            if left < 0 { Pace::Stop } else { Pace::Continue }
        });
        if result.is_ok() {
            break;
        }
        assert!(matches!(result, Err(CompactionError::Stopped)));
        assert_eq!(names(disk.as_ref()), before);
        asked += 1;
    }
    assert!(asked > 5);
}

#[test]
fn a_damaged_batch_is_reported_and_nothing_changes() {
    let disk = FaultDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut log = open(&shared, Path::new(DIRECTORY), LogConfig::default(), Start::Unclean);
    append(&mut log, &[rec("a", Some("1"), 1)]);
    append(&mut log, &[rec("a", Some("2"), 1)]);
    log.roll(Wall(0)).expect("rolls");
    disk.flip_bit(&Path::new(DIRECTORY).join("00000000000000000000.log"), 140, 3).expect("flips");
    let found = plan(&log, 0, &eager()).expect("dirty").run(|_| Pace::Continue);
    assert!(matches!(found, Err(CompactionError::Damaged { segment: Offset(0), .. })), "{found:?}");
}

/// Seed 2032 of the simulator: the batches of a producer went because of newer ones, which a power cut took, and its next one was refused.
#[test]
fn a_producer_stays_known_whatever_is_lost_above_the_high_watermark() {
    let (disk, mut log) = memory_log(LogConfig::default());
    let write = |log: &mut Log, sequence| {
        append_outcome(log, batch(&[rec("key", Some("value"), 0)], Codec::None, Some((7, sequence))))
    };
    for sequence in 0..3 {
        assert!(matches!(write(&mut log, sequence), AppendOutcome::Appended(_)));
    }
    append(&mut log, &[rec("key", Some("newer"), 0)]);
    log.roll(Wall(0)).expect("rolls");
    let high_watermark = log.log_end_offset();
    for sequence in 3..5 {
        assert!(matches!(write(&mut log, sequence), AppendOutcome::Appended(_)));
    }
    let job = log.compaction_plan(high_watermark, Wall(0), &eager()).expect("something is dirty");
    let _ = log.install(job.run(|_| Pace::Continue).expect("runs")).expect("installs");
    // A snapshot only saves work: a power cut may take it.
    for name in names(disk.as_ref()).iter().filter(|name| name.ends_with(".snapshot")) {
        disk.remove_file(&Path::new(DIRECTORY).join(name)).expect("removes");
    }
    log.truncate_to(high_watermark).expect("cuts");
    assert!(matches!(write(&mut log, 4), AppendOutcome::Refused(_)));
    assert!(matches!(write(&mut log, 1), AppendOutcome::Duplicate(found) if found.base_offset == Offset(1)));
    assert!(matches!(write(&mut log, 3), AppendOutcome::Appended(_)));
}

#[test]
fn a_workload_of_commits_stays_small() {
    let (_, mut log) = memory_log(LogConfig { segment_bytes: 20_000, ..LogConfig::default() });
    let settings = CompactionSettings::default();
    let mut largest = 0;
    for commit in 0..20_000 {
        append(&mut log, &[rec(&format!("group-{}", commit % 50), Some("an offset and its metadata"), commit)]);
        if commit % 100 == 0 {
            compact(&mut log, commit, &settings);
            largest = largest.max(log.size_in_bytes());
        }
    }
    assert!(largest < 60_000, "{largest} bytes");
    assert!(log.segment_count() < 5);
}

/// Records without timestamps are as old as their file, and a pass over them makes them no younger.
#[test]
fn what_has_no_timestamps_keeps_its_age() {
    let memory = FaultDisk::new();
    let disk: Arc<dyn Disk> = Arc::new(memory.clone());
    let aging = LogConfig { retention: Some(Duration::from_millis(500)), ..LogConfig::default() };
    let mut log = open(&disk, Path::new(DIRECTORY), aging, Start::Unclean);
    memory.set_wall(Wall(1000));
    for value in ["1", "2"] {
        append(&mut log, &[rec("a", Some(value), -1)]);
    }
    memory.set_wall(Wall(9000));
    compact_all(&mut log, 9000, &eager());
    assert_eq!(keys(&log), [entry(1, "a", true)]);
    assert_eq!(log.delete_old_segments(Offset(2), Wall(1500)).expect("looks"), 0);
    assert_eq!(log.delete_old_segments(Offset(2), Wall(1501)).expect("deletes"), 1);
}
