//! The only way the metadata changes, live and at load alike.
//! Invariant: the same records in the same order give the same image on every node, whatever the build or the machine.

use std::sync::Arc;

use madang_protocol::types::{NodeId, TopicId, Uuid};

use super::records::{
    ClusterRecord, ConfigRecord, CountersRecord, DefaultRecord, EndpointRecord, FenceBrokerRecord, MetadataRecord,
    PartitionRecord, QuorumAddressRecord, RegisterBrokerRecord, RemoveTopicRecord, TopicRecord, UnregisterBrokerRecord,
};
use crate::metadata::{
    BrokerRegistration, ConfigResource, ConfigResourceType, Endpoint, MAX_TOMBSTONES, MetadataDelta, MetadataImage,
    SecurityProtocol, TopicImage, metric_name,
};

/// Applies one record to the image and notes in `delta` what changed.
pub fn replay(image: &mut MetadataImage, delta: &mut MetadataDelta, record: MetadataRecord) {
    match record {
        MetadataRecord::Cluster(record) => {
            image.cluster_id = Uuid(record.cluster_id);
            delta.cluster_id_changed = true;
        }
        MetadataRecord::Topic(record) => replay_topic(image, delta, record),
        MetadataRecord::Partition(record) => replay_partition(image, delta, record),
        MetadataRecord::RemoveTopic(record) => replay_remove_topic(image, delta, Uuid(record.topic_id)),
        MetadataRecord::Config(record) => replay_config(image, delta, record),
        MetadataRecord::RegisterBroker(record) => replay_register_broker(image, delta, record),
        MetadataRecord::FenceBroker(record) => replay_fence_broker(image, delta, &record),
        MetadataRecord::UnregisterBroker(record) => replay_unregister_broker(image, delta, &record),
        MetadataRecord::ProducerIds(record) => {
            image.next_producer_id = image.next_producer_id.max(record.next_producer_id);
        }
        MetadataRecord::QuorumAddress(record) => {
            let node_id = NodeId(record.node_id);
            match record.address {
                Some(address) => image.quorum_addresses.insert(node_id, address.into()),
                None => image.quorum_addresses.remove(&node_id),
            };
            delta.quorum_addresses_changed = true;
        }
        MetadataRecord::Default(record) => {
            image.defaults.insert(record.key.into(), record.value.map(Into::into));
            delta.defaults_changed = true;
        }
        MetadataRecord::Counters(record) => {
            image.next_broker_epoch = image.next_broker_epoch.max(record.next_broker_epoch);
            image.next_producer_id = image.next_producer_id.max(record.next_producer_id);
        }
    }
}

fn replay_topic(image: &mut MetadataImage, delta: &mut MetadataDelta, record: TopicRecord) {
    let topic_id = Uuid(record.topic_id);
    let name: Arc<str> = record.name.into();
    let taken = image.topic_ids.contains_key(&name) || image.topics.contains_key(&topic_id);
    assert!(!taken, "topic {name} is created twice");
    image.topic_ids.insert(Arc::clone(&name), topic_id);
    image.metric_names.insert(metric_name(&name).into(), Arc::clone(&name));
    let topic = TopicImage { name, topic_id, partitions: imbl::OrdMap::new() };
    image.topics.insert(topic_id, Arc::new(topic));
    delta.topic_created(topic_id);
}

fn replay_partition(image: &mut MetadataImage, delta: &mut MetadataDelta, record: PartitionRecord) {
    let (topic_id, index) = (Uuid(record.topic_id), record.partition);
    let topic = image.topics.get_mut(&topic_id).expect("a partition's topic was created before it");
    let old = Arc::make_mut(topic).partitions.insert(index, Arc::new(record.into_image()));
    image.partition_count += usize::from(old.is_none());
    delta.partition_changed(topic_id, index);
}

fn replay_remove_topic(image: &mut MetadataImage, delta: &mut MetadataDelta, topic_id: TopicId) {
    let mut name: Arc<str> = "".into();
    if let Some(topic) = image.topics.remove(&topic_id) {
        name = Arc::clone(&topic.name);
        image.partition_count -= topic.partitions.len();
        image.topic_ids.remove(&name);
        image.metric_names.remove(metric_name(&name).as_str());
        let resource = ConfigResource::topic(&name);
        if image.configs.remove(&resource).is_some() {
            delta.configs.insert(resource);
        }
    }
    if image.tombstones.insert(topic_id, image.next_tombstone).is_none() {
        image.tombstone_order.insert(image.next_tombstone, topic_id);
        image.next_tombstone += 1;
    }
    while image.tombstone_order.len() > MAX_TOMBSTONES {
        let Some((order, oldest)) = image.tombstone_order.get_min().map(|(order, oldest)| (*order, *oldest)) else {
            break;
        };
        image.tombstone_order.remove(&order);
        image.tombstones.remove(&oldest);
    }
    delta.topic_deleted(topic_id, name);
}

fn replay_config(image: &mut MetadataImage, delta: &mut MetadataDelta, record: ConfigRecord) {
    let Some(resource_type) = ConfigResourceType::from_code(record.resource_type) else {
        return; // A newer node's type: kept in the log, without meaning here.
    };
    let resource = ConfigResource { resource_type, name: record.resource_name.into() };
    let mut config = image.configs.get(&resource).map(|config| (**config).clone()).unwrap_or_default();
    match record.value {
        Some(value) => config.insert(record.key.into(), value.into()),
        None => config.remove(record.key.as_str()),
    };
    if config.is_empty() {
        image.configs.remove(&resource);
    } else {
        image.configs.insert(resource.clone(), Arc::new(config));
    }
    delta.configs.insert(resource);
}

fn replay_register_broker(image: &mut MetadataImage, delta: &mut MetadataDelta, record: RegisterBrokerRecord) {
    let node_id = NodeId(record.node_id);
    image.next_broker_epoch = image.next_broker_epoch.max(record.broker_epoch + 1);
    let registration = BrokerRegistration {
        node_id,
        broker_epoch: record.broker_epoch,
        incarnation_id: Uuid(record.incarnation_id),
        endpoints: record.endpoints.into_iter().map(endpoint).collect(),
        rack: record.rack.map(Into::into),
        log_dirs: record.log_dirs.into_iter().map(Uuid).collect(),
        fenced: record.fenced,
        served_epoch: record.served_epoch.unwrap_or(record.broker_epoch),
    };
    image.brokers.insert(node_id, Arc::new(registration));
    delta.brokers.insert(node_id);
}

fn endpoint(record: EndpointRecord) -> Endpoint {
    Endpoint {
        listener: record.listener.into(),
        host: record.host.into(),
        port: record.port,
        security_protocol: SecurityProtocol::from_code(record.security_protocol).unwrap_or_default(),
    }
}

fn replay_fence_broker(image: &mut MetadataImage, delta: &mut MetadataDelta, record: &FenceBrokerRecord) {
    let node_id = NodeId(record.node_id);
    if let Some(broker) = image.brokers.get_mut(&node_id).filter(|broker| broker.broker_epoch == record.broker_epoch) {
        let broker = Arc::make_mut(broker);
        broker.fenced = record.fenced;
        if !record.fenced {
            broker.served_epoch = record.broker_epoch;
        }
        delta.brokers.insert(node_id);
    }
}

fn replay_unregister_broker(image: &mut MetadataImage, delta: &mut MetadataDelta, record: &UnregisterBrokerRecord) {
    let node_id = NodeId(record.node_id);
    if image.brokers.get(&node_id).is_some_and(|broker| broker.broker_epoch == record.broker_epoch) {
        image.brokers.remove(&node_id);
        delta.brokers.insert(node_id);
    }
}

/// The records that build an image equal to `image` from an empty one: the body of a snapshot.
#[must_use]
pub fn dump(image: &MetadataImage) -> Vec<MetadataRecord> {
    let mut records = vec![MetadataRecord::Counters(CountersRecord {
        next_broker_epoch: image.next_broker_epoch,
        next_producer_id: image.next_producer_id,
    })];
    if !image.cluster_id.is_zero() {
        records.push(MetadataRecord::Cluster(ClusterRecord { cluster_id: image.cluster_id.0 }));
    }
    let defaults = image.defaults.iter().map(|(key, value)| default_record(key, value.as_deref()));
    records.extend(defaults.map(MetadataRecord::Default));
    let addresses = image.quorum_addresses.iter().map(|(node, address)| quorum_address_record(*node, Some(address)));
    records.extend(addresses.map(MetadataRecord::QuorumAddress));
    let tombstones = image.tombstone_order.values().map(|topic_id| RemoveTopicRecord { topic_id: topic_id.0 });
    records.extend(tombstones.map(MetadataRecord::RemoveTopic));
    records.extend(image.brokers.values().map(|broker| MetadataRecord::RegisterBroker(registration_record(broker))));
    for (topic_id, topic) in &image.topics {
        records.push(MetadataRecord::Topic(TopicRecord { topic_id: topic_id.0, name: topic.name.to_string() }));
        let partitions = topic.partitions.iter();
        records.extend(
            partitions.map(|(index, state)| MetadataRecord::Partition(PartitionRecord::of(*topic_id, *index, state))),
        );
    }
    for (resource, config) in &image.configs {
        for (key, value) in &**config {
            records.push(MetadataRecord::Config(config_record(resource, key, Some(value.to_string()))));
        }
    }
    records
}

/// The record of a registration.
pub(crate) fn registration_record(broker: &BrokerRegistration) -> RegisterBrokerRecord {
    RegisterBrokerRecord {
        node_id: broker.node_id.0,
        broker_epoch: broker.broker_epoch,
        incarnation_id: broker.incarnation_id.0,
        endpoints: broker.endpoints.iter().map(endpoint_record).collect(),
        rack: broker.rack.as_ref().map(ToString::to_string),
        log_dirs: broker.log_dirs.iter().map(|directory| directory.0).collect(),
        fenced: broker.fenced,
        served_epoch: Some(broker.served_epoch),
    }
}

fn endpoint_record(endpoint: &Endpoint) -> EndpointRecord {
    EndpointRecord {
        listener: endpoint.listener.to_string(),
        host: endpoint.host.to_string(),
        port: endpoint.port,
        security_protocol: endpoint.security_protocol.code(),
    }
}

/// The record of where a member of the quorum is reached.
pub(crate) fn quorum_address_record(node_id: NodeId, address: Option<&str>) -> QuorumAddressRecord {
    QuorumAddressRecord { node_id: node_id.0, address: address.map(str::to_owned) }
}

/// The record of what a setting of the cluster is where nothing was set.
pub(crate) fn default_record(key: &str, value: Option<&str>) -> DefaultRecord {
    DefaultRecord { key: key.to_owned(), value: value.map(str::to_owned) }
}

/// The record that sets a key of a resource, or takes it back.
pub(crate) fn config_record(resource: &ConfigResource, key: &str, value: Option<String>) -> ConfigRecord {
    ConfigRecord {
        resource_type: resource.resource_type.code(),
        resource_name: resource.name.to_string(),
        key: key.to_owned(),
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_outlives_its_topic_and_is_forgotten_last() {
        let mut image = MetadataImage::default();
        let mut delta = MetadataDelta::default();
        let topic_id = Uuid([1; 16]);
        replay(&mut image, &mut delta, MetadataRecord::Topic(TopicRecord { topic_id: topic_id.0, name: "a".into() }));
        assert!(!image.is_deleted(topic_id));
        replay(&mut image, &mut delta, MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: topic_id.0 }));
        assert!(image.is_deleted(topic_id) && image.topic("a").is_none());
        assert!(!image.is_deleted(Uuid([2; 16])), "what was never seen is not deleted");
        assert_eq!(delta.deleted_topics().count(), 1);
        image.check();
    }
}
