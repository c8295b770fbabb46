//! `madang cluster`: several nodes on this machine, and how a cluster is.

use clap::{Args, Subcommand};

use super::Failure;
use super::dev::{self, Dev};
use super::status::{self, Status};

/// Run a cluster for development, or see how one is.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(Dev),
    Status(Status),
}

pub(crate) fn run(args: Cluster) -> Result<(), Failure> {
    match args.command {
        Command::Dev(args) => dev::run(args),
        Command::Status(args) => status::run(args),
    }
}
