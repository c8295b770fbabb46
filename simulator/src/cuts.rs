//! A follower's log alone: it is cut where its leader's parts from it, goes on behind the cut, and its machine loses power at any time. Batches
//! are as long as a sector, so that old and new bytes can lie side by side and each of them be whole.
//! Invariant: S1: what is recovered is the beginning of a log that there once was, never one mixed of two.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use madang_actors::clock::Wall;
use madang_actors::prng::Prng;
use madang_protocol::record_batch::{BatchBuilder, BatchOptions};
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{BatchToAppend, Crash, Disk, FaultDisk, Log, LogConfig, OpenLog, Start};

use crate::history::content;
use crate::invariants::read_view;
use crate::sim::Violation;

const DIRECTORY: &str = "/data/orders-0";
/// Of a batch, and of what the disk writes at once.
const SECTOR: usize = 512;
/// Cuts of a run.
const CUTS: usize = 40;

fn broken(code: &'static str, what: impl Into<String>) -> Violation {
    Violation { code, what: what.into() }
}

struct Model {
    disk: FaultDisk,
    prng: Prng,
    serial: u64,
    epoch: i32,
    /// The contents of the log as it is now.
    now: Vec<u64>,
    /// What every log that there ever was began with, batch after batch.
    ever: BTreeSet<Vec<u64>>,
    /// What is known to be on the device.
    recovery_point: i64,
}

impl Model {
    fn open(&self) -> Result<Log, Violation> {
        let recovery_point = Some(Offset(self.recovery_point));
        let open = OpenLog { start: Start::Unclean, recovery_point, ..OpenLog::default() };
        let config = LogConfig { segment_bytes: 8 * SECTOR as u64, ..LogConfig::default() };
        let opened = Log::open(Arc::new(self.disk.clone()), Path::new(DIRECTORY), config, &open);
        opened.map(|(log, _)| log).map_err(|error| broken("S1", format!("does not open: {error}")))
    }

    /// A batch of one record that is exactly one sector long.
    fn batch(&mut self) -> Bytes {
        self.serial += 1;
        let build = |length: usize, serial: u64| {
            let mut builder = BatchBuilder::new(BatchOptions::default());
            let mut value = serial.to_be_bytes().to_vec();
            value.resize(length, 7);
            assert!(builder.append(0, None, Some(&value), &[]).is_ok(), "a sector's record fits");
            builder.build().unwrap_or_default()
        };
        let lengths = 400..SECTOR;
        let serial = self.serial;
        lengths.map(|length| build(length, serial)).find(|batch| batch.len() == SECTOR).unwrap_or_default()
    }

    fn append(&mut self, log: &mut Log) -> Result<(), Violation> {
        for _ in 0..1 + self.prng.below(6) {
            let bytes = self.batch();
            self.now.push(content(&bytes));
            self.ever.insert(self.now.clone());
            let batch = BatchToAppend::new(bytes).map_err(|_| broken("S6", "a batch of the run is none"))?;
            log.append_as_leader(&[batch], LeaderEpoch(self.epoch), Wall(0))
                .map_err(|error| broken("R8", format!("not appended: {:?}", error.outcomes)))?;
        }
        Ok(())
    }

    fn sync(&mut self, log: &mut Log) -> Result<(), Violation> {
        while let Some(request) = log.take_dirty() {
            log.synced(request.perform()).map_err(|error| broken("S1", error.to_string()))?;
        }
        self.recovery_point = log.confirmed_offset().0;
        Ok(())
    }

    /// As a follower does: the recovery point goes down first, and what follows waits until nothing stands against it.
    fn cut(&mut self, log: &mut Log) -> Result<(), Violation> {
        let end = self.now.len() as u64;
        let to = self.prng.below(end + 1);
        self.recovery_point = self.recovery_point.min(to as i64);
        log.cut_to(Offset(to as i64)).map_err(|error| broken("S4", error.to_string()))?;
        self.now.truncate(to as usize);
        self.epoch += 1;
        if !log.is_settled() {
            self.sync(log)?;
        }
        Ok(())
    }

    fn recovered(&mut self, log: &Log) -> Result<(), Violation> {
        let end = log.log_end_offset().0;
        if end < self.recovery_point {
            return Err(broken("S1", format!("ends at {end}, {} was on the device", self.recovery_point)));
        }
        let found = read_view(&log.view(), 0, end).map_err(|error| broken("S4", error.to_string()))?;
        let contents: Vec<u64> = found.iter().map(|read| read.content).collect();
        if !contents.is_empty() && !self.ever.contains(&contents) {
            let epochs: Vec<i32> = found.iter().map(|read| read.header.partition_leader_epoch.0).collect();
            return Err(broken("S1", format!("a log that never was, of the epochs {epochs:?}")));
        }
        self.now = contents;
        self.recovery_point = log.confirmed_offset().0;
        Ok(())
    }
}

/// Runs one seed.
///
/// # Errors
/// The broken invariant.
pub fn run(seed: u64) -> Result<(), Violation> {
    let mut model = Model {
        disk: FaultDisk::new(),
        prng: Prng::new(seed),
        serial: 0,
        epoch: 0,
        now: Vec::new(),
        ever: BTreeSet::new(),
        recovery_point: 0,
    };
    model.disk.create_dir(Path::new("/data")).map_err(|error| broken("S1", error.to_string()))?;
    model.disk.settle();
    let mut log = model.open()?;
    for _ in 0..CUTS {
        model.append(&mut log)?;
        if model.prng.chance(1, 2) {
            model.sync(&mut log)?;
        }
        model.cut(&mut log)?;
        model.append(&mut log)?;
        if model.prng.chance(1, 3) {
            drop(log);
            let mut fate = model.prng.fork();
            model.disk.crash(Crash::Power, &mut fate);
            log = model.open()?;
            model.recovered(&log)?;
        }
    }
    Ok(())
}
