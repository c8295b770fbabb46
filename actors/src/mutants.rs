//! Planted bugs: switches that show that the simulator would find such a bug. Without the feature `mutants` every switch is
//! the constant `false` and nothing of them is in the build.
//! Invariant: all switches are off until a test turns one on, on its own thread.

#[cfg(feature = "mutants")]
use std::cell::Cell;

#[cfg(feature = "mutants")]
thread_local! {
    static ACTIVE: Cell<u128> = const { Cell::new(0) };
}

/// Turns one planted bug (1 to 127) on for this thread and all others off; none turns all off.
#[cfg(feature = "mutants")]
pub fn activate(mutant: Option<u32>) {
    ACTIVE.with(|active| active.set(mutant.and_then(|mutant| 1_u128.checked_shl(mutant)).unwrap_or(0)));
}

/// Whether the planted bug of that number is on.
#[cfg(feature = "mutants")]
#[must_use]
pub fn mutant(number: u32) -> bool {
    ACTIVE.with(|active| active.get() & (1_u128 << (number & 127)) != 0)
}

/// Whether the planted bug of that number is on: never, in this build.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn mutant(_: u32) -> bool {
    false
}
