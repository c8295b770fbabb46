//! From what a request calls a partition to its replica here, or to the error and the hint that the client needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use madang_cluster::metadata::{BrokerRegistration, MetadataImage, PartitionImage, TopicImage};
use madang_cluster::replica::ReplicaHandle;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{LeaderEpoch, NodeId, TopicPartition};

use crate::env::Env;
use crate::fetch_sessions::TopicKey;

/// Who leads a partition, and where clients reach it (KIP-951).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The leader.
    pub leader: NodeId,
    /// Its epoch.
    pub epoch: LeaderEpoch,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Its rack.
    pub rack: Option<String>,
}

/// The broker of a node that serves: one that is not fenced, and whose process is not gone. A client that is sent to one that is gone believes it and
/// asks nobody for a while; one that hears of no leader soon asks again.
pub fn serving<'i>(image: &'i MetadataImage, gone: &BTreeSet<NodeId>, node: NodeId) -> Option<&'i BrokerRegistration> {
    image.broker(node).map(Arc::as_ref).filter(|broker| !broker.fenced && !gone.contains(&node))
}

fn topic<'i>(image: &'i MetadataImage, key: &TopicKey) -> Result<&'i Arc<TopicImage>, ErrorCode> {
    match key {
        TopicKey::Name(name) => image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition),
        TopicKey::Id(id) => image.topic_by_id(*id).ok_or(ErrorCode::UnknownTopicId),
    }
}

/// The partition, if it exists.
///
/// # Errors
/// `UNKNOWN_TOPIC_OR_PARTITION` or `UNKNOWN_TOPIC_ID`.
pub fn partition<E: Env>(env: &E, key: &TopicKey, partition: i32) -> Result<TopicPartition, ErrorCode> {
    let image = env.image();
    let topic = topic(&image, key)?;
    if !topic.partitions.contains_key(&partition) {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    Ok(TopicPartition { topic_id: topic.topic_id, partition })
}

/// The replica that leads the partition, if that is this node's.
///
/// # Errors
/// As [`partition`]; `NOT_LEADER_OR_FOLLOWER` where another node leads, of which [`hint`] says who; `LEADER_NOT_AVAILABLE` is never used, as
/// consumers do not survive it in a fetch.
pub fn replica<E: Env>(env: &E, key: &TopicKey, index: i32) -> Result<ReplicaHandle, ErrorCode> {
    match place(env, key, index)? {
        Place { leads: true, replica, .. } => Ok(replica),
        Place { .. } => Err(ErrorCode::NotLeaderOrFollower),
    }
}

/// A partition's replica on this node.
#[derive(Clone, Debug)]
pub struct Place {
    /// The replica.
    pub replica: ReplicaHandle,
    /// Whether it leads, as far as the metadata says.
    pub leads: bool,
    /// The partition as the metadata has it.
    pub state: Arc<PartitionImage>,
}

/// The partition's replica on this node, whether or not it leads.
///
/// # Errors
/// As [`replica`].
pub fn place<E: Env>(env: &E, key: &TopicKey, index: i32) -> Result<Place, ErrorCode> {
    let image = env.image();
    let topic = topic(&image, key)?;
    let state = topic.partitions.get(&index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let leads = state.leader == env.node_id();
    if !leads && !state.assigned_replicas.contains(&env.node_id()) {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    let partition = TopicPartition { topic_id: topic.topic_id, partition: index };
    // An image is shown once its replicas are started; one that is not there could not be, as its directory has failed.
    let replica = env.replica(&partition).ok_or(ErrorCode::KafkaStorageError)?;
    Ok(Place { replica, leads, state: Arc::clone(state) })
}

/// Who leads the partition, for a client that was refused because it asked the wrong node or believes in an older leadership (KIP-951). None
/// for another error, and where nobody leads whom clients of `listener` can reach.
pub fn hint<E: Env>(env: &E, listener: &str, key: &TopicKey, index: i32, error: ErrorCode) -> Option<Hint> {
    if !matches!(error, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch) {
        return None;
    }
    let image = env.image();
    let state = topic(&image, key).ok()?.partitions.get(&index)?;
    let leader = serving(&image, &env.gone(), state.leader)?;
    let endpoint = leader.endpoint(listener)?;
    Some(Hint {
        leader: state.leader,
        epoch: state.leader_epoch,
        host: endpoint.host.to_string(),
        port: endpoint.port,
        rack: leader.rack.as_ref().map(ToString::to_string),
    })
}

#[cfg(test)]
mod tests {
    use madang_actors::prng::Prng;
    use madang_cluster::configs::BrokerConfig;
    use madang_cluster::controller::{Outcome, Proposal, RegisterBroker, decide};
    use madang_protocol::types::Uuid;

    use super::*;

    #[test]
    fn a_broker_serves_that_is_neither_fenced_nor_gone() {
        let (config, mut rng, node) = (BrokerConfig::default(), Prng::new(1), NodeId(1));
        let registered = RegisterBroker {
            node_id: node,
            incarnation_id: Uuid([9; 16]),
            endpoints: Vec::new(),
            rack: None,
            log_dirs: Vec::new(),
            starts: Vec::new(),
        };
        let fenced = decide(&MetadataImage::default(), &config, &mut rng, Proposal::RegisterBroker(registered));
        let Ok(Outcome::Registered(broker_epoch)) = fenced.result else { panic!("{:?}", fenced.result) };
        let unfence = Proposal::UnfenceBroker { node_id: node, broker_epoch };
        let unfenced = decide(&fenced.image, &config, &mut rng, unfence).image;
        let (nobody, gone) = (BTreeSet::new(), BTreeSet::from([node]));
        assert!(serving(&fenced.image, &nobody, node).is_none());
        assert_eq!(serving(&unfenced, &nobody, node).map(|broker| broker.node_id), Some(node));
        assert!(serving(&unfenced, &gone, node).is_none());
        assert!(serving(&unfenced, &nobody, NodeId(2)).is_none());
    }
}
