//! Configuration of topics, brokers and groups.

use madang_protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
};
use madang_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use madang_protocol::types::NodeId;

use super::{Admin, outcome};
use crate::client::Lane;
use crate::error::{AdminError, MetadataError};

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigResource {
    /// A topic, by name.
    Topic(String),
    /// One broker.
    Broker(NodeId),
    /// What holds for all brokers that do not say otherwise.
    AllBrokers,
    /// A group, by id.
    Group(String),
}

impl ConfigResource {
    fn on_the_wire(&self) -> (i8, String) {
        match self {
            Self::Topic(name) => (2, name.clone()),
            Self::Broker(id) => (4, id.0.to_string()),
            Self::AllBrokers => (4, String::new()),
            Self::Group(id) => (32, id.clone()),
        }
    }

    fn what(&self) -> String {
        match self {
            Self::Topic(name) => name.clone(),
            Self::Broker(id) => format!("broker {id}"),
            Self::AllBrokers => "all brokers".to_owned(),
            Self::Group(id) => format!("group {id}"),
        }
    }
}

/// Where a configuration value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set for this topic.
    Topic,
    /// Set for this broker, or for all, while running.
    DynamicBroker,
    /// Set in the broker's configuration file.
    StaticBroker,
    /// Nobody has set it.
    Default,
    /// Something else, by its number.
    Other(i8),
}

impl ConfigSource {
    const fn of(number: i8) -> Self {
        match number {
            1 => Self::Topic,
            2 | 3 => Self::DynamicBroker,
            4 => Self::StaticBroker,
            5 => Self::Default,
            other => Self::Other(other),
        }
    }

    /// A word for it, in Kafka's spelling.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Topic => "DYNAMIC_TOPIC_CONFIG",
            Self::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
            Self::StaticBroker => "STATIC_BROKER_CONFIG",
            Self::Default => "DEFAULT_CONFIG",
            Self::Other(_) => "OTHER",
        }
    }
}

/// A configuration key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The key.
    pub name: String,
    /// The value; absent where it is secret.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it cannot be changed.
    pub is_read_only: bool,
    /// Whether the value is secret.
    pub is_sensitive: bool,
}

/// A change to one configuration key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlteredConfig {
    /// Sets it.
    Set(String, String),
    /// Goes back to the default.
    Delete(String),
    /// Adds to a list.
    Append(String, String),
    /// Takes from a list.
    Subtract(String, String),
}

impl AlteredConfig {
    fn on_the_wire(&self) -> AlterableConfig<'_> {
        let (config_operation, name, value) = match self {
            Self::Set(name, value) => (0, name, Some(value)),
            Self::Delete(name) => (1, name, None),
            Self::Append(name, value) => (2, name, Some(value)),
            Self::Subtract(name, value) => (3, name, Some(value)),
        };
        let value = value.map(|value| value.as_str().into());
        AlterableConfig { name: name.as_str().into(), config_operation, value }
    }
}

impl Admin {
    /// The whole configuration of a topic, broker or group, by key.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn configs(&self, of: &ConfigResource) -> Result<Vec<ConfigEntry>, AdminError> {
        let (resource_type, name) = of.on_the_wire();
        let resource =
            DescribeConfigsResource { resource_type, resource_name: name.as_str().into(), configuration_keys: None };
        let request = DescribeConfigsRequest { resources: vec![resource], ..DescribeConfigsRequest::default() };
        let answer = match of {
            // Only the broker itself knows what is in its file.
            ConfigResource::Broker(id) => {
                let broker = self.broker(*id).await?;
                self.client.to(&broker, Lane::SHARED, &request, self.client.call()).await?
            }
            _ => self.client.any(&request).await?,
        };
        let found = answer.results.into_iter().find(|found| found.resource_name == name);
        let found = found.ok_or_else(|| AdminError::Missing(of.what()))?;
        outcome(&of.what(), found.error_code, found.error_message.as_deref())?;
        let entry = |config: DescribeConfigsResourceResult<'static>| ConfigEntry {
            name: config.name.into(),
            value: config.value.map(Into::into),
            source: ConfigSource::of(config.config_source),
            is_read_only: config.read_only,
            is_sensitive: config.is_sensitive,
        };
        let mut entries: Vec<_> = found.configs.into_iter().map(entry).collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Changes keys of a configuration: all of them or none. With `validate_only`, only says whether they could be.
    ///
    /// # Errors
    /// [`AdminError`], with `INVALID_CONFIG` for a key or value that is not taken.
    pub async fn alter_configs(
        &self,
        of: &ConfigResource,
        changes: &[AlteredConfig],
        validate_only: bool,
    ) -> Result<(), AdminError> {
        let (resource_type, name) = of.on_the_wire();
        let resource = AlterConfigsResource {
            resource_type,
            resource_name: name.as_str().into(),
            configs: changes.iter().map(AlteredConfig::on_the_wire).collect(),
        };
        let request = IncrementalAlterConfigsRequest { resources: vec![resource], validate_only };
        let answer = self.controller(&request).await?;
        let found = answer.responses.iter().find(|found| found.resource_name == name);
        let found = found.ok_or_else(|| AdminError::Missing(of.what()))?;
        outcome(&of.what(), found.error_code, found.error_message.as_deref())
    }

    pub(super) async fn broker(&self, id: NodeId) -> Result<crate::metadata::Broker, AdminError> {
        let brokers = self.client.brokers().await?;
        let found = brokers.into_iter().find(|broker| broker.node_id == id);
        Ok(found.ok_or(MetadataError::Broker(madang_protocol::ErrorCode::BrokerNotAvailable))?)
    }
}
