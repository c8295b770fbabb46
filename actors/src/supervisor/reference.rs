//! Erlang/OTP's supervisor as its manual describes it, written down independently of the machine, for children that start
//! and stop at once. The machine's tests compare every start, stop and verdict with it.

use std::time::Duration;

use crate::child_spec::{Restart, Strategy};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Start(usize),
    Stop(usize),
    GiveUp,
}

#[derive(Clone, Debug)]
struct Kid {
    number: usize,
    restart: Restart,
    alive: bool,
}

#[derive(Debug)]
pub(super) struct Reference {
    strategy: Strategy,
    max: usize,
    window: Duration,
    kids: Vec<Kid>,
    restarts: Vec<Duration>,
    gone: bool,
}

impl Reference {
    pub(super) fn start(strategy: Strategy, max: usize, window: Duration, restarts: &[Restart]) -> (Self, Vec<Action>) {
        let kid = |(number, restart): (usize, &Restart)| Kid { number, restart: *restart, alive: true };
        let kids = restarts.iter().enumerate().map(kid).collect();
        let actions = (0..restarts.len()).map(Action::Start).collect();
        (Self { strategy, max, window, kids, restarts: Vec::new(), gone: false }, actions)
    }

    pub(super) fn alive(&self) -> Vec<usize> {
        self.kids.iter().filter(|kid| kid.alive).map(|kid| kid.number).collect()
    }

    pub(super) const fn is_gone(&self) -> bool {
        self.gone
    }

    /// A child ends by itself.
    pub(super) fn exit(&mut self, now: Duration, number: usize, normal: bool) -> Vec<Action> {
        let Some(at) = self.kids.iter().position(|kid| kid.number == number && kid.alive) else { return vec![] };
        self.kids[at].alive = false;
        match self.kids[at].restart {
            Restart::Temporary => {
                self.kids.remove(at);
                return vec![];
            }
            Restart::Transient if normal => return vec![],
            Restart::Transient | Restart::Permanent => {}
        }
        self.restarts.push(now);
        self.restarts.retain(|then| now - *then <= self.window);
        if self.restarts.len() > self.max {
            self.gone = true;
            let mut actions = self.stop_from(0);
            actions.push(Action::GiveUp);
            return actions;
        }
        let from = match self.strategy {
            Strategy::OneForOne => {
                self.kids[at].alive = true;
                return vec![Action::Start(number)];
            }
            Strategy::OneForAll => 0,
            Strategy::RestForOne => at,
        };
        let mut actions = self.stop_from(from);
        for kid in &mut self.kids[from..] {
            kid.alive = true;
            actions.push(Action::Start(kid.number));
        }
        actions
    }

    pub(super) fn shutdown(&mut self) -> Vec<Action> {
        self.gone = true;
        self.stop_from(0)
    }

    /// Stops in reverse order; a temporary child that is stopped is forgotten.
    fn stop_from(&mut self, from: usize) -> Vec<Action> {
        let mut actions = Vec::new();
        for kid in self.kids[from..].iter_mut().rev() {
            if std::mem::replace(&mut kid.alive, false) {
                actions.push(Action::Stop(kid.number));
                if kid.restart == Restart::Temporary {
                    kid.number = usize::MAX;
                }
            }
        }
        self.kids.retain(|kid| kid.number != usize::MAX);
        actions
    }
}
