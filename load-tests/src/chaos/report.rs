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
    worst: Duration,
}

/// By kind of fault: how often, and how long every partition's next acknowledged record took at worst.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: BTreeMap<Fault, Row>,
}

impl Report {
    pub(crate) fn add(&mut self, fault: Fault, outcome: &Outcome, stall: Duration) {
        let row = self.rows.entry(fault).or_default();
        match outcome {
            Outcome::Happened => row.happened += 1,
            Outcome::Skipped(_) => row.skipped += 1,
            Outcome::Unsure(_) => row.unsure += 1,
        }
        row.worst = row.worst.max(stall);
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
            "{:<14} {:>8} {:>8} {:>8}  worst time to the next acknowledgement of every partition",
            "FAULT", "HAPPENED", "SKIPPED", "UNSURE"
        )?;
        for (fault, row) in &self.rows {
            let worst = row.worst.as_millis();
            writeln!(f, "{:<14} {:>8} {:>8} {:>8}  {worst} ms", fault.name(), row.happened, row.skipped, row.unsure)?;
        }
        let worst = self.rows.values().map(|row| row.worst).max().unwrap_or_default();
        write!(f, "{} faults, worst {} ms", self.count(), worst.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
