//! The invariants of the quorum, over all voters and all their lives.
//! Invariant: they look at what voters do and tell, never at what they intend.

use std::collections::BTreeMap;

use madang_cluster::controller::{Controller, QuorumStatus};
use madang_cluster::metadata::MetadataImage;
use madang_protocol::types::NodeId;
use raft::eraftpb::{Message, MessageType};

use super::World;
use super::voter::Voter;
use crate::sim::Violation;

/// What has been seen so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// Who led in each term.
    leaders: BTreeMap<u64, NodeId>,
    /// The digest of the metadata at each version.
    digests: BTreeMap<u64, u64>,
    /// The highest version that anybody has published.
    newest: u64,
    /// Whom each node gave its vote to in each term.
    votes: BTreeMap<(NodeId, u64), u64>,
    /// The highest term that each node has spoken in.
    terms: BTreeMap<NodeId, u64>,
}

fn broken(code: &'static str, what: String) -> Result<(), Violation> {
    Err(Violation { code, what })
}

impl Checks {
    /// Terms in which somebody led.
    pub(crate) fn terms(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// A voter has found its log.
    pub(crate) fn started(&self, node: NodeId, status: QuorumStatus) -> Result<(), Violation> {
        match self.terms.get(&node).filter(|told| **told > status.term) {
            Some(told) => broken("C5", format!("node {node} starts in term {}, and has spoken in {told}", status.term)),
            None => Ok(()),
        }
    }

    /// A voter has done something.
    pub(crate) fn stepped(&mut self, node: NodeId, controller: &Controller) -> Result<(), Violation> {
        if !controller.is_leader() {
            return Ok(());
        }
        let status = controller.status();
        let term = status.term;
        match self.leaders.insert(term, node) {
            Some(other) if other != node => broken("C1", format!("nodes {other} and {node} both lead in term {term}")),
            // It has just won: what anybody was told is committed is in its log.
            None if status.last_index < self.newest => {
                let (end, newest) = (status.last_index, self.newest);
                broken("C3", format!("node {node} leads in term {term} with a log to {end}, and {newest} is committed"))
            }
            _ => Ok(()),
        }
    }

    /// A voter says what is committed.
    pub(crate) fn published(&mut self, node: NodeId, image: &MetadataImage) -> Result<(), Violation> {
        image.check();
        let (version, digest) = (image.version(), image.digest());
        self.newest = self.newest.max(version);
        match self.digests.insert(version, digest) {
            Some(other) if other != digest => {
                broken("C4", format!("node {node} has other metadata at {version} than a voter before it"))
            }
            _ => Ok(()),
        }
    }

    /// A message leaves: what it says of term and vote has to hold for ever.
    pub(crate) fn sent(&mut self, node: NodeId, message: &Message) -> Result<(), Violation> {
        let kind = message.msg_type;
        if [MessageType::MsgRequestPreVote, MessageType::MsgRequestPreVoteResponse].contains(&kind) {
            // Of a term that may never come.
            return Ok(());
        }
        let told = self.terms.entry(node).or_default();
        *told = (*told).max(message.term);
        if kind != MessageType::MsgRequestVoteResponse || message.reject {
            return Ok(());
        }
        match self.votes.insert((node, message.term), message.to) {
            Some(other) if other != message.to => {
                broken("C5", format!("node {node} gives its vote in term {} to two", message.term))
            }
            _ => Ok(()),
        }
    }
}

impl World {
    /// At the end: one leader, everybody has the same metadata, all that was acknowledged is in it.
    pub(super) fn settled(&self) -> Result<(), Violation> {
        let live = |voter: &Voter| voter.status();
        let all: Vec<_> = self.voters.iter().filter_map(live).collect();
        if all.len() < self.voters.len() {
            return broken("L8", "a voter is down long after everything has healed".into());
        }
        let leaders: Vec<_> = all.iter().map(|status| status.leader).collect();
        if leaders[0].is_none() || leaders.iter().any(|leader| *leader != leaders[0]) {
            return broken("L1", format!("long after everything has healed, voters take for their leader {leaders:?}"));
        }
        self.work.all_answered(self.now)?;
        let images = self.voters.iter().filter_map(|voter| voter.controller.as_ref()).map(|one| one.image());
        for image in images {
            if image.version() + LAG < self.checks.newest {
                let (own, newest) = (image.version(), self.checks.newest);
                return broken(
                    "L1",
                    format!("a voter is at {own} long after everything has healed, others at {newest}"),
                );
            }
            let fenced = image.brokers().find(|broker| broker.fenced);
            if let Some(broker) = fenced.filter(|_| image.version() == self.checks.newest) {
                return broken("L8", format!("broker {} is fenced long after everything has healed", broker.node_id));
            }
        }
        let newest = self.voters.iter().filter_map(|voter| voter.controller.as_ref()).map(|one| one.image());
        newest.max_by_key(|image| image.version()).map_or(Ok(()), |image| self.work.kept_in(image))
    }
}

/// Entries that a voter may be behind while work goes on.
const LAG: u64 = 200;
