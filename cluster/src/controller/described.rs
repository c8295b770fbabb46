//! What the leader of the quorum tells of it: who votes, and how far each is.
//! Invariant: it is told from Raft's own progress, by the leader alone, and changes nothing.

use std::collections::BTreeMap;

use madang_actors::clock::Wall;
use madang_protocol::ErrorCode;
use madang_protocol::types::NodeId;
use speedy::{Readable, Writable};

use super::quorum::{Quorum, node_of};
use super::{ApiResult, Controller, Outcome};

/// Members of which times are kept; there are never so many.
const MOST_MEMBERS: usize = 64;

/// When each other member was heard of, by Raft's number of it.
#[derive(Debug, Default)]
pub(super) struct Heard {
    last: BTreeMap<u64, Times>,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    heard: i64,
    caught_up: i64,
}

impl Heard {
    /// A message of that member has come.
    pub(super) fn from(&mut self, member: u64, wall: Wall) {
        if self.last.len() < MOST_MEMBERS || self.last.contains_key(&member) {
            let times = self.last.entry(member).or_insert(Times { heard: -1, caught_up: -1 });
            times.heard = wall.as_millis();
        }
    }
}

/// The quorum of the metadata log, as its leader knows it.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
pub struct QuorumDescription {
    /// Who leads.
    pub leader: NodeId,
    /// The term.
    pub term: u64,
    /// Index of the last entry that is committed.
    pub committed: u64,
    /// Those who vote, by node.
    pub voters: Vec<QuorumMember>,
    /// Those who copy the log and do not vote, by node.
    pub observers: Vec<QuorumMember>,
}

/// How far one copy of the metadata log is. Times are of the leader's wall clock, in milliseconds; -1 where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Readable, Writable)]
pub struct QuorumMember {
    /// Its node.
    pub node_id: NodeId,
    /// Index of the last entry that it is known to have.
    pub last_index: u64,
    /// When it was heard of last.
    pub heard_at: i64,
    /// When it last had every entry.
    pub caught_up_at: i64,
}

impl Controller {
    pub(super) fn describe_quorum(&mut self, wall: Wall) -> ApiResult<Outcome> {
        if !self.quorum.is_leader() {
            return Err(ErrorCode::NotController.into());
        }
        Ok(Outcome::Quorum(describe(&self.quorum, &mut self.heard, wall)))
    }
}

fn describe(quorum: &Quorum, heard: &mut Heard, wall: Wall) -> QuorumDescription {
    let raft = &quorum.node.raft;
    let (now, last_index) = (wall.as_millis(), raft.raft_log.last_index());
    let (mut voters, mut observers) = (Vec::new(), Vec::new());
    for (id, progress) in raft.prs().iter() {
        let Some(node_id) = node_of(*id) else { continue };
        let (last_index, times) = if *id == raft.id {
            (last_index, Times { heard: now, caught_up: now })
        } else {
            (progress.matched, times_of(heard, *id, progress.matched >= last_index))
        };
        let member = QuorumMember { node_id, last_index, heard_at: times.heard, caught_up_at: times.caught_up };
        let votes = raft.prs().conf().voters().contains(*id);
        if votes { voters.push(member) } else { observers.push(member) }
    }
    voters.sort_by_key(|member| member.node_id);
    observers.sort_by_key(|member| member.node_id);
    let leader = node_of(raft.id).unwrap_or_default();
    QuorumDescription { leader, term: raft.term, committed: raft.raft_log.committed, voters, observers }
}

/// One that has all there is was caught up when it was heard of last.
fn times_of(heard: &mut Heard, member: u64, has_all: bool) -> Times {
    match heard.last.get_mut(&member) {
        Some(times) => {
            if has_all {
                times.caught_up = times.heard;
            }
            *times
        }
        None => Times { heard: -1, caught_up: -1 },
    }
}
