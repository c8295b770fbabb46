//! Replicas that this process cannot serve, told to the controller, so that others lead.
//! Invariant: only what several nodes hold is given up; a sole replica answers for itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use madang_cluster::controller::Proposal;
use madang_cluster::metadata::{MetadataImage, PartitionImage};
use madang_protocol::types::{NodeId, TopicPartition};
use tokio::time::{sleep, timeout};

use crate::applier::Phase;
use crate::node_env::Node;
use crate::peers::{Peers, propose_until_decided};

/// Replicas in one proposal.
const MOST_AT_ONCE: usize = 10_000;

/// Tells the controller for as long as the node runs, at most `interval` after a replica has failed.
pub(super) async fn tell(node: &Arc<Node>, peers: &Peers, interval: Duration) {
    let (mut looked_at, mut missing) = (0, BTreeSet::new());
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
        let failed = failed(node, &image, &missing);
        if failed.is_empty() {
            continue;
        }
        tracing::error!(partitions = failed.len(), "replicas cannot be served here and are given up to other nodes");
        let (node_id, broker_epoch) = (node.config.node_id, node.broker_epoch());
        let asked = Proposal::GiveUpReplicas { node_id, broker_epoch, partitions: failed };
        // Asked again at the next look.
        drop(timeout(node.config.broker_session_timeout, propose_until_decided(node, peers, asked)).await);
    }
}

fn failed(node: &Node, image: &MetadataImage, missing: &BTreeSet<TopicPartition>) -> Vec<TopicPartition> {
    let own = node.config.node_id;
    let held = node.replicas.all();
    let offline = held.iter().map(|held| held.handle.shared()).filter(|shared| shared.is_offline());
    let unserved = offline.map(|shared| shared.partition()).chain(missing.iter().copied());
    let counts = |state: &PartitionImage| is_shared(state, own) && !state.is_given_up(own);
    unserved.filter(|at| image.partition_by_id(*at).is_some_and(|state| counts(state))).take(MOST_AT_ONCE).collect()
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
