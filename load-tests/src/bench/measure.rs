//! Counts and latencies of one kind of work: all of the steady window, and of the interval since the last look.
//! Invariant: latency is counted from when the work was to begin, and belongs to the window that this time is in.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The longest latency that is told apart, in microseconds: ten minutes.
const LONGEST_US: u64 = 600_000_000;
/// Relative error of a latency: a part in a thousand.
const DIGITS: u8 = 3;
/// Percentiles that are reported.
pub const PERCENTILES: [f64; 8] = [50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0];

/// Latencies as they are reported, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean_us: f64,
    /// Percentile and latency.
    pub percentiles: Vec<(f64, u64)>,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let value = |percentile: &f64| (*percentile, histogram.value_at_quantile(percentile / 100.0));
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            mean_us: histogram.mean(),
            percentiles: PERCENTILES.iter().map(value).collect(),
        })
    }

    /// The latency at one of [`PERCENTILES`].
    #[must_use]
    pub fn at(&self, percentile: f64) -> Option<u64> {
        self.percentiles.iter().find(|(at, _)| (at - percentile).abs() < 1e-9).map(|(_, latency)| *latency)
    }
}

/// One kind of work as it is reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Done within the window.
    pub count: u64,
    /// Bytes of values of those.
    pub bytes: u64,
    /// Failed, in the whole run.
    pub errors: u64,
    /// From the intended time to the end, of what was intended within the window.
    pub latency: Option<Latency>,
    /// From the intended time until the generator itself began: its own part of the latency.
    pub lateness: Option<Latency>,
}

impl Flow {
    /// Done in a second of the window.
    #[must_use]
    pub fn per_second(&self, window_s: f64) -> f64 {
        self.count as f64 / window_s.max(1e-9)
    }

    /// Mebibytes in a second of the window.
    #[must_use]
    pub fn mib_per_second(&self, window_s: f64) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / window_s.max(1e-9)
    }
}

/// What happened in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Done.
    pub count: u64,
    /// Bytes of values.
    pub bytes: u64,
    /// The middle latency in microseconds; 0 if there was none.
    pub p50_us: u64,
    /// 99 of a hundred were faster.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// Counts one kind of work.
#[derive(Clone, Debug)]
pub struct Meter {
    window: (u64, u64),
    steady: Histogram<u64>,
    late: Histogram<u64>,
    recent: Histogram<u64>,
    interval: Interval,
    count: u64,
    bytes: u64,
    total: u64,
    errors: u64,
}

fn histogram() -> Histogram<u64> {
    // The bounds are constants that the library takes, which a test shows.
    Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("sound bounds")
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            window: (0, u64::MAX),
            steady: histogram(),
            late: histogram(),
            recent: histogram(),
            interval: Interval::default(),
            count: 0,
            bytes: 0,
            total: 0,
            errors: 0,
        }
    }
}

impl Meter {
    /// One whose steady window is from `begin` to `end`, in nanoseconds after the start.
    #[must_use]
    pub fn new(begin: u64, end: u64) -> Self {
        Self { window: (begin, end), ..Self::default() }
    }

    fn is_steady(&self, at: u64) -> bool {
        (self.window.0..self.window.1).contains(&at)
    }

    /// Work that was to begin at `due` did begin at `began`.
    pub fn began(&mut self, due: u64, began: u64) {
        if self.is_steady(due) {
            self.late.saturating_record(began.saturating_sub(due).div_ceil(1000).max(1));
        }
    }

    /// Work of so many bytes that was to begin at `due`, if that is known, ended at `ended`.
    pub fn done(&mut self, due: Option<u64>, ended: u64, bytes: u64) {
        self.total += 1;
        self.interval.count += 1;
        self.interval.bytes += bytes;
        if self.is_steady(ended) {
            self.count += 1;
            self.bytes += bytes;
        }
        let Some(due) = due else { return };
        let took = ended.saturating_sub(due).div_ceil(1000).max(1);
        self.recent.saturating_record(took);
        if self.is_steady(due) {
            self.steady.saturating_record(took);
        }
    }

    /// Work failed.
    pub fn failed(&mut self) {
        self.errors += 1;
    }

    /// Ends the window now, if it was to last longer.
    pub fn close_window(&mut self, now: u64) {
        self.window.1 = self.window.1.min(now);
    }

    /// All that was done so far, within the window and outside.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// What happened since this was asked last.
    pub fn interval(&mut self) -> Interval {
        let mut interval = std::mem::take(&mut self.interval);
        if !self.recent.is_empty() {
            interval.p50_us = self.recent.value_at_quantile(0.5);
            interval.p99_us = self.recent.value_at_quantile(0.99);
            interval.max_us = self.recent.max();
            self.recent.reset();
        }
        interval
    }

    /// What is to be reported.
    #[must_use]
    pub fn flow(&self) -> Flow {
        let (latency, lateness) = (Latency::of(&self.steady), Latency::of(&self.late));
        Flow { count: self.count, bytes: self.bytes, errors: self.errors, latency, lateness }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn latency_counts_from_the_intended_time_even_if_the_sender_was_late() {
        let mut meter = Meter::new(0, 1000 * MS);
        meter.began(10 * MS, 40 * MS);
        meter.done(Some(10 * MS), 50 * MS, 7);
        let flow = meter.flow();
        let (latency, late) = (flow.latency.expect("one"), flow.lateness.expect("one"));
        assert!((40_000..40_050).contains(&latency.at(50.0).expect("p50")), "{latency:?}");
        assert!((30_000..30_050).contains(&late.at(100.0).expect("max")), "{late:?}");
    }

    #[test]
    fn warm_up_is_not_counted_and_what_was_intended_in_the_window_is_however_late_it_ends() {
        let mut meter = Meter::new(100 * MS, 200 * MS);
        meter.done(Some(50 * MS), 99 * MS, 1);
        meter.done(Some(60 * MS), 150 * MS, 10);
        meter.done(Some(150 * MS), 900 * MS, 100);
        let flow = meter.flow();
        assert_eq!((flow.count, flow.bytes), (1, 10), "done within the window");
        let latency = flow.latency.expect("one");
        assert_eq!(latency.count, 1, "intended within the window");
        assert!(latency.at(50.0).expect("p50") >= 750_000);
        assert_eq!(meter.total(), 3);
    }

    #[test]
    fn an_interval_holds_what_came_since_the_last_and_percentiles_are_near() {
        let mut meter = Meter::default();
        for thousandth in 1..=1000_u64 {
            meter.done(Some(0), thousandth * MS, 1);
        }
        let first = meter.interval();
        assert_eq!((first.count, first.bytes), (1000, 1000));
        assert!(first.p50_us.abs_diff(500_000) < 1_000 && first.p99_us.abs_diff(990_000) < 2_000, "{first:?}");
        assert_eq!(meter.interval(), Interval::default());
        assert_eq!(meter.flow().latency.expect("all").count, 1000);
    }

    #[test]
    fn a_latency_beyond_what_is_told_apart_counts_as_the_longest() {
        let mut meter = Meter::default();
        meter.done(Some(0), u64::MAX, 1);
        assert!(meter.interval().max_us >= LONGEST_US);
    }
}
