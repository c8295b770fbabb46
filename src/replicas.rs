//! The replicas that this node holds: where each one is, how it is reached, how it is built from disk.
//! Invariant: a replica is forgotten only because a committed tombstone names its topic's id.

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
use madang_cluster::configs::{BrokerConfig, CompressionType, TimestampType, TopicConfig};
use madang_cluster::metadata::{MetadataImage, PartitionImage, TopicImage};
use madang_cluster::replica::actor::ReplicaActor;
use madang_cluster::replica::{Replica, ReplicaConfig, ReplicaHandle, ReplicaMessage, SharedReplica};
use madang_protocol::compression::{Codec, Compression};
use madang_protocol::record_batch::{ProduceRules, TimestampType as BatchTimestamps, TopicCompression};
use madang_protocol::types::{LeaderEpoch, Offset, TopicPartition};
use madang_storage::{CompactionSettings, Disk, Log, LogConfig, LogError, OpenLog, Recovery, Start};

use crate::directory::{Directory, DirectoryLink};
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
    ReplicaConfig {
        log: log_config(&config, broker),
        produce: produce_rules(&config),
        durability: broker.durability,
        min_in_sync_replicas: config.min_insync_replicas as usize,
        deletes_old_records: config.cleanup_policy.delete,
        compaction: config.cleanup_policy.compact.then(|| compaction_settings(&config)),
        replication_factor: partition.assigned_replicas.len(),
        in_sync_replicas: partition.in_sync_replicas.len(),
    }
}

/// What is appended must be sealed before it can be compacted, so a segment of a compacted topic does not stay open for longer than
/// `max.compaction.lag.ms`.
fn segment_age(config: &TopicConfig) -> Duration {
    if config.cleanup_policy.compact { config.segment_age.min(config.max_compaction_lag) } else { config.segment_age }
}

fn compaction_settings(config: &TopicConfig) -> CompactionSettings {
    // One number for the life of the process; no client knows it.
    static SEED: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    let never = config.max_compaction_lag.as_millis() >= i64::MAX as u128;
    CompactionSettings {
        min_cleanable_dirty_ratio: config.min_cleanable_dirty_ratio,
        min_compaction_lag: config.min_compaction_lag,
        max_compaction_lag: (!never).then_some(config.max_compaction_lag),
        delete_retention: config.delete_retention,
        seed: *SEED,
        ..CompactionSettings::default()
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
        producer_id_expiration: broker.producer_id_expiration,
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
}

/// A log that was recovered on a worker before its replica's first life.
type Recovered = Arc<Mutex<Option<Log>>>;

impl Blueprint {
    /// Opens the log as this process finds it. Blocks for as long as the recovery takes.
    ///
    /// # Errors
    /// The log cannot be served.
    pub fn recover(&self, disk: Arc<dyn Disk>, wall: Wall) -> Result<(Log, Recovery), madang_storage::LogError> {
        let noted = self.directory.opened().as_ref().map(|opened| {
            let checkpoint = opened.checkpoints.load(self.partition);
            (checkpoint, opened.checkpoints_are_complete)
        });
        let start = if self.clean { Start::Clean } else { Start::Unclean };
        let recovery_point = match noted {
            Some((Some(checkpoint), _)) => Some(checkpoint.recovery_point),
            // Began since the last checkpoint: nothing of it was ever noted as confirmed, so its end may be cut where it is torn.
            Some((None, true)) => Some(Offset::ZERO),
            _ => None,
        };
        // Must be the number of the life that will take the log: the first.
        let open = OpenLog { start, recovery_point, incarnation: 1, wall, seed: self.seed, ..OpenLog::default() };
        Log::open(disk, &self.path, self.config.log.clone(), &open)
    }

    /// The replica: its handle, and the child that builds it from disk at every start. `log` is what was recovered, for its first life.
    #[must_use]
    pub fn build(self, disk: Arc<dyn Disk>, log: Option<Log>) -> Held {
        let name = format!("{}-{}", self.topic.name, self.partition.partition);
        let actor = ActorRef::new(&name, Capacity::default());
        let shared = Arc::new(SharedReplica::new(
            self.partition,
            self.topic.name.clone(),
            self.topic.is_internal(),
            self.leads_in,
            self.config,
        ));
        let recovered: Recovered = Arc::new(Mutex::new(log));
        let (directory, path) = (Arc::clone(&self.directory), self.path.clone());
        let (for_actor, folder, seed) = (Arc::clone(&shared), self.path, self.seed);
        let link = DirectoryLink(Arc::clone(&directory));
        let child = Child::actor(&actor, &directory.arbiter, move |context: &mut ShellContext<ReplicaMessage>| {
            start(&disk, &folder, seed, &recovered, &for_actor, &link, context)
        });
        Held { handle: ReplicaHandle::new(shared, actor), directory, path, child: replica_child(child) }
    }
}

/// One life of a replica, from disk.
fn start(
    disk: &Arc<dyn Disk>,
    path: &Path,
    seed: u64,
    recovered: &Recovered,
    shared: &Arc<SharedReplica>,
    link: &DirectoryLink,
    context: &mut ShellContext<ReplicaMessage>,
) -> StartResult<ReplicaActor<DirectoryLink>> {
    let offline = |why: &str| Ok(ReplicaActor::offline(Arc::clone(shared), link.clone(), why));
    if link.0.has_failed() {
        return offline("its log directory has failed");
    }
    let config = shared.config();
    let before = shared.last_published();
    let first = recovered.lock().unwrap_or_else(PoisonError::into_inner).take();
    let incarnation = context.incarnation().0;
    let log = match first.filter(|_| incarnation == 1) {
        Some(log) => log,
        None => {
            let recovery_point = before.as_ref().map(|before| before.confirmed_end);
            let start = if before.is_some() { Start::SameProcess } else { Start::Unclean };
            let wall = context.wall();
            let open = OpenLog { start, recovery_point, incarnation, wall, seed, ..OpenLog::default() };
            match Log::open(Arc::clone(disk), path, config.log.clone(), &open) {
                Ok((log, _)) => log,
                Err(error @ LogError::Quarantine { .. }) => return offline(&error.to_string()),
                // A descriptor or some memory may be free again at the next try.
                Err(error) => return Err(error.into()),
            }
        }
    };
    let replica = match Replica::new(incarnation, log, (*config).clone(), before.as_deref()) {
        Ok(replica) => replica,
        Err(lost) => return offline(&lost.to_string()),
    };
    let mut actor = ReplicaActor::new(replica, Arc::clone(shared), link.clone());
    actor.begin(context);
    Ok(actor)
}

/// The epoch in which this node leads a partition, if it does.
#[must_use]
pub fn led_in(state: &PartitionImage, broker: &BrokerConfig) -> Option<LeaderEpoch> {
    (state.leader == broker.node_id).then_some(state.leader_epoch)
}
