//! Writing.

use std::collections::BTreeMap;
use std::time::Duration;

use madang_client::{
    Codec, Compression, Consumer, ConsumerConfig, Partitioner, Producer, ProducerConfig, ProducerRecord, StartAt,
    partition_of,
};

use super::{PATIENCE, client, topic};

pub(super) async fn every_codec(address: String) {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let client = client(&address);
        let topic = topic(&client, "codec", 1).await;
        let compression = Compression::of(codec);
        let producer = Producer::new(client.clone(), ProducerConfig { compression, ..ProducerConfig::default() });
        let value = |number: i32| format!("{number} {}", "abc".repeat(50));
        for number in 0..300 {
            let record = ProducerRecord::new(topic.as_str()).key("k").value(value(number));
            let record = record.header("trace", number.to_string()).header("trace", "again");
            drop(producer.send(record).await.expect("accepted"));
        }
        producer.flush().await.expect("flushed");
        let metrics = producer.metrics();
        assert_eq!((metrics.records_sent, metrics.errors, metrics.buffered_records), (300, 0, 0), "{metrics:?}");
        assert!(metrics.batches_sent > 0 && metrics.requests > 0 && metrics.request_latency_max > Duration::ZERO);
        assert_eq!(codec == Codec::None, metrics.bytes_sent > 300 * 150, "{codec:?}: {metrics:?}");
        let mut consumer = Consumer::new(client, ConsumerConfig::default());
        consumer.assign(&topic, StartAt::Earliest).await.expect("assigned");
        let mut seen = Vec::new();
        while seen.len() < 300 {
            seen.extend(consumer.poll(PATIENCE).await.expect("records"));
        }
        for (number, record) in (0..).zip(&seen) {
            assert_eq!(record.value.as_deref(), Some(value(number).as_bytes()), "{codec:?}");
            let headers: Vec<_> = record.headers.iter().map(|(name, value)| (&name[..], value.as_deref())).collect();
            let trace = number.to_string();
            assert_eq!(headers, [(&b"trace"[..], Some(trace.as_bytes())), (b"trace", Some(&b"again"[..]))]);
        }
    }
}

pub(super) async fn partitioners(address: String) {
    let client = client(&address);
    let topic = topic(&client, "partitioners", 3).await;
    let chosen = async |partitioner, keys: bool| {
        let config = ProducerConfig { partitioner, linger: Duration::from_millis(50), ..ProducerConfig::default() };
        let producer = Producer::new(client.clone(), config);
        let mut deliveries = Vec::new();
        for number in 0..30 {
            let record = ProducerRecord::new(topic.as_str()).value("v");
            let record = if keys { record.key(format!("key {number}")) } else { record };
            deliveries.push(producer.send(record).await.expect("accepted"));
        }
        let mut partitions = Vec::new();
        for delivery in deliveries {
            partitions.push(delivery.await.expect("written").partition);
        }
        partitions
    };
    let by_key: Vec<i32> = (0..30).map(|number| partition_of(format!("key {number}").as_bytes(), 3)).collect();
    assert_eq!(chosen(Partitioner::Default, true).await, by_key);
    let mut sticky = chosen(Partitioner::Default, false).await;
    sticky.dedup();
    assert!(sticky.len() <= 6, "batches leave with a linger of 50 ms: {sticky:?}");
    let mut uniform = chosen(Partitioner::UniformSticky, true).await;
    uniform.dedup();
    assert_eq!(uniform.len(), 1, "keys do not count");
    let mut counts = BTreeMap::new();
    for partition in chosen(Partitioner::RoundRobin, true).await {
        *counts.entry(partition).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([(0, 10), (1, 10), (2, 10)]));
}

pub(super) async fn full_buffer(address: String) {
    let client = client(&address);
    let topic = topic(&client, "buffer", 1).await;
    // Without a push, what fills the buffer would linger longer than a send may wait.
    let linger = Duration::from_secs(3600);
    let config = ProducerConfig { buffer_bytes: 500, linger, max_block: PATIENCE, ..ProducerConfig::default() };
    let producer = Producer::new(client, config);
    for _ in 0..50 {
        let record = ProducerRecord::new(topic.as_str()).value(vec![0; 100]);
        drop(producer.send(record).await.expect("accepted"));
        assert!(producer.metrics().buffered_bytes <= 500);
    }
    producer.flush().await.expect("flushed");
    assert_eq!(producer.metrics().records_sent, 50);
}
