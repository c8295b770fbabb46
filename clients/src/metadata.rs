//! What a client knows of the cluster: brokers, topics, leaders.
//! Invariant: a snapshot never changes; a newer answer makes another one.

use std::collections::BTreeMap;

use madang_protocol::ErrorCode;
use madang_protocol::messages::metadata::{MetadataResponse, MetadataResponsePartition, MetadataResponseTopic};
use madang_protocol::types::{LeaderEpoch, NodeId, TopicId};

use crate::error::{MetadataError, check};

/// A broker and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its number.
    pub node_id: NodeId,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: i32,
    /// Its rack, if it says one.
    pub rack: Option<String>,
}

impl Broker {
    /// Host and port as one address; an IPv6 host in brackets.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Its number, from 0.
    pub partition: i32,
    /// What the broker says is wrong with it.
    pub error: Option<ErrorCode>,
    /// Its leader, if it has one.
    pub leader: Option<NodeId>,
    /// The number of this leadership.
    pub leader_epoch: LeaderEpoch,
    /// The brokers that hold it, the preferred leader first.
    pub assigned_replicas: Vec<NodeId>,
    /// Those of them that are in sync.
    pub in_sync_replicas: Vec<NodeId>,
    /// Those of them that are offline.
    pub offline_replicas: Vec<NodeId>,
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Its name.
    pub name: String,
    /// Its id; zero from brokers that have none.
    pub id: TopicId,
    /// Whether it is the cluster's own.
    pub is_internal: bool,
    /// Its partitions by ascending number.
    pub partitions: Vec<PartitionMetadata>,
}

impl TopicMetadata {
    /// The partition of this number.
    #[must_use]
    pub fn partition(&self, partition: i32) -> Option<&PartitionMetadata> {
        let at = self.partitions.binary_search_by_key(&partition, |found| found.partition).ok()?;
        self.partitions.get(at)
    }
}

/// The cluster as one broker described it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The cluster's id, if the broker says one.
    pub cluster_id: Option<String>,
    /// The broker to send administrative requests to, if there is one.
    pub controller: Option<NodeId>,
    /// The brokers by number.
    pub brokers: BTreeMap<NodeId, Broker>,
    /// The topics by name: those asked for, without those that the broker answered with an error.
    pub topics: BTreeMap<String, TopicMetadata>,
    /// The topics that the broker answered with an error.
    pub errors: BTreeMap<String, ErrorCode>,
}

impl Metadata {
    /// The topic of this name.
    ///
    /// # Errors
    /// [`MetadataError::Topic`] with the broker's error, or `UNKNOWN_TOPIC_OR_PARTITION` if it was not asked for.
    pub fn topic(&self, name: &str) -> Result<&TopicMetadata, MetadataError> {
        self.topics.get(name).ok_or_else(|| MetadataError::Topic {
            topic: name.to_owned(),
            code: self.errors.get(name).copied().unwrap_or(ErrorCode::UnknownTopicOrPartition),
        })
    }

    /// The leader of a partition, with its address and epoch.
    ///
    /// # Errors
    /// That of [`Metadata::topic`]; `NoPartition`; `NoLeader`.
    pub fn leader(&self, topic: &str, partition: i32) -> Result<(&Broker, LeaderEpoch), MetadataError> {
        let missing = || MetadataError::NoPartition { topic: topic.to_owned(), partition };
        let found = self.topic(topic)?.partition(partition).ok_or_else(missing)?;
        let broker = found.leader.and_then(|leader| self.brokers.get(&leader));
        let broker = broker.ok_or_else(|| MetadataError::NoLeader { topic: topic.to_owned(), partition })?;
        Ok((broker, found.leader_epoch))
    }

    pub(crate) fn of(answer: MetadataResponse<'_>) -> Self {
        let brokers = answer.brokers.into_iter().map(|broker| {
            let node_id = NodeId(broker.node_id);
            let rack = broker.rack.map(Into::into);
            (node_id, Broker { node_id, host: broker.host.into(), port: broker.port, rack })
        });
        let mut metadata = Self {
            cluster_id: answer.cluster_id.map(Into::into),
            controller: node(answer.controller_id),
            brokers: brokers.collect(),
            ..Self::default()
        };
        for topic in answer.topics {
            let name = topic.name.as_deref().unwrap_or_default().to_owned();
            match check(topic.error_code) {
                Ok(()) => drop(metadata.topics.insert(name.clone(), topic_of(name, topic))),
                Err(error) => drop(metadata.errors.insert(name, error)),
            }
        }
        metadata
    }

    /// This snapshot with what a newer one says.
    pub(crate) fn updated(&self, newer: Self) -> Self {
        let mut topics = self.topics.clone();
        topics.retain(|name, _| !newer.errors.contains_key(name));
        topics.extend(newer.topics);
        Self { topics, ..newer }
    }
}

fn node(id: i32) -> Option<NodeId> {
    (id >= 0).then_some(NodeId(id))
}

fn topic_of(name: String, topic: MetadataResponseTopic<'_>) -> TopicMetadata {
    let mut partitions: Vec<_> = topic.partitions.into_iter().map(partition_of).collect();
    partitions.sort_by_key(|partition| partition.partition);
    partitions.dedup_by_key(|partition| partition.partition);
    TopicMetadata { name, id: topic.topic_id, is_internal: topic.is_internal, partitions }
}

fn partition_of(partition: MetadataResponsePartition) -> PartitionMetadata {
    let nodes = |ids: Vec<i32>| ids.into_iter().map(NodeId).collect();
    PartitionMetadata {
        partition: partition.partition_index,
        error: check(partition.error_code).err(),
        leader: node(partition.leader_id),
        leader_epoch: LeaderEpoch(partition.leader_epoch),
        assigned_replicas: nodes(partition.replica_nodes),
        in_sync_replicas: nodes(partition.isr_nodes),
        offline_replicas: nodes(partition.offline_replicas),
    }
}
