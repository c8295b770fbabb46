//! One life of the node: its controller, what follows the metadata, the periodic work, an orderly end.
//! Invariant: no client is served before everything that the metadata says is started.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use madang::fetch_sessions::FetchSessions;
use madang::group_placement::GroupPlacement;
use madang::producer_ids::ProducerIds;
use madang_actors::actor_ref::ActorRef;
use madang_cluster::configs::BrokerConfig;
use madang_cluster::controller::Proposal;
use madang_cluster::controller::actor::ControllerMessage;
use madang_cluster::metadata::MetadataImage;
use madang_cluster::replica::ReplicaMessage;
use madang_cluster::replica::fetching::FetcherRef;
use madang_protocol::types::{NodeId, TopicPartition, Uuid};
use madang_storage::{Crash, LogDir, MemoryNotes, Notes, RestartKind};

use crate::cluster::MIN_IN_SYNC;
use crate::cover;
use crate::executor::Scope;
use crate::invariants::storage;
use crate::node::applier::{self, Feed};
use crate::node::env::SimEnv;
use crate::node::shard::ShardSlot;
use crate::node::{Node, SCALE, Slot, controller, notes, peers};

/// How long a node that stops waits for the controller to have others lead.
const HAND_OVER: Duration = Duration::from_secs(2);

/// One life of the node.
pub struct Process {
    /// Its number.
    pub number: u64,
    /// Its tasks.
    pub scope: Scope,
    /// What it was started with.
    pub config: BrokerConfig,
    /// Names this life in the metadata.
    pub incarnation_id: Uuid,
    /// The metadata as applied.
    pub image: RefCell<Arc<MetadataImage>>,
    /// The epoch of its registration, -1 before.
    pub broker_epoch: Cell<i64>,
    /// The newest version of the metadata that its controller has committed.
    pub committed: Cell<u64>,
    /// Whether all that earlier processes wrote was synced at once, and the first logs are being opened.
    pub synced: Cell<bool>,
    /// Whether it has asked to be unfenced.
    pub unfencing: Cell<bool>,
    /// Whether it serves clients.
    pub serving: Cell<bool>,
    /// Its replicas.
    pub slots: RefCell<BTreeMap<TopicPartition, Rc<Slot>>>,
    /// Its group shards, by partition of the offsets topic.
    pub shards: RefCell<BTreeMap<i32, Rc<ShardSlot>>>,
    /// The directory, while it holds it.
    pub log_dir: RefCell<Option<LogDir>>,
    /// How the directory was left, as it says itself.
    pub left: Cell<RestartKind>,
    /// Where it notes how far its logs have come.
    pub notes: RefCell<Option<MemoryNotes>>,
    /// Its controller.
    pub controller: ActorRef<ControllerMessage>,
    /// Committed metadata on its way to be applied.
    pub feed: Feed,
    /// Its fetch sessions.
    pub fetch_sessions: FetchSessions,
    /// Where its groups are.
    pub groups: GroupPlacement,
    /// Its producer ids.
    pub producer_ids: ProducerIds,
    /// The next message kills the controller.
    pub controller_dies: Cell<bool>,
    /// A handler dies after so many polls.
    pub handler_dies: Cell<Option<u64>>,
    /// Whether a sync of it has failed, so that it is not closed as clean.
    pub sync_failed: Cell<bool>,
    /// Whether it ends in order, so that nothing is applied any more.
    pub closing: Cell<bool>,
    /// Partitions that could not be started: they are offline until the process starts again.
    pub offline: Cell<usize>,
    /// The registration that whoever runs the process was told.
    pub told_outer: Cell<Option<i64>>,
    /// Who leads the quorum, as far as this process's voter knows.
    pub leader: Cell<Option<NodeId>>,
    /// What its followers want of each remote leader.
    pub fetchers: RefCell<BTreeMap<NodeId, FetcherRef>>,
    /// Messages of its voter to each other one that have not arrived.
    pub under_way: RefCell<BTreeMap<NodeId, usize>>,
}

impl Process {
    /// A life that has not begun.
    #[must_use]
    pub fn new(node: &Node, number: u64) -> Self {
        let sim = &node.sim;
        let config = broker_config(node);
        Self {
            number,
            scope: node.scope(number),
            incarnation_id: Uuid::from_random(sim.random(), sim.random()),
            image: RefCell::default(),
            broker_epoch: Cell::new(-1),
            committed: Cell::new(0),
            synced: Cell::new(false),
            unfencing: Cell::new(false),
            serving: Cell::new(false),
            slots: RefCell::default(),
            shards: RefCell::default(),
            log_dir: RefCell::default(),
            left: Cell::new(RestartKind::Lossy),
            notes: RefCell::default(),
            controller: ActorRef::new("controller", node.capacity()),
            feed: Feed::default(),
            fetch_sessions: FetchSessions::new(config.max_fetch_sessions),
            groups: GroupPlacement::default(),
            producer_ids: ProducerIds::default(),
            controller_dies: Cell::new(false),
            handler_dies: Cell::new(None),
            sync_failed: Cell::new(false),
            closing: Cell::new(false),
            offline: Cell::new(0),
            told_outer: Cell::new(None),
            leader: Cell::new(None),
            fetchers: RefCell::default(),
            under_way: RefCell::default(),
            config,
        }
    }
}

/// The file that the node is started with.
fn broker_config(node: &Node) -> BrokerConfig {
    let (sim, swarm) = (&node.sim, &node.sim.swarm);
    let segment = (swarm.segment_bytes * SCALE).to_string();
    let mut pairs = vec![
        ("node.id", node.id.to_string()),
        ("log.dirs", super::DATA.to_owned()),
        ("listeners", format!("PLAINTEXT://127.0.0.1:{}", node.port())),
        ("auto.create.topics.enable", "false".to_owned()),
        ("madang.durability", if swarm.page_cache { "page-cache" } else { "fsync" }.to_owned()),
        ("log.segment.bytes", segment.clone()),
        ("log.index.interval.bytes", swarm.index_interval_bytes.to_string()),
        ("log.cleaner.min.cleanable.ratio", "0.2".to_owned()),
        // The clock jumps by hours.
        ("log.message.timestamp.after.max.ms", i64::MAX.to_string()),
        ("offsets.topic.num.partitions", swarm.offsets_partitions.to_string()),
        ("offsets.topic.segment.bytes", segment),
        ("group.min.session.timeout.ms", "100".to_owned()),
        ("group.initial.rebalance.delay.ms", "50".to_owned()),
        ("offsets.retention.check.interval.ms", "1000".to_owned()),
        ("max.incremental.fetch.session.cache.slots", "4".to_owned()),
    ];
    if swarm.nodes > 1 {
        let replicas = swarm.replicas().to_string();
        pairs.extend([
            ("default.replication.factor", replicas.clone()),
            ("offsets.topic.replication.factor", replicas),
            ("min.insync.replicas", MIN_IN_SYNC.to_string()),
            ("replica.lag.time.max.ms", swarm.links.lag_ms.to_string()),
            ("broker.session.timeout.ms", swarm.links.session_ms.to_string()),
        ]);
    }
    if swarm.page_cache {
        pairs.push(("log.flush.interval.ms", "50".to_owned()));
    }
    let parsed = BrokerConfig::parse(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)));
    match parsed {
        Ok((mut config, _)) => {
            if swarm.nodes > 1 {
                let voter = |id| (NodeId(id), format!("node-{id}:1"));
                config.quorum_voters = (1..=i32::try_from(swarm.nodes).unwrap_or(1)).map(voter).collect();
            }
            config
        }
        Err(error) => {
            sim.violate("SWARM", format!("the node's settings are refused: {error}"));
            BrokerConfig::default()
        }
    }
}

/// Runs the life until it is killed. Returns if it has to end by itself.
pub async fn run(node: Rc<Node>, process: Rc<Process>) {
    controller::start(&node, &process);
    node.sim.executor.detach(process.scope, periodic_work(Rc::clone(&node), Rc::clone(&process)));
    if let Some(cluster) = node.cluster() {
        let env = SimEnv { sim: Rc::clone(&node.sim), node: Rc::clone(&node), process: Rc::clone(&process) };
        node.sim.executor.detach(process.scope, peers::heartbeats(env, cluster));
    }
    applier::follow(&node, &process).await;
}

/// The cleaner of the directory.
async fn periodic_work(node: Rc<Node>, process: Rc<Process>) {
    loop {
        node.sim.executor.sleep(Duration::from_millis(250)).await;
        notes::complete(&node, &process);
        node.sim.disk.set_wall(node.sim.wall());
        let slots: Vec<Rc<Slot>> = process.slots.borrow().values().cloned().collect();
        for slot in slots {
            let actor = slot.handle.actor();
            drop(actor.try_send(ReplicaMessage::Retain));
            if node.sim.swarm.nodes == 1 && slot.handle.shared().config().compaction.is_some() {
                drop(actor.try_send(ReplicaMessage::Compact));
            }
        }
    }
}

/// Stops the process in order: closes every log, writes the marker. False if something failed, and then the end is as a kill's.
pub async fn close(node: &Rc<Node>, process: &Rc<Process>) -> bool {
    hand_over(node, process).await;
    if !node.process.borrow().as_ref().is_some_and(|running| Rc::ptr_eq(running, process)) {
        // It died on the way.
        return false;
    }
    // Whoever asks from now on finds no node.
    let running = node.process.borrow_mut().take();
    *node.closing.borrow_mut() = running;
    process.closing.set(true);
    let slots: Vec<Rc<Slot>> = process.slots.borrow().values().cloned().collect();
    let mut closed = true;
    for slot in &slots {
        closed &= close_replica(slot).await;
    }
    if node.closing.borrow_mut().take_if(|closing| Rc::ptr_eq(closing, process)).is_none() {
        // It was killed on the way.
        return false;
    }
    let log_dir = process.log_dir.borrow_mut().take();
    let marked = match log_dir.filter(|_| closed && !process.sync_failed.get()) {
        Some(log_dir) => log_dir.close_clean(slots.len()).ok(),
        None => Some(false),
    };
    node.truth.closed(marked);
    let marked = marked == Some(true);
    if marked {
        notes::keep(node, process, Notes::discard);
        cover!("clean shutdown");
        for slot in &slots {
            storage::closed_clean(&node.sim, slot.partition, &slot.directory);
        }
    }
    node.sim.executor.kill(process.scope);
    // Without the marker it is as if it had been killed.
    node.die(Crash::Kill);
    marked
}

/// Others lead what this node leads before it stops to serve.
async fn hand_over(node: &Rc<Node>, process: &Rc<Process>) {
    let Some(cluster) = node.cluster() else { return };
    let env = SimEnv { sim: Rc::clone(&node.sim), node: Rc::clone(node), process: Rc::clone(process) };
    let (node_id, broker_epoch) = (process.config.node_id, process.broker_epoch.get());
    let deadline = node.sim.now() + HAND_OVER;
    drop(peers::propose(&env, &cluster, Proposal::FenceBroker { node_id, broker_epoch }, deadline).await);
}

/// Asks the running life of a replica to close its log; false if there is none, or if it could not.
pub async fn close_replica(slot: &Slot) -> bool {
    let (done, answer) = oneshot::channel();
    let asked = slot.close.borrow_mut().take().is_some_and(|close| close.send(done).is_ok());
    if asked {
        // It may sleep.
        drop(slot.handle.actor().try_send(ReplicaMessage::Retain));
    }
    asked && answer.await.unwrap_or(false)
}
