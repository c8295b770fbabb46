//! What a replica asks of other nodes and of the controller, performed. It decides nothing.
//! Invariant: whatever is asked ends by its deadline, and its end comes back to the life that asked; nothing here waits.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use madang_actors::child_spec::Incarnation;
use madang_actors::clock::Mono;
use madang_actors::host::{ShellContext, clock};
use madang_protocol::types::{LeaderEpoch, NodeId, Offset, TopicPartition};

use super::ReplicaMessage;
use super::fetching::{FetcherRef, Fetchers};
use super::links::{Links, Registration};
use super::replicate::REPORT_INTERVAL;
use super::replication::{Assignment, Confirmed, FetchPosition, IsrProposal, Loss, ProposalOutcome, ReplicationEffect};
use crate::controller::{AlterPartition, ReportLoss};

/// How long a proposal to the controller may take before its outcome counts as unknown.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a report of a loss may take before it is made again.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The ways out of a node that its replicas share.
#[derive(Clone)]
pub struct Neighbours {
    /// To other nodes and to the controller.
    pub links: Arc<dyn Links>,
    /// To remote leaders.
    pub fetchers: Arc<Fetchers>,
}

impl fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neighbours").field("fetchers", &self.fetchers).finish_non_exhaustive()
    }
}

/// One life of a replica, as far as it deals with others.
pub(super) struct Outside {
    neighbours: Neighbours,
    partition: TopicPartition,
    incarnation: Incarnation,
    /// The fetcher that knows what this replica wants of its leader.
    following: Option<FetcherRef>,
    /// The loss that was reported last.
    loss: Option<Loss>,
    /// Whether a report of a loss is on its way.
    reporting: Rc<Cell<bool>>,
    /// Of a replica that is set aside: when its loss is reported again, should the controller not know of it. The machine is gone by then.
    report_at: Option<Mono>,
    /// The registration under which the metadata shows the loss. The controller forgets what an older one has reported.
    known_under: Option<i64>,
}

impl Outside {
    pub(super) fn new(neighbours: Neighbours, partition: TopicPartition) -> Self {
        Self {
            neighbours,
            partition,
            incarnation: Incarnation::default(),
            following: None,
            loss: None,
            reporting: Rc::default(),
            report_at: None,
            known_under: None,
        }
    }

    /// A life begins; `set_aside` is what an earlier one has set the replica aside for.
    pub(super) fn begin(&mut self, set_aside: Option<Loss>, context: &ShellContext<ReplicaMessage>) {
        self.incarnation = context.incarnation();
        self.loss = set_aside;
        self.report_at = set_aside.map(|_| context.now());
    }

    pub(super) fn perform(&mut self, asked: ReplicationEffect, context: &mut ShellContext<ReplicaMessage>) {
        match asked {
            ReplicationEffect::Fetch(position) => self.fetch(position, context),
            ReplicationEffect::Confirm { leader, leader_epoch, confirmed_offset } => {
                self.confirm(leader, leader_epoch, confirmed_offset);
            }
            ReplicationEffect::Propose(proposal) => self.propose(proposal, context),
            ReplicationEffect::ReportLoss(loss) => self.report(loss, context),
            // The replica's own shell performs these.
            ReplicationEffect::LowerRecoveryPoint { .. } | ReplicationEffect::Halt(_) => {}
        }
    }

    fn fetch(&mut self, position: FetchPosition, context: &ShellContext<ReplicaMessage>) {
        self.follows(Some(position.leader));
        let fetcher = self.following.get_or_insert_with(|| self.neighbours.fetchers.of(position.leader));
        fetcher.want(self.partition, position, context.this_life());
    }

    /// Takes back what it wants of a leader that it follows no more.
    pub(super) fn follows(&mut self, leader: Option<NodeId>) {
        if let Some(before) = self.following.take_if(|before| Some(before.leader()) != leader) {
            before.forget(self.partition, self.incarnation);
        }
    }

    fn confirm(&self, leader: NodeId, leader_epoch: LeaderEpoch, confirmed_offset: Offset) {
        let Registration { node_id, broker_epoch } = self.neighbours.links.registration();
        let incarnation = self.incarnation.0;
        let confirmed = Confirmed { node_id, broker_epoch, incarnation, leader_epoch, confirmed_offset };
        self.neighbours.fetchers.of(leader).confirm(self.partition, confirmed);
    }

    fn propose(&self, proposal: IsrProposal, context: &mut ShellContext<ReplicaMessage>) {
        let deadline = context.now() + PROPOSAL_TIMEOUT;
        let asked = AlterPartition {
            partition: self.partition,
            node_id: proposal.leader,
            broker_epoch: self.neighbours.links.registration().broker_epoch,
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            in_sync_replicas: proposal.members,
        };
        let (number, answered) = (proposal.number, self.neighbours.links.propose(asked, deadline));
        let replica = context.me().clone();
        context.spawn(async move {
            let outcome = clock::until(deadline, answered).await.unwrap_or(ProposalOutcome::Unknown);
            // This future ends with this life, so no other one hears of it.
            drop(replica.admit(ReplicaMessage::ProposalEnded { number, outcome }).await);
        });
    }

    fn report(&mut self, loss: Loss, context: &mut ShellContext<ReplicaMessage>) {
        self.loss = Some(loss);
        if self.reporting.replace(true) {
            return;
        }
        let Registration { node_id, broker_epoch } = self.neighbours.links.registration();
        let deadline = context.now() + REPORT_TIMEOUT;
        let report = ReportLoss { partition: self.partition, node_id, broker_epoch, incarnation: loss.incarnation };
        let reported = self.neighbours.links.report_loss(report, deadline);
        let reporting = Rc::clone(&self.reporting);
        context.spawn(async move {
            clock::until(deadline, reported).await;
            reporting.set(false);
        });
    }

    /// The replica is set aside: from here on its loss is reported without it. Answers what it has lost.
    pub(super) fn set_aside(&mut self, now: Mono) -> Option<Loss> {
        self.report_at = self.loss.map(|_| now + REPORT_INTERVAL);
        self.loss
    }

    /// The metadata may show that the controller knows of the loss.
    pub(super) fn assigned(&mut self, assignment: &Assignment) {
        let shown = |loss: Loss| assignment.reported_loss.is_some_and(|reported| reported >= loss.incarnation);
        if self.loss.is_some_and(shown) {
            self.known_under = Some(self.neighbours.links.registration().broker_epoch);
        }
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.report_at.filter(|_| self.known_under != Some(self.neighbours.links.registration().broker_epoch))
    }

    /// Reports the loss of a replica that is set aside again, if it is time.
    pub(super) fn on_deadline(&mut self, context: &mut ShellContext<ReplicaMessage>) {
        let due = self.deadline().is_some_and(|at| at <= context.now());
        if let Some(loss) = self.loss.filter(|_| due) {
            self.report_at = Some(context.now() + REPORT_INTERVAL);
            self.report(loss, context);
        }
    }
}
