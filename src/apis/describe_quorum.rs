//! DescribeQuorum: who votes on the metadata, and how far each voter is. The leader of the quorum knows, whichever node is asked.

use std::time::Duration;

use madang_cluster::controller::{Outcome, Proposal, QuorumDescription, QuorumMember};
use madang_cluster::metadata::MetadataImage;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, Listener, Node, PartitionData, ReplicaState, TopicData, asked,
};

use crate::apis::proposals::{ask, wire};
use crate::env::Env;

/// Kafka's name of the metadata log.
const TOPIC: &str = "__cluster_metadata";
/// What Kafka's tools expect the listener of a voter to be called.
const LISTENER: &str = "CONTROLLER";
/// How long the leader of the quorum is looked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: DescribeQuorumRequest<'_>) -> DescribeQuorumResponse<'static> {
    let is_it = |topic: &asked::TopicData<'_>| {
        topic.topic_name == TOPIC && topic.partitions.len() == 1 && topic.partitions[0].partition_index == 0
    };
    if request.topics.len() != 1 || !request.topics.iter().all(is_it) {
        return unknown(&request);
    }
    let take = |outcome| match outcome {
        Outcome::Quorum(quorum) => Some(quorum),
        _ => None,
    };
    match ask(env, Proposal::DescribeQuorum, PATIENCE, take).await {
        Ok(quorum) => described(env, &quorum),
        Err(error) => {
            let (error_code, error_message) = wire(&error);
            DescribeQuorumResponse { error_code, error_message, ..DescribeQuorumResponse::default() }
        }
    }
}

/// There is no other log that a quorum has.
fn unknown(request: &DescribeQuorumRequest<'_>) -> DescribeQuorumResponse<'static> {
    let error = ErrorCode::UnknownTopicOrPartition;
    let topics = request.topics.iter().map(|topic| TopicData {
        topic_name: topic.topic_name.to_string().into(),
        partitions: topic
            .partitions
            .iter()
            .map(|asked| PartitionData {
                partition_index: asked.partition_index,
                error_code: error.code(),
                error_message: Some(error.message().into()),
                ..PartitionData::default()
            })
            .collect(),
    });
    DescribeQuorumResponse { topics: topics.collect(), ..DescribeQuorumResponse::default() }
}

fn described<E: Env>(env: &E, quorum: &QuorumDescription) -> DescribeQuorumResponse<'static> {
    let image = env.image();
    let replicas = |members: &[QuorumMember]| members.iter().map(|member| replica(&image, member)).collect();
    let partition = PartitionData {
        leader_id: quorum.leader.0,
        leader_epoch: i32::try_from(quorum.term).unwrap_or(i32::MAX),
        high_watermark: offset_after(quorum.committed),
        current_voters: replicas(&quorum.voters),
        observers: replicas(&quorum.observers),
        ..PartitionData::default()
    };
    let topic = TopicData { topic_name: TOPIC.into(), partitions: vec![partition] };
    let known = image.quorum_addresses().iter().map(|(node, address)| (*node, address.to_string()));
    // The first voters are known by the configuration until each has said where it is.
    let first = env.config().quorum_voters.iter().filter(|(node, _)| !image.quorum_addresses().contains_key(node));
    let addresses: Vec<_> = known.chain(first.cloned()).collect();
    let nodes = quorum.voters.iter().map(|voter| Node {
        node_id: voter.node_id.0,
        listeners: addresses
            .iter()
            .filter(|(node, _)| *node == voter.node_id)
            .filter_map(|(_, address)| listener(address))
            .collect(),
    });
    DescribeQuorumResponse { topics: vec![topic], nodes: nodes.collect(), ..DescribeQuorumResponse::default() }
}

fn replica(image: &MetadataImage, member: &QuorumMember) -> ReplicaState {
    // The metadata log is in the first log directory.
    let directory = image.broker(member.node_id).and_then(|broker| broker.log_dirs.first().copied());
    ReplicaState {
        replica_id: member.node_id.0,
        replica_directory_id: directory.unwrap_or_default(),
        log_end_offset: offset_after(member.last_index),
        last_fetch_timestamp: member.heard_at,
        last_caught_up_timestamp: member.caught_up_at,
    }
}

fn offset_after(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX).saturating_add(1)
}

fn listener(address: &str) -> Option<Listener<'static>> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Listener { name: LISTENER.into(), host: host.into(), port: port.parse().ok()? })
}
