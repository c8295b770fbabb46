//! The replicas that this node holds: where each one is, how it is reached, how it is built from disk.
//! Invariant: a replica is forgotten only because a committed tombstone names its topic's id, or a committed state of its partition this node as
//! one that has left.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use imbl::OrdMap;
use madang_actors::actor_ref::ActorRef;
use madang_actors::clock::Wall;
use madang_actors::host::{Child, ShellContext, StartResult};
use madang_actors::mailbox::Capacity;
use madang_cluster::configs::{BrokerConfig, CompressionType, TimestampType, TopicConfig, dynamic_broker_number};
use madang_cluster::metadata::{MetadataImage, PartitionImage, TopicImage};
use madang_cluster::replica::actor::ReplicaActor;
use madang_cluster::replica::replication::Assignment;
use madang_cluster::replica::{
    LostRecords, Neighbours, Replica, ReplicaConfig, ReplicaHandle, ReplicaMessage, ReplicaSnapshot, SharedReplica,
};
use madang_protocol::compression::{Codec, Compression};
use madang_protocol::record_batch::{ProduceRules, TimestampType as BatchTimestamps, TopicCompression};
use madang_protocol::types::{LeaderEpoch, TopicPartition};
use madang_storage::{Checkpoint, CompactionSettings, Disk, Log, LogConfig, LogError, Recovery, Start};

use crate::directory::{Directory, DirectoryLink};
use crate::found::Found;
use crate::supervision::replica_child;

/// A replica and where it lives.
#[derive(Clone, Debug)]
pub struct Held {
    /// How it is reached.
    pub handle: ReplicaHandle,
    /// Its log directory.
    pub directory: Arc<Directory>,
    /// Its partition's folder.
    pub path: PathBuf,
    /// The child that its directory's supervisor runs.
    pub child: Child,
}

/// All replicas of the node. Lookups take no lock.
#[derive(Debug, Default)]
pub struct Replicas {
    held: ArcSwap<OrdMap<TopicPartition, Arc<Held>>>,
}

impl Replicas {
    /// How the replica of a partition is reached.
    #[must_use]
    pub fn handle(&self, partition: &TopicPartition) -> Option<ReplicaHandle> {
        self.held.load().get(partition).map(|held| held.handle.clone())
    }

    /// The replica of a partition.
    #[must_use]
    pub fn get(&self, partition: &TopicPartition) -> Option<Arc<Held>> {
        self.held.load().get(partition).cloned()
    }

    /// All of them, as they are now.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Held>> {
        self.held.load().values().cloned().collect()
    }

    /// Those in the log directory at `path`.
    #[must_use]
    pub fn within(&self, path: &Path) -> Vec<Arc<Held>> {
        self.held.load().values().filter(|held| held.directory.path == path).cloned().collect()
    }

    /// Adds one. One thread adds and removes.
    pub fn insert(&self, partition: TopicPartition, held: Arc<Held>) {
        self.held.rcu(|all| all.update(partition, held.clone()));
    }

    /// Forgets one.
    pub fn remove(&self, partition: &TopicPartition) -> Option<Arc<Held>> {
        let gone = self.get(partition);
        self.held.rcu(|all| all.without(partition));
        gone
    }
}

/// What the metadata and the node's configuration say of a partition, as its replica needs it.
#[must_use]
pub fn replica_config(
    image: &MetadataImage,
    broker: &BrokerConfig,
    topic: &TopicImage,
    partition: &PartitionImage,
) -> ReplicaConfig {
    let config = TopicConfig::resolve(image, broker, broker.node_id, &topic.name);
    let number = |key| dynamic_broker_number(image, broker, broker.node_id, key);
    let dedupe_buffer = number("log.cleaner.dedupe.buffer.size");
    let producer_id_expiration = u64::try_from(number("producer.id.expiration.ms")).map(Duration::from_millis);
    ReplicaConfig {
        log: LogConfig {
            producer_id_expiration: producer_id_expiration.unwrap_or_default(),
            ..log_config(&config, broker)
        },
        produce: produce_rules(&config),
        durability: broker.durability,
        min_in_sync_replicas: config.min_insync_replicas as usize,
        deletes_old_records: config.cleanup_policy.delete,
        compaction: config.cleanup_policy.compact.then(|| compaction_settings(&config, dedupe_buffer)),
        replication_factor: partition.replication_factor(),
        in_sync_replicas: partition.in_sync_replicas.len(),
        replica_lag_time_max: broker.replica_lag_time_max,
    }
}

/// What is appended must be sealed before it can be compacted, so a segment of a compacted topic does not stay open for longer than
/// `max.compaction.lag.ms`.
fn segment_age(config: &TopicConfig) -> Duration {
    if config.cleanup_policy.compact { config.segment_age.min(config.max_compaction_lag) } else { config.segment_age }
}

fn compaction_settings(config: &TopicConfig, dedupe_buffer: i64) -> CompactionSettings {
    // One number for the life of the process; no client knows it.
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    let never = config.max_compaction_lag.as_millis() >= i64::MAX as u128;
    CompactionSettings {
        min_cleanable_dirty_ratio: config.min_cleanable_dirty_ratio,
        min_compaction_lag: config.min_compaction_lag,
        max_compaction_lag: (!never).then_some(config.max_compaction_lag),
        delete_retention: config.delete_retention,
        dedupe_buffer_bytes: u64::try_from(dedupe_buffer).unwrap_or(0),
        seed: *SEED,
    }
}

fn log_config(config: &TopicConfig, broker: &BrokerConfig) -> LogConfig {
    let keeps_all = !config.cleanup_policy.delete;
    LogConfig {
        segment_bytes: u64::from(config.segment_bytes),
        segment_age: segment_age(config),
        segment_jitter: config.segment_jitter,
        segment_index_bytes: u64::from(config.segment_index_bytes),
        index_interval_bytes: u64::from(config.index_interval_bytes),
        retention: if keeps_all { None } else { config.retention },
        retention_bytes: if keeps_all { None } else { config.retention_bytes },
        flush_messages: (config.flush_messages < i64::MAX as u64).then_some(config.flush_messages),
        flush_interval: (config.flush_interval.as_millis() < i64::MAX as u128).then_some(config.flush_interval),
        max_producers: broker.max_producer_ids_per_partition,
        ..LogConfig::default()
    }
}

fn produce_rules(config: &TopicConfig) -> ProduceRules {
    let of = |codec, level| TopicCompression::Of(Compression { codec, level });
    ProduceRules {
        max_message_bytes: config.max_message_bytes as usize,
        compacted: config.cleanup_policy.compact,
        timestamp_type: match config.timestamp_type {
            TimestampType::CreateTime => BatchTimestamps::CreateTime,
            TimestampType::LogAppendTime => BatchTimestamps::LogAppendTime,
        },
        before_max_ms: i64::try_from(config.timestamp_before_max.as_millis()).unwrap_or(i64::MAX),
        after_max_ms: i64::try_from(config.timestamp_after_max.as_millis()).unwrap_or(i64::MAX),
        compression: match config.compression_type {
            CompressionType::Producer => TopicCompression::Producer,
            CompressionType::Uncompressed => of(Codec::None, None),
            CompressionType::Gzip => of(Codec::Gzip, Some(config.compression_gzip_level)),
            CompressionType::Snappy => of(Codec::Snappy, None),
            CompressionType::Lz4 => of(Codec::Lz4, Some(config.compression_lz4_level)),
            CompressionType::Zstd => of(Codec::Zstd, Some(config.compression_zstd_level)),
        },
        ..ProduceRules::default()
    }
}

/// What a replica is built with.
pub struct Blueprint {
    /// The partition.
    pub partition: TopicPartition,
    /// Its topic.
    pub topic: Arc<TopicImage>,
    /// The epoch in which this node leads it, if it does.
    pub leads_in: Option<LeaderEpoch>,
    /// What the metadata says of it, if several nodes hold it.
    pub assignment: Option<Box<Assignment>>,
    /// The ways to other nodes, if there are any.
    pub neighbours: Option<Neighbours>,
    /// Its settings.
    pub config: ReplicaConfig,
    /// Where it lives.
    pub directory: Arc<Directory>,
    /// Its folder.
    pub path: PathBuf,
    /// Whether its directory was closed in order.
    pub clean: bool,
    /// For the jitter of its segments' age.
    pub seed: u64,
    /// Whether the partition begins now, so that nothing of it can have been lost.
    pub is_new: bool,
}

/// A log, and what it lacks of what was stored of it: the controller has to hear of that before anybody counts on the replica. A sole replica
/// leads again all the same.
pub type FoundLog = (Log, Option<LostRecords>);

/// A log that was recovered on a worker before its replica's first life.
type Recovered = Arc<Mutex<Option<FoundLog>>>;

impl Blueprint {
    /// Opens the log as this process finds it. Blocks for as long as the recovery takes.
    ///
    /// # Errors
    /// The log cannot be served.
    pub fn recover(&self, wall: Wall) -> Result<FoundLog, LogError> {
        // Only here: a later try may find what this one wrote.
        let found = self.found().after_sync(self.directory.is_synced() && !self.is_new);
        metrics::counter!("madang_logs_opened_total").increment(1);
        let disk = Arc::clone(&self.directory.disk);
        let (mut log, recovery) = Log::open(disk, &self.path, self.config.log.clone(), &found.open(0, wall))?;
        let partition = format!("{}-{}", self.topic.name, self.partition.partition);
        if !self.is_new {
            self.directory.recovered(&partition, found.noted.is_some(), &recovery);
        }
        if recovery.below_recovery_point {
            // What is appended from here on would pass for what was there.
            let checkpoint =
                Checkpoint { recovery_point: recovery.log_end_offset, high_watermark: recovery.log_end_offset };
            let checkpoints = self.directory.opened().as_ref().map(|opened| Arc::clone(&opened.checkpoints));
            if let Some(Err(source)) = checkpoints.map(|all| all.store(&[(self.partition, checkpoint)])) {
                return Err(LogError::Sync { doing: "lower a recovery point", source });
            }
        }
        // Here rather than at its first life, as each is a sync and the disk's thread has them one after the other.
        if let Some(Err(error)) = self.leads_in.map(|epoch| log.begin_epoch(epoch)) {
            tracing::warn!(partition, %error, "leader epoch not checkpointed");
        }
        Ok((log, lost_at_start(&recovery, found, shares(self.assignment.as_deref()))))
    }

    /// Whether opening it takes syncs of its own.
    #[must_use]
    pub fn is_unclean(&self) -> bool {
        self.found().start == Start::Unclean
    }

    fn found(&self) -> Found {
        let known = self.directory.opened().as_ref().map(|opened| {
            let checkpoint = opened.checkpoints.load(self.partition);
            (checkpoint, opened.checkpoints_are_complete)
        });
        let noted = self.directory.notes().and_then(|notes| notes.load(self.partition));
        let checkpoint = match known {
            Some((Some(checkpoint), _)) => Some(checkpoint),
            // Began since the last checkpoint: nothing of it was ever noted as confirmed, so its end may be cut where it is torn.
            Some((None, true)) => Some(Checkpoint::default()),
            _ => None,
        };
        Found::first(self.clean, self.config.durability, checkpoint, noted, self.seed)
    }

    /// The replica: its handle, and the child that builds it from disk at every start. `log` is what was recovered, for its first life.
    #[must_use]
    pub fn build(self, log: Option<FoundLog>) -> Held {
        let name = format!("{}-{}", self.topic.name, self.partition.partition);
        let found = self.found();
        let actor = ActorRef::new(&name, Capacity::default());
        let shared = Arc::new(SharedReplica::new(
            self.partition,
            self.topic.name.clone(),
            self.topic.is_internal(),
            self.leads_in,
            self.config,
        ));
        if let Some(assignment) = self.assignment {
            shared.set_assignment(Arc::from(assignment));
        }
        let (directory, path) = (Arc::clone(&self.directory), self.path.clone());
        let lives = Lives {
            disk: Arc::clone(&directory.disk),
            found,
            is_new: self.is_new,
            path: self.path,
            recovered: Arc::new(Mutex::new(log)),
            shared: Arc::clone(&shared),
            link: DirectoryLink(Arc::clone(&directory)),
            neighbours: self.neighbours,
        };
        let child = Child::actor(&actor, &directory.arbiter, move |context: &mut ShellContext<ReplicaMessage>| {
            lives.start(context)
        });
        Held { handle: ReplicaHandle::new(shared, actor), directory, path, child: replica_child(child) }
    }
}

/// What each life of a replica is built from.
struct Lives {
    disk: Arc<dyn Disk>,
    found: Found,
    is_new: bool,
    path: PathBuf,
    recovered: Recovered,
    shared: Arc<SharedReplica>,
    link: DirectoryLink,
    neighbours: Option<Neighbours>,
}

impl Lives {
    fn offline(&self, why: &str) -> ReplicaActor<DirectoryLink> {
        self.linked(ReplicaActor::offline(Arc::clone(&self.shared), self.link.clone(), why))
    }

    fn linked(&self, actor: ReplicaActor<DirectoryLink>) -> ReplicaActor<DirectoryLink> {
        match &self.neighbours {
            Some(neighbours) => actor.linked(neighbours.clone()),
            None => actor,
        }
    }

    /// One life, from disk.
    fn start(&self, context: &mut ShellContext<ReplicaMessage>) -> StartResult<ReplicaActor<DirectoryLink>> {
        if self.link.0.has_failed() {
            return Ok(self.offline("its log directory has failed"));
        }
        let config = self.shared.config();
        let before = self.shared.last_published();
        let incarnation = context.incarnation().0;
        let recovered = self.recovered.lock().unwrap_or_else(PoisonError::into_inner).take();
        let opened = match recovered.filter(|_| before.is_none()) {
            Some((mut log, lost)) => {
                log.taken_by(incarnation);
                Ok((log, lost))
            }
            None => self.open(before.as_deref(), incarnation, context.wall()),
        };
        let (log, lost) = match opened {
            Ok(found) => found,
            Err(error @ LogError::Sync { .. }) => {
                self.link.0.sync_failed(&error.to_string());
                return Ok(self.offline(&error.to_string()));
            }
            Err(error @ LogError::Quarantine { .. }) => return Ok(self.offline(&error.to_string())),
            // A descriptor or some memory may be free again at the next try.
            Err(error) => return Err(error.into()),
        };
        let replica = match lost {
            Some(lost) => Replica::after_loss(incarnation, log, (*config).clone(), lost),
            None => match Replica::new(incarnation, log, (*config).clone(), before.as_deref()) {
                Ok(mut replica) if before.is_none() => {
                    replica.starts_at(self.found.high_watermark);
                    replica
                }
                Ok(replica) => replica,
                // Others may have what is lost; it is opened once more, as the first try has taken the log along.
                Err(lost) if self.neighbours.is_some() && shares(self.shared.assignment().as_deref()) => {
                    let (log, _) = self.open(before.as_deref(), incarnation, context.wall())?;
                    Replica::after_loss(incarnation, log, (*config).clone(), lost)
                }
                Err(lost) => return Ok(self.offline(&lost.to_string())),
            },
        };
        let mut actor = self.linked(ReplicaActor::new(replica, Arc::clone(&self.shared), self.link.clone()));
        actor.begin(context);
        Ok(actor)
    }

    fn open(&self, before: Option<&ReplicaSnapshot>, incarnation: u64, wall: Wall) -> Result<FoundLog, LogError> {
        let found = before.map_or(self.found, |before| self.found.after(before));
        let config = self.shared.config();
        metrics::counter!("madang_logs_opened_total").increment(1);
        let (log, recovery) =
            Log::open(Arc::clone(&self.disk), &self.path, config.log.clone(), &found.open(incarnation, wall))?;
        if before.is_none() && !self.is_new {
            self.link.0.recovered(self.shared.topic(), found.noted.is_some(), &recovery);
        }
        let shares = shares(self.shared.assignment().as_deref());
        let lost = before.is_none().then(|| lost_at_start(&recovery, found, shares)).flatten();
        Ok((log, lost))
    }
}

/// Whether others may have what is lost here: an in-sync newcomer counts as much as those that were there before it.
fn shares(assignment: Option<&Assignment>) -> bool {
    assignment.is_some_and(|assignment| assignment.assigned_replicas.len() > 1)
}

fn lost_at_start(recovery: &Recovery, found: Found, shares: bool) -> Option<LostRecords> {
    LostRecords::at_start(recovery, found.high_watermark).filter(|_| shares)
}

/// The epoch in which this node leads a partition, if it does.
#[must_use]
pub fn led_in(state: &PartitionImage, broker: &BrokerConfig) -> Option<LeaderEpoch> {
    (state.leader == broker.node_id).then_some(state.leader_epoch)
}

#[cfg(test)]
mod tests {
    use madang_actors::prng::Prng;
    use madang_cluster::controller::{AlterOp, ConfigAlteration, Proposal, ResourceAlteration, decide};
    use madang_protocol::types::Uuid;

    use super::*;

    /// What is set on brokers while they run goes before what their file says.
    #[test]
    fn a_replica_forgets_producers_as_the_brokers_settings_now_say() {
        let pairs = [("producer.id.expiration.ms".to_owned(), "7000".to_owned())];
        let broker = BrokerConfig::parse(pairs).expect("valid").0;
        let node = broker.node_id;
        let state = PartitionImage {
            assigned_replicas: vec![node],
            in_sync_replicas: vec![node],
            eligible_leader_replicas: Vec::new(),
            leader: node,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: 0,
            directories: vec![Uuid::ZERO],
            last_known_leader: madang_cluster::metadata::NO_LEADER,
            unclean_epoch: LeaderEpoch::NONE,
            losses: Vec::new(),
            adding_replicas: Vec::new(),
            removing_replicas: Vec::new(),
            former_replicas: Vec::new(),
        };
        let topic = TopicImage { name: "t".into(), topic_id: Uuid([1; 16]), partitions: OrdMap::new() };
        let image = MetadataImage::default();
        let expiration =
            |image: &MetadataImage| replica_config(image, &broker, &topic, &state).log.producer_id_expiration;
        assert_eq!(expiration(&image), Duration::from_secs(7));
        let (mut rng, op) = (Prng::new(1), AlterOp::Set);
        let (key, value) = ("producer.id.expiration.ms".to_owned(), Some("6000".to_owned()));
        let alterations = vec![ConfigAlteration { key, op, value }];
        let resources = vec![ResourceAlteration { resource_type: 4, name: String::new(), alterations }];
        let altered = Proposal::IncrementalAlterConfigs { resources, validate_only: false };
        let image = decide(&image, &broker, &mut rng, altered).image;
        assert_eq!(expiration(&image), Duration::from_secs(6));
    }
}
