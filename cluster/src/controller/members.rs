//! Members of the metadata quorum that come, vote, and go.
//! Invariant: one change at a time; nobody votes before having copied the log, and the leader does not take its own vote away.

use madang_protocol::ErrorCode;
use madang_protocol::types::NodeId;
use raft::ProgressState;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};
use speedy::{Readable, Writable};

use super::api::{ApiError, ApiResult, Outcome};
use super::membership::single;
use super::quorum::{Quorum, node_of, raft_id};
use super::records::MetadataRecord;
use super::replay::{quorum_address_record, replay};
use super::{Controller, ControllerEffect};
use crate::metadata::{MetadataDelta, MetadataImage};

/// Members that there may be: each is a copy of the metadata that the leader feeds.
const MOST_MEMBERS: usize = 64;
/// Those of them who may vote.
const MOST_VOTERS: usize = 5;
/// Entries by which one who is to vote may be behind.
const CAUGHT_UP: u64 = 100;

/// What a member of the quorum is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Readable, Writable)]
#[speedy(tag_type = u8)]
pub enum MemberRole {
    /// It votes.
    #[speedy(tag = 0)]
    Voter,
    /// It copies the log and does not vote.
    #[speedy(tag = 1)]
    Observer,
    /// It is no member.
    #[speedy(tag = 2)]
    Gone,
}

/// A change of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Readable, Writable)]
pub struct MemberChange {
    /// Its node.
    pub node_id: NodeId,
    /// What it is to be.
    pub role: MemberRole,
}

impl Controller {
    /// Counts a node among those who copy the log, and notes where it is reached. Asked again, it changes nothing.
    pub(super) fn join_quorum(&mut self, node_id: NodeId, address: String) -> ApiResult<Outcome> {
        let member = raft_id(node_id);
        let known = self.quorum.role_of(member) != MemberRole::Gone;
        if !known && self.quorum.node.raft.prs().iter().count() >= MOST_MEMBERS {
            return Err(refused(ErrorCode::InvalidRequest, format!("the quorum has {MOST_MEMBERS} members already")));
        }
        let pending = self.pending_image().map_err(unreadable)?;
        if pending.quorum_addresses().get(&node_id).is_none_or(|known| **known != *address) {
            self.note_address(pending, node_id, Some(&address))?;
        }
        if !known {
            self.quorum.propose_change(vec![single(member, ConfChangeType::AddLearnerNode)])?;
        }
        Ok(Outcome::QuorumChanged)
    }

    /// Changes several members at once: until it is done the voters before and the voters after both have to agree. What is so already is left alone.
    pub(super) fn change_quorum(&mut self, changes: &[MemberChange]) -> ApiResult<Outcome> {
        let needed = self.quorum.needed(changes)?;
        if !needed.is_empty() {
            self.quorum.propose_change(needed.iter().map(step).collect())?;
        }
        for change in needed.iter().filter(|change| change.role == MemberRole::Gone) {
            let pending = self.pending_image().map_err(unreadable)?;
            self.note_address(pending, change.node_id, None)?;
        }
        Ok(Outcome::QuorumChanged)
    }

    fn note_address(&mut self, mut pending: MetadataImage, node_id: NodeId, address: Option<&str>) -> ApiResult<()> {
        let record = MetadataRecord::QuorumAddress(quorum_address_record(node_id, address));
        replay(&mut pending, &mut MetadataDelta::default(), record.clone());
        self.append(&[record], pending)
    }

    /// Ends a change that the leader which began it did not live to end.
    pub(super) fn tend_members(&mut self) {
        let quorum = &mut self.quorum;
        if quorum.is_leader() && quorum.members().is_joint() && !quorum.node.raft.has_pending_conf() {
            // Refused only in a leadership that has just ended.
            drop(quorum.node.propose_conf_change(Vec::new(), ConfChangeV2::default()));
        }
    }

    /// Tells who the members are, when that has changed.
    pub(super) fn tell_members(&mut self, effects: &mut Vec<ControllerEffect>) {
        if self.members != *self.quorum.members() {
            self.members.clone_from(self.quorum.members());
            let nodes = |ids: &[u64]| ids.iter().copied().filter_map(node_of).collect();
            effects.push(ControllerEffect::Voters(nodes(&self.members.voters)));
        }
    }
}

impl Quorum {
    fn role_of(&self, member: u64) -> MemberRole {
        let members = self.members();
        if members.voters.contains(&member) {
            MemberRole::Voter
        } else if self.node.raft.prs().get(member).is_some() {
            MemberRole::Observer
        } else {
            MemberRole::Gone
        }
    }

    /// Those of the changes that change anything.
    ///
    /// # Errors
    /// One that may not be, or not now.
    fn needed(&mut self, changes: &[MemberChange]) -> ApiResult<Vec<MemberChange>> {
        let distinct = |change: &MemberChange| changes.iter().filter(|other| other.node_id == change.node_id).count();
        if let Some(twice) = changes.iter().find(|change| distinct(change) > 1) {
            return Err(refused(ErrorCode::InvalidRequest, format!("node {} is named twice", twice.node_id)));
        }
        let differs = |change: &&MemberChange| self.role_of(raft_id(change.node_id)) != change.role;
        let needed: Vec<MemberChange> = changes.iter().filter(differs).copied().collect();
        let mut voters = self.members().voters.clone();
        for MemberChange { node_id, role } in needed.iter().copied() {
            let member = raft_id(node_id);
            voters.retain(|voter| *voter != member);
            match role {
                MemberRole::Voter => {
                    self.check_caught_up(node_id)?;
                    voters.push(member);
                }
                MemberRole::Observer if self.role_of(member) == MemberRole::Gone => return Err(no_member(node_id)),
                MemberRole::Observer | MemberRole::Gone => {}
            }
        }
        if !needed.is_empty() && !(1..=MOST_VOTERS).contains(&voters.len()) {
            let text = format!("{} voters would be left; there may be 1 to {MOST_VOTERS}", voters.len());
            return Err(refused(ErrorCode::InvalidRequest, text));
        }
        let own = self.node.raft.id;
        if !needed.is_empty() && !voters.contains(&own) {
            // It cannot commit its own departure and go on; whoever leads next is asked again.
            self.hand_over(&voters);
            return Err(refused(ErrorCode::NotController, "the leader hands over before it leaves".to_owned()));
        }
        Ok(needed)
    }

    /// One that is to vote has copied the log, and copies on: else the quorum would wait for it.
    fn check_caught_up(&self, node_id: NodeId) -> ApiResult<()> {
        let raft = &self.node.raft;
        let progress = raft.prs().get(raft_id(node_id)).ok_or_else(|| no_member(node_id))?;
        let behind = raft.raft_log.last_index().saturating_sub(progress.matched);
        if progress.state != ProgressState::Replicate || behind > CAUGHT_UP {
            let text = format!("node {node_id} is {behind} entries behind and has to copy the log first");
            return Err(refused(ErrorCode::NotEnoughReplicas, text));
        }
        Ok(())
    }

    /// Gives the leadership to whoever of `voters` has the most of the log.
    fn hand_over(&mut self, voters: &[u64]) {
        let raft = &self.node.raft;
        let matched = |voter: &u64| raft.prs().get(*voter).map(|progress| progress.matched);
        let next =
            voters.iter().copied().filter(|voter| raft.prs().conf().voters().contains(*voter)).max_by_key(matched);
        if let Some(next) = next {
            self.node.transfer_leader(next);
        }
    }

    fn propose_change(&mut self, changes: Vec<ConfChangeSingle>) -> ApiResult<()> {
        if self.node.raft.has_pending_conf() || self.members().is_joint() {
            let text = "another change of the quorum is under way".to_owned();
            return Err(refused(ErrorCode::ReassignmentInProgress, text));
        }
        let mut change = ConfChangeV2::default();
        change.set_transition(ConfChangeTransition::Auto);
        change.set_changes(changes.into());
        self.node.propose_conf_change(Vec::new(), change).map_err(|_| ErrorCode::NotController)?;
        Ok(())
    }
}

fn step(change: &MemberChange) -> ConfChangeSingle {
    let kind = match change.role {
        MemberRole::Voter => ConfChangeType::AddNode,
        MemberRole::Observer => ConfChangeType::AddLearnerNode,
        MemberRole::Gone => ConfChangeType::RemoveNode,
    };
    single(raft_id(change.node_id), kind)
}

fn no_member(node_id: NodeId) -> ApiError {
    let text =
        format!("node {node_id} does not copy the metadata log: start it with this cluster's voters in its file");
    refused(ErrorCode::VoterNotFound, text)
}

fn refused(error: ErrorCode, text: String) -> ApiError {
    ApiError::new(error, text)
}

fn unreadable(why: String) -> ApiError {
    ApiError::new(ErrorCode::UnknownServerError, why)
}
