//! Readers of the load: one on its own that jumps back now and then, members of a group that come and go, one who asks for ends and committed
//! offsets, and the full read at the end.
//! Invariant: what a poll gave is written down before the next one begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

use madang_actors::prng::Prng;
use madang_load_tests::history::{Found, Key, Kind, Op, Polled};
use madang_load_tests::payload::Payload;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::load::Shape;
use super::names::name;
use super::patience::{self, Pulse};
use super::recorder::Recorder;

const GROUP: &str = "chaos";
/// A poll ends after so many records, or after this time.
const RECORDS: usize = 500;
const POLL: Duration = Duration::from_millis(200);
/// How long the full read may come no further: then the brokers do not give what they hold.
const NOTHING_MORE: Duration = Duration::from_secs(60);
/// How long a call of a client that takes 200 ms may take until it counts as stuck in itself: librdkafka 2.12.1 can be in a deadlock of its own.
const STUCK: Duration = Duration::from_secs(20);
/// Clients that try the full read, one after the other.
const FULL_READS: u32 = 2;

/// Writes down what a group gives and takes.
struct Watch {
    recorder: Arc<Recorder>,
    process: u32,
    owned: Mutex<BTreeSet<Key>>,
    changed: Mutex<Vec<Key>>,
}

impl ClientContext for Watch {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

fn keys(list: &TopicPartitionList) -> Vec<Key> {
    list.elements().iter().map(|one| format!("{}/{}", one.topic(), one.partition())).collect()
}

impl Watch {
    fn new(recorder: &Arc<Recorder>) -> Self {
        let process = recorder.process();
        Self { recorder: Arc::clone(recorder), process, owned: Mutex::default(), changed: Mutex::default() }
    }

    fn rebalanced(&self, assigned: Vec<Key>, revoked: Vec<Key>, lost: Vec<Key>) {
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        owned.extend(assigned.iter().cloned());
        owned.retain(|key| !revoked.contains(key) && !lost.contains(key));
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.extend(assigned.iter().chain(&revoked).chain(&lost).cloned());
        let op = Op::Rebalance { group: GROUP.to_owned(), generation: None, assigned, revoked, lost };
        self.recorder.record(self.process, Kind::Ok, op, None);
    }
}

impl ConsumerContext for Watch {
    // What is taken counts as given up before the client says so to the group; what is given counts once the client has it.
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let keys = keys(list);
            let (revoked, lost) = if consumer.assignment_lost() { (Vec::new(), keys) } else { (keys, Vec::new()) };
            self.rebalanced(Vec::new(), revoked, lost);
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            self.rebalanced(keys(list), Vec::new(), Vec::new());
        }
    }
}

type Reader = BaseConsumer<Watch>;

fn reader(shape: &Shape, recorder: &Arc<Recorder>, group: &str) -> Result<Reader, KafkaError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &shape.servers).set("group.id", group).set("enable.auto.commit", "false");
    config.set("check.crcs", "true").set("fetch.wait.max.ms", "100").set("session.timeout.ms", "6000");
    config.set("auto.offset.reset", if group == GROUP { "earliest" } else { "error" });
    config.set("enable.partition.eof", "true").set("topic.metadata.refresh.interval.ms", "2000");
    config.create_with_context(Watch::new(recorder))
}

/// What one poll came to.
#[derive(Default)]
struct Came {
    records: BTreeMap<Key, Vec<Polled>>,
    ends: BTreeSet<Key>,
}

fn polled(message: &BorrowedMessage<'_>) -> (Key, Polled) {
    let key = format!("{}/{}", message.topic(), message.partition());
    let found = match Payload::decode(message.payload().unwrap_or_default()) {
        // Of another key or run: the number is not one that was sent to this key, and the checker says so.
        Ok(payload) => Found::Value(payload.unique),
        Err(damage) => Found::Damaged(damage.to_string()),
    };
    (key, Polled { offset: message.offset(), found })
}

/// One operation: polls until there is enough, or nothing more for a while.
fn poll(reader: &Reader, shape: &Shape) -> Came {
    let watch = reader.context();
    let empty = || Op::Poll {
        records: BTreeMap::new(),
        log_start: BTreeMap::new(),
        high_watermark: BTreeMap::new(),
        rebalanced: Vec::new(),
        ends: BTreeSet::new(),
    };
    watch.recorder.record(watch.process, Kind::Invoke, empty(), None);
    let (mut came, mut count, mut failed) = (Came::default(), 0, None);
    let until = Instant::now() + POLL;
    while count < RECORDS && failed.is_none() {
        let left = until.saturating_duration_since(Instant::now());
        match reader.poll(left) {
            Some(Ok(message)) => {
                let (key, polled) = polled(&message);
                came.records.entry(key).or_default().push(polled);
                count += 1;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(came.ends.insert(shape.key(partition))),
            Some(Err(error)) => failed = Some(name(&error)),
            None if left.is_zero() => break,
            None => {}
        }
    }
    let rebalanced = std::mem::take(&mut *watch.changed.lock().unwrap_or_else(PoisonError::into_inner));
    // Records that came before an error are the reader's all the same.
    let failed = failed.filter(|error| count == 0 || madang_load_tests::history::certainty(error).is_none());
    let kind = if failed.is_some() { Kind::Info } else { Kind::Ok };
    let (log_start, high_watermark) = (BTreeMap::new(), BTreeMap::new());
    let (records, ends) = (came.records.clone(), came.ends.clone());
    let op = Op::Poll { records, log_start, high_watermark, rebalanced, ends };
    watch.recorder.record(watch.process, kind, op, failed);
    came
}

/// Reads these keys from these offsets on.
fn assign(reader: &Reader, shape: &Shape, from: &BTreeMap<Key, i64>, last_read: bool) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::new();
    for partition in 0..shape.partitions {
        let offset = from.get(&shape.key(partition)).copied().unwrap_or(0);
        list.add_partition_offset(&shape.topic, partition, Offset::Offset(offset))?;
    }
    reader.assign(&list)?;
    let watch = reader.context();
    watch.recorder.record(watch.process, Kind::Ok, Op::Assign { from: from.clone(), last_read }, None);
    Ok(())
}

fn crash(reader: Reader) {
    let (recorder, process) = (Arc::clone(&reader.context().recorder), reader.context().process);
    drop(reader);
    recorder.record(process, Kind::Info, Op::Crash, None);
}

/// Reads everything as it comes, jumps back now and then, crashes now and then.
pub(crate) fn read_alone(shape: &Shape, recorder: &Arc<Recorder>, seed: u64, stop: &AtomicBool) {
    let mut rng = Prng::new(seed);
    let mut at: BTreeMap<Key, i64> = shape.keys().into_iter().map(|key| (key, 0)).collect();
    while !stop.load(Ordering::Acquire) {
        let reader = match reader(shape, recorder, "alone") {
            Ok(reader) => reader,
            Err(error) => return eprintln!("chaos: no reader: {error}"),
        };
        let mut life = 50 + rng.below(200);
        if let Err(error) = assign(&reader, shape, &at, false) {
            return eprintln!("chaos: nothing is assigned: {error}");
        }
        while !stop.load(Ordering::Acquire) && life > 0 {
            life -= 1;
            for (key, records) in poll(&reader, shape).records {
                at.extend(records.last().map(|last| (key, last.offset + 1)));
            }
            if rng.chance(1, 60) {
                at.values_mut().for_each(|at| *at -= rng.below(100).min(*at as u64) as i64);
                if let Err(error) = assign(&reader, shape, &at, false) {
                    return eprintln!("chaos: nothing is assigned: {error}");
                }
            }
        }
        crash(reader);
    }
}

/// A member of the group: reads, commits, leaves, and comes back as another.
pub(crate) fn read_in_group(shape: &Shape, recorder: &Arc<Recorder>, seed: u64, stop: &AtomicBool) {
    let mut rng = Prng::new(seed);
    while !stop.load(Ordering::Acquire) {
        let reader = match reader(shape, recorder, GROUP) {
            Ok(reader) => reader,
            Err(error) => return eprintln!("chaos: no member: {error}"),
        };
        let process = reader.context().process;
        recorder.record(process, Kind::Ok, Op::Subscribe { group: GROUP.to_owned() }, None);
        if let Err(error) = reader.subscribe(&[&shape.topic]) {
            return eprintln!("chaos: no subscription: {error}");
        }
        let (mut at, mut life) = (BTreeMap::new(), 100 + rng.below(200));
        while !stop.load(Ordering::Acquire) && life > 0 {
            life -= 1;
            for (key, records) in poll(&reader, shape).records {
                at.extend(records.last().map(|last| (key, last.offset + 1)));
            }
            let owned = reader.context().owned.lock().unwrap_or_else(PoisonError::into_inner).clone();
            at.retain(|key, _| owned.contains(key));
            if rng.chance(1, 8) && !at.is_empty() {
                commit(&reader, shape, &at);
            }
        }
        crash(reader);
    }
}

fn commit(reader: &Reader, shape: &Shape, at: &BTreeMap<Key, i64>) {
    let watch = reader.context();
    let mut list = TopicPartitionList::new();
    for partition in 0..shape.partitions {
        if let Some(offset) = at.get(&shape.key(partition)) {
            // An offset is always one that a list takes.
            drop(list.add_partition_offset(&shape.topic, partition, Offset::Offset(*offset)));
        }
    }
    let op = || Op::Commit { group: GROUP.to_owned(), generation: None, offsets: at.clone() };
    watch.recorder.record(watch.process, Kind::Invoke, op(), None);
    match reader.commit(&list, CommitMode::Sync) {
        Ok(()) => watch.recorder.record(watch.process, Kind::Ok, op(), None),
        Err(error) => watch.recorder.record(watch.process, Kind::Info, op(), Some(name(&error))),
    };
}

/// Asks for the ends of the logs and for what the group has committed.
pub(crate) fn look(shape: &Shape, recorder: &Arc<Recorder>, stop: &AtomicBool) {
    let reader = match reader(shape, recorder, GROUP) {
        Ok(reader) => reader,
        Err(error) => return eprintln!("chaos: nobody looks: {error}"),
    };
    let process = reader.context().process;
    let patience = Duration::from_secs(5);
    while !stop.load(Ordering::Acquire) {
        for partition in 0..shape.partitions {
            let of = |ends| Op::ListOffsets { ends };
            recorder.record(process, Kind::Invoke, of(BTreeMap::new()), None);
            match reader.fetch_watermarks(&shape.topic, partition, patience) {
                Ok(ends) => {
                    let ends = [(shape.key(partition), ends)].into_iter().collect();
                    recorder.record(process, Kind::Ok, of(ends), None)
                }
                Err(error) => recorder.record(process, Kind::Info, of(BTreeMap::new()), Some(name(&error))),
            };
        }
        let mut list = TopicPartitionList::new();
        for partition in 0..shape.partitions {
            list.add_partition(&shape.topic, partition);
        }
        let of = |offsets| Op::FetchOffset { group: GROUP.to_owned(), offsets };
        recorder.record(process, Kind::Invoke, of(BTreeMap::new()), None);
        match reader.committed_offsets(list, patience) {
            Ok(found) => {
                let failed = found.elements().iter().find_map(|one| one.error().err());
                let offset = |offset| if let Offset::Offset(offset) = offset { offset } else { -1 };
                let offsets =
                    keys(&found).into_iter().zip(found.elements()).map(|(key, one)| (key, offset(one.offset())));
                match failed {
                    None => recorder.record(process, Kind::Ok, of(offsets.collect()), None),
                    Some(error) => recorder.record(process, Kind::Info, of(BTreeMap::new()), Some(name(&error))),
                }
            }
            Err(error) => recorder.record(process, Kind::Info, of(BTreeMap::new()), Some(name(&error))),
        };
        std::thread::sleep(POLL);
    }
}

/// Reads everything from the beginning to the end with a fresh reader, and once more with another one if its client is stuck in itself.
///
/// # Errors
/// A text for a person: nothing more comes although it is not the end, or the second client is stuck too.
pub(crate) fn read_all(shape: &Shape, recorder: &Arc<Recorder>) -> Result<(), String> {
    let (shape, recorder) = (shape.clone(), Arc::clone(recorder));
    patience::while_it_moves(FULL_READS, STUCK, move |pulse| read_to_the_end(&shape, &recorder, pulse))
        .map_err(|why| format!("the full read: {why}"))
}

fn read_to_the_end(shape: &Shape, recorder: &Arc<Recorder>, pulse: &Pulse) -> Result<(), String> {
    let failed = |error: KafkaError| error.to_string();
    let reader = reader(shape, recorder, "last").map_err(failed)?;
    let from = shape.keys().into_iter().map(|key| (key, 0)).collect();
    assign(&reader, shape, &from, true).map_err(failed)?;
    let mut left: BTreeSet<Key> = shape.keys().into_iter().collect();
    let mut came_at = Instant::now();
    while !left.is_empty() {
        let came = poll(&reader, shape);
        pulse.beat();
        left.retain(|key| !came.ends.contains(key));
        if !came.records.is_empty() {
            came_at = Instant::now();
        }
        if came_at.elapsed() > NOTHING_MORE || pulse.is_given_up() {
            return Err(format!("it does not come to the end of {left:?}"));
        }
    }
    // What was read is read, and a client may be stuck in its own end too.
    Builder::new().spawn(move || drop(reader)).map_err(|error| error.to_string())?;
    Ok(())
}
