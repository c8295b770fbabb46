//! What a supervisor knows of its children before any of them runs: data only.
//! Invariant: nothing here reads a clock or starts anything.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::prng::Prng;

/// A child's name, unique among its siblings. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(Arc<str>);

impl ChildId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: AsRef<str>> From<T> for ChildId {
    fn from(name: T) -> Self {
        Self(Arc::from(name.as_ref()))
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Counts a child's lives, from 1. Only grows: whatever carries a lower one comes from a dead life and is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The one that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// When a child that ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Restart {
    /// Always.
    Permanent,
    /// After anything but a normal end or an ordered shutdown.
    Transient,
    /// Never; it is forgotten when it ends.
    Temporary,
}

impl Restart {
    /// Whether an end for `reason` calls for another start.
    #[must_use]
    pub fn is_due(self, reason: &ExitReason) -> bool {
        match self {
            Self::Permanent => true,
            Self::Transient => reason.is_abnormal(),
            Self::Temporary => false,
        }
    }
}

/// Which siblings share the fate of a child that is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// None.
    OneForOne,
    /// All of them.
    OneForAll,
    /// Those that start after it.
    RestForOne,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneForOne => "one_for_one",
            Self::OneForAll => "one_for_all",
            Self::RestForOne => "rest_for_one",
        })
    }
}

/// How many restarts are borne. `max` of them within `window` are; one more escalates. An event leaves the window when it
/// is older than `window`, so one exactly `window` old still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts borne within the window.
    pub max: usize,
    /// The window's length.
    pub window: Duration,
}

impl Default for Intensity {
    /// 5 within 30 s: a crash loop escalates within its first second of back-off, a rare fault never.
    fn default() -> Self {
        Self { max: 5, window: Duration::from_secs(30) }
    }
}

/// The pause before a restart: doubles from `initial` to `max`, each time with up to a quarter of jitter taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub initial: Duration,
    /// The longest pause.
    pub max: Duration,
    /// A child that ran this long starts again at `initial`, and its panics are forgotten.
    pub reset_after: Duration,
}

impl Default for Backoff {
    /// 10 ms to 10 s; forgotten after five quiet minutes.
    fn default() -> Self {
        Self { initial: Duration::from_millis(10), max: Duration::from_secs(10), reset_after: Duration::from_secs(300) }
    }
}

impl Backoff {
    /// The pause before restart number `attempt` (0 is the first): between three quarters of the exponential step and all of it.
    #[must_use]
    pub fn pause(&self, attempt: u32, rng: &mut Prng) -> Duration {
        let factor = 1u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX);
        let step = self.initial.saturating_mul(factor).min(self.max);
        let quarter = u64::try_from(step.as_nanos() / 4).unwrap_or(u64::MAX);
        step.saturating_sub(Duration::from_nanos(rng.below(quarter.saturating_add(1))))
    }
}

/// One child, as its supervisor's machine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSpec {
    /// Unique among the siblings.
    pub id: ChildId,
    /// When it is started again.
    pub restart: Restart,
    /// How long a start may take before the child is written off and the start counts as failed; `None` waits for ever.
    pub start_deadline: Option<Duration>,
    /// How long an ordered stop may take before the child is abandoned; `None` waits for ever.
    pub shutdown_deadline: Option<Duration>,
    /// The pause between its restarts.
    pub backoff: Backoff,
}

impl ChildSpec {
    /// A permanent child with a start deadline of 60 s and a shutdown deadline of 10 s.
    pub fn new(id: impl Into<ChildId>) -> Self {
        Self {
            id: id.into(),
            restart: Restart::Permanent,
            start_deadline: Some(Duration::from_secs(60)),
            shutdown_deadline: Some(Duration::from_secs(10)),
            backoff: Backoff::default(),
        }
    }
}

/// Why a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// It stopped of its own accord.
    Normal,
    /// It was told to stop.
    Shutdown,
    /// It panicked.
    Panic {
        /// What the panic said.
        message: String,
        /// `file:line:column` of the panic.
        site: String,
    },
    /// Its factory failed, panicked, or did not finish in time.
    StartFailed {
        /// What went wrong.
        message: String,
        /// `file:line:column`, if the factory panicked.
        site: Option<String>,
    },
    /// Its task was dropped from outside: an arbiter went away or a deadline passed.
    Killed,
    /// A supervisor gave up on its own children.
    Escalated {
        /// The supervisor's reason.
        reason: String,
    },
}

impl ExitReason {
    /// Whether it is anything but a normal end or an ordered shutdown.
    #[must_use]
    pub const fn is_abnormal(&self) -> bool {
        !matches!(self, Self::Normal | Self::Shutdown)
    }

    /// Where the panic happened, if it was one.
    #[must_use]
    pub fn site(&self) -> Option<&str> {
        match self {
            Self::Panic { site, .. } => Some(site),
            Self::StartFailed { site, .. } => site.as_deref(),
            _ => None,
        }
    }

    /// A fixed word for metrics: `normal`, `shutdown`, `panic`, `start_failed`, `killed` or `escalated`.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Shutdown => "shutdown",
            Self::Panic { .. } => "panic",
            Self::StartFailed { .. } => "start_failed",
            Self::Killed => "killed",
            Self::Escalated { .. } => "escalated",
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panic { message, site } => write!(f, "panic at {site}: {message}"),
            Self::StartFailed { message, site: Some(site) } => write!(f, "start failed at {site}: {message}"),
            Self::StartFailed { message, site: None } => write!(f, "start failed: {message}"),
            Self::Escalated { reason } => write!(f, "escalated: {reason}"),
            other => f.write_str(other.label()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_its_bound_and_keeps_its_jitter_within_a_quarter() {
        let (backoff, mut rng) = (Backoff::default(), Prng::new(3));
        for attempt in 0..64 {
            let step = Duration::from_millis(10).saturating_mul(1 << attempt.min(20)).min(Duration::from_secs(10));
            for _ in 0..50 {
                let pause = backoff.pause(attempt, &mut rng);
                assert!(pause <= step && pause >= step * 3 / 4, "attempt {attempt}: {pause:?} against {step:?}");
            }
        }
    }

    #[test]
    fn a_transient_child_is_due_only_after_an_abnormal_end() {
        assert!(!Restart::Transient.is_due(&ExitReason::Normal));
        assert!(!Restart::Transient.is_due(&ExitReason::Shutdown));
        assert!(Restart::Transient.is_due(&ExitReason::Killed));
        assert!(Restart::Permanent.is_due(&ExitReason::Normal));
        assert!(!Restart::Temporary.is_due(&ExitReason::Killed));
    }
}
