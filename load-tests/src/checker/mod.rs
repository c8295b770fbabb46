//! Judges a history: what was promised, and what clients saw instead. One key after the other; at most 60 bytes are kept for a record.
//! Invariant: an anomaly that is reported is one, whatever the timing of clients and faults.

mod gather;
mod groups;
mod key;
mod verdict;
mod versions;

pub use self::gather::Checker;
pub use self::verdict::{Anomaly, Example, Verdict};

use std::time::Duration;

/// What is held against a history.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long after everything is healed an acknowledged record may stay unread.
    pub unseen_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { unseen_within: Duration::from_secs(120) }
    }
}
