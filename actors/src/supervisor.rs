//! The supervisor as a pure machine: exits, start results and time in; start, stop, abandon and escalate out.
//! Invariant: a child is started only when its previous incarnation, and every sibling that was to stop with it, has
//! really ended or has been abandoned; whatever an older incarnation reports is ignored.

mod child;
mod dynamic;
mod fixed;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use crate::child_spec::{ChildId, ChildSpec, ExitReason, Incarnation, Intensity, Strategy};
use crate::clock::{Mono, Wall};
use crate::machine::Machine;
use crate::prng::Prng;

use dynamic::Dynamic;
use fixed::Fixed;

/// How a supervisor treats its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Children known in advance, started in order and stopped in reverse, one at a time.
    Static {
        /// Who restarts with whom.
        strategy: Strategy,
        /// How many restarts, of any of them, are borne.
        intensity: Intensity,
    },
    /// Many like children that come and go, each on its own. One of them never escalates: it backs off, or is set aside.
    Dynamic {
        /// The most children in the midst of starting.
        max_concurrent_starts: usize,
        /// How many distinct children may fail within the window; one more escalates. Temporary children do not count, or
        /// a hostile client could open connections until the node gave up.
        distinct_failures: Intensity,
        /// How many panics at one site set a child aside.
        panics_to_quarantine: u32,
    },
}

impl Policy {
    /// A static policy with the default intensity.
    #[must_use]
    pub fn fixed(strategy: Strategy) -> Self {
        Self::Static { strategy, intensity: Intensity::default() }
    }

    /// A dynamic policy: 16 concurrent starts, 32 distinct failures in 10 s, three panics at one site.
    #[must_use]
    pub const fn dynamic() -> Self {
        Self::Dynamic {
            max_concurrent_starts: 16,
            distinct_failures: Intensity { max: 32, window: Duration::from_secs(10) },
            panics_to_quarantine: 3,
        }
    }
}

/// What a supervisor hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupervisorInput {
    /// Start the children.
    Begin,
    /// A child runs.
    Started {
        /// Which.
        id: ChildId,
        /// Its life.
        incarnation: Incarnation,
    },
    /// A child ended.
    ChildExited {
        /// Which.
        id: ChildId,
        /// Its life.
        incarnation: Incarnation,
        /// Why.
        reason: ExitReason,
    },
    /// One more child (dynamic only).
    AddChild(ChildSpec),
    /// One child fewer (dynamic only).
    RemoveChild(ChildId),
    /// Start a child again that was set aside; nothing happens if it was not.
    Release(ChildId),
    /// Time has passed.
    Tick,
    /// Stop all children and end.
    Shutdown,
}

/// What a supervisor asks of its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupervisorEffect {
    /// Build the child from its factory and report `Started` or `ChildExited`.
    Start {
        /// Which.
        id: ChildId,
        /// Its new life.
        incarnation: Incarnation,
    },
    /// Ask the child to stop in order. The machine abandons it at `deadline`.
    Stop {
        /// Which.
        id: ChildId,
        /// Its life.
        incarnation: Incarnation,
        /// When patience ends.
        deadline: Option<Mono>,
    },
    /// Drop the child if that is possible; nothing it reports later counts.
    Abandon {
        /// Which.
        id: ChildId,
        /// Its life.
        incarnation: Incarnation,
    },
    /// The child will be started again; for logs and metrics.
    Restarting {
        /// Which.
        id: ChildId,
        /// Why it ended.
        reason: ExitReason,
        /// How long it pauses.
        pause: Duration,
    },
    /// The child has been set aside until it is released.
    Quarantined {
        /// Which.
        id: ChildId,
        /// Its last end.
        reason: ExitReason,
    },
    /// The child has ended and will not be started again by itself.
    Ended {
        /// Which.
        id: ChildId,
        /// Why.
        reason: ExitReason,
    },
    /// `AddChild` or `RemoveChild` was refused: the supervisor is static or ending, or the id to add is taken.
    Refused(ChildId),
    /// Every child has been started once (one_for_one: or has failed once).
    Ready,
    /// All children have been stopped; the parent must decide. Final.
    Escalate {
        /// Why.
        reason: String,
    },
    /// All children have been stopped, as asked. Final.
    Stopped,
}

/// How a child is doing, for the live tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChildState {
    /// It waits to be started: its turn, or its pause.
    Waiting,
    /// Its factory runs.
    Starting,
    /// It runs.
    Running,
    /// It was asked to stop.
    Stopping,
    /// It was set aside.
    Quarantined,
    /// It ended and stays down.
    Ended,
}

impl ChildState {
    /// A fixed lower-case word.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Quarantined => "quarantined",
            Self::Ended => "ended",
        }
    }
}

/// One child as the supervisor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildStatus {
    /// Which.
    pub id: ChildId,
    /// How it is doing.
    pub state: ChildState,
    /// Its latest life; 0 before the first.
    pub incarnation: Incarnation,
    /// How often it was started again.
    pub restarts: u64,
    /// Why its latest finished life ended.
    pub last_reason: Option<ExitReason>,
}

#[derive(Debug)]
enum Kind {
    Fixed(Fixed),
    Dynamic(Dynamic),
}

/// The machine. See the module's documentation.
#[derive(Debug)]
pub struct Supervisor {
    kind: Kind,
}

impl Supervisor {
    /// A supervisor that has started nothing yet. Incarnations begin after `after`, so that a supervisor that is itself
    /// restarted does not use one twice.
    ///
    /// # Panics
    /// If two of `children` have the same id.
    #[must_use]
    pub fn new(policy: Policy, children: Vec<ChildSpec>, after: Incarnation) -> Self {
        let kind = match policy {
            Policy::Static { strategy, intensity } => Kind::Fixed(Fixed::new(strategy, intensity, children, after)),
            Policy::Dynamic { max_concurrent_starts, distinct_failures, panics_to_quarantine } => Kind::Dynamic(
                Dynamic::new(max_concurrent_starts, distinct_failures, panics_to_quarantine, children, after),
            ),
        };
        Self { kind }
    }

    /// The latest incarnation given out.
    #[must_use]
    pub const fn last_incarnation(&self) -> Incarnation {
        match &self.kind {
            Kind::Fixed(fixed) => fixed.last_incarnation(),
            Kind::Dynamic(dynamic) => dynamic.last_incarnation(),
        }
    }

    /// All children: static ones in start order, dynamic ones by id.
    #[must_use]
    pub fn children(&self) -> Vec<ChildStatus> {
        match &self.kind {
            Kind::Fixed(fixed) => fixed.children().map(child::Child::status).collect(),
            Kind::Dynamic(dynamic) => dynamic.children().map(child::Child::status).collect(),
        }
    }

    /// One child.
    #[must_use]
    pub fn child(&self, id: &ChildId) -> Option<ChildStatus> {
        match &self.kind {
            Kind::Fixed(fixed) => fixed.children().find(|child| child.spec.id == *id).map(child::Child::status),
            Kind::Dynamic(dynamic) => dynamic.child(id).map(child::Child::status),
        }
    }
}

impl Machine for Supervisor {
    type Input = SupervisorInput;
    type Effect = SupervisorEffect;

    fn step(&mut self, now: Mono, _: Wall, input: Self::Input, rng: &mut Prng, effects: &mut Vec<Self::Effect>) {
        match &mut self.kind {
            Kind::Fixed(fixed) => fixed.step(now, input, rng, effects),
            Kind::Dynamic(dynamic) => dynamic.step(now, input, rng, effects),
        }
        self.check();
    }

    fn deadline(&self) -> Option<Mono> {
        match &self.kind {
            Kind::Fixed(fixed) => fixed.deadline(),
            Kind::Dynamic(dynamic) => dynamic.deadline(),
        }
    }

    fn check(&self) {
        match &self.kind {
            Kind::Fixed(fixed) => fixed.check(),
            Kind::Dynamic(dynamic) => dynamic.check(),
        }
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new(); // Fixed keys: the same in every run.
        format!("{:?}", self.kind).hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
