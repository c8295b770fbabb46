//! Whole clusters: nodes with disks of their own, the links between them, whoever runs their processes, and what is known to be true of all.
//! Invariant: what a node does here it does by the code of a node alone; only links, faults and checks are added.

pub mod disks;
pub mod faults;
pub mod network;
pub mod planted;
pub mod scenarios;
pub mod sweep;
pub mod world;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_actors::clock::Mono;
use madang_cluster::controller::{Controller, QuorumStatus};
use madang_cluster::metadata::MetadataImage;
use madang_cluster::replica::{Appended, ReplicaSnapshot, RequiredAcks};
use madang_protocol::node::{Death, HeartbeatAnswer, HeartbeatResult};
use madang_protocol::types::{NodeId, TopicPartition};
use madang_storage::Crash;
use raft::eraftpb::Message;

use self::network::{Lane, Network, call};
use crate::cover;
use crate::invariants::several;
use crate::node::process::Process;
use crate::node::{Node, Slot};
use crate::quorum::checks::Checks;
use crate::sim::{OUTSIDE, Sim, Violation};

/// `min.insync.replicas` of every topic.
pub const MIN_IN_SYNC: usize = 2;
/// A process that has not been there for so long is known not to be.
const KNOWN_TO_BE_DOWN: Duration = Duration::from_secs(2);
/// How soon a controller that has not heard of a death is told again.
const TELL_AGAIN: Duration = Duration::from_millis(50);
/// After so long silence alone has fenced the node.
const GIVE_UP: Duration = Duration::from_secs(30);

/// A cluster over all lives of its nodes.
pub struct Cluster {
    /// The run, as clients see it.
    pub sim: Rc<Sim>,
    /// The links.
    pub network: Network,
    /// The newest metadata that any controller has committed.
    pub newest: RefCell<Arc<MetadataImage>>,
    nodes: RefCell<Vec<Rc<Node>>>,
    quorum: RefCell<Checks>,
}

impl Cluster {
    /// A cluster of so many nodes, none of which has started.
    #[must_use]
    pub fn new(sim: &Rc<Sim>) -> Rc<Self> {
        let cluster = Rc::new(Self {
            sim: Rc::clone(sim),
            network: Network::default(),
            newest: RefCell::default(),
            nodes: RefCell::default(),
            quorum: RefCell::default(),
        });
        for id in 1..=sim.swarm.nodes {
            let node = Node::member(NodeId(i32::try_from(id).unwrap_or(0)), &sim.view());
            node.join(Some(Rc::clone(&cluster)));
            cluster.nodes.borrow_mut().push(node);
        }
        cluster
    }

    /// Takes it apart: its nodes hold it, as it holds them.
    pub fn dissolve(&self) {
        for node in self.nodes.borrow_mut().drain(..) {
            node.join(None);
            if let Some(process) = node.process.borrow_mut().take() {
                self.sim.executor.kill(process.scope);
            }
        }
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<Rc<Node>> {
        self.nodes.borrow().clone()
    }

    /// Their ids.
    #[must_use]
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.borrow().iter().map(|node| node.id).collect()
    }

    /// The node of that id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<Rc<Node>> {
        self.nodes.borrow().iter().find(|node| node.id == id).cloned()
    }

    /// Whether the node is known not to be there.
    #[must_use]
    pub fn is_down(&self, id: NodeId) -> bool {
        let since = |node: Rc<Node>| self.sim.now() >= node.down_since.get() + KNOWN_TO_BE_DOWN;
        self.node(id).is_none_or(|node| !node.is_up() && since(node))
    }

    /// Whether the node's disk may lack what it was counted on for, and its controller does not know yet.
    #[must_use]
    pub fn is_doubted(&self, node: &Node) -> bool {
        let newest = self.newest.borrow();
        let registered = newest.broker(node.id).and_then(|broker| node.life_of(broker.incarnation_id));
        node.doubted.get().is_some_and(|doubted| registered.is_none_or(|life| life <= doubted))
    }

    fn judge(&self, judged: Result<(), Violation>) {
        if let Err(Violation { code, what }) = judged {
            self.sim.violate(code, what);
        }
    }

    /// C5: a voter has found its log.
    pub fn started(&self, node: &Node, status: QuorumStatus) {
        self.judge(self.quorum.borrow().started(node.id, status));
    }

    /// C1, C3: a voter has done something.
    pub fn stepped(&self, node: &Node, controller: &Controller) {
        let judged = self.quorum.borrow_mut().stepped(node.id, controller);
        self.judge(judged);
    }

    /// C5: a voter says something to another.
    pub fn sent(&self, node: &Node, message: &Message) {
        let judged = self.quorum.borrow_mut().sent(node.id, message);
        self.judge(judged);
    }

    /// C4, C9, C10, R3, R4, R16: a voter says what is committed.
    pub fn committed(&self, node: &Node, image: &Arc<MetadataImage>) {
        let judged = self.quorum.borrow_mut().published(node.id, image);
        self.judge(judged);
        let before = Arc::clone(&self.newest.borrow());
        if image.version() > before.version() {
            *self.newest.borrow_mut() = Arc::clone(image);
            several::decided(self, &before, image);
        }
    }

    /// A replica publishes.
    pub fn published(&self, node: &Node, slot: &Slot, snapshot: &ReplicaSnapshot) {
        let before = slot.handle.shared().last_published();
        several::published(self, node, slot, snapshot, before.as_deref());
    }

    /// A leader acknowledges a batch.
    pub fn acknowledged(
        &self,
        node: &Node,
        partition: TopicPartition,
        content: u64,
        acks: RequiredAcks,
        appended: &Appended,
        published: Option<&ReplicaSnapshot>,
    ) {
        several::acknowledged(self, node, partition, content, acks, appended, published);
    }

    /// A process has ended. Whoever ran it tells the controllers, unless it went with its machine.
    pub fn died(self: &Rc<Self>, node: &Node, process: &Process, crash: Crash) {
        let Some(broker_epoch) = process.told_outer.get().filter(|_| crash == Crash::Kill) else { return };
        if self.sim.chance(1, 6) {
            cover!("death that nobody tells of");
            return;
        }
        let (cluster, node_id) = (Rc::clone(self), node.id);
        self.sim.executor.detach(OUTSIDE, async move {
            cluster.sim.pause(500, 20_000).await;
            let begun = cluster.sim.now();
            while cluster.sim.now() < begun + GIVE_UP && !cluster.tell(Death { node_id, broker_epoch }).await {
                cluster.sim.executor.sleep(TELL_AGAIN).await;
            }
        });
    }

    /// Tells all other voters of a death; whether a controller in office has taken it.
    async fn tell(self: &Rc<Self>, death: Death) -> bool {
        let Death { node_id, broker_epoch } = death;
        let others = self.ids().into_iter().filter(|id| *id != node_id);
        let told = others.map(|to| async move {
            let death = Death { node_id, broker_epoch };
            let called = call(self, (node_id, to), Lane::Supervisor, &death, Bytes::new()).await;
            let taken = |result| matches!(result, HeartbeatResult::Heard { .. } | HeartbeatResult::Refused(_));
            called.is_ok_and(|(HeartbeatAnswer { result }, _)| taken(result))
        });
        let taken = futures_util::future::join_all(told).await.contains(&true);
        if taken {
            cover!("death told to the controller");
        }
        taken
    }

    /// When everything works again.
    pub fn heal(&self) {
        self.sim.heal();
        self.network.mend_all();
        for node in self.nodes() {
            node.sim.heal();
            for process in [&node.process, &node.closing].into_iter().filter_map(|life| life.borrow().clone()) {
                self.sim.executor.thaw(process.scope);
            }
            if !node.is_up() {
                node.restart_later();
            }
        }
    }

    /// Runs until `done`; false if the run is over for another reason.
    pub fn run_until(&self, most_polls: u64, mut done: impl FnMut() -> bool) -> bool {
        loop {
            if self.sim.violation().is_some() {
                return false;
            }
            if done() {
                return true;
            }
            if self.sim.executor.polls() > most_polls {
                self.sim.violate("L3", "the run spins");
                return false;
            }
            if !self.sim.executor.step() {
                self.sim.violate("L3", "nothing is left to run");
                return false;
            }
        }
    }

    /// Whether each partition has a leader and all of its replicas in sync, and each broker serves.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let image = self.newest.borrow();
        let mut partitions = image.topics().flat_map(|topic| topic.partitions.values());
        let whole = partitions.all(|state| {
            state.in_sync_replicas.len() == state.assigned_replicas.len()
                && state.in_sync_replicas.contains(&state.leader)
        });
        whole
            && self.nodes().iter().all(|node| {
                let registered = image.broker(node.id).filter(|broker| !broker.fenced);
                let epoch = node.serving().map(|process| process.broker_epoch.get());
                registered.is_some() && registered.map(|broker| broker.broker_epoch) == epoch
            })
    }

    /// Batches that were acknowledged.
    #[must_use]
    pub fn acked(&self) -> usize {
        self.sim.history.borrow().partitions.values().map(|known| known.acked.len()).sum()
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.sim.now()
    }
}
