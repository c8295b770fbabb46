//! Whether a long run drifts: a straight line through a series, judged by what it adds over the whole time.
//! Invariant: drift is growth beyond a bound that is also well beyond the scatter; the first quarter is warm-up and does not count.

use serde::{Deserialize, Serialize};

use super::report::Sample;

/// A line beyond so many of its standard errors is no scatter.
const ERRORS: f64 = 4.0;
/// A series shorter than this says nothing.
const FEWEST: usize = 20;

/// One series that was watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// What was watched.
    pub name: String,
    /// Its mean.
    pub mean: f64,
    /// What the line adds in an hour.
    pub per_hour: f64,
    /// What the line adds over the time that was watched, by the mean.
    pub growth: f64,
    /// The most that `growth` may be.
    pub bound: f64,
    /// The line's slope by its standard error.
    pub certainty: f64,
    /// Whether it drifts.
    pub drifts: bool,
}

/// A line through points of time in seconds and value; none for too few points, or for none but zeros.
#[must_use]
pub fn drift(name: &str, points: &[(f64, f64)], bound: f64) -> Option<Drift> {
    let points = &points[points.len() / 4..];
    if points.len() < FEWEST {
        return None;
    }
    let count = points.len() as f64;
    let mean_of = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (middle, mean) = (mean_of(|point| point.0), mean_of(|point| point.1));
    let spread: f64 = points.iter().map(|(at, _)| (at - middle).powi(2)).sum();
    if spread <= 0.0 || mean <= 0.0 {
        return None;
    }
    let slope = points.iter().map(|(at, value)| (at - middle) * (value - mean)).sum::<f64>() / spread;
    let rest: f64 = points.iter().map(|(at, value)| (value - mean - slope * (at - middle)).powi(2)).sum();
    let error = (rest / (count - 2.0) / spread).sqrt();
    let certainty = if error > 0.0 { slope / error } else { slope.signum() * f64::from(u16::MAX) };
    let time = points.last().map_or(0.0, |last| last.0) - points.first().map_or(0.0, |first| first.0);
    let growth = slope * time / mean;
    let drifts = growth > bound && certainty > ERRORS;
    Some(Drift { name: name.to_owned(), mean, per_hour: slope * 3600.0, growth, bound, certainty, drifts })
}

/// Memory, descriptors and latency of a run.
#[must_use]
pub fn of_series(series: &[Sample], bound: f64) -> Vec<Drift> {
    type Of = fn(&Sample) -> f64;
    let watched: [(&str, Of); 5] = [
        ("resident memory (bytes)", |sample| sample.resident_bytes as f64),
        ("open files and sockets", |sample| sample.descriptors as f64),
        ("produce p50 (us)", |sample| sample.produce.p50_us as f64),
        ("produce p99 (us)", |sample| sample.produce.p99_us as f64),
        ("consume p99 (us)", |sample| sample.consume.p99_us as f64),
    ];
    let points = |of: Of| series.iter().map(|sample| (sample.at_s, of(sample))).collect::<Vec<_>>();
    watched.into_iter().filter_map(|(name, of)| drift(name, &points(of), bound)).collect()
}

#[cfg(test)]
mod tests {
    use madang_actors::prng::Prng;

    use super::*;

    /// An hour of minutes: 1,000, `growth` more at the end, and noise of up to `noise` either way.
    fn hour(growth: f64, noise: u64) -> Vec<(f64, f64)> {
        let mut prng = Prng::new(3);
        let value =
            |minute: u32, noise: f64| (f64::from(minute) * 60.0, 1000.0 + growth * f64::from(minute) / 60.0 + noise);
        (0..60).map(|minute| value(minute, prng.below(2 * noise + 1) as f64 - noise as f64)).collect()
    }

    #[test]
    fn growth_beyond_the_bound_is_drift_and_below_it_is_not() {
        let grown = drift("memory", &hour(300.0, 10), 0.1).expect("points");
        assert!(grown.drifts && (grown.per_hour - 300.0).abs() < 30.0, "{grown:?}");
        assert!(!drift("memory", &hour(50.0, 10), 0.1).expect("points").drifts);
        assert!(!drift("memory", &hour(-300.0, 10), 0.1).expect("points").drifts, "less is no harm");
    }

    #[test]
    fn noise_is_no_drift_however_wide() {
        let noisy = drift("latency", &hour(0.0, 900), 0.01).expect("points");
        assert!(!noisy.drifts, "{noisy:?}");
    }

    #[test]
    fn what_grows_only_while_it_warms_up_does_not_drift() {
        let points: Vec<_> = (0..100).map(|at| (f64::from(at), if at < 25 { f64::from(at) } else { 25.0 })).collect();
        assert!(!drift("memory", &points, 0.05).expect("points").drifts);
    }

    #[test]
    fn too_few_points_say_nothing() {
        assert_eq!(drift("memory", &hour(300.0, 0)[..20], 0.1), None);
    }

    #[test]
    fn a_run_whose_memory_grows_is_seen() {
        let sample = |at: u32| Sample {
            at_s: f64::from(at),
            resident_bytes: 1000 + u64::from(at) * 10,
            descriptors: 9,
            ..Sample::default()
        };
        let found = of_series(&(0..100).map(sample).collect::<Vec<_>>(), 0.1);
        let drifting: Vec<&str> = found.iter().filter(|one| one.drifts).map(|one| one.name.as_str()).collect();
        assert_eq!(drifting, ["resident memory (bytes)"]);
        assert_eq!(found.len(), 2, "series of zeros are not judged");
    }
}
