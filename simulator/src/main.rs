//! The command line of the simulator.

use std::process::ExitCode;

use madang_simulator::executor::Planted;
use madang_simulator::world::{self, Verdict};
use madang_simulator::coverage;

const USAGE: &str = "usage: madang-simulator --nodes 1 [--seed N | --seeds A..B] [--mutant K] [--twice]";

#[derive(Default)]
struct Arguments {
    seeds: Vec<u64>,
    mutant: Option<u32>,
    twice: bool,
    coverage: bool,
}

fn parse() -> Option<Arguments> {
    let mut arguments = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        match name.as_str() {
            "--nodes" => {
                given.next().filter(|nodes| nodes == "1")?;
            }
            "--seed" => arguments.seeds.push(given.next()?.parse().ok()?),
            "--seeds" => {
                let range = given.next()?;
                let (from, to) = range.split_once("..")?;
                arguments.seeds.extend(from.parse::<u64>().ok()?..to.parse().ok()?);
            }
            "--mutant" => arguments.mutant = Some(given.next()?.parse().ok()?),
            "--twice" => arguments.twice = true,
            "--coverage" => arguments.coverage = true,
            _ => return None,
        }
    }
    Some(arguments)
}

fn print(verdict: &Verdict, mutant: Option<u32>) -> bool {
    let count: u64 = verdict.faults.values().sum();
    let Verdict { seed, ticks, digest, acked, .. } = verdict;
    match &verdict.violation {
        None => {
            println!("PASS seed {seed} ticks {ticks} digest {digest:016x} faults {count} classes {} acked {acked}", verdict.faults.len());
            true
        }
        Some(violation) => {
            println!("FAIL seed {seed} {}: {}", violation.code, violation.what);
            let mutant = mutant.map(|mutant| format!(" --mutant {mutant}")).unwrap_or_default();
            println!("  repeat: cargo run --release -p madang-simulator -- --nodes 1 --seed {seed}{mutant}");
            false
        }
    }
}

fn main() -> ExitCode {
    quiet_planted_panics();
    let Some(arguments) = parse() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut failed = 0;
    for seed in &arguments.seeds {
        let verdict = world::run(*seed, arguments.mutant);
        let mut good = print(&verdict, arguments.mutant);
        if arguments.twice {
            let again = world::run(*seed, arguments.mutant);
            if again.digest != verdict.digest {
                println!("FAIL seed {seed} U6: digest {:016x}, then {:016x}", verdict.digest, again.digest);
                good = false;
            }
        }
        failed += u32::from(!good);
    }
    println!("{} seeds, {failed} failed", arguments.seeds.len());
    if arguments.coverage {
        for mark in coverage::missing() {
            println!("not reached: {mark}");
            failed += 1;
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A planted panic is part of the run; a real one is reported with its place.
fn quiet_planted_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Planted>() {
            report(info);
        }
    }));
}
