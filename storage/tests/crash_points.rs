//! A long run over the memory disk, crashed at each of its operations in turn. What was confirmed is there afterwards, nothing else than what
//! was written is, and every side file equals its rebuild.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use common::{bytes, payload_batches, small};
use madang_actors::clock::Wall;
use madang_actors::prng::Prng;
use madang_protocol::record_batch::stamp;
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{
    AppendOutcome, BatchToAppend, Crash, Disk, Fault, FaultDisk, Log, Note, OpenLog, RealDisk, Start,
};

const DIRECTORY: &str = "/data/topic-0";
const STEPS: usize = 50;

/// What the run has done so far, as the disk never sees it.
#[derive(Default)]
struct Model {
    /// Every batch that was ever handed to the log at an offset, newest last.
    written: BTreeMap<i64, Vec<Bytes>>,
    /// Batches that the log holds now, by offset.
    current: BTreeMap<i64, Bytes>,
    end: i64,
    confirmed: i64,
    log_start: i64,
    /// A start that was being set when the crash came.
    maybe_start: i64,
    epoch: i32,
    /// The lowest end a truncation in progress may have left.
    cut: Option<i64>,
    /// What was noted last: after each step, and before a cut.
    noted: Note,
}

fn open(disk: &FaultDisk, recovery_point: Option<i64>, noted: Option<(Start, Note)>) -> Option<Log> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let start = noted.map_or(Start::Unclean, |(start, _)| start);
    let noted = noted.map(|(_, note)| note);
    let open = OpenLog { start, noted, recovery_point: recovery_point.map(Offset), ..OpenLog::default() };
    Log::open(disk, Path::new(DIRECTORY), small(), &open).ok().map(|(log, _)| log)
}

impl Model {
    fn note(&mut self, end: i64) {
        let (log_end_offset, confirmed_end) = (Offset(end), Offset(self.confirmed));
        self.noted = Note { log_end_offset, confirmed_end, ..Note::default() };
    }

    /// One step; false if the disk failed.
    fn step(&mut self, log: &mut Log, prng: &mut Prng) -> bool {
        match prng.below(20) {
            0..=11 => self.append(log, prng),
            12..=15 => self.sync(log),
            16 => self.truncate(log, prng),
            17 => self.delete(log, prng),
            18 => log.roll(Wall(0)).is_ok(),
            _ => {
                self.epoch += 1;
                log.begin_epoch(LeaderEpoch(self.epoch)).is_ok()
            }
        }
    }

    fn append(&mut self, log: &mut Log, prng: &mut Prng) -> bool {
        let count = 1 + prng.below(4);
        let mut batches = Vec::new();
        let mut at = self.end;
        for _ in 0..count {
            let records = 1 + prng.below(3) as i32;
            let raw = bytes(records, 20 + prng.below(600) as usize, prng.below(1000) as i64);
            batches.push(BatchToAppend::new(raw.clone()).expect("a whole batch"));
            let mut stored = raw.to_vec();
            stamp(&mut stored, Offset(at), LeaderEpoch(self.epoch));
            self.written.entry(at).or_default().push(stored.into());
            at += i64::from(records);
        }
        let (outcomes, ok) = match log.append_as_leader(&batches, LeaderEpoch(self.epoch), Wall(0)) {
            Ok(outcomes) => (outcomes, true),
            Err(error) => (error.outcomes, false),
        };
        for outcome in outcomes {
            let AppendOutcome::Appended(appended) = outcome else { panic!("not appended: {outcome:?}") };
            assert_eq!(appended.base_offset, Offset(self.end));
            let newest = self.written[&self.end].last().expect("written").clone();
            self.current.insert(self.end, newest);
            self.end = appended.last_offset.0 + 1;
        }
        assert_eq!(log.log_end_offset(), Offset(self.end));
        ok
    }

    fn sync(&mut self, log: &mut Log) -> bool {
        let Some(request) = log.take_dirty() else { return true };
        let outcome = request.perform();
        match log.synced(outcome) {
            Ok(confirmed) => {
                self.confirmed = confirmed.0;
                true
            }
            Err(_) => false,
        }
    }

    fn truncate(&mut self, log: &mut Log, prng: &mut Prng) -> bool {
        let low = self.log_start.max(self.end - 20);
        let target = low + prng.below((self.end - low).max(1) as u64) as i64;
        let Some(end) = self.current.range(self.log_start..=target).next_back().map(|(offset, _)| *offset) else {
            return true;
        };
        self.cut = Some(end);
        self.confirmed = self.confirmed.min(end);
        self.note(end);
        if log.truncate_to(Offset(end)).is_err() {
            return false;
        }
        self.current.split_off(&end);
        self.end = end;
        self.cut = None;
        assert_eq!(log.log_end_offset(), Offset(end));
        true
    }

    fn delete(&mut self, log: &mut Log, prng: &mut Prng) -> bool {
        let start = self.log_start + prng.below((self.confirmed - self.log_start).max(1) as u64) as i64;
        self.maybe_start = start;
        if log.set_log_start_offset(Offset(start)).is_err() {
            return false;
        }
        self.log_start = self.log_start.max(start);
        log.delete_old_segments(Offset(self.confirmed), Wall(0)).is_ok()
    }

    /// S1: durable is in recovered, recovered is in written. S2: every byte served has a good CRC. S4: no hole, no orphan.
    fn check(&self, log: &Log, what: &str) {
        let view = log.view();
        let (start, end) = (view.log_start_offset().0, view.log_end_offset().0);
        assert!(start == self.log_start || start == self.maybe_start || start == end, "{what}: starts at {start}");
        assert!(end >= self.confirmed, "{what}: ends at {end}, {} was confirmed", self.confirmed);
        let mut at = start;
        while at < end {
            let read = view.read(Offset(at), Offset(end), 700, true).unwrap_or_else(|error| panic!("{what}: {error}"));
            let raw = read.records.read().expect("reads");
            let mut position = 0;
            for header in payload_batches(&read.records) {
                let batch = &raw[position..position + header.size_in_bytes()];
                position += batch.len();
                let base = header.base_offset.0;
                let ever = self.written.get(&base).is_some_and(|all| all.iter().any(|written| written[..] == *batch));
                assert!(ever, "{what}: the batch at {base} was never written");
                if header.next_offset().0 <= self.confirmed {
                    assert_eq!(
                        self.current.get(&base).map(|now| &now[..]),
                        Some(batch),
                        "{what}: confirmed batch {base}"
                    );
                }
                let epoch = header.partition_leader_epoch;
                assert_eq!(
                    log.leader_epochs().epoch_at(Offset(base.max(start))),
                    Some(epoch),
                    "{what}: epoch at {base}"
                );
                assert!(base <= at && header.next_offset().0 > at, "{what}: a hole at {at}");
                at = header.next_offset().0;
            }
            assert!(position > 0, "{what}: nothing at {at} of {end}");
        }
    }
}

/// Runs until the plan's crash, or to the end; the number of operations.
fn run(seed: u64, crash_at: Option<u64>, kind: Crash, noted: Option<Start>) -> u64 {
    let disk = FaultDisk::new();
    disk.create_dir(Path::new("/data")).expect("creates");
    disk.settle();
    let mut prng = Prng::new(seed);
    let mut crash_prng = Prng::new(seed ^ crash_at.unwrap_or(0).wrapping_mul(0x9e37));
    let before = disk.operations();
    let mut model = Model::default();
    if let Some(at) = crash_at {
        disk.plan(before + at, Fault::Crash);
    }
    if let Some(mut log) = open(&disk, None, None) {
        for _ in 0..STEPS {
            if !model.step(&mut log, &mut prng) {
                break;
            }
            model.note(model.end);
        }
    }
    let operations = disk.operations() - before;
    let what = format!("seed {seed}, crash at {crash_at:?}, {kind:?}");
    assert_eq!(disk.is_crashed(), crash_at.is_some_and(|at| at < operations), "{what}: a failure without a fault");
    disk.crash(kind, &mut crash_prng);
    let noted = noted.map(|start| (start, model.noted));
    let mut log = open(&disk, Some(model.confirmed), noted).unwrap_or_else(|| panic!("{what}: does not open"));
    model.check(&log, &what);
    if noted.is_some() {
        assert!(log.log_end_offset() >= model.noted.log_end_offset, "{what}: a killed process lost what was noted");
        // What the page cache had is not lost with the next kill either, and counts once it is synced.
        while let Some(request) = log.take_dirty() {
            let outcome = request.perform();
            log.synced(outcome).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        assert_eq!(log.confirmed_offset(), log.log_end_offset(), "{what}");
    }
    let expected = (log.leader_epochs().to_bytes(), log.producers().to_bytes());
    // What was recovered is on the device: a second power cut takes nothing.
    let end = log.log_end_offset();
    disk.crash(Crash::Power, &mut crash_prng);
    log = open(&disk, Some(end.0), None).unwrap_or_else(|| panic!("{what}: does not open again"));
    assert_eq!(log.log_end_offset(), end, "{what}: recovered and lost again");
    assert_eq!((log.leader_epochs().to_bytes(), log.producers().to_bytes()), expected, "{what}: side state");
    operations
}

fn sweep(seed: u64, kind: Crash, noted: Option<Start>) -> u64 {
    let operations = run(seed, None, kind, noted);
    for at in 0..operations {
        run(seed, Some(at), kind, noted);
    }
    operations
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_confirmed() {
    let operations: u64 = (0..20).map(|seed| sweep(seed, Crash::Power, None)).sum();
    assert!(operations >= 2000, "{operations} operations");
}

#[test]
fn a_kill_at_any_operation_loses_nothing_confirmed() {
    for seed in 100..105 {
        sweep(seed, Crash::Kill, None);
    }
}

#[test]
fn a_kill_at_any_operation_loses_nothing_that_was_noted() {
    for (at, start) in [Start::Unclean, Start::SameBoot].into_iter().cycle().take(4).enumerate() {
        sweep(200 + at as u64, Crash::Kill, Some(start));
    }
}

#[test]
fn a_real_disk_runs_the_same_steps() {
    let directory = tempfile::tempdir().expect("a directory");
    for seed in 0..4 {
        let path = directory.path().join(format!("topic-{seed}"));
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(2));
        let mut log = Log::open(Arc::clone(&disk), &path, small(), &OpenLog::default()).expect("opens").0;
        let (mut model, mut prng) = (Model::default(), Prng::new(seed));
        for _ in 0..STEPS {
            assert!(model.step(&mut log, &mut prng));
        }
        model.check(&log, "before");
        log.close().expect("closes");
        let open = OpenLog { start: Start::Clean, ..OpenLog::default() };
        model.check(&Log::open(disk, &path, small(), &open).expect("opens").0, "after");
    }
}
