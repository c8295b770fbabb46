//! Metadata records as they stand in the log and in snapshots: an envelope of ours around a speedy body.
//! Invariant: the layout of a kind and version never changes; tests hold the bytes.
//!
//! Envelope, little endian: `u32 length` of what follows the checksum, `u32 crc32c` of what follows, `u16 version`, `u16 kind`, body.
//! A field is added only at the end of a body, with `default_on_eof`; anything else is a new kind. Structs inside a vector never change.

use madang_protocol::types::{LeaderEpoch, NodeId, TopicId, Uuid};
use speedy::{Endianness, Readable, Writable};
use thiserror::Error;

use crate::metadata::ReportedLoss;

/// Bytes before the body of an envelope.
const HEADER: usize = 12;
/// Version that is written.
const VERSION: u16 = 1;

/// The cluster has its id.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct ClusterRecord {
    /// The id.
    pub cluster_id: [u8; 16],
}

/// A topic exists; its partitions follow in the same entry.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct TopicRecord {
    /// Its id.
    pub topic_id: [u8; 16],
    /// Its name.
    pub name: String,
}

/// A partition is as this says.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct PartitionRecord {
    /// Its topic.
    pub topic_id: [u8; 16],
    /// Its index.
    pub partition: i32,
    /// Nodes that hold it.
    pub assigned_replicas: Vec<i32>,
    /// Nodes in sync.
    pub in_sync_replicas: Vec<i32>,
    /// Nodes that may lead though not in sync.
    pub eligible_leader_replicas: Vec<i32>,
    /// Who leads; -1 for nobody.
    pub leader: i32,
    /// Number of the leadership.
    pub leader_epoch: i32,
    /// Number of this state.
    pub partition_epoch: i32,
    /// Directory of each assigned replica; zeros where not known.
    pub directories: Vec<[u8; 16]>,
    /// Who led last, while nobody leads.
    #[speedy(default_on_eof)]
    pub last_known_leader: Option<i32>,
    /// The last epoch whose leader may have lacked acknowledged records.
    #[speedy(default_on_eof)]
    pub unclean_epoch: Option<i32>,
    /// Replicas that lost records in a living process.
    #[speedy(default_on_eof)]
    pub losses: Vec<LossRecord>,
    /// Assigned nodes that a reassignment has added.
    #[speedy(default_on_eof)]
    pub adding_replicas: Vec<i32>,
    /// Assigned nodes that go with the end of a reassignment.
    #[speedy(default_on_eof)]
    pub removing_replicas: Vec<i32>,
    /// Nodes that held it and hold it no more.
    #[speedy(default_on_eof)]
    pub former_replicas: Vec<i32>,
}

/// A replica lost records in a living process.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct LossRecord {
    /// Its node.
    pub node_id: i32,
    /// The registration in which it did.
    pub broker_epoch: i64,
    /// The replica's life that found it.
    pub incarnation: u64,
}

/// A topic is deleted: its tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct RemoveTopicRecord {
    /// Its id.
    pub topic_id: [u8; 16],
}

/// A key is set on a resource, or taken back.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct ConfigRecord {
    /// Kafka's number of the resource type.
    pub resource_type: i8,
    /// The resource.
    pub resource_name: String,
    /// The key.
    pub key: String,
    /// The value; none takes the key back.
    pub value: Option<String>,
}

/// A listener of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct EndpointRecord {
    /// Name of the listener.
    pub listener: String,
    /// Host that clients connect to.
    pub host: String,
    /// Port that clients connect to.
    pub port: u16,
    /// Kafka's number of the security protocol.
    pub security_protocol: i16,
}

/// A broker has registered.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct RegisterBrokerRecord {
    /// Its node.
    pub node_id: i32,
    /// Number of the registration.
    pub broker_epoch: i64,
    /// Names this run of the process.
    pub incarnation_id: [u8; 16],
    /// Its listeners.
    pub endpoints: Vec<EndpointRecord>,
    /// Where it stands.
    pub rack: Option<String>,
    /// Ids of its log directories.
    pub log_dirs: Vec<[u8; 16]>,
    /// Whether it is fenced.
    pub fenced: bool,
    /// The last registration of the node that was unfenced; -1 if there was none. None in records of older nodes, where each was.
    #[speedy(default_on_eof)]
    pub served_epoch: Option<i64>,
}

/// A broker is fenced or no longer fenced.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct FenceBrokerRecord {
    /// Its node.
    pub node_id: i32,
    /// The registration that is meant; another one's is left alone.
    pub broker_epoch: i64,
    /// Whether it is fenced from now on.
    pub fenced: bool,
}

/// A broker is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct UnregisterBrokerRecord {
    /// Its node.
    pub node_id: i32,
    /// The registration that is meant; another one's is left alone.
    pub broker_epoch: i64,
}

/// A block of producer ids is taken.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct ProducerIdsRecord {
    /// Who has the block.
    pub node_id: i32,
    /// The registration it had.
    pub broker_epoch: i64,
    /// The first id after the block.
    pub next_producer_id: i64,
}

/// Numbers that only grow, for snapshots: what no other record of a snapshot says.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct CountersRecord {
    /// The next registration's number.
    pub next_broker_epoch: i64,
    /// The first producer id of the next block.
    pub next_producer_id: i64,
}

/// What a setting of the cluster is where nothing was set.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct DefaultRecord {
    /// The key.
    pub key: String,
    /// The value in the controller's file; none if it has none there.
    pub value: Option<String>,
}

/// Where a member of the metadata quorum is reached by the others.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct QuorumAddressRecord {
    /// The member.
    pub node_id: i32,
    /// Host and port of its control endpoint; none once it is no member.
    pub address: Option<String>,
}

macro_rules! records {
    ($($tag:literal $variant:ident($body:ident) $doc:literal)*) => {
        /// One change of the metadata.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum MetadataRecord {
            $(#[doc = $doc] $variant($body),)*
        }

        impl MetadataRecord {
            fn kind(&self) -> u16 {
                match self { $(Self::$variant(_) => $tag,)* }
            }

            fn body(&self) -> Result<Vec<u8>, speedy::Error> {
                match self { $(Self::$variant(body) => body.write_to_vec_with_ctx(Endianness::LittleEndian),)* }
            }

            fn from_body(kind: u16, body: &[u8]) -> Result<Self, RecordError> {
                let malformed = |_: speedy::Error| RecordError::Malformed { kind };
                match kind {
                    $($tag => $body::read_from_buffer_with_ctx(Endianness::LittleEndian, body)
                        .map(Self::$variant).map_err(malformed),)*
                    kind => Err(RecordError::UnknownKind { kind }),
                }
            }
        }
    };
}

records! {
    1 Cluster(ClusterRecord) "The cluster has its id."
    2 Topic(TopicRecord) "A topic exists."
    3 Partition(PartitionRecord) "A partition is new or changed."
    4 RemoveTopic(RemoveTopicRecord) "A topic is deleted."
    5 Config(ConfigRecord) "A key is set or taken back."
    6 RegisterBroker(RegisterBrokerRecord) "A broker has registered."
    7 FenceBroker(FenceBrokerRecord) "A broker is fenced or no longer fenced."
    8 ProducerIds(ProducerIdsRecord) "A block of producer ids is taken."
    9 Counters(CountersRecord) "Numbers that only grow, in a snapshot."
    10 Default(DefaultRecord) "A setting of the cluster where nothing was set."
    11 UnregisterBroker(UnregisterBrokerRecord) "A broker is forgotten."
    12 QuorumAddress(QuorumAddressRecord) "A member of the metadata quorum is reached elsewhere, or not any more."
}

/// Why bytes are not metadata records.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The bytes end within an envelope.
    #[error("metadata record is cut short")]
    CutShort,
    /// The checksum does not match.
    #[error("metadata record fails its checksum")]
    Corrupt,
    /// A kind this build does not know: a newer node wrote it.
    #[error("metadata record of unknown kind {kind}")]
    UnknownKind {
        /// The kind.
        kind: u16,
    },
    /// The body does not have the fields of its kind.
    #[error("metadata record of kind {kind} is malformed")]
    Malformed {
        /// The kind.
        kind: u16,
    },
    /// It cannot be written: a string or list is longer than the format allows.
    #[error("metadata record cannot be encoded: {0}")]
    Unwritable(String),
}

/// Appends the envelopes of `records` to `bytes`.
///
/// # Errors
/// [`RecordError::Unwritable`]; `bytes` then holds the records before the one that failed.
pub fn encode_records(records: &[MetadataRecord], bytes: &mut Vec<u8>) -> Result<(), RecordError> {
    for record in records {
        let body = record.body().map_err(|error| RecordError::Unwritable(error.to_string()))?;
        let length = u32::try_from(body.len() + 4).map_err(|error| RecordError::Unwritable(error.to_string()))?;
        let mut checked = Vec::with_capacity(body.len() + 4);
        checked.extend_from_slice(&VERSION.to_le_bytes());
        checked.extend_from_slice(&record.kind().to_le_bytes());
        checked.extend_from_slice(&body);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&checked).to_le_bytes());
        bytes.extend_from_slice(&checked);
    }
    Ok(())
}

/// The records of `bytes`, which hold envelopes and nothing else.
///
/// # Errors
/// The first envelope that cannot be read; nothing is taken then.
pub fn decode_records(mut bytes: &[u8]) -> Result<Vec<MetadataRecord>, RecordError> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        if bytes.len() < HEADER {
            return Err(RecordError::CutShort);
        }
        let length = u32_at(bytes, 0) as usize;
        let end =
            length.checked_add(8).filter(|end| length >= 4 && *end <= bytes.len()).ok_or(RecordError::CutShort)?;
        let checked = &bytes[8..end];
        if crc32c::crc32c(checked) != u32_at(bytes, 4) {
            return Err(RecordError::Corrupt);
        }
        let kind = u16::from_le_bytes([checked[2], checked[3]]);
        records.push(MetadataRecord::from_body(kind, &checked[4..])?);
        bytes = &bytes[end..];
    }
    Ok(records)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn node_ids(raw: &[i32]) -> Vec<NodeId> {
    raw.iter().copied().map(NodeId).collect()
}

pub(crate) fn raw_ids(nodes: &[NodeId]) -> Vec<i32> {
    nodes.iter().map(|node| node.0).collect()
}

impl PartitionRecord {
    /// The record that makes a partition of topic `topic_id` what `state` says.
    #[must_use]
    pub fn of(topic_id: TopicId, partition: i32, state: &crate::metadata::PartitionImage) -> Self {
        Self {
            topic_id: topic_id.0,
            partition,
            assigned_replicas: raw_ids(&state.assigned_replicas),
            in_sync_replicas: raw_ids(&state.in_sync_replicas),
            eligible_leader_replicas: raw_ids(&state.eligible_leader_replicas),
            leader: state.leader.0,
            leader_epoch: state.leader_epoch.0,
            partition_epoch: state.partition_epoch,
            directories: state.directories.iter().map(|directory| directory.0).collect(),
            last_known_leader: Some(state.last_known_leader.0).filter(|node| *node >= 0),
            unclean_epoch: Some(state.unclean_epoch.0).filter(|epoch| *epoch >= 0),
            losses: state.losses.iter().map(LossRecord::from).collect(),
            adding_replicas: raw_ids(&state.adding_replicas),
            removing_replicas: raw_ids(&state.removing_replicas),
            former_replicas: raw_ids(&state.former_replicas),
        }
    }

    pub(crate) fn into_image(self) -> crate::metadata::PartitionImage {
        crate::metadata::PartitionImage {
            assigned_replicas: node_ids(&self.assigned_replicas),
            in_sync_replicas: node_ids(&self.in_sync_replicas),
            eligible_leader_replicas: node_ids(&self.eligible_leader_replicas),
            leader: NodeId(self.leader),
            leader_epoch: LeaderEpoch(self.leader_epoch),
            partition_epoch: self.partition_epoch,
            directories: self.directories.into_iter().map(Uuid).collect(),
            last_known_leader: self.last_known_leader.map_or(crate::metadata::NO_LEADER, NodeId),
            unclean_epoch: self.unclean_epoch.map_or(LeaderEpoch::NONE, LeaderEpoch),
            losses: self.losses.into_iter().map(Into::into).collect(),
            adding_replicas: node_ids(&self.adding_replicas),
            removing_replicas: node_ids(&self.removing_replicas),
            former_replicas: node_ids(&self.former_replicas),
        }
    }
}

impl From<&ReportedLoss> for LossRecord {
    fn from(loss: &ReportedLoss) -> Self {
        Self { node_id: loss.node_id.0, broker_epoch: loss.broker_epoch, incarnation: loss.incarnation }
    }
}

impl From<LossRecord> for ReportedLoss {
    fn from(loss: LossRecord) -> Self {
        Self { node_id: NodeId(loss.node_id), broker_epoch: loss.broker_epoch, incarnation: loss.incarnation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<(MetadataRecord, &'static str)> {
        let id = [7; 16];
        vec![
            (
                MetadataRecord::Topic(TopicRecord { topic_id: id, name: "ab".into() }),
                "1a00000039b0491f0100020007070707070707070707070707070707020000006162",
            ),
            (
                MetadataRecord::Config(ConfigRecord {
                    resource_type: 2,
                    resource_name: "a".into(),
                    key: "k".into(),
                    value: Some("v".into()),
                }),
                "15000000a272b31901000500020100000061010000006b010100000076",
            ),
            (
                MetadataRecord::UnregisterBroker(UnregisterBrokerRecord { node_id: 2, broker_epoch: 5 }),
                "10000000267855ed01000b00020000000500000000000000",
            ),
            (
                MetadataRecord::QuorumAddress(QuorumAddressRecord { node_id: 2, address: Some("a:1".into()) }),
                "10000000e491426601000c00020000000103000000613a31",
            ),
        ]
    }

    #[test]
    fn the_bytes_of_records_never_change() {
        for (record, golden) in samples() {
            let mut bytes = Vec::new();
            encode_records(std::slice::from_ref(&record), &mut bytes).unwrap();
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(text, golden);
            assert_eq!(decode_records(&bytes), Ok(vec![record]));
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_noticed() {
        let records: Vec<_> = samples().into_iter().map(|(record, _)| record).collect();
        let mut bytes = Vec::new();
        encode_records(&records, &mut bytes).unwrap();
        let mut ends = vec![0];
        while let Some(end) = ends.last().copied().filter(|end| *end < bytes.len()) {
            ends.push(end + 8 + u32_at(&bytes, end) as usize);
        }
        for end in 1..bytes.len() {
            assert_eq!(decode_records(&bytes[..end]).is_ok(), ends.contains(&end), "cut at {end}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(decode_records(&damaged), Ok(records.clone()), "bit {bit}");
        }
    }

    #[test]
    fn an_unknown_kind_is_refused_by_name() {
        let mut checked = vec![1, 0, 99, 0];
        checked.extend_from_slice(b"body");
        let mut bytes = 8_u32.to_le_bytes().to_vec();
        bytes.extend_from_slice(&crc32c::crc32c(&checked).to_le_bytes());
        bytes.extend_from_slice(&checked);
        assert_eq!(decode_records(&bytes), Err(RecordError::UnknownKind { kind: 99 }));
    }

    #[test]
    fn a_partition_of_an_older_node_has_no_history_of_losses_and_no_reassignment() {
        let id = [7; 16];
        let old = PartitionRecord {
            topic_id: id,
            partition: 3,
            assigned_replicas: vec![1, 2],
            in_sync_replicas: vec![1],
            eligible_leader_replicas: vec![2],
            leader: 1,
            leader_epoch: 4,
            partition_epoch: 9,
            directories: vec![[0; 16]; 2],
            last_known_leader: None,
            unclean_epoch: None,
            losses: Vec::new(),
            adding_replicas: Vec::new(),
            removing_replicas: Vec::new(),
            former_replicas: Vec::new(),
        };
        let mut body = MetadataRecord::Partition(old.clone()).body().unwrap();
        // An older node's record ends before the fields that were added: three empty lists, and before them two absent ones and an empty list.
        for added_since in [12, 6] {
            body.truncate(body.len() - added_since);
            assert_eq!(MetadataRecord::from_body(3, &body), Ok(MetadataRecord::Partition(old.clone())));
        }
        let loss = LossRecord { node_id: 2, broker_epoch: 8, incarnation: 5 };
        let new = PartitionRecord {
            last_known_leader: Some(2),
            unclean_epoch: Some(4),
            losses: vec![loss],
            adding_replicas: vec![2],
            removing_replicas: vec![1],
            former_replicas: vec![3],
            ..old
        };
        let image = new.clone().into_image();
        assert_eq!(
            PartitionRecord::of(TopicId::default(), 3, &image),
            PartitionRecord { topic_id: [0; 16], ..new.clone() }
        );
        let body = MetadataRecord::Partition(new.clone()).body().unwrap();
        assert_eq!(MetadataRecord::from_body(3, &body), Ok(MetadataRecord::Partition(new)));
    }

    #[test]
    fn fields_that_a_newer_node_adds_at_the_end_are_ignored() {
        let mut body = [7_u8; 16].to_vec();
        body.extend_from_slice(b"newer");
        assert_eq!(
            MetadataRecord::from_body(4, &body),
            Ok(MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: [7; 16] }))
        );
    }
}
