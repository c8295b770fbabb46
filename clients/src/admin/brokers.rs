//! What brokers hold, and who agrees on the metadata.

use std::collections::BTreeMap;

use madang_protocol::ErrorCode;
use madang_protocol::messages::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsRequest, DescribeLogDirsResult,
};
use madang_protocol::messages::describe_quorum::{self, DescribeQuorumRequest};
use madang_protocol::types::{NodeId, Offset};

use super::{Admin, outcome};
use crate::client::Lane;
use crate::error::{AdminError, check};

/// The topic that the metadata log is, to whoever asks.
const METADATA: &str = "__cluster_metadata";

/// A replica in a log directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDirReplica {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Bytes of its segments.
    pub size_bytes: i64,
    /// Records that it lacks.
    pub offset_lag: i64,
    /// Whether it is being moved here from another directory of the broker.
    pub is_future: bool,
}

/// A log directory of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    /// Where it is.
    pub path: String,
    /// Why it cannot be used; none if it can.
    pub error: Option<ErrorCode>,
    /// What is in it.
    pub replicas: Vec<LogDirReplica>,
    /// Bytes of its volume, if the broker says.
    pub total_bytes: Option<i64>,
    /// Bytes of its volume that are free, if the broker says.
    pub usable_bytes: Option<i64>,
}

/// A member of the quorum, or an observer, and how far its copy of the metadata log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumMember {
    /// Its node.
    pub node_id: NodeId,
    /// The first offset that it does not have, if the leader knows.
    pub log_end_offset: Option<Offset>,
    /// When it last asked for more, in milliseconds since 1970, if the leader knows.
    pub last_fetch_timestamp: Option<i64>,
    /// When it last had all there was, in milliseconds since 1970, if the leader knows.
    pub last_caught_up_timestamp: Option<i64>,
}

/// Who agrees on the cluster's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumDescription {
    /// The leader.
    pub leader: NodeId,
    /// The number of its leadership.
    pub leader_epoch: i32,
    /// The first offset that is not committed.
    pub high_watermark: Offset,
    /// Those whose copy counts.
    pub voters: Vec<QuorumMember>,
    /// Those who copy only.
    pub observers: Vec<QuorumMember>,
}

impl Admin {
    /// The log directories of a broker, with all replicas in them or with those of some partitions.
    ///
    /// # Errors
    /// [`AdminError`]; what is wrong with one directory is in its own result.
    pub async fn log_dirs(
        &self,
        broker: NodeId,
        partitions: Option<&BTreeMap<String, Vec<i32>>>,
    ) -> Result<Vec<LogDir>, AdminError> {
        let topic = |(topic, list): (&String, &Vec<i32>)| DescribableLogDirTopic {
            topic: topic.clone().into(),
            partitions: list.clone(),
        };
        let request = DescribeLogDirsRequest { topics: partitions.map(|topics| topics.iter().map(topic).collect()) };
        let broker = self.broker(broker).await?;
        let answer = self.client.to(&broker, Lane::SHARED, &request, self.client.call()).await?;
        outcome(&format!("broker {}", broker.node_id), answer.error_code, None)?;
        Ok(answer.results.into_iter().map(log_dir).collect())
    }

    /// The voters of the metadata log, its observers, and how far each of them is.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn describe_quorum(&self) -> Result<QuorumDescription, AdminError> {
        let partitions = vec![describe_quorum::asked::PartitionData { partition_index: 0 }];
        let topics = vec![describe_quorum::asked::TopicData { topic_name: METADATA.into(), partitions }];
        let answer = self.client.any(&DescribeQuorumRequest { topics }).await?;
        outcome("the quorum", answer.error_code, answer.error_message.as_deref())?;
        let found = answer.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let found = found.ok_or_else(|| AdminError::Missing("the quorum".to_owned()))?;
        outcome("the quorum", found.error_code, found.error_message.as_deref())?;
        Ok(QuorumDescription {
            leader: NodeId(found.leader_id),
            leader_epoch: found.leader_epoch,
            high_watermark: Offset(found.high_watermark),
            voters: found.current_voters.into_iter().map(member).collect(),
            observers: found.observers.into_iter().map(member).collect(),
        })
    }
}

fn known(number: i64) -> Option<i64> {
    (number >= 0).then_some(number)
}

fn member(found: describe_quorum::ReplicaState) -> QuorumMember {
    QuorumMember {
        node_id: NodeId(found.replica_id),
        log_end_offset: known(found.log_end_offset).map(Offset),
        last_fetch_timestamp: known(found.last_fetch_timestamp),
        last_caught_up_timestamp: known(found.last_caught_up_timestamp),
    }
}

fn log_dir(found: DescribeLogDirsResult<'static>) -> LogDir {
    let mut replicas = Vec::new();
    for topic in found.topics {
        replicas.extend(topic.partitions.into_iter().map(|partition| LogDirReplica {
            topic: topic.name.to_string(),
            partition: partition.partition_index,
            size_bytes: partition.partition_size,
            offset_lag: partition.offset_lag,
            is_future: partition.is_future_key,
        }));
    }
    LogDir {
        path: found.log_dir.into(),
        error: check(found.error_code).err(),
        replicas,
        total_bytes: known(found.total_bytes),
        usable_bytes: known(found.usable_bytes),
    }
}
