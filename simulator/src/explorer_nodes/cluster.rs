//! The explored cluster: what may happen next, and what happens then.
//! Invariant: after every event all invariants of `invariants::cluster` are checked.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use madang_actors::clock::{Mono, Wall};
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_cluster::replica::replication::{Assignment, Confirmed, IsrProposal, ReplicationEffect, ReplicationInput};
use madang_cluster::replica::{Append, ReplicaEffect, ReplicaInput, RequiredAcks};
use madang_cluster::request::RequestId;
use madang_protocol::record_batch::{ProduceRules, validate_produced};
use madang_protocol::types::NodeId;
use madang_storage::Checkpoint;

use super::controller::{AlterPartitionAsked, Controller, InFlight, Place};
use super::node::Node;
use super::{MIN_IN_SYNC, NODES, RECORDS, Setup, broken, record};
use crate::history::content;
use crate::invariants::cluster::{self, Truth};
use crate::sim::Violation;

/// Added to the request number of an append whose acknowledgement promises nothing.
const NOT_ALL: u64 = 1 << 16;

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client's next record reaches the node, and is written.
    Append(i32),
    /// The device takes the node's next sync, and the completion is delivered.
    Sync(i32),
    /// The node's fetch reaches its leader.
    Fetch(i32),
    /// The answer to the node's fetch arrives.
    Answer(i32),
    /// The connection that the node's fetch was sent on ends, and the node has something else to ask for.
    Reset(i32),
    /// The node's word of its durable end reaches its leader.
    Confirm(i32),
    /// What a life of the node that is over had sent reaches its leader.
    Old(i32),
    /// The node's recovery point is lowered, and its log may be cut.
    Lower(i32),
    /// The node learns of the newest metadata.
    Apply(i32),
    /// The proposal at that place reaches the controller.
    Propose(usize),
    /// The answer to the proposal at that place arrives.
    Outcome(usize),
    /// The leader hears nothing of the proposal at that place, which stays on its way.
    Forget(usize),
    /// The first node's lane to the second has been silent for a session.
    Silent(i32, i32),
    /// The controller fences the node.
    Fence(i32),
    /// The controller hears of the node again.
    Unfence(i32),
    /// The node's replica panics and is rebuilt in its process.
    Panic(i32),
    /// As `Panic`, and the last record, which no sync had confirmed, is gone.
    Lose(i32),
    /// The node's word of its loss reaches the controller.
    Report(i32),
    /// The node's process is killed.
    Kill(i32),
    /// The node's power goes, and with it all that was not synced.
    Power(i32),
    /// The node starts and registers.
    Start(i32),
    /// A second passes.
    Wait,
}

impl Event {
    /// Whether it is a fault, of which a path has only so many.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Forget(_)
                | Self::Silent(..)
                | Self::Fence(_)
                | Self::Panic(_)
                | Self::Lose(_)
                | Self::Kill(_)
                | Self::Power(_)
        )
    }
}

/// A cluster in one state.
pub struct Cluster {
    pub(super) setup: Setup,
    pub(super) nodes: Vec<Node>,
    pub(super) controller: Controller,
    pub(super) truth: Truth,
    pub(super) now: Mono,
    sent: u8,
    waits: u8,
    pub(super) faults: usize,
    rng: Prng,
}

impl Cluster {
    /// Three registered nodes, the first of which leads; everybody knows.
    ///
    /// # Errors
    /// An invariant that does not even hold there.
    pub fn new(setup: Setup) -> Result<Self, Violation> {
        let contents: BTreeMap<u64, u8> = (0..RECORDS).map(|number| (content(&record(number)), number)).collect();
        let mut cluster = Self {
            setup,
            nodes: (1..=NODES).map(|id| Node::new(NodeId(id))).collect(),
            controller: Controller::new(),
            truth: Truth::new(contents, setup.durability),
            now: Mono::ZERO,
            sent: 0,
            waits: 0,
            faults: 0,
            rng: Prng::new(1),
        };
        for id in 1..=NODES {
            cluster.start(id)?;
        }
        cluster.controller.create_topic()?;
        for id in 1..=NODES {
            cluster.apply_metadata(id)?;
        }
        Ok(cluster)
    }

    /// The situation is reached: from here on `faults` faults may happen, and time has not passed.
    pub const fn begin(&mut self, faults: usize) {
        (self.setup.faults, self.faults, self.waits) = (faults, 0, 0);
    }

    pub(super) fn node(&self, id: i32) -> Option<&Node> {
        self.nodes.get(usize::try_from(id - 1).ok()?)
    }

    pub(super) fn node_mut(&mut self, id: i32) -> Result<&mut Node, Violation> {
        let place = usize::try_from(id - 1).unwrap_or(usize::MAX);
        self.nodes.get_mut(place).ok_or_else(|| broken("EVENT", format!("there is no node {id}")))
    }

    /// What may happen now.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for node in &self.nodes {
            self.deliveries(node, &mut events);
        }
        for (at, flight) in self.controller.in_flight.iter().enumerate() {
            match flight.place {
                Place::Asked(_) => events.push(Event::Propose(at)),
                Place::Answered(_) => events.push(Event::Outcome(at)),
            }
        }
        if self.waits < 1 && self.nodes.iter().any(|node| self.waits_for_time(node)) {
            events.push(Event::Wait);
        }
        if self.faults < self.setup.faults {
            self.faults_now(&mut events);
        }
        events
    }

    fn waits_for_time(&self, node: &Node) -> bool {
        let soon = self.now + Duration::from_secs(1);
        let deadline = node.replica.as_ref().and_then(Machine::deadline);
        node.leads().is_some() && deadline.is_some_and(|deadline| deadline <= soon)
    }

    fn deliveries(&self, node: &Node, events: &mut Vec<Event>) {
        let id = node.id.0;
        let serves = |leader: NodeId| self.node(leader.0).is_some_and(|leader| leader.replica.is_some());
        if node.leads().is_some() && self.sent < RECORDS {
            events.push(Event::Append(id));
        }
        if !node.syncs.is_empty() {
            events.push(Event::Sync(id));
        }
        match &node.fetch {
            Some(asked) if serves(asked.leader) => events.push(Event::Fetch(id)),
            Some(asked) if node.wanted != Some(asked.fetch.position) => events.push(Event::Reset(id)),
            _ => {}
        }
        if node.lowering.is_some() {
            events.push(Event::Lower(id));
        }
        if node.answer.is_some() {
            events.push(Event::Answer(id));
        }
        if node.confirm.is_some_and(|(leader, _)| serves(leader)) {
            events.push(Event::Confirm(id));
        }
        if node.old_fetch.is_some_and(|fetch| serves(fetch.position.leader))
            || node.old_confirm.is_some_and(|(leader, _)| serves(leader))
        {
            events.push(Event::Old(id));
        }
        if node.up && node.applied + 1 < self.controller.log.len() {
            events.push(Event::Apply(id));
        }
        if node.loss.is_some() {
            events.push(Event::Report(id));
        }
        let fenced = self.controller.image().broker(node.id).is_some_and(|broker| broker.fenced);
        if node.up && fenced {
            events.push(Event::Unfence(id));
        }
        if !node.up {
            events.push(Event::Start(id));
        }
    }

    /// Lets `event` happen, and checks everything after it.
    ///
    /// # Errors
    /// The invariant that it breaks.
    pub fn apply(&mut self, event: Event) -> Result<(), Violation> {
        self.faults += usize::from(event.is_fault());
        match event {
            Event::Append(id) => self.append(id)?,
            Event::Sync(id) => {
                if let Some(request) = self.node_mut(id)?.syncs.pop_front() {
                    let outcome = request.perform();
                    self.step(id, ReplicaInput::Synced(outcome))?;
                }
            }
            Event::Fetch(id) => self.fetch(id)?,
            Event::Answer(id) => self.answer(id)?,
            Event::Reset(id) => self.reset(id)?,
            Event::Confirm(id) => {
                if let Some((leader, confirmed)) = self.node_mut(id)?.confirm.take() {
                    self.replicate(leader.0, ReplicationInput::Confirmed(confirmed))?;
                }
            }
            Event::Old(id) => self.old(id)?,
            Event::Lower(id) => self.lower(id)?,
            Event::Apply(id) => self.apply_metadata(id)?,
            Event::Propose(at) => self.controller.deliver(at)?,
            Event::Outcome(at) => self.outcome(at)?,
            Event::Wait => {
                self.waits += 1;
                self.now = self.now + Duration::from_secs(1);
                for id in 1..=NODES {
                    self.step(id, ReplicaInput::Tick)?;
                }
            }
            fault => self.fault(fault)?,
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), Violation> {
        let views: Vec<_> = self.nodes.iter().map(Node::view).collect();
        cluster::check(&mut self.truth, &views, self.controller.state().map(AsRef::as_ref), self.controller.image())
    }

    pub(super) fn step(&mut self, id: i32, input: ReplicaInput) -> Result<(), Violation> {
        let mut effects = Vec::new();
        let (now, mut rng) = (self.now, self.rng.clone());
        if let Some(replica) = &mut self.node_mut(id)?.replica {
            replica.step(now, Wall(0), input, &mut rng, &mut effects);
            replica.check();
        }
        effects.into_iter().try_for_each(|effect| self.perform(id, effect))
    }

    pub(super) fn replicate(&mut self, id: i32, input: ReplicationInput) -> Result<(), Violation> {
        self.step(id, ReplicaInput::Replication(input))
    }

    fn perform(&mut self, id: i32, effect: ReplicaEffect) -> Result<(), Violation> {
        match effect {
            ReplicaEffect::Publish(snapshot) => {
                let current = self.controller.state().map(|state| state.leader_epoch);
                let before = self.node(id).and_then(|node| node.published.clone());
                self.truth.published(NodeId(id), current, &snapshot, before.as_deref())?;
                self.node_mut(id)?.publish(snapshot);
            }
            ReplicaEffect::Reply { request, result: Ok(appended) } => {
                let views: Vec<_> = self.nodes.iter().map(Node::view).collect();
                if let Ok(number) = u8::try_from(request.0) {
                    self.truth.acknowledged(NodeId(id), content(&record(number)), &appended, &views)?;
                }
            }
            ReplicaEffect::Sync(request) => self.node_mut(id)?.syncs.push_back(request),
            ReplicaEffect::Restart(why) | ReplicaEffect::FailDirectory(why) => {
                return Err(broken("U4", format!("node {id} fails without a fault: {why}")));
            }
            ReplicaEffect::Replication(asked) => self.replication(id, asked)?,
            _ => {}
        }
        Ok(())
    }

    fn replication(&mut self, id: i32, asked: ReplicationEffect) -> Result<(), Violation> {
        match asked {
            ReplicationEffect::Fetch(position) => self.want(id, position),
            ReplicationEffect::Confirm { leader, leader_epoch, confirmed_offset } => {
                let node = self.node_mut(id)?;
                let (node_id, broker_epoch, incarnation) = (node.id, node.broker_epoch, node.incarnation);
                let confirmed = Confirmed { node_id, broker_epoch, incarnation, leader_epoch, confirmed_offset };
                node.confirm = Some((leader, confirmed));
                Ok(())
            }
            ReplicationEffect::Propose(proposal) => self.send_proposal(id, proposal),
            ReplicationEffect::ReportLoss(loss) => {
                self.node_mut(id)?.loss = Some(loss);
                Ok(())
            }
            ReplicationEffect::LowerRecoveryPoint { number, recovery_point, high_watermark } => {
                self.node_mut(id)?.lowering = Some((number, Checkpoint { recovery_point, high_watermark }));
                Ok(())
            }
            ReplicationEffect::Halt(why) => Err(broken("R13", format!("node {id}: {why}"))),
        }
    }

    fn send_proposal(&mut self, id: i32, proposal: IsrProposal) -> Result<(), Violation> {
        let node = self.node_mut(id)?;
        let published = node.published.as_ref().map(|published| published.maximal_isr.clone()).unwrap_or_default();
        if !proposal.members.iter().all(|member| published.contains(&member.node_id)) {
            return Err(broken("R4", format!("node {id} proposes what it has not published: {proposal:?}")));
        }
        let asked = AlterPartitionAsked {
            members: proposal.members,
            leader_epoch: proposal.leader_epoch.0,
            partition_epoch: proposal.partition_epoch,
        };
        let flight = InFlight {
            from: node.id,
            broker_epoch: node.broker_epoch,
            incarnation: Some(node.incarnation),
            number: proposal.number,
            place: Place::Asked(asked),
        };
        self.controller.in_flight.push(flight);
        Ok(())
    }

    fn append(&mut self, id: i32) -> Result<(), Violation> {
        let number = self.sent;
        self.sent += 1;
        let batch = validate_produced(&record(number), &ProduceRules::default());
        let batch = batch.map_err(|rejection| broken("U1", format!("{rejection:?}")))?;
        // A client that must write where too few are in sync does without their acknowledgement.
        let published = self.node(id).and_then(|node| node.published.as_ref());
        let alone = published.is_some_and(|published| published.maximal_isr.len() < MIN_IN_SYNC);
        let (request, required_acks) = match alone {
            false => (RequestId(u64::from(number)), RequiredAcks::All),
            true => (RequestId(u64::from(number) + NOT_ALL), RequiredAcks::Leader),
        };
        self.step(
            id,
            ReplicaInput::Append(Append {
                request,
                batch,
                required_acks,
                deadline: self.now + Duration::from_secs(60),
                expected_epoch: None,
            }),
        )?;
        self.step(id, ReplicaInput::EndBatch)
    }

    pub(super) fn apply_metadata(&mut self, id: i32) -> Result<(), Violation> {
        let newest = self.controller.log.len() - 1;
        let assignment = Assignment::of(self.controller.image(), self.controller.partition(), NodeId(id));
        self.node_mut(id)?.applied = newest;
        match assignment {
            Some(assignment) => self.replicate(id, ReplicationInput::Assign(Box::new(assignment))),
            None => Ok(()),
        }
    }

    fn lower(&mut self, id: i32) -> Result<(), Violation> {
        let node = self.node_mut(id)?;
        let Some((number, checkpoint)) = node.lowering.take() else { return Ok(()) };
        node.checkpoint = checkpoint;
        self.replicate(id, ReplicationInput::Lowered(number))
    }

    fn outcome(&mut self, at: usize) -> Result<(), Violation> {
        if at >= self.controller.in_flight.len() {
            return Ok(());
        }
        let flight = self.controller.in_flight.remove(at);
        let Place::Answered(outcome) = flight.place else { return Ok(()) };
        let node = self.node_mut(flight.from.0)?;
        if node.broker_epoch == flight.broker_epoch && Some(node.incarnation) == flight.incarnation {
            self.replicate(flight.from.0, ReplicationInput::ProposalEnded { number: flight.number, outcome })?;
        }
        Ok(())
    }

    /// Tells two states apart.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for node in &self.nodes {
            node.hash(&mut hasher);
        }
        (self.sent, self.waits, self.now, self.faults, self.controller.image().digest()).hash(&mut hasher);
        self.controller.in_flight.hash(&mut hasher);
        self.truth.hash_into(&mut hasher);
        hasher.finish()
    }
}
