//! Replicas that this process cannot serve, told to the controller, so that others lead.
//! Invariant: only what several nodes hold is given up; a sole replica answers for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_actors::host::clock;
use madang_actors::mailbox::ActorState;
use madang_cluster::controller::Proposal;
use madang_cluster::metadata::{MetadataImage, PartitionImage, ReportedLoss};
use madang_protocol::types::{NodeId, TopicPartition};
use tokio::time::{sleep, timeout};

use crate::applier::Phase;
use crate::node_env::Node;
use crate::peers::{Peers, propose_until_decided};
use crate::replicas::Held;

/// Replicas in one proposal.
const MOST_AT_ONCE: usize = 10_000;

/// A replica that is not to be counted on, and its first life that may be again.
type GivenUp = (TopicPartition, u64);

/// Tells the controller for as long as the node runs: of one that is offline after `interval`, of one that does not come back after a session.
pub(super) async fn tell(node: &Arc<Node>, peers: &Peers, interval: Duration) {
    let session = node.config.broker_session_timeout;
    let (mut looked_at, mut missing, mut down) = (0, BTreeSet::new(), BTreeMap::new());
    loop {
        sleep(interval).await;
        if *node.phase.borrow() != Phase::Ready {
            continue;
        }
        let image = node.image.load_full();
        if image.version() != looked_at {
            // What the metadata says is here was started before the metadata was shown.
            missing = held_by(&image, node.config.node_id).filter(|at| node.replicas.get(at).is_none()).collect();
            looked_at = image.version();
        }
        let absent = missing.iter().map(|at| (*at, ReportedLoss::GIVEN_UP));
        let failed: Vec<GivenUp> =
            failed(&seen(node), clock::now(), session, &mut down).into_iter().chain(absent).collect();
        let partitions = news(failed, &image, node.config.node_id);
        if partitions.is_empty() {
            continue;
        }
        tracing::error!(
            partitions = partitions.len(),
            "replicas cannot be served here and are given up to other nodes"
        );
        let (node_id, broker_epoch) = (node.config.node_id, node.broker_epoch());
        let asked = Proposal::GiveUpReplicas { node_id, broker_epoch, partitions };
        // Asked again at the next look.
        drop(timeout(session, propose_until_decided(node, peers, asked)).await);
    }
}

/// A replica of this process, as it is now.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: TopicPartition,
    is_offline: bool,
    state: ActorState,
    incarnation: u64,
}

fn seen(node: &Node) -> Vec<Seen> {
    let look = |held: &Arc<Held>| {
        let (shared, actor) = (held.handle.shared(), held.handle.actor());
        let (at, is_offline) = (shared.partition(), shared.is_offline());
        Seen { at, is_offline, state: actor.state(), incarnation: actor.incarnation().0 }
    };
    node.replicas.all().iter().map(look).collect()
}

/// Replicas that are offline, and those that have not run for `session`: one that has yet to run for the first time has lost nothing, and if all of a
/// new partition were given up for being slow, nobody could lead it. `down` has since when they do not.
fn failed(seen: &[Seen], now: Mono, session: Duration, down: &mut BTreeMap<TopicPartition, Mono>) -> Vec<GivenUp> {
    let (mut failed, mut down_now) = (Vec::new(), BTreeMap::new());
    for replica in seen {
        if replica.is_offline {
            failed.push((replica.at, ReportedLoss::GIVEN_UP));
        } else if !matches!(replica.state, ActorState::Running | ActorState::Starting) {
            let since = *down_now.entry(replica.at).or_insert_with(|| down.get(&replica.at).copied().unwrap_or(now));
            if now.saturating_since(since) >= session {
                failed.push((replica.at, replica.incarnation + 1));
            }
        }
    }
    *down = down_now;
    failed
}

/// What of it the controller does not know yet.
fn news(failed: Vec<GivenUp>, image: &MetadataImage, own: NodeId) -> Vec<GivenUp> {
    let known = |state: &PartitionImage, incarnation| {
        state.losses.iter().any(|loss| loss.node_id == own && loss.incarnation >= incarnation)
    };
    let counts = |&(at, incarnation): &GivenUp| {
        image.partition_by_id(at).is_some_and(|state| is_shared(state, own) && !known(state, incarnation))
    };
    failed.into_iter().filter(counts).take(MOST_AT_ONCE).collect()
}

fn is_shared(state: &PartitionImage, own: NodeId) -> bool {
    state.assigned_replicas.len() > 1 && state.assigned_replicas.contains(&own)
}

fn held_by(image: &MetadataImage, own: NodeId) -> impl Iterator<Item = TopicPartition> {
    image.topics().flat_map(move |topic| {
        let here = topic.partitions.iter().filter(move |(_, state)| is_shared(state, own));
        here.map(|(index, _)| TopicPartition { topic_id: topic.topic_id, partition: *index })
    })
}

#[cfg(test)]
mod tests {
    use madang_protocol::types::Uuid;

    use super::*;

    #[test]
    fn one_that_stays_down_is_given_up_after_a_session_and_one_that_has_yet_to_start_is_not() {
        let session = Duration::from_secs(2);
        let at = |partition| TopicPartition { topic_id: Uuid([1; 16]), partition };
        let replica = |partition, state| Seen { at: at(partition), is_offline: false, state, incarnation: 3 };
        let all = [
            replica(0, ActorState::Running),
            replica(1, ActorState::Restarting),
            replica(2, ActorState::Starting),
            replica(3, ActorState::Quarantined),
            Seen { is_offline: true, ..replica(4, ActorState::Running) },
        ];
        let mut down = BTreeMap::new();
        let offline = (at(4), ReportedLoss::GIVEN_UP);
        assert_eq!(failed(&all, Mono::ZERO, session, &mut down), [offline]);
        assert_eq!(failed(&all, Mono::ZERO + session, session, &mut down), [(at(1), 4), (at(3), 4), offline]);
        let up = [replica(1, ActorState::Running)];
        assert_eq!(failed(&up, Mono::ZERO + session, session, &mut down), []);
        assert_eq!(failed(&all[1..2], Mono::ZERO + session * 2, session, &mut down), [], "down for no time yet");
    }
}
