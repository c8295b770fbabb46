//! Logs that keep their promises, and producers that write to them: every outcome that a producer may be told of, gaps, retention, compaction.
//! Invariant: a producer's records are appended in the order it sent them, each at most once.

use std::collections::{BTreeMap, VecDeque};

use madang_actors::prng::Prng;

use super::clients::{Member, Reader};
use crate::history::{Event, Key, Kind, Op, Sent};

/// Errors that leave it open, and errors that do not.
const OPEN: &[&str] = &["_MSG_TIMED_OUT", "REQUEST_TIMED_OUT", "NOT_LEADER_OR_FOLLOWER", "KAFKA_STORAGE_ERROR"];
const CLOSED: &[&str] = &["NOT_ENOUGH_REPLICAS", "MESSAGE_TOO_LARGE", "_PURGE_QUEUE"];
/// Records of one producer that wait.
const IN_FLIGHT: usize = 20;

/// A log: at each offset a value, or nothing.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) records: Vec<Option<u64>>,
    pub(super) start: usize,
    pub(super) compacted: bool,
}

impl Log {
    pub(super) fn end(&self) -> i64 {
        self.records.len() as i64
    }
}

struct Producer {
    process: u32,
    acks: i8,
    idempotent: bool,
    /// Sent and not appended, in the order of sending, for each key.
    waiting: BTreeMap<Key, VecDeque<u64>>,
    /// Appended and not answered.
    appended: Vec<(Key, u64, i64)>,
}

/// All of it.
pub(super) struct World<'a> {
    pub(super) rng: Prng,
    pub(super) logs: BTreeMap<Key, Log>,
    now_ns: u64,
    index: u64,
    next_value: u64,
    next_process: u32,
    producers: Vec<Producer>,
    pub(super) sink: &'a mut dyn FnMut(Event),
}

impl<'a> World<'a> {
    pub(super) fn new(seed: u64, sink: &'a mut dyn FnMut(Event)) -> Self {
        let mut rng = Prng::new(seed);
        let keys = 1 + rng.below(4);
        let compacts = rng.chance(1, 4);
        let of = |key: u64| (format!("t/{key}"), Log { compacted: compacts && key == 1, ..Log::default() });
        let logs = (0..keys).map(of).collect();
        Self { rng, logs, now_ns: 1_000, index: 0, next_value: 1, next_process: 0, producers: Vec::new(), sink }
    }

    pub(super) fn process(&mut self) -> u32 {
        self.next_process += 1;
        self.next_process
    }

    pub(super) fn emit(&mut self, process: u32, kind: Kind, op: Op, error: Option<&str>) {
        self.now_ns += 10 + self.rng.below(2_000_000);
        let event = Event { index: self.index, at_ns: self.now_ns, process, kind, op, error: error.map(str::to_owned) };
        self.index += 1;
        (self.sink)(event);
    }

    fn key(&mut self) -> Key {
        let place = self.rng.below(self.logs.len() as u64) as usize;
        self.logs.keys().nth(place).cloned().unwrap_or_default()
    }

    /// Runs until about so many records were sent and read, then heals and reads all of it.
    pub(super) fn run(mut self, records: u64) {
        let compacted: Vec<Key> =
            self.logs.iter().filter(|(_, log)| log.compacted).map(|(key, _)| key.clone()).collect();
        self.emit(0, Kind::Info, Op::Admin { what: "start".to_owned(), compacted }, None);
        for place in 0..3 {
            let (process, idempotent) = (self.process(), place < 2);
            let acks = if idempotent { -1 } else { 1 };
            let producer = Producer { process, acks, idempotent, waiting: BTreeMap::new(), appended: Vec::new() };
            self.producers.push(producer);
        }
        let mut readers: Vec<Reader> = (0..2).map(|_| Reader::new(&mut self)).collect();
        let mut group = super::clients::GroupOfMembers::new(&mut self);
        let mut done = 0;
        while done < records {
            match self.rng.below(100) {
                0..45 => done += self.send(),
                45..70 => self.append(),
                70..78 => self.answer(),
                78..92 => {
                    let place = self.rng.below(readers.len() as u64) as usize;
                    done += readers[place].step(&mut self);
                }
                92..98 => done += group.step(&mut self),
                98 => self.list_offsets(),
                _ => self.clean_up(),
            }
        }
        while self.producers.iter().any(|producer| producer.waiting.values().any(|waiting| !waiting.is_empty())) {
            self.append();
        }
        while self.producers.iter().any(|producer| !producer.appended.is_empty()) {
            self.answer();
        }
        readers.into_iter().for_each(|reader| reader.end(&mut self));
        group.end(&mut self);
        self.emit(0, Kind::Info, Op::Admin { what: "healed".to_owned(), compacted: Vec::new() }, None);
        self.list_offsets();
        Reader::read_all(&mut self);
    }

    fn send(&mut self) -> u64 {
        let place = self.rng.below(self.producers.len() as u64) as usize;
        let producer = &self.producers[place];
        if producer.waiting.values().map(VecDeque::len).sum::<usize>() + producer.appended.len() > IN_FLIGHT {
            return 0;
        }
        let (process, acks, idempotent) = (producer.process, producer.acks, producer.idempotent);
        let (key, value) = (self.key(), self.next_value);
        self.next_value += 1;
        self.producers[place].waiting.entry(key.clone()).or_default().push_back(value);
        let sends = vec![Sent { key, value, offset: None }];
        self.emit(process, Kind::Invoke, Op::Send { sends, acks, idempotent }, None);
        1
    }

    /// The first of a queue is appended, or given up.
    fn append(&mut self) {
        let place = self.rng.below(self.producers.len() as u64) as usize;
        let key = self.key();
        let Some(value) = self.producers[place].waiting.get_mut(&key).and_then(VecDeque::pop_front) else { return };
        match self.rng.below(40) {
            0 => self.end(place, key, value, None, Kind::Fail, CLOSED),
            1 => self.end(place, key, value, None, Kind::Info, OPEN),
            _ => {
                let gap = if self.rng.chance(1, 30) { 1 + self.rng.below(3) } else { 0 };
                let log = self.logs.get_mut(&key).expect("a key of the world");
                log.records.extend((0..gap).map(|_| None));
                let offset = log.end();
                log.records.push(Some(value));
                if self.rng.chance(1, 40) {
                    self.end(place, key, value, None, Kind::Info, OPEN);
                } else {
                    self.producers[place].appended.push((key, value, offset));
                }
            }
        }
    }

    fn answer(&mut self) {
        let place = self.rng.below(self.producers.len() as u64) as usize;
        let many = self.producers[place].appended.len() as u64;
        // A batch is answered at once, and answers of several partitions overtake each other.
        for _ in 0..self.rng.below(many + 1) {
            let one = self.rng.below(self.producers[place].appended.len() as u64) as usize;
            let (key, value, offset) = self.producers[place].appended.swap_remove(one);
            self.end(place, key, value, Some(offset), Kind::Ok, &[]);
        }
    }

    fn end(&mut self, place: usize, key: Key, value: u64, offset: Option<i64>, kind: Kind, errors: &[&str]) {
        let Producer { process, acks, idempotent, .. } = self.producers[place];
        let error = self.rng.pick(errors).copied();
        let sends = vec![Sent { key, value, offset }];
        self.emit(process, kind, Op::Send { sends, acks, idempotent }, error);
    }

    fn list_offsets(&mut self) {
        let process = self.process();
        self.emit(process, Kind::Invoke, Op::ListOffsets { ends: BTreeMap::new() }, None);
        let ends = self.logs.iter().map(|(key, log)| (key.clone(), (log.start as i64, log.end()))).collect();
        if self.rng.chance(1, 10) {
            return self.emit(process, Kind::Info, Op::ListOffsets { ends: BTreeMap::new() }, Some("_TRANSPORT"));
        }
        self.emit(process, Kind::Ok, Op::ListOffsets { ends }, None);
    }

    /// Retention, or compaction.
    fn clean_up(&mut self) {
        let key = self.key();
        let far = self.rng.below(4) as usize;
        let log = self.logs.get_mut(&key).expect("a key of the world");
        if log.compacted {
            let end = log.records.len().saturating_sub(5);
            (log.start..end).step_by(3).for_each(|place| log.records[place] = None);
        } else {
            log.start = log.records.len().min(log.start + far);
        }
    }
}

/// The state of the group belongs to its members; this is where they meet the logs.
impl World<'_> {
    /// Up to `most` records from `from` on, and where that ends.
    pub(super) fn read(&self, key: &str, from: i64, most: usize) -> (Vec<(i64, u64)>, i64) {
        let log = &self.logs[key];
        let mut at = usize::try_from(from).unwrap_or(0).max(log.start);
        let mut found = Vec::new();
        while at < log.records.len() && found.len() < most {
            found.extend(log.records[at].map(|value| (at as i64, value)));
            at += 1;
        }
        (found, at as i64)
    }

    pub(super) fn members(&mut self, many: u64) -> Vec<Member> {
        (0..many).map(|_| Member::new(self)).collect()
    }
}
