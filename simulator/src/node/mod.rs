//! The node: a process that opens its log directory, runs its controller, replicas and shards, dies in every way, and starts again.
//! Invariant: at most one process lives at a time; what a dead one held is dropped before the next opens the directory.

pub mod applier;
pub mod connection;
pub mod controller;
pub mod env;
pub mod fetching;
pub mod life;
pub mod notes;
pub mod outside;
pub mod peers;
pub mod process;
pub mod replica;
pub mod shard;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use madang_actors::clock::Mono;
use madang_actors::mailbox::{Bounds, Capacity};
use madang_cluster::metadata::MetadataImage;
use madang_cluster::replica::{ReplicaConfig, ReplicaHandle};
use madang_protocol::types::{NodeId, TopicPartition, Uuid};
use madang_storage::{Checkpoint, Crash, Notes};

use crate::cluster::{Cluster, disks};
use crate::executor::{Exit, Scope};
use crate::invariants::restarts::Truth;
use crate::node::notes::Memory;
use crate::node::process::Process;
use crate::node::replica::Death;
use crate::sim::{OUTSIDE, Sim};

/// The node's log directory.
pub const DATA: &str = "/data";
/// Sizes of segments are so many times smaller than Kafka's rules let a topic have them: a run writes kilobytes.
pub const SCALE: u64 = 512;

/// A replica's place in a process.
pub struct Slot {
    /// Its topic's name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: TopicPartition,
    /// Where its files are.
    pub directory: PathBuf,
    /// How to reach it.
    pub handle: ReplicaHandle,
    /// Its lives in this process.
    pub incarnation: Cell<u64>,
    /// How its next life is to die.
    pub death: Cell<Option<Death>>,
    /// Asks the running life to close; answered when it has.
    pub close: RefCell<Option<oneshot::Sender<oneshot::Sender<bool>>>>,
    /// Whether its topic was deleted, so that no life follows.
    pub gone: Cell<bool>,
}

/// The node over all its lives.
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// The run, as this node sees it.
    pub sim: Rc<Sim>,
    /// The life that runs.
    pub process: RefCell<Option<Rc<Process>>>,
    /// The life that ends in order: nobody reaches it any more, and it can be killed yet.
    pub closing: RefCell<Option<Rc<Process>>>,
    /// The last checkpoints.
    pub checkpoints: RefCell<BTreeMap<TopicPartition, Checkpoint>>,
    /// What has happened to the directory.
    pub truth: Truth,
    /// The machine's memory, as far as it outlives a process.
    pub memory: Memory,
    /// The next start does not know its topics at first.
    pub forgetful: Cell<bool>,
    /// The next sync of any replica takes this long, or never ends.
    pub slow_sync: Cell<Option<Option<Duration>>>,
    /// The newest metadata that any life has shown, and what it was.
    pub shown: RefCell<Arc<MetadataImage>>,
    /// The newest life when its disk last lost what it was counted on for.
    pub doubted: Cell<Option<u64>>,
    /// Its directory as it was once.
    pub backup: RefCell<Option<disks::Backup>>,
    /// Since when no process of it runs.
    pub down_since: Cell<Mono>,
    cluster: RefCell<Option<Rc<Cluster>>>,
    lives: Cell<u64>,
    /// The lives by what they are called in the metadata.
    incarnations: RefCell<BTreeMap<Uuid, u64>>,
    up: Cell<bool>,
}

impl Node {
    /// A node that has not started.
    #[must_use]
    pub fn new(sim: &Rc<Sim>) -> Rc<Self> {
        Self::member(NodeId(1), sim)
    }

    /// The node of that id.
    #[must_use]
    pub fn member(id: NodeId, sim: &Rc<Sim>) -> Rc<Self> {
        Rc::new(Self {
            id,
            sim: Rc::clone(sim),
            process: RefCell::new(None),
            closing: RefCell::new(None),
            checkpoints: RefCell::default(),
            truth: Truth::default(),
            memory: Memory::default(),
            forgetful: Cell::new(false),
            slow_sync: Cell::new(None),
            shown: RefCell::default(),
            doubted: Cell::new(None),
            backup: RefCell::default(),
            down_since: Cell::new(Mono::ZERO),
            cluster: RefCell::default(),
            lives: Cell::new(0),
            incarnations: RefCell::default(),
            up: Cell::new(false),
        })
    }

    /// Makes it one of several; none parts it from them.
    pub fn join(&self, cluster: Option<Rc<Cluster>>) {
        *self.cluster.borrow_mut() = cluster;
    }

    /// The cluster that it is one node of several of.
    #[must_use]
    pub fn cluster(&self) -> Option<Rc<Cluster>> {
        self.cluster.borrow().clone()
    }

    /// The voters of the metadata log.
    #[must_use]
    pub fn voters(&self) -> Vec<NodeId> {
        self.cluster.borrow().as_ref().map_or_else(|| vec![self.id], |cluster| cluster.ids())
    }

    /// The tasks of its life of that number.
    #[must_use]
    pub fn scope(&self, life: u64) -> Scope {
        Scope(life | u64::from(self.id.0.unsigned_abs() - 1) << 32)
    }

    /// Where clients reach it.
    #[must_use]
    pub fn port(&self) -> u16 {
        9091 + u16::try_from(self.id.0).unwrap_or(0)
    }

    /// The settings of a partition's replica as the metadata has them, in the sizes of a run.
    #[must_use]
    pub fn scaled(&self, mut config: ReplicaConfig) -> ReplicaConfig {
        config.log.segment_bytes /= SCALE;
        config.log.retention_bytes = config.log.retention_bytes.map(|bytes| bytes / SCALE);
        if let Some(settings) = &mut config.compaction {
            // The node draws it once for each process.
            settings.seed = self.sim.seed;
        }
        config
    }

    /// The bounds of an actor's mailbox.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let data = Bounds { items: self.sim.swarm.mailbox_items, bytes: 64 << 20, waiters: 16_384 };
        Capacity { data, ..Capacity::default() }
    }

    /// The life that runs, if it serves clients.
    #[must_use]
    pub fn serving(&self) -> Option<Rc<Process>> {
        self.process.borrow().clone().filter(|process| process.serving.get())
    }

    /// All replicas of the life that runs.
    #[must_use]
    pub fn slots(&self) -> Vec<Rc<Slot>> {
        let process = self.process.borrow().clone();
        process.map(|process| process.slots.borrow().values().cloned().collect()).unwrap_or_default()
    }

    /// Whether a process runs.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up.get()
    }

    /// Starts a process, and again if its start fails.
    pub fn start(self: &Rc<Self>) {
        let life = self.lives.get() + 1;
        self.lives.set(life);
        let process = Rc::new(Process::new(self, life));
        self.incarnations.borrow_mut().insert(process.incarnation_id, life);
        *self.process.borrow_mut() = Some(Rc::clone(&process));
        self.up.set(true);
        self.sim.note("start", &[i64::try_from(life).unwrap_or(0)]);
        self.sim.tell(|| format!("{} starts", self.id));
        let ended = self.sim.executor.spawn(process.scope, process::run(Rc::clone(self), Rc::clone(&process)));
        let node = Rc::clone(self);
        self.sim.executor.detach(OUTSIDE, async move {
            match ended.await {
                Ok(Exit::Panicked(Some(text))) => node.sim.violate("U2", format!("the node's start panicked: {text}")),
                // The process gave up, by a fault of the disk: it exits and is started again.
                Ok(Exit::Panicked(None) | Exit::Returned) => node.exit(life),
                Ok(Exit::Killed) | Err(_) => {}
            }
        });
    }

    fn is_life(&self, life: u64) -> bool {
        self.process.borrow().as_ref().is_some_and(|process| process.number == life)
    }

    /// That life ends by itself, and another follows.
    fn exit(self: &Rc<Self>, life: u64) {
        if self.is_life(life) {
            self.die(Crash::Kill);
            self.restart_later();
        }
    }

    /// Ends the process at once.
    pub fn die(&self, crash: Crash) {
        let closing = self.closing.borrow_mut().take();
        let process = self.process.borrow_mut().take().or(closing);
        if self.up.replace(false) {
            self.down_since.set(self.sim.now());
        }
        if let Some(process) = process {
            self.sim.executor.kill(process.scope);
            if let Some(cluster) = self.cluster() {
                cluster.died(self, &process, crash);
            }
        }
        self.sim.note("die", &[i64::from(crash == Crash::Power)]);
        self.sim.tell(|| format!("{} ends by {crash:?}", self.id));
        self.sim.disk.crash(crash, &mut self.sim.fork());
        self.slow_sync.set(None);
        if crash == Crash::Power {
            notes::reboot(self);
        }
    }

    /// Starts a process after a while.
    pub fn restart_later(self: &Rc<Self>) {
        let node = Rc::clone(self);
        self.sim.executor.detach(OUTSIDE, async move {
            let longest = if node.sim.is_healed() { 60_000 } else { node.sim.swarm.links.outage_us };
            node.sim.pause(1000, longest).await;
            if !node.is_up() {
                node.start();
            }
        });
    }

    /// The directory can no longer be trusted: this node's only one, so the process ends and comes back on it.
    pub fn fail_directory(self: &Rc<Self>, process: &Process, why: &str) {
        crate::cover!("directory left for a restart");
        self.sim.note("directory failed", &[i64::try_from(why.len()).unwrap_or(0)]);
        notes::keep(self, process, Notes::discard);
        self.give_up();
    }

    /// A sync has failed: the directory says so to the next start, and is given up at once, as the node's is. The life that asked may be over
    /// by now, and the next one's sync would succeed over lost pages.
    pub fn sync_failed(self: &Rc<Self>, process: &Process, why: &str) {
        process.sync_failed.set(true);
        let said = process.log_dir.borrow_mut().as_mut().map(|log_dir| log_dir.set_sync_point(false).is_ok());
        self.truth.sync_failed(&self.sim, said);
        self.doubt();
        self.fail_directory(process, why);
    }

    /// Its disk may lack what it was counted on for, until a life that begins after that is registered: what an earlier one has sent may be
    /// committed yet, and knows nothing of it.
    pub fn doubt(&self) {
        self.doubted.set(Some(self.lives.get()));
    }

    /// The life that is called so in the metadata.
    #[must_use]
    pub fn life_of(&self, incarnation_id: Uuid) -> Option<u64> {
        self.incarnations.borrow().get(&incarnation_id).copied()
    }

    /// The process cannot go on: it ends as soon as the task that says so has returned.
    pub fn give_up(self: &Rc<Self>) {
        let node = Rc::clone(self);
        let life = self.lives.get();
        self.sim.executor.detach(OUTSIDE, async move { node.exit(life) });
    }
}
