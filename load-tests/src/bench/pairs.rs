//! Ratios over pairs of runs, with how far they spread.
//! Invariant: a ratio is of two runs of one pair, so that what disturbs both does not decide it.

use serde::{Deserialize, Serialize};

use super::report::{Better, Report};

/// What the interval of a ratio is, as it is printed.
pub const INTERVAL: &str = "median of the pairs' ratios, and in brackets the lowest and the highest of them";

/// A number of both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// What it is of.
    pub name: String,
    /// In what.
    pub unit: String,
    /// Which way it is better.
    pub better: Better,
    /// The median of the first side.
    pub a: f64,
    /// The median of the second side.
    pub b: f64,
    /// First by second of each pair.
    pub pairs: Vec<f64>,
}

impl Ratio {
    /// The median of the pairs.
    #[must_use]
    pub fn median(&self) -> f64 {
        median(&self.pairs)
    }

    /// The lowest and the highest of the pairs.
    #[must_use]
    pub fn interval(&self) -> (f64, f64) {
        let fold = |start, pick: fn(f64, f64) -> f64| self.pairs.iter().copied().fold(start, pick);
        (fold(f64::INFINITY, f64::min), fold(f64::NEG_INFINITY, f64::max))
    }

    /// Whether the first side is better in every pair, worse in every pair, or neither.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        let (low, high) = self.interval();
        match self.better {
            Better::More if low > 1.0 => "better",
            Better::Less if high < 1.0 => "better",
            Better::More if high < 1.0 => "worse",
            Better::Less if low > 1.0 => "worse",
            _ => "not told apart",
        }
    }
}

/// The middle of the numbers, or the mean of the two in the middle; not a number if there are none.
#[must_use]
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (length, half) if length % 2 == 1 => sorted[half],
        (_, half) => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// The ratios of all numbers that both runs of each pair have. A number that is 0 on the second side has no ratio.
#[must_use]
pub fn ratios(a: &[Report], b: &[Report]) -> Vec<Ratio> {
    let metrics: Vec<_> = a.iter().zip(b).map(|(a, b)| (a.metrics(), b.metrics())).collect();
    let Some((first, _)) = metrics.first() else { return Vec::new() };
    let ratio = |wanted: &super::report::Metric| {
        let value = |all: &[super::report::Metric]| all.iter().find(|one| one.name == wanted.name).map(|one| one.value);
        let both = metrics.iter().map(|(a, b)| Some((value(a)?, value(b)?))).collect::<Option<Vec<_>>>()?;
        if both.iter().any(|(_, b)| *b <= 0.0) {
            return None;
        }
        let side = |of: fn(&(f64, f64)) -> f64| median(&both.iter().map(of).collect::<Vec<_>>());
        Some(Ratio {
            name: wanted.name.clone(),
            unit: wanted.unit.to_owned(),
            better: wanted.better,
            a: side(|both| both.0),
            b: side(|both| both.1),
            pairs: both.iter().map(|(a, b)| a / b).collect(),
        })
    };
    first.iter().filter_map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // The second pair was disturbed on both sides alike.
        let a = [report("madang", 10.0), report("madang", 40.0), report("madang", 10.0)];
        let b = [report("kafka", 20.0), report("kafka", 80.0), report("kafka", 30.0)];
        let all = ratios(&a, &b);
        let rate = all.iter().find(|ratio| ratio.name == "produce rate").expect("a rate");
        assert_eq!(rate.pairs, [2.0, 2.0, 3.0]);
        assert_eq!((rate.median(), rate.interval(), rate.outcome()), (2.0, (2.0, 3.0), "better"));
    }

    #[test]
    fn what_is_not_the_same_way_in_every_pair_is_not_told_apart() {
        let ratio = |better, pairs: &[f64]| Ratio {
            name: String::new(),
            unit: String::new(),
            better,
            a: 0.0,
            b: 0.0,
            pairs: pairs.to_vec(),
        };
        assert_eq!(ratio(Better::Less, &[0.5, 0.9]).outcome(), "better");
        assert_eq!(ratio(Better::Less, &[0.5, 1.1]).outcome(), "not told apart");
        assert_eq!(ratio(Better::More, &[0.5, 0.9]).outcome(), "worse");
    }

    #[test]
    fn a_number_that_one_side_lacks_has_no_ratio() {
        let (a, mut b) = (report("madang", 1.0), report("kafka", 1.0));
        b.broker = None;
        let all = ratios(&[a], &[b]);
        assert!(all.iter().any(|ratio| ratio.name == "produce p99"));
        assert!(all.iter().all(|ratio| !ratio.name.starts_with("broker")));
    }
}
