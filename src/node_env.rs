//! The surroundings of API handlers on a node: tokio's clock, the actors, the metadata as applied.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use futures_util::future::LocalBoxFuture;
use madang_actors::actor_ref::ActorRef;
use madang_actors::clock::{Mono, Wall};
use madang_actors::host::clock;
use madang_actors::mailbox::Capacity;
use madang_cluster::configs::{BrokerConfig, dynamic_broker_number};
use madang_cluster::controller::actor::ControllerMessage;
use madang_cluster::controller::{ApiResult, Outcome, Proposal};
use madang_cluster::coordinator::actor::ShardMessage;
use madang_cluster::coordinator::{Request as GroupRequest, Response as GroupResponse};
use madang_cluster::metadata::MetadataImage;
use madang_cluster::replica::ReplicaHandle;
use madang_cluster::replica::throttle::{Throttle, names};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{NodeId, TopicPartition};
use madang_transport::kafka::ColdReads;
use tokio::sync::watch;

use crate::applier::Phase;
use crate::directory::Directory;
use crate::env::{Env, LogDir, ask_controller, ask_shard};
use crate::fetch_sessions::FetchSessions;
use crate::group_placement::GroupPlacement;
use crate::outer::Outer;
use crate::peers::{Lease, Peers, propose};
use crate::producer_ids::ProducerIds;
use crate::replicas::Replicas;

/// What every part of the node shares.
#[derive(Debug)]
pub struct Node {
    /// The configuration it was started with.
    pub config: BrokerConfig,
    /// The metadata as applied.
    pub image: ArcSwap<MetadataImage>,
    /// The replicas it holds.
    pub replicas: Replicas,
    /// Its log directories, once they are there.
    pub directories: OnceLock<Vec<Arc<Directory>>>,
    /// The group shards it runs, by partition of `__consumer_offsets`.
    pub shards: ArcSwap<BTreeMap<i32, ActorRef<ShardMessage>>>,
    /// The controller.
    pub controller: ActorRef<ControllerMessage>,
    /// The epoch of its registration, -1 before it is registered.
    pub broker_epoch: AtomicI64,
    /// The other nodes; none for a node that is alone.
    pub peers: Option<Arc<Peers>>,
    /// The process that runs this one, if it does.
    pub outer: Option<Outer>,
    /// Index of the last entry of the metadata log that is applied.
    pub applied: watch::Sender<u64>,
    /// What makes its random numbers differ from every other run's.
    pub entropy: Entropy,
    /// How far the node is.
    pub phase: watch::Receiver<Phase>,
    /// Where groups are.
    pub groups: GroupPlacement,
    throttle: Arc<Throttle>,
    follower_throttle: Arc<Throttle>,
    pub(crate) lease: Lease,
    /// Whether every directory names the registration: from then on the node may be unfenced.
    pub(crate) noted: AtomicBool,
    cold_reads: ColdReads,
    fetch_sessions: FetchSessions,
    producer_ids: ProducerIds,
}

impl Node {
    /// A node that has not applied any metadata yet.
    #[must_use]
    pub fn new(
        config: BrokerConfig,
        phase: watch::Receiver<Phase>,
        cold_reads: ColdReads,
        peers: Option<Arc<Peers>>,
        outer: Option<Outer>,
    ) -> Self {
        Self {
            image: ArcSwap::default(),
            replicas: Replicas::default(),
            directories: OnceLock::new(),
            shards: ArcSwap::default(),
            controller: ActorRef::new("controller", Capacity::default()),
            phase,
            groups: GroupPlacement::default(),
            lease: Lease::default(),
            noted: AtomicBool::new(false),
            throttle: Arc::default(),
            follower_throttle: Arc::default(),
            cold_reads,
            broker_epoch: AtomicI64::new(-1),
            peers,
            outer,
            applied: watch::Sender::new(0),
            entropy: Entropy::default(),
            fetch_sessions: FetchSessions::new(config.max_fetch_sessions),
            producer_ids: ProducerIds::default(),
            config,
        }
    }

    /// The epoch of its registration, -1 before it is registered.
    #[must_use]
    pub fn broker_epoch(&self) -> i64 {
        self.broker_epoch.load(Ordering::Acquire)
    }

    /// Whether another node may lead by now what this one leads: no controller has let it serve for a session.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.peers.is_some() && *self.phase.borrow() == Phase::Ready && self.lease.is_over()
    }

    /// From when on its clients are to ask another node who leads, if it is cut off: the others know by then.
    #[must_use]
    pub fn sends_elsewhere(&self) -> Option<Mono> {
        self.is_cut_off().then(|| self.lease.handed_over_at())
    }

    /// Where reads go that may wait for a disk.
    #[must_use]
    pub const fn cold_reads(&self) -> &ColdReads {
        &self.cold_reads
    }

    /// From here on everybody sees this metadata.
    pub fn applied(&self, image: Arc<MetadataImage>) {
        let version = image.version();
        self.image.store(image);
        self.applied.send_replace(version);
    }

    /// The throttle of this node's followers of a partition that are not in sync, and its rate in bytes a second; none unless an operator has set
    /// both the rate and the replicas.
    #[must_use]
    pub fn throttle_of(&self, partition: &TopicPartition) -> Option<(Arc<Throttle>, u64)> {
        let keys = ("leader.replication.throttled.replicas", "leader.replication.throttled.rate");
        Some((Arc::clone(&self.throttle), self.throttled_rate(partition, keys)?))
    }

    /// The same of this node's own replica of a partition, as long as it is not in sync.
    pub(crate) fn throttle_as_follower(&self, partition: &TopicPartition) -> Option<(Arc<Throttle>, u64)> {
        let (image, own) = (self.image.load(), self.config.node_id);
        let state = image.topic_by_id(partition.topic_id)?.partitions.get(&partition.partition)?;
        if state.in_sync_replicas.contains(&own) {
            return None;
        }
        let keys = ("follower.replication.throttled.replicas", "follower.replication.throttled.rate");
        Some((Arc::clone(&self.follower_throttle), self.throttled_rate(partition, keys)?))
    }

    fn throttled_rate(&self, partition: &TopicPartition, (replicas, rate): (&str, &str)) -> Option<u64> {
        let (image, own) = (self.image.load(), self.config.node_id);
        let topic = image.topic_by_id(partition.topic_id)?;
        if !names(image.topic_config(&topic.name)?.get(replicas)?, partition.partition, own.0) {
            return None;
        }
        u64::try_from(dynamic_broker_number(&image, &self.config, own, rate)).ok().filter(|rate| *rate > 0)
    }

    /// How many fetch sessions are open.
    #[must_use]
    pub fn open_fetch_sessions(&self) -> usize {
        self.fetch_sessions.len()
    }

    /// Waits until the node serves; for ever if it cannot.
    pub async fn ready(&self) {
        let mut phase = self.phase.clone();
        if phase.wait_for(|phase| *phase == Phase::Ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Random numbers from the keys that the standard library draws from the operating system. For names, not for secrets.
#[derive(Debug, Default)]
pub struct Entropy {
    keys: RandomState,
    drawn: AtomicU64,
}

impl Entropy {
    /// 64 random bits.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.keys.hash_one(self.drawn.fetch_add(1, Ordering::Relaxed))
    }
}

/// A cheap handle to the node, for handlers.
#[derive(Clone, Debug)]
pub struct NodeEnv {
    node: Arc<Node>,
}

impl NodeEnv {
    /// Handlers of this node.
    #[must_use]
    pub const fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    fn shard(&self, group: &str) -> Result<ActorRef<ShardMessage>, ErrorCode> {
        if self.node.is_cut_off() {
            return Err(ErrorCode::NotCoordinator);
        }
        let partition = self.node.groups.partition(&self.node.image.load(), group)?;
        self.node.shards.load().get(&partition).cloned().ok_or(ErrorCode::NotCoordinator)
    }
}

impl Env for NodeEnv {
    fn now(&self) -> Mono {
        clock::now()
    }

    fn sends_elsewhere(&self) -> Option<Mono> {
        self.node.sends_elsewhere()
    }

    fn gone(&self) -> Arc<BTreeSet<NodeId>> {
        self.node.peers.as_ref().map(|peers| peers.gone.nodes()).unwrap_or_default()
    }

    fn wall(&self) -> Wall {
        clock::wall()
    }

    fn random(&self) -> u64 {
        self.node.entropy.next()
    }

    fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep_until(clock::instant(at)))
    }

    fn node_id(&self) -> NodeId {
        self.node.config.node_id
    }

    fn broker_epoch(&self) -> i64 {
        self.node.broker_epoch()
    }

    fn config(&self) -> &BrokerConfig {
        &self.node.config
    }

    fn image(&self) -> Arc<MetadataImage> {
        self.node.image.load_full()
    }

    fn replica(&self, partition: &TopicPartition) -> Option<ReplicaHandle> {
        self.node.replicas.handle(partition)
    }

    fn log_dirs(&self) -> Vec<LogDir> {
        let of = |directory: &Arc<Directory>| LogDir {
            path: directory.path.clone(),
            disk: Arc::clone(&directory.disk),
            failed: directory.has_failed(),
            replicas: directory.held().iter().map(|held| held.handle.clone()).collect(),
        };
        self.node.directories.get().map(|all| all.iter().map(of).collect()).unwrap_or_default()
    }

    fn fetch_sessions(&self) -> &FetchSessions {
        &self.node.fetch_sessions
    }

    fn producer_ids(&self) -> &ProducerIds {
        &self.node.producer_ids
    }

    fn group_placement(&self) -> &GroupPlacement {
        &self.node.groups
    }

    fn propose(&self, proposal: Proposal, deadline: Mono) -> LocalBoxFuture<'static, ApiResult<Outcome>> {
        let env = self.clone();
        Box::pin(async move {
            match &env.node.peers {
                Some(peers) => propose(&env.node, peers, proposal, deadline).await,
                None => ask_controller(&env, &env.node.controller, proposal, deadline).await,
            }
        })
    }

    fn group(
        &self,
        group_id: &str,
        request: GroupRequest,
        deadline: Mono,
    ) -> LocalBoxFuture<'static, Result<GroupResponse, ErrorCode>> {
        let (env, shard) = (self.clone(), self.shard(group_id));
        Box::pin(async move {
            let answer = ask_shard(&env, &shard?, request, deadline).await;
            // What was read may be old by now. What was written is acknowledged by others all the same.
            if env.node.is_cut_off() { Err(ErrorCode::NotCoordinator) } else { answer }
        })
    }

    fn every_group_shard(
        &self,
        request: GroupRequest,
        deadline: Mono,
    ) -> LocalBoxFuture<'static, Result<Vec<GroupResponse>, ErrorCode>> {
        let shards: Vec<_> = self.node.shards.load().values().cloned().collect();
        let env = self.clone();
        Box::pin(async move {
            let asked = shards.iter().map(|shard| ask_shard(&env, shard, request.clone(), deadline));
            futures_util::future::join_all(asked).await.into_iter().collect()
        })
    }

    fn read<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> LocalBoxFuture<'static, Option<T>> {
        let cold_reads = self.node.cold_reads.clone();
        Box::pin(async move { cold_reads.run(work).await.ok() })
    }

    fn in_background(&self, work: LocalBoxFuture<'static, ()>) {
        tokio::task::spawn_local(work);
    }
}
