//! The node: a process that opens its log directory, runs its replicas and shards, dies in every way, and starts again.
//! Invariant: at most one process lives at a time; what a dead one held is dropped before the next opens the directory.

pub mod api;
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
use madang_actors::mailbox::{Bounds, Capacity};
use madang_cluster::coordinator::OFFSETS_TOPIC;
use madang_cluster::replica::{Durability, ReplicaConfig, ReplicaHandle};
use madang_protocol::record_batch::ProduceRules;
use madang_protocol::types::{TopicId, TopicPartition, Uuid};
use madang_storage::mutants::mutant;
use madang_storage::{Crash, LogDir};

use crate::executor::{Exit, Scope};
use crate::invariants::storage::Ending;
use crate::node::replica::Death;
use crate::node::shard::ShardHandle;
use crate::sim::{OUTSIDE, Sim};

/// The node's log directory.
pub const DATA: &str = "/data";

/// A partition as committed metadata has it.
#[derive(Clone, Debug)]
pub struct PartitionSpec {
    /// Its topic's name.
    pub topic: Arc<str>,
    /// Its id.
    pub partition: TopicPartition,
    /// Whether retention deletes from it.
    pub retains: bool,
    /// Whether clients may not write to it.
    pub internal: bool,
}

/// A replica's place in a process.
pub struct Slot {
    /// What it is a replica of.
    pub spec: PartitionSpec,
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
}

/// One life of the node.
pub struct Process {
    /// Its number; also the leader epoch of all it leads.
    pub number: u64,
    /// Its tasks.
    pub scope: Scope,
    /// Its replicas.
    pub slots: RefCell<BTreeMap<TopicPartition, Rc<Slot>>>,
    /// Its group shards, by partition of the offsets topic.
    pub shards: RefCell<BTreeMap<i32, Rc<ShardHandle>>>,
    /// The directory, while it holds it.
    pub log_dir: RefCell<Option<LogDir>>,
}

/// The node over all its lives.
pub struct Node {
    /// The run.
    pub sim: Rc<Sim>,
    /// The life that runs.
    pub process: RefCell<Option<Rc<Process>>>,
    /// The committed metadata.
    pub partitions: RefCell<Vec<PartitionSpec>>,
    /// Confirmed ends as the last checkpoint had them.
    pub checkpoints: RefCell<BTreeMap<TopicPartition, i64>>,
    /// How the last life ended.
    pub ending: Cell<Ending>,
    /// The next start does not know its topics at first.
    pub forgetful: Cell<bool>,
    /// A sync failed and pages are gone.
    pub pages_lost: Cell<bool>,
    /// The next sync of any replica takes this long, or never ends.
    pub slow_sync: Cell<Option<Option<Duration>>>,
    lives: Cell<u64>,
    up: Cell<bool>,
}

impl Node {
    /// A node with topics `orders` (two partitions), `events` (one, with retention) and the offsets topic, not started.
    #[must_use]
    pub fn new(sim: &Rc<Sim>) -> Rc<Self> {
        let spec = |topic: &str, number: u8, partition: i32, retains: bool, internal: bool| PartitionSpec {
            topic: topic.into(),
            partition: TopicPartition { topic_id: topic_id(number), partition },
            retains,
            internal,
        };
        let partitions = vec![
            spec("orders", 1, 0, false, false),
            spec("orders", 1, 1, false, false),
            spec("events", 2, 0, true, false),
            spec(OFFSETS_TOPIC, 3, 0, false, true),
        ];
        for one in &partitions {
            let mut history = sim.history.borrow_mut();
            let known = history.of(one.partition);
            known.retains = one.retains;
            known.internal = one.internal;
        }
        Rc::new(Self {
            sim: Rc::clone(sim),
            process: RefCell::new(None),
            partitions: RefCell::new(partitions),
            checkpoints: RefCell::default(),
            ending: Cell::new(Ending::First),
            forgetful: Cell::new(false),
            pages_lost: Cell::new(false),
            slow_sync: Cell::new(None),
            lives: Cell::new(0),
            up: Cell::new(false),
        })
    }

    /// The settings of a partition's replica.
    #[must_use]
    pub fn replica_config(&self, spec: &PartitionSpec) -> ReplicaConfig {
        let swarm = &self.sim.swarm;
        ReplicaConfig {
            log: swarm.log_config(spec.retains),
            produce: ProduceRules::default(),
            durability: if swarm.page_cache { Durability::PageCache } else { Durability::Fsync },
            min_in_sync_replicas: 1,
            deletes_old_records: true,
            compaction: None,
            replication_factor: 1,
            in_sync_replicas: 1,
            replica_lag_time_max: Duration::from_secs(30),
        }
    }

    /// The bounds of a replica's mailbox.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let items = if mutant(29) { usize::MAX } else { self.sim.swarm.mailbox_items };
        let data = Bounds { items, bytes: 64 << 20, waiters: 16_384 };
        Capacity { data, ..Capacity::default() }
    }

    /// The replica of a partition, if the process has one.
    #[must_use]
    pub fn slot(&self, partition: TopicPartition) -> Option<Rc<Slot>> {
        let process = self.process.borrow().clone()?;
        process.slots.borrow().get(&partition).cloned()
    }

    /// The shard of the only partition of the offsets topic, if the process runs it.
    #[must_use]
    pub fn shard(&self) -> Option<Rc<ShardHandle>> {
        let process = self.process.borrow().clone()?;
        process.shards.borrow().get(&0).cloned()
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
        let ending = self.ending.get();
        let process = Rc::new(Process {
            number: life,
            scope: Scope(life),
            slots: RefCell::default(),
            shards: RefCell::default(),
            log_dir: RefCell::default(),
        });
        *self.process.borrow_mut() = Some(Rc::clone(&process));
        self.up.set(true);
        self.sim.note("start", &[i64::try_from(life).unwrap_or(0), ending as i64]);
        let ended = self.sim.executor.spawn(process.scope, process::run(Rc::clone(self), Rc::clone(&process), ending));
        let node = Rc::clone(self);
        self.sim.executor.detach(OUTSIDE, async move {
            match ended.await {
                Ok(Exit::Panicked(Some(text))) => node.sim.violate("U2", format!("the node's start panicked: {text}")),
                Ok(Exit::Panicked(None) | Exit::Returned) => {
                    // The start failed, by a fault of the disk: the process exits and is started again.
                    if node.is_life(life) && process.log_dir.borrow().is_none() {
                        node.die(Crash::Kill);
                        node.restart_later();
                    }
                }
                Ok(Exit::Killed) | Err(_) => {}
            }
        });
    }

    fn is_life(&self, life: u64) -> bool {
        self.process.borrow().as_ref().is_some_and(|process| process.number == life)
    }

    /// Ends the process at once.
    pub fn die(&self, crash: Crash) {
        let process = self.process.borrow_mut().take();
        self.up.set(false);
        if let Some(process) = process {
            self.sim.executor.kill(process.scope);
        }
        let lossy = crash == Crash::Power || self.pages_lost.get() || self.ending.get() == Ending::Lossy;
        self.sim.note("die", &[i64::from(crash == Crash::Power)]);
        self.sim.disk.crash(crash, &mut self.sim.fork());
        self.pages_lost.set(false);
        self.slow_sync.set(None);
        self.ending.set(if lossy { Ending::Lossy } else { Ending::Kill });
    }

    /// Starts a process after a while.
    pub fn restart_later(self: &Rc<Self>) {
        let node = Rc::clone(self);
        self.sim.executor.detach(OUTSIDE, async move {
            node.sim.pause(1000, 60_000).await;
            if !node.is_up() {
                node.start();
            }
        });
    }

    /// The directory can no longer be trusted: this node's only one, so the process ends and comes back on it.
    pub fn fail_directory(self: &Rc<Self>, why: &str) {
        crate::cover!("directory left for a restart");
        self.sim.note("directory failed", &[i64::try_from(why.len()).unwrap_or(0)]);
        self.pages_lost.set(true);
        let node = Rc::clone(self);
        let life = self.lives.get();
        self.sim.executor.detach(OUTSIDE, async move {
            if node.is_life(life) {
                node.die(Crash::Kill);
                node.restart_later();
            }
        });
    }
}

/// The id of the topic of that number.
#[must_use]
pub fn topic_id(number: u8) -> TopicId {
    Uuid([number; 16])
}
