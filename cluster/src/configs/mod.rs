//! Every configuration key of topics and brokers: type, default, allowed values, where it can be set, and what it resolves to.
//! Invariant: names and defaults are Kafka's; keys of our own begin with `madang.`.

mod broker;
mod definition;
mod describe;
mod nodes;
mod quic;
mod startup;
mod topic;

pub use broker::{BrokerConfig, BrokerConfigError, Durability, ListenerConfig};
pub use definition::{
    ConfigDefinition, ConfigKind, InvalidConfig, UpdateMode, broker_definition, broker_definitions, list_items,
    topic_definition, topic_definitions,
};
pub use describe::{
    ConfigSource, ConfigSynonym, DescribedConfig, describe_broker, describe_default_broker, describe_new_topic,
    describe_topic,
};
pub use nodes::voters as read_voters;
pub use quic::{QUIC_LISTENER, QuicConfig};
pub use topic::{
    CLUSTER_KEYS, CleanupPolicy, CompressionType, TimestampType, TopicConfig, dynamic_broker_number,
    resolve_topic_value,
};
