//! A supervisor of children known in advance: OTP's three strategies, one start or stop at a time.
//! Invariant: starts go in the order of the list, stops in reverse; no start while a stop is pending.

use std::collections::{BTreeSet, VecDeque};

use crate::child_spec::{ChildId, ChildSpec, ExitReason, Incarnation, Intensity, Restart, Strategy};
use crate::clock::Mono;
use crate::prng::Prng;

use super::child::{Child, Phase};
use super::{SupervisorEffect, SupervisorInput};

#[derive(Debug, PartialEq, Eq)]
enum Mode {
    New,
    Up,
    /// Stopping all; with a reason, to escalate it.
    Closing(Option<String>),
    Closed,
}

#[derive(Debug)]
struct Entry {
    child: Child,
    /// It has to stop because a sibling restarts, and to start again not before this.
    stop_until: Option<Mono>,
}

#[derive(Debug)]
pub(super) struct Fixed {
    strategy: Strategy,
    intensity: Intensity,
    entries: Vec<Entry>,
    /// When restarts happened, within the window, oldest first.
    restarts: VecDeque<Mono>,
    last: Incarnation,
    mode: Mode,
    ready: bool,
}

impl Fixed {
    pub(super) fn new(strategy: Strategy, intensity: Intensity, children: Vec<ChildSpec>, after: Incarnation) -> Self {
        let ids: BTreeSet<&ChildId> = children.iter().map(|spec| &spec.id).collect();
        assert_eq!(ids.len(), children.len(), "two children of one supervisor have the same id");
        let entries =
            children.into_iter().map(|spec| Entry { child: Child::new(spec, Mono::ZERO), stop_until: None }).collect();
        Self { strategy, intensity, entries, restarts: VecDeque::new(), last: after, mode: Mode::New, ready: false }
    }

    pub(super) const fn last_incarnation(&self) -> Incarnation {
        self.last
    }

    pub(super) fn children(&self) -> impl Iterator<Item = &Child> {
        self.entries.iter().map(|entry| &entry.child)
    }

    pub(super) fn step(
        &mut self,
        now: Mono,
        input: SupervisorInput,
        rng: &mut Prng,
        effects: &mut Vec<SupervisorEffect>,
    ) {
        match input {
            SupervisorInput::Begin if self.mode == Mode::New => self.mode = Mode::Up,
            SupervisorInput::Begin | SupervisorInput::Tick => {}
            SupervisorInput::Started { id, incarnation } => {
                if let Some(index) = self.present(&id, incarnation) {
                    self.entries[index].child.started(now);
                }
            }
            SupervisorInput::ChildExited { id, incarnation, reason } => {
                if let Some(index) = self.present(&id, incarnation) {
                    self.ended(index, now, reason, rng, effects);
                }
            }
            SupervisorInput::AddChild(spec) => effects.push(SupervisorEffect::Refused(spec.id)),
            SupervisorInput::RemoveChild(id) => effects.push(SupervisorEffect::Refused(id)),
            SupervisorInput::Release(_) => {} // None is ever set aside.
            SupervisorInput::Shutdown => {
                if matches!(self.mode, Mode::New | Mode::Up) {
                    self.mode = Mode::Closing(None);
                }
            }
        }
        self.expire(now, rng, effects);
        self.advance(now, effects);
    }

    fn present(&self, id: &ChildId, incarnation: Incarnation) -> Option<usize> {
        self.entries.iter().position(|entry| entry.child.spec.id == *id && entry.child.is_present(incarnation))
    }

    fn expire(&mut self, now: Mono, rng: &mut Prng, effects: &mut Vec<SupervisorEffect>) {
        for index in 0..self.entries.len() {
            let child = &self.entries[index].child;
            let reason = match child.phase {
                Phase::Starting { deadline: Some(deadline) } if deadline <= now => {
                    ExitReason::StartFailed { message: "the start deadline passed".into(), site: None }
                }
                Phase::Stopping { deadline: Some(deadline) } if deadline <= now => ExitReason::Killed,
                _ => continue,
            };
            let (id, incarnation) = (child.spec.id.clone(), child.incarnation);
            effects.push(SupervisorEffect::Abandon { id, incarnation });
            self.ended(index, now, reason, rng, effects);
        }
    }

    fn ended(
        &mut self,
        index: usize,
        now: Mono,
        reason: ExitReason,
        rng: &mut Prng,
        effects: &mut Vec<SupervisorEffect>,
    ) {
        let closing = self.mode != Mode::Up;
        let Entry { child, stop_until } = &mut self.entries[index];
        child.last_reason = Some(reason.clone());
        let taken_along = stop_until.take();
        let stopping = matches!(child.phase, Phase::Stopping { .. });
        let temporary = child.spec.restart == Restart::Temporary;
        if let Some(not_before) = taken_along
            && !closing
            && !temporary
        {
            // It was due to stop for a sibling's sake, and so it has, whatever it died of.
            child.phase = Phase::Down { not_before };
            return;
        }
        if closing || stopping || taken_along.is_some() || !child.spec.restart.is_due(&reason) {
            child.phase = Phase::Done;
            effects.push(SupervisorEffect::Ended { id: child.spec.id.clone(), reason });
            return;
        }
        let pause = child.failed(now, &reason, rng);
        child.restarts += 1;
        child.phase = Phase::Down { not_before: now + pause };
        let id = child.spec.id.clone();
        if self.exceeds_intensity(now) {
            let max = self.intensity.max;
            let cause =
                format!("more than {max} restarts within {:?}; the last: {id}: {reason}", self.intensity.window);
            self.mode = Mode::Closing(Some(cause));
            return;
        }
        effects.push(SupervisorEffect::Restarting { id, reason, pause });
        self.take_along(index, now + pause);
    }

    /// Counts one restart and says whether it is one too many.
    fn exceeds_intensity(&mut self, now: Mono) -> bool {
        self.restarts.push_back(now);
        while self.restarts.front().is_some_and(|at| now - *at > self.intensity.window) {
            self.restarts.pop_front();
        }
        self.restarts.len() > self.intensity.max
    }

    /// Marks the siblings that share the fate of the child at `failed`.
    fn take_along(&mut self, failed: usize, not_before: Mono) {
        let first = match self.strategy {
            Strategy::OneForOne => return,
            Strategy::OneForAll => 0,
            Strategy::RestForOne => failed + 1,
        };
        for (index, entry) in self.entries.iter_mut().enumerate().skip(first) {
            if index == failed {
                continue;
            }
            match entry.child.phase {
                Phase::Starting { .. } | Phase::Running | Phase::Stopping { .. } => {
                    entry.stop_until = Some(not_before);
                }
                Phase::Down { not_before: own } => {
                    entry.child.phase = Phase::Down { not_before: own.max(not_before) };
                }
                Phase::Done if entry.child.spec.restart != Restart::Temporary => {
                    entry.child.phase = Phase::Down { not_before };
                }
                Phase::Done | Phase::Quarantined => {}
            }
        }
    }

    /// Does whatever can be done now: one stop, else starts, else the end.
    fn advance(&mut self, now: Mono, effects: &mut Vec<SupervisorEffect>) {
        if matches!(self.mode, Mode::New | Mode::Closed)
            || self.entries.iter().any(|entry| matches!(entry.child.phase, Phase::Stopping { .. }))
        {
            return;
        }
        let closing = matches!(self.mode, Mode::Closing(_));
        let due = |entry: &&mut Entry| entry.child.is_live() && (closing || entry.stop_until.is_some());
        if let Some(entry) = self.entries.iter_mut().rev().find(due) {
            let deadline = entry.child.stopping(now);
            let (id, incarnation) = (entry.child.spec.id.clone(), entry.child.incarnation);
            effects.push(SupervisorEffect::Stop { id, incarnation, deadline });
            return;
        }
        if let Mode::Closing(reason) = &mut self.mode {
            effects.push(match reason.take() {
                Some(reason) => SupervisorEffect::Escalate { reason },
                None => SupervisorEffect::Stopped,
            });
            self.mode = Mode::Closed;
            return;
        }
        self.start_due(now, effects);
        if !self.ready && self.is_ready() {
            self.ready = true;
            effects.push(SupervisorEffect::Ready);
            self.start_due(now, effects);
        }
    }

    /// Whether a start must wait for another to finish. Once up, children that fail alone also start alone.
    fn starts_wait(&self) -> bool {
        let one_at_a_time = !self.ready || self.strategy != Strategy::OneForOne;
        one_at_a_time && self.entries.iter().any(|entry| matches!(entry.child.phase, Phase::Starting { .. }))
    }

    fn start_due(&mut self, now: Mono, effects: &mut Vec<SupervisorEffect>) {
        for index in 0..self.entries.len() {
            let Phase::Down { not_before } = self.entries[index].child.phase else { continue };
            if self.starts_wait() {
                return;
            }
            if not_before > now {
                if self.strategy == Strategy::OneForOne {
                    continue;
                }
                return; // Those behind it depend on it.
            }
            self.last = self.last.next();
            let child = &mut self.entries[index].child;
            child.starting(now, self.last);
            effects.push(SupervisorEffect::Start { id: child.spec.id.clone(), incarnation: self.last });
        }
    }

    fn is_ready(&self) -> bool {
        self.children().all(|child| match child.phase {
            Phase::Running | Phase::Done => true,
            Phase::Down { .. } => self.strategy == Strategy::OneForOne && child.incarnation > Incarnation::default(),
            Phase::Starting { .. } | Phase::Stopping { .. } | Phase::Quarantined => false,
        })
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        let live = self.children().filter_map(|child| match child.phase {
            Phase::Starting { deadline } | Phase::Stopping { deadline } => deadline,
            _ => None,
        });
        let stops = self
            .entries
            .iter()
            .any(|entry| entry.stop_until.is_some() || matches!(entry.child.phase, Phase::Stopping { .. }));
        let may_start = self.mode == Mode::Up && !stops && !self.starts_wait();
        let mut pauses = self.children().filter_map(|child| match child.phase {
            Phase::Down { not_before } => Some(not_before),
            _ => None,
        });
        let next_start = match (may_start, self.strategy) {
            (false, _) => None,
            (true, Strategy::OneForOne) => pauses.min(),
            (true, _) => pauses.next(),
        };
        live.chain(next_start).min()
    }

    pub(super) fn check(&self) {
        assert!(
            self.mode != Mode::Closed || self.children().all(|child| !child.is_live()),
            "a supervisor ended before its children"
        );
        let stopping = self.children().filter(|child| matches!(child.phase, Phase::Stopping { .. })).count();
        assert!(stopping <= 1, "{stopping} children stop at once");
    }
}
