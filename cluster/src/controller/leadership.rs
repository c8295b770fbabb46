//! What a leadership of the quorum means for brokers: they are heard of by the leader, and fenced when they are not.
//! Invariant: only the leader fences, and a fence is an entry of the log like any other change.

use std::collections::VecDeque;
use std::mem;

use madang_actors::clock::Mono;
use madang_actors::prng::Prng;
use madang_protocol::ErrorCode;
use madang_protocol::types::NodeId;

use super::sessions::Sessions;
use super::{Controller, ControllerEffect, Decision, Proposal, decide};
use crate::request::RequestId;

/// Heartbeats that may wait for a majority; each broker sends its next one once it has given up the last.
const MOST_BEATS: usize = 4096;

/// Heartbeats that wait until a majority of the voters has said that this is still the leader: a broker that is told that it may serve by a leader which
/// is one no more would serve beside whoever was elected in its place.
#[derive(Debug, Default)]
pub(super) struct Beats {
    /// The number of the last question.
    asked: u64,
    /// The newest one that was answered.
    confirmed: u64,
    waiting: VecDeque<Beat>,
}

#[derive(Clone, Copy, Debug)]
struct Beat {
    /// The question that it waits for: one that was asked after it came.
    question: u64,
    request: RequestId,
    node_id: NodeId,
    broker_epoch: i64,
}

impl Controller {
    pub(super) fn heartbeat(
        &mut self,
        now: Mono,
        request: RequestId,
        (node_id, broker_epoch): (NodeId, i64),
        effects: &mut Vec<ControllerEffect>,
    ) {
        let refused = self.beats.waiting.len() >= MOST_BEATS || !self.quorum.is_leader();
        if refused || self.quorum.is_lone() {
            let not_controller = Err(ErrorCode::NotController.into());
            let heard = |sessions: &mut Sessions| sessions.heard(now, &self.image, node_id, broker_epoch);
            let result = if refused { not_controller } else { heard(&mut self.sessions) };
            return effects.push(ControllerEffect::Reply { request, result });
        }
        let beats = &mut self.beats;
        let question = beats.asked + 1;
        beats.waiting.push_back(Beat { question, request, node_id, broker_epoch });
        if beats.asked == beats.confirmed {
            beats.asked = question;
            self.quorum.confirm(question);
        }
    }

    /// Answers what a majority has confirmed, and asks for what has come since. A question that Raft was not ready for is asked again with each tick.
    pub(super) fn answer_heartbeats(&mut self, now: Mono, ticked: bool, effects: &mut Vec<ControllerEffect>) {
        let confirmed = self.quorum.take_confirmed();
        if !self.quorum.is_leader() {
            return self.refuse_heartbeats(effects);
        }
        let beats = &mut self.beats;
        beats.confirmed = beats.confirmed.max(confirmed.unwrap_or_default());
        let is_answered = |beat: &mut Beat| beat.question <= beats.confirmed;
        while let Some(beat) = beats.waiting.pop_front_if(is_answered) {
            let result = self.sessions.heard(now, &self.image, beat.node_id, beat.broker_epoch);
            effects.push(ControllerEffect::Reply { request: beat.request, result });
        }
        let Some(oldest) = beats.waiting.front() else { return };
        if beats.asked == beats.confirmed || ticked {
            beats.asked = beats.asked.max(oldest.question);
            self.quorum.confirm(beats.asked);
        }
    }

    /// Whoever leads now is to be told.
    pub(super) fn refuse_heartbeats(&mut self, effects: &mut Vec<ControllerEffect>) {
        self.beats.confirmed = self.beats.asked;
        for beat in self.beats.waiting.drain(..) {
            effects
                .push(ControllerEffect::Reply { request: beat.request, result: Err(ErrorCode::NotController.into()) });
        }
    }

    /// Tells who leads. Who wins without a hand-over fences its predecessor's broker: whatever ended the leadership may have ended the node.
    pub(super) fn follow_leadership(
        &mut self,
        now: Mono,
        rng: &mut Prng,
        effects: &mut Vec<ControllerEffect>,
    ) -> Result<(), String> {
        let leader = self.quorum.leader();
        if mem::replace(&mut self.leader, leader) == leader {
            return Ok(());
        }
        effects.push(ControllerEffect::Leader(leader));
        self.sessions.clear();
        let own = leader == Some(self.node_id);
        let before = if own { self.predecessor.take() } else { None };
        self.predecessor = leader.filter(|_| !own).or(self.predecessor);
        if own {
            self.sessions.follow(now, &self.image);
        }
        let dead = before.and_then(|node_id| self.image.broker(node_id)).filter(|broker| !broker.fenced);
        match dead.map(|broker| (broker.node_id, broker.broker_epoch)) {
            Some((node_id, broker_epoch)) => self.fence(node_id, broker_epoch, rng, effects),
            None => Ok(()),
        }
    }

    /// Fences who was not heard of for a session. A lone voter's own broker has none: it lives and dies with it.
    pub(super) fn tend_sessions(
        &mut self,
        now: Mono,
        rng: &mut Prng,
        effects: &mut Vec<ControllerEffect>,
    ) -> Result<(), String> {
        if !self.quorum.is_leader() {
            return Ok(());
        }
        for (node_id, broker_epoch) in self.sessions.expire(now) {
            tracing::warn!(%node_id, broker_epoch, "a broker is fenced: nothing was heard of it for a session");
            self.fence(node_id, broker_epoch, rng, effects)?;
        }
        self.sessions.follow(now, &self.image);
        Ok(())
    }

    fn fence(
        &mut self,
        node_id: NodeId,
        broker_epoch: i64,
        rng: &mut Prng,
        effects: &mut Vec<ControllerEffect>,
    ) -> Result<(), String> {
        let pending = self.pending_image()?;
        let proposal = Proposal::FenceBroker { node_id, broker_epoch };
        let Decision { records, image, .. } = decide(&pending, &self.defaults, rng, proposal);
        // Refused only when the leadership has just ended; the next leader has sessions of its own.
        drop(self.append(&records, image));
        self.settle(rng, effects)
    }
}
