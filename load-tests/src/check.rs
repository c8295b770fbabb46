//! Histories in files: judged, or made up for the checker's own sake.
//! Invariant: a file is read line by line, whatever its size.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use madang_load_tests::checker::{Anomaly, Checker, Settings, Verdict};
use madang_load_tests::history::{Event, Rejected, parse, write};
use madang_load_tests::synthetic;
use serde_json::Map;

/// Judge a history: exit code 0 if nothing is wrong, 1 if there are anomalies or the read of everything stops short, 2 if it cannot be judged.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  madang-load-tests check history.jsonl")]
pub(crate) struct Check {
    /// A file of JSON lines; docs/history.md describes them.
    file: PathBuf,
    /// How long after everything is healed an acknowledged record may stay unread.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    unseen_within: u64,
}

/// Make up a history of a log that keeps its promises, with one planted anomaly if one is named.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  madang-load-tests synthetic --records 1000 --plant A4 history.jsonl")]
pub(crate) struct Synthetic {
    /// Where to.
    file: PathBuf,
    /// Records that are sent and read, about.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    records: u64,
    /// The same number makes the same history.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A code such as A4.
    #[arg(long, value_name = "CODE")]
    plant: Option<String>,
}

/// Reads a history and judges it.
///
/// # Errors
/// A text for a person: the file cannot be read, or is rejected.
pub(crate) fn judge(file: &Path, unseen_within: Duration) -> Result<Verdict, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", file.display());
    let rejected = |why: Rejected| format!("{}: the history is rejected: {why}", file.display());
    let mut lines = BufReader::with_capacity(1 << 20, File::open(file).map_err(failed)?);
    let mut checker = Checker::new(Settings { unseen_within });
    let (mut text, mut line) = (String::new(), 0);
    while lines.read_line(&mut text).map_err(failed)? > 0 {
        line += 1;
        let event = parse(text.trim_end()).map_err(|why| rejected(Rejected::Line { line, why }))?;
        checker.add(&event).map_err(rejected)?;
        text.clear();
    }
    checker.finish().map_err(rejected)
}

pub(crate) fn check(args: &Check) -> Result<bool, String> {
    let began = Instant::now();
    let verdict = judge(&args.file, Duration::from_secs(args.unseen_within))?;
    println!("{verdict}");
    eprintln!("judged in {} ms{}", began.elapsed().as_millis(), peak_memory().unwrap_or_default());
    Ok(verdict.is_clean() && verdict.read_short == 0)
}

/// What the process has had in memory at most.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(format!(", with {} of memory at most", peak.trim()))
}

pub(crate) fn synthetic(args: &Synthetic) -> Result<bool, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", args.file.display());
    let mut file = BufWriter::new(File::create(&args.file).map_err(failed)?);
    let mut outcome = Ok(());
    let mut put = |event: &Event| {
        if outcome.is_ok() {
            outcome = writeln!(file, "{}", write(event, &Map::new()));
        }
    };
    match &args.plant {
        None => synthetic::clean(args.seed, args.records, |event| put(&event)),
        Some(code) => {
            let named = Anomaly::ALL.into_iter().find(|anomaly| anomaly.code() == code);
            let anomaly =
                named.ok_or_else(|| format!("{code}: no anomaly has this code; docs/history.md lists them"))?;
            let mut events = synthetic::clean_events(args.seed, args.records);
            if !synthetic::plant(anomaly, &mut events, args.seed, Settings::default().unseen_within) {
                return Err(format!("the history of seed {} has no place for {code}: take another", args.seed));
            }
            events.iter().for_each(put);
        }
    }
    outcome.and_then(|()| file.flush()).map_err(failed)?;
    Ok(true)
}
