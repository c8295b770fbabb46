//! A supervisor of many like children that come and go. No child's failure is another's, and none escalates alone.
//! Invariant: every child in `Down` is in the queue of starts or has a timer; a step costs O(log n), so 100,000 fit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::child_spec::{ChildId, ChildSpec, ExitReason, Incarnation, Intensity, Restart};
use crate::clock::Mono;
use crate::prng::Prng;

use super::child::{Child, Phase};
use super::{SupervisorEffect, SupervisorInput};

#[derive(Debug, PartialEq, Eq)]
enum Mode {
    New,
    Up,
    Closing(Option<String>),
    Closed,
}

#[derive(Debug)]
struct Item {
    child: Child,
    /// Its entry in `timers`.
    timer: Option<Mono>,
    /// It was asked to go and is forgotten when it has ended.
    removing: bool,
}

#[derive(Debug)]
pub(super) struct Dynamic {
    max_concurrent_starts: usize,
    distinct_failures: Intensity,
    panics_to_quarantine: u32,
    /// Boxed: a tree's nodes are half empty when ids arrive in order.
    items: BTreeMap<ChildId, Box<Item>>,
    /// Whose start is due, first come first served. May name children that have gone.
    due: VecDeque<ChildId>,
    timers: BTreeSet<(Mono, ChildId)>,
    starting: usize,
    live: usize,
    /// The last failure of each child that failed within the window.
    failures: BTreeMap<ChildId, Mono>,
    last: Incarnation,
    mode: Mode,
}

impl Dynamic {
    pub(super) fn new(
        max_concurrent_starts: usize,
        distinct_failures: Intensity,
        panics_to_quarantine: u32,
        children: Vec<ChildSpec>,
        after: Incarnation,
    ) -> Self {
        let mut new = Self {
            max_concurrent_starts: max_concurrent_starts.max(1),
            distinct_failures,
            panics_to_quarantine: panics_to_quarantine.max(1),
            items: BTreeMap::new(),
            due: VecDeque::new(),
            timers: BTreeSet::new(),
            starting: 0,
            live: 0,
            failures: BTreeMap::new(),
            last: after,
            mode: Mode::New,
        };
        for spec in children {
            let id = spec.id.clone();
            assert!(new.insert(spec, Mono::ZERO), "two children of one supervisor have the id {id}");
        }
        new
    }

    pub(super) const fn last_incarnation(&self) -> Incarnation {
        self.last
    }

    pub(super) fn children(&self) -> impl Iterator<Item = &Child> {
        self.items.values().map(|item| &item.child)
    }

    pub(super) fn child(&self, id: &ChildId) -> Option<&Child> {
        self.items.get(id).map(|item| &item.child)
    }

    fn insert(&mut self, spec: ChildSpec, now: Mono) -> bool {
        if self.items.contains_key(&spec.id) {
            return false;
        }
        let id = spec.id.clone();
        let item = Item { child: Child::new(spec, now), timer: None, removing: false };
        self.items.insert(id.clone(), Box::new(item));
        self.due.push_back(id);
        true
    }

    pub(super) fn step(
        &mut self,
        now: Mono,
        input: SupervisorInput,
        rng: &mut Prng,
        effects: &mut Vec<SupervisorEffect>,
    ) {
        match input {
            SupervisorInput::Begin if self.mode == Mode::New => {
                self.mode = Mode::Up;
                effects.push(SupervisorEffect::Ready);
            }
            SupervisorInput::Begin | SupervisorInput::Tick => {}
            SupervisorInput::Started { id, incarnation } => self.started(&id, incarnation, now),
            SupervisorInput::ChildExited { id, incarnation, reason } => {
                if self.child(&id).is_some_and(|child| child.is_present(incarnation)) {
                    self.ended(&id, now, reason, rng, effects);
                }
            }
            SupervisorInput::AddChild(spec) => {
                let id = spec.id.clone();
                let open = matches!(self.mode, Mode::New | Mode::Up);
                if !open || !self.insert(spec, now) {
                    effects.push(SupervisorEffect::Refused(id));
                }
            }
            SupervisorInput::RemoveChild(id) => self.remove(&id, now, effects),
            SupervisorInput::Release(id) => self.release(&id, now),
            SupervisorInput::Shutdown => self.close(None, now, effects),
        }
        self.expire(now, rng, effects);
        self.start_due(now, effects);
        if self.live == 0
            && let Mode::Closing(reason) = &mut self.mode
        {
            effects.push(match reason.take() {
                Some(reason) => SupervisorEffect::Escalate { reason },
                None => SupervisorEffect::Stopped,
            });
            self.mode = Mode::Closed;
        }
    }

    fn set_timer(&mut self, id: &ChildId, at: Option<Mono>) {
        let Some(item) = self.items.get_mut(id) else { return };
        if let Some(old) = std::mem::replace(&mut item.timer, at) {
            self.timers.remove(&(old, id.clone()));
        }
        if let Some(at) = at {
            self.timers.insert((at, id.clone()));
        }
    }

    fn started(&mut self, id: &ChildId, incarnation: Incarnation, now: Mono) {
        let Some(item) = self.items.get_mut(id) else { return };
        if item.child.is_present(incarnation) && matches!(item.child.phase, Phase::Starting { .. }) {
            item.child.started(now);
            self.starting -= 1;
            self.set_timer(id, None);
        }
    }

    fn stop(&mut self, id: &ChildId, now: Mono, effects: &mut Vec<SupervisorEffect>) {
        let Some(item) = self.items.get_mut(id) else { return };
        if matches!(item.child.phase, Phase::Starting { .. }) {
            self.starting -= 1;
        }
        let deadline = item.child.stopping(now);
        effects.push(SupervisorEffect::Stop { id: id.clone(), incarnation: item.child.incarnation, deadline });
        self.set_timer(id, deadline);
    }

    fn remove(&mut self, id: &ChildId, now: Mono, effects: &mut Vec<SupervisorEffect>) {
        let Some(item) = self.items.get_mut(id) else {
            effects.push(SupervisorEffect::Ended { id: id.clone(), reason: ExitReason::Normal });
            return;
        };
        item.removing = true;
        match item.child.phase {
            Phase::Starting { .. } | Phase::Running => self.stop(id, now, effects),
            Phase::Stopping { .. } => {}
            Phase::Down { .. } | Phase::Quarantined | Phase::Done => {
                self.forget(id, ExitReason::Shutdown, effects);
            }
        }
    }

    fn forget(&mut self, id: &ChildId, reason: ExitReason, effects: &mut Vec<SupervisorEffect>) {
        self.set_timer(id, None);
        self.items.remove(id);
        self.failures.remove(id);
        effects.push(SupervisorEffect::Ended { id: id.clone(), reason });
    }

    fn release(&mut self, id: &ChildId, now: Mono) {
        if let Some(item) = self.items.get_mut(id)
            && item.child.phase == Phase::Quarantined
        {
            item.child.released(now);
            self.due.push_back(id.clone());
        }
    }

    fn ended(
        &mut self,
        id: &ChildId,
        now: Mono,
        reason: ExitReason,
        rng: &mut Prng,
        effects: &mut Vec<SupervisorEffect>,
    ) {
        let Some(item) = self.items.get_mut(id) else { return };
        self.live -= 1;
        if matches!(item.child.phase, Phase::Starting { .. }) {
            self.starting -= 1;
        }
        let stopping = matches!(item.child.phase, Phase::Stopping { .. });
        item.child.last_reason = Some(reason.clone());
        if stopping || item.removing || self.mode != Mode::Up || !item.child.spec.restart.is_due(&reason) {
            self.forget(id, reason, effects);
            return;
        }
        let pause = item.child.failed(now, &reason, rng);
        if item.child.panics_at(&reason) >= self.panics_to_quarantine {
            item.child.phase = Phase::Quarantined;
            self.set_timer(id, None);
            effects.push(SupervisorEffect::Quarantined { id: id.clone(), reason: reason.clone() });
        } else {
            item.child.restarts += 1;
            item.child.phase = Phase::Down { not_before: now + pause };
            self.set_timer(id, Some(now + pause));
            effects.push(SupervisorEffect::Restarting { id: id.clone(), reason: reason.clone(), pause });
        }
        self.count_failure(id, now, &reason, effects);
    }

    fn count_failure(&mut self, id: &ChildId, now: Mono, reason: &ExitReason, effects: &mut Vec<SupervisorEffect>) {
        let Intensity { max, window } = self.distinct_failures;
        if !reason.is_abnormal() || self.child(id).is_none_or(|child| child.spec.restart == Restart::Temporary) {
            return;
        }
        self.failures.insert(id.clone(), now);
        self.failures.retain(|_, at| now - *at <= window);
        if self.failures.len() > max {
            let cause = format!("more than {max} distinct children failed within {window:?}; the last: {id}: {reason}");
            self.close(Some(cause), now, effects);
        }
    }

    /// Stops all at once: like children do not depend on each other.
    fn close(&mut self, reason: Option<String>, now: Mono, effects: &mut Vec<SupervisorEffect>) {
        if !matches!(self.mode, Mode::New | Mode::Up) {
            return;
        }
        self.mode = Mode::Closing(reason);
        self.due.clear();
        let ids: Vec<ChildId> = self.items.keys().cloned().collect();
        for id in ids {
            match self.items.get(&id).map(|item| item.child.phase) {
                Some(Phase::Starting { .. } | Phase::Running) => self.stop(&id, now, effects),
                Some(Phase::Stopping { .. }) | None => {}
                Some(Phase::Down { .. } | Phase::Quarantined | Phase::Done) => {
                    self.forget(&id, ExitReason::Shutdown, effects);
                }
            }
        }
    }

    fn expire(&mut self, now: Mono, rng: &mut Prng, effects: &mut Vec<SupervisorEffect>) {
        while let Some((at, id)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            self.set_timer(&id, None);
            let Some(child) = self.child(&id) else { continue };
            let incarnation = child.incarnation;
            let reason = match child.phase {
                Phase::Down { .. } => {
                    self.due.push_back(id);
                    continue;
                }
                Phase::Starting { .. } => {
                    ExitReason::StartFailed { message: "the start deadline passed".into(), site: None }
                }
                _ => ExitReason::Killed,
            };
            effects.push(SupervisorEffect::Abandon { id: id.clone(), incarnation });
            self.ended(&id, now, reason, rng, effects);
        }
    }

    fn start_due(&mut self, now: Mono, effects: &mut Vec<SupervisorEffect>) {
        while self.mode == Mode::Up && self.starting < self.max_concurrent_starts {
            let Some(id) = self.due.pop_front() else { return };
            let Some(item) = self.items.get_mut(&id) else { continue };
            // A child that was removed and added again may stand in the queue twice.
            if !matches!(item.child.phase, Phase::Down { .. }) || item.timer.is_some() {
                continue;
            }
            self.last = self.last.next();
            item.child.starting(now, self.last);
            let deadline = item.child.spec.start_deadline.map(|limit| now + limit);
            self.starting += 1;
            self.live += 1;
            effects.push(SupervisorEffect::Start { id: id.clone(), incarnation: self.last });
            self.set_timer(&id, deadline);
        }
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn check(&self) {
        assert!(self.starting <= self.max_concurrent_starts && self.starting <= self.live, "too many starts at once");
        assert!(self.live <= self.items.len(), "more children live than are known");
        assert!(self.mode != Mode::Closed || self.items.is_empty(), "a supervisor ended before its children");
    }
}
