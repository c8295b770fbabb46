//! Requests that give a broker no time: what needs the controller is not begun, and what is done here is done, as in Kafka.

use std::net::TcpStream;

use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use madang_protocol::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use madang_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use madang_protocol::messages::delete_topics::DeleteTopicsRequest;
use madang_protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use madang_protocol::payload::Payload;
use madang_protocol::record_batch::{BatchBuilder, BatchOptions};

use crate::ask::{ask, ask_over, connect};
use crate::client::Yard;

const OK: i16 = ErrorCode::None.code();
const TIMED_OUT: i16 = ErrorCode::RequestTimedOut.code();
const EXISTS: i16 = ErrorCode::TopicAlreadyExists.code();

fn create(address: &str, timeout_ms: i32) -> (i16, bool, i32) {
    let topic = CreatableTopic { name: "t".into(), num_partitions: 1, replication_factor: 1, ..Default::default() };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms, validate_only: false };
    ask(address, &request, 7, |answer| {
        let topic = &answer.topics[0];
        (topic.error_code, topic.error_message.is_some(), topic.num_partitions)
    })
}

fn grow(address: &str, count: i32, timeout_ms: i32) -> i16 {
    let topic = CreatePartitionsTopic { name: "t".into(), count, assignments: None };
    let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms, validate_only: false };
    ask(address, &request, 3, |answer| answer.results[0].error_code)
}

fn delete(address: &str, timeout_ms: i32) -> i16 {
    let request = DeleteTopicsRequest { topic_names: vec!["t".into()], timeout_ms, ..Default::default() };
    ask(address, &request, 5, |answer| answer.responses[0].error_code)
}

fn produce(address: &str, acks: i16, timeout_ms: i32) -> (i16, i64) {
    produce_to(address, ("t", 0), acks, timeout_ms)
}

/// One record to a partition of a topic: the answer's error and offset.
pub(crate) fn produce_to(address: &str, place: (&str, i32), acks: i16, timeout_ms: i32) -> (i16, i64) {
    produce_over(&mut connect(address), place, acks, timeout_ms)
}

/// The same, over this connection.
pub(crate) fn produce_over(
    stream: &mut TcpStream,
    (topic, index): (&str, i32),
    acks: i16,
    timeout_ms: i32,
) -> (i16, i64) {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(1_700_000_000_000, None, Some(b"v"), &[]).expect("fits");
    let records = Some(Payload::Bytes(builder.build().expect("a batch")));
    let data = PartitionProduceData { index, records };
    let topic = TopicProduceData { name: topic.into(), partition_data: vec![data], ..Default::default() };
    let request = ProduceRequest { acks, timeout_ms, topic_data: vec![topic], ..Default::default() };
    ask_over(stream, &request, 9, |answer| {
        let partition = &answer.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    })
}

fn delete_records(address: &str, offset: i64, timeout_ms: i32) -> (i16, i64) {
    let partition = DeleteRecordsPartition { partition_index: 0, offset };
    let topic = DeleteRecordsTopic { name: "t".into(), partitions: vec![partition] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms };
    ask(address, &request, 2, |answer| {
        let partition = &answer.topics[0].partitions[0];
        (partition.error_code, partition.low_watermark)
    })
}

#[test]
fn without_any_time_nothing_is_asked_of_the_controller_and_the_log_is_written_all_the_same() {
    let yard = Yard::open(&[]);
    let address = &yard.broker.address;
    for timeout_ms in [0, -1] {
        assert_eq!(create(address, timeout_ms), (TIMED_OUT, false, -1));
    }
    assert_eq!(create(address, 1).0, OK, "it was not created before");
    assert_eq!(create(address, 1).0, EXISTS);
    assert_eq!((grow(address, 2, 0), grow(address, 2, -5)), (TIMED_OUT, TIMED_OUT));
    assert_eq!(grow(address, 2, 1), OK, "it had not grown before");
    let written: Vec<(i16, i64)> = [(-1, 0), (1, 0), (-1, -1), (-1, 1)]
        .into_iter()
        .map(|(acks, timeout)| produce(address, acks, timeout))
        .collect();
    assert_eq!(written, [(OK, 0), (OK, 1), (OK, 2), (OK, 3)]);
    assert_eq!((delete_records(address, 1, 0), delete_records(address, 2, -1)), ((OK, 1), (OK, 2)));
    assert_eq!((delete(address, 0), delete(address, -1)), (TIMED_OUT, TIMED_OUT));
    assert_eq!(create(address, 1).0, EXISTS, "it is still there");
    assert_eq!(delete(address, 1), OK);
}
