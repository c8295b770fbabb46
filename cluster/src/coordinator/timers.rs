//! The shard's timers in one ordered set, so that one deadline serves them all.
//! Invariant: a timer is armed at most once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use madang_actors::clock::Mono;

/// What comes due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// A member's session, a pending member's reservation or a parked first join ends.
    Member { group: Arc<str>, member: Arc<str> },
    /// A rebalance has waited long enough for joins.
    Join { group: Arc<str> },
    /// A generation has waited long enough for syncs.
    Sync { group: Arc<str> },
    /// Time to look for expired offsets.
    Retention,
}

/// Armed timers.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Timers {
    queue: BTreeSet<(Mono, Timer)>,
    armed: BTreeMap<Timer, Mono>,
}

impl Timers {
    /// Arms `timer`, in place of its earlier arming if there is one.
    pub(crate) fn arm(&mut self, timer: Timer, at: Mono) {
        if let Some(before) = self.armed.insert(timer.clone(), at) {
            self.queue.remove(&(before, timer.clone()));
        }
        self.queue.insert((at, timer));
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.armed.remove(timer) {
            self.queue.remove(&(at, timer.clone()));
        }
    }

    pub(crate) fn cancel_all(&mut self) {
        self.queue.clear();
        self.armed.clear();
    }

    pub(crate) fn next(&self) -> Option<Mono> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Takes the earliest timer that is due.
    pub(crate) fn pop_due(&mut self, now: Mono) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.queue.pop_first()?;
        self.armed.remove(&timer);
        Some(timer)
    }

    pub(crate) fn check(&self) {
        assert_eq!(self.queue.len(), self.armed.len(), "a timer is armed twice");
    }
}
