//! The committed metadata as one immutable value. A copy is cheap: copies share all that is equal.
//! Invariant: it changes only by `controller::records::replay`; names and ids of topics always agree.

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::OrdMap;
use madang_protocol::types::{LeaderEpoch, NodeId, TopicId, TopicPartition, Uuid};

/// Stands for "nobody leads".
pub const NO_LEADER: NodeId = NodeId(-1);

/// How many tombstones of deleted topics the image remembers; the oldest are forgotten first.
pub const MAX_TOMBSTONES: usize = 100_000;

/// Keys and values that were set on one resource.
pub type ConfigMap = BTreeMap<Arc<str>, Arc<str>>;

/// What a configuration can be set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i8)]
pub enum ConfigResourceType {
    /// A topic, by name.
    Topic = 2,
    /// A broker, by its node id in decimal; the empty name stands for all brokers.
    Broker = 4,
    /// A broker's loggers.
    BrokerLogger = 8,
    /// A client metrics subscription.
    ClientMetrics = 16,
    /// A group, by id.
    Group = 32,
}

impl ConfigResourceType {
    /// Kafka's number of the type.
    #[must_use]
    pub const fn code(self) -> i8 {
        self as i8
    }

    /// The type of Kafka's number; none if there is no such type.
    #[must_use]
    pub const fn from_code(code: i8) -> Option<Self> {
        match code {
            2 => Some(Self::Topic),
            4 => Some(Self::Broker),
            8 => Some(Self::BrokerLogger),
            16 => Some(Self::ClientMetrics),
            32 => Some(Self::Group),
            _ => None,
        }
    }
}

/// One thing that a configuration is set on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigResource {
    /// Its type.
    pub resource_type: ConfigResourceType,
    /// Its name, as [`ConfigResourceType`] says.
    pub name: Arc<str>,
}

impl ConfigResource {
    /// A topic.
    #[must_use]
    pub fn topic(name: &str) -> Self {
        Self { resource_type: ConfigResourceType::Topic, name: name.into() }
    }

    /// One broker.
    #[must_use]
    pub fn broker(node: NodeId) -> Self {
        Self { resource_type: ConfigResourceType::Broker, name: node.to_string().into() }
    }

    /// All brokers.
    #[must_use]
    pub fn default_broker() -> Self {
        Self { resource_type: ConfigResourceType::Broker, name: "".into() }
    }
}

/// How a listener is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum SecurityProtocol {
    /// Neither encrypted nor authenticated.
    #[default]
    Plaintext = 0,
    /// TLS.
    Ssl = 1,
    /// SASL in clear.
    SaslPlaintext = 2,
    /// SASL over TLS.
    SaslSsl = 3,
}

impl SecurityProtocol {
    /// Kafka's number of the protocol.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The protocol of Kafka's number; none if there is no such protocol.
    #[must_use]
    pub const fn from_code(code: i16) -> Option<Self> {
        match code {
            0 => Some(Self::Plaintext),
            1 => Some(Self::Ssl),
            2 => Some(Self::SaslPlaintext),
            3 => Some(Self::SaslSsl),
            _ => None,
        }
    }

    /// Kafka's name of the protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// The protocol of Kafka's name, in capitals; none if there is no such protocol.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "PLAINTEXT" => Some(Self::Plaintext),
            "SSL" => Some(Self::Ssl),
            "SASL_PLAINTEXT" => Some(Self::SaslPlaintext),
            "SASL_SSL" => Some(Self::SaslSsl),
            _ => None,
        }
    }
}

/// Where clients reach a broker on one of its listeners.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name of the listener, as in `listeners`.
    pub listener: Arc<str>,
    /// Host that clients connect to.
    pub host: Arc<str>,
    /// Port that clients connect to.
    pub port: u16,
    /// How the listener is secured.
    pub security_protocol: SecurityProtocol,
}

/// A broker as it last registered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BrokerRegistration {
    /// Its node.
    pub node_id: NodeId,
    /// Number of this registration, unique in the cluster and higher than all before.
    pub broker_epoch: i64,
    /// Names this run of the process.
    pub incarnation_id: Uuid,
    /// Where clients reach it.
    pub endpoints: Vec<Endpoint>,
    /// Where it stands.
    pub rack: Option<Arc<str>>,
    /// Ids of its log directories.
    pub log_dirs: Vec<Uuid>,
    /// Whether it may lead and count; a fenced one may not.
    pub fenced: bool,
    /// The node's last registration that was unfenced, this one if it was; -1 if there was none.
    pub served_epoch: i64,
}

impl BrokerRegistration {
    /// Where clients of a listener reach it; none if it has no such listener.
    #[must_use]
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| &*endpoint.listener == listener)
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PartitionImage {
    /// Nodes that hold it, the preferred leader first.
    pub assigned_replicas: Vec<NodeId>,
    /// Nodes whose copy counts.
    pub in_sync_replicas: Vec<NodeId>,
    /// Nodes outside the in-sync set that hold every acknowledged record (KIP-966).
    pub eligible_leader_replicas: Vec<NodeId>,
    /// Who leads; [`NO_LEADER`] if nobody does.
    pub leader: NodeId,
    /// Number of the leadership.
    pub leader_epoch: LeaderEpoch,
    /// Number of the partition's state: every change raises it by one.
    pub partition_epoch: i32,
    /// Log directory on each assigned replica, in the same order; zero where it is not known.
    pub directories: Vec<Uuid>,
    /// Who led last; [`NO_LEADER`] if somebody has led ever since.
    pub last_known_leader: NodeId,
    /// The last epoch whose leader was elected though it may lack acknowledged records; [`LeaderEpoch::NONE`] if there was none.
    pub unclean_epoch: LeaderEpoch,
    /// Replicas that lost records in a living process: what their earlier lives said counts no more.
    pub losses: Vec<ReportedLoss>,
    /// Assigned replicas that a reassignment has added and that may go again with it (KIP-455).
    pub adding_replicas: Vec<NodeId>,
    /// Assigned replicas that go when those that are added are in sync.
    pub removing_replicas: Vec<NodeId>,
    /// Nodes that held the partition and hold it no more: what they have left of it may go.
    pub former_replicas: Vec<NodeId>,
}

impl PartitionImage {
    /// Whether the node's replica serves no more in its present registration.
    #[must_use]
    pub fn is_given_up(&self, node: NodeId) -> bool {
        self.losses.iter().any(|loss| loss.node_id == node && loss.incarnation == ReportedLoss::GIVEN_UP)
    }

    /// Whether replicas are being added or removed.
    #[must_use]
    pub fn is_reassigning(&self) -> bool {
        !self.adding_replicas.is_empty() || !self.removing_replicas.is_empty()
    }

    /// The replicas without those that a reassignment is adding: what it goes back to if it is given up.
    pub fn settled_replicas(&self) -> impl Iterator<Item = NodeId> {
        self.assigned_replicas.iter().copied().filter(|node| !self.adding_replicas.contains(node))
    }

    /// How many replicas count for `min.insync.replicas`: those that are only being added do not, or acks=all would wait for them.
    #[must_use]
    pub fn replication_factor(&self) -> usize {
        self.settled_replicas().count()
    }

    /// Whether this committed state says that the node held the partition and holds it no more. Only then may its data go: a state that
    /// merely does not name it proves nothing.
    #[must_use]
    pub fn has_left(&self, node: NodeId) -> bool {
        self.former_replicas.contains(&node) && !self.assigned_replicas.contains(&node)
    }
}

/// A replica lost records in a living process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReportedLoss {
    /// Its node.
    pub node_id: NodeId,
    /// The registration in which it did.
    pub broker_epoch: i64,
    /// The replica's life that found it.
    pub incarnation: u64,
}

impl ReportedLoss {
    /// Stands for every life of a registration: the replica serves no more in it.
    pub const GIVEN_UP: u64 = u64::MAX;
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicImage {
    /// Its name.
    pub name: Arc<str>,
    /// Its id, never used again.
    pub topic_id: TopicId,
    /// Its partitions, by index.
    pub partitions: OrdMap<i32, Arc<PartitionImage>>,
}

impl TopicImage {
    /// Replicas of its first partition, without those that are being removed; 0 while it has none.
    #[must_use]
    pub fn replication_factor(&self) -> usize {
        self.partitions.get(&0).map_or(0, |first| first.assigned_replicas.len() - first.removing_replicas.len())
    }

    /// Whether clients may not write to it and metadata marks it as internal.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }
}

/// Whether the name is one of Kafka's internal topics.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

pub(crate) fn metric_name(name: &str) -> String {
    name.replace('.', "_")
}

/// All that the cluster agrees on, at one point of the metadata log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataImage {
    pub(crate) cluster_id: Uuid,
    pub(crate) version: u64,
    pub(crate) topics: OrdMap<TopicId, Arc<TopicImage>>,
    pub(crate) topic_ids: OrdMap<Arc<str>, TopicId>,
    pub(crate) tombstones: OrdMap<TopicId, u64>,
    pub(crate) tombstone_order: OrdMap<u64, TopicId>,
    pub(crate) next_tombstone: u64,
    /// Names by what metrics make of them, where `.` and `_` are one.
    pub(crate) metric_names: OrdMap<Arc<str>, Arc<str>>,
    pub(crate) partition_count: usize,
    pub(crate) configs: OrdMap<ConfigResource, Arc<ConfigMap>>,
    /// What the settings of the cluster are where nothing was set: what the controllers' files say, or leave out.
    pub(crate) defaults: OrdMap<Arc<str>, Option<Arc<str>>>,
    pub(crate) brokers: OrdMap<NodeId, Arc<BrokerRegistration>>,
    pub(crate) quorum_addresses: OrdMap<NodeId, Arc<str>>,
    pub(crate) next_broker_epoch: i64,
    pub(crate) next_producer_id: i64,
}

impl MetadataImage {
    /// The cluster's id; zero until the first controller has named it.
    #[must_use]
    pub const fn cluster_id(&self) -> Uuid {
        self.cluster_id
    }

    /// Index of the last entry of the metadata log that it contains: Kafka's metadata offset.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// A topic by name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    /// A topic by id.
    #[must_use]
    pub fn topic_by_id(&self, topic_id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(&topic_id)
    }

    /// The id of a topic's name.
    #[must_use]
    pub fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.topic_ids.get(name).copied()
    }

    /// The name of a topic's id.
    #[must_use]
    pub fn topic_name(&self, topic_id: TopicId) -> Option<&Arc<str>> {
        self.topics.get(&topic_id).map(|topic| &topic.name)
    }

    /// The topic that differs from `name` only in `.` against `_`: metrics could not tell the two apart.
    #[must_use]
    pub fn colliding_topic(&self, name: &str) -> Option<&Arc<str>> {
        self.metric_names.get(metric_name(name).as_str()).filter(|other| &***other != name)
    }

    /// A partition by topic name and index.
    #[must_use]
    pub fn partition(&self, topic: &str, partition: i32) -> Option<&Arc<PartitionImage>> {
        self.topic(topic)?.partitions.get(&partition)
    }

    /// A partition by its topic's id.
    #[must_use]
    pub fn partition_by_id(&self, partition: TopicPartition) -> Option<&Arc<PartitionImage>> {
        self.topics.get(&partition.topic_id)?.partitions.get(&partition.partition)
    }

    /// All topics, sorted by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topic_ids.iter().filter_map(|(_, topic_id)| self.topics.get(topic_id))
    }

    /// Number of topics.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// Number of partitions of all topics.
    #[must_use]
    pub const fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// Whether a committed tombstone says that the topic of this id was deleted. Only then may its data go: an id that is merely
    /// absent proves nothing.
    #[must_use]
    pub fn is_deleted(&self, topic_id: TopicId) -> bool {
        self.tombstones.contains_key(&topic_id)
    }

    /// What was set on a resource; none if nothing is.
    #[must_use]
    pub fn config(&self, resource: &ConfigResource) -> Option<&Arc<ConfigMap>> {
        self.configs.get(resource)
    }

    /// What was set on a topic; none if nothing is.
    #[must_use]
    pub fn topic_config(&self, name: &str) -> Option<&Arc<ConfigMap>> {
        self.configs.get(&ConfigResource::topic(name))
    }

    /// What a setting of the cluster is where nothing was set: the value in a controller's file, or none if it has none there. None at all if
    /// no controller has said so yet.
    #[must_use]
    pub fn default_of(&self, key: &str) -> Option<Option<&str>> {
        self.defaults.get(key).map(Option::as_deref)
    }

    /// A broker's registration, fenced or not.
    #[must_use]
    pub fn broker(&self, node_id: NodeId) -> Option<&Arc<BrokerRegistration>> {
        self.brokers.get(&node_id)
    }

    /// All registrations, by node id.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<BrokerRegistration>> {
        self.brokers.values()
    }

    /// The members of the metadata quorum that have said where they are reached: host and port of their control endpoints.
    #[must_use]
    pub const fn quorum_addresses(&self) -> &OrdMap<NodeId, Arc<str>> {
        &self.quorum_addresses
    }

    /// The brokers that are not fenced, by node id.
    pub fn live_brokers(&self) -> impl Iterator<Item = &Arc<BrokerRegistration>> {
        self.brokers.values().filter(|broker| !broker.fenced)
    }

    /// The first producer id that no block contains yet.
    #[must_use]
    pub const fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Panics if the image contradicts itself. Costs a walk over all partitions.
    pub fn check(&self) {
        assert_eq!(self.topics.len(), self.topic_ids.len(), "every topic has one name");
        let mut partitions = 0;
        for (topic_id, topic) in &self.topics {
            assert_eq!(self.topic_ids.get(&topic.name), Some(topic_id), "names and ids agree");
            assert!(!self.tombstones.contains_key(topic_id), "a deleted topic is gone");
            partitions += topic.partitions.len();
            for partition in topic.partitions.values() {
                self.check_partition(partition);
            }
        }
        assert_eq!(self.topics.len(), self.metric_names.len(), "no two topics collide in metrics");
        assert_eq!(partitions, self.partition_count, "partitions are counted");
        assert_eq!(self.tombstones.len(), self.tombstone_order.len(), "every tombstone has its place");
    }

    fn check_partition(&self, partition: &PartitionImage) {
        let assigned = |node: &NodeId| partition.assigned_replicas.contains(node);
        assert!(partition.in_sync_replicas.iter().all(assigned), "in-sync replicas are assigned");
        assert!(partition.eligible_leader_replicas.iter().all(assigned), "eligible leaders are assigned");
        assert!(partition.adding_replicas.iter().all(assigned), "what is added is assigned");
        assert!(partition.removing_replicas.iter().all(assigned), "what is removed is assigned until then");
        assert!(!partition.former_replicas.iter().any(assigned), "who holds it has not left");
        let both = |node: &NodeId| partition.in_sync_replicas.contains(node);
        assert!(!partition.eligible_leader_replicas.iter().any(both), "an eligible leader is not in sync");
        let leader = partition.leader;
        assert!(leader == NO_LEADER || partition.in_sync_replicas.contains(&leader), "the leader is in sync");
        assert!(
            leader == NO_LEADER || self.brokers.get(&leader).is_none_or(|broker| !broker.fenced),
            "a fenced broker does not lead"
        );
    }
}
