//! Everything but the load that a broker is asked for during the sweep of panics: a group that commits, producers that come and go, topics
//! that come and go, settings that change, records that are deleted. Errors are expected while a part of the broker is down; at the end all
//! must work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication, TopicResult,
};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

use crate::load::poll;
use crate::raw;

/// The topic of the load.
pub(crate) const TOPIC: &str = "load";
/// The topic of the producers that come and go; made by the first of them.
const OTHER_TOPIC: &str = "stirred";

#[derive(Clone)]
struct Silent;

impl ClientContext for Silent {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Silent {}

impl ProducerContext for Silent {
    type DeliveryOpaque = Arc<AtomicBool>;

    fn delivery(&self, result: &DeliveryResult<'_>, acknowledged: Arc<AtomicBool>) {
        acknowledged.store(result.is_ok(), Ordering::Release);
    }
}

/// A member of a group, and an administrator.
pub(crate) struct Stirrer {
    address: String,
    member: BaseConsumer<Silent>,
    admin: AdminClient<Silent>,
    runtime: tokio::runtime::Runtime,
    turn: usize,
}

fn config(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("reconnect.backoff.ms", "10").set("reconnect.backoff.max.ms", "50");
    config
}

fn member(address: &str) -> BaseConsumer<Silent> {
    let mut config = config(address);
    config.set("group.id", raw::GROUP).set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
    config.set("heartbeat.interval.ms", "100").set("session.timeout.ms", "6000");
    let member: BaseConsumer<Silent> = config.create_with_context(Silent).expect("a consumer");
    member.subscribe(&[TOPIC]).expect("subscribed");
    member
}

impl Stirrer {
    pub(crate) fn new(address: &str) -> Self {
        let admin = config(address).create_with_context(Silent).expect("an admin client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { address: address.to_owned(), member: member(address), admin, runtime, turn: 0 }
    }

    /// Does one round of everything. Always false: it is never what ends a wait.
    pub(crate) fn stir(&mut self) -> bool {
        self.turn += 1;
        if self.turn.is_multiple_of(5) {
            // A new member joins, so that the group goes through all it knows.
            self.member = member(&self.address);
        }
        self.consume();
        drop(self.commit());
        drop(self.administer());
        drop(self.produce());
        drop(raw::ask_each(&self.address, TOPIC, self.turn));
        false
    }

    /// Each of the things works again, at some time before the deadline.
    pub(crate) fn assert_all_works(&mut self, patience: Duration, log: &dyn Fn() -> String) {
        assert!(poll(patience, || self.consume()), "the group consumes again\n{}", log());
        let mut last = Ok(());
        assert!(
            poll(patience, || {
                self.consume();
                last = self.commit();
                last.is_ok()
            }),
            "the group commits again: {last:?}"
        );
        assert!(
            poll(patience, || {
                self.turn += 1;
                last = self.administer();
                last.is_ok()
            }),
            "topics are administered again: {last:?}"
        );
        assert!(
            poll(patience, || {
                last = self.produce();
                last.is_ok()
            }),
            "a new producer gets its id again: {last:?}"
        );
        assert!(
            poll(patience, || {
                self.turn += 1;
                last = raw::ask_each(&self.address, TOPIC, self.turn);
                last.is_ok()
            }),
            "everything else is answered again: {last:?}"
        );
    }

    fn consume(&self) -> bool {
        (0..50).any(|_| matches!(self.member.poll(Duration::from_millis(10)), Some(Ok(_))))
    }

    fn commit(&self) -> Result<(), String> {
        self.member.commit_consumer_state(CommitMode::Sync).map_err(|error| error.to_string())?;
        let passing = format!("passing-{}", self.turn.saturating_sub(1));
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&passing, 0, Offset::Offset(0)).map_err(|error| error.to_string())?;
        // An offset for a topic that is about to be deleted, so that the group's shard has something to forget.
        drop(self.member.commit(&list, CommitMode::Sync));
        Ok(())
    }

    /// One record of a new producer, which asks for an id of its own.
    fn produce(&self) -> Result<(), String> {
        let mut config = config(&self.address);
        config.set("enable.idempotence", "true").set("message.timeout.ms", "2000");
        let producer: BaseProducer<Silent> = config.create_with_context(Silent).map_err(|error| error.to_string())?;
        let acknowledged = Arc::new(AtomicBool::new(false));
        let record = BaseRecord::<str, str, _>::with_opaque_to(OTHER_TOPIC, Arc::clone(&acknowledged)).payload("one");
        producer.send(record).map_err(|(error, _)| error.to_string())?;
        producer.flush(Duration::from_secs(3)).map_err(|error| error.to_string())?;
        acknowledged.load(Ordering::Acquire).then_some(()).ok_or_else(|| "not acknowledged".to_owned())
    }

    fn administer(&self) -> Result<(), String> {
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(2)));
        let (passing, gone) = (format!("passing-{}", self.turn), format!("passing-{}", self.turn.saturating_sub(2)));
        let compacted = self.turn.is_multiple_of(2);
        let policy = if compacted { "compact" } else { "delete" };
        let new = NewTopic::new(&passing, 1, TopicReplication::Fixed(1)).set("cleanup.policy", policy);
        let made = self.runtime.block_on(self.admin.create_topics([&new], &options));
        first(made)?;
        let wait = (60_000 + self.turn).to_string();
        let change = AlterConfig::new(ResourceSpecifier::Topic(TOPIC)).set("segment.ms", &wait);
        let changed = self.runtime.block_on(self.admin.alter_configs([&change], &options));
        changed.map_err(|error| error.to_string())?.remove(0).map_err(|(_, code)| code.to_string())?;
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(TOPIC, 0, Offset::Offset(0)).map_err(|error| error.to_string())?;
        let deleted = self.runtime.block_on(self.admin.delete_records(&before, &options));
        let deleted = deleted.map_err(|error| error.to_string())?;
        deleted.elements().iter().try_for_each(|one| one.error().map_err(|error| error.to_string()))?;
        if self.turn > 2 {
            let gone = self.runtime.block_on(self.admin.delete_topics(&[&*gone], &options));
            // It is not there if it was never made because a part of the broker was down.
            drop(gone);
        }
        Ok(())
    }
}

fn first(answer: Result<Vec<TopicResult>, KafkaError>) -> Result<(), String> {
    match answer.map_err(|error| error.to_string())?.pop() {
        Some(Err((_, code))) => Err(code.to_string()),
        _ => Ok(()),
    }
}
