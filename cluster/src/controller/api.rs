//! What the controller can be asked, and what it answers. Errors are Kafka's codes with the texts that clients show.
//! Nodes send both to each other, so the order of fields and the tags are a layout on the wire, which the tests of `peers` hold: no struct
//! here gets another field; what is new is a variant with a new tag, or a field of the message around it.

use std::collections::BTreeMap;
use std::sync::Arc;

use madang_protocol::ErrorCode;
use madang_protocol::types::{LeaderEpoch, NodeId, TopicId, TopicPartition, Uuid};
use madang_storage::RestartKind;
use speedy::{Readable, Writable};

use super::MemberChange;
use super::QuorumDescription;
use crate::metadata::{ConfigResourceType, Endpoint};
use crate::replica::replication::IsrMember;

/// Producer ids in one block.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// Most partitions that one request may create.
pub const MAX_PARTITIONS_PER_REQUEST: usize = 100_000;

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// Kafka's code.
    pub error: ErrorCode,
    /// What to show; none for the code's own text.
    pub message: Option<Arc<str>>,
}

impl ApiError {
    /// An error with a text of its own.
    #[must_use]
    pub fn new(error: ErrorCode, message: impl Into<Arc<str>>) -> Self {
        Self { error, message: Some(message.into()) }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(error: ErrorCode) -> Self {
        Self { error, message: None }
    }
}

/// How one part of a request ended.
pub type ApiResult<T> = Result<T, ApiError>;

/// A topic to create.
#[derive(Clone, Debug, Default, PartialEq, Eq, Readable, Writable)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; -1 for `num.partitions`, or if `assignments` says.
    pub partitions: i32,
    /// How many replicas; -1 for `default.replication.factor`, or if `assignments` says.
    pub replication_factor: i16,
    /// Pairs of partition and its replicas, preferred leader first; empty to let the controller place them.
    pub assignments: Vec<(i32, Vec<NodeId>)>,
    /// Keys to set; a key without a value is refused.
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic that was created, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id; zero if it was only validated.
    pub topic_id: TopicId,
    /// Its partitions.
    pub partitions: i32,
    /// Its replicas.
    pub replication_factor: i16,
    /// The keys that were set on it. All others hold what `configs::describe_topic` says.
    pub configs: BTreeMap<Arc<str>, Arc<str>>,
}

/// Which topic is meant.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
#[speedy(tag_type = u16)]
pub enum TopicRef {
    /// The one that has the name now.
    #[speedy(tag = 0)]
    Name(String),
    /// The one that has the id.
    #[speedy(tag = 1)]
    Id(TopicId),
}

/// A topic that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// The name it had.
    pub name: Arc<str>,
    /// The id it had.
    pub topic_id: TopicId,
}

/// A topic that shall have more partitions.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct MorePartitions {
    /// Its name.
    pub name: String,
    /// How many partitions it shall have in all.
    pub count: i32,
    /// Replicas of each new partition, in order; none to let the controller place them.
    pub assignments: Option<Vec<Vec<NodeId>>>,
}

/// What to do to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Readable, Writable)]
#[speedy(tag_type = u16)]
pub enum AlterOp {
    /// Give it the value.
    #[speedy(tag = 0)]
    Set,
    /// Take its value back.
    #[speedy(tag = 1)]
    Delete,
    /// Add items to a list.
    #[speedy(tag = 2)]
    Append,
    /// Take items from a list.
    #[speedy(tag = 3)]
    Subtract,
}

impl AlterOp {
    /// The operation of Kafka's number; none if there is no such operation.
    #[must_use]
    pub const fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Set),
            1 => Some(Self::Delete),
            2 => Some(Self::Append),
            3 => Some(Self::Subtract),
            _ => None,
        }
    }

    /// Kafka's name of the operation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Set => "SET",
            Self::Delete => "DELETE",
            Self::Append => "APPEND",
            Self::Subtract => "SUBTRACT",
        }
    }
}

/// One change to one key.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct ConfigAlteration {
    /// The key.
    pub key: String,
    /// What to do.
    pub op: AlterOp,
    /// With what.
    pub value: Option<String>,
}

/// Changes to one resource. The type is Kafka's number as it came, so that an unknown one gets its own error.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct ResourceAlteration {
    /// Kafka's number of the resource type.
    pub resource_type: i8,
    /// The resource.
    pub name: String,
    /// The changes.
    pub alterations: Vec<ConfigAlteration>,
}

impl ResourceAlteration {
    /// The type; none if its number is unknown.
    #[must_use]
    pub const fn kind(&self) -> Option<ConfigResourceType> {
        ConfigResourceType::from_code(self.resource_type)
    }
}

/// All keys of one resource, replacing what was set before.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct ResourceReplacement {
    /// Kafka's number of the resource type.
    pub resource_type: i8,
    /// The resource.
    pub name: String,
    /// The keys.
    pub configs: Vec<(String, Option<String>)>,
}

/// A broker that starts.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct RegisterBroker {
    /// Its node.
    pub node_id: NodeId,
    /// Names this run of the process.
    pub incarnation_id: Uuid,
    /// Its listeners.
    pub endpoints: Vec<Endpoint>,
    /// Where it stands.
    pub rack: Option<String>,
    /// Ids of its log directories.
    pub log_dirs: Vec<Uuid>,
    /// How they were left. One that is not named here counts as lossy.
    pub starts: Vec<LogDirStart>,
}

/// How a log directory was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogDirStart {
    /// Its id.
    pub directory: Uuid,
    /// What it says of itself.
    pub kind: RestartKind,
    /// The registration that its own file names: the last one it served under.
    pub broker_epoch: i64,
}

/// A leader's proposal of another in-sync set.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct AlterPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// The leader.
    pub node_id: NodeId,
    /// Its registration.
    pub broker_epoch: i64,
    /// Its leadership.
    pub leader_epoch: LeaderEpoch,
    /// The state it would change.
    pub partition_epoch: i32,
    /// The set, the leader included.
    pub in_sync_replicas: Vec<IsrMember>,
}

/// A replica's word that it has found less than it had published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Readable, Writable)]
pub struct ReportLoss {
    /// The partition.
    pub partition: TopicPartition,
    /// The node.
    pub node_id: NodeId,
    /// Its registration.
    pub broker_epoch: i64,
    /// The replica's life that found it.
    pub incarnation: u64,
}

/// A topic that brokers need for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Readable, Writable)]
#[speedy(tag_type = u16)]
pub enum InternalTopic {
    /// `__consumer_offsets`.
    #[speedy(tag = 0)]
    ConsumerOffsets,
    /// `__transaction_state`.
    #[speedy(tag = 1)]
    TransactionState,
}

impl InternalTopic {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ConsumerOffsets => "__consumer_offsets",
            Self::TransactionState => "__transaction_state",
        }
    }
}

/// A partition by its topic's name.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct NamedPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's index.
    pub partition: i32,
}

/// Where a partition is to be.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct Reassignment {
    /// The partition.
    pub partition: NamedPartition,
    /// The nodes that are to hold it, the preferred leader first; none to give up what is in progress.
    pub replicas: Option<Vec<NodeId>>,
}

/// Something to change.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
#[speedy(tag_type = u16)]
pub enum Proposal {
    /// Create topics, each on its own.
    #[speedy(tag = 0)]
    CreateTopics {
        /// The topics.
        topics: Vec<NewTopic>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Delete topics, each on its own.
    #[speedy(tag = 1)]
    DeleteTopics(Vec<TopicRef>),
    /// Add partitions, each topic on its own.
    #[speedy(tag = 2)]
    CreatePartitions {
        /// The topics.
        topics: Vec<MorePartitions>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Change keys, each resource on its own.
    #[speedy(tag = 3)]
    IncrementalAlterConfigs {
        /// The resources.
        resources: Vec<ResourceAlteration>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Replace all keys, each resource on its own.
    #[speedy(tag = 4)]
    AlterConfigs {
        /// The resources.
        resources: Vec<ResourceReplacement>,
        /// Only say what would happen.
        validate_only: bool,
    },
    /// Create an internal topic if it does not exist.
    #[speedy(tag = 5)]
    CreateInternalTopic(InternalTopic),
    /// Register a broker: its old registration is fenced first, and the leader epoch of all that it led is raised. The new one is fenced until
    /// [`Proposal::UnfenceBroker`], which the node asks for once its directories name it.
    #[speedy(tag = 6)]
    RegisterBroker(RegisterBroker),
    /// Take a block of producer ids.
    #[speedy(tag = 7)]
    AllocateProducerIds {
        /// Who asks.
        node_id: NodeId,
        /// The registration it has.
        broker_epoch: i64,
    },
    /// Fence a broker: it leads nothing and is in no in-sync set until it is unfenced or registers anew.
    #[speedy(tag = 8)]
    FenceBroker {
        /// Who.
        node_id: NodeId,
        /// The registration that is meant.
        broker_epoch: i64,
    },
    /// The broker has noted its registration and comes to serve, or is heard of again.
    #[speedy(tag = 9)]
    UnfenceBroker {
        /// Who.
        node_id: NodeId,
        /// The registration that is meant.
        broker_epoch: i64,
    },
    /// Change a partition's in-sync set.
    #[speedy(tag = 10)]
    AlterPartition(AlterPartition),
    /// A replica lost records inside a living process.
    #[speedy(tag = 11)]
    ReportLoss(ReportLoss),
    /// Make the first replicas lead, each partition on its own.
    #[speedy(tag = 12)]
    ElectPreferredLeaders(Vec<TopicPartition>),
    /// Change the in-sync sets of several partitions of one leader, each on its own.
    #[speedy(tag = 13)]
    AlterPartitions(Vec<AlterPartition>),
    /// Have other leaders, each partition on its own.
    #[speedy(tag = 14)]
    ElectLeaders {
        /// Any replica that is alive, where nobody else may lead; else the first one.
        unclean: bool,
        /// The partitions; none for all.
        partitions: Option<Vec<NamedPartition>>,
    },
    /// Move partitions to other nodes, or give up moving them, each on its own (KIP-455).
    #[speedy(tag = 15)]
    AlterReassignments {
        /// What is to become of them.
        reassignments: Vec<Reassignment>,
        /// Whether a partition may have another number of replicas afterwards.
        allow_factor_change: bool,
    },
    /// Forget a broker: it is in no in-sync set, and no replica of its counts any more.
    #[speedy(tag = 16)]
    UnregisterBroker(NodeId),
    /// Tell how far the voters are. Changes nothing, and is answered by the leader of the quorum at once.
    #[speedy(tag = 17)]
    DescribeQuorum,
    /// The broker cannot serve its replicas of these partitions: their log directory has failed, or they cannot be opened.
    #[speedy(tag = 18)]
    GiveUpReplicas {
        /// Whose.
        node_id: NodeId,
        /// The registration it has.
        broker_epoch: i64,
        /// The partitions, and the first life of each replica that may count again; [`ReportedLoss::GIVEN_UP`] if none of this registration may.
        ///
        /// [`ReportedLoss::GIVEN_UP`]: crate::metadata::ReportedLoss::GIVEN_UP
        partitions: Vec<(TopicPartition, u64)>,
    },
    /// Count a node among those who copy the metadata log, and note where it is reached. Decided once it is so.
    #[speedy(tag = 19)]
    JoinQuorum {
        /// Whose copy.
        node_id: NodeId,
        /// Host and port of its control endpoint.
        address: String,
    },
    /// Change who votes on the metadata, and who copies it, in one step.
    #[speedy(tag = 20)]
    ChangeQuorum(Vec<MemberChange>),
}

/// The answer to a proposal; lists have one result for each part asked, in order.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
#[speedy(tag_type = u16)]
pub enum Outcome {
    /// Topics created.
    #[speedy(tag = 0)]
    CreateTopics(Vec<ApiResult<CreatedTopic>>),
    /// Topics deleted.
    #[speedy(tag = 1)]
    DeleteTopics(Vec<ApiResult<DeletedTopic>>),
    /// Partitions added.
    #[speedy(tag = 2)]
    CreatePartitions(Vec<ApiResult<()>>),
    /// Configurations changed, by either call.
    #[speedy(tag = 3)]
    AlterConfigs(Vec<ApiResult<()>>),
    /// The internal topic's id.
    #[speedy(tag = 4)]
    InternalTopic(TopicId),
    /// The new registration's broker epoch.
    #[speedy(tag = 5)]
    Registered(i64),
    /// A block of [`PRODUCER_ID_BLOCK`] producer ids.
    #[speedy(tag = 6)]
    ProducerIds {
        /// The first of them.
        first: i64,
        /// How many.
        count: i64,
    },
    /// Whether the broker is fenced now.
    #[speedy(tag = 7)]
    Fenced(bool),
    /// The in-sync set is as proposed.
    #[speedy(tag = 8)]
    AlterPartition {
        /// The partition's state that says so.
        partition_epoch: i32,
    },
    /// The replica is counted on no more.
    #[speedy(tag = 9)]
    LossReported,
    /// Leaders elected.
    #[speedy(tag = 10)]
    PreferredLeaders(Vec<ApiResult<()>>),
    /// In-sync sets changed: the partition's state that says so.
    #[speedy(tag = 11)]
    AlterPartitions(Vec<ApiResult<i32>>),
    /// Leaders elected: of all partitions those that needed none are left out.
    #[speedy(tag = 12)]
    ElectedLeaders(Vec<(NamedPartition, ApiResult<()>)>),
    /// Reassignments begun, changed or given up.
    #[speedy(tag = 13)]
    Reassigned(Vec<ApiResult<()>>),
    /// The broker is forgotten.
    #[speedy(tag = 14)]
    Unregistered,
    /// How far the voters are.
    #[speedy(tag = 15)]
    Quorum(QuorumDescription),
    /// Nobody counts on the replicas any more.
    #[speedy(tag = 16)]
    ReplicasGivenUp,
    /// The members of the quorum are as asked.
    #[speedy(tag = 17)]
    QuorumChanged,
}
