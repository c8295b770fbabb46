//! The crash-point sweep: one fixed scenario, cut at each of its disk operations, by power and by a kill.
//! Invariant: every operation is a crash point; none is skipped but by the caller's own stride.

use madang_storage::Crash;

use crate::scenario;
use crate::sim::Violation;

/// What a sweep has done.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Disk operations of the scenario.
    pub operations: u64,
    /// Crashes tried.
    pub points: u64,
    /// The first that was not survived.
    pub failed: Option<(u64, Crash, Violation)>,
}

/// Cuts the scenario of `seed` and of `operations` disk operations at every `stride`-th of them.
#[must_use]
pub fn run(seed: u64, operations: u64, stride: u64) -> Swept {
    let mut swept = Swept::default();
    match scenario::run(seed, operations, None, Crash::Power) {
        Ok(count) => swept.operations = count,
        Err(violation) => {
            swept.failed = Some((0, Crash::Power, violation));
            return swept;
        }
    }
    for kind in [Crash::Power, Crash::Kill] {
        for at in (0..swept.operations).step_by(usize::try_from(stride.max(1)).unwrap_or(1)) {
            swept.points += 1;
            if let Err(violation) = scenario::run(seed, operations, Some(at), kind) {
                swept.failed = Some((at, kind, violation));
                return swept;
            }
        }
    }
    swept
}
