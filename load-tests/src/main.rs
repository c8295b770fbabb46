//! `madang-load-tests`: faults on clusters of real processes, and the checker of histories.

mod chaos;
mod check;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Faults on clusters of real processes under load, and the checker of what clients saw.
#[derive(Debug, Parser)]
#[command(name = "madang-load-tests", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Chaos(chaos::Chaos),
    Check(check::Check),
    Synthetic(check::Synthetic),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Chaos(args) => chaos::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Synthetic(args) => check::synthetic(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("madang-load-tests: {why}");
            ExitCode::from(2)
        }
    }
}
