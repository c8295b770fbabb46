//! librdkafka administers: topics, partitions, configurations, records to delete, offsets by time.

use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::FutureRecord;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::client::{PATIENCE, Yard, run, send};

pub(crate) fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(Duration::from_secs(10)))
}

pub(crate) fn admin(yard: &Yard) -> AdminClient<DefaultClientContext> {
    yard.config(&[]).create().expect("an admin client")
}

fn partitions(yard: &Yard, topic: &str) -> usize {
    let consumer: BaseConsumer = yard.config(&[("group.id", "looks")]).create().expect("a consumer");
    let metadata = consumer.fetch_metadata(None, PATIENCE).expect("metadata");
    metadata.topics().iter().find(|found| found.name() == topic).map_or(0, |found| found.partitions().len())
}

#[test]
fn topics_are_created_grown_and_deleted() {
    let yard = Yard::open(&["auto.create.topics.enable=false"]);
    let admin = admin(&yard);
    let new = NewTopic::new("orders", 2, TopicReplication::Fixed(1)).set("retention.ms", "60000");
    let made = run(admin.create_topics([&new], &options())).expect("answered");
    assert_eq!(made, [Ok("orders".to_owned())]);
    let again = run(admin.create_topics([&new], &options())).expect("answered");
    assert_eq!(again, [Err(("orders".to_owned(), RDKafkaErrorCode::TopicAlreadyExists))]);
    assert_eq!(partitions(&yard, "orders"), 2);
    let grown = run(admin.create_partitions([&NewPartitions::new("orders", 5)], &options())).expect("answered");
    assert_eq!(grown, [Ok("orders".to_owned())]);
    assert_eq!(partitions(&yard, "orders"), 5);
    let gone = run(admin.delete_topics(&["orders"], &options())).expect("answered");
    assert_eq!(gone, [Ok("orders".to_owned())]);
    assert!(crate::load::poll(PATIENCE, || partitions(&yard, "orders") == 0));
    let producer = yard.producer(&[]);
    let refused = run(send(&producer, "orders", "x")).expect_err("there is no such topic and none is created");
    let unknown = [RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::UnknownTopic];
    assert!(refused.rdkafka_error_code().is_some_and(|code| unknown.contains(&code)), "{refused}");
}

#[test]
fn a_configuration_is_changed_and_survives_a_restart() {
    let yard = Yard::open(&[]);
    let producer = yard.producer(&[]);
    run(send(&producer, "settings", "the topic is created by its first record")).expect("acknowledged");
    let change = AlterConfig::new(ResourceSpecifier::Topic("settings")).set("max.message.bytes", "2000");
    let changed = run(admin(&yard).alter_configs([&change], &options())).expect("answered");
    assert!(changed[0].is_ok(), "{changed:?}");
    let refused = run(send(&producer, "settings", &"x".repeat(3000))).expect_err("it holds at once");
    assert_eq!(refused.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    let yard = yard.reopen();
    let resource = ResourceSpecifier::Topic("settings");
    let described = run(admin(&yard).describe_configs([&resource], &options())).expect("answered");
    let described = described[0].as_ref().expect("described");
    assert_eq!(described.get("max.message.bytes").and_then(|entry| entry.value.as_deref()), Some("2000"));
    assert_eq!(described.get("cleanup.policy").and_then(|entry| entry.value.as_deref()), Some("delete"));
}

#[test]
fn offsets_are_found_by_time_and_records_are_deleted() {
    let yard = Yard::open(&[]);
    let producer = yard.producer(&[]);
    const FIRST: i64 = 1_700_000_000_000;
    for number in 0..10_i64 {
        let value = number.to_string();
        let record = FutureRecord::<str, str>::to("times").partition(0).payload(&value);
        run(producer.send(record.timestamp(FIRST + number * 1000), PATIENCE)).expect("acknowledged");
    }
    let consumer: BaseConsumer = yard.config(&[("group.id", "looks")]).create().expect("a consumer");
    let offset_at = |time| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("times", 0, Offset::Offset(time)).expect("an offset");
        let found = consumer.offsets_for_times(list, PATIENCE).expect("answered");
        found.elements()[0].offset()
    };
    assert_eq!(offset_at(FIRST), Offset::Offset(0));
    assert_eq!(offset_at(FIRST + 3_500), Offset::Offset(4));
    assert_eq!(offset_at(FIRST + 99_000), Offset::End);
    let mut before = TopicPartitionList::new();
    before.add_partition_offset("times", 0, Offset::Offset(6)).expect("an offset");
    run(admin(&yard).delete_records(&before, &options())).expect("deleted");
    assert_eq!(consumer.fetch_watermarks("times", 0, PATIENCE).expect("answered"), (6, 10));
    let yard = yard.reopen();
    let left: Vec<i64> = yard.read("times").iter().map(Message::offset).collect();
    assert_eq!(left, [6, 7, 8, 9]);
}
