//! The leader's side of replication: what each follower has, who is in sync, and how far the high watermark may go.
//! Invariant: a follower counts only by a fetch of this leader epoch and of its newest life that the two logs agree on; nothing of an earlier
//! leadership is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_protocol::types::{LeaderEpoch, NodeId, Offset};
use madang_storage::mutants::mutant;

use super::isr::InSync;
use super::replication::{Assignment, Confirmed, FollowerFetch, IsrMember, IsrProposal, ProposalOutcome};
use super::{Durability, ReplicaConfig};

/// How long a leader waits after a refused or lost proposal before it makes the next one.
const PROPOSAL_BACK_OFF: Duration = Duration::from_millis(200);

/// What the leader's own log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    /// Its end.
    pub(super) log_end: Offset,
    /// Its end as the partition's durability counts it.
    pub(super) counted: Offset,
}

/// What a follower was last known to have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Follower {
    broker_epoch: i64,
    incarnation: u64,
    fetch_offset: Offset,
    confirmed_offset: Offset,
    /// When it was last looked at without having all there was, and the log's end then: once it has that, it was caught up at that time.
    mark: (Mono, Offset),
    /// When it last had all there was; none if it never had.
    last_caught_up: Option<Mono>,
}

impl Follower {
    fn counted(&self, durability: Durability) -> Offset {
        match durability {
            // Never more than it fetched of this leader or confirmed since: both come from the log that was found to match.
            Durability::Fsync if !mutant(39) => self.confirmed_offset,
            Durability::Fsync | Durability::PageCache => self.fetch_offset,
        }
    }

    /// It has come further, or asked again.
    fn progressed(&mut self, now: Mono, own: Own, durability: Durability) {
        let counted = self.counted(durability);
        if counted >= own.log_end {
            self.last_caught_up = Some(now);
        } else if counted >= self.mark.1 {
            // Under steady load it never has all there is, and yet is never more than a sync behind.
            self.last_caught_up = self.last_caught_up.max(Some(self.mark.0));
        } else {
            return;
        }
        self.mark = (now, own.log_end);
    }

    fn is_caught_up(&self, now: Mono, own: Own, config: &ReplicaConfig) -> bool {
        let lately = |at: Mono| now.saturating_since(at) <= config.replica_lag_time_max;
        self.counted(config.durability) >= own.log_end || self.last_caught_up.is_some_and(lately)
    }
}

/// One leadership.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    /// None for a leader that has no others: its settings say how many are in sync.
    assignment: Option<Box<Assignment>>,
    epoch: LeaderEpoch,
    /// Where its log ended when the leadership began.
    epoch_start: Offset,
    since: Mono,
    isr: InSync,
    followers: BTreeMap<NodeId, Follower>,
    /// Nodes of which nothing has come for a session, or since a proposal left them out.
    silent: BTreeSet<NodeId>,
    propose_at: Option<Mono>,
}

impl Leader {
    /// A leader of a partition that is on no other node.
    pub(super) const fn sole(epoch: LeaderEpoch, epoch_start: Offset, now: Mono) -> Self {
        Self {
            assignment: None,
            epoch,
            epoch_start,
            since: now,
            isr: InSync::new(BTreeSet::new(), -1, BTreeSet::new(), 1),
            followers: BTreeMap::new(),
            silent: BTreeSet::new(),
            propose_at: None,
        }
    }

    /// A leader by the metadata. `in_doubt` and `next_number` are an earlier life's, if it led in the same epoch.
    pub(super) fn new(
        assignment: Box<Assignment>,
        epoch_start: Offset,
        now: Mono,
        in_doubt: BTreeSet<NodeId>,
        next_number: u64,
    ) -> Self {
        let committed = assignment.in_sync_replicas.clone();
        Self {
            epoch: assignment.leader_epoch,
            epoch_start,
            since: now,
            isr: InSync::new(committed, assignment.partition_epoch, in_doubt, next_number),
            assignment: Some(assignment),
            followers: BTreeMap::new(),
            silent: BTreeSet::new(),
            propose_at: None,
        }
    }

    /// Planted bug 3: what followers had in the last epoch counts in this one.
    pub(super) fn keep_followers_of(&mut self, old: &Self) {
        self.followers.clone_from(&old.followers);
    }

    pub(super) const fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    pub(super) const fn epoch_start(&self) -> Offset {
        self.epoch_start
    }

    pub(super) const fn partition_epoch(&self) -> i32 {
        self.isr.partition_epoch()
    }

    pub(super) const fn isr(&self) -> &InSync {
        &self.isr
    }

    /// The metadata has a newer state of the same leadership.
    pub(super) fn assigned(&mut self, assignment: Box<Assignment>) {
        self.isr.committed_is(assignment.in_sync_replicas.clone(), assignment.partition_epoch);
        self.assignment = Some(assignment);
    }

    /// Whether the committed in-sync set is large enough for acks=all and for the high watermark to move.
    pub(super) fn has_quorum(&self, config: &ReplicaConfig) -> bool {
        let in_sync = match &self.assignment {
            Some(_) => self.isr.committed().len(),
            None => config.in_sync_replicas,
        };
        in_sync >= config.min_in_sync_replicas.min(config.replication_factor) || mutant(5)
    }

    fn this_node(&self) -> Option<NodeId> {
        self.assignment.as_ref().map(|assignment| assignment.node_id)
    }

    /// Whether the follower is registered as it says, and not fenced.
    fn is_eligible(&self, node_id: NodeId, follower: &Follower) -> bool {
        let registered = self.assignment.as_ref().and_then(|assignment| assignment.broker_epochs.get(&node_id));
        registered == Some(&follower.broker_epoch) && !self.silent.contains(&node_id)
    }

    /// Takes a fetch that was found valid. What is of an older registration or life says nothing.
    pub(super) fn fetched(&mut self, now: Mono, fetch: &FollowerFetch, own: Own, durability: Durability) {
        let position = &fetch.position;
        if position.leader_epoch != self.epoch || position.fetch_offset > own.log_end {
            return;
        }
        if !self.assignment.as_ref().is_some_and(|assignment| assignment.assigned_replicas.contains(&fetch.node_id)) {
            return;
        }
        let life = (fetch.broker_epoch, position.incarnation);
        let known = self.followers.get(&fetch.node_id).map(|known| (known.broker_epoch, known.incarnation));
        if known.is_some_and(|known| life < known) {
            return;
        }
        if known != Some(life) {
            // A new registration begins with nothing that an older one had.
            let registered = |known: &&Follower| known.broker_epoch == life.0;
            let same = self.followers.get(&fetch.node_id).filter(registered);
            let in_sync = self.isr.committed().contains(&fetch.node_id) && (known.is_none() || same.is_some());
            let last_caught_up = same.and_then(|known| known.last_caught_up);
            let fresh = Follower {
                broker_epoch: life.0,
                incarnation: life.1,
                fetch_offset: Offset::ZERO,
                confirmed_offset: Offset::ZERO,
                mark: (now, own.log_end),
                last_caught_up: last_caught_up.or(in_sync.then_some(self.since)),
            };
            self.followers.insert(fetch.node_id, fresh);
        }
        self.silent.remove(&fetch.node_id);
        let Some(follower) = self.followers.get_mut(&fetch.node_id) else { return };
        follower.fetch_offset = follower.fetch_offset.max(position.fetch_offset);
        let confirmed = position.confirmed_offset.min(position.fetch_offset);
        follower.confirmed_offset = follower.confirmed_offset.max(confirmed);
        follower.progressed(now, own, durability);
    }

    /// Takes a durable end that moved after a fetch of the same life in this epoch.
    pub(super) fn confirmed(&mut self, now: Mono, confirmed: &Confirmed, own: Own, durability: Durability) {
        if confirmed.leader_epoch != self.epoch || confirmed.confirmed_offset > own.log_end {
            return;
        }
        let life = (confirmed.broker_epoch, confirmed.incarnation);
        let Some(follower) = self.followers.get_mut(&confirmed.node_id) else { return };
        if (follower.broker_epoch, follower.incarnation) != life {
            return;
        }
        self.silent.remove(&confirmed.node_id);
        follower.confirmed_offset = follower.confirmed_offset.max(confirmed.confirmed_offset);
        follower.progressed(now, own, durability);
    }

    /// Nothing has come from that node for a session; its next fetch ends that. A leadership that is younger has not waited for it as long.
    pub(super) fn silent(&mut self, now: Mono, node_id: NodeId, session: Duration) {
        if now.saturating_since(self.since) >= session {
            self.silent.insert(node_id);
        }
    }

    fn counted(&self, node_id: NodeId, own: Own, durability: Durability) -> Option<Offset> {
        if Some(node_id) == self.this_node() {
            return Some(own.counted);
        }
        self.followers.get(&node_id).map(|follower| follower.counted(durability))
    }

    /// How far the high watermark may go: the lowest counted offset of the maximal in-sync set, and of those who are about to join it. None if
    /// it may not move.
    pub(super) fn high_watermark(&self, now: Mono, own: Own, config: &ReplicaConfig) -> Option<Offset> {
        if !self.has_quorum(config) {
            return None;
        }
        let members = self.isr.maximal();
        let mut lowest = own.counted;
        for member in &members {
            lowest = lowest.min(self.counted(*member, own, config.durability).unwrap_or(Offset::ZERO));
        }
        for (node_id, follower) in self.followers.iter().filter(|(node_id, _)| !members.contains(node_id)) {
            // Else one that is always a sync behind would never reach the high watermark, and so never join.
            if self.is_eligible(*node_id, follower) && follower.is_caught_up(now, own, config) {
                lowest = lowest.min(follower.counted(config.durability));
            }
        }
        Some(lowest)
    }

    /// Whether the follower may join: it has all that is acknowledged, and all of earlier epochs that this leader has.
    fn may_join(&self, node_id: NodeId, follower: &Follower, high_watermark: Offset, config: &ReplicaConfig) -> bool {
        let has = if mutant(33) { follower.fetch_offset } else { follower.counted(config.durability) };
        let eligible = mutant(6) || self.is_eligible(node_id, follower);
        eligible && (has >= high_watermark || mutant(72)) && (has >= self.epoch_start || mutant(2))
    }

    /// Whether a member has fallen behind or silent. One that has not fetched in this epoch is as late as the epoch is old.
    fn is_out(&self, node_id: NodeId, now: Mono, own: Own, config: &ReplicaConfig) -> bool {
        match self.followers.get(&node_id) {
            _ if self.silent.contains(&node_id) => true,
            Some(follower) => !follower.is_caught_up(now, own, config),
            None => now.saturating_since(self.since) > config.replica_lag_time_max,
        }
    }

    /// The in-sync set as it should be, if it is not so.
    fn wanted(&self, now: Mono, own: Own, high_watermark: Offset, config: &ReplicaConfig) -> Option<BTreeSet<NodeId>> {
        let this_node = self.this_node()?;
        let stays = |node: &&NodeId| **node == this_node || !self.is_out(**node, now, own, config);
        let mut wanted: BTreeSet<NodeId> = self.isr.committed().iter().filter(stays).copied().collect();
        // What settles a doubt has to be accepted, so nobody joins by it.
        let joins = |(node, follower): &(&NodeId, &Follower)| {
            !self.isr.is_in_doubt()
                && !self.isr.committed().contains(node)
                && self.may_join(**node, follower, high_watermark, config)
        };
        wanted.extend(self.followers.iter().filter(joins).map(|(node, _)| *node));
        // A proposal of what is committed already raises the partition epoch, which settles what is in doubt.
        (wanted != *self.isr.committed() || self.isr.is_in_doubt()).then_some(wanted)
    }

    /// A proposal, if one is due. It counts at once; the caller publishes that before it sends.
    pub(super) fn propose(
        &mut self,
        now: Mono,
        own: Own,
        high_watermark: Offset,
        config: &ReplicaConfig,
    ) -> Option<IsrProposal> {
        if !self.isr.may_propose() || self.propose_at.is_some_and(|at| now < at) {
            return None;
        }
        // It is due now, whether or not anything is left to propose.
        self.propose_at = None;
        let wanted = self.wanted(now, own, high_watermark, config)?;
        let leader = self.this_node()?;
        // Else one that has fallen silent would join again at once where the high watermark stands, as it has all below it.
        self.silent.extend(self.isr.committed().difference(&wanted));
        let joining: Vec<NodeId> = wanted.difference(self.isr.committed()).copied().collect();
        for node in joining {
            // Else one that joins under load would be dropped again before it can be caught up for once.
            if let Some(follower) = self.followers.get_mut(&node) {
                follower.last_caught_up = Some(now);
            }
        }
        let members = wanted.iter().map(|node| self.member(*node)).collect();
        let partition_epoch = self.isr.partition_epoch();
        let number = self.isr.propose(wanted);
        Some(IsrProposal { number, leader, leader_epoch: self.epoch, partition_epoch, members })
    }

    fn member(&self, node_id: NodeId) -> IsrMember {
        let own_epoch = self.assignment.as_ref().and_then(|assignment| assignment.broker_epochs.get(&node_id)).copied();
        let (broker_epoch, incarnation) = match self.followers.get(&node_id) {
            Some(follower) => (follower.broker_epoch, follower.incarnation),
            None if Some(node_id) == self.this_node() => (own_epoch.unwrap_or(-1), 0),
            None => (-1, 0),
        };
        IsrMember { node_id, broker_epoch, incarnation }
    }

    pub(super) fn proposal_ended(&mut self, now: Mono, number: u64, outcome: ProposalOutcome) {
        if self.isr.ended(number, outcome) && outcome != ProposalOutcome::Committed {
            self.propose_at = Some(now + PROPOSAL_BACK_OFF);
        }
    }

    /// The high watermark waits no longer for those who were about to join and have not come for too long.
    pub(super) fn forget_laggards(&mut self, now: Mono, lag: Duration) {
        let members = self.isr.maximal();
        for (_, follower) in self.followers.iter_mut().filter(|(node, _)| !members.contains(node)) {
            follower.last_caught_up = follower.last_caught_up.filter(|at| now.saturating_since(*at) <= lag);
        }
    }

    /// When time alone may change the in-sync set, or what the high watermark waits for.
    pub(super) fn deadline(&self, own: Own, config: &ReplicaConfig) -> Option<Mono> {
        let this_node = self.this_node()?;
        let lag = config.replica_lag_time_max + Duration::from_millis(1);
        let members = self.isr.maximal();
        let joining = self
            .followers
            .iter()
            .filter(|(node, follower)| !members.contains(node) && follower.counted(config.durability) < own.log_end);
        let joining = joining.filter_map(|(_, follower)| Some(follower.last_caught_up? + lag)).min();
        [joining, self.proposes_at(this_node, own, config)].into_iter().flatten().min()
    }

    fn proposes_at(&self, this_node: NodeId, own: Own, config: &ReplicaConfig) -> Option<Mono> {
        if !self.isr.may_propose() {
            return None;
        }
        if let Some(at) = self.propose_at {
            return Some(at);
        }
        let lag = config.replica_lag_time_max + Duration::from_millis(1);
        let late = |node: &NodeId| match self.followers.get(node) {
            Some(follower) if follower.counted(config.durability) >= own.log_end => None,
            Some(follower) => Some(follower.last_caught_up.unwrap_or(self.since) + lag),
            None => Some(self.since + lag),
        };
        self.isr.committed().iter().filter(|node| **node != this_node).filter_map(late).min()
    }

    pub(super) fn check(&self) {
        if let Some(assignment) = &self.assignment {
            assert_eq!(assignment.leader, Some(assignment.node_id), "who leads is who the metadata names");
            assert!(self.isr.committed().contains(&assignment.node_id), "a leader is in sync");
        }
    }

    /// All that decides, for the digest.
    pub(super) fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        use std::hash::Hash;
        (self.epoch, self.epoch_start, &self.isr, &self.followers, &self.silent, self.propose_at).hash(hasher);
        if let Some(assignment) = &self.assignment {
            assignment.broker_epochs.hash(hasher);
        }
    }
}
