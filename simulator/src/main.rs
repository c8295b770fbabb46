//! The command line of the simulator.

use std::process::ExitCode;

use madang_simulator::executor::Planted;
use madang_simulator::world::{self, Verdict};
use madang_simulator::{coverage, explorer, planted, sweep};

const USAGE: &str = "usage: madang-simulator --nodes 1 [--seed N] [--seeds A..B] [--mutant K] [--twice] [--coverage] [--sweep] [--mutants] [--explore]";
/// Disk operations of the swept scenario.
const SWEPT_OPERATIONS: u64 = 2000;
/// Events on the explorer's longest path.
const EXPLORED_DEPTH: usize = 9;

#[derive(Default)]
struct Arguments {
    seeds: Vec<u64>,
    mutant: Option<u32>,
    twice: bool,
    coverage: bool,
    sweep: bool,
    mutants: bool,
    explore: bool,
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
            "--sweep" => arguments.sweep = true,
            "--mutants" => arguments.mutants = true,
            "--explore" => arguments.explore = true,
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
            println!(
                "PASS seed {seed} ticks {ticks} digest {digest:016x} faults {count} classes {} acked {acked}",
                verdict.faults.len()
            );
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
    if !arguments.seeds.is_empty() {
        println!("{} seeds, {failed} failed", arguments.seeds.len());
    }
    if arguments.coverage {
        for mark in coverage::missing() {
            println!("not reached: {mark}");
            failed += 1;
        }
    }
    failed += u32::from(arguments.sweep && !sweep_all());
    failed += u32::from(arguments.mutants && !hunt_all());
    failed += u32::from(arguments.explore && !explore_all());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn sweep_all() -> bool {
    let swept = sweep::run(1, SWEPT_OPERATIONS, 1);
    println!("sweep: {} operations, {} crash points", swept.operations, swept.points);
    if let Some((at, kind, violation)) = &swept.failed {
        println!("FAIL sweep: {kind:?} at operation {at}: {}: {}", violation.code, violation.what);
        println!("  repeat: cargo run --release -p madang-simulator -- --nodes 1 --sweep");
    }
    swept.failed.is_none()
}

fn hunt_all() -> bool {
    println!("{:>4}  {:<50} {:>5}  invariant", "bug", "what", "seeds");
    let mut all = true;
    for bug in &planted::BUGS {
        let found = planted::hunt(bug);
        all &= found.is_some();
        let (seeds, code) = found.map_or((planted::BUDGET, "NOT FOUND"), |(seeds, violation)| (seeds, violation.code));
        println!("{:>4}  {:<50} {seeds:>5}  {code}", bug.number, bug.what);
    }
    all
}

fn explore_all() -> bool {
    let explored = explorer::run(EXPLORED_DEPTH);
    println!("explorer: {} states, {} paths, {} events deep", explored.states, explored.paths, explored.depth);
    if let Some((violation, path)) = &explored.failed {
        println!("FAIL explorer: {}: {} after {path:?}", violation.code, violation.what);
    }
    explored.failed.is_none()
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
