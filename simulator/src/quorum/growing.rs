//! Members that come, vote and go: what their shells do, and an operator whose wishes change all the time.
//! Invariant: after the last fault nobody is sent away any more, so every node is a member in the end.

use std::time::Duration;

use madang_cluster::controller::{MemberChange, MemberRole, Proposal};
use madang_protocol::types::NodeId;

use super::work::Want;
use super::{Event, World, node};
use crate::sim::Violation;

/// How soon a node looks again whether it is counted.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Longest time between two changes, in microseconds.
const CHANGES: u64 = 1_500_000;

/// Where a node is reached.
fn address(node_id: NodeId) -> String {
    format!("host-{node_id}:1")
}

impl World {
    /// As the shell does it: a node that its metadata does not name, or that hears no leader, asks to be counted, and whoever it asks hands that on.
    pub(super) fn join(&mut self, joining: usize) -> Result<(), Violation> {
        self.at(self.now + LOOK_AGAIN, Event::Join { node: joining });
        let node_id = node(joining);
        let Some(controller) = &self.voters[joining].controller else { return Ok(()) };
        let named = controller.image().quorum_addresses().contains_key(&node_id);
        if named && controller.status().leader.is_some() {
            return Ok(());
        }
        match self.leading() {
            Some(leader) if !self.cut.contains(&(joining, leader)) => self.ask(leader, Want::Join(node_id)),
            _ => Ok(()),
        }
    }

    /// One or two nodes are to be something else.
    pub(super) fn change(&mut self) -> Result<(), Violation> {
        if !self.stormy {
            return Ok(());
        }
        self.after(CHANGES, Event::Change);
        let Some(leader) = self.leading() else { return Ok(()) };
        let roles = [MemberRole::Voter, MemberRole::Voter, MemberRole::Voter, MemberRole::Observer, MemberRole::Gone];
        let mut changes: Vec<MemberChange> = Vec::new();
        for _ in 0..=self.rng.below(2) {
            let node_id = node(self.rng.below(self.voters.len() as u64) as usize);
            let role = self.rng.pick(&roles).copied().unwrap_or(MemberRole::Voter);
            if changes.iter().all(|change| change.node_id != node_id) {
                changes.push(MemberChange { node_id, role });
            }
        }
        self.ask(leader, Want::Change(changes))
    }

    fn leading(&self) -> Option<usize> {
        self.voters.iter().position(|voter| voter.controller.as_ref().is_some_and(|one| one.is_leader()))
    }
}

/// What a wish about the members proposes.
pub(super) fn proposal(want: &Want) -> Option<Proposal> {
    match want {
        Want::Join(node_id) => Some(Proposal::JoinQuorum { node_id: *node_id, address: address(*node_id) }),
        Want::Change(changes) => Some(Proposal::ChangeQuorum(changes.clone())),
        _ => None,
    }
}
