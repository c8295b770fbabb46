//! A run with compactions over the memory disk, crashed, or failing once, at each of its operations in turn.

use std::collections::BTreeMap;

use madang_actors::clock::Wall;
use madang_actors::prng::Prng;
use madang_protocol::types::Offset;
use madang_storage::{CompactionSettings, Crash, Fault, LogConfig};

use super::*;

/// What the run has done, as the disk never sees it.
#[derive(Default)]
struct Run {
    written: BTreeMap<i64, Rec>,
    confirmed: i64,
    swapped: usize,
    wall: i64,
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 900, index_interval_bytes: 200, ..LogConfig::default() }
}

fn settings() -> CompactionSettings {
    CompactionSettings { delete_retention: std::time::Duration::from_millis(20), ..eager() }
}

fn reopen(disk: &FaultDisk, start: Start, confirmed: i64) -> Option<Log> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let open = OpenLog { start, recovery_point: Some(Offset(confirmed)), ..OpenLog::default() };
    Log::open(disk, Path::new(DIRECTORY), config(), &open).map(|(log, _)| log).ok()
}

impl Run {
    /// One step; none if the disk failed.
    fn step(&mut self, log: &mut Log, prng: &mut Prng) -> Option<()> {
        self.wall += 5;
        match prng.below(10) {
            0..=4 => self.append(log, prng),
            5..=6 => self.sync(log),
            7 => log.roll(Wall(self.wall)).ok(),
            _ => self.compact(log),
        }
    }

    fn append(&mut self, log: &mut Log, prng: &mut Prng) -> Option<()> {
        let start = log.log_end_offset().0;
        let mut batches = Vec::new();
        for at in 0..1 + prng.below(4) as i64 {
            let key = format!("{}", prng.below(6));
            let value = (!prng.chance(1, 3)).then(|| "v".repeat(prng.below(60) as usize));
            let record = rec(&key, value.as_deref(), self.wall);
            batches.push(BatchToAppend::new(batch(std::slice::from_ref(&record), Codec::None, None)).expect("a batch"));
            self.written.insert(start + at, record);
        }
        log.append_as_leader(&batches, LeaderEpoch(1), Wall(self.wall)).ok().map(drop)
    }

    fn sync(&mut self, log: &mut Log) -> Option<()> {
        let Some(request) = log.take_dirty() else { return Some(()) };
        self.confirmed = log.synced(request.perform()).ok()?.0;
        Some(())
    }

    fn compact(&mut self, log: &mut Log) -> Option<()> {
        let watermark = Offset(self.confirmed);
        let Some(job) = log.compaction_plan(watermark, Wall(self.wall), &settings()) else { return Some(()) };
        let result = job.run(|_| Pace::Continue).ok()?;
        assert!(matches!(log.install(result).ok()?, Installed::Swapped(_)));
        self.swapped += 1;
        Some(())
    }

    /// No record is lost, none comes back, nothing is left over.
    fn check(&self, log: &Log, disk: &FaultDisk, what: &str) {
        let end = log.log_end_offset().0;
        assert!(end >= self.confirmed, "{what}: ends at {end}, {} was confirmed", self.confirmed);
        let found = read_records(&log.view());
        for (offset, record) in &found {
            assert_eq!(self.written.get(offset), Some(record), "{what}: the record at {offset}");
        }
        let expected = table(self.written.range(..end).map(|(_, record)| record));
        assert_eq!(table(found.values()), expected, "{what}: the table up to {end}");
        let left = names(disk).into_iter().find(|name| name.ends_with(".cleaned") || name.ends_with(".swap"));
        assert_eq!(left, None, "{what}");
    }

    /// The recovered log is compacted to the end, and still says the same.
    fn go_on(&mut self, log: &mut Log, disk: &FaultDisk, what: &str) {
        self.written.split_off(&log.log_end_offset().0);
        self.wall += 1000;
        log.roll(Wall(self.wall)).expect("rolls");
        self.sync(log).expect("syncs");
        for _ in 0..2 {
            self.compact(log).expect("compacts");
            self.wall += 1000;
            let record = rec("last", Some("1"), self.wall);
            self.written.insert(append(log, std::slice::from_ref(&record)).0, record);
            log.roll(Wall(self.wall)).expect("rolls");
            self.sync(log).expect("syncs");
        }
        self.compact(log).expect("compacts");
        self.check(log, disk, what);
    }
}

fn run(seed: u64, at: Option<u64>, fault: Fault, kind: Crash) -> (u64, usize) {
    let disk = FaultDisk::new();
    disk.create_dir(Path::new("/data")).expect("creates");
    disk.settle();
    let (mut prng, mut run) = (Prng::new(seed), Run::default());
    let mut fate = Prng::new(seed ^ at.unwrap_or(0).wrapping_mul(0x9e37));
    let before = disk.operations();
    if let Some(at) = at {
        disk.plan(before + at, fault);
    }
    if let Some(mut log) = reopen(&disk, Start::Unclean, 0) {
        for _ in 0..60 {
            if run.step(&mut log, &mut prng).is_none() {
                break;
            }
        }
    }
    let operations = disk.operations() - before;
    let what = format!("seed {seed}, {fault:?} at {at:?}, {kind:?}");
    let start = if fault == Fault::Crash { Start::Unclean } else { Start::SameProcess };
    if start == Start::Unclean {
        disk.crash(kind, &mut fate);
    }
    let mut log = reopen(&disk, start, run.confirmed).unwrap_or_else(|| panic!("{what}: does not open"));
    run.check(&log, &disk, &what);
    if start == Start::Unclean {
        let end = log.log_end_offset();
        disk.crash(Crash::Power, &mut fate);
        log = reopen(&disk, start, end.0).unwrap_or_else(|| panic!("{what}: does not open again"));
        assert_eq!(log.log_end_offset(), end, "{what}: recovered and lost again");
        run.check(&log, &disk, &what);
    }
    let swapped = run.swapped;
    run.go_on(&mut log, &disk, &what);
    (operations, swapped)
}

fn sweep(seeds: std::ops::Range<u64>, fault: Fault, kind: Crash) {
    let (mut operations, mut swapped) = (0, 0);
    for seed in seeds {
        let (count, swaps) = run(seed, None, Fault::Crash, kind);
        for at in 0..count {
            run(seed, Some(at), fault, kind);
        }
        (operations, swapped) = (operations + count, swapped + swaps);
    }
    assert!(operations > 500 && swapped > 10, "{operations} operations, {swapped} compactions");
}

#[test]
fn a_power_cut_at_any_operation_loses_and_resurrects_nothing() {
    sweep(0..5, Fault::Crash, Crash::Power);
}

#[test]
fn a_kill_at_any_operation_loses_and_resurrects_nothing() {
    sweep(100..103, Fault::Crash, Crash::Kill);
}

#[test]
fn a_failure_of_any_operation_loses_and_resurrects_nothing() {
    sweep(200..203, Fault::Error(std::io::ErrorKind::StorageFull), Crash::Kill);
}
