//! Partitions that move between brokers, and who leads them; brokers that are forgotten.

use madang_protocol::ErrorCode;
use madang_protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use madang_protocol::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use madang_protocol::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;
use madang_protocol::messages::unregister_broker::UnregisterBrokerRequest;
use madang_protocol::types::NodeId;

use super::{Admin, outcome};
use crate::error::{AdminError, check};

/// A partition that is being moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// The topic's name.
    pub topic: String,
    /// The partition's index.
    pub partition: i32,
    /// The brokers that hold it now, with those that come and those that go.
    pub replicas: Vec<NodeId>,
    /// Those that come.
    pub adding: Vec<NodeId>,
    /// Those that go when these have come.
    pub removing: Vec<NodeId>,
}

/// How the election of one partition's leader ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// The topic's name.
    pub topic: String,
    /// The partition's index.
    pub partition: i32,
    /// Why nobody was elected; none if somebody was.
    pub error: Option<ErrorCode>,
}

impl Admin {
    /// Has the partition moved to `replicas`, the preferred leader first, or, with none, a move that is in progress given up. It goes on after
    /// the answer: [`Admin::reassignments`] says how far it is.
    ///
    /// # Errors
    /// [`AdminError`], with `INVALID_REPLICA_ASSIGNMENT` for brokers that cannot hold it, `NO_REASSIGNMENT_IN_PROGRESS` if there is nothing to
    /// give up.
    pub async fn reassign(&self, topic: &str, partition: i32, replicas: Option<&[NodeId]>) -> Result<(), AdminError> {
        let replicas = replicas.map(|nodes| nodes.iter().map(|node| node.0).collect());
        let partitions = vec![ReassignablePartition { partition_index: partition, replicas }];
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: self.timeout_ms(),
            topics: vec![ReassignableTopic { name: topic.into(), partitions }],
            ..AlterPartitionReassignmentsRequest::default()
        };
        let answer = self.controller(&request).await?;
        let named = format!("{topic}-{partition}");
        outcome(&named, answer.error_code, answer.error_message.as_deref())?;
        let found = answer.responses.iter().flat_map(|topic| &topic.partitions).next();
        let found = found.ok_or_else(|| AdminError::Missing(named.clone()))?;
        outcome(&named, found.error_code, found.error_message.as_deref())
    }

    /// The partitions that are being moved.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn reassignments(&self) -> Result<Vec<Reassignment>, AdminError> {
        let answer = self.client.any(&ListPartitionReassignmentsRequest::default()).await?;
        outcome("the moves", answer.error_code, answer.error_message.as_deref())?;
        let nodes = |raw: &[i32]| raw.iter().copied().map(NodeId).collect();
        let of_topic = answer.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|moving| Reassignment {
                topic: topic.name.to_string(),
                partition: moving.partition_index,
                replicas: nodes(&moving.replicas),
                adding: nodes(&moving.adding_replicas),
                removing: nodes(&moving.removing_replicas),
            })
        });
        Ok(of_topic.collect())
    }

    /// Has partitions led by their preferred leader, or, `unclean`, by any replica where nobody else may lead, which may lose records. With no
    /// partition all are meant, and those that need no election are not in the answer.
    ///
    /// # Errors
    /// [`AdminError`]; what is wrong with one partition is in its own result.
    pub async fn elect_leaders(
        &self,
        unclean: bool,
        partitions: Option<&[(String, i32)]>,
    ) -> Result<Vec<Election>, AdminError> {
        let request = ElectLeadersRequest {
            election_type: i8::from(unclean),
            topic_partitions: partitions.map(|all| all.iter().map(named).collect()),
            timeout_ms: self.timeout_ms(),
        };
        let answer = self.controller(&request).await?;
        outcome("the elections", answer.error_code, None)?;
        let of_topic = answer.replica_election_results.iter().flat_map(|topic| {
            topic.partition_result.iter().map(|result| Election {
                topic: topic.topic.to_string(),
                partition: result.partition_id,
                error: check(result.error_code).err(),
            })
        });
        Ok(of_topic.collect())
    }

    /// Has a broker forgotten. It comes back when it is started again.
    ///
    /// # Errors
    /// [`AdminError`], with `BROKER_ID_NOT_REGISTERED` if there is no such broker.
    pub async fn unregister_broker(&self, broker: NodeId) -> Result<(), AdminError> {
        let answer = self.controller(&UnregisterBrokerRequest { broker_id: broker.0 }).await?;
        outcome(&format!("broker {broker}"), answer.error_code, answer.error_message.as_deref())
    }
}

fn named((topic, partition): &(String, i32)) -> TopicPartitions<'_> {
    TopicPartitions { topic: topic.as_str().into(), partitions: vec![*partition] }
}
