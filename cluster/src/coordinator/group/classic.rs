//! A group's members, votes and state, and the rules that need no other part of the shard.
//! Invariant: the vote counts are those of the members; the leader is a member; `awaiting_join` counts the parked joins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_actors::clock::Wall;

use super::subscription;
use crate::coordinator::ErrorCode;
use crate::coordinator::message::Ticket;
use crate::coordinator::records::{GroupRecord, Key, MemberRecord, Value};
use crate::coordinator::store::{Change, Store};
use crate::request::RequestId;

/// The protocol type whose subscriptions the coordinator can read.
pub(crate) const CONSUMER: &str = "consumer";

/// Where a group is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// No members.
    Empty,
    /// Waiting for members to join the next generation.
    PreparingRebalance,
    /// Waiting for the leader's assignment.
    CompletingRebalance,
    /// Members work.
    Stable,
}

impl State {
    /// The name clients and tools know.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A member.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Member {
    pub(super) group_instance_id: Option<Arc<str>>,
    pub(super) client_id: Arc<str>,
    pub(super) client_host: Arc<str>,
    pub(super) rebalance_timeout: Duration,
    pub(super) session_timeout: Duration,
    /// Most preferred first; never empty.
    pub(super) protocols: Vec<(Arc<str>, Bytes)>,
    pub(super) assignment: Bytes,
    /// Has not had the answer to its first join: it knows no id to keep alive with.
    pub(super) is_new: bool,
    pub(super) awaiting_join: Option<RequestId>,
    pub(super) awaiting_sync: Option<RequestId>,
}

impl Member {
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| &**name == protocol).map(|(_, bytes)| bytes.clone()).unwrap_or_default()
    }
}

/// The wait before the first rebalance of an empty group.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct InitialDelay {
    /// The part of the rebalance timeout that extensions may still use.
    pub(super) remaining: Duration,
    /// Somebody joined since the wait was last extended.
    pub(super) new_member: bool,
}

/// A classic group.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Group {
    pub(super) id: Arc<str>,
    pub(super) state: State,
    pub(super) state_timestamp: Option<Wall>,
    pub(super) protocol_type: Option<Arc<str>>,
    pub(super) protocol: Option<Arc<str>>,
    pub(super) generation: i32,
    pub(super) leader: Option<Arc<str>>,
    pub(super) members: BTreeMap<Arc<str>, Member>,
    pub(super) static_members: BTreeMap<Arc<str>, Arc<str>>,
    /// Ids given out by `MEMBER_ID_REQUIRED` that have not joined yet.
    pub(super) pending: BTreeSet<Arc<str>>,
    pub(super) pending_sync: BTreeSet<Arc<str>>,
    pub(super) awaiting_join: usize,
    votes: BTreeMap<Arc<str>, usize>,
    pub(super) initial_delay: Option<InitialDelay>,
    /// None if the subscriptions cannot be known.
    pub(super) subscribed: Option<BTreeSet<Arc<str>>>,
    /// The last append of the group's own record.
    pub(super) last_append: Option<Ticket>,
    /// The group emptied while the partition took no appends.
    pub(super) unpersisted: bool,
}

impl Group {
    /// A group without members and without a record.
    pub(crate) fn new(id: Arc<str>, wall: Option<Wall>) -> Self {
        Self {
            id,
            state: State::Empty,
            state_timestamp: wall,
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            awaiting_join: 0,
            votes: BTreeMap::new(),
            initial_delay: None,
            subscribed: None,
            last_append: None,
            unpersisted: false,
        }
    }

    /// The group that `record` describes: stable if it has members.
    pub(crate) fn from_record(id: Arc<str>, record: &GroupRecord) -> Self {
        let mut group = Self::new(id, (record.state_timestamp >= 0).then_some(Wall(record.state_timestamp)));
        group.protocol_type = Some(record.protocol_type.clone()).filter(|kind| !kind.is_empty());
        group.generation = record.generation;
        for member in &record.members {
            if group.members.contains_key(&member.member) {
                continue; // Not a record that a coordinator writes.
            }
            let session = millis(member.session_timeout_ms);
            let rebalance = if member.rebalance_timeout_ms < 0 { session } else { millis(member.rebalance_timeout_ms) };
            let protocol = record.protocol.clone().unwrap_or_default();
            let loaded = Member {
                group_instance_id: member.group_instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout: rebalance,
                session_timeout: session,
                protocols: vec![(protocol, member.subscription.clone())],
                assignment: member.assignment.clone(),
                is_new: false,
                awaiting_join: None,
                awaiting_sync: None,
            };
            group.insert(member.member.clone(), loaded);
        }
        if !group.members.is_empty() {
            group.state = State::Stable;
            group.protocol = Some(record.protocol.clone().unwrap_or_default());
            let leader = record.leader.clone().filter(|leader| group.members.contains_key(leader));
            group.leader = leader.or_else(|| group.members.keys().next().cloned());
        }
        group.subscribed = group.compute_subscribed();
        group
    }

    /// The record that stores the group as it is.
    pub(super) fn change(&self) -> Change {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| MemberRecord {
            member: id.clone(),
            group_instance_id: member.group_instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: as_millis(member.rebalance_timeout),
            session_timeout_ms: as_millis(member.session_timeout),
            subscription: member.metadata(protocol),
            assignment: member.assignment.clone(),
        });
        let record = GroupRecord {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_timestamp: self.state_timestamp.map_or(-1, Wall::as_millis),
            members: members.collect(),
        };
        (Key::Group { group: self.id.clone() }, Some(Value::Group(record)))
    }

    pub(crate) fn id(&self) -> &Arc<str> {
        &self.id
    }

    pub(super) fn transition(&mut self, to: State, wall: Wall) {
        let from = self.state;
        let valid = match to {
            State::Empty | State::CompletingRebalance => from == State::PreparingRebalance,
            State::PreparingRebalance => from != State::PreparingRebalance,
            State::Stable => from == State::CompletingRebalance,
        };
        assert!(valid, "group {} cannot go from {from:?} to {to:?}", self.id);
        self.state = to;
        self.state_timestamp = Some(wall);
    }

    pub(super) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    pub(super) fn is_consumer_group(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// Whether a member with these protocols could work with the members there are.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[(Arc<str>, Bytes)]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| self.votes.get(name).copied().unwrap_or(0) == self.members.len())
    }

    /// Members with an id that is not the member's own, or unknown, are refused.
    pub(super) fn validate(&self, member: &str, instance: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(owner) if **owner != *member => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    pub(super) fn insert(&mut self, id: Arc<str>, member: Member) {
        for name in distinct(&member.protocols) {
            *self.votes.entry(name).or_default() += 1;
        }
        if let Some(instance) = &member.group_instance_id {
            self.static_members.insert(instance.clone(), id.clone());
        }
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        self.pending.remove(&id);
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        self.members.insert(id, member);
    }

    /// Takes a member out; its parked requests are the caller's to answer.
    pub(super) fn take(&mut self, id: &str) -> Option<Member> {
        self.pending_sync.remove(id);
        let member = self.members.remove(id)?;
        for name in distinct(&member.protocols) {
            if let Some(count) = self.votes.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    self.votes.remove(&name);
                }
            }
        }
        if let Some(instance) = &member.group_instance_id
            && self.static_members.get(instance).is_some_and(|owner| **owner == *id)
        {
            self.static_members.remove(instance);
        }
        self.awaiting_join -= usize::from(member.awaiting_join.is_some());
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    pub(super) fn has_all_joined(&self) -> bool {
        self.members.len() == self.awaiting_join && self.pending.is_empty()
    }

    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    /// Keeps the leader if it rejoined, else takes another member that did. False if nobody did.
    pub(super) fn elect_leader(&mut self) -> bool {
        let rejoined = |member: &Member| member.awaiting_join.is_some();
        if self.leader.as_ref().and_then(|leader| self.members.get(leader)).is_some_and(rejoined) {
            return true;
        }
        let next = self.members.iter().find(|(_, member)| rejoined(member)).map(|(id, _)| id.clone());
        let found = next.is_some();
        if found {
            self.leader = next;
        }
        found
    }

    /// The protocol most members prefer among those that all of them speak; the first by name of equals.
    pub(super) fn select_protocol(&self) -> Option<Arc<str>> {
        let common = |name: &Arc<str>| self.votes.get(name).copied() == Some(self.members.len());
        let mut ballots: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member.protocols.iter().map(|(name, _)| name).find(|name| common(name))?;
            *ballots.entry(vote).or_default() += 1;
        }
        let most = ballots.values().max().copied()?;
        ballots.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.clone())
    }

    pub(super) fn compute_subscribed(&self) -> Option<BTreeSet<Arc<str>>> {
        if !self.is_consumer_group() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut all = BTreeSet::new();
        for member in self.members.values() {
            all.extend(subscription::topics(&member.metadata(protocol)).ok()?);
        }
        Some(all)
    }

    /// Whether offsets of `topic` are in use. A consumer group whose subscriptions are unknown may use every topic.
    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        self.subscribed.as_ref().map_or(self.is_consumer_group(), |topics| topics.contains(topic))
    }

    pub(crate) fn parked(&self) -> impl Iterator<Item = RequestId> {
        self.members.values().flat_map(|member| [member.awaiting_join, member.awaiting_sync]).flatten()
    }

    pub(crate) fn is_unpersisted(&self) -> bool {
        self.unpersisted
    }

    /// Nobody is a member or about to be one.
    pub(super) fn is_deletable(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty()
    }

    /// Neither a member nor anything persisted is left.
    pub(crate) fn is_void(&self, store: &Store) -> bool {
        self.is_deletable()
            && store.group(&self.id).is_none()
            && !store.has_offsets(&self.id)
            && store.corrupt_keys(&self.id).is_none()
    }

    /// G6: a stable group has one protocol that all its members speak, a leader among them and a generation.
    pub(crate) fn check(&self) {
        let id = &self.id;
        let joins = self.members.values().filter(|member| member.awaiting_join.is_some()).count();
        assert_eq!(joins, self.awaiting_join, "group {id}: parked joins are miscounted");
        assert!(self.votes.values().all(|count| *count <= self.members.len()), "group {id}: more votes than members");
        assert!(
            self.pending.iter().all(|member| !self.members.contains_key(member)),
            "group {id}: a member is pending"
        );
        for (instance, member) in &self.static_members {
            let owner = self.members.get(member).and_then(|member| member.group_instance_id.as_ref());
            assert_eq!(owner, Some(instance), "group {id}: a static member is another's");
        }
        match self.state {
            State::Empty => assert!(self.members.is_empty(), "group {id}: empty with members"),
            State::PreparingRebalance => {}
            State::CompletingRebalance | State::Stable => {
                assert!(!self.members.is_empty(), "group {id}: {:?} without members", self.state);
                assert!(self.protocol.is_some(), "group {id}: no protocol");
                assert!(self.leader.as_ref().is_some_and(|l| self.members.contains_key(l)), "group {id}: no leader");
                assert_eq!(self.awaiting_join, 0, "group {id}: a join is parked in {:?}", self.state);
            }
        }
        if self.state != State::CompletingRebalance {
            let parked = self.members.values().any(|member| member.awaiting_sync.is_some());
            assert!(!parked, "group {id}: a sync is parked in {:?}", self.state);
        }
    }
}

fn distinct(protocols: &[(Arc<str>, Bytes)]) -> BTreeSet<Arc<str>> {
    protocols.iter().map(|(name, _)| name.clone()).collect()
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn as_millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
