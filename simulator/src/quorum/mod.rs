//! The metadata quorum in one seeded thread: 1, 3 or 5 voters with their disks, the links between them, brokers that register and beat, clients
//! that propose; nodes that join, vote and go, where there are more than the first voters; and the faults of all of these.
//! Invariant: everything that happens is drawn from the seed, so the same seed gives the same digest.

pub(crate) mod checks;
mod faults;
mod growing;
pub mod planted;
mod voter;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use madang_actors::clock::{Mono, Wall};
use madang_actors::prng::Prng;
use madang_cluster::controller::{ControllerInput, SyncTicket};
use madang_protocol::types::NodeId;
use madang_storage::{DiskFile, mutants};
use raft::eraftpb::Message;

use self::checks::Checks;
use self::voter::Voter;
use self::work::Work;
use crate::sim::Violation;

/// How long faults go on.
const STORMY: Duration = Duration::from_secs(40);
/// How long everything may take to come back after the last fault.
const CALM: Duration = Duration::from_secs(20);
/// So many seeds have to bring a snapshot to a voter that is behind.
pub const SEEDS_FOR_A_SNAPSHOT: usize = 100;
/// Kinds of faults that every seed has to bring with more than one voter.
pub const FAULT_CLASSES: usize = 6;

/// How a seed ended.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// Events that happened.
    pub events: u64,
    /// Of everything that happened.
    pub digest: u64,
    /// How often each kind of fault struck.
    pub faults: BTreeMap<&'static str, u64>,
    /// Proposals that were acknowledged.
    pub acknowledged: u64,
    /// Terms in which somebody led.
    pub terms: u64,
    /// Snapshots that were sent to a voter.
    pub snapshots: u64,
    /// The first broken invariant.
    pub violation: Option<Violation>,
}

/// Something that is going to happen.
#[derive(Debug)]
enum Event {
    /// A voter's deadline, as it was when this was planned.
    Tick { voter: usize, life: u64 },
    /// A voter is given something.
    Input { voter: usize, life: u64, input: ControllerInput },
    /// A message arrives.
    Deliver { to: usize, message: Box<Message> },
    /// The sender of a message learns what became of it.
    Fate { of: usize, life: u64, to: NodeId, is_snapshot: bool, delivered: bool },
    /// A sync ends.
    Synced { voter: usize, life: u64, ticket: SyncTicket, file: Arc<dyn DiskFile> },
    /// A process starts.
    Start { voter: usize },
    /// A client proposes something.
    Propose,
    /// A node looks whether it is counted among the members.
    Join { node: usize },
    /// Somebody changes who votes.
    Change,
    /// A broker beats.
    Beat { broker: usize },
    /// A fault strikes.
    Fault,
    /// A cut link works again.
    Mend { from: usize, to: usize },
    /// A frozen process goes on.
    Thaw { voter: usize, life: u64 },
}

/// What a seed is like.
#[derive(Clone, Copy, Debug)]
struct Swarm {
    /// Messages lost, in a thousand.
    loss: u64,
    /// Messages that arrive twice, in a thousand.
    twice: u64,
    /// Longest way of a message, in microseconds.
    delay: u64,
    /// Longest sync, in microseconds.
    sync: u64,
    /// Longest time between two faults, in microseconds.
    calm: u64,
    /// Longest time between two proposals, in microseconds.
    pace: u64,
}

impl Swarm {
    fn draw(rng: &mut Prng) -> Self {
        let one = |rng: &mut Prng, of: &[u64]| rng.pick(of).copied().unwrap_or_default();
        let (delay, pace) = (one(rng, &[500, 2_000, 20_000, 150_000]), one(rng, &[3_000, 20_000, 60_000]));
        Self {
            loss: one(rng, &[0, 0, 5, 50, 200]),
            twice: one(rng, &[0, 5, 50]),
            delay,
            sync: one(rng, &[200, 5_000, 30_000]),
            calm: one(rng, &[300_000, 1_000_000, 2_500_000]),
            // No more than such links carry: what waits for its turn is not lost.
            pace: pace.max(delay / 4),
        }
    }
}

struct World {
    now: Mono,
    next: u64,
    events: BTreeMap<(Mono, u64), Event>,
    happened: u64,
    rng: Prng,
    swarm: Swarm,
    voters: Vec<Voter>,
    /// Links that carry nothing, by sender and receiver.
    cut: BTreeSet<(usize, usize)>,
    work: Work,
    checks: Checks,
    faults: BTreeMap<&'static str, u64>,
    snapshots: u64,
    digest: u64,
    stormy: bool,
    /// Whether who votes changes.
    growing: bool,
}

/// The voter of that place.
fn node(place: usize) -> NodeId {
    NodeId(i32::try_from(place).unwrap_or_default() + 1)
}

/// The place of that voter.
fn place(node: NodeId) -> usize {
    usize::try_from(node.0 - 1).unwrap_or_default()
}

/// Runs a seed with so many nodes, the first of which are the first voters. Where there are more of them, who votes changes all the time.
#[must_use]
pub fn run((first, nodes): (usize, usize), seed: u64, mutant: Option<u32>) -> Verdict {
    mutants::activate(mutant);
    let mut world = World::new(first, nodes, seed);
    // Raft panics where it is told what cannot be.
    let violation = catch_unwind(AssertUnwindSafe(|| world.run().err()))
        .unwrap_or_else(|_| Some(Violation { code: "U2", what: "a voter has panicked".into() }));
    mutants::activate(None);
    let World { happened, digest, faults, work, checks, snapshots, .. } = world;
    let (acknowledged, terms) = (work.acknowledged(), checks.terms());
    Verdict { seed, events: happened, digest, faults, acknowledged, terms, snapshots, violation }
}

impl World {
    fn new(first: usize, nodes: usize, seed: u64) -> Self {
        let mut rng = Prng::new(seed);
        let swarm = Swarm::draw(&mut rng);
        let first: Vec<NodeId> = (0..first).map(node).collect();
        let voters = (0..nodes).map(|place| Voter::new(node(place), &first, rng.fork())).collect();
        let mut world = Self {
            now: Mono::ZERO,
            next: 0,
            events: BTreeMap::new(),
            happened: 0,
            swarm,
            voters,
            cut: BTreeSet::new(),
            work: Work::new(nodes),
            checks: Checks::default(),
            faults: BTreeMap::new(),
            snapshots: 0,
            digest: seed,
            stormy: true,
            growing: nodes > first.len(),
            rng,
        };
        for voter in 0..nodes {
            world.after(1000, Event::Start { voter });
            world.after(500_000, Event::Beat { broker: voter });
            if world.growing {
                world.after(500_000, Event::Join { node: voter });
            }
        }
        if world.growing {
            world.after(3_000_000, Event::Change);
        }
        world.after(100_000, Event::Propose);
        world.after(2_000_000, Event::Fault);
        world
    }

    /// Plans an event at a drawn moment within so many microseconds.
    fn after(&mut self, within: u64, event: Event) {
        let micros = 1 + self.rng.below(within);
        self.at(self.now + Duration::from_micros(micros), event);
    }

    fn at(&mut self, when: Mono, event: Event) {
        self.next += 1;
        self.events.insert((when.max(self.now), self.next), event);
    }

    fn run(&mut self) -> Result<(), Violation> {
        let (storm, mut end) = (Mono::ZERO + STORMY, None);
        while let Some(((when, _), event)) = self.events.pop_first() {
            // A seed whose dice have left faults out goes on for a while.
            let enough = self.faults.len() >= FAULT_CLASSES || when >= storm + STORMY;
            if self.stormy && when >= storm && enough {
                self.heal();
                end = Some(when + CALM);
            }
            if end.is_some_and(|end| when >= end) {
                break;
            }
            self.now = when;
            self.happened += 1;
            self.happen(event)?;
        }
        self.settled()
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        self.note(&event);
        match event {
            Event::Tick { voter, life } => self.step_alive(voter, life, ControllerInput::Tick),
            Event::Input { voter, life, input } => self.step_alive(voter, life, input),
            Event::Deliver { to, message } => match self.voters[to].life_now() {
                Some(life) => self.step_alive(to, life, ControllerInput::Message(message)),
                None => Ok(()),
            },
            Event::Fate { of, life, to, is_snapshot, delivered } => {
                let input = match is_snapshot {
                    true => ControllerInput::SnapshotSent { to, delivered },
                    false => ControllerInput::Unreachable(to),
                };
                self.step_alive(of, life, input)
            }
            Event::Synced { voter, life, ticket, file } => self.synced(voter, life, ticket, &file),
            Event::Start { voter } => self.start(voter),
            Event::Propose => self.propose(),
            Event::Beat { broker } => self.beat(broker),
            Event::Join { node } => self.join(node),
            Event::Change => self.change(),
            Event::Fault => self.fault(),
            Event::Mend { from, to } => {
                self.cut.remove(&(from, to));
                Ok(())
            }
            Event::Thaw { voter, life } => {
                let held = self.voters[voter].thaw(life);
                for event in held {
                    self.after(1000, event);
                }
                Ok(())
            }
        }
    }

    /// Folds what happens into the digest.
    fn note(&mut self, event: &Event) {
        let kind = match event {
            Event::Tick { voter, .. } => *voter as u64,
            Event::Input { voter, .. } => 12 + *voter as u64,
            Event::Deliver { to, message } => 16 + *to as u64 + message.term * 64 + message.index * 1024,
            Event::Fate { of, delivered, .. } => 32 + *of as u64 + 8 * u64::from(*delivered),
            Event::Synced { voter, ticket, .. } => 48 + *voter as u64 + ticket.0 * 64,
            Event::Start { voter } => 5 + *voter as u64,
            Event::Propose => 1 << 20,
            Event::Beat { broker } => (1 << 21) + *broker as u64,
            Event::Fault => 1 << 22,
            Event::Mend { from, to } => (1 << 23) + (*from * 8 + *to) as u64,
            Event::Thaw { voter, .. } => (1 << 24) + *voter as u64,
            Event::Join { node } => (1 << 25) + *node as u64,
            Event::Change => 1 << 26,
        };
        let micros = self.now.since_start().as_micros() as u64;
        for part in [kind, micros] {
            self.digest = (self.digest ^ part).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
        }
    }

    /// A step of a life that is still going on; one that is frozen has it when it goes on.
    fn step_alive(&mut self, voter: usize, life: u64, input: ControllerInput) -> Result<(), Violation> {
        let alive = self.voters[voter].life_now() == Some(life);
        if alive && let Some(held) = self.voters[voter].hold(life, input) { self.step(voter, held) } else { Ok(()) }
    }

    fn step(&mut self, voter: usize, input: ControllerInput) -> Result<(), Violation> {
        let effects = self.voters[voter].step(self.now, Wall(0), input);
        for effect in effects {
            self.perform(voter, effect)?;
        }
        if let Some(controller) = &self.voters[voter].controller {
            self.checks.stepped(self.voters[voter].node_id, controller)?;
        }
        self.rearm(voter);
        Ok(())
    }

    fn rearm(&mut self, voter: usize) {
        if let Some((life, deadline)) = self.voters[voter].deadline_to_arm() {
            self.at(deadline, Event::Tick { voter, life });
        }
    }
}
