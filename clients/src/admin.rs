//! Administration: the cluster and offsets here; topics, configuration, records, groups, brokers, and where partitions are, in files of their own.
//! Invariant: a request that changes something is sent once; only finding brokers and reading is tried again.

mod brokers;
mod configs;
mod groups;
mod members;
mod moves;
mod records;
mod topics;

use std::collections::BTreeMap;

use madang_protocol::messages::describe_cluster::DescribeClusterRequest;
use madang_protocol::types::NodeId;

pub use brokers::{LogDir, LogDirReplica, QuorumDescription, QuorumMember};
pub use configs::{AlteredConfig, ConfigEntry, ConfigResource, ConfigSource};
pub use groups::{CommittedOffset, CommittedOffsets, GroupDescription, GroupListing, GroupMember, OffsetReset};
pub use members::LeavingMember;
pub use moves::{Election, Reassignment};
pub use topics::{CreatedTopic, NewTopic};

use crate::client::Client;
use crate::consumer::{IsolationLevel, ListedOffset, StartAt, list_offsets};
use crate::error::{AdminError, check};
use crate::metadata::{Broker, Metadata, TopicMetadata};

/// The cluster and its brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// The cluster's id.
    pub cluster_id: String,
    /// The broker that administrative requests go to.
    pub controller: Option<NodeId>,
    /// The brokers by number.
    pub brokers: Vec<Broker>,
}

/// Administrative requests.
///
/// ```no_run
/// # async fn example(client: madang_client::Client) -> Result<(), madang_client::AdminError> {
/// use madang_client::{Admin, NewTopic};
///
/// let admin = Admin::new(client);
/// let topic = NewTopic { partitions: Some(6), ..NewTopic::new("orders") };
/// match admin.create_topic(&topic, false).await {
///     Err(error) if error.code() == Some(madang_client::ErrorCode::TopicAlreadyExists) => {}
///     outcome => drop(outcome?),
/// }
/// println!("{:?}", admin.describe_topic("orders").await?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

impl Admin {
    /// Administration through `client`.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client }
    }

    /// The cluster and its brokers.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, AdminError> {
        let answer = self.client.any(&DescribeClusterRequest::default()).await?;
        let message = answer.error_message.as_deref().map(str::to_owned);
        check(answer.error_code).map_err(|code| AdminError::Broker {
            what: "the cluster".to_owned(),
            code,
            message,
        })?;
        let mut brokers: Vec<_> = answer
            .brokers
            .into_iter()
            .map(|broker| Broker {
                node_id: NodeId(broker.broker_id),
                host: broker.host.into(),
                port: broker.port,
                rack: broker.rack.map(Into::into),
            })
            .collect();
        brokers.sort_by_key(|broker| broker.node_id);
        let controller = (answer.controller_id >= 0).then_some(NodeId(answer.controller_id));
        Ok(ClusterDescription { cluster_id: answer.cluster_id.into(), controller, brokers })
    }

    /// All topics with partitions, leaders and replicas, and the brokers.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn list_topics(&self) -> Result<Metadata, AdminError> {
        Ok(self.client.all_metadata().await?)
    }

    /// One topic with partitions, leaders and replicas. It is not created if it does not exist.
    ///
    /// # Errors
    /// [`AdminError`], with `UNKNOWN_TOPIC_OR_PARTITION` if it does not exist.
    pub async fn describe_topic(&self, topic: &str) -> Result<TopicMetadata, AdminError> {
        Ok(self.client.metadata(&[topic], false).await?.topic(topic)?.clone())
    }

    /// The offset of `at` in each of these partitions, by topic and partition.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn offsets(
        &self,
        partitions: &BTreeMap<String, Vec<i32>>,
        at: StartAt,
    ) -> Result<BTreeMap<(String, i32), ListedOffset>, AdminError> {
        Ok(list_offsets(&self.client, partitions, at, IsolationLevel::ReadUncommitted).await?)
    }
}

/// The broker's error for one thing, if there is one.
fn outcome(what: &str, code: i16, message: Option<&str>) -> Result<(), AdminError> {
    check(code).map_err(|code| AdminError::Broker { what: what.to_owned(), code, message: message.map(str::to_owned) })
}
