//! A broker beside the floor, in turns: produce beside recv, CRC-32C and write; fetches beside sendfile; round trips beside an echo that writes.
//! Invariant: both live at once on the same cores and take turns that are short against what disturbs a machine; who begins changes with each pair.

mod server;
mod wire;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use madang_client::{Admin, NewTopic};
use madang_load_tests::bench::floors::{Bounds, Turn, broken, ratios};
use madang_load_tests::bench::pairs::median;
use madang_load_tests::bench::scenario::Brokers as Wanted;
use madang_load_tests::bench::{frames, table};
pub(crate) use server::{ServerArgs, serve};
use wire::{Producer, Reader};

use super::brokers::{Brokers, Programs, Side};
use super::{found, kernel, native};

/// How long a broker may take until it serves.
const START: Duration = Duration::from_secs(60);
const TOPIC: &str = "floor";
/// Requests of one producer that are not answered.
const IN_FLIGHT: u64 = 4;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Batches in; the floor receives, takes the CRC-32C, writes, answers.
    Produce,
    /// Large fetches from the page cache; the floor sends the same file with sendfile.
    Consume,
    /// Round trips of one record at a low rate; the floor does as for produce.
    Echo,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct FloorArgs {
    #[arg(value_enum)]
    kind: Kind,
    /// Turns of each side.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// A turn moves so much.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..))]
    mib: u64,
    /// Records of 1 KiB in a batch; of an echo always one.
    #[arg(long, default_value_t = 127, value_parser = clap::value_parser!(i32).range(1..=900))]
    records: i32,
    /// Connections, each with a partition of its own; of an echo always one.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
    /// The partitions hold so many GiB together before the first turn of produce.
    #[arg(long, default_value_t = 0)]
    fill_gib: u64,
    /// A fetch brings so many KiB.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..=65536))]
    fetch_kib: u64,
    /// Each partition holds so many MiB, which are read again and again.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    read_mib: u64,
    /// Round trips a second, and in a turn.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    rate: u64,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    trips: u64,
    /// Fail if the cost of the broker's best turn is more than so many times that of the floor's.
    #[arg(long)]
    most: Option<f64>,
    /// Fail if the round trip of the broker's best turn is more than so many times that of the floor's.
    #[arg(long)]
    most_trip: Option<f64>,
    /// Fail if the throughput of the broker's best turn is less than this share of the floor's.
    #[arg(long)]
    least: Option<f64>,
    /// Madang's binary.
    #[arg(long, env = "MADANG", default_value = "madang")]
    madang: PathBuf,
    /// A setting of the broker; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    madang_set: Vec<String>,
    /// Keep nobody to cores; else broker and floor are kept to the first, and what asks them to the others.
    #[arg(long)]
    no_pin: bool,
}

/// The floor's process; it ends with its standard input.
struct Floor {
    child: Child,
    port: u16,
}

impl Floor {
    fn start(arguments: &[String]) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("the floor: {error}");
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg("floor-server").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(failed)?;
        }
        let port = line.trim().parse().map_err(|_| format!("the floor said {line:?} instead of its port"))?;
        Ok(Self { child, port })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// Both sides' processes and what asks them.
struct Bench<'a> {
    args: &'a FloorArgs,
    brokers: Brokers,
    port: u16,
    folder: tempfile::TempDir,
    cores: Vec<usize>,
}

/// Measures, prints, and says whether the bounds hold.
///
/// # Errors
/// A text for a person: it could not be run.
pub(crate) fn floor(args: &FloorArgs) -> Result<bool, String> {
    let (all_cores, machine) = (kernel::cores(), kernel::machine());
    let splits = !args.no_pin && all_cores.len() > 1;
    let (first, others) = if splits { all_cores.split_at(1) } else { (&all_cores[..], &all_cores[..]) };
    kernel::keep_to(first)?;
    let programs = Programs { madang: found(&args.madang), kafka: None };
    let brokers = Brokers::start(&Side::Madang, &programs, &Wanted::default(), &args.madang_set)?;
    let folder = tempfile::Builder::new().prefix("madang-floor-").tempdir();
    let folder = folder.map_err(|error| format!("no folder: {error}"))?;
    let port = brokers.servers.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).ok_or("no port")?;
    let mut bench = Bench { args, brokers, port, folder, cores: others.to_vec() };
    bench.create_topic()?;
    let turns = match args.kind {
        Kind::Produce => bench.produce()?,
        Kind::Consume => bench.consume()?,
        Kind::Echo => bench.echo()?,
    };
    if let Some(log) = bench.brokers.ended() {
        return Err(format!("the broker ended:\n{log}"));
    }
    drop(bench);
    let ratios = ratios(&turns);
    println!(
        "{:?}, {} of {} cores, Linux {}, load {}",
        args.kind, machine.cpu, machine.cores, machine.kernel, machine.load
    );
    print!("{}", table::ratios("madang", "floor", &ratios));
    let broken = broken(&ratios, &Bounds { most: args.most, most_trip: args.most_trip, least: args.least });
    broken.iter().for_each(|line| println!("{line}"));
    Ok(broken.is_empty())
}

impl Bench<'_> {
    fn connections(&self) -> u32 {
        if self.args.kind == Kind::Echo { 1 } else { self.args.connections }
    }

    /// Waits until the broker serves, and makes a partition for each connection.
    fn create_topic(&mut self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
        let client = native::client(&self.brokers.servers);
        let new = NewTopic { partitions: i32::try_from(self.connections()).ok(), ..NewTopic::new(TOPIC) };
        let begin = Instant::now();
        loop {
            let created = runtime.block_on(async { Admin::new(client.clone()).create_topic(&new, false).await });
            match created {
                Ok(_) => break,
                Err(error) if begin.elapsed() > START => return Err(format!("cannot create a topic: {error}")),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
            if let Some(log) = self.brokers.ended() {
                return Err(format!("the broker does not start:\n{log}"));
            }
        }
        let usable = runtime.block_on(async { client.usable_metadata(&[TOPIC], false).await.map(drop) });
        usable.map_err(|error| format!("no leaders: {error}"))
    }

    fn batch(&self) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        frames::batch(if self.args.kind == Kind::Echo { 1 } else { self.args.records }, now)
    }

    fn producers(&self, port: u16, batch: &[u8]) -> Result<Vec<Producer>, String> {
        let producer = |partition| Producer::new(port, TOPIC, partition, batch);
        (0..self.connections() as i32).map(producer).collect()
    }

    /// The floor of what is written, on the same cores as the broker.
    fn writing_floor(&self, frame: usize) -> Result<Floor, String> {
        let answer = frames::produce_answer_length(TOPIC);
        let floor = Floor::start(&[
            format!("--frame={frame}"),
            format!("--answer={answer}"),
            format!("--folder={}", self.folder.path().display()),
        ]);
        kernel::keep_to(&self.cores)?;
        floor
    }

    /// What one side uses while `work` is done; `work` says how many bytes it moved.
    fn turn(pids: &[u32], work: impl FnOnce() -> Result<u64, String>) -> Result<Turn, String> {
        let used = || kernel::cpu_seconds(pids).ok_or("a side has gone");
        let (cpu, begin) = (used()?, Instant::now());
        let bytes = work()?;
        Ok(Turn { bytes, wall_s: begin.elapsed().as_secs_f64(), cpu_s: used()? - cpu, trips: None })
    }

    /// Takes turns; the order changes with each pair.
    fn take_turns(
        &self,
        floor: &Floor,
        mut turn: impl FnMut(u16, &[u32]) -> Result<Turn, String>,
    ) -> Result<Vec<(Turn, Turn)>, String> {
        let (ours, theirs) = (self.brokers.pids(), [floor.child.id()]);
        let mut pairs = Vec::new();
        for pair in 0..self.args.pairs {
            let mut broker = None;
            if pair % 2 == 0 {
                broker = Some(turn(self.port, &ours)?);
            }
            let bare = turn(floor.port, &theirs)?;
            pairs.push((broker.map_or_else(|| turn(self.port, &ours), Ok)?, bare));
        }
        Ok(pairs)
    }

    fn produce(&self) -> Result<Vec<(Turn, Turn)>, String> {
        let batch = self.batch();
        let frame = frames::produce(TOPIC, 0, &batch).len();
        let floor = self.writing_floor(frame)?;
        let count = ((self.args.mib << 20) / u64::from(self.connections()) / frame as u64).max(1);
        // Connections stay for all turns: what a thread has used is lost from sight when it ends.
        let mut both = [self.producers(self.port, &batch)?, self.producers(floor.port, &batch)?];
        let fill = (self.args.fill_gib << 30) / u64::from(self.connections()) / frame as u64;
        wire::all(&mut both[0], |producer| producer.run(fill, IN_FLIGHT).map(|()| 0))?;
        self.take_turns(&floor, |port, pids| {
            let producers = &mut both[usize::from(port != self.port)];
            wire::all(producers, |producer| producer.run(IN_FLIGHT, 1).map(|()| 0))?;
            Self::turn(pids, || {
                wire::all(producers, |producer| {
                    producer.run(count, IN_FLIGHT)?;
                    Ok(count * producer.frame_length() as u64)
                })
            })
        })
    }

    fn echo(&self) -> Result<Vec<(Turn, Turn)>, String> {
        let batch = self.batch();
        let floor = self.writing_floor(frames::produce(TOPIC, 0, &batch).len())?;
        let interval = Duration::from_secs_f64(1.0 / self.args.rate as f64);
        let one = |port| Producer::new(port, TOPIC, 0, &batch);
        let (mut broker, mut bare) = (one(self.port)?, one(floor.port)?);
        self.take_turns(&floor, |port, pids| {
            let producer = if port == self.port { &mut broker } else { &mut bare };
            // The first trips of a turn wake what slept while the other had its own.
            producer.trips(5, interval)?;
            let mut p50 = 0.0;
            let turn = Self::turn(pids, || {
                p50 = median(&producer.trips(self.args.trips, interval)?);
                Ok(self.args.trips * producer.frame_length() as u64)
            })?;
            Ok(Turn { trips: Some((self.args.trips, p50)), ..turn })
        })
    }

    fn consume(&self) -> Result<Vec<(Turn, Turn)>, String> {
        let batch = self.batch();
        let held = self.args.read_mib << 20;
        let count = held / batch.len() as u64;
        let mut producers = self.producers(self.port, &batch)?;
        wire::all(&mut producers, |producer| producer.run(count, IN_FLIGHT).map(|()| 0))?;
        let end = count as i64 * i64::from(self.args.records);
        let size = (batch.len(), i64::from(self.args.records));
        let piece = (self.args.fetch_kib << 10) as usize / batch.len() * batch.len();
        if piece == 0 || piece as u64 > held / 2 {
            return Err("--fetch-kib: at least a batch, at most half of what is there".to_owned());
        }
        let segment = largest(self.brokers.folder().ok_or("no folder")?).ok_or("no segment")?.1;
        let floor = Floor::start(&[
            format!("--frame={}", frames::fetch(TOPIC, 0, 0, 0).len()),
            format!("--answer={}", frames::fetch_head_length(TOPIC)),
            format!("--folder={}", self.folder.path().display()),
            format!("--file={}", segment.display()),
            format!("--piece={piece}"),
            format!("--topic={TOPIC}"),
        ])?;
        kernel::keep_to(&self.cores)?;
        let asks = ((self.args.mib << 20) / u64::from(self.connections()) / piece as u64).max(1);
        let readers = |port| {
            let reader = |partition| Reader::new(port, TOPIC, partition, size, piece, end);
            (0..self.connections() as i32).map(reader).collect::<Result<Vec<_>, _>>()
        };
        let mut both = [readers(self.port)?, readers(floor.port)?];
        self.take_turns(&floor, |port, pids| {
            let readers = &mut both[usize::from(port != self.port)];
            wire::all(readers, |reader| reader.run(2))?;
            Self::turn(pids, || wire::all(readers, |reader| reader.run(asks)))
        })
    }
}

/// The largest segment below a folder.
fn largest(folder: &Path) -> Option<(u64, PathBuf)> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let found = entries.filter_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return largest(&path);
        }
        (path.extension()? == "log").then_some(())?;
        Some((entry.metadata().ok()?.len(), path))
    });
    found.max()
}
