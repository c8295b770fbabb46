//! `madang-bench`: an open-loop load generator for anything that speaks Kafka's protocol.

mod brokers;
mod floor;
mod kernel;
mod librdkafka;
mod native;
mod pacer;
mod run;
mod sampler;
mod save;
mod scenarios;
mod soak;
mod state;
mod storm;

use std::path::PathBuf;
use std::process::ExitCode;

use brokers::{Programs, Side};
use clap::{Args, Parser, Subcommand};
use madang_load_tests::bench::report::Report;
use madang_load_tests::bench::scenario::Scenario;
use run::{Generator, Plan};

/// Load on schedule for anything that speaks Kafka's protocol, with a check of all that is read.
#[derive(Debug, Parser)]
#[command(name = "madang-bench", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario: `madang-bench run tail-readers`.
    Run(RunArgs),
    /// Name the scenarios that come with the program.
    List,
    /// Two saved runs side by side: `madang-bench compare bench-results/1-a bench-results/2-b`.
    Compare {
        /// A folder of a run.
        a: PathBuf,
        /// Another.
        b: PathBuf,
        /// Where the page goes.
        #[arg(long, default_value = "bench-results")]
        out: PathBuf,
    },
    /// Make page and table of a saved run anew.
    Report {
        /// The folder of a run.
        folder: PathBuf,
    },
    /// Run a scenario for hours and look for drift of memory, descriptors and latency.
    Soak(soak::SoakArgs),
    /// Madang beside the barest program that does the same with the same bytes, in turns: `madang-bench floor produce`.
    Floor(floor::FloorArgs),
    /// The barest program, which `floor` starts.
    #[command(hide = true)]
    FloorServer(floor::ServerArgs),
}

#[derive(Args, Clone, Debug)]
struct RunArgs {
    /// A scenario's name, or a file *.toml.
    scenario: String,
    /// A broker that runs already; without it one is started for the run.
    #[arg(long, env = "MADANG_SERVER", value_name = "HOST:PORT")]
    server: Option<String>,
    /// Run on this side too, alternately, and print ratios. `kafka` with --server or madang.
    #[arg(long, value_parser = ["kafka"])]
    against: Option<String>,
    /// Start this side alone.
    #[arg(long, default_value = "madang", value_parser = ["madang", "kafka"])]
    on: String,
    /// What sends and reads.
    #[arg(long, value_enum, default_value = "native")]
    client: Generator,
    /// Runs of each side with --against.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pairs: u32,
    /// Where results go.
    #[arg(long, default_value = "bench-results")]
    out: PathBuf,
    /// Change a field of the scenario; may be given several times.
    #[arg(long = "with", value_name = "FIELD.FIELD=VALUE")]
    changes: Vec<String>,
    /// Madang's binary.
    #[arg(long, env = "MADANG", default_value = "madang")]
    madang: PathBuf,
    /// The folder of Kafka's jars, as clients/compat/fetch-kafka.sh prints it.
    #[arg(long, env = "MADANG_KAFKA_LIBS")]
    kafka_libs: Option<PathBuf>,
    /// A setting of Madang's brokers; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    madang_set: Vec<String>,
    /// A setting of Kafka's brokers; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    kafka_set: Vec<String>,
    /// The cores of brokers that are started; default: the first, if there are more.
    #[arg(long, value_delimiter = ',')]
    broker_cores: Vec<usize>,
    /// The generator's cores; default: all but the first.
    #[arg(long, value_delimiter = ',')]
    generator_cores: Vec<usize>,
    /// Keep nobody to cores.
    #[arg(long)]
    no_pin: bool,
}

impl RunArgs {
    fn plan(&self) -> Result<Plan, String> {
        let (name, text) = scenarios::find(&self.scenario)?;
        let scenario = Scenario::read(&text, &self.changes).map_err(|why| format!("{name}: {why}"))?;
        let cores = kernel::cores();
        let splits = !self.no_pin && self.server.is_none() && cores.len() > 1;
        let pick = |given: &[usize], default: &[usize]| {
            if given.is_empty() && splits { default.to_vec() } else { given.to_vec() }
        };
        Ok(Plan {
            name,
            scenario,
            generator: self.client,
            programs: Programs { madang: found(&self.madang), kafka: self.kafka_libs.clone() },
            broker_cores: pick(&self.broker_cores, &cores[..1.min(cores.len())]),
            generator_cores: pick(&self.generator_cores, &cores[1.min(cores.len())..]),
            madang_settings: self.madang_set.clone(),
            kafka_settings: self.kafka_set.clone(),
        })
    }

    fn side(&self) -> Side {
        match &self.server {
            Some(server) => Side::Server(server.clone()),
            None if self.on == "kafka" => Side::Kafka,
            None => Side::Madang,
        }
    }
}

/// A path as brokers see it, who run in folders of their own; a bare name is looked for as the system does.
fn found(binary: &std::path::Path) -> PathBuf {
    if binary.components().count() > 1 {
        binary.canonicalize().unwrap_or_else(|_| binary.to_owned())
    } else {
        binary.to_owned()
    }
}

fn run_scenario(args: &RunArgs) -> Result<bool, String> {
    let (plan, side) = (args.plan()?, args.side());
    let (mut a, mut b) = (Vec::new(), Vec::new());
    if args.against.is_none() {
        a.push(run::run(&plan, &side)?);
    } else {
        if side == Side::Kafka {
            return Err("--against kafka compares something else with Kafka: leave --on away".to_owned());
        }
        for pair in 1..=args.pairs {
            eprintln!("pair {pair} of {}", args.pairs);
            a.push(run::run(&plan, &side)?);
            b.push(run::run(&plan, &Side::Kafka)?);
        }
    }
    let folder = save::save(&args.out, &a, &b)?;
    print!("{}", save::text(&a, &b));
    println!("saved: {}", folder.display());
    Ok(a.iter().chain(&b).all(is_good))
}

/// Whether nothing is wrong and nothing failed.
fn is_good(report: &Report) -> bool {
    let errors =
        [&report.produce, &report.consume, &report.connect].into_iter().flatten().map(|flow| flow.errors).sum::<u64>();
    report.verdict.is_sound() && errors == 0
}

fn list() -> bool {
    for (name, text) in scenarios::SCENARIOS {
        let purpose = Scenario::read(text, &[]).map_or_else(|why| why, |scenario| scenario.purpose);
        println!("{name:<26}{purpose}");
    }
    true
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run_scenario(&args),
        Command::List => Ok(list()),
        Command::Compare { a, b, out } => save::compare(&a, &b, &out).map(|text| {
            print!("{text}");
            true
        }),
        Command::Report { folder } => save::again(&folder).map(|text| {
            print!("{text}");
            true
        }),
        Command::Soak(args) => soak::soak(&args),
        Command::Floor(args) => floor::floor(&args),
        Command::FloorServer(args) => floor::serve(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("madang-bench: {why}");
            ExitCode::from(2)
        }
    }
}
