//! Brings the process in line with committed metadata, as the node's applier does, by the same plan.
//! Invariant: steps are applied in the order of the log. On a lone node an answer leaves only after what was committed before it is applied; where there
//! are others, whoever asked waits for that.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_util::future::select;
use madang::changes::{Change, ReplicaPlan, all_replicas, changes, led_shards};
use madang::env::ask_controller;
use madang::found::{Found, start_of, sync_point, sync_point_at_registration};
use madang_actors::actor_ref::ActorRef;
use madang_actors::reply::Reply;
use madang_cluster::controller::{ApiResult, LogDirStart, Outcome, Proposal, RegisterBroker};
use madang_cluster::coordinator::OFFSETS_TOPIC;
use madang_cluster::coordinator::actor::ShardMessage;
use madang_cluster::metadata::{Endpoint, MetadataDelta, MetadataImage, SecurityProtocol, TopicImage};
use madang_cluster::replica::replication::Assignment;
use madang_cluster::replica::{ReplicaConfig, ReplicaHandle, ReplicaMessage, SharedReplica};
use madang_protocol::types::{TopicId, TopicPartition, Uuid};
use madang_storage::{Disk, LogDir, LogDirError, Notes, OpenLogDir, PartitionDir, RestartKind};

use crate::cover;
use crate::invariants::{metadata, restarts};
use crate::node::env::SimEnv;
use crate::node::process::{Process, close_replica};
use crate::node::{DATA, Node, Slot, life, notes, peers, shard};

/// How long the node waits for one replica before it goes on with the others.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a replica may take to take a message about a change of metadata.
const TELL_TIMEOUT: Duration = Duration::from_secs(10);

enum Step {
    Apply(Arc<MetadataImage>, Arc<MetadataDelta>),
    Answer(Reply<ApiResult<Outcome>>, Box<ApiResult<Outcome>>),
}

/// What is committed and not yet applied. It outlives the controller's lives.
#[derive(Default)]
pub struct Feed {
    steps: RefCell<VecDeque<Step>>,
    waker: RefCell<Option<Waker>>,
}

impl Feed {
    /// Committed metadata changed.
    pub fn publish(&self, image: Arc<MetadataImage>, delta: Arc<MetadataDelta>) {
        self.push(Step::Apply(image, delta));
    }

    /// Answers once everything published before has been applied.
    pub fn answer(&self, reply: Reply<ApiResult<Outcome>>, result: ApiResult<Outcome>) {
        self.push(Step::Answer(reply, Box::new(result)));
    }

    fn push(&self, step: Step) {
        self.steps.borrow_mut().push_back(step);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    async fn next(&self) -> Step {
        poll_fn(|context| match self.steps.borrow_mut().pop_front() {
            Some(step) => Poll::Ready(step),
            None => {
                *self.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

/// Applies what comes, for as long as the process lives. Returns if it has to end.
pub async fn follow(node: &Rc<Node>, process: &Rc<Process>) {
    let applier = Applier { node: Rc::clone(node), process: Rc::clone(process) };
    loop {
        match process.feed.next().await {
            Step::Answer(reply, result) => reply.send(*result),
            Step::Apply(image, delta) => {
                if applier.apply(&image, &delta).await.is_err() {
                    // The directory's lock goes with the process.
                    process.log_dir.borrow_mut().take();
                    return;
                }
                node.sim.pause(0, 300).await;
            }
        }
    }
}

struct Applier {
    node: Rc<Node>,
    process: Rc<Process>,
}

impl Applier {
    async fn apply(&self, image: &Arc<MetadataImage>, delta: &MetadataDelta) -> Result<(), LogDirError> {
        let process = &self.process;
        if process.closing.get() {
            return Ok(());
        }
        let serving = process.serving.get();
        if serving && image.version() <= process.image.borrow().version() || image.cluster_id().is_zero() {
            return Ok(());
        }
        if process.log_dir.borrow().is_none() {
            self.open_directory(image)?;
            if self.node.forgetful.take() {
                self.meet_strays();
            }
            self.register();
        }
        let registered = image.broker(process.config.node_id);
        let registered = registered.filter(|broker| broker.incarnation_id == process.incarnation_id);
        let Some(registered) = registered else { return Ok(()) };
        process.broker_epoch.set(registered.broker_epoch);
        if !serving && registered.fenced {
            if !process.unfencing.replace(true) {
                self.unfence(registered.broker_epoch);
            }
            return Ok(());
        }
        if serving {
            self.apply_delta(image, delta).await;
        } else {
            self.start_everything(image).await?;
        }
        process.groups.follow(image);
        *process.image.borrow_mut() = Arc::clone(image);
        metadata::shown(&self.node, image);
        restarts::deleted(&self.node.sim, image);
        process.serving.set(true);
        Ok(())
    }

    fn open_directory(&self, image: &MetadataImage) -> Result<(), LogDirError> {
        let sim = &self.node.sim;
        let who = OpenLogDir {
            cluster_id: image.cluster_id().to_string(),
            node_id: self.node.id,
            new_directory_id: Uuid::from_random(sim.random(), sim.random()),
            boot_id: self.node.memory.boot_id(),
        };
        let opened = LogDir::open(Arc::new(sim.disk.clone()), Path::new(DATA), &who);
        let mut directory = opened.inspect_err(|_| self.node.truth.not_opened())?;
        let believed = notes::open(&self.node, &self.process, directory.identity());
        if !believed {
            directory.begin_notes().inspect_err(|_| self.node.truth.not_opened())?;
        }
        directory.noted(believed);
        let left = directory.restart_facts().kind();
        self.process.left.set(left);
        restarts::deleted(sim, image);
        self.node.truth.said(sim, left);
        *self.process.log_dir.borrow_mut() = Some(directory);
        Ok(())
    }

    /// Tombstones of other topics than those whose data lies here: what is not named by its own id stays.
    fn meet_strays(&self) {
        cover!("start with missing metadata");
        let directory = self.process.log_dir.borrow();
        let Some(directory) = directory.as_ref() else { return };
        for stray in directory.partitions().unwrap_or_default() {
            if directory.delete_partition(&stray, Uuid([0; 16])).is_ok() {
                self.node.sim.note("stray deleted", &[i64::from(stray.partition)]);
            }
        }
    }

    fn register(&self) {
        let process = &self.process;
        let starts: Vec<LogDirStart> =
            process.log_dir.borrow().iter().map(|log_dir| start_of(log_dir, process.left.get())).collect();
        let endpoint = Endpoint {
            listener: "PLAINTEXT".into(),
            host: "127.0.0.1".into(),
            port: self.node.port(),
            security_protocol: SecurityProtocol::Plaintext,
        };
        let proposal = Proposal::RegisterBroker(RegisterBroker {
            node_id: process.config.node_id,
            incarnation_id: process.incarnation_id,
            endpoints: vec![endpoint],
            rack: None,
            log_dirs: starts.iter().map(|start| start.directory).collect(),
            starts,
        });
        self.propose(proposal);
    }

    /// Notes the registration in the directory, as the node does, and then has the node unfenced.
    fn unfence(&self, broker_epoch: i64) {
        let mut log_dir = self.process.log_dir.borrow_mut();
        if let Some(log_dir) = log_dir.as_mut() {
            let before = log_dir.identity().sync_point;
            let holds = sync_point_at_registration(log_dir, self.process.config.durability);
            let written = log_dir.unfenced(broker_epoch, holds);
            if holds != before {
                self.node.truth.sync_point_written(holds, written.is_ok());
            }
            if written.is_err() {
                return self.node.fail_directory(&self.process, "directory's metadata");
            }
        }
        drop(log_dir);
        self.process.told_outer.set(Some(broker_epoch));
        let node_id = self.process.config.node_id;
        self.propose(Proposal::UnfenceBroker { node_id, broker_epoch });
    }

    /// Proposes what the node does not start without.
    fn propose(&self, proposal: Proposal) {
        let process = Rc::clone(&self.process);
        let (node, scope) = (Rc::clone(&self.node), process.scope);
        let env = SimEnv { sim: Rc::clone(&node.sim), node: Rc::clone(&node), process };
        self.node.sim.executor.detach(scope, async move {
            let deadline = node.sim.now() + Duration::from_secs(30);
            let decided = match node.cluster() {
                Some(cluster) => peers::propose_until_decided(&env, &cluster, proposal).await,
                None => ask_controller(&env, &env.process.controller, proposal, deadline).await,
            };
            if decided.is_err() {
                // As the node, which does not serve without: it ends.
                node.give_up();
            }
        });
    }

    async fn start_everything(&self, image: &MetadataImage) -> Result<(), LogDirError> {
        let found = self.found()?;
        if self.node.sim.chance(1, 2) {
            // As a node does that opens many logs.
            match self.node.sim.disk.sync_all(Path::new(DATA)) {
                Ok(synced) => self.process.synced.set(synced),
                Err(_) => {
                    self.node.sync_failed(&self.process, "the sync of the file system at the start failed");
                    return Ok(());
                }
            }
        }
        self.start_replicas(all_replicas(image, &self.process.config)).await;
        self.process.synced.set(false);
        self.sync_point();
        for folder in found {
            if let Some(topic_id) = folder.topic_id.filter(|topic_id| image.is_deleted(*topic_id)) {
                cover!("deleted topic's data removed at a start");
                self.delete_folder(&folder, topic_id);
            }
        }
        if let Some(topic) = image.topic(OFFSETS_TOPIC) {
            self.start_shards(topic, &led_shards(topic, &self.process.config));
        }
        Ok(())
    }

    /// Notes in the directory whether everything in it is known to be on the device from now on, as the node does.
    fn sync_point(&self) {
        let process = &self.process;
        let mut log_dir = process.log_dir.borrow_mut();
        let Some(log_dir) = log_dir.as_mut() else { return };
        let holds = sync_point(log_dir, process.config.durability, notes::is_known(process));
        let holds = holds && !process.sync_failed.get();
        let written = log_dir.unfenced(process.broker_epoch.get(), holds);
        self.node.truth.sync_point_written(holds, written.is_ok());
        if written.is_err() {
            self.node.fail_directory(process, "directory's metadata");
        }
    }

    fn found(&self) -> Result<Vec<PartitionDir>, LogDirError> {
        let directory = self.process.log_dir.borrow();
        let Some(directory) = directory.as_ref() else { return Ok(Vec::new()) };
        directory.finish_deletions()?;
        Ok(directory.partitions()?)
    }

    async fn apply_delta(&self, image: &MetadataImage, delta: &MetadataDelta) {
        let held = self.process.slots.borrow().iter().map(|(id, slot)| (*id, Arc::clone(&slot.topic))).collect();
        for change in changes(image, delta, &self.process.config, &held) {
            match change {
                Change::DeleteTopic { topic_id, name } => self.delete_topic(topic_id, &name).await,
                Change::Start(plans) => self.start_replicas(plans).await,
                Change::StartShards { topic, partitions } => self.start_shards(&topic, &partitions),
                Change::Assign { partition, config, assignment } => {
                    let Some(slot) = self.slot(partition) else { continue };
                    self.assign(&slot, self.node.scaled(*config), assignment).await;
                }
                Change::Remove(_) => self.node.sim.violate("C1", "nobody moves partitions here"),
                Change::EndShards(partitions) => self.end_shards(|index| partitions.contains(&index)),
                Change::Lead { partition, leads_in } => {
                    let Some(slot) = self.slot(partition) else { continue };
                    slot.handle.shared().set_leader_epoch(leads_in);
                    if let Some(leader_epoch) = leads_in {
                        drop(slot.handle.actor().try_send(ReplicaMessage::Lead { leader_epoch }));
                    }
                }
                Change::Configure { partition, config } => {
                    let Some(slot) = self.slot(partition) else { continue };
                    let config = self.node.scaled(*config);
                    cover!("configuration changed");
                    slot.handle.shared().set_config(config.clone());
                    drop(slot.handle.actor().try_send(ReplicaMessage::Configure(Box::new(config))));
                }
            }
        }
    }

    /// Who learns of an in-sync set knows the settings that it was judged by.
    async fn assign(&self, slot: &Slot, config: ReplicaConfig, assignment: Box<Assignment>) {
        let (shared, actor) = (slot.handle.shared(), slot.handle.actor());
        if *shared.config() != config {
            shared.set_config(config.clone());
            self.tell(actor.admit(ReplicaMessage::Configure(Box::new(config)))).await;
        }
        shared.set_assignment(Arc::new((*assignment).clone()));
        self.tell(actor.admit(ReplicaMessage::Assign(assignment))).await;
    }

    /// A replica that is down finds the same in its shared side when it starts.
    async fn tell<T>(&self, told: impl Future<Output = T> + Unpin) {
        drop(select(told, self.node.sim.executor.sleep(TELL_TIMEOUT)).await);
    }

    fn slot(&self, partition: TopicPartition) -> Option<Rc<Slot>> {
        self.process.slots.borrow().get(&partition).cloned()
    }

    /// They start together, and all are waited for.
    async fn start_replicas(&self, plans: Vec<ReplicaPlan>) {
        let started: Vec<Rc<Slot>> = plans.into_iter().filter_map(|plan| self.start_replica(plan)).collect();
        for slot in &started {
            self.wait_for(slot).await;
        }
    }

    fn start_replica(&self, plan: ReplicaPlan) -> Option<Rc<Slot>> {
        let ReplicaPlan { partition, topic, leads_in, config, assignment } = plan;
        let created = match self.process.log_dir.borrow().as_ref() {
            Some(log_dir) => log_dir.create_partition(&topic.name, partition.partition, partition.topic_id),
            None => return None,
        };
        let Ok(directory) = created else {
            cover!("partition offline until the next start");
            self.process.offline.set(self.process.offline.get() + 1);
            return None;
        };
        let config = self.node.scaled(config);
        metadata::started(&self.node.sim, partition, topic.is_internal(), &config);
        let name = Arc::clone(&topic.name);
        let shared = SharedReplica::new(partition, Arc::clone(&name), topic.is_internal(), leads_in, config);
        if let Some(assignment) = assignment {
            shared.set_assignment(Arc::from(assignment));
        }
        let actor = ActorRef::new(format!("{name}-{}", partition.partition), self.node.capacity());
        let slot = Rc::new(Slot {
            topic: name,
            partition,
            directory,
            handle: ReplicaHandle::new(Arc::new(shared), actor),
            incarnation: Cell::new(0),
            death: Cell::new(None),
            close: RefCell::new(None),
            gone: Cell::new(false),
        });
        self.process.slots.borrow_mut().insert(partition, Rc::clone(&slot));
        // The node notes a recovery point when it creates a partition.
        let checkpoint = Some(*self.node.checkpoints.borrow_mut().entry(partition).or_default());
        let noted = notes::load(&self.process, partition);
        let clean = self.process.left.get() == RestartKind::Clean;
        let durability = self.process.config.durability;
        let found = Found::first(clean, durability, checkpoint, noted, self.node.sim.random());
        let found = found.after_sync(self.process.synced.get());
        life::supervise(&self.node, &self.process, &slot, found);
        Some(slot)
    }

    async fn wait_for(&self, slot: &Slot) {
        let sim = &self.node.sim;
        let limit = sim.now() + START_TIMEOUT;
        while slot.handle.shared().last_published().is_none() && sim.now() < limit {
            sim.executor.sleep(Duration::from_micros(500)).await;
        }
    }

    async fn delete_topic(&self, topic_id: TopicId, name: &str) {
        let concerned: Vec<Rc<Slot>> =
            self.process.slots.borrow().values().filter(|slot| slot.partition.topic_id == topic_id).cloned().collect();
        for slot in concerned {
            cover!("topic deleted");
            slot.gone.set(true);
            close_replica(&slot).await;
            self.process.slots.borrow_mut().remove(&slot.partition);
            slot.handle.shared().suspend();
            let (path, partition) = (slot.directory.clone(), slot.partition.partition);
            let folder = PartitionDir { path, topic: slot.topic.to_string(), partition, topic_id: Some(topic_id) };
            self.delete_folder(&folder, topic_id);
        }
        for shard in self.process.shards.borrow().values() {
            drop(shard.actor.try_send(ShardMessage::TopicDeleted { name: name.to_owned(), id: topic_id }));
        }
    }

    fn delete_folder(&self, folder: &PartitionDir, topic_id: TopicId) {
        let directory = self.process.log_dir.borrow();
        let Some(directory) = directory.as_ref() else { return };
        if directory.delete_partition(folder, topic_id).is_err() {
            self.node.sim.note("folder stays", &[i64::from(folder.partition)]);
        }
        let partition = TopicPartition { topic_id, partition: folder.partition };
        self.node.checkpoints.borrow_mut().remove(&partition);
        notes::keep(&self.node, &self.process, |notes| notes.remove(partition));
    }

    /// Starts those that do not run in their partition's present leadership.
    fn start_shards(&self, topic: &TopicImage, partitions: &[i32]) {
        for &index in partitions {
            let Some(epoch) = topic.partitions.get(&index).map(|state| state.leader_epoch) else { continue };
            if self.process.shards.borrow().get(&index).is_some_and(|shard| shard.epoch == epoch) {
                continue;
            }
            self.end_shards(|ended| ended == index);
            let partition = TopicPartition { topic_id: topic.topic_id, partition: index };
            if let Some(slot) = self.slot(partition) {
                shard::start(&self.node, &self.process, &slot, epoch);
            }
        }
    }

    fn end_shards(&self, which: impl Fn(i32) -> bool) {
        let ended = self.process.shards.borrow_mut().extract_if(.., |index, _| which(*index)).collect::<Vec<_>>();
        for (_, shard) in ended {
            cover!("shard ended as another node leads");
            shard.end();
        }
    }
}
