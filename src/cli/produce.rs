//! `madang produce`: lines from standard input become records.

use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use madang_client::{
    Acks, Codec, Compression, Delivery, MetadataError, ProduceError, Producer, ProducerConfig, ProducerRecord,
};
use serde_json::json;
use tokio::sync::mpsc;

use super::Failure;
use super::common::{Output, Remote, block_on, explain_code};

/// The longest line in bytes.
const MAX_LINE: usize = 16 << 20;
/// Lines that wait between the thread that reads and the producer.
const LINES: usize = 1024;
/// Records whose answers are awaited together.
const IN_FLIGHT: usize = 10_000;

/// Write the lines of standard input to a topic, one record each. A summary goes to standard error.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  printf 'alice:1\\nbob:2\\n' | madang produce orders --key-separator : --compression zstd"
)]
pub(crate) struct Produce {
    /// The topic's name. It is created if the cluster creates topics.
    topic: String,
    /// What stands between key and value; without it, lines are values.
    #[arg(long, value_name = "C")]
    key_separator: Option<String>,
    /// When a write counts as done: by all in-sync replicas, by the leader, or when it is sent.
    #[arg(long, value_enum, value_name = "A", default_value = "all")]
    acks: AcksArg,
    /// Codec of the batches.
    #[arg(long, value_enum, value_name = "C", default_value = "none")]
    compression: CodecArg,
    /// Write to this partition instead of choosing one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    #[command(flatten)]
    common: Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AcksArg {
    All,
    #[value(name = "1", alias = "leader")]
    Leader,
    #[value(name = "0", alias = "none")]
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CodecArg {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl CodecArg {
    const fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip => Codec::Gzip,
            Self::Snappy => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd => Codec::Zstd,
        }
    }
}

/// What was written so far.
#[derive(Default)]
struct Written {
    records: u64,
    bytes: u64,
}

pub(crate) fn run(args: Produce) -> Result<(), Failure> {
    block_on(produce(args))
}

async fn produce(args: Produce) -> Result<(), Failure> {
    let config = ProducerConfig {
        acks: match args.acks {
            AcksArg::All => Acks::All,
            AcksArg::Leader => Acks::Leader,
            AcksArg::None => Acks::None,
        },
        compression: Compression::of(args.compression.codec()),
        delivery_timeout: Duration::from_secs(30),
        max_request_bytes: MAX_LINE + 1024,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(args.common.client()?, config);
    let mut lines = read_lines();
    let mut waiting: VecDeque<(Delivery, u64)> = VecDeque::new();
    let mut written = Written::default();
    let began = Instant::now();
    let outcome = loop {
        let line = tokio::select! {
            biased;
            Some(done) = async { Some((&mut waiting.front_mut()?.0).await) } => {
                let bytes = waiting.pop_front().map_or(0, |(_, bytes)| bytes);
                match done {
                    Ok(_) => written.count(bytes),
                    Err(error) => break Err(args.failed(&error)),
                }
                continue;
            }
            line = lines.recv(), if waiting.len() < IN_FLIGHT => line,
        };
        let line = match line {
            None => break Ok(()),
            Some(Err(failure)) => break Err(failure),
            Some(Ok(line)) => line,
        };
        let record = match args.record(line) {
            Ok(record) => record,
            Err(failure) => break Err(failure),
        };
        let part = |bytes: Option<usize>| bytes.unwrap_or(0) as u64;
        let bytes =
            part(record.key.as_ref().map(|key| key.len())) + part(record.value.as_ref().map(|value| value.len()));
        match producer.send(record).await {
            Ok(delivery) => waiting.push_back((delivery, bytes)),
            Err(error) => break Err(args.failed(&error)),
        }
    };
    // What was accepted before the failure is still written, and counted.
    let flushed = producer.flush().await.map_err(|error| args.failed(&error));
    let mut late = Ok(());
    for (delivery, bytes) in waiting {
        match delivery.await {
            Ok(_) => written.count(bytes),
            Err(error) => late = Err(args.failed(&error)),
        }
    }
    args.summarize(&written, began.elapsed());
    outcome.and(flushed).and(late)
}

/// Reads standard input on a thread of its own, as it may block for ever.
fn read_lines() -> mpsc::Receiver<Result<Vec<u8>, Failure>> {
    let (sender, receiver) = mpsc::channel(LINES);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let outcome = (&mut input).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line);
            let item = match outcome {
                Ok(0) => return,
                Ok(_) if line.len() > MAX_LINE => Err(Failure::new(format!("a line is longer than {MAX_LINE} bytes"))),
                Ok(_) => {
                    if line.last() == Some(&b'\n') {
                        line.pop();
                    }
                    Ok(line)
                }
                Err(error) => Err(Failure::new(format!("cannot read standard input: {error}"))),
            };
            let is_last = item.is_err();
            if sender.blocking_send(item).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

impl Written {
    fn count(&mut self, bytes: u64) {
        self.records += 1;
        self.bytes += bytes;
    }
}

impl Produce {
    fn record(&self, line: Vec<u8>) -> Result<ProducerRecord, Failure> {
        let record = ProducerRecord { partition: self.partition, ..ProducerRecord::new(self.topic.as_str()) };
        let Some(separator) = self.key_separator.as_deref().filter(|separator| !separator.is_empty()) else {
            return Ok(record.value(line));
        };
        let at = line.windows(separator.len()).position(|window| window == separator.as_bytes());
        let at = at.ok_or_else(|| {
            let line: String = String::from_utf8_lossy(&line).chars().take(60).collect();
            Failure::new(format!("no {separator:?} in the line {line:?}"))
                .try_this("lines of the form KEY, separator, VALUE, or no --key-separator")
        })?;
        let value = line[at + separator.len()..].to_vec();
        Ok(record.key(line[..at].to_vec()).value(value))
    }

    fn failed(&self, error: &ProduceError) -> Failure {
        match error {
            ProduceError::Metadata(error) => match &**error {
                MetadataError::Connection(error) => self.common.unreachable(error),
                MetadataError::Topic { code, .. } => explain_code(error, Some(*code), &self.topic),
                MetadataError::NoPartition { .. } => {
                    Failure::new(error.to_string()).try_this(format!("madang topic describe {}", self.topic))
                }
                other => explain_code(other, None, &self.topic),
            },
            ProduceError::Broker { code: madang_client::ErrorCode::MessageTooLarge, .. } => {
                Failure::new(error.to_string())
                    .try_this(format!("madang topic alter {} --set max.message.bytes=BYTES", self.topic))
            }
            ProduceError::Broker { code, .. } => explain_code(error, Some(*code), &self.topic),
            error => Failure::new(error.to_string()).try_this("madang doctor"),
        }
    }

    fn summarize(&self, written: &Written, took: Duration) {
        match self.common.print.output {
            Output::Text => eprintln!(
                "{} records, {} bytes to {} in {:.3} s",
                written.records,
                written.bytes,
                self.topic,
                took.as_secs_f64()
            ),
            Output::Json => eprintln!(
                "{}",
                json!({
                    "topic": self.topic,
                    "records": written.records,
                    "bytes": written.bytes,
                    "seconds": took.as_secs_f64(),
                })
            ),
        }
    }
}
