//! Producers of the load: idempotent, acks=all, and otherwise as librdkafka has it; each record is written down before it is sent.
//! Invariant: a record counts as refused only if it was never handed to a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use madang_load_tests::history::{Key, Kind, Op, Sent};
use madang_load_tests::payload::Payload;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};

use super::names::name;
use super::recorder::Recorder;

/// Records of a producer that may wait for their acknowledgement.
const IN_FLIGHT: i32 = 2_000;
/// How long the last acknowledgements may take.
const FLUSH: Duration = Duration::from_secs(100);
/// Bytes of a record.
const SIZES: [usize; 4] = [0, 100, 300, 4_000];

/// What the load is like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) servers: String,
    pub(crate) topic: String,
    pub(crate) partitions: i32,
    /// Time between two rounds of a producer.
    pub(crate) pace: Duration,
    /// Records of a round to every partition.
    pub(crate) burst: usize,
}

impl Shape {
    pub(crate) fn key(&self, partition: i32) -> Key {
        format!("{}/{partition}", self.topic)
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        (0..self.partitions).map(|partition| self.key(partition)).collect()
    }
}

/// A record on its way.
pub(crate) struct Flight {
    key: Key,
    value: u64,
    sent_ns: u64,
}

#[derive(Clone)]
struct Reporter {
    recorder: Arc<Recorder>,
    process: u32,
}

impl ClientContext for Reporter {
    // A broker that is killed makes noise here; what matters is written down.
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl Reporter {
    fn record(&self, kind: Kind, key: &str, value: u64, offset: Option<i64>, error: Option<String>) -> u64 {
        let sends = vec![Sent { key: key.to_owned(), value, offset }];
        self.recorder.record(self.process, kind, Op::Send { sends, acks: -1, idempotent: true }, error)
    }
}

impl ProducerContext for Reporter {
    type DeliveryOpaque = Box<Flight>;

    fn delivery(&self, result: &DeliveryResult<'_>, flight: Box<Flight>) {
        match result {
            Ok(message) => {
                use rdkafka::Message as _;
                self.record(Kind::Ok, &flight.key, flight.value, Some(message.offset()), None);
                self.recorder.acknowledged(&flight.key, flight.sent_ns);
            }
            // librdkafka tries again by itself, so that the last error says nothing of the attempts before it.
            Err((error, _)) => {
                self.record(Kind::Info, &flight.key, flight.value, None, Some(name(error)));
            }
        }
    }
}

fn producer(shape: &Shape, reporter: &Reporter) -> Result<ThreadedProducer<Reporter>, KafkaError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &shape.servers).set("enable.idempotence", "true").set("linger.ms", "5");
    config.set("compression.type", ["none", "lz4", "zstd"][reporter.process as usize % 3]);
    config.create_with_context(reporter.clone())
}

/// How long a client that starts now takes until a record of its own is acknowledged in every partition; none if it takes longer than that.
///
/// # Errors
/// A text for a person: there is no client.
pub(crate) fn first_acknowledgements(
    shape: &Shape,
    recorder: &Arc<Recorder>,
    patience: Duration,
) -> Result<Option<Duration>, String> {
    let began = Instant::now();
    let reporter = Reporter { recorder: Arc::clone(recorder), process: recorder.process() };
    let producer = producer(shape, &reporter).map_err(|error| format!("no producer: {error}"))?;
    for (partition, key) in (0..).zip(&shape.keys()) {
        let (value, serial) = (recorder.value(), partition as u64);
        let payload =
            Payload { run: recorder.run(), process: reporter.process, serial, unique: value, key: key.clone() };
        send(&reporter, &producer, (&shape.topic, partition, key), value, &payload.encode(0));
    }
    let flushed = producer.flush(patience).is_ok();
    Ok(flushed.then(|| began.elapsed()))
}

/// Writes until it is told to stop, then waits for what is on its way.
pub(crate) fn produce(shape: &Shape, recorder: &Arc<Recorder>, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        let reporter = Reporter { recorder: Arc::clone(recorder), process: recorder.process() };
        match producer(shape, &reporter) {
            Ok(producer) => {
                life(shape, recorder, &reporter, &producer, stop);
                if producer.flush(FLUSH).is_err() {
                    producer.purge(PurgeConfig::default().queue().inflight());
                    drop(producer.flush(Duration::from_secs(5)));
                }
            }
            Err(error) => return eprintln!("chaos: no producer: {error}"),
        }
    }
}

/// One producer's life: until it is told to stop, or cannot go on.
fn life(
    shape: &Shape,
    recorder: &Recorder,
    reporter: &Reporter,
    producer: &ThreadedProducer<Reporter>,
    stop: &AtomicBool,
) {
    let keys = shape.keys();
    let (mut serial, mut next) = (0, Instant::now());
    for round in 0_usize.. {
        if stop.load(Ordering::Acquire) {
            return;
        }
        next = (next + shape.pace).max(Instant::now());
        for place in 0..shape.burst {
            for (partition, key) in (0..).zip(&keys) {
                // One of a burst is of some size: the disks are to hold all of a long run.
                let size = if place == 0 { SIZES[(round + partition as usize) % SIZES.len()] } else { 0 };
                let value = recorder.value();
                let process = reporter.process;
                let payload = Payload { run: recorder.run(), process, serial, unique: value, key: key.clone() };
                serial += 1;
                if !send(reporter, producer, (&shape.topic, partition, key), value, &payload.encode(size)) {
                    return;
                }
            }
        }
        // The pace, and room for what is on its way.
        loop {
            std::thread::sleep(next.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
            if producer.in_flight_count() < IN_FLIGHT || stop.load(Ordering::Acquire) {
                break;
            }
        }
    }
}

/// Writes down that it sends, and sends; false if the producer cannot go on.
fn send(
    reporter: &Reporter,
    producer: &ThreadedProducer<Reporter>,
    (topic, partition, key): (&str, i32, &Key),
    value: u64,
    bytes: &[u8],
) -> bool {
    let sent_ns = reporter.record(Kind::Invoke, key, value, None, None);
    let flight = Box::new(Flight { key: key.clone(), value, sent_ns });
    let record = BaseRecord::<[u8], [u8], Box<Flight>>::with_opaque_to(topic, flight);
    let Err((error, _)) = producer.send(record.partition(partition).payload(bytes)) else { return true };
    let refused = error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::QueueFull);
    reporter.record(if refused { Kind::Fail } else { Kind::Info }, key, value, None, Some(name(&error)));
    refused
}
