//! librdkafka produces and consumes: codecs, keys, headers, timestamps, acknowledgements, sizes, restarts.

use std::time::{Duration, Instant};

use madang_protocol::record_batch::Batches;
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use crate::broker::Broker;
use crate::client_admin::{admin, options};

/// How long anything may take before a test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a topic may ask for, and the number of the codec in a batch.
const CODECS: [(&str, u8); 5] = [("uncompressed", 0), ("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4)];

/// A broker on a folder of its own.
pub(crate) struct Yard {
    pub(crate) broker: Broker,
    pub(crate) folder: tempfile::TempDir,
}

impl Yard {
    pub(crate) fn open(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let broker = Broker::start(&folder.path().join("data"), settings);
        Self { broker, folder }
    }

    /// A clean stop and a second start.
    pub(crate) fn reopen(self) -> Self {
        let Self { broker, folder } = self;
        assert!(broker.stop(), "SIGTERM ends with exit code 0");
        let broker = Broker::start(&folder.path().join("data"), &[]);
        Self { broker, folder }
    }

    /// A client's configuration.
    pub(crate) fn config(&self, pairs: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.broker.address).set("topic.metadata.refresh.fast.interval.ms", "50");
        config.set("topic.metadata.propagation.max.ms", "2000");
        for (key, value) in pairs {
            config.set(*key, *value);
        }
        config
    }

    pub(crate) fn producer(&self, pairs: &[(&str, &str)]) -> FutureProducer {
        self.config(pairs).set("message.timeout.ms", "20000").create().expect("a producer")
    }

    /// Every record of partition 0 of `topic`.
    pub(crate) fn read(&self, topic: &str) -> Vec<OwnedMessage> {
        let pairs = [("group.id", "reader"), ("enable.partition.eof", "true"), ("check.crcs", "true")];
        let consumer: BaseConsumer = self.config(&pairs).create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning).expect("an offset");
        consumer.assign(&list).expect("assigned");
        let deadline = Instant::now() + PATIENCE;
        let mut records = Vec::new();
        while Instant::now() < deadline {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => records.push(BorrowedMessage::detach(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => return records,
                Some(Err(error)) => panic!("{topic}: {error}"),
                None => {}
            }
        }
        panic!("{topic} is not read to its end in time");
    }
}

/// Drives the futures of a test.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// Sends one record to partition 0 and gives its offset.
pub(crate) async fn send(producer: &FutureProducer, topic: &str, value: &str) -> Result<i64, KafkaError> {
    let record = FutureRecord::<str, str>::to(topic).partition(0).payload(value);
    producer.send(record, PATIENCE).await.map(|delivery| delivery.offset).map_err(|(error, _)| error)
}

fn values(records: &[OwnedMessage]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned()).collect()
}

#[test]
fn every_codec_makes_the_round_trip() {
    let yard = Yard::open(&[]);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("codec-{codec}");
        let producer = yard.producer(&[("compression.type", codec), ("linger.ms", "20")]);
        let sent: Vec<String> = (0..200).map(|number| format!("{codec} {number} {}", "abc".repeat(50))).collect();
        run(async {
            let deliveries = sent.iter().map(|value| send(&producer, &topic, value));
            for (number, offset) in futures_util::future::join_all(deliveries).await.into_iter().enumerate() {
                assert_eq!(offset.expect("acknowledged"), number as i64, "{codec}");
            }
        });
        assert_eq!(values(&yard.read(&topic)), sent, "{codec}");
    }
}

/// Whatever codec a batch comes in, it is stored in the topic's: offsets, times and all else stay. The first batch's codec is told by the
/// bytes of the segment.
#[test]
fn a_topic_with_a_codec_of_its_own_stores_every_batch_in_it() {
    let yard = Yard::open(&[]);
    let topics: Vec<NewTopic<'_>> = CODECS
        .iter()
        .map(|(codec, _)| NewTopic::new(codec, 1, TopicReplication::Fixed(1)).set("compression.type", codec))
        .collect();
    let made = run(admin(&yard).create_topics(&topics, &options())).expect("answered");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    for (topic, number) in CODECS {
        let mut sent = Vec::new();
        for (codec, _) in CODECS {
            let codec = if codec == "uncompressed" { "none" } else { codec };
            let producer = yard.producer(&[("compression.type", codec), ("linger.ms", "20")]);
            let values: Vec<String> = (0..40).map(|at| format!("{codec} {at} {}", "abc".repeat(50))).collect();
            run(async {
                let deliveries = values.iter().enumerate().map(|(at, value)| {
                    let time = 1_700_000_000_000 + (sent.len() + at) as i64;
                    let record = FutureRecord::to(topic).key("k").payload(value).timestamp(time);
                    producer.send(record, PATIENCE)
                });
                for delivery in futures_util::future::join_all(deliveries).await {
                    delivery.expect("acknowledged");
                }
            });
            sent.extend(values);
        }
        let records = yard.read(topic);
        assert_eq!(values(&records), sent, "{topic}");
        for (at, record) in records.iter().enumerate() {
            assert_eq!(
                (record.offset(), record.timestamp().to_millis()),
                (at as i64, Some(1_700_000_000_000 + at as i64))
            );
        }
        let segment = yard.folder.path().join(format!("data/{topic}-0/00000000000000000000.log"));
        let bytes = std::fs::read(segment).expect("the segment");
        let batches: Vec<u8> = Batches::new(&bytes).map(|batch| batch.expect("whole").bytes[22] & 7).collect();
        assert!(batches.len() >= CODECS.len() && batches.iter().all(|codec| *codec == number), "{topic}: {batches:?}");
    }
}

#[test]
fn keys_headers_and_timestamps_come_back_as_they_were_sent() {
    let yard = Yard::open(&[]);
    let producer = yard.producer(&[]);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "kind", value: Some("greeting") })
        .insert(Header { key: "empty", value: None::<&str> });
    let full = FutureRecord::to("greetings").partition(0).key("a key").payload("hello").timestamp(1_700_000_000_123);
    run(producer.send(full.headers(headers), PATIENCE)).expect("acknowledged");
    let tombstone = FutureRecord::<str, str>::to("greetings").partition(0).key("a key");
    run(producer.send(tombstone, PATIENCE)).expect("acknowledged");
    let records = yard.read("greetings");
    assert_eq!(records[0].key(), Some(&b"a key"[..]));
    assert_eq!(records[0].payload(), Some(&b"hello"[..]));
    assert_eq!(records[0].timestamp().to_millis(), Some(1_700_000_000_123));
    let headers = records[0].headers().expect("headers");
    assert_eq!((headers.get(0).key, headers.get(0).value), ("kind", Some(&b"greeting"[..])));
    assert_eq!((headers.get(1).key, headers.get(1).value), ("empty", None));
    assert_eq!((records[1].key(), records[1].payload()), (Some(&b"a key"[..]), None));
}

#[test]
fn every_kind_of_acknowledgement_and_idempotence_work() {
    let yard = Yard::open(&[]);
    for acks in ["0", "1", "all"] {
        let topic = format!("acks-{acks}");
        let producer = yard.producer(&[("acks", acks)]);
        for number in 0..20 {
            run(send(&producer, &topic, &number.to_string())).expect("sent");
        }
        // With acks=0 the client knows nothing of the append, so the reader may come first.
        let complete = crate::load::poll(PATIENCE, || yard.read(&topic).len() == 20);
        assert!(complete, "acks={acks}: {}", yard.read(&topic).len());
        assert_eq!(values(&yard.read(&topic)), (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    }
    let producer = yard.producer(&[("enable.idempotence", "true")]);
    run(async {
        let sent: Vec<String> = (0..500).map(|number| number.to_string()).collect();
        for (number, offset) in futures_util::future::join_all(sent.iter().map(|value| send(&producer, "once", value)))
            .await
            .iter()
            .enumerate()
        {
            assert_eq!(offset.as_ref().ok(), Some(&(number as i64)));
        }
    });
    assert_eq!(yard.read("once").len(), 500);
}

#[test]
fn a_record_may_be_as_large_as_max_message_bytes_and_no_larger() {
    let yard = Yard::open(&["message.max.bytes=1000000"]);
    let producer = yard.producer(&[("message.max.bytes", "5000000")]);
    let fits = "x".repeat(999_000);
    run(send(&producer, "large", &fits)).expect("a record just below the bound");
    let refused = run(send(&producer, "large", &"x".repeat(1_000_100))).expect_err("a record above it");
    assert_eq!(refused.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    run(send(&producer, "large", "the connection goes on")).expect("acknowledged");
    let records = yard.read("large");
    assert_eq!(records.iter().map(|record| record.payload_len()).collect::<Vec<_>>(), [999_000, 22]);
}

#[test]
fn a_clean_stop_and_a_second_start_keep_everything() {
    let yard = Yard::open(&["num.partitions=3"]);
    let producer = yard.producer(&[("acks", "all"), ("partitioner", "consistent")]);
    run(async {
        for number in 0..100 {
            let (key, value) = (format!("key-{number}"), number.to_string());
            let record = FutureRecord::to("kept").key(&key).payload(&value);
            producer.send(record, PATIENCE).await.expect("acknowledged");
        }
        send(&producer, "kept-too", "one").await.expect("acknowledged");
    });
    drop(producer);
    let before = yard.read("kept");
    let yard = yard.reopen();
    assert_eq!(values(&yard.read("kept")), values(&before));
    assert_eq!(values(&yard.read("kept-too")), ["one"]);
    let producer = yard.producer(&[]);
    assert_eq!(run(send(&producer, "kept-too", "two")).expect("acknowledged"), 1);
    let yard = yard.reopen();
    assert_eq!(values(&yard.read("kept-too")), ["one", "two"]);
    assert!(yard.folder.path().exists());
}

trait PayloadLen {
    fn payload_len(&self) -> usize;
}

impl PayloadLen for OwnedMessage {
    fn payload_len(&self) -> usize {
        self.payload().map_or(0, <[u8]>::len)
    }
}
