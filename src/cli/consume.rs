//! `madang consume`: records of a topic to standard output.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use madang_client::{
    ConsumeError, Consumer, ConsumerConfig, ConsumerRecord, GroupConfig, GroupConsumer, GroupError, MetadataError,
    Offset, OutOfRange, StartAt,
};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use super::common::{Output, Remote, block_on, explain_code, written};

const POLL: Duration = Duration::from_secs(1);

/// Print a topic's records until interrupted: values as they are, or JSON, one record a line.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  madang consume orders --from-beginning --max 10 --output json")]
pub(crate) struct Consume {
    /// The topic's name.
    topic: String,
    /// Start at the log start offset. With --group, where the group has committed nothing. Default: only records still to come.
    #[arg(long, conflicts_with_all = ["offset", "timestamp"])]
    from_beginning: bool,
    /// Start at this offset in every partition.
    #[arg(long, value_name = "N", conflicts_with_all = ["timestamp", "group"], value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
    /// Start at the first record that is not older, in milliseconds since 1970.
    #[arg(long, value_name = "MS", conflicts_with = "group", value_parser = clap::value_parser!(i64).range(0..))]
    timestamp: Option<i64>,
    /// Read as a member of this group, and commit what was printed.
    #[arg(long, value_name = "G")]
    group: Option<String>,
    /// End after so many records.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Print the key and a tab before each value.
    #[arg(long)]
    keys: bool,
    #[command(flatten)]
    common: Remote,
}

pub(crate) fn run(args: Consume) -> Result<(), Failure> {
    block_on(consume(args))
}

async fn consume(args: Consume) -> Result<(), Failure> {
    let mut printer = Printer { left: args.max.unwrap_or(u64::MAX), keys: args.keys, output: args.common.print.output };
    if printer.left == 0 {
        return Ok(());
    }
    let interrupted = interrupted()?;
    let out_of_range = if args.from_beginning { OutOfRange::Earliest } else { OutOfRange::Latest };
    let max_poll_records = usize::try_from(printer.left.min(500)).unwrap_or(500);
    let config = ConsumerConfig { out_of_range, max_poll_records, ..ConsumerConfig::default() };
    if args.group.is_some() {
        return consume_as_member(&args, config, &mut printer, interrupted).await;
    }
    tokio::select! {
        outcome = consume_alone(&args, config, &mut printer) => outcome,
        () = interrupted => Ok(()),
    }
}

/// Ends when the process is asked to end.
fn interrupted() -> Result<impl Future<Output = ()>, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

async fn consume_alone(args: &Consume, config: ConsumerConfig, printer: &mut Printer) -> Result<(), Failure> {
    let start = match (args.offset, args.timestamp) {
        (Some(offset), _) => StartAt::Offset(Offset(offset)),
        (_, Some(timestamp)) => StartAt::Timestamp(timestamp),
        _ if args.from_beginning => StartAt::Earliest,
        _ => StartAt::Latest,
    };
    let mut consumer = Consumer::new(args.common.client()?, config);
    consumer.assign(&args.topic, start).await.map_err(|error| args.failed(&error))?;
    loop {
        let records = consumer.poll(POLL).await.map_err(|error| args.failed(&error))?;
        if !printer.print(&records)?.goes_on {
            return Ok(());
        }
    }
}

async fn consume_as_member(
    args: &Consume,
    config: ConsumerConfig,
    printer: &mut Printer,
    interrupted: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut interrupted = std::pin::pin!(interrupted);
    let group = args.group.as_deref().unwrap_or_default();
    let config = GroupConfig { consumer: config, ..GroupConfig::new(group) };
    let client = args.common.client()?;
    let known = client.usable_metadata(&[args.topic.as_str()], false).await;
    known.map_err(|error| args.failed(&error.into()))?;
    let mut member = GroupConsumer::new(client, config, [args.topic.as_str()]);
    let failed = |error: GroupError| args.failed_group(&error);
    loop {
        let polled = tokio::select! {
            polled = member.poll(POLL) => polled,
            () = &mut interrupted => return member.leave().await.map_err(failed),
        };
        let records = match polled {
            Err(error) if error.is_retriable() => continue,
            outcome => outcome.map_err(failed)?,
        };
        let printed = printer.print(&records)?;
        if printed.all && !records.is_empty() {
            match member.commit().await {
                // The partitions went to another member, which prints these records again.
                Err(error) if error.is_retriable() => {}
                outcome => outcome.map_err(failed)?,
            }
        }
        if !printed.goes_on {
            return member.leave().await.map_err(failed);
        }
    }
}

impl Consume {
    fn failed(&self, error: &ConsumeError) -> Failure {
        match error {
            ConsumeError::Connection(error) | ConsumeError::Metadata(MetadataError::Connection(error)) => {
                self.common.unreachable(error)
            }
            ConsumeError::Metadata(MetadataError::Topic { code, .. }) | ConsumeError::Broker { code, .. } => {
                explain_code(error, Some(*code), &self.topic)
            }
            error => explain_code(error, None, &self.topic),
        }
    }

    fn failed_group(&self, error: &GroupError) -> Failure {
        match error {
            GroupError::Connection(error) | GroupError::Metadata(MetadataError::Connection(error)) => {
                self.common.unreachable(error)
            }
            GroupError::Consume(error) => self.failed(error),
            GroupError::Broker { code, .. } => explain_code(error, Some(*code), self.group.as_deref().unwrap_or("")),
            error => explain_code(error, None, &self.topic),
        }
    }
}

struct Printer {
    left: u64,
    keys: bool,
    output: Output,
}

struct Printed {
    /// All records were printed.
    all: bool,
    /// More are wanted.
    goes_on: bool,
}

impl Printer {
    fn print(&mut self, records: &[ConsumerRecord]) -> Result<Printed, Failure> {
        let mut out = std::io::stdout().lock();
        for (at, record) in records.iter().enumerate() {
            let line = self.line(record);
            if !written(out.write_all(&line))? {
                return Ok(Printed { all: false, goes_on: false });
            }
            self.left -= 1;
            if self.left == 0 {
                written(out.flush())?;
                return Ok(Printed { all: at + 1 == records.len(), goes_on: false });
            }
        }
        let goes_on = written(out.flush())?;
        Ok(Printed { all: goes_on, goes_on })
    }

    fn line(&self, record: &ConsumerRecord) -> Vec<u8> {
        let mut line = match self.output {
            Output::Json => to_json(record).to_string().into_bytes(),
            Output::Text => {
                let mut line = Vec::new();
                if self.keys {
                    line.extend_from_slice(record.key.as_deref().unwrap_or_default());
                    line.push(b'\t');
                }
                line.extend_from_slice(record.value.as_deref().unwrap_or_default());
                line
            }
        };
        line.push(b'\n');
        line
    }
}

fn to_json(record: &ConsumerRecord) -> Value {
    let headers: Vec<_> = record
        .headers
        .iter()
        .map(|(name, value)| json!({ "name": text(Some(name)), "value": text(value.as_deref()) }))
        .collect();
    json!({
        "topic": &*record.topic,
        "partition": record.partition,
        "offset": record.offset.0,
        "timestamp": record.timestamp,
        "key": text(record.key.as_deref()),
        "value": text(record.value.as_deref()),
        "headers": headers,
    })
}

/// Text as a string, absent as null, other bytes as `{"hex": …}`.
pub(super) fn text(bytes: Option<&[u8]>) -> Value {
    match bytes.map(std::str::from_utf8) {
        None => Value::Null,
        Some(Ok(text)) => text.into(),
        Some(Err(_)) => {
            let hex: String = bytes.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": hex })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_hexadecimal() {
        assert_eq!(text(None), Value::Null);
        assert_eq!(text(Some(b"a\"b")), Value::from("a\"b"));
        assert_eq!(text(Some(b"\xff\x00")), json!({ "hex": "ff00" }));
    }
}
