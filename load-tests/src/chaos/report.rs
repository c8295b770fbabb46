//! What a run did and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::faults::{Fault, Outcome};

#[derive(Debug, Default)]
struct Row {
    happened: u64,
    skipped: u64,
    unsure: u64,
    /// Of those that happened.
    stalls: Vec<Duration>,
}

impl Row {
    /// The time that so many of a hundred do not exceed, in milliseconds.
    fn percentile(&self, hundredths: usize) -> u128 {
        let mut sorted = self.stalls.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * hundredths).div_ceil(100).max(1) - 1;
        sorted.get(place).map_or(0, Duration::as_millis)
    }
}

/// By kind of fault: how often, and how long it took until a record that was sent after the fault was acknowledged in every partition.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: BTreeMap<Fault, Row>,
}

impl Report {
    pub(crate) fn add(&mut self, fault: Fault, outcome: &Outcome, stall: Duration) {
        let row = self.rows.entry(fault).or_default();
        match outcome {
            Outcome::Happened => {
                row.happened += 1;
                row.stalls.push(stall);
            }
            Outcome::Skipped(_) => row.skipped += 1,
            Outcome::Unsure(_) => row.unsure += 1,
        }
    }

    /// Those of `required` that never happened.
    pub(crate) fn missing(&self, required: &[Fault]) -> Vec<String> {
        let happened = |fault: &&Fault| self.rows.get(fault).is_some_and(|row| row.happened > 0);
        required.iter().filter(|fault| !happened(fault)).map(|fault| fault.name()).collect()
    }

    /// How many faults happened.
    pub(crate) fn count(&self) -> u64 {
        self.rows.values().map(|row| row.happened).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<15} {:>8} {:>7} {:>6} {:>7} {:>7} {:>7}  ms to an acknowledgement of every partition",
            "FAULT", "HAPPENED", "SKIPPED", "UNSURE", "P50", "P90", "WORST"
        )?;
        for (fault, row) in &self.rows {
            let [p50, p90, worst] = [50, 90, 100].map(|hundredths| row.percentile(hundredths));
            let Row { happened, skipped, unsure, .. } = row;
            writeln!(f, "{:<15} {happened:>8} {skipped:>7} {unsure:>6} {p50:>7} {p90:>7} {worst:>7}", fault.name())?;
        }
        let worst = self.rows.values().map(|row| row.percentile(100)).max().unwrap_or_default();
        write!(f, "{} faults, worst {worst} ms", self.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_by_rank() {
        let mut report = Report::default();
        for millis in (1..=30).rev() {
            report.add(Fault::Kill, &Outcome::Happened, Duration::from_millis(millis));
        }
        let row = &report.rows[&Fault::Kill];
        assert_eq!([50, 90, 99, 100].map(|hundredths| row.percentile(hundredths)), [15, 27, 30, 30]);
        assert_eq!(Row::default().percentile(50), 0);
    }

    #[test]
    fn a_fault_that_was_skipped_is_missing() {
        let mut report = Report::default();
        report.add(Fault::Kill, &Outcome::Happened, Duration::from_millis(300));
        report.add(Fault::Wipe, &Outcome::Skipped("no".to_owned()), Duration::ZERO);
        report.add(Fault::Stop, &Outcome::Unsure("perhaps".to_owned()), Duration::ZERO);
        assert_eq!(report.missing(&[Fault::Kill, Fault::Wipe, Fault::Stop]), ["wipe", "stop"]);
        assert!(report.to_string().ends_with("1 faults, worst 300 ms"), "{report}");
    }
}
