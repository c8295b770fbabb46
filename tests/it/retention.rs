//! Retention over a socket: what is past its time goes, also of a topic that nobody writes to any more.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::FutureRecord;

use crate::client::{PATIENCE, Yard};

#[tokio::test]
async fn an_idle_topic_is_empty_once_its_retention_has_passed() {
    let yard = Yard::open(&["log.retention.check.interval.ms=100"]);
    let admin: AdminClient<DefaultClientContext> = yard.config(&[]).create().expect("a client");
    let topic = NewTopic::new("idle", 1, TopicReplication::Fixed(1)).set("retention.ms", "1500");
    admin.create_topics(&[topic], &AdminOptions::new()).await.expect("an answer")[0].as_ref().expect("created");
    let producer = yard.producer(&[]);
    for _ in 0..3 {
        producer.send(FutureRecord::to("idle").key("k").payload("v"), PATIENCE).await.expect("acknowledged");
    }
    let consumer: BaseConsumer = yard.config(&[("group.id", "g")]).create().expect("a consumer");
    let deadline = Instant::now() + PATIENCE;
    loop {
        match consumer.fetch_watermarks("idle", 0, PATIENCE).expect("watermarks") {
            (3, 3) => break,
            (0, 3) => {}
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < deadline, "the records are still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (_, offset) = match producer.send(FutureRecord::to("idle").key("k").payload("v"), PATIENCE).await {
        Ok(delivery) => (delivery.partition, delivery.offset),
        Err((error, _)) => panic!("{error}"),
    };
    assert_eq!(offset, 3);
}
