//! Readers, retention, truncation and restarts while a job is under way.

use madang_actors::clock::Wall;
use madang_protocol::payload::Payload;
use madang_protocol::types::Offset;
use madang_storage::{LogConfig, ReadError, RealDisk};

use super::*;

fn config() -> LogConfig {
    LogConfig { segment_bytes: 2000, index_interval_bytes: 200, ..LogConfig::default() }
}

fn fill(log: &mut Log, count: i64) {
    for at in 0..count {
        append(log, &[rec(&format!("{}", at % 7), Some(&format!("{at}")), at)]);
    }
}

#[test]
fn an_older_view_reads_the_older_bytes_or_learns_that_it_is_stale() {
    let directory = tempfile::tempdir().expect("a directory");
    // One descriptor at most: every file is closed and looked for again all the time.
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(1));
    let mut log = open(&disk, &directory.path().join("topic-0"), config(), Start::Unclean);
    fill(&mut log, 300);
    let (before, end) = (log.view(), log.log_end_offset());
    let expected = read_batches(&before, 4096);
    let region = before.read(Offset(0), end, 1500, true).expect("reads").records;
    let bytes = region.read().expect("readable").to_vec();
    log.apply_config(LogConfig { segment_bytes: 7000, ..config() });
    compact_all(&mut log, 0, &eager());
    assert!(matches!(region, Payload::Regions(_)));
    assert_eq!(region.read().expect("still readable").to_vec(), bytes);
    let mut stale = 0;
    for old in &expected {
        let base = BatchHeader::parse(old).expect("a header").base_offset;
        match before.read(base, end, 1, true) {
            Ok(read) => assert_eq!(&read.records.read().expect("readable")[..], &old[..], "mixed bytes at {base}"),
            Err(ReadError::Stale) => stale += 1,
            Err(other) => panic!("at {base}: {other}"),
        }
    }
    assert!(stale > 0 && stale < expected.len());
    let after = log.view();
    assert!(read_batches(&after, 4096).len() < 30);
    assert_eq!(table(read_records(&after).values()).len(), 7);
    // The same bytes are there when another process looks.
    let written = read_batches(&after, 4096);
    log.close().expect("closes");
    let log = open(&disk, &directory.path().join("topic-0"), config(), Start::Clean);
    assert_eq!(read_batches(&log.view(), 4096), written);
}

#[test]
fn what_is_appended_while_a_job_runs_is_not_touched() {
    let (_, mut log) = memory_log(config());
    fill(&mut log, 100);
    let job = plan(&log, 0, &eager()).expect("dirty");
    fill(&mut log, 100);
    log.roll(Wall(0)).expect("rolls");
    let result = job.run(|_| Pace::Continue).expect("runs");
    fill(&mut log, 100);
    assert!(matches!(log.install(result), Ok(Installed::Swapped(_))));
    let found = read_records(&log.view());
    assert_eq!(found.range(100..).count(), 200);
    assert!(log.first_dirty_offset() <= Offset(100));
    assert_eq!(table(found.values())[&b"3".to_vec()], b"94");
}

#[test]
fn a_result_that_no_longer_fits_is_refused_and_removed() {
    for change in 0..4 {
        let (disk, mut log) = memory_log(config());
        fill(&mut log, 100);
        let result = plan(&log, 0, &eager()).expect("dirty").run(|_| Pace::Continue).expect("runs");
        match change {
            0 => log.truncate_to(Offset(50)).expect("truncates"),
            1 => {
                log.set_log_start_offset(Offset(60)).expect("moves");
                assert!(log.delete_old_segments(Offset(100), Wall(0)).expect("deletes") > 0);
            }
            2 => {
                assert!(compact(&mut log, 0, &eager()));
                fill(&mut log, 100);
            }
            _ => log = open(&disk, Path::new(DIRECTORY), config(), Start::SameProcess),
        }
        let before = read_batches(&log.view(), 4096);
        assert!(matches!(log.install(result), Ok(Installed::Stale)), "change {change}");
        assert_eq!(read_batches(&log.view(), 4096), before);
        assert!(!names(disk.as_ref()).iter().any(|name| name.ends_with(".cleaned")));
    }
}

#[test]
fn a_truncated_log_forgets_that_it_was_clean() {
    for reopen in [false, true] {
        let (disk, mut log) = memory_log(config());
        fill(&mut log, 200);
        compact_all(&mut log, 0, &eager());
        fill(&mut log, 20);
        log.truncate_to(Offset(150)).expect("truncates");
        if reopen {
            log = open(&disk, Path::new(DIRECTORY), config(), Start::SameProcess);
        }
        assert!(log.log_end_offset() <= Offset(150));
        assert!(log.first_dirty_offset() <= log.log_end_offset());
        let view = log.view();
        for from in 0..view.log_end_offset().0 {
            let read = view.read(Offset(from), view.log_end_offset(), 1, true).expect("reads");
            assert!(read.next_offset > Offset(from), "at {from}");
        }
        fill(&mut log, 200);
        compact_all(&mut log, 0, &eager());
        assert_eq!(read_records(&log.view()).len(), 7);
    }
}

#[test]
fn retention_goes_on_beside_compaction() {
    let retention = Some(std::time::Duration::from_millis(100));
    let (_, mut log) = memory_log(LogConfig { retention, ..config() });
    fill(&mut log, 300);
    compact_all(&mut log, 0, &eager());
    for at in 300..400 {
        append(&mut log, &[rec("new", Some("1"), at)]);
    }
    compact_all(&mut log, 0, &eager());
    append(&mut log, &[rec("new", Some("2"), 1000)]);
    log.roll(Wall(0)).expect("rolls");
    assert!(log.delete_old_segments(log.log_end_offset(), Wall(1050)).expect("deletes") > 0);
    assert_eq!(log.log_start_offset(), Offset(400));
    assert_eq!(read_records(&log.view()).len(), 1);
    append(&mut log, &[rec("new", Some("3"), 1000)]);
    compact_all(&mut log, 0, &eager());
    assert_eq!(read_records(&log.view()).keys().copied().collect::<Vec<_>>(), [401]);
}
