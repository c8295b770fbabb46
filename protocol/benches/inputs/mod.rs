//! What the benches of this crate and the counts of instructions work on: the same bytes in every run.
#![allow(dead_code, unreachable_pub, reason = "each bench uses some of it")]

use std::borrow::Cow;

use bytes::Bytes;
use madang_protocol::compression::{Codec, Compression};
use madang_protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopicResponse, PartitionData,
};
use madang_protocol::messages::metadata::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use madang_protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
    TopicProduceResponse,
};
use madang_protocol::payload::Payload;
use madang_protocol::record_batch::{BatchBuilder, BatchOptions};
use madang_protocol::types::Uuid;
use madang_protocol::{Message, Writer};

/// `count` records of 1 KiB; 127 of them are 128 KiB.
pub fn batch(codec: Codec, count: i64) -> Bytes {
    let mut builder =
        BatchBuilder::new(BatchOptions { compression: Compression::of(codec), ..BatchOptions::default() });
    let mut state = 1_u32;
    let mut value = vec![0; 1_000];
    for index in 0..count {
        for byte in &mut value {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = b'a' + (state >> 28) as u8;
        }
        builder.append(index, Some(b"a key of 16 byte"), Some(&value), &[]).expect("a record");
    }
    builder.build().expect("a batch")
}

/// Six partitions with 16 KiB each.
pub fn produce() -> ProduceRequest<'static> {
    let records = Payload::Bytes(Bytes::from(vec![7; 16 << 10]));
    let partition = |index| PartitionProduceData { index, records: Some(records.clone()) };
    let topic = TopicProduceData {
        name: Cow::Borrowed("a topic of the bench"),
        partition_data: (0..6).map(partition).collect(),
        ..TopicProduceData::default()
    };
    ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..ProduceRequest::default() }
}

/// The answer to [`produce`].
pub fn produced() -> ProduceResponse<'static> {
    let partition = |index| PartitionProduceResponse { index, base_offset: 1_000_000, ..Default::default() };
    let topic = TopicProduceResponse {
        name: Cow::Borrowed("a topic of the bench"),
        partition_responses: (0..6).map(partition).collect(),
        ..TopicProduceResponse::default()
    };
    ProduceResponse { responses: vec![topic], ..ProduceResponse::default() }
}

/// Ten topics of ten partitions.
pub fn fetch() -> FetchRequest<'static> {
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

/// The answer to [`fetch`]: 1 KiB of each partition.
pub fn fetched() -> FetchResponse<'static> {
    let records = Payload::Bytes(Bytes::from(vec![7; 1 << 10]));
    let partition = |partition_index| PartitionData {
        partition_index,
        high_watermark: 1_000_010,
        last_stable_offset: 1_000_010,
        records: Some(records.clone()),
        ..PartitionData::default()
    };
    let topic = |id| FetchableTopicResponse {
        topic_id: Uuid([id; 16]),
        partitions: (0..10).map(partition).collect(),
        ..Default::default()
    };
    FetchResponse { responses: (1..=10).map(topic).collect(), ..FetchResponse::default() }
}

/// A hundred topics of ten partitions on three brokers.
pub fn metadata() -> MetadataResponse<'static> {
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

/// A message's bytes.
pub fn encoded<'a>(message: &impl Message<'a>, version: i16) -> Bytes {
    let mut writer = Writer::new();
    message.encode(&mut writer, version).expect("encoded");
    writer.into_bytes().expect("no region of a file")
}
