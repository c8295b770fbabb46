//! The clients: what they send is known before they send it, what they hear is checked when they hear it.
//! Invariant: a client stops between two operations, never within one.

pub mod admin;
pub mod consumer;
pub mod group;
pub mod producer;

use std::cell::Cell;
use std::rc::Rc;

use madang_protocol::types::TopicPartition;

use crate::node::Node;
use crate::sim::{OUTSIDE, Sim};

/// What all clients share.
pub struct Clients {
    /// The run.
    pub sim: Rc<Sim>,
    /// The node.
    pub node: Rc<Node>,
    stopping: Cell<bool>,
    running: Cell<usize>,
}

impl Clients {
    /// Starts the clients that the seed drew.
    #[must_use]
    pub fn start(sim: &Rc<Sim>, node: &Rc<Node>) -> Rc<Self> {
        let clients = Rc::new(Self {
            sim: Rc::clone(sim),
            node: Rc::clone(node),
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
        for number in 0..swarm.members {
            clients.spawn(group::member(Rc::clone(&clients), number));
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

    /// A partition that clients may write to.
    #[must_use]
    pub fn any_partition(&self) -> TopicPartition {
        let partitions = self.node.partitions.borrow();
        let open: Vec<TopicPartition> =
            partitions.iter().filter(|one| !one.internal).map(|one| one.partition).collect();
        let at = self.sim.below(open.len() as u64) as usize;
        open.get(at).copied().unwrap_or(TopicPartition { topic_id: crate::node::topic_id(1), partition: 0 })
    }
}
