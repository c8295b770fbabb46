//! The broker's own settings: what its file and command line say, checked, with the defaults filled in.
//! Invariant: a `BrokerConfig` holds no value that its key's row does not allow.

use std::collections::BTreeMap;
use std::time::Duration;

use madang_protocol::types::NodeId;
use thiserror::Error;

use super::definition::{InvalidConfig, broker_definition, list_items};
use super::quic::{self, QuicConfig};
use super::{nodes, startup};
use crate::metadata::SecurityProtocol;

/// When a record counts as stored (`madang.durability`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Durability {
    /// When the device has confirmed it.
    #[default]
    Fsync,
    /// When the operating system has it, as in Kafka.
    PageCache,
}

/// One address of `listeners` or `advertised.listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Its name, in capitals.
    pub name: String,
    /// Its host; empty for every address.
    pub host: String,
    /// Its port; 0 for any free one.
    pub port: u16,
    /// How it is secured.
    pub security_protocol: SecurityProtocol,
}

/// Why a broker's settings are refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BrokerConfigError {
    /// A value that its key does not take.
    #[error(transparent)]
    Invalid(#[from] InvalidConfig),
    /// An address that cannot be read.
    #[error("{key}: cannot read '{listener}': write NAME://HOST:PORT")]
    Listener {
        /// The key.
        key: &'static str,
        /// The address.
        listener: String,
    },
    /// An address of nodes that cannot be read.
    #[error("{key}: cannot read '{address}': write HOST:PORT, and ID@HOST:PORT of voters, each once")]
    Address {
        /// The key.
        key: &'static str,
        /// The address.
        address: String,
    },
    /// A quorum of several nodes that this one is not prepared for.
    #[error("controller.quorum.voters: {0}")]
    Quorum(&'static str),
    /// A listener whose name stands for no security protocol.
    #[error("{key}: no security protocol for listener '{listener}': name it in listener.security.protocol.map")]
    UnknownProtocol {
        /// The key.
        key: &'static str,
        /// The listener's name.
        listener: String,
    },
    /// Two listeners of one name.
    #[error("{key}: listener '{listener}' is named twice")]
    DuplicateListener {
        /// The key.
        key: &'static str,
        /// The listener's name.
        listener: String,
    },
    /// Every listener belongs to controllers.
    #[error("listeners: every one is in controller.listener.names, and clients are served on none of those")]
    NoListener,
    /// An address of controllers that clients are to be told of.
    #[error("advertised.listeners: '{listener}' is in controller.listener.names, where clients are not served")]
    AdvertisedController {
        /// The listener's name.
        listener: String,
    },
    /// A listener that clients are told of, and nobody listens on.
    #[error("advertised.listeners: '{listener}' is not one of listeners")]
    NotListenedOn {
        /// The listener's name.
        listener: String,
    },
    /// An address that stands for all of the machine's own, so that a client elsewhere would look for the broker on itself.
    #[error(
        "{key}: clients cannot connect to {host}: set {key}={listener}://HOST:{port}, with a host that they can reach"
    )]
    Unreachable {
        /// The key.
        key: &'static str,
        /// The listener's name.
        listener: String,
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
    },
    /// A listener whose security protocol this build does not speak.
    #[error("listeners: listener '{listener}' is to be {protocol}, which is not supported: only PLAINTEXT is")]
    Insecure {
        /// The listener's name.
        listener: String,
        /// The protocol.
        protocol: &'static str,
    },
    /// A listener for clients over QUIC that could not serve.
    #[error("madang.quic.listener: {0}")]
    Quic(String),
    /// Something that this build cannot do.
    #[error("{key}={value} is not supported")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
}

/// The broker's own settings.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    set: BTreeMap<String, String>,
    /// The node's number.
    pub node_id: NodeId,
    /// Addresses it listens on.
    pub listeners: Vec<ListenerConfig>,
    /// Names of those of `listeners` that stay closed, because `controller.listener.names` has them: what Kafka's controllers answer
    /// there nothing here answers, and clients find no broker there in Kafka either.
    pub closed_listeners: Vec<String>,
    /// Addresses that clients are told of.
    pub advertised_listeners: Vec<ListenerConfig>,
    /// Where clients are served over QUIC; none for nowhere.
    pub quic: Option<QuicConfig>,
    /// Directories of the logs; empty if neither `log.dirs` nor `log.dir` is set.
    pub log_dirs: Vec<String>,
    /// Where the broker stands.
    pub rack: Option<String>,
    /// Whether consumers are sent to a replica in their rack.
    pub rack_aware_reads: bool,
    /// When a record counts as stored.
    pub durability: Durability,
    /// Host and port of the HTTP listener; none for the Kafka port + 1000 on loopback.
    pub admin_listener: Option<String>,
    /// Host and UDP port for other nodes; the port after it is for control. None for a node that stays alone.
    pub node_listener: Option<(String, u16)>,
    /// Host and UDP port that other nodes are told of; none for those of `node_listener`.
    pub node_advertised_listener: Option<(String, u16)>,
    /// The folder of the node's certificates.
    pub node_certificates: Option<String>,
    /// The voters of the metadata log and where their control endpoints are; empty for a node that is its own.
    pub quorum_voters: Vec<(NodeId, String)>,
    /// A folder on tmpfs for the notes of the log directories; none for no notes.
    pub notes_dir: Option<String>,
    /// Partitions of a topic created without a number.
    pub num_partitions: i32,
    /// Replicas of a topic created without a number.
    pub default_replication_factor: i16,
    /// Whether a metadata request may create the topics it names.
    pub auto_create_topics: bool,
    /// Whether topics can be deleted.
    pub delete_topics: bool,
    /// Largest request.
    pub socket_request_max_bytes: usize,
    /// Largest fetch response.
    pub fetch_max_bytes: usize,
    /// Idle time after which a connection is closed.
    pub connections_max_idle: Duration,
    /// Fetch sessions that are kept.
    pub max_fetch_sessions: usize,
    /// Time a follower may lag before it leaves the in-sync set.
    pub replica_lag_time_max: Duration,
    /// Silence after which a broker is fenced.
    pub broker_session_timeout: Duration,
    /// Whether preferred leaders are made to lead without being asked.
    pub auto_leader_rebalance: bool,
    /// Time between two looks for partitions that others than their preferred leaders lead.
    pub leader_imbalance_check_interval: Duration,
    /// Time between two looks for segments that retention no longer wants.
    pub log_retention_check_interval: Duration,
    /// Whether compacted topics are cleaned.
    pub log_cleaner_enable: bool,
    /// Threads that recover logs, for each directory.
    pub recovery_threads: usize,
    /// Shortest session timeout of a member.
    pub group_min_session_timeout: Duration,
    /// Longest session timeout of a member.
    pub group_max_session_timeout: Duration,
    /// Time a new group waits for more members.
    pub group_initial_rebalance_delay: Duration,
    /// Members of one classic group; `madang.max.group.size` bounds it.
    pub group_max_size: usize,
    /// Partitions of `__consumer_offsets`.
    pub offsets_topic_partitions: i32,
    /// Replicas of `__consumer_offsets`; never more than there are brokers.
    pub offsets_topic_replication_factor: i16,
    /// Segment size of `__consumer_offsets`.
    pub offsets_topic_segment_bytes: i32,
    /// Time that committed offsets of an empty group are kept.
    pub offsets_retention: Duration,
    /// Time between two looks for offsets to forget.
    pub offsets_retention_check_interval: Duration,
    /// Longest metadata string of a committed offset.
    pub offset_metadata_max_bytes: usize,
    /// Time a commit waits for its replicas.
    pub offsets_commit_timeout: Duration,
    /// Partitions of `__transaction_state`.
    pub transaction_topic_partitions: i32,
    /// Replicas of `__transaction_state`; never more than there are brokers.
    pub transaction_topic_replication_factor: i16,
    /// `min.insync.replicas` of `__transaction_state`.
    pub transaction_topic_min_isr: i32,
    /// Segment size of `__transaction_state`.
    pub transaction_topic_segment_bytes: i32,
    /// Longest timeout of a transaction.
    pub transaction_max_timeout: Duration,
    /// Idle time after which a transactional id is forgotten.
    pub transactional_id_expiration: Duration,
    /// Connections kept free for administration and other nodes.
    pub reserved_connections: usize,
    /// Unanswered requests of one connection.
    pub max_in_flight_requests: usize,
    /// Bytes of unanswered requests of one connection.
    pub max_in_flight_bytes: usize,
    /// Time a QUIC connection has to finish its handshake.
    pub handshake_timeout: Duration,
    /// Time in which an announced request must arrive.
    pub request_body_timeout: Duration,
    /// Time without progress after which a response's connection is closed.
    pub response_write_timeout: Duration,
    /// Producer ids remembered by a partition.
    pub max_producer_ids_per_partition: usize,
    /// Free bytes of a log directory below which producers are refused.
    pub disk_reserve_bytes: u64,
}

impl BrokerConfig {
    /// Reads pairs of key and value; the last of a key counts. The second answer is what a person should know: keys that are set, kept
    /// and shown, and have no effect, because nobody knows them or because nothing here is as they want it.
    ///
    /// # Errors
    /// The first value that its key does not take.
    pub fn parse(pairs: impl IntoIterator<Item = (String, String)>) -> Result<(Self, Vec<String>), BrokerConfigError> {
        let set: BTreeMap<String, String> =
            pairs.into_iter().map(|(key, value)| (key, value.trim().to_owned())).collect();
        let mut warnings = Vec::new();
        for (key, value) in &set {
            let Some(definition) = broker_definition(key) else {
                warnings.push(format!("unknown configuration key '{key}' has no effect"));
                continue;
            };
            definition.validate(value)?;
            if definition.documentation.is_none()
                && !startup::acts_on(key)
                && definition.default != Some(value.as_str())
            {
                warnings.push(format!("configuration key '{key}' has no effect here"));
            }
        }
        let config = Self::resolve(set)?;
        startup::check(&config)?;
        warnings.extend(config.closed_listeners.iter().map(|name| {
            format!("listener '{name}' is not opened: it is in controller.listener.names, and no controller is to be reached there")
        }));
        Ok((config, warnings))
    }

    /// What the file or the command line says of a key; none if they do not.
    #[must_use]
    pub fn set_value(&self, key: &str) -> Option<&str> {
        self.set.get(key).map(String::as_str)
    }

    /// All that the file and the command line say, by key.
    pub fn set_values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of a key, set or default; none if it has neither.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        Values(&self.set).text(key)
    }

    fn resolve(set: BTreeMap<String, String>) -> Result<Self, BrokerConfigError> {
        let values = Values(&set);
        let (listeners, closed_listeners) = values.listeners("listeners")?;
        let (advertised, told) = values.listeners("advertised.listeners")?;
        if let Some(listener) = told.into_iter().next() {
            return Err(BrokerConfigError::AdvertisedController { listener });
        }
        let directories = values.text("log.dirs").or_else(|| values.set("log.dir")).unwrap_or_default();
        let node_id = [values.set("node.id"), values.set("broker.id")].into_iter().flatten().next();
        Ok(Self {
            node_id: NodeId(node_id.and_then(|id| id.parse().ok()).unwrap_or(1)),
            advertised_listeners: if advertised.is_empty() { listeners.clone() } else { advertised },
            listeners,
            closed_listeners,
            quic: quic::parse(|key| values.set(key))?,
            log_dirs: list_items(directories).map(str::to_owned).collect(),
            rack: values.set("broker.rack").map(str::to_owned),
            rack_aware_reads: values.set(startup::SELECTOR) == Some(startup::RACK_AWARE),
            durability: match values.text("madang.durability") {
                Some("page-cache") => Durability::PageCache,
                _ => Durability::Fsync,
            },
            admin_listener: values.set("madang.admin.listener").map(str::to_owned),
            node_listener: nodes::listener(nodes::LISTENER, values.set(nodes::LISTENER))?,
            node_advertised_listener: nodes::listener(nodes::ADVERTISED, values.set(nodes::ADVERTISED))?,
            node_certificates: values.set("madang.node.certificates").map(str::to_owned),
            quorum_voters: nodes::voters(values.text(nodes::VOTERS))?,
            notes_dir: values.text("madang.notes.dir").filter(|folder| *folder != "none").map(str::to_owned),
            num_partitions: values.int("num.partitions"),
            default_replication_factor: values.short("default.replication.factor"),
            auto_create_topics: values.boolean("auto.create.topics.enable"),
            delete_topics: values.boolean("delete.topic.enable"),
            socket_request_max_bytes: values.size("socket.request.max.bytes"),
            fetch_max_bytes: values.size("fetch.max.bytes"),
            connections_max_idle: values.millis("connections.max.idle.ms"),
            max_fetch_sessions: values.size("max.incremental.fetch.session.cache.slots"),
            replica_lag_time_max: values.millis("replica.lag.time.max.ms"),
            broker_session_timeout: values.millis("broker.session.timeout.ms"),
            auto_leader_rebalance: values.boolean("auto.leader.rebalance.enable"),
            leader_imbalance_check_interval: values.seconds("leader.imbalance.check.interval.seconds"),
            log_retention_check_interval: values.millis("log.retention.check.interval.ms"),
            log_cleaner_enable: values.boolean("log.cleaner.enable"),
            recovery_threads: values.size("num.recovery.threads.per.data.dir"),
            group_min_session_timeout: values.millis("group.min.session.timeout.ms"),
            group_max_session_timeout: values.millis("group.max.session.timeout.ms"),
            group_initial_rebalance_delay: values.millis("group.initial.rebalance.delay.ms"),
            group_max_size: values.size("group.max.size").min(values.size("madang.max.group.size")),
            offsets_topic_partitions: values.int("offsets.topic.num.partitions"),
            offsets_topic_replication_factor: values.short("offsets.topic.replication.factor"),
            offsets_topic_segment_bytes: values.int("offsets.topic.segment.bytes"),
            offsets_retention: values.minutes("offsets.retention.minutes"),
            offsets_retention_check_interval: values.millis("offsets.retention.check.interval.ms"),
            offset_metadata_max_bytes: values.size("offset.metadata.max.bytes"),
            offsets_commit_timeout: values.millis("offsets.commit.timeout.ms"),
            transaction_topic_partitions: values.int("transaction.state.log.num.partitions"),
            transaction_topic_replication_factor: values.short("transaction.state.log.replication.factor"),
            transaction_topic_min_isr: values.int("transaction.state.log.min.isr"),
            transaction_topic_segment_bytes: values.int("transaction.state.log.segment.bytes"),
            transaction_max_timeout: values.millis("transaction.max.timeout.ms"),
            transactional_id_expiration: values.millis("transactional.id.expiration.ms"),
            reserved_connections: values.size("madang.reserved.connections"),
            max_in_flight_requests: values.size("madang.max.in.flight.requests.per.connection"),
            max_in_flight_bytes: values.size("madang.max.in.flight.bytes.per.connection"),
            handshake_timeout: values.millis("madang.handshake.timeout.ms"),
            request_body_timeout: values.millis("madang.request.body.timeout.ms"),
            response_write_timeout: values.millis("madang.response.write.timeout.ms"),
            max_producer_ids_per_partition: values.size("madang.max.producer.ids.per.partition"),
            disk_reserve_bytes: values.unsigned("madang.disk.reserve.bytes"),
            set,
        })
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self::resolve(BTreeMap::new()).expect("the defaults are valid: a test holds it")
    }
}

/// Typed reading of checked pairs.
#[derive(Clone, Copy)]
struct Values<'a>(&'a BTreeMap<String, String>);

impl<'a> Values<'a> {
    fn set(self, key: &str) -> Option<&'a str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn text(self, key: &str) -> Option<&'a str> {
        self.0.get(key).map(String::as_str).or_else(|| broker_definition(key)?.default)
    }

    fn long(self, key: &str) -> i64 {
        self.text(key).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    fn boolean(self, key: &str) -> bool {
        self.text(key).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    fn int(self, key: &str) -> i32 {
        i32::try_from(self.long(key)).unwrap_or(i32::MAX)
    }

    fn short(self, key: &str) -> i16 {
        i16::try_from(self.long(key)).unwrap_or(i16::MAX)
    }

    fn size(self, key: &str) -> usize {
        usize::try_from(self.long(key)).unwrap_or(0)
    }

    fn unsigned(self, key: &str) -> u64 {
        u64::try_from(self.long(key)).unwrap_or(0)
    }

    fn millis(self, key: &str) -> Duration {
        Duration::from_millis(self.unsigned(key))
    }

    fn seconds(self, key: &str) -> Duration {
        Duration::from_secs(self.unsigned(key))
    }

    fn minutes(self, key: &str) -> Duration {
        Duration::from_secs(self.unsigned(key).saturating_mul(60))
    }

    /// The addresses of brokers, and the names of those that controllers have to themselves, of which no protocol need be known.
    fn listeners(self, key: &'static str) -> Result<(Vec<ListenerConfig>, Vec<String>), BrokerConfigError> {
        let (mut listeners, mut of_controllers): (Vec<ListenerConfig>, _) = (Vec::new(), Vec::new());
        for item in list_items(self.text(key).unwrap_or_default()) {
            let name = item.split_once("://").map(|(name, _)| name.to_uppercase());
            let names = self.text("controller.listener.names").unwrap_or_default();
            if let Some(name) = name.filter(|name| list_items(names).any(|one| one.eq_ignore_ascii_case(name))) {
                of_controllers.push(name);
                continue;
            }
            let listener = self.listener(key, item)?;
            if listeners.iter().any(|other| other.name == listener.name) {
                return Err(BrokerConfigError::DuplicateListener { key, listener: listener.name });
            }
            listeners.push(listener);
        }
        Ok((listeners, of_controllers))
    }

    fn listener(self, key: &'static str, text: &str) -> Result<ListenerConfig, BrokerConfigError> {
        let unreadable = || BrokerConfigError::Listener { key, listener: text.to_owned() };
        let (name, address) = text.split_once("://").ok_or_else(unreadable)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(unreadable)?;
        let host = nodes::unbracketed(host);
        let name = name.to_uppercase();
        let port = port.parse().map_err(|_| unreadable())?;
        let security_protocol =
            self.protocol(&name).ok_or_else(|| BrokerConfigError::UnknownProtocol { key, listener: name.clone() })?;
        Ok(ListenerConfig { name, host: host.to_owned(), port, security_protocol })
    }

    fn protocol(self, listener: &str) -> Option<SecurityProtocol> {
        list_items(self.text("listener.security.protocol.map")?).find_map(|item| {
            let (name, protocol) = item.split_once(':')?;
            if name.trim().eq_ignore_ascii_case(listener) {
                SecurityProtocol::from_name(&protocol.trim().to_uppercase())
            } else {
                None
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<(BrokerConfig, Vec<String>), BrokerConfigError> {
        BrokerConfig::parse(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn nothing_set_is_a_broker_of_defaults() {
        let config = BrokerConfig::default();
        assert_eq!((config.node_id, config.num_partitions, config.default_replication_factor), (NodeId(1), 1, 1));
        assert_eq!(config.group_max_size, 10_000);
        assert_eq!(config.offsets_retention, Duration::from_hours(168));
        assert_eq!((config.listeners[0].name.as_str(), config.listeners[0].port), ("PLAINTEXT", 9092));
        assert_eq!(config.advertised_listeners, config.listeners);
    }

    #[test]
    fn listeners_have_names_hosts_ports_and_protocols() {
        let (config, _) = parse(&[
            ("listeners", "INSIDE://[::1]:9092,OUTSIDE://:9093"),
            ("listener.security.protocol.map", "INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT,NOBODY:SASL_SSL"),
        ])
        .unwrap();
        assert_eq!(config.listeners[0].host, "::1");
        assert_eq!(
            (config.listeners[1].port, config.listeners[1].security_protocol),
            (9093, SecurityProtocol::Plaintext)
        );
    }

    #[test]
    fn keys_that_change_nothing_are_named() {
        let named = |pairs: &[(&str, &str)]| parse(pairs).expect("valid").1;
        assert_eq!(named(&[("no.such.key", "1")]), ["unknown configuration key 'no.such.key' has no effect"]);
        assert_eq!(
            named(&[("queued.max.requests", "7"), ("num.partitions", "7")]),
            ["configuration key 'queued.max.requests' has no effect here"]
        );
        // What is as it is anyway, and what is looked at before the start and asks for nothing more.
        assert!(named(&[("queued.max.requests", "500"), ("process.roles", "broker,controller")]).is_empty());
    }

    #[test]
    fn bad_values_are_refused() {
        for (key, value) in [
            ("num.partitions", "0"),
            ("madang.durability", "sometimes"),
            ("listeners", "PLAINTEXT:9092"),
            ("listeners", "NOBODY://:9092"),
            ("listeners", "PLAINTEXT://:1,PLAINTEXT://:2"),
        ] {
            assert!(parse(&[(key, value)]).is_err(), "{key}={value}");
        }
    }
}
