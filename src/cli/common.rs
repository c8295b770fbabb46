//! What the commands that talk to a cluster have in common: where it is, how to print, what to say when it fails.

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use madang_client::{AdminError, Client, ClientConfig, ConnectionError, ErrorCode, MetadataError, QuicConfig};
use serde_json::Value;

use super::Failure;

/// Where the cluster is, and how to print.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// A broker to start from.
    #[arg(long, value_name = "HOST:PORT", env = "MADANG_SERVER", default_value = "127.0.0.1:9092")]
    pub(crate) server: String,
    #[command(flatten)]
    pub(crate) print: Print,
}

/// How the cluster is reached, where there is a choice.
#[derive(Clone, Debug, Args)]
struct Way {
    /// Connect over QUIC: --server is the address of a QUIC listener, as `madang start --listen-quic` prints it.
    #[arg(long, requires = "ca")]
    quic: bool,
    /// A file in PEM with the certificates to trust.
    #[arg(long, value_name = "FILE", requires = "quic")]
    ca: Option<PathBuf>,
}

/// A cluster that is asked through Kafka's protocol alone, over TCP or QUIC.
#[derive(Clone, Debug, Args)]
pub(crate) struct Remote {
    #[command(flatten)]
    way: Way,
    #[command(flatten)]
    common: Common,
}

impl Deref for Remote {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

impl Remote {
    /// A client of the cluster.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let mut config = self.common.config();
        if let Some(ca) = self.way.ca.as_ref().filter(|_| self.way.quic) {
            let quic = QuicConfig::new(ca).map_err(|error| {
                Failure::new(error.to_string()).try_this("--ca FILE, as `madang start --listen-quic` prints it")
            })?;
            config.quic = Some(quic);
        }
        Ok(Client::new(config))
    }
}

/// How to print.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Print {
    /// For people, or for programs.
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: Output,
}

/// The form of what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs: one JSON value, or one a line where records stream.
    Json,
}

impl Common {
    /// A client of the cluster.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.config())
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new([self.server.as_str()]);
        config.client_id = "madang-cli".to_owned();
        config.retry_timeout = Duration::from_secs(15);
        config
    }

    /// What to say of an error of the cluster; `thing` is what the command was about.
    pub(crate) fn explain(&self, error: &AdminError, thing: &str) -> Failure {
        match error {
            AdminError::Connection(error) | AdminError::Metadata(MetadataError::Connection(error)) => {
                self.unreachable(error)
            }
            error => explain_code(error, error.code(), thing),
        }
    }

    /// What to say when the connection is the trouble.
    pub(crate) fn unreachable(&self, error: &ConnectionError) -> Failure {
        let failure = Failure::new(error.to_string());
        if error.is_unsent() {
            failure.try_this(format!(
                "madang start --listen {}, or --server HOST:PORT (MADANG_SERVER) of a broker that runs",
                self.server
            ))
        } else {
            failure.try_this("the same again; madang doctor says how the broker is")
        }
    }
}

/// What to say of a broker's error.
pub(crate) fn explain_code(error: &dyn Display, code: Option<ErrorCode>, thing: &str) -> Failure {
    let failure = Failure::new(error.to_string());
    match code {
        Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId) => {
            failure.try_this(format!("madang topic list, or madang topic create {thing}"))
        }
        Some(ErrorCode::TopicAlreadyExists) => failure.try_this(format!("madang topic describe {thing}")),
        Some(ErrorCode::InvalidTopicException) => failure.try_this(
            "a name of letters, digits, '.', '_' and '-', at most 249 characters, not one of Kafka's own topics",
        ),
        Some(ErrorCode::InvalidReplicationFactor) => {
            failure.try_this("a replication factor between 1 and the number of brokers; madang doctor lists them")
        }
        Some(ErrorCode::InvalidPartitions) => {
            failure.try_this("more partitions than the topic has now: they can only be added")
        }
        Some(ErrorCode::InvalidConfig) => {
            failure.try_this(format!("madang topic describe {thing} --all-configs shows every key and its value"))
        }
        Some(ErrorCode::GroupIdNotFound) => failure.try_this("madang group list"),
        Some(ErrorCode::NonEmptyGroup | ErrorCode::UnknownMemberId | ErrorCode::RebalanceInProgress) => {
            failure.try_this(format!("stop the group's members first: madang group describe {thing} says who they are"))
        }
        Some(ErrorCode::OffsetOutOfRange) => failure.try_this("--from-beginning"),
        Some(code) if code.is_retriable() => {
            failure.try_this("the same again in a moment; madang doctor says how the broker is")
        }
        _ => failure.try_this("madang doctor"),
    }
}

/// Runs a command's future on a runtime of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("no runtime: {error}")))?;
    let outcome = runtime.block_on(work);
    // A thread that still reads standard input is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Prints a value for programs.
pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value:#}\n"))
}

/// Prints; a reader that has seen enough is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush())).map(drop)
}

/// Whether somebody still reads what is printed.
pub(crate) fn written(outcome: io::Result<()>) -> Result<bool, Failure> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(format!("cannot print: {error}"))),
    }
}

/// Rows under a heading, each column as wide as its widest cell.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `1,2,3`
pub(crate) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

/// Splits `KEY=VALUE`.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text} is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_ends_no_line_with_blanks() {
        let rows = vec![vec!["orders".to_owned(), "3".to_owned()], vec!["o".to_owned(), String::new()]];
        assert_eq!(table(&["TOPIC", "N"], &rows), "TOPIC   N\norders  3\no\n");
    }

    #[test]
    fn a_key_needs_a_value() {
        assert_eq!(key_value("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(key_value("a").is_err() && key_value("=b").is_err());
    }
}
