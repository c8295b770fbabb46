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
use std::rc::Rc;

use madang_protocol::types::TopicPartition;

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
    /// The node.
    pub node: Rc<Node>,
    /// The partitions that the last Metadata answer told of; internal ones are not among them.
    pub targets: RefCell<Vec<Target>>,
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

    /// A Produce by id, or by name as older clients do.
    #[must_use]
    pub fn produce_version(&self) -> i16 {
        [13, 13, 12, 9, 7, 3].get(self.sim.below(6) as usize).copied().unwrap_or(13)
    }
}
