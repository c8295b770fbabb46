//! The links of this node's replicas, over QUIC.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_actors::host::clock;
use madang_actors::reply::Reply;
use madang_cluster::controller::{AlterPartition, ApiResult, Outcome, Proposal, ReportLoss};
use madang_cluster::peers::{FetchLimits, confirm, fetch, fetch_answers};
use madang_cluster::replica::links::{CoalescedFetch, FetchAnswers, LinkFuture, Links, Registration, outcome_of};
use madang_cluster::replica::replication::{Confirmed, ProposalOutcome};
use madang_cluster::replica::throttle::Throttle;
use madang_protocol::payload::Payload;
use madang_protocol::types::{NodeId, TopicPartition};

use crate::node_env::Node;
use crate::peers::{CONTROL, DATA, Peers, propose};

/// In-sync sets in one proposal.
const MOST_AT_ONCE: usize = 2_000;
/// How long one proposal may take before its outcome counts as unknown.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// See the file's head. The node holds the replicas, which hold this.
pub struct NodeLinks {
    node: Weak<Node>,
    own: NodeId,
    peers: Arc<Peers>,
    proposals: Arc<Mutex<Proposals>>,
}

/// Another in-sync set that waits to be proposed: many partitions' go in one proposal, as a node that comes or goes concerns them all.
#[derive(Default)]
struct Proposals {
    waiting: Vec<(AlterPartition, Reply<ProposalOutcome>)>,
    /// Whether somebody is about to propose them.
    proposing: bool,
}

impl fmt::Debug for NodeLinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeLinks").field("own", &self.own).finish_non_exhaustive()
    }
}

impl NodeLinks {
    /// The links of `node`.
    #[must_use]
    pub fn new(node: &Arc<Node>, peers: Arc<Peers>) -> Self {
        Self { node: Arc::downgrade(node), own: node.config.node_id, peers, proposals: Arc::default() }
    }
}

impl Links for NodeLinks {
    fn registration(&self) -> Registration {
        let broker_epoch = self.node.upgrade().map_or(-1, |node| node.broker_epoch());
        Registration { node_id: self.own, broker_epoch }
    }

    fn fetch(&self, leader: NodeId, asked: CoalescedFetch, deadline: Mono) -> LinkFuture<Option<FetchAnswers>> {
        let (peers, Registration { broker_epoch, .. }) = (Arc::clone(&self.peers), self.registration());
        Box::pin(async move {
            let max_bytes = u32::try_from(asked.max_bytes).unwrap_or(u32::MAX);
            let limits = FetchLimits { max_wait: asked.max_wait, max_bytes };
            let partitions: Vec<_> =
                asked.partitions.iter().map(|(partition, fetch)| (*partition, fetch.position)).collect();
            let message = fetch(broker_epoch, limits, &partitions);
            let called = peers.data.call(leader, DATA, &message, Payload::default());
            let (answer, records) = clock::until(deadline, called).await?.ok()?;
            fetch_answers(answer, records).ok()
        })
    }

    fn confirm(&self, leader: NodeId, confirmed: Vec<(TopicPartition, Confirmed)>, deadline: Mono) -> LinkFuture<()> {
        let (peers, Registration { broker_epoch, .. }) = (Arc::clone(&self.peers), self.registration());
        Box::pin(async move {
            let message = confirm(broker_epoch, &confirmed);
            // What is lost is told by the next fetch.
            drop(clock::until(deadline, peers.control.call(leader, CONTROL, &message, Payload::default())).await);
        })
    }

    fn throttle(&self, partition: &TopicPartition) -> Option<(Arc<Throttle>, u64)> {
        self.node.upgrade()?.throttle_as_follower(partition)
    }

    fn propose(&self, proposal: AlterPartition, _: Mono) -> LinkFuture<ProposalOutcome> {
        let (reply, answer) = Reply::new(|| ProposalOutcome::Unknown);
        let mut proposals = lock(&self.proposals);
        // One of each replica at most.
        proposals.waiting.push((proposal, reply));
        if !std::mem::replace(&mut proposals.proposing, true) {
            let turn = Turn { proposals: Arc::clone(&self.proposals), over: false };
            tokio::task::spawn_local(propose_all(turn, self.node.clone(), Arc::clone(&self.peers)));
        }
        Box::pin(answer)
    }

    fn report_loss(&self, report: ReportLoss, deadline: Mono) -> LinkFuture<()> {
        let (node, peers) = (self.node.clone(), Arc::clone(&self.peers));
        Box::pin(async move {
            let Some(node) = node.upgrade() else { return };
            drop(propose(&node, &peers, Proposal::ReportLoss(report), deadline).await);
        })
    }
}

fn lock(proposals: &Mutex<Proposals>) -> MutexGuard<'_, Proposals> {
    // No user code runs under the lock, so a poisoned one is still whole.
    proposals.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to propose what waits. Whoever dies with it leaves what waits unanswered, and the right to the next.
struct Turn {
    proposals: Arc<Mutex<Proposals>>,
    over: bool,
}

impl Turn {
    /// What waits; none if nothing does, and then the turn is over, and the next one's may have begun.
    fn next(&mut self) -> Option<Vec<(AlterPartition, Reply<ProposalOutcome>)>> {
        let mut proposals = lock(&self.proposals);
        let most = proposals.waiting.len().min(MOST_AT_ONCE);
        proposals.proposing = most > 0;
        self.over = most == 0;
        (most > 0).then(|| proposals.waiting.drain(..most).collect())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut proposals = lock(&self.proposals);
        proposals.proposing = false;
        proposals.waiting.clear();
    }
}

async fn propose_all(mut turn: Turn, node: Weak<Node>, peers: Arc<Peers>) {
    while let Some(waiting) = turn.next() {
        let Some(node) = node.upgrade() else { return };
        let (asked, replies): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let deadline = clock::now() + PROPOSAL_TIMEOUT;
        let outcomes = match propose(&node, &peers, Proposal::AlterPartitions(asked), deadline).await {
            Ok(Outcome::AlterPartitions(results)) => results.into_iter().map(altered).collect(),
            Ok(_) => Vec::new(),
            Err(refused) => vec![outcome_of(&Err(refused)); replies.len()],
        };
        // One without an outcome is left open.
        replies.into_iter().zip(outcomes).for_each(|(reply, outcome)| reply.send(outcome));
    }
}

fn altered(result: ApiResult<i32>) -> ProposalOutcome {
    outcome_of(&result.map(|partition_epoch| Outcome::AlterPartition { partition_epoch }))
}
