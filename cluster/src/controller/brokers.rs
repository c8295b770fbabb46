//! Registrations of brokers, their fencing, and blocks of producer ids.
//! Invariant: broker epochs are unique and only grow; a new one is given only after the old one is fenced, in the same entry, and serves nobody
//! before it is unfenced: until then the node's directories may still name the one before.

use std::sync::Arc;

use madang_protocol::ErrorCode;
use madang_protocol::types::{NodeId, Uuid};
use madang_storage::{RestartKind, mutants::mutant};

use super::api::{ApiError, ApiResult, LogDirStart, Outcome, PRODUCER_ID_BLOCK, RegisterBroker};
use super::draft::Draft;
use super::elections;
use super::records::{FenceBrokerRecord, MetadataRecord, ProducerIdsRecord, UnregisterBrokerRecord};
use super::replay::registration_record;
use crate::metadata::{BrokerRegistration, PartitionImage};

pub(super) fn register(draft: &mut Draft<'_>, broker: RegisterBroker) -> i64 {
    let node_id = broker.node_id;
    let old = draft.image.broker(node_id).cloned();
    if let Some(old) = old.as_ref().filter(|old| old.incarnation_id == broker.incarnation_id) {
        // The same process, which has not heard of the answer: another epoch would tell it that it was replaced.
        return old.broker_epoch;
    }
    if let Some(old) = old.as_ref().filter(|old| !old.fenced) {
        let fence = FenceBrokerRecord { node_id: node_id.0, broker_epoch: old.broker_epoch, fenced: true };
        draft.push(MetadataRecord::FenceBroker(fence));
    }
    let changes = match &old {
        Some(old) => {
            let is_lossy = |state: &PartitionImage| is_lossy(node_id, state, old, &broker.log_dirs, &broker.starts);
            elections::restarted(draft, node_id, is_lossy)
        }
        // Nothing was ever counted on it.
        None => Vec::new(),
    };
    let broker_epoch = draft.image.next_broker_epoch - i64::from(mutant(73));
    let registration = BrokerRegistration {
        node_id,
        broker_epoch,
        incarnation_id: broker.incarnation_id,
        endpoints: broker.endpoints,
        rack: broker.rack.map(Arc::from),
        log_dirs: broker.log_dirs,
        fenced: true,
        served_epoch: old.as_ref().map_or(-1, |old| old.served_epoch),
    };
    draft.push(MetadataRecord::RegisterBroker(registration_record(&registration)));
    for record in changes {
        draft.push(record);
    }
    broker_epoch
}

/// Whether the replica may lack what it was counted on for. What a directory says of itself is believed only if it names the last registration
/// that served, or one since then that was noted there and never served: else it is an older copy.
fn is_lossy(
    node_id: NodeId,
    state: &PartitionImage,
    old: &BrokerRegistration,
    log_dirs: &[Uuid],
    starts: &[LogDirStart],
) -> bool {
    let kept = |directory: &Uuid| {
        let start = starts.iter().find(|start| start.directory == *directory);
        let believed =
            start.filter(|start| [old.broker_epoch, old.served_epoch].contains(&start.broker_epoch) || mutant(7));
        let kind = believed.map_or(RestartKind::Lossy, |start| start.kind);
        log_dirs.contains(directory) && (kind != RestartKind::Lossy || mutant(7))
    };
    let place = state.assigned_replicas.iter().position(|node| *node == node_id);
    match place.and_then(|place| state.directories.get(place)).filter(|directory| !directory.is_zero()) {
        Some(directory) => !kept(directory),
        // In one of those that there were.
        None => old.log_dirs.is_empty() || !old.log_dirs.iter().all(kept),
    }
}

pub(super) fn set_fenced(
    draft: &mut Draft<'_>,
    node_id: NodeId,
    broker_epoch: i64,
    fenced: bool,
) -> ApiResult<Outcome> {
    let broker = draft.image.broker(node_id).ok_or(ErrorCode::BrokerIdNotRegistered)?;
    if broker.broker_epoch != broker_epoch {
        return Err(ErrorCode::StaleBrokerEpoch.into());
    }
    if broker.fenced != fenced {
        draft.push(MetadataRecord::FenceBroker(FenceBrokerRecord { node_id: node_id.0, broker_epoch, fenced }));
        let changes = if fenced { elections::fenced(draft, node_id) } else { elections::unfenced(draft, node_id) };
        changes.into_iter().for_each(|record| draft.push(record));
    }
    Ok(Outcome::Fenced(fenced))
}

/// Forgets a broker. Whatever comes back under its number may lack what it held, so nothing of it counts any more.
pub(super) fn unregister(draft: &mut Draft<'_>, node_id: NodeId) -> ApiResult<Outcome> {
    let Some(broker) = draft.image.broker(node_id).cloned() else {
        let message = format!("Broker ID {node_id} is not currently registered.");
        return Err(ApiError::new(ErrorCode::BrokerIdNotRegistered, message));
    };
    let broker_epoch = broker.broker_epoch;
    if !broker.fenced {
        draft.push(MetadataRecord::FenceBroker(FenceBrokerRecord { node_id: node_id.0, broker_epoch, fenced: true }));
    }
    let changes = elections::restarted(draft, node_id, |_| true);
    draft.push(MetadataRecord::UnregisterBroker(UnregisterBrokerRecord { node_id: node_id.0, broker_epoch }));
    changes.into_iter().for_each(|record| draft.push(record));
    Ok(Outcome::Unregistered)
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
