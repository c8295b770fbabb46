#![doc = include_str!("../README.md")]
//!
//! # Bounds
//! A [`Client`] knows the cluster and keeps one connection per broker and purpose; all others borrow it. Everything is bounded: answers by
//! [`ClientConfig::max_response_bytes`], a producer's records by [`ProducerConfig::buffer_bytes`], a consumer's by what one fetch of each broker may return.

mod admin;
mod backoff;
mod client;
mod connection;
mod consumer;
mod error;
mod group;
pub mod http;
mod metadata;
mod partitioner;
#[cfg(any(feature = "tls", feature = "quic"))]
mod pem;
mod producer;
#[cfg(feature = "quic")]
mod quic;
mod socket;
#[cfg(feature = "tls")]
mod tls;

pub use admin::{
    Admin, AlteredConfig, ClusterDescription, CommittedOffset, CommittedOffsets, ConfigEntry, ConfigResource,
    ConfigSource, CreatedTopic, Election, GroupDescription, GroupListing, GroupMember, LeavingMember, LogDir,
    LogDirReplica, NewTopic, OffsetReset, QuorumDescription, QuorumMember, Reassignment,
};
pub use client::{Client, ClientConfig};
pub use consumer::{Consumer, ConsumerConfig, ConsumerRecord, IsolationLevel, ListedOffset, OutOfRange, StartAt};
pub use error::{AdminError, ConnectionError, ConsumeError, GroupError, MetadataError, ProduceError};
pub use group::{Assignor, GroupConfig, GroupConsumer, PendingCommit, RebalanceListener, TopicPartition, range_assign};
pub use metadata::{Broker, Metadata, PartitionMetadata, TopicMetadata};
pub use partitioner::{ChoosePartition, Partitioner, murmur2, partition_of};
#[cfg(any(feature = "tls", feature = "quic"))]
pub use pem::TlsError;
pub use producer::{Acks, Delivery, Producer, ProducerConfig, ProducerMetrics, ProducerRecord, RecordMetadata};
#[cfg(feature = "quic")]
pub use quic::QuicConfig;
#[cfg(feature = "tls")]
pub use tls::TlsConfig;

#[doc(hidden)]
pub mod fuzzing;

/// The protocol's own types that this crate's API speaks of.
pub use madang_protocol::{
    compression::{Codec, Compression},
    error_code::ErrorCode,
    types::{LeaderEpoch, NodeId, Offset, TopicId},
};
