//! Looks at a run once in an interval: the series of its report, and the line that shows how it goes.
//! Invariant: the series is bounded; a run that takes longer has longer intervals.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use madang_load_tests::bench::proc_text::Usage;
use madang_load_tests::bench::report::Sample;
use madang_load_tests::bench::table::{milliseconds, number};

use super::kernel;
use super::state::{Flag, Shared};

/// Samples of a run, at most.
const SAMPLES: u64 = 3600;

/// What was seen so far.
pub(crate) struct Seen {
    pub(crate) series: Vec<Sample>,
    pub(crate) resident_peak: u64,
}

/// Looks until it is to end.
pub(crate) struct Sampler {
    shared: Arc<Shared>,
    pids: Vec<u32>,
    interval: Duration,
    /// Whose run this is, for the line.
    title: String,
    seen: Mutex<Seen>,
    pub(crate) end: Flag,
}

impl Sampler {
    pub(crate) fn new(shared: &Arc<Shared>, pids: Vec<u32>, title: String) -> Self {
        let time = shared.scenario.time;
        let all = time.warm_up_s + time.steady_s + time.drain_s;
        Self {
            shared: Arc::clone(shared),
            pids,
            interval: Duration::from_secs(all.div_ceil(SAMPLES).max(1)),
            title,
            seen: Mutex::new(Seen { series: Vec::new(), resident_peak: 0 }),
            end: Flag::default(),
        }
    }

    pub(crate) fn take(&self) -> Seen {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Seen { series: std::mem::take(&mut seen.series), resident_peak: seen.resident_peak }
    }

    pub(crate) async fn run(&self) {
        let is_terminal = std::io::stderr().is_terminal();
        let (mut brokers, mut own) = (kernel::usage_of_all(&self.pids), kernel::usage(std::process::id()));
        let mut last = self.shared.now();
        let mut lines = 0;
        while !self.end.is_set() {
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = self.end.wait() => break,
            }
            let now = self.shared.now();
            let over_s = now.saturating_sub(last) as f64 / 1e9;
            last = now;
            let (new_brokers, new_own) = (kernel::usage_of_all(&self.pids), kernel::usage(std::process::id()));
            let used = |new: Option<Usage>, old: Option<Usage>| {
                new.zip(old).map_or(0.0, |(new, old)| new.since(old).cpu_s / over_s.max(1e-9))
            };
            let held = new_brokers.unwrap_or_default();
            let mut counts = self.shared.counts();
            let sample = Sample {
                at_s: now as f64 / 1e9,
                over_s,
                produce: counts.produce.interval(),
                consume: counts.consume.interval(),
                connect: counts.connect.interval(),
                broker_cores: used(new_brokers, brokers),
                resident_bytes: held.resident_bytes,
                descriptors: held.descriptors,
                generator_cores: used(new_own, own),
            };
            drop(counts);
            (brokers, own) = (new_brokers, new_own);
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.resident_peak = seen.resident_peak.max(held.resident_bytes);
            seen.series.push(sample);
            drop(seen);
            lines += 1;
            self.show(&sample, is_terminal, lines);
        }
        if is_terminal {
            eprintln!();
        }
    }

    /// One line over the one before, or every tenth below it if this is no terminal.
    fn show(&self, sample: &Sample, is_terminal: bool, lines: u64) {
        let time = self.shared.scenario.time;
        let phase = match sample.at_s {
            at if at < time.warm_up_s as f64 => "warm-up",
            at if at < (time.warm_up_s + time.steady_s) as f64 => "steady",
            _ => "drain",
        };
        let rate = |count: u64| number(count as f64 / sample.over_s.max(1e-9));
        let flow = |name: &str, interval: &madang_load_tests::bench::measure::Interval| {
            if interval.count == 0 {
                return String::new();
            }
            let mib = interval.bytes as f64 / f64::from(1 << 20) / sample.over_s.max(1e-9);
            format!(
                "  {name} {}/s {} MiB/s p99 {} ms",
                rate(interval.count),
                number(mib),
                milliseconds(interval.p99_us)
            )
        };
        let line = format!(
            "{} {phase} {:.0} s{}{}{}  broker {:.0} % {:.0} MiB  generator {:.0} %",
            self.title,
            sample.at_s,
            flow("produce", &sample.produce),
            flow("consume", &sample.consume),
            flow("connect", &sample.connect),
            sample.broker_cores * 100.0,
            sample.resident_bytes as f64 / f64::from(1 << 20),
            sample.generator_cores * 100.0,
        );
        if is_terminal {
            eprint!("\r\x1b[K{line}");
            drop(std::io::stderr().flush());
        } else if lines % 10 == 1 {
            eprintln!("{line}");
        }
    }
}
