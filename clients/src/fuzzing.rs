//! What the fuzz targets call: everything that reads what a broker or another member sent, behind its decoder. Not an API.

use std::sync::Arc;

use bytes::Bytes;
use madang_protocol::messages::fetch::PartitionData;
use madang_protocol::messages::metadata::MetadataResponse;
use madang_protocol::types::Offset;

use crate::consumer::read_fetched;
use crate::group::assignor::Assignor;
use crate::group::wire;
use crate::metadata::Metadata;

const ALL: [Assignor; 4] = [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky, Assignor::CooperativeSticky];

/// What a member says of itself, and an assignment of partitions to it and to one that says the opposite.
pub fn subscription(which: u8, metadata: &Bytes) {
    let assignor = ALL[usize::from(which) % ALL.len()];
    let Ok(first) = wire::subscriber(assignor, "a", None, metadata) else { return };
    let Ok(second) = wire::subscriber(assignor, "b", Some("i"), metadata) else { return };
    let partitions = first.topics.iter().take(20).map(|topic| (topic.clone(), 3)).collect();
    let members = [first, second];
    let assigned = assignor.assign(&members, &partitions);
    assert_eq!(assigned.len(), members.len());
}

/// What the leader of a group assigns.
pub fn assignment(bytes: &Bytes) {
    drop(wire::assignment(bytes));
}

/// An answer that says what the cluster is.
pub fn metadata(answer: MetadataResponse<'_>) {
    let metadata = Metadata::of(answer);
    for topic in metadata.topics.values() {
        for partition in &topic.partitions {
            drop(metadata.leader(&topic.name, partition.partition));
        }
    }
}

/// One partition of an answer to a fetch from `offset`: records do not go back, and reading comes to an end.
pub fn fetched(data: PartitionData, offset: i64) {
    let offset = Offset(offset.max(0));
    let end = read_fetched((Arc::from("t"), data.partition_index), data, offset);
    assert!(end >= offset, "the position went back");
}
