//! A run from its seed to its judgement.
//! Invariant: a run passes only if the history is clean and every required fault happened; one that does not keeps its folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use clap::Args;
use madang_actors::prng::Prng;
use madang_load_tests::history::{Kind, Op};

use super::cluster::{Cluster, Node, poll};
use super::faults::{Fault, Outcome};
use super::load::{self, Shape};
use super::patience::join_within;
use super::readers;
use super::recorder::Recorder;
use super::report::Report;
use crate::check::judge;

/// How long everything may take to be whole, or every partition to be written to.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time from one fault to the next where only rounds count: a supervisor leaves a node alone that dies six times in a minute.
const APART: Duration = Duration::from_secs(13);
const TOPIC: &str = "chaos";

/// Strike three nodes with faults under load, read everything in the end, and judge what the clients saw.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  madang-load-tests chaos --binary target/debug/madang --seed 7 --seconds 120")]
pub(crate) struct Chaos {
    /// The broker.
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// The same number strikes the same faults in the same order; what they meet differs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long; every required fault is struck once at least, even if that takes longer.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Strike each fault so many times, and no longer.
    #[arg(long, conflicts_with = "seconds")]
    rounds: Option<u64>,
    /// Which faults, each required to happen; all of them if absent.
    #[arg(long, value_enum, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// No disks of the nodes' own, which need root, and none of the faults that need them.
    #[arg(long)]
    no_disks: bool,
    /// Set one key of every node; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Partitions of the load.
    #[arg(long, default_value_t = 6)]
    partitions: i32,
    /// Partitions beside it that nobody writes to.
    #[arg(long, default_value_t = 0)]
    idle_partitions: i32,
    /// Milliseconds between two rounds of a producer.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pace: u64,
    /// Records of a round to every partition.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    burst: u8,
    /// Size of a node's disk; it takes as much of this machine's as is written.
    #[arg(long, value_name = "GIB", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    disk_gib: u8,
    /// Where everything is kept; a new folder under TMPDIR if absent.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Chaos {
    fn required(&self) -> Vec<Fault> {
        let named = if self.faults.is_empty() { Fault::all() } else { &self.faults };
        named.iter().copied().filter(|fault| !self.no_disks || !fault.needs_disks()).collect()
    }

    fn length(&self) -> String {
        self.rounds.map_or_else(|| format!("--seconds {}", self.seconds), |rounds| format!("--rounds {rounds}"))
    }

    fn command(&self) -> String {
        let mut command = format!(
            "madang-load-tests chaos --binary {} --seed {} {} --partitions {} --idle-partitions {} --pace {} --burst {} --disk-gib {}",
            self.binary.display(),
            self.seed,
            self.length(),
            self.partitions,
            self.idle_partitions,
            self.pace,
            self.burst,
            self.disk_gib
        );
        if !self.faults.is_empty() {
            let names: Vec<String> = self.faults.iter().map(|fault| fault.name()).collect();
            command.push_str(&format!(" --faults {}", names.join(",")));
        }
        for setting in &self.settings {
            command.push_str(&format!(" --set {setting}"));
        }
        if self.no_disks {
            command.push_str(" --no-disks");
        }
        command
    }
}

/// Runs it; false if something is wrong.
///
/// # Errors
/// A text for a person: it could not be run.
pub(crate) fn run(args: &Chaos) -> Result<bool, String> {
    let mut folder = None;
    let at = match &args.folder {
        Some(at) => at.clone(),
        None => {
            let made = tempfile::Builder::new().prefix("madang-chaos-").tempdir().map_err(|error| error.to_string())?;
            folder.insert(made).path().to_owned()
        }
    };
    std::fs::create_dir_all(&at).map_err(|error| format!("{}: {error}", at.display()))?;
    println!("chaos: seed {}, {}, in {}", args.seed, args.length(), at.display());
    let outcome = whole_run(args, &at);
    if matches!(outcome, Ok(true)) {
        return outcome;
    }
    if let Some(folder) = folder {
        // What failed is looked into.
        println!("chaos: FAILED; everything is kept in {}", folder.keep().display());
    }
    println!("chaos: seed {}; again: {}", args.seed, args.command());
    outcome
}

fn whole_run(args: &Chaos, at: &Path) -> Result<bool, String> {
    let stop_early = interrupted()?;
    let history = at.join("history.jsonl");
    let recorder = Recorder::new(&history, args.seed).map_err(|error| format!("{}: {error}", history.display()))?;
    let recorder = Arc::new(recorder);
    let disks = (!args.no_disks).then_some(args.disk_gib);
    let mut cluster = Cluster::start(at, &args.binary, args.seed, &args.settings, disks)?;
    cluster.wait_whole(PATIENCE)?;
    cluster.create_topic(TOPIC, args.partitions)?;
    if args.idle_partitions > 0 {
        cluster.create_topic("idle", args.idle_partitions)?;
    }
    cluster.wait_whole(PATIENCE)?;
    let resident: Vec<String> =
        cluster.nodes.iter().filter_map(Node::resident).map(|bytes| format!("{}", bytes >> 20)).collect();
    println!("chaos: resident before the load, MiB: {}", resident.join(", "));
    let pace = Duration::from_millis(args.pace);
    let (servers, topic, burst) = (cluster.servers(), TOPIC.to_owned(), usize::from(args.burst));
    let shape = Shape { servers, topic, partitions: args.partitions, pace, burst };
    let mut load = Load::start(&shape, &recorder, args.seed)?;
    if !poll(PATIENCE, || recorder.all_written_since(&shape.keys(), 0)) {
        return Err("the load does not start".to_owned());
    }
    let mut report = Report::default();
    let run = Run { args, recorder: &recorder, shape: &shape };
    let struck = run.strike_all(&mut cluster, &mut report, &stop_early);
    let ended = load.producers_end();
    // What comes to rest is whole; the history says from when on.
    let whole = struck.and(ended).and_then(|()| cluster.wait_whole(PATIENCE));
    note(&recorder, "healed");
    let read = whole.and_then(|()| readers::read_all(&shape, &recorder));
    let ended = load.readers_end();
    println!("{report}");
    println!("chaos: {} records acknowledged", recorder.count());
    recorder.finish().map_err(|error| format!("{}: {error}", history.display()))?;
    read.and(ended)?;
    let verdict = judge(&history, Duration::from_secs(120))?;
    println!("{verdict}");
    let missing = report.missing(&args.required());
    if !missing.is_empty() {
        println!("chaos: required faults that never happened: {}", missing.join(", "));
    }
    Ok(verdict.is_clean() && missing.is_empty() && verdict.read_in_full == u64::from(args.partitions.unsigned_abs()))
}

/// What whoever runs the test does.
fn note(recorder: &Recorder, what: &str) {
    recorder.record(0, Kind::Info, Op::Admin { what: what.to_owned(), compacted: Vec::new() }, None);
}

/// What the faults of one run have in common.
struct Run<'r> {
    args: &'r Chaos,
    recorder: &'r Arc<Recorder>,
    shape: &'r Shape,
}

impl Run<'_> {
    fn strike_all(&self, cluster: &mut Cluster, report: &mut Report, stop_early: &AtomicBool) -> Result<(), String> {
        let args = self.args;
        let (mut rng, until) = (Prng::new(args.seed), Instant::now() + Duration::from_secs(args.seconds));
        let mut bag = Vec::new();
        let (mut first, mut tries, mut struck): (_, _, Option<Instant>) = (true, 0, None);
        let over = |tries: u64| match args.rounds {
            Some(rounds) => tries >= rounds * args.required().len() as u64,
            None => Instant::now() >= until,
        };
        while first || !over(tries) {
            tries += 1;
            if bag.is_empty() {
                bag = args.required();
                // Each in an order of its own, and each once before any comes again.
                for place in (1..bag.len()).rev() {
                    bag.swap(place, rng.below(place as u64 + 1) as usize);
                }
            }
            let Some(fault) = bag.pop() else { return Err("no fault is left to strike".to_owned()) };
            first &= !bag.is_empty();
            if stop_early.load(Ordering::Acquire) {
                return Err("interrupted".to_owned());
            }
            if let (Some(last), Some(_)) = (struck, args.rounds) {
                std::thread::sleep(APART.saturating_sub(last.elapsed()));
            }
            struck = Some(Instant::now());
            self.strike(fault, cluster, report, &mut rng)?;
        }
        Ok(())
    }

    fn strike(&self, fault: Fault, cluster: &mut Cluster, report: &mut Report, rng: &mut Prng) -> Result<(), String> {
        let (recorder, topic) = (self.recorder, &self.shape.topic);
        let (keys, name) = (self.shape.keys(), fault.name());
        cluster.wait_whole(PATIENCE).map_err(|why| format!("before {name}: {why}"))?;
        // Between two faults the load goes on for a while, so that each meets it somewhere else.
        let goal = recorder.count() + (200 + rng.below(1_000)) * u64::from(self.args.burst);
        poll(PATIENCE, || recorder.count() >= goal);
        // Rounds make figures, which are of clients that lose their leader.
        let mut leads = None;
        if self.args.rounds.is_some() {
            let most = cluster.lead_most(topic)?;
            leads = Some(most[rng.below(most.len() as u64) as usize]);
        }
        note(recorder, &name);
        let struck = fault.strike(cluster, topic, leads, rng)?;
        let (of, began, there_ns) = (struck.of(), struck.began, recorder.ns(struck.there));
        recorder.time_since(there_ns);
        let goes_on = || recorder.all_written_since(&keys, there_ns);
        // Clients that were without any broker wait for up to ten seconds before they look again: how soon the brokers serve shows who starts with them.
        let fresh = if matches!(fault, Fault::PowerCutAll) {
            load::first_acknowledgements(self.shape, recorder, PATIENCE)?
        } else {
            None
        };
        let mut stall = poll(fault.holds(), goes_on).then(|| began.elapsed());
        let outcome = struck.heal(cluster)?;
        if stall.is_none() {
            stall = poll(PATIENCE, goes_on).then(|| began.elapsed());
        }
        if matches!(fault, Fault::Stop) {
            // A node that stops in order serves until others lead what it leads: what anybody waited until it was gone is what counts.
            let gone_ns = recorder.ns(Instant::now());
            stall = poll(PATIENCE, || recorder.all_written_since(&keys, gone_ns)).then(|| recorder.slowest());
        }
        let Some(stall) = stall else { return Err(format!("after {name} of {of}: not every partition is written to")) };
        println!("chaos: {name} of {of}: {outcome:?}, every partition goes on after {} ms", stall.as_millis());
        if let Some(fresh) = fresh {
            println!("chaos: a client that starts then has written to every partition after {} ms", fresh.as_millis());
        }
        let stall = fresh.unwrap_or(stall);
        let counts = matches!(outcome, Outcome::Happened);
        report.add(fault, &outcome, if counts { stall } else { Duration::ZERO });
        Ok(())
    }
}

/// The threads of the load.
struct Load {
    stop_producers: Arc<AtomicBool>,
    stop_readers: Arc<AtomicBool>,
    producers: Vec<JoinHandle<()>>,
    readers: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(shape: &Shape, recorder: &Arc<Recorder>, seed: u64) -> Result<Self, String> {
        let mut load = Self {
            stop_producers: Arc::default(),
            stop_readers: Arc::default(),
            producers: Vec::new(),
            readers: Vec::new(),
        };
        let spawn = |work: Box<dyn FnOnce() + Send>| Builder::new().spawn(work).map_err(|error| error.to_string());
        for _ in 0..2 {
            let (shape, recorder, stop) = (shape.clone(), Arc::clone(recorder), Arc::clone(&load.stop_producers));
            let thread = spawn(Box::new(move || load::produce(&shape, &recorder, &stop)))?;
            load.producers.push(thread);
        }
        for place in 0..4_u64 {
            let (shape, recorder, stop) = (shape.clone(), Arc::clone(recorder), Arc::clone(&load.stop_readers));
            let seed = seed ^ (place << 32);
            let thread = spawn(Box::new(move || match place {
                0 => readers::read_alone(&shape, &recorder, seed, &stop),
                1 => readers::look(&shape, &recorder, &stop),
                _ => readers::read_in_group(&shape, &recorder, seed, &stop),
            }))?;
            load.readers.push(thread);
        }
        Ok(load)
    }

    /// # Errors
    /// A text for a person: one does not end, so that what it has sent may still be written.
    fn producers_end(&mut self) -> Result<(), String> {
        self.stop_producers.store(true, Ordering::Release);
        match join_within(&mut self.producers, PATIENCE) {
            0 => Ok(()),
            stuck => Err(format!("{stuck} of the producers do not end")),
        }
    }

    /// One may be stuck in its client: the history says what it has seen until then.
    ///
    /// # Errors
    /// A text for a person: several do not end.
    fn readers_end(&mut self) -> Result<(), String> {
        self.stop_readers.store(true, Ordering::Release);
        match join_within(&mut self.readers, PATIENCE) {
            0 => Ok(()),
            1 => {
                println!("chaos: one of the readers does not end, and is left behind");
                Ok(())
            }
            stuck => Err(format!("{stuck} of the readers do not end")),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Whoever hears of it has heard of the failure that comes before it.
        drop(self.producers_end());
        drop(self.readers_end());
    }
}

/// Turns true once somebody wants the run to end.
fn interrupted() -> Result<Arc<AtomicBool>, String> {
    use tokio::signal::unix::{SignalKind, signal};
    let flag = Arc::new(AtomicBool::new(false));
    let own = Arc::clone(&flag);
    let failed = |error: std::io::Error| format!("signals: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let wait = move || {
        runtime.block_on(async move {
            let (Ok(mut terminated), Ok(mut pressed)) =
                (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
            else {
                return;
            };
            tokio::select! { _ = terminated.recv() => {}, _ = pressed.recv() => {} }
            own.store(true, Ordering::Release);
        });
    };
    Builder::new().name("signals".to_owned()).spawn(wait).map_err(failed)?;
    Ok(flag)
}
