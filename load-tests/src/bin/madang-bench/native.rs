//! The generator on Madang's own client: a producer is a task with a connection, a reader too.
//! Invariant: a producer looks at the schedule, never at answers; what is in flight is bounded by its buffer, or by the scenario if it is saturated.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use madang_client::{
    Acks, Client, ClientConfig, Codec, Compression, Consumer, ConsumerConfig, ConsumerRecord, Delivery, GroupConfig,
    GroupConsumer, Offset, OutOfRange, Producer, ProducerConfig, ProducerRecord,
};
use madang_load_tests::bench::records::{Spec, Stream};
use madang_load_tests::bench::scenario::{self, Membership, Scenario};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::pacer;
use super::state::{Flag, PRELOADERS, Shared};

/// Answers that one producer may wait for; beyond it the next record waits, and its latency counts on.
const UNANSWERED: usize = 1 << 16;
const POLL: Duration = Duration::from_millis(200);
/// Where members come and go: one that went while it joined is waited for no longer than this. The shortest that brokers take by default.
pub(crate) const SHORT_SESSION_S: u64 = 6;
/// Time between two commits of a group's member.
const COMMIT: Duration = Duration::from_secs(1);

pub(crate) fn client(servers: &str) -> Client {
    let mut config = ClientConfig::new(servers.split(','));
    config.client_id = "madang-bench".to_owned();
    config.connect_timeout = Duration::from_secs(30);
    // Ten thousand partitions take their time to be made.
    config.request_timeout = Duration::from_secs(240);
    config.retry_timeout = Duration::from_secs(240);
    Client::new(config)
}

fn producer_config(scenario: &Scenario) -> ProducerConfig {
    let producers = &scenario.producers;
    let (_, most) = scenario.records.size.bounds();
    ProducerConfig {
        acks: match producers.acks {
            scenario::Acks::None => Acks::None,
            scenario::Acks::Leader => Acks::Leader,
            scenario::Acks::All => Acks::All,
        },
        idempotent: producers.idempotent,
        compression: Compression::of(match producers.codec {
            scenario::Codec::None => Codec::None,
            scenario::Codec::Gzip => Codec::Gzip,
            scenario::Codec::Snappy => Codec::Snappy,
            scenario::Codec::Lz4 => Codec::Lz4,
            scenario::Codec::Zstd => Codec::Zstd,
        }),
        batch_bytes: producers.batch_bytes as usize,
        linger: Duration::from_millis(producers.linger_ms.into()),
        max_request_bytes: (1 << 20).max(most as usize + 1024),
        buffer_bytes: 64 << 20,
        delivery_timeout: Duration::from_secs(scenario.time.drain_s.max(30)),
        ..ProducerConfig::default()
    }
}

/// A record on its way.
struct Flight {
    producer: u32,
    serial: u64,
    due: u64,
    bytes: u64,
    delivery: Delivery,
    _room: Option<OwnedSemaphorePermit>,
}

/// One producer.
struct Writer {
    shared: Arc<Shared>,
    producer: Producer,
    number: u32,
    stream: Stream,
    /// Of the record before, as no two may have the same.
    last_due: Option<u64>,
    flights: mpsc::Sender<Flight>,
}

impl Writer {
    /// A producer, and the task that waits for its answers.
    fn new(shared: &Arc<Shared>, config: ProducerConfig, number: u32, tasks: &mut JoinSet<()>) -> Self {
        let (flights, landing) = mpsc::channel(UNANSWERED);
        tasks.spawn(land(Arc::clone(shared), landing));
        Self {
            producer: Producer::new(client(&shared.servers), config),
            stream: Stream::new(&shared.scenario, number),
            shared: Arc::clone(shared),
            number,
            last_due: None,
            flights,
        }
    }

    async fn send(&mut self, due: u64, room: Option<OwnedSemaphorePermit>) -> u64 {
        let spec: Spec = self.stream.take();
        let due = self.last_due.map_or(due, |last| due.max(last + 1));
        self.last_due = Some(due);
        let value = self.shared.value(self.number, &spec, due);
        let bytes = value.len() as u64;
        {
            let mut counts = self.shared.counts();
            counts.verifier.sent(self.number, spec.serial);
            counts.produce.began(due, self.shared.now());
        }
        let (topic, partition) = self.shared.place(spec.place);
        let record = ProducerRecord {
            topic: Arc::clone(topic),
            partition: Some(partition),
            key: spec.key.map(|key| Bytes::copy_from_slice(&key.to_be_bytes())),
            value: Some(value.into()),
            ..ProducerRecord::default()
        };
        match self.producer.send(record).await {
            Ok(delivery) => {
                let flight = Flight { producer: self.number, serial: spec.serial, due, bytes, delivery, _room: room };
                // The receiver ends after the sender.
                drop(self.flights.send(flight).await);
            }
            Err(error) => {
                let mut counts = self.shared.counts();
                counts.produce.failed();
                counts.error(error);
            }
        }
        bytes
    }

    async fn on_schedule(mut self, wakers: Arc<Vec<Notify>>) {
        let Some(schedule) = self.shared.schedule else { return };
        let number = u64::from(self.number);
        loop {
            let end = self.shared.end_ns.load(Ordering::Acquire);
            let now = self.shared.now();
            let due = schedule.due(number, now.min(end.saturating_sub(1)));
            let is_over = self.shared.producers_end.is_set() || now >= end;
            if is_over {
                let behind = due.saturating_sub(self.stream.taken());
                self.shared.backlog.fetch_add(behind, Ordering::Relaxed);
                break;
            }
            if self.stream.taken() < due {
                self.send(schedule.due_at(number, self.stream.taken()), None).await;
            } else {
                wakers[self.number as usize].notified().await;
            }
        }
        self.finish().await;
    }

    async fn saturated(mut self) {
        let room = Arc::new(Semaphore::new(self.shared.scenario.producers.in_flight as usize));
        while !self.shared.producers_end.is_set() && self.shared.now() < self.shared.end_ns.load(Ordering::Acquire) {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
            self.send(self.shared.now(), Some(permit)).await;
        }
        self.finish().await;
    }

    /// As fast as it goes, until so many bytes are sent.
    async fn up_to(mut self, bytes: u64) {
        let mut sent = 0;
        while sent < bytes {
            sent += self.send(0, None).await;
        }
        self.finish().await;
    }

    async fn finish(self) {
        if let Err(error) = self.producer.flush().await {
            self.shared.counts().error(error);
        }
    }
}

/// Counts answers as they come.
async fn land(shared: Arc<Shared>, mut flights: mpsc::Receiver<Flight>) {
    let mut waiting = FuturesUnordered::new();
    let mut is_open = true;
    while is_open || !waiting.is_empty() {
        tokio::select! {
            flight = flights.recv(), if is_open => match flight {
                Some(flight) => waiting.push(async move {
                    let Flight { producer, serial, due, bytes, delivery, _room } = flight;
                    (producer, serial, due, bytes, delivery.await)
                }),
                None => is_open = false,
            },
            Some((producer, serial, due, bytes, outcome)) = waiting.next(), if !waiting.is_empty() => {
                let mut counts = shared.counts();
                let now = shared.now();
                match outcome {
                    Ok(_) => {
                        counts.produce.done(Some(due), now, bytes);
                        // With acks=0 it is sent, and that is all that is known.
                        if shared.scenario.producers.acks != scenario::Acks::None {
                            counts.verifier.acknowledged(producer, serial);
                        }
                    }
                    Err(error) => {
                        counts.produce.failed();
                        counts.error(error);
                    }
                }
            }
        }
    }
}

/// Sends until the end and waits for the answers.
pub(crate) async fn produce(shared: Arc<Shared>) {
    let count = shared.scenario.producers.count;
    let wakers: Arc<Vec<Notify>> = Arc::new((0..count).map(|_| Notify::new()).collect());
    let mut tasks = JoinSet::new();
    for number in 0..count {
        let writer = Writer::new(&shared, producer_config(&shared.scenario), number, &mut tasks);
        if shared.schedule.is_some() {
            tasks.spawn(writer.on_schedule(Arc::clone(&wakers)));
        } else {
            tasks.spawn(writer.saturated());
        }
    }
    // It ends when the producers are to end, which is before they have.
    if shared.schedule.is_some() {
        std::thread::spawn(move || pacer::run(&shared, &wakers));
    }
    while tasks.join_next().await.is_some() {}
}

/// Writes what readers are to find.
pub(crate) async fn preload(shared: Arc<Shared>, bytes: u64) {
    let mut tasks = JoinSet::new();
    let first = shared.scenario.producers.count;
    for number in first..first + PRELOADERS {
        let mut config = producer_config(&shared.scenario);
        config.acks = Acks::All;
        config.buffer_bytes = 16 << 20;
        let writer = Writer::new(&shared, config, number, &mut tasks);
        tasks.spawn(writer.up_to(bytes / u64::from(PRELOADERS)));
    }
    while tasks.join_next().await.is_some() {}
}

fn consumer_config(scenario: &Scenario) -> ConsumerConfig {
    let bytes = |bytes: u32| i32::try_from(bytes).unwrap_or(i32::MAX);
    ConsumerConfig {
        max_bytes: bytes(scenario.consumers.fetch_bytes),
        max_partition_bytes: bytes(scenario.consumers.partition_bytes),
        min_bytes: bytes(scenario.consumers.min_bytes),
        max_poll_records: 2000,
        out_of_range: OutOfRange::Earliest,
        ..ConsumerConfig::default()
    }
}

/// Counts what a poll gave; says how many records.
fn count(shared: &Shared, group: u32, measured: bool, records: &[ConsumerRecord]) -> usize {
    let value = |record: &ConsumerRecord| record.value.clone().unwrap_or_default();
    let values: Vec<_> =
        records.iter().map(|record| (shared.place_of(&record.topic, record.partition), value(record))).collect();
    shared.read(group, measured, values.iter().map(|(place, value)| (*place, &**value)))
}

fn assigned(shared: &Shared, config: ConsumerConfig, member: u32, members: u32) -> Consumer {
    let mut consumer = Consumer::new(client(&shared.servers), config);
    for place in (0..shared.scenario.all_partitions()).filter(|place| place % members == member) {
        let (topic, partition) = shared.place(place);
        consumer.assign_partition(topic, partition, Offset(0));
    }
    consumer
}

/// Reads everything once, as one group that nobody measures, until nothing is missing or nothing more comes.
pub(crate) async fn read_all(shared: &Shared, group: u32) {
    let config = ConsumerConfig {
        max_partition_bytes: 1 << 20,
        ..consumer_config(&Scenario { consumers: scenario::Consumers::default(), ..shared.scenario.clone() })
    };
    let mut consumer = assigned(shared, config, 0, 1);
    let patience = Duration::from_secs(shared.scenario.time.drain_s);
    let mut last = tokio::time::Instant::now();
    loop {
        match consumer.poll(POLL).await {
            Ok(records) => {
                if count(shared, group, false, &records) > 0 {
                    last = tokio::time::Instant::now();
                }
            }
            Err(error) => shared.counts().error(error),
        }
        let counts = shared.counts();
        let (sent, acknowledged) = counts.verifier.written();
        let read = counts.verifier.distinct(group);
        let is_all =
            read >= sent || (read >= acknowledged && last.elapsed() >= POLL && counts.verifier.missing(group) == 0);
        if is_all || last.elapsed() >= patience {
            return;
        }
    }
}

/// Reads until the end, as all members of all groups.
pub(crate) async fn consume(shared: Arc<Shared>) {
    let consumers = &shared.scenario.consumers;
    let mut tasks = JoinSet::new();
    for group in 0..consumers.groups {
        match consumers.membership {
            Membership::Manual => {
                for member in 0..consumers.members {
                    tasks.spawn(read_assigned(Arc::clone(&shared), group, member));
                }
            }
            Membership::Group => {
                tasks.spawn(members(Arc::clone(&shared), group));
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn read_assigned(shared: Arc<Shared>, group: u32, member: u32) {
    let mut consumer = assigned(&shared, consumer_config(&shared.scenario), member, shared.scenario.consumers.members);
    loop {
        let polled = tokio::select! {
            polled = consumer.poll(POLL) => polled,
            () = shared.consumers_end.wait() => return,
        };
        match polled {
            Ok(records) => drop(count(&shared, group, true, &records)),
            Err(error) => {
                let mut counts = shared.counts();
                counts.consume.failed();
                counts.error(error);
            }
        }
        // More than one reader shares a thread.
        tokio::task::yield_now().await;
    }
}

/// The members of a group, who take turns to leave if the scenario says so.
async fn members(shared: Arc<Shared>, group: u32) {
    let consumers = &shared.scenario.consumers;
    let mut tasks = JoinSet::new();
    let join = |tasks: &mut JoinSet<()>| {
        let leaves = Arc::new(Flag::default());
        tasks.spawn(read_as_member(Arc::clone(&shared), group, Arc::clone(&leaves)));
        leaves
    };
    let mut present: std::collections::VecDeque<_> = (0..consumers.members).map(|_| join(&mut tasks)).collect();
    if consumers.churn_ms > 0 {
        while !shared.consumers_end.is_set() {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(consumers.churn_ms)) => {}
                () = shared.consumers_end.wait() => break,
            }
            // Nobody comes and goes any more while the rest is read.
            if shared.producers_end.is_set() {
                shared.consumers_end.wait().await;
                break;
            }
            if let Some(oldest) = present.pop_front() {
                oldest.set();
            }
            present.push_back(join(&mut tasks));
            shared.churned.fetch_add(1, Ordering::Relaxed);
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn read_as_member(shared: Arc<Shared>, group: u32, leaves: Arc<Flag>) {
    let churns = shared.scenario.consumers.churn_ms > 0;
    let config = GroupConfig {
        consumer: consumer_config(&shared.scenario),
        heartbeat_interval: Duration::from_millis(if churns { 200 } else { 3000 }),
        session_timeout: Duration::from_secs(if churns { SHORT_SESSION_S } else { 45 }),
        ..GroupConfig::new(format!("bench-{:08x}-{group}", shared.run as u32))
    };
    let topics: Vec<String> = shared.topics.iter().map(ToString::to_string).collect();
    let mut member = GroupConsumer::new(client(&shared.servers), config, topics);
    let mut committed = tokio::time::Instant::now();
    let failed = |error: &dyn std::fmt::Display| {
        let mut counts = shared.counts();
        counts.consume.failed();
        counts.error(error.to_string());
    };
    while !leaves.is_set() && !shared.consumers_end.is_set() {
        match member.poll(POLL).await {
            Ok(records) => drop(count(&shared, group, true, &records)),
            Err(error) => {
                failed(&error);
                tokio::time::sleep(POLL).await;
            }
        }
        if committed.elapsed() > COMMIT {
            committed = tokio::time::Instant::now();
            // What a rebalance keeps from being committed is read again, and counted as duplicates.
            drop(member.commit().await);
        }
        tokio::task::yield_now().await;
    }
    drop(member.commit().await);
    if let Err(error) = member.leave().await {
        failed(&error);
    }
}
