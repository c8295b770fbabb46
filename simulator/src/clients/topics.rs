//! What clients ask about and of topics: lists, creations, deletions, settings.
//! Invariant: what is acknowledged is promised in the history; what is about to be deleted no longer is.

use std::collections::BTreeMap;
use std::rc::Rc;

use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use madang_protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use madang_protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use madang_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use madang_protocol::messages::metadata::MetadataRequest;
use madang_protocol::types::{TopicId, TopicPartition};

use crate::clients::wire::{Link, decode, error};
use crate::clients::{Clients, Target};
use crate::cover;
use crate::invariants::metadata::{self, Listed};

const TIMEOUT_MS: i32 = 5000;
/// The kind of a topic among resources.
const TOPIC: i8 = 2;
const SET: i8 = 0;

/// Asks for all topics; what they are, and the partitions that clients may write to are known from then on.
pub async fn refresh(clients: &Clients, link: &mut Link) -> Option<Vec<Listed>> {
    let sim = &clients.sim;
    let version = [13, 12, 10].get(sim.below(3) as usize).copied().unwrap_or(12);
    let asked = (sim.now(), clients.version_at(link.at()));
    let request = MetadataRequest { topics: None, allow_auto_topic_creation: false, ..MetadataRequest::default() };
    let frame = link.call(clients, version, &request).await.ok()?;
    let answer = decode::<MetadataRequest<'_>>(sim, &frame, version)?;
    let mut listed = Vec::new();
    let (mut targets, mut leaders) = (Vec::new(), BTreeMap::new());
    for topic in answer.topics.iter().filter(|topic| topic.error_code == 0) {
        let name: Rc<str> = topic.name.as_deref().unwrap_or_default().into();
        let partitions = i32::try_from(topic.partitions.len()).unwrap_or(0);
        listed.push(Listed { name: name.to_string(), topic_id: topic.topic_id, partitions });
        leaders.extend(topic.partitions.iter().filter_map(|one| {
            let partition = TopicPartition { topic_id: topic.topic_id, partition: one.partition_index };
            let fresh = (clients.place_of(one.leader_id)?, one.leader_epoch);
            // As real clients do: a node that is cut off tells of a leadership that has ended.
            let known = clients.leaders.borrow().get(&partition).copied().filter(|known| known.1 > fresh.1);
            Some((partition, known.unwrap_or(fresh)))
        }));
        if topic.is_internal {
            continue;
        }
        targets.extend(topic.partitions.iter().map(|one| Target {
            topic: Rc::clone(&name),
            partition: TopicPartition { topic_id: topic.topic_id, partition: one.partition_index },
        }));
    }
    metadata::listed(sim, asked, &listed);
    targets.sort();
    *clients.targets.borrow_mut() = targets;
    *clients.leaders.borrow_mut() = leaders;
    Some(listed)
}

/// Creates a topic; true if it is there now.
pub async fn create(
    clients: &Clients,
    link: &mut Link,
    name: &str,
    partitions: i32,
    configs: &[(&str, String)],
) -> bool {
    let version = if clients.sim.chance(1, 2) { 7 } else { 5 };
    let set = |(name, value): &(&'static str, String)| CreatableTopicConfig {
        name: (*name).into(),
        value: Some(value.clone().into()),
    };
    let configs: Vec<(&'static str, String)> =
        configs.iter().filter_map(|(name, value)| Some((known_key(name)?, value.clone()))).collect();
    let topic = CreatableTopic {
        name: name.to_owned().into(),
        num_partitions: partitions,
        replication_factor: i16::try_from(clients.sim.swarm.replicas()).unwrap_or(1),
        configs: configs.iter().map(set).collect(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, validate_only: false };
    let Ok(frame) = link.call(clients, version, &request).await else { return false };
    let Some(answer) = decode::<CreateTopicsRequest<'_>>(&clients.sim, &frame, version) else { return false };
    let Some(created) = answer.topics.first() else { return false };
    match error(created.error_code) {
        ErrorCode::None => {
            if version >= 7 {
                metadata::promised(&clients.sim, name, created.topic_id, partitions, clients.newest_version());
            }
            true
        }
        // An earlier attempt whose answer was lost.
        ErrorCode::TopicAlreadyExists => true,
        error => {
            clients.sim.require(error != ErrorCode::InvalidConfig, "SWARM", || format!("{created:?}"));
            false
        }
    }
}

fn known_key(name: &str) -> Option<&'static str> {
    ["cleanup.policy", "retention.bytes", "min.cleanable.dirty.ratio", "segment.bytes"]
        .into_iter()
        .find(|key| *key == name)
}

/// Deletes a topic by id.
pub async fn delete(clients: &Clients, link: &mut Link, name: &str, topic_id: TopicId) {
    metadata::doomed(&clients.sim, name, topic_id);
    let topic = DeleteTopicState { name: None, topic_id };
    let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, ..DeleteTopicsRequest::default() };
    let Ok(frame) = link.call(clients, 6, &request).await else { return };
    let Some(answer) = decode::<DeleteTopicsRequest<'_>>(&clients.sim, &frame, 6) else { return };
    if answer.responses.iter().any(|one| one.error_code == 0) {
        cover!("topic deletion acknowledged");
        metadata::deleted(&clients.sim, topic_id);
    }
}

/// Gives a topic more partitions.
pub async fn grow(clients: &Clients, link: &mut Link, name: &str, topic_id: TopicId, count: i32) {
    let topic = CreatePartitionsTopic { name: name.to_owned().into(), count, assignments: None };
    let request = CreatePartitionsRequest { topics: vec![topic], timeout_ms: TIMEOUT_MS, validate_only: false };
    let Ok(frame) = link.call(clients, 3, &request).await else { return };
    let Some(answer) = decode::<CreatePartitionsRequest<'_>>(&clients.sim, &frame, 3) else { return };
    if answer.results.iter().any(|one| one.error_code == 0) {
        cover!("partitions added");
        metadata::promised(&clients.sim, name, topic_id, count, clients.newest_version());
    }
}

/// Sets keys of a topic; true if that was acknowledged.
pub async fn configure(clients: &Clients, link: &mut Link, name: &str, configs: &[(&'static str, String)]) -> bool {
    let set = |(name, value): &(&'static str, String)| AlterableConfig {
        name: (*name).into(),
        config_operation: SET,
        value: Some(value.clone().into()),
    };
    let resource = AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: name.to_owned().into(),
        configs: configs.iter().map(set).collect(),
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let Ok(frame) = link.call(clients, 1, &request).await else { return false };
    let answer = decode::<IncrementalAlterConfigsRequest<'_>>(&clients.sim, &frame, 1);
    answer.is_some_and(|answer| answer.responses.iter().all(|one| one.error_code == 0))
}
