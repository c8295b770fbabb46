//! Which log is synced next. Pure: it names logs, others sync them.
//! Invariant: a log is clean, dirty, syncing, or syncing and dirty; it is never synced twice at once, and no dirty one is passed over twice.

use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Dirty,
    Syncing,
    SyncingAndDirty,
}

/// The order of syncs of one directory. `K` names a log; one that is not known is clean.
#[derive(Clone, Debug)]
pub struct Flusher<K> {
    states: BTreeMap<K, State>,
    waiting: VecDeque<K>,
    syncing: usize,
    limit: usize,
}

impl<K: Ord + Clone> Flusher<K> {
    /// At most `limit` syncs at once; at least 1.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { states: BTreeMap::new(), waiting: VecDeque::new(), syncing: 0, limit: limit.max(1) }
    }

    /// Something was written to the log.
    pub fn written(&mut self, log: &K) {
        match self.states.get_mut(log) {
            Some(State::Dirty | State::SyncingAndDirty) => {}
            Some(state) => *state = State::SyncingAndDirty,
            None => {
                self.states.insert(log.clone(), State::Dirty);
                self.waiting.push_back(log.clone());
            }
        }
    }

    /// The log to sync now, the longest dirty first; none if nothing is dirty or enough are under way. Whoever takes it calls
    /// [`Flusher::completed`] once.
    pub fn start_next(&mut self) -> Option<K> {
        if self.syncing >= self.limit {
            return None;
        }
        let log = self.waiting.pop_front()?;
        self.states.insert(log.clone(), State::Syncing);
        self.syncing += 1;
        Some(log)
    }

    /// The log's sync is done. If it was written meanwhile it waits again, behind the others.
    pub fn completed(&mut self, log: &K) {
        match self.states.get(log) {
            Some(State::Syncing) => drop(self.states.remove(log)),
            Some(State::SyncingAndDirty) => {
                self.states.insert(log.clone(), State::Dirty);
                self.waiting.push_back(log.clone());
            }
            Some(State::Dirty) | None => return,
        }
        self.syncing = self.syncing.saturating_sub(1);
    }

    /// The log was closed or deleted. A sync under way still ends in [`Flusher::completed`].
    pub fn forget(&mut self, log: &K) {
        match self.states.get_mut(log) {
            Some(State::Dirty) => {
                self.states.remove(log);
                self.waiting.retain(|waiting| waiting != log);
            }
            Some(state) => *state = State::Syncing,
            None => {}
        }
    }

    /// Logs that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Syncs under way.
    #[must_use]
    pub const fn syncing(&self) -> usize {
        self.syncing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_written_during_its_sync_is_synced_again_behind_the_others() {
        let mut flusher = Flusher::new(1);
        flusher.written(&1);
        flusher.written(&2);
        assert_eq!(flusher.start_next(), Some(1));
        assert_eq!(flusher.start_next(), None, "one at a time");
        flusher.written(&1);
        flusher.written(&1);
        flusher.completed(&1);
        assert_eq!(flusher.start_next(), Some(2));
        flusher.completed(&2);
        assert_eq!(flusher.start_next(), Some(1));
        flusher.completed(&1);
        assert_eq!((flusher.start_next(), flusher.waiting(), flusher.syncing()), (None, 0, 0));
    }

    #[test]
    fn a_hot_log_keeps_nobody_waiting() {
        let mut flusher = Flusher::new(2);
        for log in 0..10 {
            flusher.written(&log);
        }
        let mut order = Vec::new();
        while order.len() < 20 {
            let log = flusher.start_next().expect("dirty");
            order.push(log);
            flusher.written(&0);
            flusher.completed(&log);
        }
        assert_eq!(&order[..10], (0..10).collect::<Vec<_>>());
        assert!(order[10..].iter().all(|log| *log == 0));
    }

    #[test]
    fn a_forgotten_log_is_not_synced_again() {
        let mut flusher = Flusher::new(2);
        flusher.written(&1);
        flusher.written(&2);
        flusher.forget(&2);
        assert_eq!(flusher.start_next(), Some(1));
        flusher.written(&1);
        flusher.forget(&1);
        flusher.completed(&1);
        assert_eq!((flusher.start_next(), flusher.syncing()), (None, 0));
    }
}
