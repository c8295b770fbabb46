//! What changed between two images, for those who start and stop things.
//! Invariant: a topic is in `deleted` only because a committed tombstone with its id was replayed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use madang_protocol::types::{NodeId, TopicId, TopicPartition};

use super::image::{ConfigResource, ConfigResourceType, MetadataImage, PartitionImage};

/// What happened to one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopicChange {
    /// It is new, or has changed partitions; the indexes of those that are new or changed.
    Changed {
        /// Whether the topic itself is new.
        created: bool,
        /// The partitions to look at.
        partitions: BTreeSet<i32>,
    },
    /// Its tombstone was committed: its data may go.
    Deleted {
        /// The name it had; empty if the topic was never seen here.
        name: Arc<str>,
    },
}

/// What changed from one image to a later one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataDelta {
    /// Version of the earlier image.
    pub from_version: u64,
    /// Version of the later image.
    pub to_version: u64,
    /// Topics that changed, by id.
    pub topics: BTreeMap<TopicId, TopicChange>,
    /// Resources whose configuration changed.
    pub configs: BTreeSet<ConfigResource>,
    /// Brokers that registered, were fenced or unfenced.
    pub brokers: BTreeSet<NodeId>,
    /// Whether the cluster got its id.
    pub cluster_id_changed: bool,
    /// Whether what holds where nothing was set has changed.
    pub defaults_changed: bool,
    /// Whether a member of the metadata quorum is reached elsewhere.
    pub quorum_addresses_changed: bool,
}

impl MetadataDelta {
    /// All of an image, as if nothing had been there before.
    #[must_use]
    pub fn full(image: &MetadataImage) -> Self {
        let mut delta = Self { to_version: image.version(), cluster_id_changed: true, ..Self::default() };
        for topic in image.topics() {
            let partitions = topic.partitions.keys().copied().collect();
            delta.topics.insert(topic.topic_id, TopicChange::Changed { created: true, partitions });
        }
        for topic_id in image.tombstones.keys() {
            delta.topics.insert(*topic_id, TopicChange::Deleted { name: "".into() });
        }
        delta.configs.extend(image.configs.keys().cloned());
        delta.brokers.extend(image.brokers.keys().copied());
        delta.defaults_changed = !image.defaults.is_empty();
        delta.quorum_addresses_changed = !image.quorum_addresses.is_empty();
        delta
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let named = self.topics.is_empty() && self.configs.is_empty() && self.brokers.is_empty();
        named && !self.cluster_id_changed && !self.defaults_changed && !self.quorum_addresses_changed
    }

    /// This, and what changed right after it, as one change.
    pub fn extend(&mut self, later: &Self) {
        self.to_version = later.to_version;
        for (topic_id, change) in &later.topics {
            match (self.topics.get_mut(topic_id), change) {
                (
                    Some(TopicChange::Changed { partitions: known, .. }),
                    TopicChange::Changed { partitions, created: false },
                ) => known.extend(partitions),
                _ => drop(self.topics.insert(*topic_id, change.clone())),
            }
        }
        self.configs.extend(later.configs.iter().cloned());
        self.brokers.extend(&later.brokers);
        self.cluster_id_changed |= later.cluster_id_changed;
        self.defaults_changed |= later.defaults_changed;
        self.quorum_addresses_changed |= later.quorum_addresses_changed;
    }

    /// The topics whose data may go, with the names they had.
    pub fn deleted_topics(&self) -> impl Iterator<Item = (TopicId, &Arc<str>)> {
        self.topics.iter().filter_map(|(topic_id, change)| match change {
            TopicChange::Deleted { name } => Some((*topic_id, name)),
            TopicChange::Changed { .. } => None,
        })
    }

    /// The partitions that are new or changed, as `image`, the later image, has them.
    pub fn changed_partitions<'a>(
        &'a self,
        image: &'a MetadataImage,
    ) -> impl Iterator<Item = (TopicPartition, &'a Arc<PartitionImage>)> + 'a {
        self.topics.iter().flat_map(move |(topic_id, change)| {
            let indexes = match change {
                TopicChange::Changed { partitions, .. } => Some(partitions.iter()),
                TopicChange::Deleted { .. } => None,
            };
            indexes.into_iter().flatten().filter_map(move |index| {
                let partition = TopicPartition { topic_id: *topic_id, partition: *index };
                image.partition_by_id(partition).map(|state| (partition, state))
            })
        })
    }

    /// Names of the topics whose own configuration changed.
    pub fn changed_topic_configs(&self) -> impl Iterator<Item = &Arc<str>> {
        self.configs
            .iter()
            .filter(|resource| resource.resource_type == ConfigResourceType::Topic)
            .map(|resource| &resource.name)
    }

    /// Whether a broker's or the cluster's default configuration changed, which may change every topic's.
    #[must_use]
    pub fn broker_configs_changed(&self) -> bool {
        self.defaults_changed
            || self.configs.iter().any(|resource| resource.resource_type == ConfigResourceType::Broker)
    }

    pub(crate) fn topic_created(&mut self, topic_id: TopicId) {
        self.topics.insert(topic_id, TopicChange::Changed { created: true, partitions: BTreeSet::new() });
    }

    pub(crate) fn partition_changed(&mut self, topic_id: TopicId, partition: i32) {
        let change = self
            .topics
            .entry(topic_id)
            .or_insert_with(|| TopicChange::Changed { created: false, partitions: BTreeSet::new() });
        if let TopicChange::Changed { partitions, .. } = change {
            partitions.insert(partition);
        }
    }

    pub(crate) fn topic_deleted(&mut self, topic_id: TopicId, name: Arc<str>) {
        self.topics.insert(topic_id, TopicChange::Deleted { name });
    }
}

#[cfg(test)]
mod tests {
    use madang_protocol::types::Uuid;

    use super::*;

    #[test]
    fn two_changes_in_a_row_are_one() {
        let (kept, gone) = (Uuid([1; 16]), Uuid([2; 16]));
        let mut first = MetadataDelta { from_version: 3, to_version: 4, ..MetadataDelta::default() };
        first.topic_created(kept);
        first.partition_changed(kept, 0);
        first.partition_changed(gone, 0);
        first.brokers.insert(NodeId(1));
        let mut second = MetadataDelta { from_version: 4, to_version: 5, ..MetadataDelta::default() };
        second.partition_changed(kept, 1);
        second.topic_deleted(gone, "gone".into());
        second.brokers.insert(NodeId(2));
        second.defaults_changed = true;
        first.extend(&second);
        assert_eq!((first.from_version, first.to_version, first.defaults_changed), (3, 5, true));
        assert_eq!(first.topics[&kept], TopicChange::Changed { created: true, partitions: BTreeSet::from([0, 1]) });
        assert_eq!(first.topics[&gone], TopicChange::Deleted { name: "gone".into() });
        assert_eq!(first.brokers, BTreeSet::from([NodeId(1), NodeId(2)]));
    }
}
