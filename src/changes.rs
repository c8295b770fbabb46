//! What a step of committed metadata asks of a node: which replicas and shards start, change and end. Pure, so that the simulated
//! node decides as the real one does.
//! Invariant: a topic's data goes only because its tombstone was committed, and before anything new takes the topic's name.

use std::collections::BTreeMap;
use std::sync::Arc;

use madang_cluster::configs::BrokerConfig;
use madang_cluster::coordinator::OFFSETS_TOPIC;
use madang_cluster::metadata::{MetadataDelta, MetadataImage, TopicImage};
use madang_cluster::replica::ReplicaConfig;
use madang_protocol::types::{LeaderEpoch, TopicId, TopicPartition};

use crate::replicas::{led_in, replica_config};

/// A replica that this node holds.
#[derive(Clone, Debug)]
pub struct ReplicaPlan {
    /// The partition.
    pub partition: TopicPartition,
    /// Its topic.
    pub topic: Arc<TopicImage>,
    /// The epoch in which this node leads it, if it does.
    pub leads_in: Option<LeaderEpoch>,
    /// Its settings.
    pub config: ReplicaConfig,
}

/// One thing to do. They are done in order, each after the one before it.
#[derive(Clone, Debug)]
pub enum Change {
    /// End the topic's replicas and delete its data. The name is empty if this node never saw the topic.
    DeleteTopic {
        /// The topic's id.
        topic_id: TopicId,
        /// The name it had.
        name: Arc<str>,
    },
    /// Tell a replica whether it leads.
    Lead {
        /// The partition.
        partition: TopicPartition,
        /// The epoch in which it leads, if it does.
        leads_in: Option<LeaderEpoch>,
    },
    /// Start replicas of one topic that this node did not hold.
    Start(Vec<ReplicaPlan>),
    /// Give a replica new settings.
    Configure {
        /// The partition.
        partition: TopicPartition,
        /// The settings.
        config: Box<ReplicaConfig>,
    },
    /// Start the group shards of these partitions of the offsets topic, as far as their replicas are here.
    StartShards {
        /// The offsets topic.
        topic: Arc<TopicImage>,
        /// The partitions.
        partitions: Vec<i32>,
    },
}

/// Everything that the metadata says this node holds, for its first start.
#[must_use]
pub fn all_replicas(image: &MetadataImage, broker: &BrokerConfig) -> Vec<ReplicaPlan> {
    let full = MetadataDelta::full(image);
    let held = full.changed_partitions(image).filter(|(_, state)| state.assigned_replicas.contains(&broker.node_id));
    let planned = held.filter_map(|(partition, state)| {
        let topic = image.topic_by_id(partition.topic_id)?;
        let config = replica_config(image, broker, topic, state);
        Some(ReplicaPlan { partition, topic: Arc::clone(topic), leads_in: led_in(state, broker), config })
    });
    planned.collect()
}

/// What `delta`, which led to `image`, asks of a node that holds `held`: partitions with their topics' names.
#[must_use]
pub fn changes(
    image: &MetadataImage,
    delta: &MetadataDelta,
    broker: &BrokerConfig,
    held: &BTreeMap<TopicPartition, Arc<str>>,
) -> Vec<Change> {
    let deleted =
        delta.deleted_topics().map(|(topic_id, name)| Change::DeleteTopic { topic_id, name: Arc::clone(name) });
    let mut changes: Vec<Change> = deleted.collect();
    // Who learns of a state of the partition knows the settings that it was judged by.
    changes.extend(configured(image, delta, broker, held));
    let mut new: BTreeMap<TopicId, Vec<ReplicaPlan>> = BTreeMap::new();
    for (partition, state) in delta.changed_partitions(image) {
        let Some(topic) = image.topic_by_id(partition.topic_id) else { continue };
        let leads_in = led_in(state, broker);
        if held.contains_key(&partition) {
            changes.push(Change::Lead { partition, leads_in });
        } else if state.assigned_replicas.contains(&broker.node_id) {
            let config = replica_config(image, broker, topic, state);
            let plan = ReplicaPlan { partition, topic: Arc::clone(topic), leads_in, config };
            new.entry(partition.topic_id).or_default().push(plan);
        }
    }
    let shards = image.topic(OFFSETS_TOPIC).and_then(|topic| {
        let partitions = new.get(&topic.topic_id)?.iter().map(|plan| plan.partition.partition).collect();
        Some(Change::StartShards { topic: Arc::clone(topic), partitions })
    });
    changes.extend(new.into_values().map(Change::Start));
    changes.extend(shards);
    changes
}

/// New settings for every replica whose topic's, or whose broker's, have changed.
fn configured<'a>(
    image: &'a MetadataImage,
    delta: &'a MetadataDelta,
    broker: &'a BrokerConfig,
    held: &'a BTreeMap<TopicPartition, Arc<str>>,
) -> impl Iterator<Item = Change> + 'a {
    let all = delta.broker_configs_changed();
    let named: Vec<&Arc<str>> = delta.changed_topic_configs().collect();
    let concerned = held.iter().filter(move |(_, topic)| all || named.contains(topic));
    concerned.filter_map(|(&partition, _)| {
        let topic = image.topic_by_id(partition.topic_id)?;
        let state = image.partition_by_id(partition)?;
        Some(Change::Configure { partition, config: Box::new(replica_config(image, broker, topic, state)) })
    })
}
