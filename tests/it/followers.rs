//! Three nodes, each in a rack of its own: consumers are sent to the replica in theirs, and who asks the wrong node is told of the right one.

use std::process::Command;
use std::time::Duration;

use madang_protocol::ErrorCode;
use madang_protocol::messages::describe_topic_partitions::{DescribeTopicPartitionsRequest, TopicRequest};
use madang_protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use madang_protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use madang_protocol::types::TopicId;
use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use crate::ask::ask;
use crate::broker::binary;
use crate::cluster::Cluster;
use crate::load::{Recorder, idempotent, poll};

const TOPIC: &str = "near";
const RECORDS: i64 = 200;
const PATIENCE: Duration = Duration::from_secs(60);

/// The topic's id, and the leader and leader epoch of its only partition.
fn topic(cluster: &Cluster) -> (TopicId, u16, i32) {
    let topics = vec![TopicRequest { name: TOPIC.into() }];
    let asked = DescribeTopicPartitionsRequest { topics, ..Default::default() };
    ask(&cluster.address(0), &asked, 0, |answer| {
        let topic = &answer.topics[0];
        let leader = u16::try_from(topic.partitions[0].leader_id).expect("a leader");
        (topic.topic_id, leader, topic.partitions[0].leader_epoch)
    })
}

/// What a consumer in `rack` is answered by `node`, and the node ids whose addresses came with it.
fn fetched(
    cluster: &Cluster,
    (node, version): (u16, i16),
    rack: &'static str,
    (fetch_offset, current_leader_epoch): (i64, i32),
) -> (PartitionData, Vec<i32>) {
    let partition = FetchPartition {
        fetch_offset,
        current_leader_epoch: if version < 9 { -1 } else { current_leader_epoch },
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let (topic, topic_id) = (TOPIC.into(), topic(cluster).0);
    let topics = vec![FetchTopic { topic, topic_id, partitions: vec![partition] }];
    let (min_bytes, max_wait_ms, rack_id) = (1, 100, rack.into());
    let request = FetchRequest { topics, min_bytes, max_wait_ms, rack_id, ..Default::default() };
    ask(&cluster.address(node - 1), &request, version, |mut answer| {
        assert_eq!(answer.error_code, 0);
        let endpoints = answer.node_endpoints.iter().map(|endpoint| endpoint.node_id).collect();
        (answer.responses.remove(0).partitions.remove(0), endpoints)
    })
}

fn has_records(data: &PartitionData) -> bool {
    data.records.as_ref().is_some_and(|records| !records.is_empty())
}

fn cluster(folder: &std::path::Path) -> Cluster {
    let selector = "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector";
    let cluster = Cluster::start(folder, &[selector]);
    let recorder = Recorder::default();
    let producer: ThreadedProducer<Recorder> =
        idempotent(&cluster.addresses()).create_with_context(recorder.clone()).expect("a producer");
    for number in 0..RECORDS {
        let value = number.to_string();
        let record = BaseRecord::<'_, str, str, Box<u64>>::with_opaque_to(TOPIC, Box::new(number.unsigned_abs()));
        producer.send(record.payload(&value)).map_err(|(error, _)| error).expect("enqueued");
    }
    producer.flush(PATIENCE).expect("acknowledged");
    let all = usize::try_from(RECORDS).expect("small");
    assert_eq!(recorder.outcomes().count(), all);
    cluster
}

#[test]
fn a_consumer_reads_from_the_replica_in_its_rack_and_whoever_asks_the_wrong_node_hears_of_the_right_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = cluster(folder.path());
    assert!(cluster.is_whole_within(PATIENCE));
    // Two leaders, so that there is an older leadership to believe in.
    for replicas in ["1,2,3", "2,3,1"] {
        for words in [&["reassign", "--replicas", replicas][..], &["elect-leaders"]] {
            let mut command = Command::new(binary());
            command.arg("cluster").args(words).args(["--topic", TOPIC, "--server", &cluster.address(0)]);
            assert!(command.status().expect("runs").success(), "{words:?}");
        }
    }
    let (_, leader, epoch) = topic(&cluster);
    let racks = ["rack-1", "rack-2", "rack-3"];
    for node in (1..=3).filter(|node| *node != leader) {
        let rack = racks[usize::from(node) - 1];
        // A new leader knows where a follower stands once it has fetched.
        let asked = || fetched(&cluster, (leader, 12), rack, (0, epoch)).0;
        assert!(poll(PATIENCE, || asked().preferred_read_replica == i32::from(node)), "node {node} is recommended");
        let sent_on = asked();
        assert_eq!((sent_on.error_code, sent_on.preferred_read_replica), (0, i32::from(node)));
        assert!(!has_records(&sent_on) && sent_on.high_watermark >= RECORDS);
        let there = || fetched(&cluster, (node, 12), rack, (0, epoch)).0;
        assert!(poll(PATIENCE, || there().high_watermark == RECORDS), "its own high watermark follows");
        assert!(has_records(&there()) && there().preferred_read_replica == -1);
        let (end, _) = fetched(&cluster, (node, 12), rack, (RECORDS, epoch));
        assert_eq!((end.error_code, has_records(&end)), (0, false), "what is not there yet is waited for");
        let (beyond, _) = fetched(&cluster, (node, 12), rack, (RECORDS + 1, epoch));
        assert_eq!(beyond.error_code, ErrorCode::OffsetOutOfRange.code());
        let (older, _) = fetched(&cluster, (node, 10), "", (0, epoch));
        assert_eq!(older.error_code, ErrorCode::NotLeaderOrFollower.code(), "a client that knows of no followers");
        let (fenced, endpoints) = fetched(&cluster, (node, 16), rack, (0, epoch - 1));
        assert_eq!(fenced.error_code, ErrorCode::FencedLeaderEpoch.code());
        assert_eq!(fenced.current_leader.leader_id, i32::from(leader));
        assert_eq!((fenced.current_leader.leader_epoch, endpoints), (epoch, vec![i32::from(leader)]));
        produced_to_the_wrong_node(&cluster, node, leader, epoch);
    }
    for rack in [racks[usize::from(leader) - 1], "elsewhere", ""] {
        let (read, _) = fetched(&cluster, (leader, 12), rack, (0, epoch));
        assert!(read.preferred_read_replica == -1 && has_records(&read), "{rack}: the leader serves");
    }
    for rack in racks {
        consumed(&cluster, rack);
    }
    cluster.stop();
}

fn produced_to_the_wrong_node(cluster: &Cluster, node: u16, leader: u16, epoch: i32) {
    let data = PartitionProduceData { index: 0, records: Some(bytes::Bytes::from_static(b"none").into()) };
    let topic = TopicProduceData { name: TOPIC.into(), partition_data: vec![data], ..Default::default() };
    let request = ProduceRequest { acks: -1, timeout_ms: 5000, topic_data: vec![topic], ..Default::default() };
    ask(&cluster.address(node - 1), &request, 10, |answer| {
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, ErrorCode::NotLeaderOrFollower.code());
        assert_eq!(partition.current_leader.leader_id, i32::from(leader));
        assert_eq!(partition.current_leader.leader_epoch, epoch);
        let [endpoint] = &answer.node_endpoints[..] else { panic!("{:?}", answer.node_endpoints) };
        assert_eq!(format!("{}:{}", endpoint.host, endpoint.port), cluster.address(leader - 1));
    });
}

/// A real consumer in that rack reads all of it.
fn consumed(cluster: &Cluster, rack: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.addresses()).set("client.rack", rack).set("group.id", rack);
    let consumer: BaseConsumer = config.set("auto.offset.reset", "earliest").create().expect("a consumer");
    consumer.subscribe(&[TOPIC]).expect("subscribes");
    let mut next = 0;
    let all = poll(PATIENCE, || {
        while let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            assert_eq!(message.offset(), next);
            next += 1;
        }
        next == RECORDS
    });
    assert!(all, "{rack}: {next} of {RECORDS}");
}
