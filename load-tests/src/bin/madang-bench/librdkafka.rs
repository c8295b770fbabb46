//! The generator on librdkafka, the client that most other languages' clients are made of. Threads, as it has its own.
//! Invariant: as for the native one, a producer looks at the schedule, never at answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use madang_load_tests::bench::records::Stream;
use madang_load_tests::bench::scenario::{Acks, Codec, Membership, Scenario};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use super::native::SHORT_SESSION_S;
use super::state::{Flag, Shared};

/// What becomes due within this time is sent at once.
const LEAST: u64 = 100_000;
/// How long a saturated producer waits for room.
const PAUSE: Duration = Duration::from_micros(200);
const POLL: Duration = Duration::from_millis(100);
/// Messages that are counted together.
const RECORDS: usize = 500;

/// A record on its way.
struct Flight {
    serial: u64,
    due: u64,
    bytes: u64,
}

struct Watch {
    shared: Arc<Shared>,
    number: u32,
    in_flight: Arc<AtomicU32>,
}

impl ClientContext for Watch {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, error: KafkaError, reason: &str) {
        self.shared.counts().error(format!("{error}: {reason}"));
    }
}

impl ProducerContext for Watch {
    type DeliveryOpaque = Box<Flight>;

    fn delivery(&self, result: &DeliveryResult<'_>, flight: Box<Flight>) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        let mut counts = self.shared.counts();
        let now = self.shared.now();
        match result {
            Ok(_) => {
                counts.produce.done(Some(flight.due), now, flight.bytes);
                if self.shared.scenario.producers.acks != Acks::None {
                    counts.verifier.acknowledged(self.number, flight.serial);
                }
            }
            Err((error, _)) => {
                counts.produce.failed();
                counts.error(error);
            }
        }
    }
}

fn producer_config(shared: &Shared) -> ClientConfig {
    let producers = &shared.scenario.producers;
    let acks = match producers.acks {
        Acks::None => "0",
        Acks::Leader => "1",
        Acks::All => "all",
    };
    let codec = match producers.codec {
        Codec::None => "none",
        Codec::Gzip => "gzip",
        Codec::Snappy => "snappy",
        Codec::Lz4 => "lz4",
        Codec::Zstd => "zstd",
    };
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &shared.servers).set("client.id", "madang-bench");
    config.set("acks", acks).set("compression.type", codec);
    config.set("enable.idempotence", (producers.idempotent && producers.acks == Acks::All).to_string());
    config.set("linger.ms", producers.linger_ms.to_string()).set("batch.size", producers.batch_bytes.to_string());
    config.set("message.max.bytes", "67108864").set("queue.buffering.max.messages", "1000000");
    config
}

/// One producer.
struct Writer {
    shared: Arc<Shared>,
    producer: ThreadedProducer<Watch>,
    number: u32,
    stream: Stream,
    last_due: Option<u64>,
    in_flight: Arc<AtomicU32>,
}

impl Writer {
    fn new(shared: &Arc<Shared>, number: u32) -> KafkaResult<Self> {
        let in_flight = Arc::new(AtomicU32::new(0));
        let watch = Watch { shared: Arc::clone(shared), number, in_flight: Arc::clone(&in_flight) };
        let producer = producer_config(shared).create_with_context(watch)?;
        let stream = Stream::new(&shared.scenario, number);
        Ok(Self { shared: Arc::clone(shared), producer, number, stream, last_due: None, in_flight })
    }

    fn send(&mut self, due: u64) {
        let spec = self.stream.take();
        let due = self.last_due.map_or(due, |last| due.max(last + 1));
        self.last_due = Some(due);
        let value = self.shared.value(self.number, &spec, due);
        {
            let mut counts = self.shared.counts();
            counts.verifier.sent(self.number, spec.serial);
            counts.produce.began(due, self.shared.now());
        }
        let (topic, partition) = self.shared.place(spec.place);
        let key = spec.key.map(u64::to_be_bytes);
        let flight = Box::new(Flight { serial: spec.serial, due, bytes: value.len() as u64 });
        let mut record = BaseRecord::<[u8], [u8], Box<Flight>>::with_opaque_to(topic, flight)
            .partition(partition)
            .payload(&value[..]);
        if let Some(key) = &key {
            record = record.key(&key[..]);
        }
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        loop {
            match self.producer.send(record) {
                Ok(()) => return,
                // Full: its latency counts on.
                Err((error, same))
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
                        && !self.shared.producers_end.is_set() =>
                {
                    record = same;
                    sleep(Duration::from_millis(1));
                }
                Err((error, _)) => {
                    self.in_flight.fetch_sub(1, Ordering::AcqRel);
                    let mut counts = self.shared.counts();
                    counts.produce.failed();
                    return counts.error(error);
                }
            }
        }
    }
}

fn is_over(shared: &Shared) -> bool {
    shared.producers_end.is_set() || shared.now() >= shared.end_ns.load(Ordering::Acquire)
}

/// Sends until the end and waits for the answers.
pub(crate) fn produce(shared: &Arc<Shared>) {
    let made: KafkaResult<Vec<Writer>> =
        (0..shared.scenario.producers.count).map(|number| Writer::new(shared, number)).collect();
    let mut writers = match made {
        Ok(writers) if !writers.is_empty() => writers,
        Ok(_) => return,
        Err(error) => return shared.counts().error(error),
    };
    if shared.schedule.is_some() {
        on_schedule(shared, &mut writers);
    } else {
        saturated(shared, &mut writers);
    }
    let until = Instant::now() + Duration::from_secs(shared.scenario.time.drain_s);
    for writer in &writers {
        let left = until.saturating_duration_since(Instant::now());
        if let Err(error) = writer.producer.flush(left.max(Duration::from_millis(100))) {
            shared.counts().error(format!("flush: {error}"));
        }
    }
}

fn on_schedule(shared: &Arc<Shared>, writers: &mut [Writer]) {
    let Some(schedule) = shared.schedule else { return };
    let count = writers.len() as u64;
    let mut sent = 0;
    while !is_over(shared) {
        let now = shared.now();
        let end = shared.end_ns.load(Ordering::Acquire);
        let due = schedule.all_due(now.min(end.saturating_sub(1)));
        while sent < due && !is_over(shared) {
            writers[(sent % count) as usize].send(schedule.due_at(sent % count, sent / count));
            sent += 1;
        }
        let next = schedule.next_tick(now, LEAST);
        sleep(Duration::from_nanos(next.saturating_sub(shared.now())));
    }
    let end = shared.end_ns.load(Ordering::Acquire).min(shared.now());
    shared.backlog.fetch_add(schedule.all_due(end.saturating_sub(1)).saturating_sub(sent), Ordering::Relaxed);
}

fn saturated(shared: &Arc<Shared>, writers: &mut [Writer]) {
    let bound = shared.scenario.producers.in_flight;
    while !is_over(shared) {
        let mut has_sent = false;
        for writer in writers.iter_mut() {
            // A few at a time, so that all producers have their turn.
            let room = bound.saturating_sub(writer.in_flight.load(Ordering::Acquire)).min(100);
            for _ in 0..room {
                writer.send(shared.now());
                has_sent = true;
            }
        }
        if !has_sent {
            sleep(PAUSE);
        }
    }
}

fn consumer(shared: &Shared, group: u32) -> KafkaResult<BaseConsumer> {
    let consumers = &shared.scenario.consumers;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &shared.servers).set("client.id", "madang-bench");
    config.set("group.id", format!("bench-{:08x}-{group}", shared.run as u32)).set("auto.offset.reset", "earliest");
    config.set("enable.auto.commit", (consumers.membership == Membership::Group).to_string());
    config.set("auto.commit.interval.ms", "1000").set("fetch.min.bytes", consumers.min_bytes.to_string());
    config.set("fetch.max.bytes", consumers.fetch_bytes.max(1000).to_string());
    config.set("receive.message.max.bytes", "134217728");
    config.set("max.partition.fetch.bytes", consumers.partition_bytes.to_string());
    config.set("message.max.bytes", consumers.fetch_bytes.clamp(1000, 67_108_864).to_string());
    if consumers.churn_ms > 0 {
        config.set("session.timeout.ms", (SHORT_SESSION_S * 1000).to_string()).set("heartbeat.interval.ms", "200");
    }
    config.create()
}

/// Reads until the end, as all members of all groups.
pub(crate) fn consume(shared: &Arc<Shared>) {
    let consumers = &shared.scenario.consumers;
    let mut threads = Vec::new();
    for group in 0..consumers.groups {
        let shared = Arc::clone(shared);
        match consumers.membership {
            Membership::Manual => {
                threads.extend((0..consumers.members).map(|member| {
                    let shared = Arc::clone(&shared);
                    spawn(move || read_assigned(&shared, group, member))
                }));
            }
            Membership::Group => threads.push(spawn(move || members(&shared, group))),
        }
    }
    join(threads);
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        drop(thread.join());
    }
}

fn read_assigned(shared: &Shared, group: u32, member: u32) {
    let scenario: &Scenario = &shared.scenario;
    let mut list = TopicPartitionList::new();
    for place in (0..scenario.all_partitions()).filter(|place| place % scenario.consumers.members == member) {
        let (topic, partition) = shared.place(place);
        if let Err(error) = list.add_partition_offset(topic, partition, Offset::Offset(0)) {
            return shared.counts().error(error);
        }
    }
    match consumer(shared, group).and_then(|consumer| consumer.assign(&list).map(|()| consumer)) {
        Ok(consumer) => read(shared, group, &consumer, &Flag::default()),
        Err(error) => shared.counts().error(error),
    }
}

/// The members of a group, who take turns to leave if the scenario says so.
fn members(shared: &Arc<Shared>, group: u32) {
    let consumers = &shared.scenario.consumers;
    let join_one = || {
        let (leaves, shared) = (Arc::new(Flag::default()), Arc::clone(shared));
        let leaves_too = Arc::clone(&leaves);
        (spawn(move || read_as_member(&shared, group, &leaves_too)), leaves)
    };
    let mut present: VecDeque<_> = (0..consumers.members).map(|_| join_one()).collect();
    let mut leaving = Vec::new();
    while consumers.churn_ms > 0 && !shared.producers_end.is_set() {
        sleep(Duration::from_millis(consumers.churn_ms));
        if let Some((thread, leaves)) = present.pop_front() {
            leaves.set();
            leaving.push(thread);
        }
        present.push_back(join_one());
        shared.churned.fetch_add(1, Ordering::Relaxed);
    }
    join(leaving);
    join(present.into_iter().map(|(thread, _)| thread));
}

fn read_as_member(shared: &Shared, group: u32, leaves: &Flag) {
    let topics: Vec<&str> = shared.topics.iter().map(|topic| &**topic).collect();
    match consumer(shared, group).and_then(|consumer| consumer.subscribe(&topics).map(|()| consumer)) {
        // It leaves its group when it is dropped.
        Ok(consumer) => read(shared, group, &consumer, leaves),
        Err(error) => shared.counts().error(error),
    }
}

fn read(shared: &Shared, group: u32, consumer: &BaseConsumer<DefaultConsumerContext>, leaves: &Flag) {
    while !shared.consumers_end.is_set() && !leaves.is_set() {
        let mut batch = Vec::new();
        let mut patience = POLL;
        while let Some(polled) = (batch.len() < RECORDS).then(|| consumer.poll(patience)).flatten() {
            patience = Duration::ZERO;
            match polled {
                Ok(message) => batch.push(message),
                Err(error) => {
                    let mut counts = shared.counts();
                    counts.consume.failed();
                    counts.error(error);
                }
            }
        }
        let records = batch.iter().map(|message| {
            (shared.place_of(message.topic(), message.partition()), message.payload().unwrap_or_default())
        });
        shared.read(group, true, records);
    }
}
