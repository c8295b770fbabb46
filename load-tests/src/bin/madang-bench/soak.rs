//! A long run, and whether memory, descriptors or latency drift in it.
//! Invariant: the exit code says so: 0 nothing drifts, 1 something does or what was read is wrong, 2 it could not be run.

use clap::Args;
use madang_load_tests::bench::drift::{Drift, of_series};
use madang_load_tests::bench::table::number;

use super::{RunArgs, is_good, run, save};

#[derive(Args, Clone, Debug)]
pub(crate) struct SoakArgs {
    #[command(flatten)]
    run: RunArgs,
    /// How many hours; a part of one will do.
    #[arg(long)]
    hours: f64,
    /// The most that anything may grow over the time that is watched, by its mean.
    #[arg(long, default_value_t = 0.2)]
    bound: f64,
}

fn line(drift: &Drift) -> String {
    format!(
        "{:<26}mean {:>12}  {:>+12} an hour  {:>+7.1} % over the time (bound {:.0} %, certainty {:.1})  {}",
        drift.name,
        number(drift.mean),
        drift.per_hour.round(),
        drift.growth * 100.0,
        drift.bound * 100.0,
        drift.certainty,
        if drift.drifts { "DRIFTS" } else { "steady" },
    )
}

/// Runs it once and judges its series.
///
/// # Errors
/// A text for a person.
pub(crate) fn soak(args: &SoakArgs) -> Result<bool, String> {
    if !(args.hours > 0.0 && args.hours <= 24.0 * 30.0) {
        return Err("--hours: more than none, at most a month".to_owned());
    }
    let mut plan = args.run.plan()?;
    if plan.scenario.producers.count > 0 && plan.scenario.consumers.groups == 0 {
        return Err(
            "a soak needs readers at the tail: what retention removes before the check would count as lost".to_owned()
        );
    }
    plan.scenario.time.steady_s = ((args.hours * 3600.0) as u64).max(60);
    // What is kept must not fill the disk; ten minutes of it are enough to be read.
    let configs = &mut plan.scenario.topics.configs;
    configs.entry("retention.ms".to_owned()).or_insert_with(|| "600000".to_owned());
    configs.entry("segment.bytes".to_owned()).or_insert_with(|| "67108864".to_owned());
    let report = run::run(&plan, &args.run.side())?;
    let watched = of_series(&report.series, args.bound);
    let reports = [report];
    let folder = save::save(&args.run.out, &reports, &[])?;
    print!("{}", save::text(&reports, &[]));
    println!("\ndrift, after the first quarter:");
    for drift in &watched {
        println!("{}", line(drift));
    }
    println!("saved: {}", folder.display());
    if watched.is_empty() {
        return Err("too short: nothing can be said of drift".to_owned());
    }
    Ok(is_good(&reports[0]) && watched.iter().all(|drift| !drift.drifts))
}
