//! Brings this node in line with committed metadata: opens the log directories, registers, starts and ends replicas and shards.
//! Invariant: nothing leads before the node is registered, and no data goes but by a committed tombstone or state that says that this node has left.

mod new_partitions;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use madang_actors::actor_ref::ActorRef;
use madang_actors::host::{Arbiter, Child, ChildError, SupervisorHandle, clock};
use madang_actors::mailbox::Capacity;
use madang_cluster::coordinator::actor::{ShardActor, ShardHistory, ShardMessage};
use madang_cluster::coordinator::{GroupConfig, OFFSETS_TOPIC};
use madang_cluster::metadata::{MetadataDelta, MetadataImage, TopicImage};
use madang_cluster::replica::replication::Assignment;
use madang_cluster::replica::{Neighbours, ReplicaConfig, ReplicaHandle, ReplicaMessage};
use madang_protocol::types::{LeaderEpoch, NodeId, TopicId, TopicPartition, Uuid};
use madang_storage::{PartitionDir, RestartKind};
use madang_transport::kafka::ConnectionLimits;
use tokio::sync::watch;

use crate::boot;
use crate::changes::{Change, ReplicaPlan, all_replicas, changes, led_shards};
use crate::cleaner;
use crate::connections::accept_limits;
use crate::directory::Directory;
use crate::node_env::Node;
use crate::peers::EXIT_REPLACED;
use crate::replicas::{Blueprint, Held};

/// Appends that a shard may have in flight: fewer than its replica's mailbox holds.
const SHARD_APPENDS: usize = 900;
/// How long the node waits for one replica before it goes on with the others.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a replica may take to take a message about a change of metadata.
const TELL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a node that the cluster has forgotten goes on, so that answers leave.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How far the node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is recovering.
    Starting,
    /// It serves.
    Ready,
    /// It cannot start, and why.
    Failed(String),
}

/// What applying needs.
#[derive(Debug)]
pub struct Applier {
    /// The node.
    pub node: Arc<Node>,
    /// The log directories, the one with the metadata first.
    pub directories: Vec<Arc<Directory>>,
    /// The supervisor of the group shards.
    pub coordinators: SupervisorHandle,
    /// Where group shards run.
    pub coordinator_arbiter: Arbiter,
    /// Names this run of the process.
    pub incarnation_id: Uuid,
    /// How many connections there may be.
    pub connection_limits: ConnectionLimits,
    /// The ways to other nodes, if there are any.
    pub neighbours: Option<Neighbours>,
    /// The leadership that each group shard was started in.
    pub shard_epochs: Mutex<BTreeMap<i32, LeaderEpoch>>,
    /// Whether the node has asked to be unfenced.
    pub unfencing: AtomicBool,
    /// Tells how far the node is.
    pub phase: watch::Sender<Phase>,
}

impl Applier {
    /// Applies one step of the log. Steps that were applied before are left out.
    pub async fn apply(self: &Arc<Self>, image: Arc<MetadataImage>, delta: &MetadataDelta) {
        let applied = self.node.image.load_full();
        let serving = *self.phase.borrow() == Phase::Ready;
        if serving && image.version() <= applied.version() {
            return;
        }
        if image.cluster_id().is_zero() || matches!(*self.phase.borrow(), Phase::Failed(_)) {
            return;
        }
        if let Some(peers) = &self.node.peers {
            if peers.cluster_id() != image.cluster_id() {
                let (ours, theirs) = (image.cluster_id(), peers.cluster_id());
                return self
                    .fail(format!("the data is of cluster {ours}, and the node's certificate of cluster {theirs}"));
            }
            peers.follow(&image, self.node.outer.as_ref());
        }
        if self.directories.iter().all(|directory| directory.opened().is_none() && !directory.has_failed()) {
            match boot::open_directories(self, &image) {
                Ok(()) => boot::register(self),
                Err(why) => return self.fail(why),
            }
        }
        let registered = image.broker(self.node.config.node_id);
        if serving && registered.is_none() {
            self.node.applied(image);
            return Self::forgotten();
        }
        let Some(registered) = registered.filter(|broker| broker.incarnation_id == self.incarnation_id) else { return };
        self.node.broker_epoch.store(registered.broker_epoch, Ordering::Release);
        if !serving && registered.fenced {
            // The directories name the registration before anybody counts on it.
            if !self.unfencing.swap(true, Ordering::AcqRel) {
                boot::unfence(self, registered.broker_epoch);
            }
            return;
        }
        if !serving || delta.broker_configs_changed() {
            self.connection_limits.change(accept_limits(&image, &self.node.config));
        }
        self.node.groups.follow(&image);
        if serving {
            tell_of_brokers(&applied, &image, delta);
            self.apply_delta(&image, delta).await;
            self.node.applied(image);
            return;
        }
        if let Err(why) = boot::check_durability(self, &image) {
            return self.fail(why);
        }
        if let Err(why) = self.start_everything(&image).await {
            return self.fail(why);
        }
        self.node.applied(image);
        self.phase.send_replace(Phase::Ready);
    }

    /// The cluster has forgotten this node: a later process of it registers anew. Whoever asked for that through this node hears of it first.
    fn forgotten() {
        tracing::error!("the cluster has forgotten this node; the process ends");
        tokio::spawn(async {
            tokio::time::sleep(LAST_WORDS).await;
            std::process::exit(EXIT_REPLACED);
        });
    }

    fn fail(&self, why: String) {
        tracing::error!(why, "the node cannot start");
        self.phase.send_replace(Phase::Failed(why));
    }

    /// The first application: everything that the metadata says this node holds, recovered on several threads.
    async fn start_everything(self: &Arc<Self>, image: &Arc<MetadataImage>) -> Result<(), String> {
        let found = boot::find_partitions(self)?;
        let mut blueprints = Vec::new();
        for plan in all_replicas(image, &self.node.config) {
            match self.home(&found, &plan.topic, plan.partition) {
                Ok(home) => blueprints.push(self.blueprint(plan, home)),
                Err(why) => {
                    let (partition, topic) = (plan.partition, &plan.topic.name);
                    tracing::error!(%partition, %topic, why, "partition stays offline");
                }
            }
        }
        boot::sync_directories(self, &blueprints).await;
        let recovered = boot::recover(blueprints, self.node.config.recovery_threads).await;
        let mut adding = Vec::new();
        for (blueprint, log) in recovered {
            let partition = blueprint.partition;
            let held = Arc::new(blueprint.build(log));
            self.node.replicas.insert(partition, Arc::clone(&held));
            adding.push(async move { add(&held).await });
        }
        join_all(adding).await;
        for directory in &self.directories {
            directory.all_listed();
            // A partition without a checkpoint means one thing only from here on: it is new.
            cleaner::checkpoint(directory, &mut BTreeMap::new()).await;
        }
        boot::sync_points(self);
        self.remove_deleted(image, &found).await;
        if let Some(topic) = image.topic(OFFSETS_TOPIC) {
            self.start_shards(topic, &led_shards(topic, &self.node.config)).await;
        }
        Ok(())
    }

    /// Where a partition's folder is, or is to be. A partition that may be in a failed directory is not begun anew elsewhere.
    fn home(
        &self,
        found: &BTreeMap<TopicPartition, (Arc<Directory>, PartitionDir)>,
        topic: &TopicImage,
        partition: TopicPartition,
    ) -> Result<(Arc<Directory>, PathBuf), String> {
        if let Some((directory, folder)) = found.get(&partition) {
            return Ok((Arc::clone(directory), folder.path.clone()));
        }
        if self.directories.iter().any(|directory| directory.has_failed()) {
            return Err("a log directory has failed, and it may be there".to_owned());
        }
        self.new_folder(topic, partition)
    }

    /// A new folder in the directory that has the fewest replicas.
    fn new_folder(&self, topic: &TopicImage, partition: TopicPartition) -> Result<(Arc<Directory>, PathBuf), String> {
        let usable = self.directories.iter().filter(|directory| !directory.has_failed());
        let directory = usable
            .min_by_key(|directory| self.node.replicas.within(&directory.path).len())
            .ok_or_else(|| "every log directory has failed".to_owned())?;
        let created = match directory.opened().as_ref() {
            Some(opened) => opened.log_dir.create_partition(&topic.name, partition.partition, partition.topic_id),
            None => return Err("the log directory is not open".to_owned()),
        };
        Ok((Arc::clone(directory), created.map_err(|error| error.to_string())?))
    }

    fn blueprint(&self, plan: ReplicaPlan, (directory, path): (Arc<Directory>, PathBuf)) -> Blueprint {
        let clean = directory.opened().as_ref().is_some_and(|opened| opened.left == RestartKind::Clean);
        let ReplicaPlan { partition, topic, leads_in, assignment, config } = plan;
        let (neighbours, seed) = (self.neighbours.clone(), self.node.entropy.next());
        Blueprint {
            partition,
            topic,
            leads_in,
            assignment,
            neighbours,
            config,
            directory,
            path,
            clean,
            seed,
            is_new: false,
        }
    }

    async fn apply_delta(&self, image: &MetadataImage, delta: &MetadataDelta) {
        let name_of = |held: &Arc<Held>| (held.handle.shared().partition(), Arc::clone(held.handle.shared().topic()));
        let held = self.node.replicas.all().iter().map(name_of).collect();
        for change in changes(image, delta, &self.node.config, &held) {
            match change {
                Change::DeleteTopic { topic_id, name } => self.delete_topic(topic_id, &name).await,
                Change::Remove(partition) => self.remove_replica(partition).await,
                Change::Start(plans) => self.start_replicas(plans).await,
                Change::StartShards { topic, partitions } => self.start_shards(&topic, &partitions).await,
                Change::EndShards(partitions) => self.end_shards(|index| partitions.contains(&index)).await,
                Change::Assign { partition, config, assignment } => {
                    if let Some(handle) = self.node.replicas.handle(&partition) {
                        tell_assignment(&handle, config, assignment).await;
                    }
                }
                Change::Lead { partition, leads_in } => {
                    if let Some(handle) = self.node.replicas.handle(&partition) {
                        tell_leadership(&handle, leads_in).await;
                    }
                }
                Change::Configure { partition, config } => {
                    if let Some(handle) = self.node.replicas.handle(&partition) {
                        handle.shared().set_config((*config).clone());
                        tell(&handle, ReplicaMessage::Configure(config)).await;
                    }
                }
            }
        }
    }

    async fn delete_topic(&self, topic_id: TopicId, name: &str) {
        if name == OFFSETS_TOPIC {
            self.end_shards(|_| true).await;
        }
        for directory in &self.directories {
            let mut folders = Vec::new();
            for held in self.node.replicas.within(&directory.path) {
                if held.handle.shared().partition().topic_id == topic_id {
                    folders.push(self.end_replica(&held).await);
                }
            }
            delete_folders(directory, folders, topic_id).await;
        }
        for shard in self.node.shards.load().values() {
            let message = ShardMessage::TopicDeleted { name: name.to_owned(), id: topic_id };
            // A shard that is down loads offsets of a topic that is gone; they expire.
            drop(shard.send(message, clock::now() + TELL_TIMEOUT).await);
        }
    }

    /// Ends a replica, so that its folder may go; answers the folder.
    async fn end_replica(&self, held: &Held) -> PartitionDir {
        let partition = held.handle.shared().partition();
        if let Some(replicas) = held.directory.replicas() {
            // A supervisor that does not run has stopped its children.
            drop(replicas.remove(held.handle.actor().id()).await);
        }
        self.node.replicas.remove(&partition);
        held.handle.shared().suspend();
        PartitionDir {
            path: held.path.clone(),
            topic: held.handle.shared().topic().to_string(),
            partition: partition.partition,
            topic_id: Some(partition.topic_id),
        }
    }

    /// This node has left the partition.
    async fn remove_replica(&self, partition: TopicPartition) {
        let Some(held) = self.node.replicas.get(&partition) else { return };
        tracing::info!(%partition, path = %held.path.display(), "the partition is on other nodes; its replica here goes");
        let folder = self.end_replica(&held).await;
        delete_folders(&held.directory, vec![folder], partition.topic_id).await;
    }

    /// Deletes what an earlier run did not get to: folders of deleted topics and of partitions that this node has left. Strays stay.
    async fn remove_deleted(
        &self,
        image: &MetadataImage,
        found: &BTreeMap<TopicPartition, (Arc<Directory>, PartitionDir)>,
    ) {
        for (partition, (directory, folder)) in found {
            let state = image.partition_by_id(*partition);
            let has_left = state.is_some_and(|state| state.has_left(self.node.config.node_id));
            if image.is_deleted(partition.topic_id) || has_left {
                delete_folders(directory, vec![folder.clone()], partition.topic_id).await;
            } else if state.is_none() {
                tracing::warn!(path = %folder.path.display(), "partition is not in the metadata; its data is left alone");
            }
        }
    }

    /// Ends group shards, so that others can take their places.
    async fn end_shards(&self, which: impl Fn(i32) -> bool) {
        let (ending, staying): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .node
            .shards
            .load()
            .iter()
            .map(|(index, shard)| (*index, shard.clone()))
            .partition(|(index, _)| which(*index));
        self.node.shards.store(Arc::new(staying));
        for (index, shard) in ending {
            self.shard_epochs().remove(&index);
            // A supervisor that does not run has stopped its children.
            drop(self.coordinators.remove(shard.id()).await);
        }
    }

    fn shard_epochs(&self) -> MutexGuard<'_, BTreeMap<i32, LeaderEpoch>> {
        self.shard_epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn start_shards(&self, topic: &TopicImage, partitions: &[i32]) {
        let epoch = |index: i32| topic.partitions.get(&index).map(|state| state.leader_epoch);
        let wanted =
            partitions.iter().copied().filter(|index| self.shard_epochs().get(index).copied() != epoch(*index));
        let wanted: Vec<i32> = wanted.collect();
        self.end_shards(|index| wanted.contains(&index)).await;
        self.shard_epochs().extend(wanted.iter().filter_map(|index| Some((*index, epoch(*index)?))));
        let mut adding = Vec::new();
        let mut shards = (**self.node.shards.load()).clone();
        for index in wanted {
            let partition = TopicPartition { topic_id: topic.topic_id, partition: index };
            let Some(replica) = self.node.replicas.handle(&partition) else { continue };
            let actor = ActorRef::new(format!("shard-{index}"), Capacity::default());
            let child = self.shard(&actor, replica);
            shards.insert(index, actor);
            adding.push(self.coordinators.add(child));
        }
        self.node.shards.store(Arc::new(shards));
        for added in join_all(adding).await {
            report(added, std::path::Path::new(OFFSETS_TOPIC));
        }
    }

    fn shard(&self, actor: &ActorRef<ShardMessage>, replica: ReplicaHandle) -> Child {
        let config = group_config(&self.node.config);
        let history = Arc::<ShardHistory>::default();
        let seed = self.node.entropy.next();
        Child::actor(actor, &self.coordinator_arbiter, move |context| {
            Ok(ShardActor::new(config.clone(), replica.clone(), Arc::clone(&history), seed, context))
        })
    }
}

/// Says which nodes serve from now on, and which do not.
fn tell_of_brokers(before: &MetadataImage, image: &MetadataImage, delta: &MetadataDelta) {
    let serves = |image: &MetadataImage, node: NodeId| image.broker(node).is_some_and(|broker| !broker.fenced);
    for node in &delta.brokers {
        match (serves(before, *node), serves(image, *node)) {
            (false, true) => tracing::info!(%node, version = image.version(), "a node serves"),
            (true, false) => tracing::info!(%node, version = image.version(), "a node serves no more"),
            _ => {}
        }
    }
}

/// Starts a replica. One that keeps failing to start goes on trying without holding up the rest.
async fn add(held: &Held) {
    let Some(replicas) = held.directory.replicas() else { return };
    match tokio::time::timeout(START_TIMEOUT, replicas.add(held.child.clone())).await {
        Ok(added) => report(added, &held.path),
        Err(_) => tracing::error!(path = %held.path.display(), "replica does not start; its supervisor goes on trying"),
    }
}

async fn tell_leadership(handle: &ReplicaHandle, leads_in: Option<LeaderEpoch>) {
    handle.shared().set_leader_epoch(leads_in);
    if let Some(leader_epoch) = leads_in {
        tell(handle, ReplicaMessage::Lead { leader_epoch }).await;
    }
}

async fn tell_assignment(handle: &ReplicaHandle, config: Box<ReplicaConfig>, assignment: Box<Assignment>) {
    // Who learns of an in-sync set knows the settings that it was judged by.
    if *handle.shared().config() != *config {
        handle.shared().set_config((*config).clone());
        tell(handle, ReplicaMessage::Configure(config)).await;
    }
    handle.shared().set_assignment(Arc::new((*assignment).clone()));
    tell(handle, ReplicaMessage::Assign(assignment)).await;
}

async fn tell(handle: &ReplicaHandle, message: ReplicaMessage) {
    // A replica that is down finds the same in its shared side when it starts.
    drop(handle.actor().send(message, clock::now() + TELL_TIMEOUT).await);
}

/// Takes the folders of a deleted topic out of a directory, beside this thread.
async fn delete_folders(directory: &Directory, folders: Vec<PartitionDir>, topic_id: TopicId) {
    let opened = directory.opened().as_ref().map(|opened| (opened.log_dir.folders(), Arc::clone(&opened.checkpoints)));
    let (false, Some((within, checkpoints))) = (folders.is_empty(), opened) else { return };
    let partitions: Vec<_> =
        folders.iter().map(|folder| TopicPartition { topic_id, partition: folder.partition }).collect();
    let deleted = tokio::task::spawn_blocking(move || {
        for (folder, deleted) in folders.iter().zip(within.delete(&folders, topic_id)) {
            if let Err(error) = deleted {
                tracing::warn!(path = %folder.path.display(), %error, "deleted topic's folder stays until the next start");
            }
            let partition = TopicPartition { topic_id, partition: folder.partition };
            if let Err(error) = checkpoints.remove(partition) {
                tracing::debug!(%error, "checkpoint of a deleted partition stays");
            }
        }
    });
    if let Err(error) = deleted.await {
        tracing::error!(%error, "deleted topic's folders stay until the next start");
    }
    if let Some(notes) = directory.notes() {
        partitions.into_iter().for_each(|partition| notes.remove(partition));
    }
}

fn report(added: Result<(), ChildError>, what: &std::path::Path) {
    if let Err(error) = added {
        tracing::error!(what = %what.display(), %error, "not started");
    }
}

/// What group shards need of the broker's settings.
#[must_use]
pub fn group_config(broker: &madang_cluster::configs::BrokerConfig) -> GroupConfig {
    GroupConfig {
        min_session_timeout: broker.group_min_session_timeout,
        max_session_timeout: broker.group_max_session_timeout,
        initial_rebalance_delay: broker.group_initial_rebalance_delay,
        max_group_size: broker.group_max_size,
        offsets_retention: broker.offsets_retention,
        offsets_retention_check_interval: broker.offsets_retention_check_interval,
        offset_metadata_max: broker.offset_metadata_max_bytes,
        max_appends_in_flight: SHARD_APPENDS,
        ..GroupConfig::default()
    }
}
