//! The links between the nodes of a cluster: directed, in order within a lane, late by chance, cut one way or both, reset, clogged.
//! Invariant: a call ends with its answer, or as lost with unknown fate; only a link that is known to be down says that nothing was done.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use madang_actors::clock::Mono;
use madang_protocol::node::{self, LEVELS, NodeMessage, NodeRequest};
use madang_protocol::types::NodeId;

use crate::cluster::Cluster;
use crate::node::peers;
use crate::sim::{OUTSIDE, Sim};

/// What is on its way apart from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Raft, heartbeats, proposals, confirmed ends.
    Control,
    /// Snapshots of the metadata.
    Snapshot,
    /// Replication.
    Data,
    /// What whoever runs a node's process has to tell.
    Supervisor,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailed {
    /// Nothing of it has left, or the peer has not looked into it.
    NotDone,
    /// It may have arrived.
    Lost,
}

/// A message as it travels.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// What it is.
    pub tag: u16,
    /// Its fields.
    pub head: Bytes,
    /// What belongs to it.
    pub payload: Bytes,
}

/// What a sweep makes of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does not arrive.
    Lost,
    /// It arrives, and its answer does not.
    Unanswered,
    /// It arrives when another node has become leader of something.
    Late,
    /// It arrives, and once more when its answer is there.
    Twice,
    /// It arrives after the message of that number, which was sent later.
    After(u64),
}

/// How long what is late for another's sake waits at most.
const LATEST: Duration = Duration::from_secs(10);

/// How long silence lasts before a connection counts as lost, as the node's settings have it.
const SILENCE: Duration = Duration::from_secs(2);

/// One direction between two nodes.
#[derive(Debug, Default)]
struct Direction {
    cut: bool,
    /// Number of the connection; what was sent on an older one does not arrive.
    connection: u64,
    clogged_until: Mono,
    arrivals: BTreeMap<Lane, Mono>,
}

/// All links.
#[derive(Debug, Default)]
pub struct Network {
    directions: RefCell<BTreeMap<(NodeId, NodeId), Direction>>,
    sweep: Sweep,
}

/// The messages by number, and what is planned for one of them.
#[derive(Debug, Default)]
struct Sweep {
    next: Cell<Option<u64>>,
    plan: Cell<Option<(u64, Fate)>>,
    struck: Cell<bool>,
    arrived: RefCell<BTreeSet<u64>>,
}

impl Sweep {
    fn number(&self) -> Option<u64> {
        let number = self.next.get()?;
        self.next.set(Some(number + 1));
        Some(number)
    }

    fn fate(&self, number: Option<u64>) -> Option<Fate> {
        let (_, fate) = self.plan.get().filter(|(planned, _)| Some(*planned) == number)?;
        self.struck.set(true);
        Some(fate)
    }
}

impl Network {
    fn with<T>(&self, from: NodeId, to: NodeId, look: impl FnOnce(&mut Direction) -> T) -> T {
        look(self.directions.borrow_mut().entry((from, to)).or_default())
    }

    /// Nothing gets from one node to the other any more.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.with(from, to, |direction| direction.cut = true);
    }

    /// Every link works again.
    pub fn mend_all(&self) {
        self.directions.borrow_mut().values_mut().for_each(|direction| direction.cut = false);
    }

    /// The link works again.
    pub fn mend(&self, from: NodeId, to: NodeId) {
        self.with(from, to, |direction| direction.cut = false);
    }

    /// What is on its way on the connection of the two is lost.
    pub fn reset(&self, one: NodeId, other: NodeId) {
        self.with(one, other, |direction| direction.connection += 1);
        self.with(other, one, |direction| direction.connection += 1);
    }

    /// What is sent until then arrives after it.
    pub fn clog(&self, from: NodeId, to: NodeId, until: Mono) {
        self.with(from, to, |direction| direction.clogged_until = direction.clogged_until.max(until));
    }

    /// Messages are counted from here on, beginning with 0.
    pub fn number_from_now(&self) {
        self.sweep.next.set(Some(0));
    }

    /// How many messages have been sent since they are counted.
    #[must_use]
    pub fn numbered(&self) -> u64 {
        self.sweep.next.get().unwrap_or(0)
    }

    /// What becomes of the message of that number.
    pub fn plan(&self, number: u64, fate: Fate) {
        self.sweep.plan.set(Some((number, fate)));
    }

    /// Whether what was planned has happened.
    #[must_use]
    pub fn has_struck(&self) -> bool {
        self.sweep.struck.get()
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.with(from, to, |direction| direction.cut)
    }

    fn connection(&self, from: NodeId, to: NodeId) -> u64 {
        self.with(from, to, |direction| direction.connection)
    }

    /// When something that is sent now arrives.
    fn arrival(&self, sim: &Sim, from: NodeId, to: NodeId, lane: Lane) -> Mono {
        let delay = exponential(sim.random(), sim.swarm.links.mean_us) + sim.swarm.links.min_us;
        let sent = sim.now() + Duration::from_micros(delay);
        self.with(from, to, |direction| {
            let after = direction.arrivals.entry(lane).or_insert(Mono::ZERO);
            *after = sent.max(*after).max(direction.clogged_until);
            *after
        })
    }
}

/// A number with an exponential distribution of that mean, from 64 random bits.
fn exponential(bits: u64, mean: u64) -> u64 {
    // -log2 of a number between 0 and 1, to one part in 64: its leading zeros, and what follows the first one.
    let zeros = u64::from(bits.leading_zeros());
    let rest = bits.checked_shl(bits.leading_zeros() + 1).unwrap_or(0) >> 58;
    mean * (zeros * 64 + 63 - rest) * 693 / 64_000
}

/// Asks `to` in the name of `from`.
///
/// # Errors
/// As [`CallFailed`] says.
pub async fn call<R: NodeRequest>(
    cluster: &Rc<Cluster>,
    (from, to): (NodeId, NodeId),
    lane: Lane,
    request: &R,
    payload: Bytes,
) -> Result<(R::Answer, Bytes), CallFailed> {
    let head = request.write(LEVELS.1).map_err(|_| CallFailed::NotDone)?;
    let frame = Frame { tag: R::TAG.code(), head, payload };
    if cluster.is_down(to) || cluster.network.is_cut(from, to) && cluster.network.is_cut(to, from) {
        cluster.sim.pause(50, 2000).await;
        return Err(CallFailed::NotDone);
    }
    let (done, answered) = oneshot::channel();
    // It travels on, whatever becomes of whoever sent it.
    cluster.sim.executor.detach(OUTSIDE, carry(Rc::clone(cluster), (from, to), lane, frame, done));
    let answer = answered.await.unwrap_or(Err(CallFailed::Lost))?;
    if answer.tag == node::Tag::Rejected.code() {
        cluster.sim.violate("C1", format!("{to} does not serve what {from} asks with tag {}", R::TAG.code()));
        return Err(CallFailed::NotDone);
    }
    match R::Answer::read(LEVELS.1, &answer.head) {
        Ok(message) if answer.tag == R::Answer::TAG.code() => Ok((message, answer.payload)),
        _ => {
            cluster.sim.violate("C1", format!("an answer of {to} to {from} cannot be read"));
            Err(CallFailed::Lost)
        }
    }
}

async fn carry(
    cluster: Rc<Cluster>,
    (from, to): (NodeId, NodeId),
    lane: Lane,
    frame: Frame,
    done: oneshot::Sender<Result<Frame, CallFailed>>,
) {
    let (sim, network) = (&cluster.sim, &cluster.network);
    let connection = network.connection(from, to);
    let number = network.sweep.number();
    let fate = network.sweep.fate(number);
    sim.executor.sleep_until(network.arrival(sim, from, to, lane)).await;
    hold(&cluster, fate).await;
    network.sweep.arrived.borrow_mut().extend(number);
    if network.connection(from, to) != connection {
        drop(done.send(Err(CallFailed::Lost)));
        return;
    }
    let again = (fate == Some(Fate::Twice)).then(|| frame.clone());
    let lost = network.is_cut(from, to) || fate == Some(Fate::Lost);
    let answer = if lost { None } else { served(&cluster, from, to, lane, frame).await };
    let answer = answer.filter(|_| !network.is_cut(to, from) && fate != Some(Fate::Unanswered));
    if let Some(again) = again {
        let cluster = Rc::clone(&cluster);
        sim.executor.detach(OUTSIDE, async move {
            cluster.sim.pause(1000, 100_000).await;
            drop(served(&cluster, from, to, lane, again).await);
        });
    }
    let Some(answer) = answer else {
        // Nobody says so: it is the silence that tells.
        sim.executor.sleep(SILENCE / 2 + Duration::from_micros(sim.below(SILENCE.as_micros() as u64 / 2))).await;
        drop(done.send(Err(CallFailed::Lost)));
        return;
    };
    sim.executor.sleep_until(network.arrival(sim, to, from, lane)).await;
    let whole = network.connection(from, to) == connection && !network.is_cut(to, from);
    drop(done.send(if whole { Ok(answer) } else { Err(CallFailed::Lost) }));
}

/// Waits for what the message is to come after.
async fn hold(cluster: &Rc<Cluster>, fate: Option<Fate>) {
    let (sim, sweep) = (&cluster.sim, &cluster.network.sweep);
    let led = || {
        let image = cluster.newest.borrow();
        let states = image.topics().flat_map(|topic| topic.partitions.values());
        states.map(|state| i64::from(state.leader_epoch.0)).sum::<i64>()
    };
    let (before, limit) = (led(), sim.now() + LATEST);
    let waits = || match fate {
        Some(Fate::Late) => led() == before,
        Some(Fate::After(other)) => !sweep.arrived.borrow().contains(&other),
        _ => false,
    };
    while waits() && sim.now() < limit {
        sim.executor.sleep(Duration::from_millis(1)).await;
    }
}

/// What the process of `to` answers; none if it has none, or it ends before that.
async fn served(cluster: &Rc<Cluster>, from: NodeId, to: NodeId, lane: Lane, frame: Frame) -> Option<Frame> {
    let node = cluster.node(to)?;
    let process = node.process.borrow().clone()?;
    let (answers, answered) = oneshot::channel();
    let scope = process.scope;
    cluster.sim.executor.detach(scope, async move {
        let answer = peers::answer(&node, &process, from, lane, frame).await;
        drop(answers.send(answer));
    });
    answered.await.ok()
}

#[cfg(test)]
mod tests {
    use madang_actors::prng::Prng;

    use super::*;

    #[test]
    fn delays_have_the_mean_that_was_asked_for_and_a_long_tail() {
        let mut rng = Prng::new(7);
        let drawn: Vec<u64> = (0..20_000).map(|_| exponential(rng.next_u64(), 1000)).collect();
        let mean = drawn.iter().sum::<u64>() / drawn.len() as u64;
        assert!((940..1060).contains(&mean), "{mean}");
        assert!(drawn.iter().filter(|delay| **delay > 3000).count() > 500);
        assert_eq!(exponential(0, 1000), 45_034, "no random bits end the run");
    }
}
