//! The command line of the simulator.

use std::process::ExitCode;
use std::time::Instant;

use madang_simulator::cluster::sweep::Point;
use madang_simulator::executor::Planted;
use madang_simulator::world::{self, Verdict};
use madang_simulator::{cluster, coverage, cuts, explorer, explorer_nodes, metadata_size, planted, quorum, sweep};

const USAGE: &str = "usage: madang-simulator --nodes 1 [--seed N] [--seeds A..B] [--mutant K] [--twice] [--coverage] [--sweep] [--mutants] [--explore]
       madang-simulator --nodes 3 --explore [--depth N] [--faults N]
       madang-simulator --nodes 3 --mutants [--mutant K]
       madang-simulator --cluster 3|5 [--seed N] [--seeds A..B] [--mutant K] [--twice] [--verbose] [--scenarios] [--mutants]
       madang-simulator --cluster 3 --sweep [--stride N] [--distance N] | --point POINT
       madang-simulator --voters 1|3|5 [--grow NODES] [--seed N] [--seeds A..B] [--mutant K] [--twice] [--mutants]
       madang-simulator --metadata PARTITIONS [--brokers N]";
/// Disk operations of the swept scenario.
const SWEPT_OPERATIONS: u64 = 2000;
/// Of the operations of a cluster's disks, every so many are swept.
const SWEPT_STRIDE: u64 = 40;
/// Messages of a cluster that overtake each other are so far apart at most.
const SWEPT_DISTANCE: u64 = 1;
/// Seeds that each story of a cluster is told with.
const STORIES: u64 = 3;
/// Logs that are cut.
const CUT_SEEDS: u64 = 500;
/// Events on the explorer's longest path.
const EXPLORED_DEPTH: usize = 9;
/// Events and faults after each situation of the three-node form.
const EXPLORED_CLUSTER_DEPTH: usize = 5;
const EXPLORED_CLUSTER_FAULTS: usize = 1;

#[derive(Default)]
struct Arguments {
    seeds: Vec<u64>,
    mutant: Option<u32>,
    twice: bool,
    verbose: bool,
    scenarios: bool,
    coverage: bool,
    sweep: bool,
    stride: Option<u64>,
    distance: Option<u64>,
    point: Option<Point>,
    mutants: bool,
    explore: bool,
    three_nodes: bool,
    voters: Option<usize>,
    grow: Option<usize>,
    cluster: Option<usize>,
    metadata: Option<usize>,
    brokers: Option<usize>,
    depth: Option<usize>,
    faults: Option<usize>,
}

fn parse() -> Option<Arguments> {
    let mut arguments = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        match name.as_str() {
            "--nodes" => {
                arguments.three_nodes = match given.next()?.as_str() {
                    "1" => false,
                    "3" => true,
                    _ => return None,
                }
            }
            "--voters" => {
                arguments.voters = Some(given.next()?.parse().ok().filter(|voters| [1, 3, 5].contains(voters))?)
            }
            "--grow" => arguments.grow = Some(given.next()?.parse().ok().filter(|nodes| (2..=5).contains(nodes))?),
            "--cluster" => arguments.cluster = Some(given.next()?.parse().ok().filter(|nodes| [3, 5].contains(nodes))?),
            "--metadata" => arguments.metadata = Some(given.next()?.parse().ok().filter(|partitions| *partitions > 0)?),
            "--brokers" => arguments.brokers = Some(given.next()?.parse().ok().filter(|brokers| *brokers >= 3)?),
            "--depth" => arguments.depth = Some(given.next()?.parse().ok()?),
            "--faults" => arguments.faults = Some(given.next()?.parse().ok()?),
            "--seed" => arguments.seeds.push(given.next()?.parse().ok()?),
            "--seeds" => {
                let range = given.next()?;
                let (from, to) = range.split_once("..")?;
                arguments.seeds.extend(from.parse::<u64>().ok()?..to.parse().ok()?);
            }
            "--mutant" => arguments.mutant = Some(given.next()?.parse().ok()?),
            "--twice" => arguments.twice = true,
            "--scenarios" => arguments.scenarios = true,
            "--verbose" => arguments.verbose = true,
            "--coverage" => arguments.coverage = true,
            "--sweep" => arguments.sweep = true,
            "--stride" => arguments.stride = Some(given.next()?.parse().ok().filter(|stride| *stride > 0)?),
            "--distance" => arguments.distance = Some(given.next()?.parse().ok()?),
            "--point" => arguments.point = Some(given.next()?.parse().ok()?),
            "--mutants" => arguments.mutants = true,
            "--explore" => arguments.explore = true,
            _ => return None,
        }
    }
    Some(arguments)
}

fn print(verdict: &Verdict, form: &str, mutant: Option<u32>) -> bool {
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
            println!("  repeat: cargo run --release -p madang-simulator -- {form} --seed {seed}{mutant}");
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
    if let Some(partitions) = arguments.metadata {
        metadata_size::run(partitions, arguments.brokers.unwrap_or(3));
        return ExitCode::SUCCESS;
    }
    if let Some(nodes) = arguments.cluster {
        return if run_clusters(nodes, &arguments) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some(voters) = arguments.voters {
        let nodes = arguments.grow.unwrap_or(voters).max(voters);
        return if run_quorum((voters, nodes), &arguments) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut failed = 0;
    for seed in &arguments.seeds {
        let verdict = world::run(*seed, arguments.mutant);
        let mut good = print(&verdict, "--nodes 1", arguments.mutant);
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
    if arguments.three_nodes {
        failed += u32::from(arguments.mutants && !hunt_in_clusters(arguments.mutant));
        failed += u32::from(arguments.explore && !explore_clusters(&arguments));
    } else {
        failed += u32::from(arguments.mutants && !hunt_all());
        failed += u32::from(arguments.explore && !explore_all());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Seeds of whole clusters.
fn run_clusters(nodes: usize, arguments: &Arguments) -> bool {
    let mut failed = 0;
    for seed in &arguments.seeds {
        let begun = Instant::now();
        let verdict = cluster::world::run(nodes, *seed, arguments.mutant);
        let mut good = print(&verdict, &format!("--cluster {nodes}"), arguments.mutant);
        if arguments.verbose {
            println!("  {:?} {:.1} s", verdict.faults, begun.elapsed().as_secs_f64());
        }
        if arguments.twice && cluster::world::run(nodes, *seed, arguments.mutant).digest != verdict.digest {
            println!("FAIL seed {seed} U6: another digest the second time");
            good = false;
        }
        failed += u32::from(!good);
    }
    if !arguments.seeds.is_empty() {
        println!("{} seeds of {nodes} nodes, {failed} failed", arguments.seeds.len());
    }
    if let Some(point) = arguments.point {
        failed += u32::from(!print_telling(point, arguments.mutant, arguments.verbose));
    }
    failed == 0
        && (!arguments.sweep || sweep_clusters(arguments))
        && (!arguments.scenarios || tell_all())
        && (!arguments.mutants || hunt_in_runs_of_clusters(arguments.mutant))
}

/// The story of the sweep with one fault; whether it was survived.
fn print_telling(point: Point, mutant: Option<u32>, verbose: bool) -> bool {
    let told = cluster::sweep::tell(Some(point), mutant);
    match &told.violation {
        None if !told.struck => {
            println!("FAIL {point}: not reached");
            return false;
        }
        None if verbose => println!("PASS {point}: acked {}", told.acked),
        None => {}
        Some(violation) => {
            println!("FAIL {point}: {}: {}", violation.code, violation.what);
            println!("  repeat: cargo run --release -p madang-simulator -- --cluster 3 --point {point}");
        }
    }
    told.violation.is_none()
}

/// Crashes at the disks' operations, and messages lost, late, twice and in another order.
fn sweep_clusters(arguments: &Arguments) -> bool {
    let told = cluster::sweep::tell(None, None);
    if let Some(violation) = told.violation {
        println!("FAIL the story itself: {}: {}", violation.code, violation.what);
        return false;
    }
    let stride = arguments.stride.unwrap_or(SWEPT_STRIDE);
    let points = cluster::sweep::points(&told.operations, stride, arguments.distance.unwrap_or(SWEPT_DISTANCE));
    let failed = points.iter().filter(|point| !print_telling(**point, None, arguments.verbose)).count();
    let operations: u64 = told.operations.iter().sum();
    println!("sweep of clusters: {operations} operations, {} points, {failed} failed", points.len());
    failed == 0
}

/// The fixed stories, with what a few seeds make of each.
fn tell_all() -> bool {
    let mut all = true;
    for (scenario, seed) in
        cluster::scenarios::ALL.iter().flat_map(|scenario| (0..STORIES).map(move |seed| (scenario, seed)))
    {
        let verdict = cluster::scenarios::run(scenario, seed);
        match &verdict.violation {
            None => println!("PASS {}, seed {seed}: acked {}", scenario.name, verdict.acked),
            Some(violation) => {
                println!("FAIL {}, seed {seed}: {}: {}", scenario.name, violation.code, violation.what);
                println!("  repeat: cargo run --release -p madang-simulator -- --cluster 3 --scenarios");
                all = false;
            }
        }
    }
    all
}

fn hunt_in_runs_of_clusters(only: Option<u32>) -> bool {
    println!("{:>4}  {:<72} {:>5}  invariant", "bug", "what", "seeds");
    let mut all = true;
    for bug in cluster::planted::BUGS.iter().filter(|bug| only.is_none_or(|only| only == bug.number)) {
        let found = cluster::planted::hunt(bug);
        all &= found.is_some();
        let (seeds, code) = match found {
            Some((seeds, violation)) => (seeds, violation.code.to_owned()),
            None => (cluster::planted::BUDGET, format!("NOT FOUND by {}", bug.by.join(", "))),
        };
        println!("{:>4}  {:<72} {seeds:>5}  {code}", bug.number, bug.what);
    }
    all
}

/// Seeds of the metadata quorum, and its planted bugs.
fn run_quorum((voters, nodes): (usize, usize), arguments: &Arguments) -> bool {
    let (mut failed, mut snapshots) = (0, 0);
    for seed in &arguments.seeds {
        let verdict = quorum::run((voters, nodes), *seed, arguments.mutant);
        let mut good = print_quorum(&verdict, (voters, nodes), arguments.mutant);
        if arguments.twice && quorum::run((voters, nodes), *seed, arguments.mutant).digest != verdict.digest {
            println!("FAIL seed {seed} U6: another digest the second time");
            good = false;
        }
        failed += u32::from(!good);
        snapshots += verdict.snapshots;
    }
    if nodes > 1 && snapshots == 0 && arguments.seeds.len() >= quorum::SEEDS_FOR_A_SNAPSHOT {
        println!("not reached: a snapshot for a voter that is behind");
        failed += 1;
    }
    if !arguments.seeds.is_empty() {
        println!("{} seeds of {voters} voters among {nodes} nodes, {failed} failed", arguments.seeds.len());
    }
    failed == 0 && (!arguments.mutants || hunt_in_quorums())
}

fn print_quorum(verdict: &quorum::Verdict, (voters, nodes): (usize, usize), mutant: Option<u32>) -> bool {
    let quorum::Verdict { seed, events, digest, acknowledged, terms, snapshots, .. } = verdict;
    let (count, classes): (u64, usize) = (verdict.faults.values().sum(), verdict.faults.len());
    let lacks = mutant.is_none() && nodes > 1 && classes < quorum::FAULT_CLASSES;
    match &verdict.violation {
        None if !lacks => {
            println!(
                "PASS seed {seed} events {events} digest {digest:016x} faults {count} classes {classes} acked {acknowledged} terms {terms} snapshots {snapshots}"
            );
            return true;
        }
        None => println!("FAIL seed {seed} FAULTS: only {:?}", verdict.faults),
        Some(violation) => println!("FAIL seed {seed} {}: {}", violation.code, violation.what),
    }
    let mutant = mutant.map(|mutant| format!(" --mutant {mutant}")).unwrap_or_default();
    let grow = if nodes > voters { format!(" --grow {nodes}") } else { String::new() };
    println!("  repeat: cargo run --release -p madang-simulator -- --voters {voters}{grow} --seed {seed}{mutant}");
    false
}

fn hunt_in_quorums() -> bool {
    println!("{:>4}  {:<50} {:>5}  invariant", "bug", "what", "seeds");
    let mut all = true;
    for bug in &quorum::planted::BUGS {
        let found = quorum::planted::hunt(bug);
        all &= found.is_some();
        let (seeds, code) = match found.and_then(|(seeds, verdict)| Some((seeds, verdict.violation?))) {
            Some((seeds, violation)) => (seeds, violation.code.to_owned()),
            None => (quorum::planted::BUDGET, format!("NOT FOUND by {}", bug.by.join(", "))),
        };
        println!("{:>4}  {:<50} {seeds:>5}  {code}", bug.number, bug.what);
    }
    all
}

fn sweep_all() -> bool {
    let swept = sweep::run(1, SWEPT_OPERATIONS, 1);
    println!("sweep: {} operations, {} crash points", swept.operations, swept.points);
    if let Some((at, kind, violation)) = &swept.failed {
        println!("FAIL sweep: {kind:?} at operation {at}: {}: {}", violation.code, violation.what);
        println!("  repeat: cargo run --release -p madang-simulator -- --nodes 1 --sweep");
    }
    swept.failed.is_none() && cut_all()
}

/// A follower's log that is cut, and whose machine loses power.
fn cut_all() -> bool {
    let broken = (0..CUT_SEEDS).find_map(|seed| Some((seed, cuts::run(seed).err()?)));
    println!("cuts: {CUT_SEEDS} logs");
    if let Some((seed, violation)) = &broken {
        println!("FAIL cuts: seed {seed}: {}: {}", violation.code, violation.what);
        println!("  repeat: cargo run --release -p madang-simulator -- --nodes 1 --sweep");
    }
    broken.is_none()
}

fn hunt_all() -> bool {
    println!("{:>4}  {:<50} {:>5}  invariant", "bug", "what", "seeds");
    let mut all = true;
    for bug in &planted::BUGS {
        let found = planted::hunt(bug);
        all &= found.is_some();
        let (seeds, code) = match found {
            Some((seeds, violation)) => (seeds, violation.code.to_owned()),
            None => (planted::BUDGET, format!("NOT FOUND by {}", bug.by.join(", "))),
        };
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

fn explore_clusters(arguments: &Arguments) -> bool {
    let depth = arguments.depth.unwrap_or(EXPLORED_CLUSTER_DEPTH);
    let faults = arguments.faults.unwrap_or(EXPLORED_CLUSTER_FAULTS);
    let mut begun = Instant::now();
    explorer_nodes::run_all(faults, depth, |situation, setup, explored| {
        let (states, paths, depth) = (explored.states, explored.paths, explored.depth);
        let took = std::mem::replace(&mut begun, Instant::now()).elapsed().as_secs_f64();
        println!(
            "explorer, 3 nodes, {:?}, {}: {states} states, {paths} paths, {depth} events deep, {took:.1} s",
            setup.durability, situation.name
        );
        if let Some((violation, path)) = &explored.failed {
            println!("FAIL explorer: {}: {} after {path:?}", violation.code, violation.what);
        }
    })
}

fn hunt_in_clusters(only: Option<u32>) -> bool {
    println!("{:>4}  {:<72} {:>7}  invariant", "bug", "what", "paths");
    let mut all = true;
    for bug in explorer_nodes::planted::BUGS.iter().filter(|bug| only.is_none_or(|only| only == bug.number)) {
        let (paths, found) = explorer_nodes::planted::hunt(bug);
        all &= found.is_some();
        let code = found.as_ref().map_or("NOT FOUND", |(violation, _)| violation.code);
        println!("{:>4}  {:<72} {paths:>7}  {code}", bug.number, bug.what);
        if let Some((violation, path)) = found.filter(|_| only.is_some()) {
            println!("      {} after {path:?}", violation.what);
        }
    }
    all
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
