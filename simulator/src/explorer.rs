//! The explorer in its one-replica form: the real replica, three records, every order of messages, sync completions, panics, kills and
//! power cuts, breadth first, each state once.
//! Invariant: a path is replayed from its start, so a state depends on its path alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_actors::clock::{Mono, Wall};
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_cluster::replica::{
    Append, Durability, Replica, ReplicaConfig, ReplicaEffect, ReplicaInput, ReplicaSnapshot, RequiredAcks,
};
use madang_cluster::request::RequestId;
use madang_protocol::record_batch::{BatchBuilder, BatchOptions, ProduceRules, validate_produced};
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{Crash, Disk, FaultDisk, Log, LogConfig, OpenLog, Start, SyncOutcome, SyncRequest};

use crate::history::content;
use crate::invariants::{batches, read_view};
use crate::sim::Violation;

const DIRECTORY: &str = "/data/orders-0";
const RECORDS: u8 = 3;
/// Panics, kills and power cuts on one path.
const MOST_CRASHES: usize = 2;

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The append of that record is delivered.
    Append(u8),
    /// What was gathered is written.
    EndBatch,
    /// The device takes the sync that was asked for.
    Sync,
    /// The device refuses it.
    SyncFails,
    /// The completion is delivered.
    Complete,
    /// The replica panics and is rebuilt in its process.
    Panic,
    /// The process is killed.
    Kill,
    /// The power goes, and this of the unsynced bytes stays.
    Power(u8),
}

struct State {
    disk: FaultDisk,
    replica: Option<Replica>,
    incarnation: u64,
    process: i32,
    sent: u8,
    syncs: VecDeque<SyncRequest>,
    done: VecDeque<SyncOutcome>,
    published: Option<Arc<ReplicaSnapshot>>,
    contents: BTreeMap<u64, u8>,
    acked: BTreeMap<i64, u64>,
    high_watermark: i64,
    ever: BTreeMap<(i32, i64), u64>,
    /// A sync has failed: the directory is dead until the process starts again.
    dead: bool,
    rng: Prng,
}

fn broken(code: &'static str, what: impl Into<String>) -> Violation {
    Violation { code, what: what.into() }
}

fn directory() -> PathBuf {
    PathBuf::from(DIRECTORY)
}

fn record(number: u8) -> Bytes {
    // One idempotent producer: a record that comes before its turn is refused.
    let options =
        BatchOptions { producer_id: 7, producer_epoch: 0, base_sequence: i32::from(number), ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    let added = builder.append(0, None, Some(&[number; 40]), &[]);
    assert!(added.is_ok(), "a record of the explorer fits");
    builder.build().unwrap_or_default()
}

fn config() -> ReplicaConfig {
    ReplicaConfig {
        // Every batch rolls, so that names have to be synced too.
        log: LogConfig { segment_bytes: 150, ..LogConfig::default() },
        produce: ProduceRules::default(),
        compaction: None,
        durability: Durability::Fsync,
        min_in_sync_replicas: 1,
        deletes_old_records: true,
        replication_factor: 1,
        in_sync_replicas: 1,
        replica_lag_time_max: Duration::from_secs(30),
    }
}

impl State {
    fn new() -> Result<Self, Violation> {
        let disk = FaultDisk::new();
        drop(disk.create_dir(Path::new("/data")));
        disk.settle();
        let mut state = Self {
            disk,
            replica: None,
            incarnation: 0,
            process: 0,
            sent: 0,
            syncs: VecDeque::new(),
            done: VecDeque::new(),
            published: None,
            contents: (0..RECORDS).map(|number| (content(&record(number)), number)).collect(),
            acked: BTreeMap::new(),
            high_watermark: 0,
            ever: BTreeMap::new(),
            dead: false,
            rng: Prng::new(1),
        };
        state.start(Start::Unclean)?;
        Ok(state)
    }

    fn start(&mut self, start: Start) -> Result<(), Violation> {
        self.incarnation += 1;
        if start == Start::Unclean {
            self.process += 1;
            self.published = None;
            self.syncs.clear();
            self.done.clear();
            self.dead = false;
        }
        let recovery_point = self.published.as_ref().map_or(Offset::ZERO, |published| published.confirmed_end);
        let open = OpenLog {
            start,
            recovery_point: Some(recovery_point),
            incarnation: self.incarnation,
            ..OpenLog::default()
        };
        let opened = Log::open(Arc::new(self.disk.clone()), &directory(), config().log, &open);
        let (log, _) = opened.map_err(|error| broken("S1", error.to_string()))?;
        let end = log.log_end_offset().0;
        if end < self.high_watermark {
            return Err(broken("R12", format!("ends at {end}, the high watermark was {}", self.high_watermark)));
        }
        let replica = Replica::new(self.incarnation, log, config(), self.published.as_deref());
        self.replica = Some(replica.map_err(|lost| broken("S1", lost.to_string()))?);
        self.step(ReplicaInput::Lead(LeaderEpoch(self.process)))
    }

    fn step(&mut self, input: ReplicaInput) -> Result<(), Violation> {
        let mut effects = Vec::new();
        if let Some(replica) = &mut self.replica {
            replica.step(Mono::ZERO, Wall(0), input, &mut self.rng, &mut effects);
            replica.check();
        }
        for effect in effects {
            self.perform(effect)?;
        }
        Ok(())
    }

    fn perform(&mut self, effect: ReplicaEffect) -> Result<(), Violation> {
        match effect {
            ReplicaEffect::Publish(snapshot) => self.publish(snapshot),
            ReplicaEffect::Reply { result: Ok(appended), .. } => {
                let base = appended.base_offset.0;
                let epoch_content =
                    self.ever.iter().rev().find(|((_, at), _)| *at == base).map(|(_, content)| *content);
                let Some(content) = epoch_content else {
                    return Err(broken("R7", format!("acknowledged at {base}, where nothing was published")));
                };
                self.acked.insert(base, content);
                if !self.surviving().contains(&(base, content)) {
                    return Err(broken("R10", format!("acknowledged at {base} and not on the device")));
                }
                if self.high_watermark <= base {
                    return Err(broken(
                        "R9",
                        format!("acknowledged at {base}, high watermark {}", self.high_watermark),
                    ));
                }
                Ok(())
            }
            ReplicaEffect::Sync(request) => {
                self.syncs.push_back(request);
                Ok(())
            }
            ReplicaEffect::FailDirectory(_) => {
                self.dead = true;
                self.replica = None;
                Ok(())
            }
            ReplicaEffect::Restart(why) => Err(broken("U4", format!("restarts without a fault: {why}"))),
            _ => Ok(()),
        }
    }

    fn publish(&mut self, snapshot: Arc<ReplicaSnapshot>) -> Result<(), Violation> {
        let (high, end) = (snapshot.high_watermark.0, snapshot.view.log_end_offset().0);
        if high < self.high_watermark {
            return Err(broken("R6", format!("high watermark {high}, was {}", self.high_watermark)));
        }
        let found = read_view(&snapshot.view, 0, end).map_err(|error| broken("S4", error.to_string()))?;
        let mut seen = BTreeSet::new();
        for read in &found {
            let (base, epoch) = (read.header.base_offset.0, read.header.partition_leader_epoch.0);
            if !self.contents.contains_key(&read.content) {
                return Err(broken("S6", format!("nobody wrote the batch at {base}")));
            }
            if *self.ever.entry((epoch, base)).or_insert(read.content) != read.content {
                return Err(broken("R7", format!("two batches at {base} of epoch {epoch}")));
            }
            if !seen.insert(read.content) {
                return Err(broken("T6", format!("a record twice, again at {base}")));
            }
        }
        for (base, content) in &self.acked {
            if !found.iter().any(|read| read.header.base_offset.0 == *base && read.content == *content) {
                return Err(broken("R12", format!("the record acknowledged at {base} is not there")));
            }
        }
        self.high_watermark = high;
        self.published = Some(snapshot);
        Ok(())
    }

    fn surviving(&self) -> Vec<(i64, u64)> {
        let names = self.disk.list(&directory()).unwrap_or_default();
        let files = names.iter().filter(|name| name.ends_with(".log"));
        let bytes = files.filter_map(|name| self.disk.surviving_bytes(&directory().join(name)));
        bytes.flat_map(|bytes| batches(&bytes)).map(|read| (read.header.base_offset.0, read.content)).collect()
    }

    /// What may happen in this state, after `crashes` of them.
    fn events(&self, crashes: usize) -> Vec<Event> {
        let mut events = Vec::new();
        if self.replica.is_some() {
            // The client sends a record again until it is acknowledged, in any order.
            events.extend((0..RECORDS).filter(|number| self.sent & (1 << number) == 0).map(Event::Append));
            events.push(Event::EndBatch);
        }
        if !self.syncs.is_empty() {
            events.extend([Event::Sync, Event::SyncFails]);
        }
        if !self.done.is_empty() {
            events.push(Event::Complete);
        }
        if crashes < MOST_CRASHES {
            if self.replica.is_some() && !self.dead {
                events.push(Event::Panic);
            }
            events.extend([Event::Kill, Event::Power(0), Event::Power(1), Event::Power(2)]);
        }
        events
    }

    fn apply(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Append(number) => {
                self.sent |= 1 << number;
                let batch = validate_produced(&record(number), &ProduceRules::default());
                let batch = batch.map_err(|rejection| broken("U1", format!("{rejection:?}")))?;
                let request = RequestId(u64::from(number));
                let deadline = Mono::new(Duration::from_secs(10));
                let required_acks = RequiredAcks::All;
                self.step(ReplicaInput::Append(Append {
                    request,
                    batch,
                    required_acks,
                    deadline,
                    expected_epoch: None,
                }))
            }
            Event::EndBatch => self.step(ReplicaInput::EndBatch),
            Event::Sync | Event::SyncFails => {
                let Some(request) = self.syncs.pop_front() else { return Ok(()) };
                if event == Event::SyncFails {
                    let names = self.disk.list(&directory()).unwrap_or_default();
                    for name in names.iter().filter(|name| name.ends_with(".log")) {
                        drop(self.disk.fail_next_sync(&directory().join(name)));
                    }
                }
                let outcome = request.perform();
                self.disk.mend();
                self.done.push_back(outcome);
                Ok(())
            }
            Event::Complete => match self.done.pop_front() {
                Some(outcome) => self.step(ReplicaInput::Synced(outcome)),
                None => Ok(()),
            },
            Event::Panic => {
                self.replica = None;
                self.sent = 0;
                self.start(Start::SameProcess)
            }
            Event::Kill => self.crash(Crash::Kill, 0),
            Event::Power(fate) => self.crash(Crash::Power, fate),
        }
    }

    fn crash(&mut self, crash: Crash, fate: u8) -> Result<(), Violation> {
        self.replica = None;
        self.sent = 0;
        self.disk.crash(crash, &mut Prng::new(u64::from(fate) * 77 + 5));
        self.start(Start::Unclean)
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.replica.as_ref().map(Machine::digest).hash(&mut hasher);
        (self.sent, self.process, self.syncs.len(), self.dead, self.high_watermark).hash(&mut hasher);
        self.done.iter().map(SyncOutcome::is_ok).collect::<Vec<_>>().hash(&mut hasher);
        self.acked.hash(&mut hasher);
        self.ever.hash(&mut hasher);
        for name in self.disk.list(&directory()).unwrap_or_default() {
            let path = directory().join(&name);
            self.disk.surviving_bytes(&path).hash(&mut hasher);
            self.disk.durable_bytes(&path).ok().hash(&mut hasher);
            name.hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// What was explored.
#[derive(Clone, Debug, Default)]
pub struct Explored {
    /// Different states.
    pub states: u64,
    /// Paths replayed.
    pub paths: u64,
    /// The longest path.
    pub depth: usize,
    /// The first broken invariant and the path to it.
    pub failed: Option<(Violation, Vec<Event>)>,
}

fn replay(path: &[Event]) -> Result<State, Violation> {
    let mut state = State::new()?;
    for event in path {
        state.apply(*event)?;
    }
    Ok(state)
}

/// Explores every order of at most `depth` events.
#[must_use]
pub fn run(depth: usize) -> Explored {
    let mut explored = Explored::default();
    let mut seen = BTreeSet::new();
    let mut frontier: VecDeque<(Vec<Event>, Vec<Event>)> = VecDeque::new();
    if let Ok(state) = State::new() {
        frontier.push_back((Vec::new(), state.events(0)));
    }
    while let Some((path, events)) = frontier.pop_front() {
        for event in events {
            let mut longer = path.clone();
            longer.push(event);
            explored.paths += 1;
            let state = match replay(&longer) {
                Ok(state) => state,
                Err(violation) => {
                    explored.failed = Some((violation, longer));
                    return explored;
                }
            };
            if !seen.insert(state.digest()) {
                continue;
            }
            explored.states += 1;
            explored.depth = longer.len();
            if longer.len() < depth {
                let crash = |event: &&Event| matches!(event, Event::Panic | Event::Kill | Event::Power(_));
                let next = state.events(longer.iter().filter(crash).count());
                frontier.push_back((longer, next));
            }
        }
    }
    explored
}
