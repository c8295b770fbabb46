//! What both kinds of supervisor keep of one child: its phase, its back-off and its panics.
//! Invariant: the attempt count and the panics are forgotten together, after the quiet period of its back-off.

use crate::child_spec::{ChildSpec, ExitReason, Incarnation};
use crate::clock::Mono;
use crate::prng::Prng;

use super::{ChildState, ChildStatus};
use std::time::Duration;

/// At most this many distinct panic sites are counted; a child that panics at more of them is not stuck on one.
const MAX_SITES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not running, to be started at `not_before` or when its turn comes.
    Down {
        not_before: Mono,
    },
    Starting {
        deadline: Option<Mono>,
    },
    Running,
    Stopping {
        deadline: Option<Mono>,
    },
    Quarantined,
    /// Ended for good, unless a sibling's restart takes it along.
    Done,
}

#[derive(Debug)]
pub(super) struct Child {
    pub(super) spec: ChildSpec,
    pub(super) incarnation: Incarnation,
    pub(super) phase: Phase,
    pub(super) restarts: u64,
    pub(super) last_reason: Option<ExitReason>,
    /// Restarts since the last quiet period.
    attempt: u32,
    running_since: Option<Mono>,
    panics: Vec<(String, u32)>,
}

impl Child {
    pub(super) fn new(spec: ChildSpec, now: Mono) -> Self {
        Self {
            spec,
            incarnation: Incarnation::default(),
            phase: Phase::Down { not_before: now },
            restarts: 0,
            last_reason: None,
            attempt: 0,
            running_since: None,
            panics: Vec::new(),
        }
    }

    pub(super) fn status(&self) -> ChildStatus {
        ChildStatus {
            id: self.spec.id.clone(),
            state: match self.phase {
                Phase::Down { .. } => ChildState::Waiting,
                Phase::Starting { .. } => ChildState::Starting,
                Phase::Running => ChildState::Running,
                Phase::Stopping { .. } => ChildState::Stopping,
                Phase::Quarantined => ChildState::Quarantined,
                Phase::Done => ChildState::Ended,
            },
            incarnation: self.incarnation,
            restarts: self.restarts,
            last_reason: self.last_reason.clone(),
        }
    }

    pub(super) const fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Starting { .. } | Phase::Running | Phase::Stopping { .. })
    }

    /// Whether a report about `incarnation` is about its present life.
    pub(super) fn is_present(&self, incarnation: Incarnation) -> bool {
        self.is_live() && self.incarnation == incarnation
    }

    pub(super) fn starting(&mut self, now: Mono, incarnation: Incarnation) {
        self.incarnation = incarnation;
        self.running_since = None;
        self.phase = Phase::Starting { deadline: self.spec.start_deadline.map(|limit| now + limit) };
    }

    pub(super) fn started(&mut self, now: Mono) {
        if let Phase::Starting { .. } = self.phase {
            self.phase = Phase::Running;
            self.running_since = Some(now);
        }
    }

    /// Enters `Stopping` and yields when patience ends.
    pub(super) fn stopping(&mut self, now: Mono) -> Option<Mono> {
        let deadline = self.spec.shutdown_deadline.map(|limit| now + limit);
        self.phase = Phase::Stopping { deadline };
        deadline
    }

    /// Notes an end that calls for a restart and yields the pause before it.
    pub(super) fn failed(&mut self, now: Mono, reason: &ExitReason, rng: &mut Prng) -> Duration {
        let quiet = self.running_since.take().is_some_and(|since| now - since >= self.spec.backoff.reset_after);
        if quiet {
            self.attempt = 0;
            self.panics.clear();
        }
        if let Some(site) = reason.site() {
            if let Some((_, count)) = self.panics.iter_mut().find(|(known, _)| known == site) {
                *count = count.saturating_add(1);
            } else if self.panics.len() < MAX_SITES {
                self.panics.push((site.into(), 1));
            }
        }
        let pause = self.spec.backoff.pause(self.attempt, rng);
        self.attempt = self.attempt.saturating_add(1);
        pause
    }

    /// How often it has panicked where `reason` says.
    pub(super) fn panics_at(&self, reason: &ExitReason) -> u32 {
        let site = reason.site();
        self.panics.iter().find(|(known, _)| Some(known.as_str()) == site).map_or(0, |(_, count)| *count)
    }

    /// Starts afresh after a quarantine.
    pub(super) fn released(&mut self, now: Mono) {
        self.attempt = 0;
        self.panics.clear();
        self.phase = Phase::Down { not_before: now };
    }
}
