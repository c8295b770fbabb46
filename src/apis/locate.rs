//! From what a request calls a partition to its replica here, or to the error and the hint that the client needs.

use std::sync::Arc;

use madang_cluster::metadata::{MetadataImage, TopicImage};
use madang_cluster::replica::ReplicaHandle;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{LeaderEpoch, NodeId, TopicPartition};

use crate::env::Env;
use crate::fetch_sessions::TopicKey;

/// Who leads a partition that this node does not lead (KIP-951).
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
/// As [`partition`]; `NOT_LEADER_OR_FOLLOWER` with a hint where another node leads; `LEADER_NOT_AVAILABLE` is never used, as
/// consumers do not survive it in a fetch.
pub fn replica<E: Env>(env: &E, key: &TopicKey, index: i32) -> Result<ReplicaHandle, (ErrorCode, Option<Hint>)> {
    let image = env.image();
    let topic = topic(&image, key).map_err(|error| (error, None))?;
    let Some(state) = topic.partitions.get(&index) else {
        return Err((ErrorCode::UnknownTopicOrPartition, None));
    };
    if state.leader != env.node_id() {
        return Err((ErrorCode::NotLeaderOrFollower, None));
    }
    let partition = TopicPartition { topic_id: topic.topic_id, partition: index };
    // An image is shown once its replicas are started; one that is not there could not be, as its directory has failed.
    env.replica(&partition).ok_or((ErrorCode::KafkaStorageError, None))
}
