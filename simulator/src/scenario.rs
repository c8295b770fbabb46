//! One log over the faulty disk, with what a single node's replica never does too: truncations, and syncs that end after them.
//! Invariant: the model knows what was written and confirmed, and nothing else.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use madang_actors::clock::Wall;
use madang_actors::prng::Prng;
use madang_protocol::record_batch::{BatchBuilder, BatchOptions};
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{
    AppendOutcome, BatchToAppend, Crash, Disk, Fault, FaultDisk, Log, LogConfig, OpenLog, Start, SyncOutcome,
};

use crate::history::content;
use crate::invariants::{batches, read_view};
use crate::sim::Violation;

const DIRECTORY: &str = "/data/orders-0";

/// What the run has done, as the disk never sees it.
struct Model {
    disk: FaultDisk,
    prng: Prng,
    serial: u64,
    written: BTreeMap<i64, Vec<u64>>,
    current: BTreeMap<i64, (u64, i64)>,
    end: i64,
    confirmed: i64,
    start: i64,
    asked_start: i64,
    epoch: i32,
    held: Option<SyncOutcome>,
}

fn broken(code: &'static str, what: impl Into<String>) -> Violation {
    Violation { code, what: what.into() }
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 1500, index_interval_bytes: 150, ..LogConfig::default() }
}

fn open(disk: &FaultDisk, confirmed: i64) -> Result<Log, String> {
    let open = OpenLog { start: Start::Unclean, recovery_point: Some(Offset(confirmed)), ..OpenLog::default() };
    let opened = Log::open(Arc::new(disk.clone()), Path::new(DIRECTORY), config(), &open);
    opened.map(|(log, _)| log).map_err(|error| error.to_string())
}

impl Model {
    fn new(seed: u64) -> Self {
        let disk = FaultDisk::new();
        let made = disk.create_dir(Path::new("/data"));
        assert!(made.is_ok(), "an empty disk takes a directory");
        disk.settle();
        Self {
            disk,
            prng: Prng::new(seed),
            serial: 0,
            written: BTreeMap::new(),
            current: BTreeMap::new(),
            end: 0,
            confirmed: 0,
            start: 0,
            asked_start: 0,
            epoch: 0,
            held: None,
        }
    }

    /// One step; none if the disk failed.
    fn step(&mut self, log: &mut Log) -> Result<Option<()>, Violation> {
        match self.prng.below(24) {
            0..=12 => self.append(log),
            13..=15 => Ok(self.begin_sync(log)),
            16..=18 => Ok(self.end_sync(log)),
            19 | 20 => self.truncate(log),
            21 => Ok(self.delete(log)),
            22 => Ok(log.roll(Wall(0)).ok()),
            _ => {
                self.epoch += 1;
                Ok(log.begin_epoch(LeaderEpoch(self.epoch)).ok())
            }
        }
    }

    fn batch(&mut self, records: i64) -> Bytes {
        self.serial += 1;
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for _ in 0..records {
            let filler = vec![self.serial as u8; 20 + self.prng.below(150) as usize];
            let added = builder.append(self.serial as i64, Some(&self.serial.to_be_bytes()), Some(&filler), &[]);
            assert!(added.is_ok(), "a record of the scenario fits");
        }
        builder.build().unwrap_or_default()
    }

    fn append(&mut self, log: &mut Log) -> Result<Option<()>, Violation> {
        let mut asked = Vec::new();
        let mut known = Vec::new();
        let mut at = self.end;
        for _ in 0..1 + self.prng.below(3) {
            let records = 1 + i64::try_from(self.prng.below(3)).unwrap_or(0);
            let bytes = self.batch(records);
            self.written.entry(at).or_default().push(content(&bytes));
            known.push((content(&bytes), records));
            at += records;
            asked.extend(BatchToAppend::new(bytes));
        }
        let (outcomes, ok) = match log.append_as_leader(&asked, LeaderEpoch(self.epoch), Wall(0)) {
            Ok(outcomes) => (outcomes, Some(())),
            Err(error) => (error.outcomes, None),
        };
        for (outcome, (content, records)) in outcomes.into_iter().zip(known) {
            let AppendOutcome::Appended(appended) = outcome else {
                return Err(broken("R8", format!("not appended: {outcome:?}")));
            };
            if appended.base_offset.0 != self.end {
                return Err(broken("R8", format!("appended at {}, the end is {}", appended.base_offset, self.end)));
            }
            self.current.insert(self.end, (content, self.end + records));
            self.end += records;
        }
        Ok(ok)
    }

    fn begin_sync(&mut self, log: &mut Log) -> Option<()> {
        if self.held.is_none()
            && let Some(request) = log.take_dirty()
        {
            let outcome = request.perform();
            let good = outcome.is_ok();
            self.held = Some(outcome);
            return good.then_some(());
        }
        Some(())
    }

    fn end_sync(&mut self, log: &mut Log) -> Option<()> {
        if let Some(outcome) = self.held.take() {
            self.confirmed = log.synced(outcome).ok()?.0;
        }
        Some(())
    }

    fn truncate(&mut self, log: &mut Log) -> Result<Option<()>, Violation> {
        let low = self.start.max(self.end - 12);
        let target =
            low + i64::try_from(self.prng.below(u64::try_from(self.end - low).unwrap_or(0).max(1))).unwrap_or(0);
        let Some(end) = self.current.range(self.start..=target).next_back().map(|(base, _)| *base) else {
            return Ok(Some(()));
        };
        // Whatever comes of it, nothing above it is promised any more.
        self.confirmed = self.confirmed.min(end);
        if log.truncate_to(Offset(end)).is_err() {
            return Ok(None);
        }
        self.current.split_off(&end);
        self.end = end;
        if log.log_end_offset().0 == end {
            Ok(Some(()))
        } else {
            Err(broken("S4", format!("cut to {end}, ends elsewhere")))
        }
    }

    fn delete(&mut self, log: &mut Log) -> Option<()> {
        let span = u64::try_from(self.confirmed - self.start).unwrap_or(0).max(1);
        let start = self.start + i64::try_from(self.prng.below(span)).unwrap_or(0);
        self.asked_start = self.asked_start.max(start);
        log.set_log_start_offset(Offset(start)).ok()?;
        self.start = self.start.max(start);
        log.delete_old_segments(Offset(self.confirmed), Wall(0)).ok().map(|_| ())
    }

    /// R10: the confirmed end is on the device. S3: each offset is found where it is.
    fn check_live(&self, log: &Log) -> Result<(), Violation> {
        let view = log.view();
        let found = read_view(&view, self.start, self.end).map_err(|error| broken("S4", error.to_string()))?;
        let read: BTreeMap<i64, u64> = found.iter().map(|read| (read.header.base_offset.0, read.content)).collect();
        for (base, (content, next)) in self.current.range(..self.end).filter(|(_, (_, next))| *next > self.start) {
            if read.get(base) != Some(content) {
                return Err(broken("S2", format!("the batch at {base} is not what was written")));
            }
            let last = read_view(&view, (*next - 1).max(self.start), *next)
                .map_err(|error| broken("S3", error.to_string()))?;
            if last.first().map(|read| read.content) != Some(*content) {
                return Err(broken("S3", format!("offset {} is not found where it is", next - 1)));
            }
        }
        self.check_durable(log.confirmed_offset().0)
    }

    fn check_durable(&self, confirmed: i64) -> Result<(), Violation> {
        let names = self.disk.list(Path::new(DIRECTORY)).unwrap_or_default();
        let mut found = BTreeMap::new();
        for name in names.iter().filter(|name| name.ends_with(".log")) {
            let bytes = self.disk.surviving_bytes(&Path::new(DIRECTORY).join(name)).unwrap_or_default();
            found.extend(batches(&bytes).iter().map(|read| (read.header.base_offset.0, read.content)));
        }
        for (base, (content, next)) in self.current.range(self.start..) {
            if *next <= confirmed && found.get(base) != Some(content) {
                return Err(broken("R10", format!("the batch at {base} is confirmed and not on the device")));
            }
        }
        Ok(())
    }

    /// S1, S2, S3, S4, S6 after a crash.
    fn check_recovered(&self, log: &Log) -> Result<(), Violation> {
        let view = log.view();
        let (start, end) = (view.log_start_offset().0, view.log_end_offset().0);
        if end < self.confirmed {
            return Err(broken("S1", format!("ends at {end}, {} was confirmed", self.confirmed)));
        }
        if start < self.start.min(end) || start > self.asked_start.max(self.start) {
            return Err(broken("R12", format!("starts at {start}, {} was asked", self.asked_start)));
        }
        let found = read_view(&view, start, end).map_err(|error| broken("S4", error.to_string()))?;
        let mut at = None;
        for read in &found {
            let (base, next) = (read.header.base_offset.0, read.header.next_offset().0);
            if !read.sound {
                return Err(broken("S2", format!("the batch at {base} fails its checksum")));
            }
            if !self.written.get(&base).is_some_and(|all| all.contains(&read.content)) {
                return Err(broken("S6", format!("the batch at {base} was never written")));
            }
            if next <= self.confirmed && self.current.get(&base).map(|(content, _)| *content) != Some(read.content) {
                return Err(broken("S1", format!("the confirmed batch at {base} is another")));
            }
            if at.is_some_and(|at| at != base) {
                return Err(broken("S4", format!("a hole before {base}")));
            }
            at = Some(next);
            let last =
                read_view(&view, (next - 1).max(start), next).map_err(|error| broken("S3", error.to_string()))?;
            if last.first().map(|read| read.content) != Some(read.content) {
                return Err(broken("S3", format!("offset {} is not found where it is", next - 1)));
            }
        }
        if at.unwrap_or(start) == end {
            Ok(())
        } else {
            Err(broken("S4", format!("batches end at {at:?}, the log at {end}")))
        }
    }
}

/// Runs `operations` disk operations of the scenario, or up to a crash at one of them; then crashes, recovers, checks, and cuts the
/// power once more. Answers how many operations there were.
///
/// # Errors
/// The invariant that is broken.
pub fn run(seed: u64, operations: u64, crash_at: Option<u64>, kind: Crash) -> Result<u64, Violation> {
    let mut model = Model::new(seed);
    let before = model.disk.operations();
    if let Some(at) = crash_at {
        model.disk.plan(before + at, Fault::Crash);
    }
    let mut opened = open(&model.disk, 0).ok();
    if let Some(log) = &mut opened {
        while model.disk.operations() - before < operations {
            if model.step(log)?.is_none() {
                break;
            }
            if crash_at.is_none() {
                model.check_live(log)?;
            }
        }
    }
    let count = model.disk.operations() - before;
    if crash_at.is_some_and(|at| at < count) != model.disk.is_crashed() {
        return Err(broken("S1", "a failure without a fault"));
    }
    drop(opened);
    let mut fate = Prng::new(seed ^ crash_at.unwrap_or(0).wrapping_mul(0x9e37_79b9));
    model.disk.crash(kind, &mut fate);
    let log = open(&model.disk, model.confirmed).map_err(|error| broken("S1", format!("does not open: {error}")))?;
    model.check_recovered(&log)?;
    let end = log.log_end_offset();
    drop(log);
    model.disk.crash(Crash::Power, &mut fate);
    let log = open(&model.disk, end.0).map_err(|error| broken("S1", format!("does not open again: {error}")))?;
    if log.log_end_offset() != end {
        return Err(broken("S1", format!("recovered to {end} and lost again, to {}", log.log_end_offset())));
    }
    Ok(count)
}
