//! How long a large partition serves nobody when its actor panics: a raw client appends one record after the other, and asks again at once when it is
//! refused or cut off, so that the longest time between two acknowledgements is the crash, the restart from disk and one request.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::frame::{RequestHeader, decode_response, encode_request};
use madang_protocol::message::Request;
use madang_protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use madang_protocol::record_batch::{BatchBuilder, BatchOptions};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::broker::{Broker, Launch};
use crate::load::poll;

const TOPIC: &str = "large";
const VALUE: usize = 100 << 10;
const VERSION: i16 = 9;
const PATIENCE: Duration = Duration::from_secs(60);
/// Acknowledgements around each crash.
const SETTLED: usize = 200;

/// Fills a partition with so many GiB, and has its actor panic once in each of `rounds` lives of the broker: an actor that panics again and again at one
/// place waits longer each time, and is set aside.
pub(crate) fn run(gib: usize, rounds: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = start(folder.path());
    fill(&broker.address, gib << 30);
    assert!(broker.stop(), "an orderly end");
    let times = (0..rounds).map(|_| crash(folder.path())).collect();
    crate::startup::print(&format!("no acknowledgement while the actor of a partition of {gib} GiB crashed"), times);
}

fn start(folder: &Path) -> Broker {
    let (plan, log) = (folder.join("plan"), folder.join("log"));
    for file in [&plan, &log] {
        std::fs::write(file, "").expect("a file can be written");
    }
    let launch = Launch::new(&folder.join("data")).set("num.partitions=1").log_to(&log);
    launch.env("MADANG_FAILPOINTS", plan.to_str().expect("text")).start("127.0.0.1:0")
}

/// Plants a panic, and answers for how long nothing was acknowledged.
fn crash(folder: &Path) -> Duration {
    let mut broker = start(folder);
    let mut client = Client::new(&broker);
    client.acknowledged(SETTLED);
    let mut plan = std::fs::File::options().append(true).open(folder.join("plan")).expect("the plan");
    writeln!(plan, "node/log_dirs/directory-0/replicas/{TOPIC}-0 Append 1 panic").expect("the plan can be written");
    let mut longest = Duration::ZERO;
    let struck = || std::fs::read_to_string(folder.join("log")).unwrap_or_default().contains("planted: ");
    let panics = poll(PATIENCE, || {
        longest = longest.max(client.acknowledged(SETTLED));
        struck()
    });
    assert!(panics, "it panics");
    assert!(broker.lives(), "the process lives");
    assert!(broker.stop(), "an orderly end");
    longest
}

fn fill(address: &str, bytes: usize) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address).set("batch.size", "900000").set("linger.ms", "5");
    let producer: BaseProducer = config.set("queue.buffering.max.kbytes", "131072").create().expect("a producer");
    let value = vec![7; VALUE];
    for _ in 0..bytes / VALUE {
        let mut record = BaseRecord::<(), _>::to(TOPIC).payload(&value);
        while let Err((error, back)) = producer.send(record) {
            assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            producer.poll(Duration::from_millis(10));
            record = back;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(PATIENCE * 10).expect("all is acknowledged");
}

/// One request at a time.
struct Client {
    address: String,
    stream: TcpStream,
    frame: Vec<u8>,
}

impl Client {
    fn new(broker: &Broker) -> Self {
        let mut batch = BatchBuilder::new(BatchOptions::default());
        batch.append(1, None, Some(b"a record"), &[]).expect("fits");
        let records: Bytes = batch.build().expect("a batch");
        let data = PartitionProduceData { index: 0, records: Some(records.into()) };
        let topic = TopicProduceData { name: TOPIC.into(), partition_data: vec![data], ..Default::default() };
        let request = ProduceRequest { acks: -1, timeout_ms: 5000, topic_data: vec![topic], ..Default::default() };
        let client_id = Some(Cow::Borrowed("crash"));
        let header = RequestHeader { api_key: ProduceRequest::KEY, api_version: VERSION, correlation_id: 7, client_id };
        let chunks = encode_request(&header, &request).expect("encodes");
        let frame = chunks.iter().flat_map(|chunk| chunk.read().expect("bytes").to_vec()).collect();
        Self { stream: connect(&broker.address), address: broker.address.clone(), frame }
    }

    /// Asks once; whether the record was acknowledged.
    fn ask(&mut self) -> bool {
        let mut exchange = || {
            self.stream.write_all(&self.frame)?;
            let mut length = [0; 4];
            self.stream.read_exact(&mut length)?;
            let mut answer = vec![0; u32::from_be_bytes(length) as usize];
            self.stream.read_exact(&mut answer)?;
            std::io::Result::Ok(Bytes::from(answer))
        };
        let Ok(answer) = exchange() else {
            self.stream = connect(&self.address);
            return false;
        };
        let (_, answer) = decode_response::<ProduceRequest<'_>>(&answer, VERSION).expect("decodes");
        answer.responses[0].partition_responses[0].error_code == ErrorCode::None.code()
    }

    /// The longest time between two of so many acknowledgements.
    fn acknowledged(&mut self, count: usize) -> Duration {
        let (mut longest, mut last, begun) = (Duration::ZERO, Instant::now(), Instant::now());
        for _ in 0..count {
            while !self.ask() {
                assert!(begun.elapsed() < PATIENCE, "it serves again");
            }
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    }
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}
