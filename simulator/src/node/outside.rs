//! What a simulated replica asks of other nodes and of the controller, performed. It decides nothing.
//! Invariant: whatever is asked ends by its deadline, and its end comes back to the life that asked.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use madang::env::until;
use madang_actors::actor_ref::IncarnationRef;
use madang_actors::child_spec::Incarnation;
use madang_cluster::controller::{AlterPartition, Outcome, Proposal, ReportLoss};
use madang_cluster::replica::ReplicaMessage;
use madang_cluster::replica::fetching::FetcherRef;
use madang_cluster::replica::links::outcome_of;
use madang_cluster::replica::replication::{
    Confirmed, FetchPosition, IsrProposal, Loss, ProposalOutcome, ReplicationEffect,
};
use madang_protocol::types::{LeaderEpoch, NodeId, Offset};
use madang_storage::Checkpoint;

use crate::cluster::Cluster;
use crate::cover;
use crate::node::env::SimEnv;
use crate::node::process::Process;
use crate::node::{Node, Slot, fetching, peers};

/// How long a proposal to the controller may take before its outcome counts as unknown.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a report of a loss may take before it is made again.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// One life of a replica, as far as it deals with others.
pub struct Outside {
    cluster: Rc<Cluster>,
    env: SimEnv,
    slot: Rc<Slot>,
    life: IncarnationRef<ReplicaMessage>,
    following: Option<FetcherRef>,
    reporting: Rc<Cell<bool>>,
}

impl Outside {
    /// The ways out of a life; none on a lone node.
    #[must_use]
    pub fn new(node: &Rc<Node>, process: &Rc<Process>, slot: &Rc<Slot>) -> Option<Self> {
        let env = SimEnv { sim: Rc::clone(&node.sim), node: Rc::clone(node), process: Rc::clone(process) };
        let life = slot.handle.actor().pinned(Incarnation(slot.incarnation.get()));
        let (slot, reporting) = (Rc::clone(slot), Rc::default());
        Some(Self { cluster: node.cluster()?, env, slot, life, following: None, reporting })
    }

    /// Performs what the machine asks.
    pub fn perform(&mut self, asked: ReplicationEffect) {
        match asked {
            ReplicationEffect::Fetch(position) => self.fetch(position),
            ReplicationEffect::Confirm { leader, leader_epoch, confirmed_offset } => {
                self.confirm(leader, leader_epoch, confirmed_offset);
            }
            ReplicationEffect::Propose(proposal) => self.propose(proposal),
            ReplicationEffect::ReportLoss(loss) => self.report(loss),
            ReplicationEffect::LowerRecoveryPoint { number, recovery_point, high_watermark } => {
                self.lower(number, Checkpoint { recovery_point, high_watermark });
            }
            ReplicationEffect::Halt(why) => {
                self.env.sim.violate("R13", format!("{:?} is set aside: {why}", self.slot.partition));
            }
        }
    }

    fn fetch(&mut self, position: FetchPosition) {
        let own = self.env.process.config.node_id;
        self.env.sim.require(position.leader != own, "R15", || format!("{own} fetches from itself"));
        self.follows(Some(position.leader));
        let (env, slot) = (&self.env, &self.slot);
        let fetcher = self.following.get_or_insert_with(|| fetching::of(&env.node, &env.process, position.leader));
        fetcher.want(slot.partition, position, self.life.clone());
    }

    /// Takes back what it wants of a leader that it follows no more.
    pub fn follows(&mut self, leader: Option<NodeId>) {
        if let Some(before) = self.following.take_if(|before| Some(before.leader()) != leader) {
            before.forget(self.slot.partition, Incarnation(self.slot.incarnation.get()));
        }
    }

    fn confirm(&self, leader: NodeId, leader_epoch: LeaderEpoch, confirmed_offset: Offset) {
        let (node_id, broker_epoch) = (self.env.process.config.node_id, self.env.process.broker_epoch.get());
        let incarnation = self.slot.incarnation.get();
        let confirmed = Confirmed { node_id, broker_epoch, incarnation, leader_epoch, confirmed_offset };
        fetching::of(&self.env.node, &self.env.process, leader).confirm(self.slot.partition, confirmed);
    }

    fn propose(&self, proposal: IsrProposal) {
        cover!("another in-sync set proposed");
        let asked = AlterPartition {
            partition: self.slot.partition,
            node_id: proposal.leader,
            broker_epoch: self.env.process.broker_epoch.get(),
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            in_sync_replicas: proposal.members,
        };
        let (env, cluster, life) = (self.env.clone(), Rc::clone(&self.cluster), self.life.clone());
        let (number, deadline) = (proposal.number, self.env.sim.now() + PROPOSAL_TIMEOUT);
        self.env.sim.executor.detach(self.env.process.scope, async move {
            let asked = Proposal::AlterPartitions(vec![asked]);
            let outcome = match peers::propose(&env, &cluster, asked, deadline).await {
                Ok(Outcome::AlterPartitions(results)) => {
                    let altered = results.into_iter().next();
                    altered.map(|one| outcome_of(&one.map(|epoch| Outcome::AlterPartition { partition_epoch: epoch })))
                }
                Ok(_) => None,
                Err(refused) => Some(outcome_of(&Err(refused))),
            };
            let outcome = outcome.unwrap_or(ProposalOutcome::Unknown);
            // A full lane would lose it, and the replica would wait for ever.
            while !life.is_over() && life.try_send(ReplicaMessage::ProposalEnded { number, outcome }).is_err() {
                env.sim.executor.sleep(Duration::from_millis(1)).await;
            }
        });
    }

    fn report(&self, loss: Loss) {
        cover!("loss reported");
        if self.reporting.replace(true) {
            return;
        }
        let (node_id, broker_epoch) = (self.env.process.config.node_id, self.env.process.broker_epoch.get());
        let report =
            ReportLoss { partition: self.slot.partition, node_id, broker_epoch, incarnation: loss.incarnation };
        let (env, cluster, reporting) = (self.env.clone(), Rc::clone(&self.cluster), Rc::clone(&self.reporting));
        let deadline = self.env.sim.now() + REPORT_TIMEOUT;
        self.env.sim.executor.detach(self.env.process.scope, async move {
            let reported = peers::propose(&env, &cluster, Proposal::ReportLoss(report), deadline);
            drop(until(&env, deadline, reported).await);
            reporting.set(false);
        });
    }

    /// As a node's checkpoints do: durably, and not on the replica's own time.
    fn lower(&self, number: u64, checkpoint: Checkpoint) {
        cover!("recovery point lowered for a cut");
        let (env, partition, life) = (self.env.clone(), self.slot.partition, self.life.clone());
        self.env.sim.executor.detach(self.env.process.scope, async move {
            env.sim.pause(10, env.sim.swarm.sync_us).await;
            env.node.checkpoints.borrow_mut().insert(partition, checkpoint);
            env.sim.pause(10, 500).await;
            drop(life.try_send(ReplicaMessage::Lowered(number)));
        });
    }
}
