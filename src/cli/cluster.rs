//! `madang cluster`: several nodes on this machine, how a cluster is, and what is where in it.

use clap::{Args, Subcommand};

use super::Failure;
use super::dev::{self, Dev};
use super::grow::{self, Join, Leave, RaiseReplication};
use super::moves::{self, ElectLeaders, Forget, Reassign};
use super::status::{self, Status};

/// Run a cluster for development, see how one is, move partitions and leaders, have nodes join, leave and be forgotten.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(Dev),
    Status(Status),
    Reassign(Reassign),
    ElectLeaders(ElectLeaders),
    Forget(Forget),
    Join(Join),
    Leave(Leave),
    RaiseReplication(RaiseReplication),
}

pub(crate) fn run(args: Cluster) -> Result<(), Failure> {
    match args.command {
        Command::Dev(args) => dev::run(args),
        Command::Status(args) => status::run(args),
        Command::Reassign(args) => moves::reassign(args),
        Command::ElectLeaders(args) => moves::elect_leaders(args),
        Command::Forget(args) => moves::forget(args),
        Command::Join(args) => grow::join(args),
        Command::Leave(args) => grow::leave(args),
        Command::RaiseReplication(args) => grow::raise_replication(args),
    }
}
