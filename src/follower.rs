//! Applies committed metadata on this node: starts, changes and ends replicas and group shards.
//! Invariant: metadata is applied in the order of the log. Of a node alone an answer leaves only after what was committed before it was applied; where
//! there are others, whoever asked waits for that, and nobody waits for what the controller's own node is slow at.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use madang_actors::actor_ref::ActorRef;
use madang_actors::host::{Behavior, ShellContext};
use madang_actors::mailbox::Capacity;
use madang_actors::messages;
use madang_actors::reply::Reply;
use madang_cluster::controller::actor::MetadataSink;
use madang_cluster::controller::{ApiResult, Outcome};
use madang_cluster::metadata::{MetadataDelta, MetadataImage};
use madang_protocol::types::NodeId;

use crate::applier::Applier;
use crate::peers::Peers;

messages! {
    /// What the follower's actor is sent.
    #[derive(Debug)]
    pub enum FollowerMessage {
        control {
            /// Something was put into the feed, or the last application has ended.
            Look,
        }
        data {}
    }
}

/// What the process exits with when the disk under the metadata log has failed.
pub const EXIT_METADATA: i32 = 72;

/// One step of the log, or an answer that waits for the steps before it.
#[derive(Debug)]
enum Step {
    Apply { image: Arc<MetadataImage>, delta: Arc<MetadataDelta> },
    Answer { reply: Reply<ApiResult<Outcome>>, result: Box<ApiResult<Outcome>> },
}

/// Steps that wait before what follows is applied together.
const MOST_STEPS: usize = 256;

/// What is committed and not yet applied. Where answers wait in it, it is bounded by the controller's mailbox: each proposal adds at most two steps.
#[derive(Debug)]
pub struct Feed {
    steps: Mutex<VecDeque<Step>>,
    follower: ActorRef<FollowerMessage>,
    peers: Option<Arc<Peers>>,
}

impl Feed {
    /// Nothing yet. The peers are told who leads.
    #[must_use]
    pub fn new(peers: Option<Arc<Peers>>) -> Self {
        Self { steps: Mutex::default(), follower: ActorRef::new("follower", Capacity::default()), peers }
    }

    /// The actor that takes the steps.
    #[must_use]
    pub const fn follower(&self) -> &ActorRef<FollowerMessage> {
        &self.follower
    }

    fn steps(&self) -> MutexGuard<'_, VecDeque<Step>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, step: Step) {
        add(&mut self.steps(), step);
        // A full lane holds a `Look` already; a follower that is down looks when it starts.
        drop(self.follower.try_send(FollowerMessage::Look));
    }
}

fn add(steps: &mut VecDeque<Step>, step: Step) {
    let is_full = steps.len() >= MOST_STEPS;
    match (steps.back_mut().filter(|_| is_full), step) {
        (Some(Step::Apply { image, delta }), Step::Apply { image: later, delta: change }) => {
            *image = later;
            Arc::make_mut(delta).extend(&change);
        }
        (_, step) => steps.push_back(step),
    }
}

impl MetadataSink for Feed {
    fn publish(&self, image: Arc<MetadataImage>, delta: Arc<MetadataDelta>) {
        if let Some(peers) = &self.peers {
            peers.committed(image.version());
        }
        self.push(Step::Apply { image, delta });
    }

    /// A lone voter leads as soon as it has started, and tells nobody.
    fn leader(&self, leader: Option<NodeId>) {
        if let Some(peers) = &self.peers {
            tracing::info!(leader = leader.map(|node| node.0), "the metadata quorum is led");
            peers.led_by(leader);
        }
    }

    fn voters(&self, voters: Vec<NodeId>) {
        if let Some(peers) = &self.peers {
            tracing::info!(voters = ?voters.iter().map(|node| node.0).collect::<Vec<_>>(), "who votes on the metadata");
            peers.voted_by(voters);
        }
    }

    fn answer(&self, reply: Reply<ApiResult<Outcome>>, result: ApiResult<Outcome>) {
        if self.peers.is_some() {
            return reply.send(result);
        }
        self.push(Step::Answer { reply, result: Box::new(result) });
    }

    fn failed(&self, why: &str) {
        tracing::error!(why, "the metadata log has failed; the process ends");
        std::process::exit(EXIT_METADATA);
    }
}

/// The follower as an actor on the metadata arbiter.
pub struct Follower {
    feed: Arc<Feed>,
    applier: Arc<Applier>,
    /// Whether a step is being applied; its end brings a `Look`.
    busy: Rc<Cell<bool>>,
}

impl Follower {
    /// A follower that takes what is in the feed.
    #[must_use]
    pub fn new(feed: Arc<Feed>, applier: Arc<Applier>, context: &mut ShellContext<FollowerMessage>) -> Self {
        let follower = Self { feed, applier, busy: Rc::default() };
        follower.look(context);
        follower
    }

    /// Takes steps until one has to be waited for.
    fn look(&self, context: &mut ShellContext<FollowerMessage>) {
        if self.busy.replace(true) {
            return;
        }
        let busy = Rc::clone(&self.busy);
        let (feed, applier) = (Arc::clone(&self.feed), Arc::clone(&self.applier));
        context.spawn(async move {
            loop {
                let next = feed.steps().pop_front();
                match next {
                    Some(Step::Apply { image, delta }) => applier.apply(image, &delta).await,
                    Some(Step::Answer { reply, result }) => reply.send(*result),
                    None => break,
                }
            }
            busy.set(false);
            // What came between the last look and the line above.
            if !feed.steps().is_empty() {
                drop(feed.follower.try_send(FollowerMessage::Look));
            }
        });
    }
}

impl Behavior for Follower {
    type Message = FollowerMessage;

    fn handle(&mut self, message: FollowerMessage, context: &mut ShellContext<FollowerMessage>) {
        match message {
            FollowerMessage::Look => self.look(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_slowly_is_applied_together() {
        let step = |version: u64| {
            let delta = MetadataDelta { from_version: version, to_version: version + 1, ..MetadataDelta::default() };
            Step::Apply { image: Arc::default(), delta: Arc::new(delta) }
        };
        let mut steps = VecDeque::new();
        (0..5000).for_each(|version| add(&mut steps, step(version)));
        assert_eq!(steps.len(), MOST_STEPS);
        let mut next = 0;
        for step in steps {
            let Step::Apply { delta, .. } = step else { panic!("an answer that nobody gave") };
            assert_eq!(delta.from_version, next);
            next = delta.to_version;
        }
        assert_eq!(next, 5000);
    }
}
