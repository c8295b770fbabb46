//! Topics: create, delete, grow, configure.

use std::collections::BTreeMap;

use madang_protocol::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use madang_protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use madang_protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use madang_protocol::types::{TopicId, Uuid};
use madang_protocol::{ErrorCode, Request};

use super::configs::{AlteredConfig, ConfigEntry, ConfigResource};
use super::{Admin, outcome};
use crate::client::{Answer, Lane};
use crate::error::{AdminError, ConnectionError};

/// A topic to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Its partitions; the cluster's default if absent.
    pub partitions: Option<i32>,
    /// Its replication factor; the cluster's default if absent.
    pub replication_factor: Option<i16>,
    /// Configuration that differs from the defaults.
    pub configs: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic of the cluster's defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), partitions: None, replication_factor: None, configs: BTreeMap::new() }
    }
}

/// A topic as it was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its name.
    pub name: String,
    /// Its id; zero from brokers that do not say it.
    pub id: TopicId,
    /// Its partitions, if the broker says.
    pub partitions: Option<i32>,
    /// Its replication factor, if the broker says.
    pub replication_factor: Option<i16>,
}

impl Admin {
    pub(super) fn timeout_ms(&self) -> i32 {
        i32::try_from(self.client.config().request_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    pub(super) fn controller<'a, 'q: 'a, R>(&'a self, request: &'a R) -> Answer<'a, R::Response<'static>, AdminError>
    where
        R: Request<'q> + Sync,
        R::Response<'static>: Send,
    {
        Box::pin(async move {
            let broker = self.client.controller().await?;
            Ok(self.client.to(&broker, Lane::SHARED, request, self.client.call()).await?)
        })
    }

    /// Creates a topic; with `validate_only`, only says whether it could be.
    ///
    /// # Errors
    /// [`AdminError`], with `TOPIC_ALREADY_EXISTS` if there is one of this name.
    pub async fn create_topic(&self, topic: &NewTopic, validate_only: bool) -> Result<CreatedTopic, AdminError> {
        let configs = topic.configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: name.as_str().into(),
            value: Some(value.as_str().into()),
        });
        let creatable = CreatableTopic {
            name: topic.name.as_str().into(),
            num_partitions: topic.partitions.unwrap_or(-1),
            replication_factor: topic.replication_factor.unwrap_or(-1),
            assignments: Vec::new(),
            configs: configs.collect(),
        };
        let request = CreateTopicsRequest { topics: vec![creatable], timeout_ms: self.timeout_ms(), validate_only };
        let answer = self.controller(&request).await?;
        let found = answer.topics.into_iter().find(|found| found.name == topic.name);
        let found = found.ok_or_else(|| AdminError::Missing(topic.name.clone()))?;
        outcome(&topic.name, found.error_code, found.error_message.as_deref())?;
        Ok(CreatedTopic {
            name: found.name.into(),
            id: found.topic_id,
            partitions: (found.num_partitions >= 0).then_some(found.num_partitions),
            replication_factor: (found.replication_factor >= 0).then_some(found.replication_factor),
        })
    }

    /// Deletes a topic and its records.
    ///
    /// # Errors
    /// [`AdminError`], with `UNKNOWN_TOPIC_OR_PARTITION` if it does not exist.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), AdminError> {
        let by_name = DeleteTopicState { name: Some(topic.into()), topic_id: Uuid::ZERO };
        let request = DeleteTopicsRequest {
            topics: vec![by_name],
            topic_names: vec![topic.into()],
            timeout_ms: self.timeout_ms(),
        };
        let answer = match self.controller(&request).await {
            // Brokers before Kafka 2.8 know only the list of names.
            Err(AdminError::Connection(ConnectionError::Encode { .. })) => {
                self.controller(&DeleteTopicsRequest { topics: Vec::new(), ..request }).await?
            }
            answer => answer?,
        };
        let found = answer.responses.iter().find(|found| found.name.as_deref() == Some(topic));
        let found = found.ok_or_else(|| AdminError::Missing(topic.to_owned()))?;
        outcome(topic, found.error_code, found.error_message.as_deref())
    }

    /// Adds partitions until the topic has `total`.
    ///
    /// # Errors
    /// [`AdminError`], with `INVALID_PARTITIONS` if the topic has as many or more.
    pub async fn create_partitions(&self, topic: &str, total: i32) -> Result<(), AdminError> {
        let grown = CreatePartitionsTopic { name: topic.into(), count: total, assignments: None };
        let request =
            CreatePartitionsRequest { topics: vec![grown], timeout_ms: self.timeout_ms(), validate_only: false };
        let answer = self.controller(&request).await?;
        let found = answer.results.iter().find(|found| found.name == topic);
        let found = found.ok_or_else(|| AdminError::Missing(topic.to_owned()))?;
        outcome(topic, found.error_code, found.error_message.as_deref())
    }

    /// A topic's whole configuration, by key.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn topic_configs(&self, topic: &str) -> Result<Vec<ConfigEntry>, AdminError> {
        self.configs(&ConfigResource::Topic(topic.to_owned())).await
    }

    /// Changes keys of a topic's configuration: all of them or none.
    ///
    /// # Errors
    /// [`AdminError`], with `INVALID_CONFIG` for a key or value that the broker does not take.
    pub async fn alter_topic_configs(&self, topic: &str, changes: &[AlteredConfig]) -> Result<(), AdminError> {
        self.alter_configs(&ConfigResource::Topic(topic.to_owned()), changes, false).await
    }

    /// Whether the error says that there is no such topic.
    #[must_use]
    pub fn is_unknown_topic(error: &AdminError) -> bool {
        matches!(error.code(), Some(ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId))
    }
}
