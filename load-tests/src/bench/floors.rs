//! A broker beside the barest program that moves the same bytes: turns of both, their ratios, and whether those are within a bound.
//! Invariant: a ratio is of two turns of one pair; a bound is compared with the best turns of both sides, which nothing disturbed.

use super::pairs::{Ratio, median};
use super::report::Better;

/// What one side used for a part of the work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Turn {
    /// Bytes that were moved, frames and all.
    pub bytes: u64,
    /// Time on processors of the side that is measured.
    pub cpu_s: f64,
    /// Time that passed.
    pub wall_s: f64,
    /// The round trips, where they are what is measured: how many, and their median.
    pub trips: Option<(u64, f64)>,
}

impl Turn {
    fn cpu_per_gib(&self) -> f64 {
        self.cpu_s / (self.bytes as f64 / f64::from(1 << 30))
    }

    fn mib_per_s(&self) -> f64 {
        self.bytes as f64 / f64::from(1 << 20) / self.wall_s.max(1e-9)
    }
}

/// Name of the ratio of costs.
pub const CPU: &str = "CPU per GiB";
/// Name of the ratio of rates.
pub const THROUGHPUT: &str = "throughput";
/// Name of the ratio of costs of round trips.
pub const CPU_OF_TRIP: &str = "CPU per round trip";
/// Name of the ratio of round trips.
pub const ROUND_TRIP: &str = "round trip, p50";
/// What follows in the name of a ratio of the best turns of both sides.
pub const BEST: &str = ", best";

/// The ratios of pairs of turns, the broker's by the floor's, and after each that of the best turns of both sides.
#[must_use]
pub fn ratios(pairs: &[(Turn, Turn)]) -> Vec<Ratio> {
    let ratio = |name: &str, unit: &str, better, of: &dyn Fn(&Turn) -> Option<f64>| {
        let both = pairs.iter().map(|(a, b)| Some((of(a)?, of(b)?))).collect::<Option<Vec<_>>>()?;
        if both.is_empty() || both.iter().any(|(_, floor)| *floor <= 0.0) {
            return None;
        }
        let side = |pick: fn(&(f64, f64)) -> f64| both.iter().map(pick).collect::<Vec<_>>();
        let (ours, theirs) = (side(|both| both.0), side(|both| both.1));
        let named = |name: String, a, b, pairs| Ratio { name, unit: unit.to_owned(), better, a, b, pairs };
        let best = |of: &[f64]| of.iter().copied().reduce(if better == Better::Less { f64::min } else { f64::max });
        let (a, b) = (best(&ours)?, best(&theirs)?);
        let all = both.iter().map(|(a, b)| a / b).collect();
        Some([
            named(name.to_owned(), median(&ours), median(&theirs), all),
            named(format!("{name}{BEST}"), a, b, vec![a / b]),
        ])
    };
    let is_of_trips = pairs.iter().any(|(a, _)| a.trips.is_some());
    let of_bytes = |value: f64| (!is_of_trips).then_some(value);
    let all = [
        ratio(CPU, "s/GiB", Better::Less, &|turn| of_bytes(turn.cpu_per_gib())),
        ratio(THROUGHPUT, "MiB/s", Better::More, &|turn| of_bytes(turn.mib_per_s())),
        ratio(CPU_OF_TRIP, "us", Better::Less, &|turn| Some(turn.cpu_s * 1e6 / turn.trips?.0.max(1) as f64)),
        ratio(ROUND_TRIP, "us", Better::Less, &|turn| Some(turn.trips?.1)),
    ];
    all.into_iter().flatten().flatten().collect()
}

/// What the ratios of the best turns may be: a neighbour makes a turn dearer, never cheaper, so that the best are those that had none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// The most that the cost may be of the floor's.
    pub most: Option<f64>,
    /// The most that the round trip may be of the floor's.
    pub most_trip: Option<f64>,
    /// The least that the throughput may be of the floor's.
    pub least: Option<f64>,
}

/// A line for each bound that does not hold.
#[must_use]
pub fn broken(ratios: &[Ratio], bounds: &Bounds) -> Vec<String> {
    let mut lines = Vec::new();
    for ratio in ratios {
        let bound = match ratio.name.strip_suffix(BEST) {
            Some(CPU | CPU_OF_TRIP) => bounds.most,
            Some(ROUND_TRIP) => bounds.most_trip,
            Some(THROUGHPUT) => bounds.least,
            _ => None,
        };
        let Some(bound) = bound else { continue };
        let of_floor = ratio.median();
        let (holds, side) = match ratio.better {
            Better::Less => (of_floor <= bound, "at most"),
            Better::More => (of_floor >= bound, "at least"),
        };
        if !holds {
            lines.push(format!("{} is {of_floor:.2} of the floor's, and is to be {side} {bound:.2}", ratio.name));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(cpu_s: f64, wall_s: f64) -> Turn {
        Turn { bytes: 1 << 30, cpu_s, wall_s, trips: None }
    }

    #[test]
    fn what_disturbs_a_pair_is_in_both_of_its_turns() {
        let pairs =
            [(turn(1.5, 2.0), turn(1.0, 1.0)), (turn(4.0, 20.0), turn(2.0, 10.0)), (turn(1.7, 2.0), turn(1.0, 1.0))];
        let all = ratios(&pairs);
        let names: Vec<&str> = all.iter().map(|ratio| &*ratio.name).collect();
        assert_eq!(names, [CPU, "CPU per GiB, best", THROUGHPUT, "throughput, best"]);
        assert_eq!((all[0].median(), all[0].interval()), (1.7, (1.5, 2.0)));
        assert_eq!((all[0].a, all[0].b, all[2].median()), (1.7, 1.0, 0.5));
        assert_eq!((all[1].a, all[1].b, all[1].median()), (1.5, 1.0, 1.5));
        assert_eq!((all[3].a, all[3].b), (512.0, 1024.0));
    }

    #[test]
    fn round_trips_are_compared_by_cost_by_pair_and_by_the_best_turn() {
        let trip = |cpu_s, p50| Turn { cpu_s, trips: Some((100, p50)), ..Turn::default() };
        let pairs = [(trip(0.02, 90.0), trip(0.01, 30.0)), (trip(0.02, 4000.0), trip(0.01, 40.0))];
        let all = ratios(&pairs);
        let told: Vec<(&str, f64)> = all.iter().map(|ratio| (&*ratio.name, ratio.median())).collect();
        let best = ("round trip, p50, best", 3.0);
        assert_eq!(told, [(CPU_OF_TRIP, 2.0), ("CPU per round trip, best", 2.0), (ROUND_TRIP, 51.5), best]);
        // A neighbour decides nothing.
        assert!(broken(&all, &Bounds { most: Some(2.0), most_trip: Some(3.0), least: None }).is_empty());
        assert_eq!(broken(&all, &Bounds { most: Some(1.9), most_trip: Some(2.9), least: None }).len(), 2);
        assert!(ratios(&[]).is_empty());
    }

    #[test]
    fn a_bound_that_does_not_hold_is_told() {
        let all = ratios(&[(turn(1.5, 2.0), turn(1.0, 1.0))]);
        let bounds = |most, least| Bounds { most, least, most_trip: None };
        assert!(broken(&all, &bounds(Some(1.5), Some(0.5))).is_empty());
        assert!(broken(&all, &Bounds::default()).is_empty());
        let told = broken(&all, &bounds(Some(1.4), Some(0.6)));
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0], "CPU per GiB, best is 1.50 of the floor's, and is to be at most 1.40");
    }
}
