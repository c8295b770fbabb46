//! The clients: what they send is known before they send it, what they hear is checked when they hear it.
//! Invariant: a client stops between two operations, never within one; it knows of the node what the node has told it.

pub mod admin;
pub mod consumer;
pub mod group;
pub mod probe;
pub mod producer;
pub mod topics;
pub mod wire;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use madang_cluster::coordinator::OFFSETS_TOPIC;
use madang_protocol::types::TopicPartition;

use crate::clients::wire::Link;
use crate::cluster::Cluster;
use crate::node::Node;
use crate::sim::{OUTSIDE, Sim};

/// A partition as a client names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Its topic's name.
    pub topic: Rc<str>,
    /// Its id.
    pub partition: TopicPartition,
}

/// What all clients share.
pub struct Clients {
    /// The run.
    pub sim: Rc<Sim>,
    /// The node, the first one of a cluster's.
    pub node: Rc<Node>,
    /// All nodes.
    pub nodes: Vec<Rc<Node>>,
    /// The cluster, if there are several.
    pub cluster: Option<Rc<Cluster>>,
    /// Who leads each partition, by what the last Metadata answer told: places among the nodes.
    pub leaders: RefCell<BTreeMap<TopicPartition, (usize, i32)>>,
    /// The partitions that the last Metadata answer told of; internal ones are not among them.
    pub targets: RefCell<Vec<Target>>,
    stopping: Cell<bool>,
    running: Cell<usize>,
}

impl Clients {
    /// Starts the clients that the seed drew.
    #[must_use]
    pub fn start(sim: &Rc<Sim>, nodes: Vec<Rc<Node>>) -> Rc<Self> {
        let clients = Rc::new(Self {
            sim: Rc::clone(sim),
            node: Rc::clone(&nodes[0]),
            cluster: nodes[0].cluster(),
            nodes,
            leaders: RefCell::default(),
            targets: RefCell::default(),
            stopping: Cell::new(false),
            running: Cell::new(0),
        });
        let swarm = &sim.swarm;
        for _ in 0..swarm.idempotent {
            clients.spawn(producer::idempotent(Rc::clone(&clients)));
        }
        for _ in 0..swarm.plain {
            clients.spawn(producer::plain(Rc::clone(&clients)));
        }
        for _ in 0..swarm.consumers {
            clients.spawn(consumer::run(Rc::clone(&clients)));
        }
        for _ in 0..swarm.members {
            clients.spawn(group::member(Rc::clone(&clients)));
        }
        clients.spawn(admin::run(Rc::clone(&clients)));
        clients
    }

    fn spawn(self: &Rc<Self>, client: impl Future<Output = ()> + 'static) {
        self.running.set(self.running.get() + 1);
        let clients = Rc::clone(self);
        self.sim.executor.detach(OUTSIDE, async move {
            client.await;
            clients.running.set(clients.running.get() - 1);
        });
    }

    /// Asks all of them to end after their current operation.
    pub fn stop(&self) {
        self.stopping.set(true);
    }

    /// Whether they are to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Those that have not ended.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.get()
    }

    /// A partition that clients may write to, once there is one.
    #[must_use]
    pub fn any_target(&self) -> Option<Target> {
        let targets = self.targets.borrow();
        let at = self.sim.below((targets.len() as u64).max(1)) as usize;
        targets.get(at).cloned()
    }

    /// Whether there are several nodes, so that one may be behind another.
    #[must_use]
    pub fn are_of_cluster(&self) -> bool {
        self.nodes.len() > 1
    }

    /// A run of a cluster takes so many times longer than one of a node, and is to write no more.
    #[must_use]
    pub fn ease(&self) -> u64 {
        if self.are_of_cluster() { 8 } else { 1 }
    }

    /// The place of the node of that id.
    #[must_use]
    pub fn place_of(&self, id: i32) -> Option<usize> {
        self.nodes.iter().position(|node| node.id.0 == id)
    }

    /// Where the partition's leader is, as far as the clients know.
    #[must_use]
    pub fn leader_of(&self, partition: TopicPartition) -> Option<usize> {
        self.leaders.borrow().get(&partition).map(|(place, _)| *place)
    }

    /// Who leads the partition in truth, and in which epoch; none on a lone node.
    #[must_use]
    pub fn truly_led(&self, partition: TopicPartition) -> Option<(usize, i32)> {
        let image = self.cluster.as_ref()?.newest.borrow().clone();
        let state = image.partition_by_id(partition)?;
        Some((self.place_of(state.leader.0)?, state.leader_epoch.0))
    }

    /// Who coordinates the group of all members in truth; none on a lone node.
    #[must_use]
    pub fn truly_coordinated(&self) -> Option<(usize, i32)> {
        let image = self.cluster.as_ref()?.newest.borrow().clone();
        let topic = image.topic(OFFSETS_TOPIC)?;
        let index = self.node.process.borrow().as_ref()?.groups.partition(&image, group::GROUP).ok()?;
        self.truly_led(TopicPartition { topic_id: topic.topic_id, partition: index })
    }

    /// The version of the metadata that the node at `place` has applied; the highest there is on a lone node.
    #[must_use]
    pub fn version_at(&self, place: usize) -> u64 {
        if !self.are_of_cluster() {
            return u64::MAX;
        }
        let process = self.nodes.get(place).and_then(|node| node.process.borrow().clone());
        process.map_or(0, |process| process.image.borrow().version())
    }

    /// The newest version that is committed; 0 on a lone node.
    #[must_use]
    pub fn newest_version(&self) -> u64 {
        self.cluster.as_ref().map_or(0, |cluster| cluster.newest.borrow().version())
    }

    /// After something has failed a client of a cluster asks anybody who leads what.
    pub async fn look_around(&self) {
        if self.are_of_cluster() && self.sim.chance(1, 2) {
            let mut link = Link::default();
            link.anywhere(self);
            drop(topics::refresh(self, &mut link).await);
        }
    }

    /// A Produce by id, or by name as older clients do.
    #[must_use]
    pub fn produce_version(&self) -> i16 {
        [13, 13, 12, 9, 7, 3].get(self.sim.below(6) as usize).copied().unwrap_or(13)
    }
}
