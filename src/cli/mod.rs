//! The command line: one file per command. Every error says what to do next.

mod cert;
mod chaos;
mod cluster;
mod common;
mod consume;
mod dev;
mod doctor;
mod group;
mod grow;
mod log;
mod moves;
mod produce;
mod start;
mod status;
mod topic;
mod tree;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An event streaming platform that speaks Apache Kafka's protocol.
#[derive(Debug, Parser)]
#[command(name = "madang", version, about, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a broker.
    Start(start::Start),
    Topic(topic::Topic),
    Group(group::Group),
    Produce(produce::Produce),
    Consume(consume::Consume),
    Tree(tree::Tree),
    Doctor(doctor::Doctor),
    Log(log::Log),
    Cert(cert::Cert),
    Cluster(cluster::Cluster),
    Chaos(chaos::Chaos),
}

/// What went wrong, for a person: what happened, and what to do next.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    next: Option<String>,
    code: u8,
}

impl Failure {
    /// A failure that ends the command with exit code 1.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), next: None, code: 1 }
    }

    /// The same, with another exit code.
    #[must_use]
    pub(crate) fn exit(mut self, code: i32) -> Self {
        self.code = u8::try_from(code).unwrap_or(1);
        self
    }

    /// The same, with something else to know.
    #[must_use]
    pub(crate) fn noting(mut self, note: &str) -> Self {
        self.what = format!("{}; {note}", self.what);
        self
    }

    /// The same, with what the person can do about it.
    #[must_use]
    pub(crate) fn try_this(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Start(args) => start::run(args),
        Command::Topic(args) => topic::run(args),
        Command::Group(args) => group::run(args),
        Command::Produce(args) => produce::run(args),
        Command::Consume(args) => consume::run(args),
        Command::Tree(args) => tree::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Log(args) => log::run(args),
        Command::Cert(args) => cert::run(args),
        Command::Cluster(args) => cluster::run(args),
        Command::Chaos(args) => chaos::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("madang: {}", failure.what);
            if let Some(next) = failure.next {
                eprintln!("  try: {next}");
            }
            ExitCode::from(failure.code)
        }
    }
}
