//! A load whose outcome can be judged: numbered records to several partitions, the offsets they were acknowledged at, a full read.
//! Invariant: the number of a record says which partition it is for and which record of that partition it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

/// Records that may wait for their acknowledgement.
const IN_FLIGHT: i32 = 400;
/// How long a full read, or the end of a load, may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of a record's value.
const VALUE_BYTES: usize = 300;

/// A partition of a topic.
pub(crate) type Place = (String, i32);

/// What became of the records so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcomes {
    /// The offset at which each numbered record of a partition was acknowledged.
    pub(crate) acknowledged: BTreeMap<Place, BTreeMap<u64, i64>>,
    /// Errors of records that were given up, by partition.
    pub(crate) refused: Vec<(Place, String)>,
    /// When the last acknowledgement came.
    pub(crate) last: Option<Instant>,
}

impl Outcomes {
    /// How many records were acknowledged.
    pub(crate) fn count(&self) -> usize {
        self.acknowledged.values().map(BTreeMap::len).sum()
    }
}

/// Takes delivery reports.
#[derive(Clone, Default)]
pub(crate) struct Recorder {
    outcomes: Arc<Mutex<Outcomes>>,
}

impl Recorder {
    /// What became of the records so far.
    pub(crate) fn outcomes(&self) -> Outcomes {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self) -> usize {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).count()
    }
}

impl ClientContext for Recorder {
    // A broker that is killed makes noise here; what matters is judged at the end.
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Recorder {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u64>) {
        let mut outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => {
                let place = (message.topic().to_owned(), message.partition());
                outcomes.acknowledged.entry(place).or_default().insert(*number, message.offset());
                outcomes.last = Some(Instant::now());
            }
            Err((error, message)) => {
                let purged = matches!(
                    error.rdkafka_error_code(),
                    Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
                );
                if !purged {
                    let place = (message.topic().to_owned(), message.partition());
                    outcomes.refused.push((place, error.to_string()));
                }
            }
        }
    }
}

/// An idempotent producer with acks=all.
pub(crate) fn idempotent(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "2")
        .set("batch.num.messages", "50")
        .set("message.timeout.ms", "120000")
        .set("retry.backoff.ms", "20")
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "50")
        .set("topic.metadata.refresh.fast.interval.ms", "50");
    config
}

/// As [`idempotent`], with everything else as librdkafka has it.
pub(crate) fn idempotent_by_default(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("enable.idempotence", "true");
    config
}

/// A load that runs until it is finished or cut.
pub(crate) struct Load {
    producer: ThreadedProducer<Recorder>,
    recorder: Recorder,
    ended: Arc<AtomicBool>,
    sender: JoinHandle<BTreeMap<Place, u64>>,
}

impl Load {
    /// Starts to send numbered records to every one of `places` in turn.
    pub(crate) fn start(config: &ClientConfig, places: &[Place]) -> Self {
        let recorder = Recorder::default();
        let producer: ThreadedProducer<Recorder> =
            config.create_with_context(recorder.clone()).expect("the configuration is valid");
        let ended = Arc::new(AtomicBool::new(false));
        let (own, places, until) = (producer.clone(), places.to_vec(), Arc::clone(&ended));
        let sender = std::thread::spawn(move || send_until(&own, &places, &until));
        Self { producer, recorder, ended, sender }
    }

    /// What became of the records so far.
    pub(crate) fn outcomes(&self) -> Outcomes {
        self.recorder.outcomes()
    }

    /// Waits until `more` records were acknowledged from now on; false if that takes longer than `patience`.
    pub(crate) fn advances_by(&self, more: usize, patience: Duration) -> bool {
        let goal = self.recorder.count() + more;
        poll(patience, || self.recorder.count() >= goal)
    }

    /// Sends nothing more and waits for every acknowledgement. Gives how many records each partition was sent, and what became of them.
    pub(crate) fn finish(self) -> (BTreeMap<Place, u64>, Outcomes) {
        self.ended.store(true, Ordering::Release);
        let sent = self.sender.join().expect("the sender ends");
        self.producer.flush(PATIENCE).expect("every record is acknowledged in the end");
        (sent, self.recorder.outcomes())
    }

    /// Gives up what is in flight: the broker will not come back.
    pub(crate) fn cut(self) -> Outcomes {
        self.ended.store(true, Ordering::Release);
        self.sender.join().expect("the sender ends");
        self.producer.purge(PurgeConfig::default().queue().inflight());
        drop(self.producer.flush(Duration::from_secs(5)));
        self.recorder.outcomes()
    }
}

fn send_until(producer: &ThreadedProducer<Recorder>, places: &[Place], ended: &AtomicBool) -> BTreeMap<Place, u64> {
    let mut next: BTreeMap<Place, u64> = places.iter().map(|place| (place.clone(), 0)).collect();
    while !ended.load(Ordering::Acquire) {
        for place in places {
            let number = next.get_mut(place).expect("every partition has its counter");
            let text = value(place, *number);
            let record = BaseRecord::<str, str, Box<u64>>::with_opaque_to(&place.0, Box::new(*number))
                .partition(place.1)
                .payload(&text);
            match producer.send(record) {
                Ok(()) => *number += 1,
                Err((error, _)) => {
                    let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                    assert!(full, "a record is not taken: {error}");
                }
            }
        }
        while producer.in_flight_count() > IN_FLIGHT && !ended.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    next
}

fn value(place: &Place, number: u64) -> String {
    format!("{:x<VALUE_BYTES$}", format!("{}/{}/{number} ", place.0, place.1))
}

fn parse(value: &str) -> Option<(Place, u64)> {
    let mut parts = value.split_once(' ')?.0.split('/');
    let place = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
    let number = parts.next()?.parse().ok()?;
    (value == self::value(&place, number)).then_some((place, number))
}

/// What a full read found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The number of the record at each offset.
    pub(crate) records: BTreeMap<Place, BTreeMap<i64, u64>>,
    /// What is wrong whatever was promised: a foreign or damaged record, a gap, a duplicate, another order.
    pub(crate) wrong: Vec<String>,
}

impl Found {
    /// How many records there are.
    pub(crate) fn count(&self) -> usize {
        self.records.values().map(BTreeMap::len).sum()
    }

    /// The acknowledged records that are not at their offset.
    pub(crate) fn lost(&self, outcomes: &Outcomes) -> Vec<(Place, u64, i64)> {
        let mut lost = Vec::new();
        for (place, numbers) in &outcomes.acknowledged {
            let there = self.records.get(place);
            for (number, offset) in numbers {
                if there.and_then(|there| there.get(offset)) != Some(number) {
                    lost.push((place.clone(), *number, *offset));
                }
            }
        }
        lost
    }
}

/// Reads `places` from their first record to their last.
pub(crate) fn read_all(address: &str, places: &[Place]) -> Found {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", "20")
        .create()
        .expect("the configuration is valid");
    let mut list = TopicPartitionList::new();
    for (topic, partition) in places {
        list.add_partition_offset(topic, *partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&list).expect("assigned");
    let mut found = Found::default();
    let mut open: BTreeSet<i32> = (0..i32::try_from(places.len()).expect("few partitions")).collect();
    let deadline = Instant::now() + PATIENCE;
    let mut ends = 0;
    while ends < places.len() {
        assert!(Instant::now() < deadline, "the full read ends in time; {open:?} of {places:?} are left");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => found.take(&message),
            Some(Err(KafkaError::PartitionEOF(_))) => {
                ends += 1;
                open.pop_first();
            }
            Some(Err(_)) | None => {}
        }
    }
    found
}

impl Found {
    fn take(&mut self, message: &rdkafka::message::BorrowedMessage<'_>) {
        let place = (message.topic().to_owned(), message.partition());
        let offset = message.offset();
        let text = message.payload().and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
        let Some((meant_for, number)) = parse(text) else {
            return self.wrong.push(format!("{place:?} offset {offset}: not a record of the load"));
        };
        if meant_for != place {
            self.wrong.push(format!("{place:?} offset {offset}: a record of {meant_for:?}"));
        }
        let records = self.records.entry(place.clone()).or_default();
        if let Some((last_offset, last_number)) = records.last_key_value() {
            if offset != last_offset + 1 {
                self.wrong.push(format!("{place:?}: offset {offset} follows {last_offset}"));
            }
            if number != last_number + 1 {
                self.wrong.push(format!("{place:?} offset {offset}: record {number} follows {last_number}"));
            }
        } else if offset != 0 || number != 0 {
            self.wrong.push(format!("{place:?}: the first record is {number} at offset {offset}"));
        }
        records.insert(offset, number);
    }
}

/// Asserts that every record that was sent was acknowledged, and is there once, at its offset, in order.
pub(crate) fn assert_all_there(address: &str, sent: &BTreeMap<Place, u64>, outcomes: &Outcomes) {
    let places: Vec<Place> = sent.keys().cloned().collect();
    assert_eq!(outcomes.refused, [], "no record is refused");
    let found = read_all(address, &places);
    assert!(found.wrong.is_empty(), "{:#?}", found.wrong.iter().take(20).collect::<Vec<_>>());
    let lost = found.lost(outcomes);
    assert!(
        lost.is_empty(),
        "{} acknowledged records are lost: {:?}",
        lost.len(),
        lost.iter().take(20).collect::<Vec<_>>()
    );
    for (place, count) in sent {
        let acknowledged = outcomes.acknowledged.get(place).map_or(0, BTreeMap::len) as u64;
        assert_eq!(acknowledged, *count, "{place:?}: every record is acknowledged");
        let there = found.records.get(place).map_or(0, BTreeMap::len) as u64;
        assert_eq!(there, *count, "{place:?}: every record is there once");
    }
}

/// Asks `done` again and again until it says yes; false if it does not by the deadline.
pub(crate) fn poll(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}
