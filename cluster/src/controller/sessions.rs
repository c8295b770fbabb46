//! Which brokers the elected controller hears of.
//! Invariant: a broker is fenced for its silence only in the registration it was silent in, and never before a whole session has passed in
//! this leadership.

use std::collections::BTreeMap;
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_protocol::ErrorCode;
use madang_protocol::types::NodeId;

use super::api::{ApiResult, Outcome};
use crate::metadata::MetadataImage;

/// A registration, and when it was last heard of.
#[derive(Clone, Copy, Debug)]
struct Session {
    broker_epoch: i64,
    heard: Mono,
}

/// The sessions of one leadership.
#[derive(Debug)]
pub(super) struct Sessions {
    own: NodeId,
    timeout: Duration,
    sessions: BTreeMap<NodeId, Session>,
}

impl Sessions {
    /// `own` is the controller's node, whose broker lives as long as it does; `timeout` is `broker.session.timeout.ms`.
    pub(super) const fn new(own: NodeId, timeout: Duration) -> Self {
        Self { own, timeout, sessions: BTreeMap::new() }
    }

    /// A leadership begins, or has ended.
    pub(super) fn clear(&mut self) {
        self.sessions.clear();
    }

    /// Keeps a session for each broker that is not fenced. One that was not known until now begins a whole one.
    pub(super) fn follow(&mut self, now: Mono, image: &MetadataImage) {
        let live =
            |node: &NodeId| image.broker(*node).filter(|broker| !broker.fenced).map(|broker| broker.broker_epoch);
        self.sessions.retain(|node, session| live(node) == Some(session.broker_epoch));
        for broker in image.brokers().filter(|broker| !broker.fenced && broker.node_id != self.own) {
            let new = Session { broker_epoch: broker.broker_epoch, heard: now };
            self.sessions.entry(broker.node_id).or_insert(new);
        }
    }

    /// A heartbeat of the broker. Answers whether it is fenced.
    ///
    /// # Errors
    /// The broker is unknown, or the registration is not its present one. `NOT_CONTROLLER` for one that `image` does not have yet: a majority without
    /// this node may have committed it, and a broker that was told that it is unknown would end its process.
    pub(super) fn heard(
        &mut self,
        now: Mono,
        image: &MetadataImage,
        node_id: NodeId,
        broker_epoch: i64,
    ) -> ApiResult<Outcome> {
        if broker_epoch >= image.next_broker_epoch {
            return Err(ErrorCode::NotController.into());
        }
        let broker = image.broker(node_id).ok_or(ErrorCode::BrokerIdNotRegistered)?;
        if broker.broker_epoch != broker_epoch {
            return Err(ErrorCode::StaleBrokerEpoch.into());
        }
        if let Some(session) = self.sessions.get_mut(&node_id) {
            session.heard = now;
        }
        Ok(Outcome::Fenced(broker.fenced))
    }

    /// When the next session ends, if nothing is heard.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.sessions.values().map(|session| session.heard + self.timeout).min()
    }

    /// Takes the sessions that have ended.
    pub(super) fn expire(&mut self, now: Mono) -> Vec<(NodeId, i64)> {
        let timeout = self.timeout;
        let ended = |session: &Session| session.heard + timeout <= now;
        let expired = self.sessions.iter().filter(|(_, session)| ended(session));
        let expired: Vec<_> = expired.map(|(node, session)| (*node, session.broker_epoch)).collect();
        self.sessions.retain(|_, session| !ended(session));
        expired
    }
}

#[cfg(test)]
mod tests {
    use madang_actors::prng::Prng;
    use madang_protocol::types::Uuid;

    use super::*;
    use crate::configs::BrokerConfig;
    use crate::controller::{Proposal, RegisterBroker, decide};

    const OWN: NodeId = NodeId(1);
    const OTHER: NodeId = NodeId(2);

    /// Both brokers, registered and serving, and the other one's registration.
    fn image() -> (MetadataImage, i64) {
        let (mut image, mut rng, mut epoch) = (MetadataImage::default(), Prng::new(1), 0);
        for node_id in [OWN, OTHER] {
            let broker = RegisterBroker {
                node_id,
                incarnation_id: Uuid([7; 16]),
                endpoints: Vec::new(),
                rack: None,
                log_dirs: Vec::new(),
                starts: Vec::new(),
            };
            let decision = decide(&image, &BrokerConfig::default(), &mut rng, Proposal::RegisterBroker(broker));
            let Ok(Outcome::Registered(broker_epoch)) = decision.result else { panic!("{:?}", decision.result) };
            let serves = Proposal::UnfenceBroker { node_id, broker_epoch };
            image = decide(&decision.image, &BrokerConfig::default(), &mut rng, serves).image;
            epoch = broker_epoch;
        }
        (image, epoch)
    }

    #[test]
    fn a_silent_broker_is_fenced_after_a_whole_session_and_the_leaders_own_never() {
        let (second, (image, epoch)) = (Duration::from_secs(1), image());
        let mut sessions = Sessions::new(OWN, 3 * second);
        let begun = Mono::ZERO + 10 * second;
        sessions.follow(begun, &image);
        assert_eq!(sessions.deadline(), Some(begun + 3 * second));
        assert_eq!(sessions.heard(begun + 2 * second, &image, OTHER, epoch), Ok(Outcome::Fenced(false)));
        sessions.follow(begun + 2 * second, &image);
        assert_eq!(sessions.expire(begun + 4 * second), []);
        assert_eq!(sessions.expire(begun + 5 * second), [(OTHER, epoch)]);
        assert_eq!(sessions.expire(begun + 50 * second), [], "told once");
    }

    #[test]
    fn a_heartbeat_of_an_older_registration_counts_for_nothing() {
        let (image, epoch) = image();
        let mut sessions = Sessions::new(OWN, Duration::from_secs(3));
        sessions.follow(Mono::ZERO, &image);
        let late = Mono::ZERO + Duration::from_secs(2);
        assert_eq!(sessions.heard(late, &image, OTHER, epoch - 1), Err(ErrorCode::StaleBrokerEpoch.into()));
        assert_eq!(sessions.heard(late, &image, NodeId(9), epoch), Err(ErrorCode::BrokerIdNotRegistered.into()));
        for node in [OTHER, NodeId(9)] {
            let newer = sessions.heard(late, &image, node, epoch + 1);
            assert_eq!(newer, Err(ErrorCode::NotController.into()), "committed, and not applied here yet");
        }
        assert_eq!(sessions.deadline(), Some(Mono::ZERO + Duration::from_secs(3)));
    }
}
