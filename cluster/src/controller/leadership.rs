//! What a leadership of the quorum means for brokers: they are heard of by the leader, and fenced when they are not.
//! Invariant: only the leader fences, and a fence is an entry of the log like any other change.

use std::mem;

use madang_actors::clock::Mono;
use madang_actors::prng::Prng;
use madang_protocol::ErrorCode;
use madang_protocol::types::NodeId;

use super::{ApiResult, Controller, ControllerEffect, Decision, Outcome, Proposal, decide};

impl Controller {
    pub(super) fn heartbeat(&mut self, now: Mono, node_id: NodeId, broker_epoch: i64) -> ApiResult<Outcome> {
        if !self.quorum.is_leader() {
            return Err(ErrorCode::NotController.into());
        }
        self.sessions.heard(now, &self.image, node_id, broker_epoch)
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
