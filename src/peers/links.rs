//! The links of this node's replicas, over QUIC.

use std::fmt;
use std::sync::{Arc, Weak};

use madang_actors::clock::Mono;
use madang_actors::host::clock;
use madang_cluster::controller::{AlterPartition, Proposal, ReportLoss};
use madang_cluster::peers::{FetchLimits, confirm, fetch, fetch_answers};
use madang_cluster::replica::links::{CoalescedFetch, FetchAnswers, LinkFuture, Links, Registration, outcome_of};
use madang_cluster::replica::replication::{Confirmed, ProposalOutcome};
use madang_protocol::payload::Payload;
use madang_protocol::types::{NodeId, TopicPartition};

use crate::node_env::Node;
use crate::peers::{CONTROL, DATA, Peers, propose};

/// See the file's head. The node holds the replicas, which hold this.
pub struct NodeLinks {
    node: Weak<Node>,
    own: NodeId,
    peers: Arc<Peers>,
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
        Self { node: Arc::downgrade(node), own: node.config.node_id, peers }
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

    fn propose(&self, proposal: AlterPartition, deadline: Mono) -> LinkFuture<ProposalOutcome> {
        let (node, peers) = (self.node.clone(), Arc::clone(&self.peers));
        Box::pin(async move {
            let Some(node) = node.upgrade() else { return ProposalOutcome::Unknown };
            outcome_of(&propose(&node, &peers, Proposal::AlterPartition(proposal), deadline).await)
        })
    }

    fn report_loss(&self, report: ReportLoss, deadline: Mono) -> LinkFuture<()> {
        let (node, peers) = (self.node.clone(), Arc::clone(&self.peers));
        Box::pin(async move {
            let Some(node) = node.upgrade() else { return };
            drop(propose(&node, &peers, Proposal::ReportLoss(report), deadline).await);
        })
    }
}
