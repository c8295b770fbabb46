//! The codec of requests and answers beside a copy of the same bytes: Produce, Fetch of 100 partitions, Metadata of 1,000 partitions.

use std::borrow::Cow;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use madang_protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use madang_protocol::messages::metadata::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use madang_protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use madang_protocol::payload::Payload;
use madang_protocol::types::Uuid;
use madang_protocol::{Message, Reader, Writer};

/// Six partitions with 16 KiB each.
fn produce() -> ProduceRequest<'static> {
    let records = Payload::Bytes(Bytes::from(vec![7; 16 << 10]));
    let partition = |index| PartitionProduceData { index, records: Some(records.clone()) };
    let topic = TopicProduceData {
        name: Cow::Borrowed("a topic of the bench"),
        partition_data: (0..6).map(partition).collect(),
        ..TopicProduceData::default()
    };
    ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() }
}

/// Ten topics of ten partitions.
fn fetch() -> FetchRequest<'static> {
    let partition = |partition| FetchPartition {
        partition,
        current_leader_epoch: 3,
        fetch_offset: 1_000_000,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    let topic = |id| FetchTopic {
        topic_id: Uuid([id; 16]),
        partitions: (0..10).map(partition).collect(),
        ..Default::default()
    };
    FetchRequest { max_wait_ms: 500, min_bytes: 1, topics: (1..=10).map(topic).collect(), ..FetchRequest::default() }
}

/// A hundred topics of ten partitions on three brokers.
fn metadata() -> MetadataResponse<'static> {
    let broker = |node_id| MetadataResponseBroker {
        node_id,
        host: Cow::Borrowed("broker.example.org"),
        port: 9092,
        ..MetadataResponseBroker::default()
    };
    let partition = |partition_index| MetadataResponsePartition {
        partition_index,
        leader_id: 1,
        leader_epoch: 3,
        replica_nodes: vec![1, 2, 3],
        isr_nodes: vec![1, 2, 3],
        ..MetadataResponsePartition::default()
    };
    let topic = |id| MetadataResponseTopic {
        name: Some(Cow::Owned(format!("a topic of the bench, number {id}"))),
        topic_id: Uuid([id; 16]),
        partitions: (0..10).map(partition).collect(),
        ..MetadataResponseTopic::default()
    };
    MetadataResponse {
        brokers: (1..=3).map(broker).collect(),
        topics: (1..=100).map(topic).collect(),
        ..MetadataResponse::default()
    }
}

fn encoded<'a>(message: &impl Message<'a>, version: i16) -> Bytes {
    let mut writer = Writer::new();
    message.encode(&mut writer, version).expect("encoded");
    writer.into_bytes().expect("no region of a file")
}

macro_rules! codec {
    ($group:expr, $name:expr, $type:ty, $message:expr, $version:expr) => {{
        let message = $message;
        let bytes = encoded(&message, $version);
        $group.throughput(Throughput::Bytes(bytes.len() as u64));
        floor($group, $name, &bytes);
        $group.bench_function(concat!($name, ": decode"), |bench| {
            bench.iter(|| <$type>::decode(&mut Reader::new(black_box(&bytes)), $version).expect("decoded"));
        });
        $group.bench_function(concat!($name, ": encode"), |bench| {
            bench.iter(|| encoded(black_box(&message), $version));
        });
    }};
}

fn floor(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, bytes: &Bytes) {
    let mut copy = vec![0; bytes.len()];
    group.bench_function(format!("{name}: floor: memcpy of {}", bytes.len()), |bench| {
        bench.iter(|| black_box(&mut copy).copy_from_slice(black_box(bytes)));
    });
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("messages");
    group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    codec!(&mut group, "Produce v9, 6 x 16 KiB", ProduceRequest, produce(), 9);
    codec!(&mut group, "Fetch v13, 100 partitions", FetchRequest, fetch(), 13);
    codec!(&mut group, "Metadata v12, 1,000 partitions", MetadataResponse, metadata(), 12);
    group.finish();
}

criterion_group!(messages, benches);
criterion_main!(messages);
