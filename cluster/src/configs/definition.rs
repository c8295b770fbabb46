//! The table of keys, read once from the two `.tsv` files beside this one, and the check of a value against its row.
//! Invariant: every row of both files parses; a test reads them all.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use thiserror::Error;

/// Type of a key's value, as Kafka names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigKind {
    /// `true` or `false`.
    Boolean,
    /// Any text.
    String,
    /// 32 bits.
    Int,
    /// 16 bits.
    Short,
    /// 64 bits.
    Long,
    /// A floating-point number.
    Double,
    /// Texts between commas.
    List,
    /// Name of a Java class; kept, never loaded.
    Class,
    /// Text that is never shown.
    Password,
}

impl ConfigKind {
    /// Kafka's number of the type in `DescribeConfigs`.
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
            Self::Class => "CLASS",
            Self::Password => "PASSWORD",
        }
    }
}

/// Where a broker key can be set while the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateMode {
    /// Only in the broker's file.
    ReadOnly,
    /// On one broker.
    PerBroker,
    /// On one broker or on all at once.
    ClusterWide,
}

/// Which values a key may have beyond its type.
#[derive(Clone, Debug, PartialEq)]
enum Validator {
    Any,
    AtLeast(f64),
    Between(f64, f64),
    GzipLevel,
    OneOf { allowed: Vec<&'static str>, ignore_case: bool },
    NonEmpty,
    ThrottledReplicas,
}

/// One key.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigDefinition {
    /// Its name.
    pub name: &'static str,
    /// Type of its value.
    pub kind: ConfigKind,
    /// Its default; none if it has no value unless set.
    pub default: Option<&'static str>,
    /// Where it can be set while the broker runs; every topic key can.
    pub update: UpdateMode,
    /// Of a topic key, the broker key that is its default.
    pub synonym: Option<&'static str>,
    /// What it does, in one sentence; none if it has no effect here.
    pub documentation: Option<&'static str>,
    validator: Validator,
}

/// A value that a key does not take; the text is Kafka's own.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvalidConfig(pub String);

impl ConfigDefinition {
    /// Whether the value must never be shown.
    #[must_use]
    pub fn is_sensitive(&self) -> bool {
        self.kind == ConfigKind::Password
    }

    /// Checks type and range of a value.
    ///
    /// # Errors
    /// What is wrong, in Kafka's words.
    pub fn validate(&self, value: &str) -> Result<(), InvalidConfig> {
        let value = value.trim();
        let number = self.check_kind(value)?;
        match &self.validator {
            Validator::Any => Ok(()),
            Validator::AtLeast(least) => self.check_range(value, number, *least, f64::INFINITY),
            Validator::Between(least, most) => self.check_range(value, number, *least, *most),
            Validator::GzipLevel if number == -1.0 => Ok(()),
            Validator::GzipLevel if (1.0..=9.0).contains(&number) => Ok(()),
            Validator::GzipLevel => Err(self.invalid(value, "Value must be between 1 and 9 or equal to -1")),
            Validator::NonEmpty if value.is_empty() => Err(InvalidConfig(format!(
                "Configuration '{}' must not be empty. Valid values include: any non-empty value",
                self.name
            ))),
            Validator::NonEmpty => Ok(()),
            Validator::OneOf { allowed, ignore_case } => self.check_one_of(value, allowed, *ignore_case),
            Validator::ThrottledReplicas => self.check_throttled(value),
        }
    }

    fn invalid(&self, value: &str, why: &str) -> InvalidConfig {
        InvalidConfig(format!("Invalid value {value} for configuration {}: {why}", self.name))
    }

    fn check_kind(&self, value: &str) -> Result<f64, InvalidConfig> {
        let not_a_number = || self.invalid(value, &format!("Not a number of type {}", self.kind.name()));
        match self.kind {
            ConfigKind::Boolean if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") => Ok(0.0),
            ConfigKind::Boolean => Err(self.invalid(value, "Expected value to be either true or false")),
            ConfigKind::Int => value.parse::<i32>().map(f64::from).map_err(|_| not_a_number()),
            ConfigKind::Short => value.parse::<i16>().map(f64::from).map_err(|_| not_a_number()),
            ConfigKind::Long => value.parse::<i64>().map(|number| number as f64).map_err(|_| not_a_number()),
            ConfigKind::Double => value.parse::<f64>().map_err(|_| not_a_number()),
            ConfigKind::String | ConfigKind::List | ConfigKind::Class | ConfigKind::Password => Ok(0.0),
        }
    }

    fn check_range(&self, value: &str, number: f64, least: f64, most: f64) -> Result<(), InvalidConfig> {
        let why = match () {
            () if number > most => format!("Value must be no more than {most}"),
            () if number >= least => return Ok(()),
            () => format!("Value must be at least {least}"),
        };
        match self.kind {
            ConfigKind::Double => Err(self.invalid(&format!("{number:?}"), &why)),
            _ => Err(self.invalid(value, &why)),
        }
    }

    fn check_one_of(&self, value: &str, allowed: &[&str], ignore_case: bool) -> Result<(), InvalidConfig> {
        let one = |value: &str| {
            let found =
                allowed.iter().any(|allowed| *allowed == value || (ignore_case && allowed.eq_ignore_ascii_case(value)));
            let case = if ignore_case { " (case insensitive)" } else { "" };
            let why = format!("String must be one of{case}: {}", allowed.join(", "));
            if found { Ok(()) } else { Err(self.invalid(value, &why)) }
        };
        if self.kind != ConfigKind::List {
            return one(value);
        }
        let empty = || InvalidConfig(format!("Configuration '{}' values must not be empty.", self.name));
        parts(value).try_for_each(|item| if item.is_empty() { Err(empty()) } else { one(item) })
    }

    /// A value as it is shown: a list without spaces, and without what it names again if it is a choice of names.
    #[must_use]
    pub fn shown(&self, value: &str) -> String {
        if self.kind != ConfigKind::List {
            return value.trim().to_owned();
        }
        let once = matches!(self.validator, Validator::OneOf { .. });
        let mut items: Vec<&str> = Vec::new();
        for item in parts(value) {
            if !once || !items.contains(&item) {
                items.push(item);
            }
        }
        items.join(",")
    }

    fn check_throttled(&self, value: &str) -> Result<(), InvalidConfig> {
        let numbers = |item: &str| {
            item.split_once(':').is_some_and(|(partition, broker)| {
                [partition, broker]
                    .iter()
                    .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
            })
        };
        if value == "*" || list_items(value).all(numbers) {
            return Ok(());
        }
        let shown = format!("[{}]", list_items(value).collect::<Vec<_>>().join(", "));
        let why = format!(
            "{} must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            self.name
        );
        Err(self.invalid(&shown, &why))
    }
}

/// What lies between a list's commas, trimmed, empty or not; nothing of a list that is empty as a whole.
fn parts(value: &str) -> impl Iterator<Item = &str> {
    let value = value.trim();
    (!value.is_empty()).then(|| value.split(',').map(str::trim)).into_iter().flatten()
}

/// The texts between a list's commas, trimmed; none of an empty list.
pub fn list_items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

static TOPIC: LazyLock<BTreeMap<&'static str, ConfigDefinition>> = LazyLock::new(|| table(include_str!("topic.tsv")));
static BROKER: LazyLock<BTreeMap<&'static str, ConfigDefinition>> = LazyLock::new(|| table(include_str!("broker.tsv")));

/// A topic key by name.
#[must_use]
pub fn topic_definition(name: &str) -> Option<&'static ConfigDefinition> {
    TOPIC.get(name)
}

/// All topic keys, sorted by name.
pub fn topic_definitions() -> impl Iterator<Item = &'static ConfigDefinition> {
    TOPIC.values()
}

/// A broker key by name.
#[must_use]
pub fn broker_definition(name: &str) -> Option<&'static ConfigDefinition> {
    BROKER.get(name)
}

/// All broker keys, sorted by name.
pub fn broker_definitions() -> impl Iterator<Item = &'static ConfigDefinition> {
    BROKER.values()
}

fn table(text: &'static str) -> BTreeMap<&'static str, ConfigDefinition> {
    text.lines().skip(1).filter_map(row).map(|definition| (definition.name, definition)).collect()
}

fn row(line: &'static str) -> Option<ConfigDefinition> {
    let fields: Vec<&'static str> = line.split('\t').collect();
    let &[name, kind, default, validator, update, synonym, documentation] = fields.as_slice() else { return None };
    let present = |field: &'static str| (field != "-").then_some(field);
    Some(ConfigDefinition {
        name,
        kind: parse_kind(kind)?,
        default: (!matches!(default, "\\N" | "\\R")).then_some(default),
        update: parse_update(update)?,
        synonym: present(synonym),
        documentation: present(documentation),
        validator: parse_validator(validator)?,
    })
}

fn parse_kind(text: &str) -> Option<ConfigKind> {
    let kinds = [
        ConfigKind::Boolean,
        ConfigKind::String,
        ConfigKind::Int,
        ConfigKind::Short,
        ConfigKind::Long,
        ConfigKind::Double,
        ConfigKind::List,
        ConfigKind::Class,
        ConfigKind::Password,
    ];
    kinds.into_iter().find(|kind| kind.name() == text)
}

fn parse_update(text: &str) -> Option<UpdateMode> {
    match text {
        "read-only" => Some(UpdateMode::ReadOnly),
        "per-broker" => Some(UpdateMode::PerBroker),
        "cluster-wide" => Some(UpdateMode::ClusterWide),
        _ => None,
    }
}

fn parse_validator(text: &'static str) -> Option<Validator> {
    match text {
        "-" | "non-null string" => return Some(Validator::Any),
        "non-empty string" | "non-empty list" => return Some(Validator::NonEmpty),
        "[1,...,9] or -1" => return Some(Validator::GzipLevel),
        _ if text.starts_with("[partitionId]") => return Some(Validator::ThrottledReplicas),
        _ => {}
    }
    let (text, ignore_case) = text.strip_prefix("(case insensitive) ").map_or((text, false), |rest| (rest, true));
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    if let Some((least, rest)) = inner.split_once(",...") {
        let least = least.parse().ok()?;
        return match rest.strip_prefix(',') {
            Some(most) => Some(Validator::Between(least, most.parse().ok()?)),
            None => Some(Validator::AtLeast(least)),
        };
    }
    Some(Validator::OneOf { allowed: inner.split(", ").collect(), ignore_case })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_parses_and_every_default_is_valid() {
        for (text, count) in [(include_str!("topic.tsv"), TOPIC.len()), (include_str!("broker.tsv"), BROKER.len())] {
            assert_eq!(text.lines().skip(1).count(), count);
        }
        for definition in topic_definitions().chain(broker_definitions()) {
            // Kafka itself starts with empty defaults that nobody may set.
            if let Some(default) = definition.default.filter(|default| !default.is_empty()) {
                assert_eq!(definition.validate(default), Ok(()), "{}", definition.name);
            }
        }
        assert!(topic_definitions().all(|key| key.synonym.is_none_or(|name| broker_definition(name).is_some())));
    }

    #[test]
    fn names_and_defaults_are_those_of_kafka() {
        let expected = [
            (include_str!("../../tests/data/topic-configs.tsv"), &*TOPIC),
            (include_str!("../../tests/data/broker-configs.tsv"), &*BROKER),
        ];
        for (text, table) in expected {
            let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split('\t').collect()).collect();
            for row in &rows {
                let definition = table.get(row[0]).unwrap_or_else(|| panic!("no {}", row[0]));
                let default = definition.default.unwrap_or("(none)");
                if row[0] == "broker.session.timeout.ms" {
                    // Ours, and the only one: what a silent broker leads is sooner led by another.
                    assert_eq!((row[1], default), ("9000", "2250"));
                    continue;
                }
                // Where the data says "(none)" for a topic, the default stands under another broker key.
                assert!(row[1] == default || row[1] == "(none)", "{}: {default}", row[0]);
            }
            let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
            let ours = table.keys().filter(|name| !name.starts_with("madang."));
            assert!(ours.clone().all(|name| names.contains(name)), "{:?}", ours.collect::<Vec<_>>());
        }
    }

    /// Keys that nothing here does what they ask for. Saying what they do would promise it.
    #[test]
    fn a_key_without_an_effect_has_no_description() {
        let of_topics = [
            "file.delete.delay.ms",
            "local.retention.bytes",
            "local.retention.ms",
            "preallocate",
            "remote.log.copy.disable",
            "remote.log.delete.on.disable",
            "remote.storage.enable",
        ];
        let of_brokers = [
            "log.local.retention.bytes",
            "log.local.retention.ms",
            "log.preallocate",
            "log.segment.delete.delay.ms",
            "madang.disk.reserve.bytes",
            "num.io.threads",
            "num.network.threads",
            "process.roles",
            "queued.max.request.bytes",
            "queued.max.requests",
            "transaction.max.timeout.ms",
            "transactional.id.expiration.ms",
        ];
        let described = |key: Option<&ConfigDefinition>| key.expect("a key of Kafka's").documentation;
        for key in of_topics {
            assert_eq!(described(topic_definition(key)), None, "{key}");
        }
        for key in of_brokers {
            assert_eq!(described(broker_definition(key)), None, "{key}");
        }
        // What is said of a key of topics is said of the brokers' key behind it.
        for key in topic_definitions() {
            let behind = key.synonym.and_then(broker_definition);
            assert!(
                behind.is_none_or(|behind| behind.documentation.is_some() == key.documentation.is_some()),
                "{key:?}"
            );
        }
    }

    fn message(key: &str, value: &str) -> String {
        topic_definition(key).expect("a topic key").validate(value).expect_err("invalid").0
    }

    #[test]
    fn invalid_values_are_refused_in_kafkas_words() {
        for (key, value, expected) in [
            ("segment.bytes", "1", "Invalid value 1 for configuration segment.bytes: Value must be at least 1048576"),
            ("segment.bytes", "abc", "Invalid value abc for configuration segment.bytes: Not a number of type INT"),
            (
                "cleanup.policy",
                "x",
                "Invalid value x for configuration cleanup.policy: String must be one of: compact, delete",
            ),
            ("cleanup.policy", "compact,,delete", "Configuration 'cleanup.policy' values must not be empty."),
            ("cleanup.policy", "delete,", "Configuration 'cleanup.policy' values must not be empty."),
            (
                "compression.gzip.level",
                "0",
                "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
            (
                "min.cleanable.dirty.ratio",
                "2",
                "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
            ),
            (
                "preallocate",
                "x",
                "Invalid value x for configuration preallocate: Expected value to be either true or false",
            ),
        ] {
            assert_eq!(message(key, value), expected);
        }
    }

    #[test]
    fn a_list_is_shown_without_spaces_and_names_of_a_choice_once() {
        let shown = |key: &str, value| topic_definition(key).expect("a topic key").shown(value);
        assert_eq!(shown("cleanup.policy", " delete , compact,delete"), "delete,compact");
        assert_eq!(shown("leader.replication.throttled.replicas", "0:1, 0:1,"), "0:1,0:1,");
        assert_eq!((shown("cleanup.policy", " "), shown("retention.ms", " 7 ")), (String::new(), "7".to_owned()));
    }

    #[test]
    fn the_edges_of_ranges_and_lists_are_accepted() {
        for (key, value) in [
            ("retention.ms", "-1"),
            ("compression.gzip.level", "-1"),
            ("cleanup.policy", "compact,delete"),
            ("cleanup.policy", " compact , compact "),
            ("cleanup.policy", ""),
            ("leader.replication.throttled.replicas", "0:1,,0:2,"),
            ("min.cleanable.dirty.ratio", "1"),
            ("leader.replication.throttled.replicas", "0:1,1:2"),
            ("follower.replication.throttled.replicas", "*"),
            ("preallocate", "TRUE"),
            ("segment.bytes", " 1048576 "),
        ] {
            assert_eq!(topic_definition(key).expect("a topic key").validate(value), Ok(()), "{key}={value}");
        }
    }
}
