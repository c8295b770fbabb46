//! Registrations of brokers and blocks of producer ids.
//! Invariant: broker epochs are unique and only grow; a new one is given only after the old one is fenced, in the same entry.

use std::sync::Arc;

use madang_protocol::ErrorCode;
use madang_protocol::types::{NodeId, TopicId};

use super::api::{ApiResult, Outcome, PRODUCER_ID_BLOCK, RegisterBroker};
use super::draft::Draft;
use super::partitions::after_restart;
use super::records::{FenceBrokerRecord, MetadataRecord, PartitionRecord, ProducerIdsRecord};
use super::replay::registration_record;
use crate::metadata::BrokerRegistration;

pub(super) fn register(draft: &mut Draft<'_>, broker: RegisterBroker) -> i64 {
    let node_id = broker.node_id;
    if let Some(old) = draft.image.broker(node_id).filter(|old| !old.fenced).cloned() {
        let fence = FenceBrokerRecord { node_id: node_id.0, broker_epoch: old.broker_epoch, fenced: true };
        draft.push(MetadataRecord::FenceBroker(fence));
    }
    let broker_epoch = draft.image.next_broker_epoch;
    let registration = BrokerRegistration {
        node_id,
        broker_epoch,
        incarnation_id: broker.incarnation_id,
        endpoints: broker.endpoints,
        rack: broker.rack.map(Arc::from),
        log_dirs: broker.log_dirs,
        fenced: false,
    };
    let changes = restarted_partitions(draft, node_id);
    draft.push(MetadataRecord::RegisterBroker(registration_record(&registration)));
    for record in changes {
        draft.push(MetadataRecord::Partition(record));
    }
    broker_epoch
}

fn restarted_partitions(draft: &Draft<'_>, node_id: NodeId) -> Vec<PartitionRecord> {
    let mut changes = Vec::new();
    let mut look = |topic_id: TopicId, index: i32, state: &Arc<crate::metadata::PartitionImage>| {
        if let Some(next) = after_restart(draft, state, node_id) {
            changes.push(PartitionRecord::of(topic_id, index, &next));
        }
    };
    for (topic_id, topic) in &draft.image.topics {
        topic.partitions.iter().for_each(|(index, state)| look(*topic_id, *index, state));
    }
    changes
}

pub(super) fn allocate_producer_ids(draft: &mut Draft<'_>, node_id: NodeId, broker_epoch: i64) -> ApiResult<Outcome> {
    let broker = draft.image.broker(node_id).ok_or(ErrorCode::BrokerIdNotRegistered)?;
    if broker.broker_epoch != broker_epoch {
        return Err(ErrorCode::StaleBrokerEpoch.into());
    }
    let first = draft.image.next_producer_id();
    let next_producer_id = first.checked_add(PRODUCER_ID_BLOCK).ok_or(ErrorCode::UnknownServerError)?;
    let record = ProducerIdsRecord { node_id: node_id.0, broker_epoch, next_producer_id };
    draft.push(MetadataRecord::ProducerIds(record));
    Ok(Outcome::ProducerIds { first, count: PRODUCER_ID_BLOCK })
}
