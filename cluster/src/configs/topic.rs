//! What a topic's configuration comes to, from its own settings, the brokers' dynamic ones, the broker's file and the defaults.
//! Invariant: the order of precedence is Kafka's: topic, this broker, all brokers, file, default; milliseconds before minutes before hours.

use std::time::Duration;

use madang_protocol::types::NodeId;

use super::broker::BrokerConfig;
use super::definition::{broker_definition, list_items, topic_definition};
use crate::metadata::{ConfigMap, ConfigResource, MetadataImage};

/// The keys that decide what is acknowledged, and who may lead: they come from the metadata alone, the same for every node. What no topic and
/// no request has set is what a controller has written of its file, and no broker's own.
pub const CLUSTER_KEYS: [&str; 3] = ["madang.durability", "min.insync.replicas", "unclean.leader.election.enable"];

/// What happens to old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Whole segments go by age and size.
    pub delete: bool,
    /// The last record of each key stays.
    pub compact: bool,
}

/// Codec that batches are stored in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompressionType {
    /// The producer's.
    #[default]
    Producer,
    /// None.
    Uncompressed,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Whose time records carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's.
    LogAppendTime,
}

/// A topic's configuration, resolved. Negative limits are none.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy`.
    pub cleanup_policy: CleanupPolicy,
    /// `retention.ms`; none for no limit.
    pub retention: Option<Duration>,
    /// `retention.bytes`; none for no limit.
    pub retention_bytes: Option<u64>,
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.ms`.
    pub segment_age: Duration,
    /// `segment.jitter.ms`.
    pub segment_jitter: Duration,
    /// `segment.index.bytes`.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `max.message.bytes`.
    pub max_message_bytes: u32,
    /// `min.insync.replicas` as set; [`TopicConfig::min_in_sync_replicas`] bounds it.
    pub min_insync_replicas: u32,
    /// `compression.type`.
    pub compression_type: CompressionType,
    /// `compression.gzip.level`; -1 for the codec's default.
    pub compression_gzip_level: i32,
    /// `compression.lz4.level`.
    pub compression_lz4_level: i32,
    /// `compression.zstd.level`.
    pub compression_zstd_level: i32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max: Duration,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max: Duration,
    /// `flush.messages`.
    pub flush_messages: u64,
    /// `flush.ms`.
    pub flush_interval: Duration,
    /// `delete.retention.ms`.
    pub delete_retention: Duration,
    /// `file.delete.delay.ms`.
    pub file_delete_delay: Duration,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag: Duration,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag: Duration,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `preallocate`.
    pub preallocate: bool,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: bool,
}

impl TopicConfig {
    /// What holds for `topic` on node `node_id`, by the committed image and the broker's own settings.
    #[must_use]
    pub fn resolve(image: &MetadataImage, broker: &BrokerConfig, node_id: NodeId, topic: &str) -> Self {
        Self::from_layers(&Layers::new(image, broker, node_id, image.topic_config(topic).map(AsRef::as_ref)))
    }

    /// `min.insync.replicas`, at most the replication factor and at least 1.
    #[must_use]
    pub fn min_in_sync_replicas(&self, replication_factor: usize) -> usize {
        (self.min_insync_replicas as usize).min(replication_factor).max(1)
    }

    fn from_layers(layers: &Layers<'_>) -> Self {
        let millis = |key| Duration::from_millis(u64::try_from(layers.long(key)).unwrap_or(0));
        let unsigned = |key| u64::try_from(layers.long(key)).unwrap_or(0);
        let small = |key| u32::try_from(layers.long(key)).unwrap_or(0);
        let int = |key| i32::try_from(layers.long(key)).unwrap_or(0);
        let policy = layers.text("cleanup.policy");
        let has = |name| list_items(&policy).any(|item| item == name);
        Self {
            cleanup_policy: CleanupPolicy { delete: has("delete"), compact: has("compact") },
            retention: u64::try_from(layers.long("retention.ms")).ok().map(Duration::from_millis),
            retention_bytes: u64::try_from(layers.long("retention.bytes")).ok(),
            segment_bytes: small("segment.bytes"),
            segment_age: millis("segment.ms"),
            segment_jitter: millis("segment.jitter.ms"),
            segment_index_bytes: small("segment.index.bytes"),
            index_interval_bytes: small("index.interval.bytes"),
            max_message_bytes: small("max.message.bytes"),
            min_insync_replicas: small("min.insync.replicas"),
            compression_type: compression_type(&layers.text("compression.type")),
            compression_gzip_level: int("compression.gzip.level"),
            compression_lz4_level: int("compression.lz4.level"),
            compression_zstd_level: int("compression.zstd.level"),
            timestamp_type: match layers.text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max: millis("message.timestamp.before.max.ms"),
            timestamp_after_max: millis("message.timestamp.after.max.ms"),
            flush_messages: unsigned("flush.messages"),
            flush_interval: millis("flush.ms"),
            delete_retention: millis("delete.retention.ms"),
            file_delete_delay: millis("file.delete.delay.ms"),
            min_compaction_lag: millis("min.compaction.lag.ms"),
            max_compaction_lag: millis("max.compaction.lag.ms"),
            min_cleanable_dirty_ratio: layers.text("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
            preallocate: layers.boolean("preallocate"),
            unclean_leader_election: layers.boolean("unclean.leader.election.enable"),
        }
    }
}

fn compression_type(text: &str) -> CompressionType {
    match text {
        "uncompressed" => CompressionType::Uncompressed,
        "gzip" => CompressionType::Gzip,
        "snappy" => CompressionType::Snappy,
        "lz4" => CompressionType::Lz4,
        "zstd" => CompressionType::Zstd,
        _ => CompressionType::Producer,
    }
}

/// The value that key `key` has for a topic with the settings `overrides`, as text: what `DescribeConfigs` and a topic's creation
/// answer. Empty if the key has no value or does not exist.
#[must_use]
pub fn resolve_topic_value(
    image: &MetadataImage,
    broker: &BrokerConfig,
    node_id: NodeId,
    overrides: Option<&ConfigMap>,
    key: &str,
) -> String {
    Layers::new(image, broker, node_id, overrides).text(key)
}

/// A number that can be changed while the broker runs, as it is now on node `node_id`; 0 if the key has no number.
#[must_use]
pub fn dynamic_broker_number(image: &MetadataImage, broker: &BrokerConfig, node_id: NodeId, key: &str) -> i64 {
    let layers = Layers::new(image, broker, node_id, None);
    layers.broker_value(key).and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// The places where a value can come from, first to last.
struct Layers<'a> {
    topic: Option<&'a ConfigMap>,
    this_broker: Option<&'a ConfigMap>,
    all_brokers: Option<&'a ConfigMap>,
    image: &'a MetadataImage,
    file: &'a BrokerConfig,
}

impl<'a> Layers<'a> {
    fn new(image: &'a MetadataImage, file: &'a BrokerConfig, node: NodeId, topic: Option<&'a ConfigMap>) -> Self {
        Self {
            topic,
            this_broker: image.config(&ConfigResource::broker(node)).map(AsRef::as_ref),
            all_brokers: image.config(&ConfigResource::default_broker()).map(AsRef::as_ref),
            image,
            file,
        }
    }

    fn text(&self, key: &str) -> String {
        let own = self.topic.and_then(|config| config.get(key)).map(|value| value.trim());
        let default = || topic_definition(key).and_then(|definition| definition.default);
        own.map(str::to_owned)
            .or_else(|| self.inherited(key))
            .or_else(|| default().map(str::to_owned))
            .unwrap_or_default()
    }

    fn long(&self, key: &str) -> i64 {
        let default = || topic_definition(key).and_then(|definition| definition.default?.parse().ok());
        self.text(key).parse().ok().or_else(default).unwrap_or(0)
    }

    fn boolean(&self, key: &str) -> bool {
        self.text(key).eq_ignore_ascii_case("true")
    }

    /// The brokers' value of the key that stands behind a topic key.
    fn inherited(&self, key: &str) -> Option<String> {
        match key {
            "retention.ms" => self.first_of(&[
                ("log.retention.ms", 1),
                ("log.retention.minutes", 60_000),
                ("log.retention.hours", 3_600_000),
            ]),
            "segment.ms" => self.first_of(&[("log.roll.ms", 1), ("log.roll.hours", 3_600_000)]),
            "segment.jitter.ms" => self.first_of(&[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", 3_600_000)]),
            "flush.ms" => self.first_of(&[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)]),
            _ => self.broker_value(topic_definition(key)?.synonym?).map(str::to_owned),
        }
    }

    fn first_of(&self, keys: &[(&str, i64)]) -> Option<String> {
        let (value, unit) = keys.iter().find_map(|(key, unit)| Some((self.broker_value(key)?, *unit)))?;
        let value: i64 = value.parse().ok()?;
        Some(if value < 0 { -1 } else { value.saturating_mul(unit) }.to_string())
    }

    fn broker_value(&self, key: &str) -> Option<&str> {
        let this_broker = self.this_broker.filter(|_| !CLUSTER_KEYS.contains(&key));
        let dynamic = [this_broker, self.all_brokers].into_iter().flatten().find_map(|config| config.get(key));
        // Until a controller has said what holds, there is nobody who could decide otherwise.
        let file = || self.image.default_of(key).unwrap_or_else(|| self.file.set_value(key));
        let set = dynamic.map(|value| value.trim()).or_else(file);
        set.or_else(|| broker_definition(key)?.default)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn broker(pairs: &[(&str, &str)]) -> BrokerConfig {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        BrokerConfig::parse(pairs).expect("a valid configuration").0
    }

    fn set(image: &mut MetadataImage, resource: ConfigResource, key: &str, value: &str) {
        let mut config = image.config(&resource).map(|config| (**config).clone()).unwrap_or_default();
        config.insert(key.into(), value.into());
        image.configs.insert(resource, Arc::new(config));
    }

    #[test]
    fn defaults_are_kafkas() {
        let config = TopicConfig::resolve(&MetadataImage::default(), &broker(&[]), NodeId(1), "t");
        assert_eq!(config.retention, Some(Duration::from_hours(168)));
        assert_eq!((config.segment_bytes, config.max_message_bytes), (1 << 30, 1_048_588));
        assert_eq!(config.cleanup_policy, CleanupPolicy { delete: true, compact: false });
        assert_eq!((config.retention_bytes, config.flush_messages), (None, i64::MAX as u64));
        assert_eq!(config.segment_age, Duration::from_hours(168));
    }

    #[test]
    fn the_nearest_setting_wins() {
        let file = broker(&[("log.retention.hours", "2"), ("log.segment.bytes", "2000000")]);
        let mut image = MetadataImage::default();
        let retention = |image: &MetadataImage| TopicConfig::resolve(image, &file, NodeId(1), "t").retention;
        assert_eq!(retention(&image), Some(Duration::from_hours(2)));
        set(&mut image, ConfigResource::default_broker(), "log.retention.ms", "5000");
        assert_eq!(retention(&image), Some(Duration::from_secs(5)));
        set(&mut image, ConfigResource::broker(NodeId(1)), "log.retention.ms", "4000");
        assert_eq!(retention(&image), Some(Duration::from_secs(4)));
        set(&mut image, ConfigResource::topic("t"), "retention.ms", "-1");
        assert_eq!(retention(&image), None);
        assert_eq!(TopicConfig::resolve(&image, &file, NodeId(2), "u").retention, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_brokers_own_setting_is_what_was_altered_last_for_it() {
        let (file, mut image) = (broker(&[("log.cleaner.backoff.ms", "7")]), MetadataImage::default());
        let backoff = |image: &MetadataImage, file: &BrokerConfig| {
            dynamic_broker_number(image, file, NodeId(1), "log.cleaner.backoff.ms")
        };
        assert_eq!(backoff(&image, &broker(&[])), 15_000);
        assert_eq!(backoff(&image, &file), 7);
        set(&mut image, ConfigResource::default_broker(), "log.cleaner.backoff.ms", "8");
        assert_eq!(backoff(&image, &file), 8);
    }

    #[test]
    fn what_decides_about_loss_comes_from_the_metadata_and_from_no_nodes_own_settings() {
        let (file, mut image) = (broker(&[("min.insync.replicas", "2")]), MetadataImage::default());
        let minimum = |image: &MetadataImage| TopicConfig::resolve(image, &file, NodeId(1), "t").min_insync_replicas;
        assert_eq!(minimum(&image), 2, "before any controller has spoken");
        image.defaults.insert("min.insync.replicas".into(), Some("3".into()));
        assert_eq!(minimum(&image), 3);
        image.defaults.insert("min.insync.replicas".into(), None);
        assert_eq!(minimum(&image), 1, "a file that leaves it out says so too");
        set(&mut image, ConfigResource::broker(NodeId(1)), "min.insync.replicas", "4");
        assert_eq!(minimum(&image), 1);
        set(&mut image, ConfigResource::default_broker(), "min.insync.replicas", "5");
        assert_eq!(minimum(&image), 5);
    }

    #[test]
    fn milliseconds_go_before_minutes_and_minutes_before_hours() {
        let retention = |pairs: &[(&str, &str)]| {
            TopicConfig::resolve(&MetadataImage::default(), &broker(pairs), NodeId(1), "t").retention
        };
        let hours = ("log.retention.hours", "1");
        assert_eq!(retention(&[hours, ("log.retention.minutes", "7")]), Some(Duration::from_mins(7)));
        assert_eq!(
            retention(&[hours, ("log.retention.minutes", "7"), ("log.retention.ms", "9")]),
            Some(Duration::from_millis(9))
        );
        assert_eq!(retention(&[("log.retention.hours", "-1")]), None);
    }

    #[test]
    fn min_in_sync_replicas_counts_as_the_replication_factor_where_that_is_lower() {
        let mut config = TopicConfig::resolve(&MetadataImage::default(), &broker(&[]), NodeId(1), "t");
        config.min_insync_replicas = 2;
        assert_eq!((config.min_in_sync_replicas(1), config.min_in_sync_replicas(3)), (1, 2));
    }
}
