//! Preferred leaders that lead again by themselves: what a failure has moved comes back (`auto.leader.rebalance.enable`).
//! Invariant: a leader is moved only to a replica that is in sync, and only so many at a time that an entry of the log stays small.

use std::time::Duration;

use madang_actors::clock::Mono;
use madang_actors::prng::Prng;
use madang_protocol::types::TopicPartition;

use super::{Controller, ControllerEffect, Decision, Proposal, decide};
use crate::configs::BrokerConfig;
use crate::metadata::{MetadataImage, NO_LEADER, PartitionImage};

/// The most leaders that one look moves, as in Kafka; the next look comes at once if there may be more.
const AT_ONCE: usize = 1000;

/// When the elected controller looks next.
#[derive(Debug)]
pub(super) struct Balance {
    /// Time between two looks; none to leave leaders where they are.
    interval: Option<Duration>,
    next: Option<Mono>,
}

impl Balance {
    pub(super) fn new(config: &BrokerConfig) -> Self {
        let interval = config.auto_leader_rebalance.then_some(config.leader_imbalance_check_interval);
        Self { interval, next: None }
    }

    /// When the next look is due, if this voter leads by then.
    pub(super) const fn deadline(&self) -> Option<Mono> {
        self.next
    }

    /// Whether a look is due. A leadership begins with a whole interval, and one broker alone has nothing to balance.
    fn is_due(&mut self, now: Mono, leads: bool, brokers: usize) -> bool {
        let Some(interval) = self.interval.filter(|_| leads && brokers > 1) else {
            self.next = None;
            return false;
        };
        let at = *self.next.get_or_insert(now + interval);
        if at > now {
            return false;
        }
        self.next = Some(now + interval);
        true
    }
}

impl Controller {
    pub(super) fn balance_leaders(
        &mut self,
        now: Mono,
        rng: &mut Prng,
        effects: &mut Vec<ControllerEffect>,
    ) -> Result<(), String> {
        let leads = self.quorum.is_leader();
        if !self.balance.is_due(now, leads, self.image.brokers().count()) {
            return Ok(());
        }
        let pending = self.pending_image()?;
        let moved: Vec<TopicPartition> = movable(&pending).take(AT_ONCE).collect();
        if moved.is_empty() {
            return Ok(());
        }
        if moved.len() == AT_ONCE {
            self.balance.next = Some(now);
        }
        tracing::info!(partitions = moved.len(), "preferred leaders are made to lead");
        let Decision { records, image, .. } =
            decide(&pending, &self.defaults, rng, Proposal::ElectPreferredLeaders(moved));
        // Refused only when the leadership has just ended; the next leader looks too.
        drop(self.append(&records, image));
        self.settle(rng, effects)
    }
}

/// The partitions that their preferred leader could lead and does not.
fn movable(image: &MetadataImage) -> impl Iterator<Item = TopicPartition> + '_ {
    image.topics().flat_map(move |topic| {
        let topic_id = topic.topic_id;
        let movable = topic.partitions.iter().filter(move |(_, state)| is_movable(image, state));
        movable.map(move |(partition, _)| TopicPartition { topic_id, partition: *partition })
    })
}

fn is_movable(image: &MetadataImage, state: &PartitionImage) -> bool {
    let Some(preferred) = state.assigned_replicas.first() else { return false };
    let live = image.broker(*preferred).is_some_and(|broker| !broker.fenced);
    // Where nobody leads an election waits for a node, not for an order.
    state.leader != NO_LEADER && state.leader != *preferred && live && state.in_sync_replicas.contains(preferred)
}

#[cfg(test)]
mod tests {
    use madang_protocol::types::{NodeId, Uuid};

    use super::super::{NewTopic, RegisterBroker};
    use super::*;

    #[test]
    fn a_look_is_due_after_every_interval_of_a_leadership_over_several_brokers() {
        let second = Duration::from_secs(1);
        let at = |seconds: u32| Mono::ZERO + second * seconds;
        let mut balance = Balance { interval: Some(10 * second), next: None };
        assert!(!balance.is_due(at(5), true, 1));
        assert_eq!(balance.deadline(), None, "one broker alone");
        assert!(!balance.is_due(at(5), true, 3));
        assert_eq!(balance.deadline(), Some(at(15)));
        assert!(!balance.is_due(at(14), true, 3) && balance.is_due(at(15), true, 3));
        assert_eq!(balance.deadline(), Some(at(25)));
        assert!(!balance.is_due(at(30), false, 3));
        assert_eq!(balance.deadline(), None, "the next leadership begins anew");
        let mut never = Balance::new(
            &BrokerConfig::parse([("auto.leader.rebalance.enable".to_owned(), "false".to_owned())]).unwrap().0,
        );
        assert!(!never.is_due(at(9999), true, 3));
    }

    #[test]
    fn a_leader_moves_only_to_a_preferred_one_that_is_in_sync_and_only_where_somebody_leads() {
        let (config, mut rng, mut image) = (BrokerConfig::default(), Prng::new(1), MetadataImage::default());
        let mut ask = |image: &mut MetadataImage, proposal| {
            let decision = decide(image, &config, &mut rng, proposal);
            *image = decision.image;
            decision.result.expect("decided")
        };
        for node in [1, 2] {
            let broker = RegisterBroker {
                node_id: NodeId(node),
                incarnation_id: Uuid([9; 16]),
                endpoints: Vec::new(),
                rack: None,
                log_dirs: Vec::new(),
                starts: Vec::new(),
            };
            ask(&mut image, Proposal::RegisterBroker(broker));
            let broker_epoch = image.broker(NodeId(node)).unwrap().broker_epoch;
            ask(&mut image, Proposal::UnfenceBroker { node_id: NodeId(node), broker_epoch });
        }
        let assignments = vec![(0, vec![NodeId(1), NodeId(2)]), (1, vec![NodeId(2), NodeId(1)])];
        let (name, partitions, replication_factor, configs) = ("a".to_owned(), -1, -1, Vec::new());
        let topic = NewTopic { name, partitions, replication_factor, assignments, configs };
        ask(&mut image, Proposal::CreateTopics { topics: vec![topic], validate_only: false });
        let state = |leader: i32, in_sync: &[i32]| {
            let mut state = (**image.partition("a", 0).unwrap()).clone();
            (state.leader, state.in_sync_replicas) = (NodeId(leader), in_sync.iter().copied().map(NodeId).collect());
            is_movable(&image, &state)
        };
        assert_eq!(movable(&image).count(), 0, "all as it should be");
        assert!(state(2, &[1, 2]));
        assert!(!state(2, &[2]), "not in sync");
        assert!(!state(-1, &[1, 2]), "nobody leads");
        let broker_epoch = image.broker(NodeId(1)).unwrap().broker_epoch;
        let mut fenced = image.clone();
        ask(&mut fenced, Proposal::FenceBroker { node_id: NodeId(1), broker_epoch });
        assert_eq!(movable(&fenced).count(), 0, "1 is not alive");
    }
}
