//! A scenario: what is sent, read and held for how long, as its TOML file says it.
//! Invariant: a scenario that was read is one that can be run: its numbers are in range and agree with each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::merge::merge;
use crate::payload::Head;

/// What is run. Times are in seconds, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is for, in one sentence.
    pub purpose: String,
    /// The same seed sends the same records.
    #[serde(default = "one")]
    pub seed: u64,
    /// Where records go.
    #[serde(default)]
    pub topics: Topics,
    /// What is sent.
    #[serde(default)]
    pub records: Records,
    /// Who sends.
    #[serde(default)]
    pub producers: Producers,
    /// Who reads.
    #[serde(default)]
    pub consumers: Consumers,
    /// Connections that send next to nothing.
    #[serde(default)]
    pub connections: Connections,
    /// For how long.
    #[serde(default)]
    pub time: Time,
    /// The brokers that are started for it.
    #[serde(default)]
    pub broker: Brokers,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// How many topics; records go to all alike.
    pub count: u32,
    /// Partitions of each.
    pub partitions: u32,
    /// Copies of each partition.
    pub replication_factor: u16,
    /// Configuration of each, on every broker.
    pub configs: BTreeMap<String, String>,
}

impl Default for Topics {
    fn default() -> Self {
        Self { count: 1, partitions: 1, replication_factor: 1, configs: BTreeMap::new() }
    }
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Records {
    /// Bytes of a record's value.
    pub size: Size,
    /// The share of a value that is zeros; the rest is noise.
    pub compressibility: f64,
    /// How many keys there are; a key always goes to the same partition. 0: no keys.
    pub keys: u64,
    /// Without keys: a producer goes to the next partition after so many records. 0: it stays at one.
    pub turn: u64,
}

impl Default for Records {
    fn default() -> Self {
        Self { size: Size::Fixed(1024), compressibility: 0.5, keys: 0, turn: 1 }
    }
}

/// Bytes of a record's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// Always the same.
    Fixed(u32),
    /// Any of these alike, both ends included.
    Between {
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// Sizes with their weights.
    Weighted(Vec<(u32, u32)>),
}

impl Size {
    /// The least and the most.
    #[must_use]
    pub fn bounds(&self) -> (u32, u32) {
        match self {
            Self::Fixed(size) => (*size, *size),
            Self::Between { min, max } => (*min, *max),
            Self::Weighted(sizes) => {
                let all = || sizes.iter().map(|(size, _)| *size);
                (all().min().unwrap_or(0), all().max().unwrap_or(0))
            }
        }
    }
}

/// How fast all producers together send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rate {
    /// Records a second, on schedule whether or not answers come.
    PerSecond(u64),
    /// `"saturated"`: as fast as answers come, with a bound in flight.
    Word(Saturated),
}

/// The word `saturated`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Saturated {
    /// As fast as answers come.
    Saturated,
}

/// Who sends. Each producer has a connection of its own to each broker it writes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Producers {
    /// How many; 0 if nothing is sent.
    pub count: u32,
    /// How fast all of them together.
    pub rate: Rate,
    /// Saturated: records of one producer that are sent and not answered.
    pub in_flight: u32,
    /// `all`, `leader` or `none`.
    pub acks: Acks,
    /// Codec of the batches.
    pub codec: Codec,
    /// How long a batch waits for more records, in milliseconds.
    pub linger_ms: u32,
    /// Bytes of a full batch.
    pub batch_bytes: u32,
    /// Whether retries cannot write twice; only with acks of all.
    pub idempotent: bool,
}

impl Default for Producers {
    fn default() -> Self {
        Self {
            count: 1,
            rate: Rate::PerSecond(1000),
            in_flight: 10_000,
            acks: Acks::All,
            codec: Codec::None,
            linger_ms: 5,
            batch_bytes: 128 << 10,
            idempotent: true,
        }
    }
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acks {
    /// When it is sent.
    None,
    /// When the leader has it.
    Leader,
    /// When all in-sync replicas have it.
    All,
}

/// Codec of the batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// None.
    None,
    /// gzip.
    Gzip,
    /// snappy.
    Snappy,
    /// lz4.
    Lz4,
    /// zstd.
    Zstd,
}

/// Who reads. Each group reads everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Consumers {
    /// How many groups; 0 if nobody reads but the check at the end.
    pub groups: u32,
    /// Consumers of each.
    pub members: u32,
    /// How partitions are shared out.
    pub membership: Membership,
    /// Mebibytes that are written before anything is measured, for readers that begin behind; 0 if they read at the tail.
    pub preload_mib: u64,
    /// Whether what is preloaded is dropped from the page cache before it is read; only with brokers that are started here.
    pub cold: bool,
    /// Most bytes that a fetch asks for.
    pub fetch_bytes: u32,
    /// Most bytes of one partition that a fetch asks for.
    pub partition_bytes: u32,
    /// A broker answers once it has so many.
    pub min_bytes: u32,
    /// Every so often a member leaves its group and another joins; 0 if none does. Needs membership of a group.
    pub churn_ms: u64,
}

impl Default for Consumers {
    fn default() -> Self {
        Self {
            groups: 0,
            members: 1,
            membership: Membership::Manual,
            preload_mib: 0,
            cold: false,
            fetch_bytes: 16 << 20,
            partition_bytes: 1 << 20,
            min_bytes: 1,
            churn_ms: 0,
        }
    }
}

/// How partitions are shared out in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Membership {
    /// By the generator, once: no coordinator is asked.
    Manual,
    /// By the coordinator of a consumer group; positions are committed.
    Group,
}

/// Connections that send one small request and stay, or go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Connections {
    /// New ones a second, on schedule; 0 if there are none.
    pub rate: u64,
    /// How many stay open; beyond that the oldest closes for each that opens.
    pub hold: u32,
}

/// For how long, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Time {
    /// Load that is not counted.
    pub warm_up_s: u64,
    /// Load that is.
    pub steady_s: u64,
    /// Longest wait for the last answers and the last records read.
    pub drain_s: u64,
}

impl Default for Time {
    fn default() -> Self {
        Self { warm_up_s: 5, steady_s: 20, drain_s: 60 }
    }
}

/// The brokers that are started for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Brokers {
    /// How many nodes: 1 or 3.
    pub nodes: u16,
    /// The promise that both sides give.
    pub durability: Durability,
    /// More settings of Madang, `KEY=VALUE`.
    pub madang: Vec<String>,
    /// More settings of Kafka, `KEY=VALUE`.
    pub kafka: Vec<String>,
}

impl Default for Brokers {
    fn default() -> Self {
        Self { nodes: 1, durability: Durability::PageCache, madang: Vec::new(), kafka: Vec::new() }
    }
}

/// What is promised of an acknowledged record when the machine loses power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Nothing: acknowledged from the page cache.
    PageCache,
    /// It is there: synced before it is acknowledged.
    Fsync,
    /// The two sides' own defaults, which promise different things: Madang syncs, Kafka does not.
    Defaults,
}

const fn one() -> u64 {
    1
}

impl Scenario {
    /// Reads a scenario; `changes` are `FIELD.FIELD=VALUE` over it, with values as TOML has them.
    ///
    /// # Errors
    /// A text for a person.
    pub fn read(text: &str, changes: &[String]) -> Result<Self, String> {
        let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        for change in changes {
            merge(&mut table, change)?;
        }
        let scenario: Self = toml::Value::Table(table).try_into().map_err(|error| error.to_string())?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The rate at which records are sent, if it is a fixed one.
    #[must_use]
    pub const fn records_per_second(&self) -> Option<u64> {
        match self.producers.rate {
            Rate::PerSecond(rate) => Some(rate),
            Rate::Word(Saturated::Saturated) => None,
        }
    }

    /// All partitions of all topics.
    #[must_use]
    pub const fn all_partitions(&self) -> u32 {
        self.topics.count * self.topics.partitions
    }

    fn check(&self) -> Result<(), String> {
        let (least, most) = self.records.size.bounds();
        let head = Head::bytes_before_filler("bench-0000000000-000/000000");
        let weights = match &self.records.size {
            Size::Weighted(sizes) => sizes.iter().map(|(_, weight)| u64::from(*weight)).sum(),
            _ => 1,
        };
        let consumers = &self.consumers;
        let wrong = [
            (self.purpose.trim().is_empty(), "purpose: says nothing".to_owned()),
            (
                (least as usize) < head,
                format!("records.size: {least} is too small, a record says in {head} bytes what it is"),
            ),
            (most < least || most > 64 << 20, "records.size: must be ordered, and at most 64 MiB".to_owned()),
            (weights == 0, "records.size: no size has a weight".to_owned()),
            (!(0.0..=1.0).contains(&self.records.compressibility), "records.compressibility: from 0 to 1".to_owned()),
            (!(1..=1000).contains(&self.topics.count), "topics.count: from 1 to 1,000".to_owned()),
            (!(1..=200_000).contains(&self.topics.partitions), "topics.partitions: from 1 to 200,000".to_owned()),
            (self.producers.count > 20_000, "producers.count: at most 20,000".to_owned()),
            (
                !(1..=1_000_000).contains(&self.producers.in_flight),
                "producers.in_flight: from 1 to 1,000,000".to_owned(),
            ),
            (
                self.records_per_second() == Some(0) && self.producers.count > 0,
                "producers.rate: 0 is said by producers.count = 0".to_owned(),
            ),
            (
                self.records_per_second().is_some_and(|rate| rate > 10_000_000),
                "producers.rate: at most 10,000,000".to_owned(),
            ),
            (consumers.groups > 0 && consumers.members == 0, "consumers.members: at least 1".to_owned()),
            (
                consumers.churn_ms > 0 && consumers.membership == Membership::Manual,
                "consumers.churn_ms: needs membership = \"group\"".to_owned(),
            ),
            (consumers.cold && consumers.preload_mib == 0, "consumers.cold: needs preload_mib".to_owned()),
            (self.connections.hold > 0 && self.connections.rate == 0, "connections.hold: needs a rate".to_owned()),
            (self.time.steady_s == 0, "time.steady_s: at least 1".to_owned()),
            (!matches!(self.broker.nodes, 1 | 3), "broker.nodes: 1 or 3".to_owned()),
            (self.topics.replication_factor > 3, "topics.replication_factor: at most 3".to_owned()),
        ];
        wrong.into_iter().find_map(|(is_wrong, why)| is_wrong.then_some(Err(why))).unwrap_or(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "purpose = \"A test.\"\n";

    fn refused(change: &str) -> String {
        Scenario::read(SMALL, &[change.to_owned()]).expect_err("wrong")
    }

    #[test]
    fn what_is_not_said_has_its_default_and_what_is_said_counts() {
        let text = "purpose = \"x\"\n[producers]\nrate = \"saturated\"\n[records]\nsize = [[100, 9], [5000, 1]]\n";
        let scenario = Scenario::read(text, &["topics.partitions=7".to_owned()]).expect("sound");
        assert_eq!(scenario.records_per_second(), None);
        assert_eq!(scenario.records.size.bounds(), (100, 5000));
        assert_eq!((scenario.topics.partitions, scenario.producers.acks), (7, Acks::All));
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_the_field_that_is_wrong() {
        for (change, field) in [
            ("records.size=20", "records.size"),
            ("records.size={min=200,max=100}", "records.size"),
            ("records.size=[[100,0]]", "records.size"),
            ("records.compressibility=1.5", "records.compressibility"),
            ("producers.rate=0", "producers.rate"),
            ("consumers.churn_ms=5", "consumers.churn_ms"),
            ("consumers.cold=true", "consumers.cold"),
            ("time.steady_s=0", "time.steady_s"),
            ("broker.nodes=2", "broker.nodes"),
            ("producers.rate=\"fast\"", "rate"),
            ("producers.speed=5", "speed"),
        ] {
            assert!(refused(change).contains(field), "{change}: {}", refused(change));
        }
    }

    #[test]
    fn what_the_readme_shows_is_sound() {
        let readme = include_str!("../../README.md");
        let shown = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
        let scenario = Scenario::read(shown, &[]).expect("sound");
        assert_eq!(scenario.topics.configs["retention.ms"], "600000");
    }

    #[test]
    fn every_scenario_file_is_sound() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).expect("the folder of scenarios") {
            let path = entry.expect("an entry").path();
            let text = std::fs::read_to_string(&path).expect("a scenario");
            let scenario = Scenario::read(&text, &[]).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
            assert!(scenario.purpose.ends_with('.') && !scenario.purpose.contains(". "), "{}", path.display());
            names.push(path);
        }
        assert!(names.len() >= 13, "{names:?}");
    }
}
