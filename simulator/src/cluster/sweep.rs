//! One short story of three nodes, told again and again: with a crash at each operation of each disk, and with each message between nodes lost,
//! not answered, late, twice or overtaken by another.
//! Invariant: up to its fault every telling is the same; after it the cluster heals by itself, and nothing is missing.

use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use madang_storage::{Crash, Fault};

use super::network::Fate;
use super::{Cluster, world};
use crate::clients::Clients;
use crate::sim::{Sim, Violation};
use crate::swarm::{FaultClass, Links, Swarm};

/// What the story is told with.
const SEED: u64 = 7;
/// Polls after which a telling counts as spinning.
const MOST_POLLS: u64 = 5_000_000;
/// Virtual time that each part of the story may take.
const LONGEST: Duration = Duration::from_secs(60);
/// Acknowledged batches before the messages count, and again after a leader was killed.
const ENOUGH: usize = 20;
/// Messages between nodes before a leader's process is killed.
const BEFORE: u64 = 100;
/// Messages that are swept.
pub const MESSAGES: u64 = 200;

/// Where the story goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A node ends in the middle of an operation of its disk.
    Disk {
        /// The node's place.
        node: usize,
        /// The operation, from 0.
        operation: u64,
        /// How.
        crash: Crash,
    },
    /// A message between nodes.
    Message {
        /// Its number, from 0.
        number: u64,
        /// What becomes of it.
        fate: Fate,
    },
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { node, operation, crash: Crash::Power } => write!(f, "power:{node}:{operation}"),
            Self::Disk { node, operation, crash: Crash::Kill } => write!(f, "kill:{node}:{operation}"),
            Self::Message { number, fate: Fate::Lost } => write!(f, "lost:{number}"),
            Self::Message { number, fate: Fate::Unanswered } => write!(f, "unanswered:{number}"),
            Self::Message { number, fate: Fate::Late } => write!(f, "late:{number}"),
            Self::Message { number, fate: Fate::Twice } => write!(f, "twice:{number}"),
            Self::Message { number, fate: Fate::After(other) } => write!(f, "after:{number}:{other}"),
        }
    }
}

impl FromStr for Point {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(':');
        let what = parts.next().unwrap_or_default();
        let mut numbers = Vec::new();
        for part in parts {
            numbers.push(part.parse::<u64>().map_err(|_| "a point has numbers")?);
        }
        let disk = |node: u64, operation, crash| Self::Disk { node: node as usize, operation, crash };
        let message = |number, fate| Self::Message { number, fate };
        match (what, numbers.as_slice()) {
            ("power", [node, operation]) => Ok(disk(*node, *operation, Crash::Power)),
            ("kill", [node, operation]) => Ok(disk(*node, *operation, Crash::Kill)),
            ("lost", [number]) => Ok(message(*number, Fate::Lost)),
            ("unanswered", [number]) => Ok(message(*number, Fate::Unanswered)),
            ("late", [number]) => Ok(message(*number, Fate::Late)),
            ("twice", [number]) => Ok(message(*number, Fate::Twice)),
            ("after", [number, other]) => Ok(message(*number, Fate::After(*other))),
            _ => Err(
                "power:NODE:OPERATION, kill:NODE:OPERATION, lost|unanswered|late|twice:MESSAGE, after:MESSAGE:OTHER",
            ),
        }
    }
}

/// What a telling came to.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// The broken invariant.
    pub violation: Option<Violation>,
    /// Operations of each disk before healing.
    pub operations: Vec<u64>,
    /// Acknowledged batches.
    pub acked: usize,
    /// Whether the point was reached.
    pub struck: bool,
}

/// Tells the story, with a planted bug or without.
#[must_use]
pub fn tell(point: Option<Point>, mutant: Option<u32>) -> Told {
    let sim = Sim::drawn(SEED, |rng| Swarm {
        page_cache: false,
        classes: Vec::new(),
        segment_bytes: 3000,
        sync_us: 300,
        network_us: 500,
        idempotent: 1,
        plain: 1,
        consumers: 1,
        members: 1,
        offsets_partitions: 1,
        value_bytes: 60,
        links: Links { lag_ms: 2000, session_ms: 1500, ..Links::default() },
        ..Swarm::of_cluster(3, rng)
    });
    let mut told = Told::default();
    let verdict = world::run_with(&sim, mutant, |cluster| Telling { cluster, point }.run(&mut told));
    Told { violation: verdict.violation, acked: verdict.acked, ..told }
}

struct Telling<'a> {
    cluster: &'a Rc<Cluster>,
    point: Option<Point>,
}

impl Telling<'_> {
    fn run(&self, told: &mut Told) {
        let (sim, network) = (&self.cluster.sim, &self.cluster.network);
        self.cluster.nodes().iter().for_each(|node| node.start());
        let clients = Clients::start(sim, self.cluster.nodes());
        self.plan();
        let ready = || self.cluster.acked() >= ENOUGH && self.cluster.is_whole();
        if !self.until(told, ready) {
            return;
        }
        network.number_from_now();
        if !self.until(told, || network.numbered() >= BEFORE) {
            return;
        }
        let leads = clients.any_target().and_then(|target| clients.truly_led(target.partition));
        if let Some(node) = leads.and_then(|(place, _)| self.cluster.nodes().get(place).cloned()) {
            node.die(Crash::Kill);
            sim.fault(FaultClass::Kill);
            node.restart_later();
        }
        let before = self.cluster.acked();
        let ready = || network.numbered() >= MESSAGES && self.cluster.acked() >= before + ENOUGH;
        if !self.until(told, ready) {
            return;
        }
        told.operations = self.cluster.nodes().iter().map(|node| node.sim.disk.operations()).collect();
        told.struck |= network.has_struck();
        world::settle(self.cluster, &clients);
    }

    fn plan(&self) {
        match self.point {
            Some(Point::Disk { node, operation, .. }) => {
                if let Some(node) = self.cluster.nodes().get(node) {
                    node.sim.disk.plan(operation, Fault::Crash);
                }
            }
            Some(Point::Message { number, fate }) => self.cluster.network.plan(number, fate),
            None => {}
        }
    }

    /// Goes on until `done`, and sees to it that the process of a crashed disk ends with it.
    fn until(&self, told: &mut Told, mut done: impl FnMut() -> bool) -> bool {
        let limit = self.cluster.now() + LONGEST;
        let over = self.cluster.run_until(MOST_POLLS, || {
            told.struck |= self.strike();
            done() || self.cluster.now() > limit
        });
        over && self.cluster.sim.require(self.cluster.now() <= limit, "L1", || {
            format!("not whole, or nothing acknowledged: {}", self.cluster.acked())
        })
    }

    fn strike(&self) -> bool {
        let Some(Point::Disk { node, operation, crash }) = self.point else { return false };
        let nodes = self.cluster.nodes();
        let Some(node) = nodes.get(node) else { return false };
        let crashed = node.sim.disk.is_crashed();
        if crashed {
            node.die(crash);
            self.cluster.sim.fault(if crash == Crash::Power { FaultClass::PowerCut } else { FaultClass::Kill });
            node.restart_later();
        } else if !node.is_up() && node.sim.disk.operations() <= operation {
            // What ends a process ends what was planned for its disk.
            node.sim.disk.plan(operation, Fault::Crash);
        }
        crashed
    }
}

/// All points of the story: every `stride`-th operation of each disk, each message with each fate, and each pair of messages up to `distance` apart.
#[must_use]
pub fn points(operations: &[u64], stride: u64, distance: u64) -> Vec<Point> {
    let mut points = Vec::new();
    for crash in [Crash::Power, Crash::Kill] {
        for (node, operations) in operations.iter().enumerate() {
            let every = (0..*operations).step_by(usize::try_from(stride.max(1)).unwrap_or(1));
            points.extend(every.map(|operation| Point::Disk { node, operation, crash }));
        }
    }
    for fate in [Fate::Lost, Fate::Unanswered, Fate::Late, Fate::Twice] {
        points.extend((0..MESSAGES).map(|number| Point::Message { number, fate }));
    }
    for number in 0..MESSAGES {
        let others = number + 1..(number + 1 + distance).min(MESSAGES);
        points.extend(others.map(|other| Point::Message { number, fate: Fate::After(other) }));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_as_it_is_written() {
        for point in points(&[3, 2, 1], 2, 2) {
            assert_eq!(point.to_string().parse(), Ok(point));
        }
        assert!("late".parse::<Point>().is_err() && "power:1:x".parse::<Point>().is_err());
    }

    #[test]
    fn every_operation_message_and_pair_is_a_point() {
        let all = points(&[10, 10, 10], 1, MESSAGES);
        let pairs = MESSAGES * (MESSAGES - 1) / 2;
        assert_eq!(all.len() as u64, 2 * 30 + 4 * MESSAGES + pairs);
    }
}
