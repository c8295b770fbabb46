//! What `DescribeConfigs` answers: every key with its value, where the value comes from, and every other place that sets it.
//! Invariant: a sensitive value never leaves here.

use std::collections::BTreeSet;

use madang_protocol::types::NodeId;

use super::broker::BrokerConfig;
use super::definition::{
    ConfigDefinition, ConfigKind, UpdateMode, broker_definition, broker_definitions, topic_definitions,
};
use super::topic::resolve_topic_value;
use crate::metadata::{ConfigMap, ConfigResource, MetadataImage};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum ConfigSource {
    /// Set on the topic.
    DynamicTopic = 1,
    /// Set on this broker while it ran.
    DynamicBroker = 2,
    /// Set on all brokers while they ran.
    DynamicDefaultBroker = 3,
    /// The broker's file or command line.
    StaticBroker = 4,
    /// The default.
    Default = 5,
}

impl ConfigSource {
    /// Kafka's number of the source.
    #[must_use]
    pub const fn code(self) -> i8 {
        self as i8
    }
}

/// One place that sets a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The key's name there.
    pub name: String,
    /// The value there; none if it is sensitive.
    pub value: Option<String>,
    /// The place.
    pub source: ConfigSource,
}

/// One key as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedConfig {
    /// Its name.
    pub name: String,
    /// Its value; none if it has none or is sensitive.
    pub value: Option<String>,
    /// Whether it can be set only in the broker's file.
    pub read_only: bool,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether the value is hidden.
    pub sensitive: bool,
    /// Every place that sets it, the winning one first.
    pub synonyms: Vec<ConfigSynonym>,
    /// Its type; none if the key is unknown.
    pub kind: Option<ConfigKind>,
    /// What it does.
    pub documentation: Option<&'static str>,
}

/// Every key of a topic, sorted by name.
#[must_use]
pub fn describe_topic(
    image: &MetadataImage,
    broker: &BrokerConfig,
    node_id: NodeId,
    topic: &str,
) -> Vec<DescribedConfig> {
    describe_own(image, broker, node_id, image.topic_config(topic).map(AsRef::as_ref))
}

/// Every key of a topic that has `configs` set on it and may not exist yet, sorted by name. As in Kafka its creation names the place of a
/// value also where [`describe_topic`] does not, if it is another key of the same setting that has it there, and shows values as they are set.
#[must_use]
pub fn describe_new_topic(
    image: &MetadataImage,
    broker: &BrokerConfig,
    node_id: NodeId,
    configs: &ConfigMap,
) -> Vec<DescribedConfig> {
    let places = Places::new(image, broker, node_id);
    let mut described = describe_own(image, broker, node_id, Some(configs));
    for (one, key) in described.iter_mut().zip(topic_definitions()) {
        let as_set = configs.get(key.name).map(ToString::to_string);
        one.value = as_set.or_else(|| Some(resolve_topic_value(image, broker, node_id, None, key.name)));
        if one.source == ConfigSource::Default {
            one.source = key.synonym.map_or(ConfigSource::Default, |synonym| places.nearest(synonym));
        }
    }
    described
}

fn describe_own(
    image: &MetadataImage,
    broker: &BrokerConfig,
    node_id: NodeId,
    own: Option<&ConfigMap>,
) -> Vec<DescribedConfig> {
    let places = Places::new(image, broker, node_id);
    let describe = |key: &'static ConfigDefinition| {
        let mut synonyms = key.synonym.map_or_else(Vec::new, |synonym| places.synonyms(synonym));
        if let Some(value) = own.and_then(|own| own.get(key.name)) {
            let value = Some(key.shown(value));
            synonyms.insert(0, ConfigSynonym { name: key.name.to_owned(), value, source: ConfigSource::DynamicTopic });
        }
        DescribedConfig {
            name: key.name.to_owned(),
            value: Some(key.shown(&resolve_topic_value(image, broker, node_id, own, key.name))),
            read_only: false,
            source: synonyms.first().map_or(ConfigSource::Default, |first| first.source),
            sensitive: false,
            synonyms,
            kind: Some(key.kind),
            documentation: key.documentation,
        }
    };
    topic_definitions().map(describe).collect()
}

/// Every key of a broker, sorted by name; keys of its file that nobody knows are shown last, hidden as if sensitive.
#[must_use]
pub fn describe_broker(image: &MetadataImage, broker: &BrokerConfig, node_id: NodeId) -> Vec<DescribedConfig> {
    let places = Places::new(image, broker, node_id);
    let known = broker_definitions().map(|key| places.describe(key.name, Some(key), true));
    let dynamic = [places.this_broker, places.all_brokers].into_iter().flatten().flat_map(|config| config.keys());
    let set = broker.set_values().map(|(name, _)| name).chain(dynamic.map(AsRef::as_ref));
    let unknown: BTreeSet<&str> = set.filter(|name| broker_definition(name).is_none()).collect();
    known.chain(unknown.into_iter().map(|name| places.describe(name, None, true))).collect()
}

/// The keys that are set on all brokers, sorted by name.
#[must_use]
pub fn describe_default_broker(image: &MetadataImage, broker: &BrokerConfig, node_id: NodeId) -> Vec<DescribedConfig> {
    let places = Places::new(image, broker, node_id);
    let names = places.all_brokers.into_iter().flat_map(|config| config.keys());
    names.map(|name| places.describe(name, broker_definition(name), false)).collect()
}

/// Every key that Kafka reads for one setting, the first that is set counts.
fn aliases(key: &str) -> &[&str] {
    match key {
        "log.retention.ms" | "log.retention.minutes" | "log.retention.hours" => {
            &["log.retention.ms", "log.retention.minutes", "log.retention.hours"]
        }
        "log.roll.ms" | "log.roll.hours" => &["log.roll.ms", "log.roll.hours"],
        "log.roll.jitter.ms" | "log.roll.jitter.hours" => &["log.roll.jitter.ms", "log.roll.jitter.hours"],
        "log.flush.interval.ms" => &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
        _ => &[],
    }
}

/// The places that can set a broker key.
struct Places<'a> {
    this_broker: Option<&'a ConfigMap>,
    all_brokers: Option<&'a ConfigMap>,
    image: &'a MetadataImage,
    file: &'a BrokerConfig,
}

impl<'a> Places<'a> {
    fn new(image: &'a MetadataImage, file: &'a BrokerConfig, node_id: NodeId) -> Self {
        Self {
            this_broker: image.config(&ConfigResource::broker(node_id)).map(AsRef::as_ref),
            all_brokers: image.config(&ConfigResource::default_broker()).map(AsRef::as_ref),
            image,
            file,
        }
    }

    fn value(&self, name: &str, source: ConfigSource) -> Option<&str> {
        match source {
            ConfigSource::DynamicTopic => None,
            ConfigSource::DynamicBroker => self.this_broker?.get(name).map(AsRef::as_ref),
            ConfigSource::DynamicDefaultBroker => self.all_brokers?.get(name).map(AsRef::as_ref),
            ConfigSource::StaticBroker => self.image.default_of(name).unwrap_or_else(|| self.file.set_value(name)),
            ConfigSource::Default => broker_definition(name)?.default,
        }
    }

    /// The first place that sets `key` or an alias of it.
    fn nearest(&self, key: &str) -> ConfigSource {
        let own = [key];
        let names = if aliases(key).is_empty() { &own } else { aliases(key) };
        let places = [ConfigSource::DynamicBroker, ConfigSource::DynamicDefaultBroker, ConfigSource::StaticBroker];
        let sets = |place: &ConfigSource| names.iter().any(|name| self.value(name, *place).is_some());
        places.into_iter().find(sets).unwrap_or(ConfigSource::Default)
    }

    /// All places that set `key` or an alias of it, from the first that sets `key` itself on: Kafka shows no alias before it.
    fn synonyms(&self, key: &str) -> Vec<ConfigSynonym> {
        let sensitive = broker_definition(key).is_none_or(ConfigDefinition::is_sensitive);
        let own = [key];
        let names = if aliases(key).is_empty() { &own } else { aliases(key) };
        let sources = [
            ConfigSource::DynamicBroker,
            ConfigSource::DynamicDefaultBroker,
            ConfigSource::StaticBroker,
            ConfigSource::Default,
        ];
        let at = |source| {
            names.iter().filter_map(move |name| {
                let value = (!sensitive).then(|| self.value(name, source).map(str::to_owned));
                self.value(name, source)?;
                Some(ConfigSynonym { name: (*name).to_owned(), value: value.flatten(), source })
            })
        };
        sources.into_iter().flat_map(at).skip_while(|synonym| synonym.name != key).collect()
    }

    fn describe(&self, name: &str, key: Option<&'static ConfigDefinition>, this_broker: bool) -> DescribedConfig {
        let mut synonyms = self.synonyms(name);
        if !this_broker {
            synonyms.retain(|synonym| synonym.source == ConfigSource::DynamicDefaultBroker);
        }
        let sensitive = key.is_none_or(ConfigDefinition::is_sensitive);
        let value = synonyms.first().and_then(|first| first.value.clone());
        DescribedConfig {
            name: name.to_owned(),
            value: value
                .or_else(|| key.and_then(|key| key.default).map(str::to_owned))
                .map(|value| key.map_or_else(|| value.clone(), |key| key.shown(&value)))
                .filter(|_| !sensitive),
            read_only: key.is_none_or(|key| key.update == UpdateMode::ReadOnly),
            source: synonyms.first().map_or(ConfigSource::Default, |first| first.source),
            sensitive,
            synonyms,
            kind: key.map(|key| key.kind),
            documentation: key.and_then(|key| key.documentation),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn place(described: &[DescribedConfig], key: &str) -> (Option<String>, ConfigSource) {
        let found = described.iter().find(|one| one.name == key).expect("a key");
        (found.value.clone(), found.source)
    }

    /// As Kafka 4.3.1 answers: a creation looks at every key of a setting, a description at the one that the topic's key stands for.
    #[test]
    fn a_creation_names_the_file_where_hours_are_set_in_it() {
        let pairs = [("log.retention.hours", "5"), ("log.roll.hours", "7"), ("compression.type", "producer")];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let (file, image) = (BrokerConfig::parse(pairs).expect("valid").0, MetadataImage::default());
        let created = describe_new_topic(&image, &file, NodeId(1), &ConfigMap::default());
        let described = describe_topic(&image, &file, NodeId(1), "t");
        for (key, value) in [("retention.ms", "18000000"), ("segment.ms", "25200000")] {
            assert_eq!(place(&created, key), (Some(value.to_owned()), ConfigSource::StaticBroker));
            assert_eq!(place(&described, key), (Some(value.to_owned()), ConfigSource::Default));
        }
        assert_eq!(place(&created, "segment.jitter.ms").1, ConfigSource::Default);
        assert_eq!(place(&described, "compression.type").1, ConfigSource::StaticBroker);
        let (mut altered, set) = (image, ConfigMap::from([("log.retention.ms".into(), "9".into())]));
        altered.configs.insert(ConfigResource::default_broker(), Arc::new(set));
        let created = describe_new_topic(&altered, &file, NodeId(1), &ConfigMap::default());
        assert_eq!(place(&created, "retention.ms"), (Some("9".to_owned()), ConfigSource::DynamicDefaultBroker));
    }

    #[test]
    fn a_list_is_described_in_its_plain_form_and_created_as_it_was_written() {
        let own = ConfigMap::from([("cleanup.policy".into(), " compact, compact".into())]);
        let mut image = MetadataImage::default();
        image.configs.insert(ConfigResource::topic("t"), Arc::new(own.clone()));
        let file = BrokerConfig::default();
        let described = describe_topic(&image, &file, NodeId(1), "t");
        assert_eq!(place(&described, "cleanup.policy").0.as_deref(), Some("compact"));
        let created = describe_new_topic(&image, &file, NodeId(1), &own);
        assert_eq!(place(&created, "cleanup.policy").0.as_deref(), Some(" compact, compact"));
    }
}
