//! R1 to R16 over a whole cluster: what the nodes have and published against what was ever acknowledged, and against the controller.
//! Invariant: it learns only from snapshots, answers, committed metadata and what the disks really have, never from a replica's insides.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use madang_cluster::metadata::{MetadataImage, PartitionImage};
use madang_cluster::replica::{Appended, Durability, ReplicaSnapshot};
use madang_protocol::types::{LeaderEpoch, NodeId, TopicPartition};
use madang_storage::RestartKind;

use super::{Read, read_view};
use crate::explorer_nodes::MIN_IN_SYNC;
use crate::sim::Violation;

/// A node as the checks see it.
#[derive(Clone, Debug)]
pub struct NodeView {
    /// The node.
    pub id: NodeId,
    /// Its registration.
    pub broker_epoch: i64,
    /// Whether its replica takes part.
    pub serves: bool,
    /// What it published last, while it serves.
    pub snapshot: Option<Arc<ReplicaSnapshot>>,
    /// The batches of its log.
    pub written: Vec<Read>,
    /// Those that would survive a power cut.
    pub durable: Vec<Read>,
}

impl NodeView {
    fn has(&self, durability: Durability, base: i64, content: u64) -> bool {
        let reads = if durability == Durability::Fsync { &self.durable } else { &self.written };
        reads.iter().any(|read| read.header.base_offset.0 == base && read.content == content)
    }
}

/// What is known to be true.
#[derive(Clone, Debug)]
pub struct Truth {
    durability: Durability,
    sent: BTreeMap<u64, u8>,
    /// Contents below the highest high watermark that any leader published, by offset.
    committed: BTreeMap<i64, u64>,
    acked: BTreeMap<i64, u64>,
    /// Contents by epoch and offset.
    ever: BTreeMap<(i32, i64), u64>,
    leaders: BTreeMap<i32, NodeId>,
    /// The highest end that clients were told.
    reported: i64,
    losses: BTreeSet<NodeId>,
    lost: usize,
}

fn broken(code: &'static str, what: impl Into<String>) -> Violation {
    Violation { code, what: what.into() }
}

fn require(holds: bool, code: &'static str, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(broken(code, what())) }
}

impl Truth {
    /// Nothing has happened; these contents will be sent.
    #[must_use]
    pub const fn new(sent: BTreeMap<u64, u8>, durability: Durability) -> Self {
        Self {
            durability,
            sent,
            committed: BTreeMap::new(),
            acked: BTreeMap::new(),
            ever: BTreeMap::new(),
            leaders: BTreeMap::new(),
            reported: 0,
            losses: BTreeSet::new(),
            lost: 0,
        }
    }

    /// How many copies were lost.
    #[must_use]
    pub const fn losses(&self) -> usize {
        self.lost
    }

    /// The node's copy has lost what it was counted on for.
    pub fn lost(&mut self, node: NodeId) {
        self.lost += usize::from(self.losses.insert(node));
    }

    /// R5: a lossy start costs both sets and the lead. C10 is the image's own check.
    ///
    /// # Errors
    /// The broken invariant.
    pub fn registered(&self, node: NodeId, left: RestartKind, state: Option<&PartitionImage>) -> Result<(), Violation> {
        let Some(state) = state.filter(|_| left == RestartKind::Lossy) else { return Ok(()) };
        let counts = state.leader == node
            || state.in_sync_replicas.contains(&node)
            || state.eligible_leader_replicas.contains(&node);
        require(!counts, "R5", || format!("{node} is counted on after a lossy start: {state:?}"))
    }

    /// A replica publishes. `current` is the controller's leader epoch.
    ///
    /// # Errors
    /// The broken invariant.
    pub fn published(
        &mut self,
        node: NodeId,
        current: Option<LeaderEpoch>,
        snapshot: &ReplicaSnapshot,
        before: Option<&ReplicaSnapshot>,
    ) -> Result<(), Violation> {
        let view = &snapshot.view;
        let (start, high, end) = (view.log_start_offset().0, snapshot.high_watermark.0, view.log_end_offset().0);
        let stable = snapshot.last_stable_offset.0;
        require(start <= stable && stable <= high && high <= end, "R13", || {
            format!("{node}: start {start}, stable {stable}, high watermark {high}, end {end}")
        })?;
        let known = before.map_or(0, |before| before.high_watermark.0);
        require(high >= known || self.losses.contains(&node), "R6", || {
            format!("{node}: high watermark {high} after {known}")
        })?;
        require(end >= known || self.losses.contains(&node), "R13", || {
            format!("{node}: cut to {end}, below the high watermark {known}")
        })?;
        let Some(epoch) = snapshot.leader_epoch else { return Ok(()) };
        let first = *self.leaders.entry(epoch.0).or_insert(node);
        require(first == node, "R7", || format!("{first} and {node} lead in epoch {epoch}"))?;
        let found = read_view(view, 0, end).map_err(|error| broken("S4", error.to_string()))?;
        for read in found.iter().filter(|read| read.header.next_offset().0 <= high) {
            let base = read.header.base_offset.0;
            let committed = *self.committed.entry(base).or_insert(read.content);
            require(committed == read.content, "R11", || format!("{node} serves another record at {base}"))?;
        }
        if let Ok(told) = snapshot.end_for_clients() {
            let stale = current.is_some_and(|current| epoch < current);
            require(stale || told.0 >= self.reported, "R6", || {
                format!("{node} tells clients that the end is {told}, it was {}", self.reported)
            })?;
            self.reported = self.reported.max(told.0);
        }
        Ok(())
    }

    /// R9 and R10: a leader acknowledges a record.
    ///
    /// # Errors
    /// The broken invariant.
    pub fn acknowledged(
        &mut self,
        node: NodeId,
        content: u64,
        appended: &Appended,
        views: &[NodeView],
    ) -> Result<(), Violation> {
        let base = appended.base_offset.0;
        self.acked.insert(base, content);
        let leader = views.iter().find(|view| view.id == node).and_then(|view| view.snapshot.clone());
        let Some(leader) = leader else { return Err(broken("R9", format!("{node} acknowledges and does not serve"))) };
        require(leader.high_watermark.0 > base, "R9", || {
            format!("{node}: acknowledged at {base}, high watermark {}", leader.high_watermark)
        })?;
        let members = &leader.maximal_isr;
        require(members.len() >= MIN_IN_SYNC, "R9", || format!("{node}: acknowledged with {members:?} in sync"))?;
        for view in views.iter().filter(|view| members.contains(&view.id) && !self.losses.contains(&view.id)) {
            require(view.has(self.durability, base, content), "R10", || {
                format!("{node}: acknowledged at {base}, and {} does not have it", view.id)
            })?;
        }
        Ok(())
    }

    /// All that can be true by chance only: for telling states apart.
    pub fn hash_into<H: Hasher>(&self, hasher: &mut H) {
        (&self.committed, &self.acked, &self.ever, &self.leaders, self.reported, &self.losses, self.lost).hash(hasher);
    }
}

/// What holds after every event.
///
/// # Errors
/// The broken invariant.
pub fn check(
    truth: &mut Truth,
    views: &[NodeView],
    state: Option<&PartitionImage>,
    image: &MetadataImage,
) -> Result<(), Violation> {
    for view in views {
        logs(truth, view)?;
    }
    matching(views)?;
    let Some(state) = state else { return Ok(()) };
    for view in views {
        candidates(truth, view, state, image)?;
        superset(view, state)?;
    }
    for (base, content) in truth.committed.iter().chain(&truth.acked) {
        let somewhere = views.iter().any(|view| view.has(truth.durability, *base, *content));
        require(somewhere || truth.lost >= MIN_IN_SYNC, "R12", || format!("the record at {base} is nowhere"))?;
    }
    Ok(())
}

/// R7, R8, S6, T6 of one log.
fn logs(truth: &mut Truth, view: &NodeView) -> Result<(), Violation> {
    let (mut at, mut last_epoch) = (0, -1);
    let mut seen = BTreeSet::new();
    for read in &view.written {
        let (base, epoch) = (read.header.base_offset.0, read.header.partition_leader_epoch.0);
        require(base == at, "R8", || format!("{}: {base} where {at} is next", view.id))?;
        require(epoch >= last_epoch, "R7", || format!("{}: epoch {epoch} after {last_epoch}", view.id))?;
        (at, last_epoch) = (read.header.next_offset().0, epoch);
        require(truth.sent.contains_key(&read.content), "S6", || format!("{}: nobody wrote {base}", view.id))?;
        let first = *truth.ever.entry((epoch, base)).or_insert(read.content);
        require(first == read.content, "R7", || format!("two records at {base} of epoch {epoch}"))?;
        require(seen.insert(read.content), "T6", || format!("{}: one record twice, again at {base}", view.id))?;
    }
    Ok(())
}

/// R1: equal logs below the lower high watermark.
fn matching(views: &[NodeView]) -> Result<(), Violation> {
    for (place, one) in views.iter().enumerate() {
        for other in views.iter().skip(place + 1) {
            let (Some(first), Some(second)) = (&one.snapshot, &other.snapshot) else { continue };
            let below = first.high_watermark.min(second.high_watermark).0;
            let part = |view: &NodeView| {
                let reads = view.written.iter().take_while(|read| read.header.next_offset().0 <= below);
                reads.map(|read| read.content).collect::<Vec<_>>()
            };
            require(part(one) == part(other), "R1", || format!("{} and {} differ below {below}", one.id, other.id))?;
        }
    }
    Ok(())
}

/// R2 and R3: the leader, and who may be elected, has all that was ever acknowledged.
fn candidates(truth: &Truth, view: &NodeView, state: &PartitionImage, image: &MetadataImage) -> Result<(), Violation> {
    let current = image.broker(view.id).is_some_and(|broker| broker.broker_epoch == view.broker_epoch);
    if !view.serves || !current {
        return Ok(());
    }
    let code = if state.leader == view.id {
        "R2"
    } else if state.in_sync_replicas.contains(&view.id) || state.eligible_leader_replicas.contains(&view.id) {
        "R3"
    } else {
        return Ok(());
    };
    for (base, content) in truth.committed.iter().chain(&truth.acked) {
        require(view.has(truth.durability, *base, *content), code, || {
            format!("{} may lead in {state:?} and lacks the record at {base}", view.id)
        })?;
    }
    Ok(())
}

/// R4: the maximal set of a leader that is not stale holds all that the controller may elect from.
fn superset(view: &NodeView, state: &PartitionImage) -> Result<(), Violation> {
    let Some(snapshot) = &view.snapshot else { return Ok(()) };
    if state.leader != view.id || snapshot.leader_epoch != Some(state.leader_epoch) {
        return Ok(());
    }
    let mut counted = state.in_sync_replicas.iter().chain(&state.eligible_leader_replicas);
    let holds = state.in_sync_replicas.len() < MIN_IN_SYNC || counted.all(|node| snapshot.maximal_isr.contains(node));
    require(holds, "R4", || format!("{} waits for {:?}, the controller has {state:?}", view.id, snapshot.maximal_isr))
}

/// R16, C9, C10: one decision of the controller.
///
/// # Errors
/// The broken invariant.
pub fn decided(before: &MetadataImage, after: &MetadataImage, partition: TopicPartition) -> Result<(), Violation> {
    for broker in after.brokers() {
        let known = before.broker(broker.node_id);
        let grows = known.is_none_or(|known| match known.incarnation_id == broker.incarnation_id {
            true => known.broker_epoch <= broker.broker_epoch,
            false => known.broker_epoch < broker.broker_epoch,
        });
        require(grows, "C10", || format!("the broker epoch of {} does not rise with its life", broker.node_id))?;
    }
    let epochs: BTreeSet<i64> = after.brokers().map(|broker| broker.broker_epoch).collect();
    require(epochs.len() == after.brokers().count(), "C10", || "two registrations have one broker epoch".to_owned())?;
    let Some(state) = after.partition_by_id(partition) else { return Ok(()) };
    let raw = |nodes: &[NodeId]| nodes.iter().copied().collect::<BTreeSet<_>>();
    let (in_sync, eligible) = (raw(&state.in_sync_replicas), raw(&state.eligible_leader_replicas));
    let assigned = raw(&state.assigned_replicas);
    let what = || format!("{state:?}");
    require(in_sync.is_subset(&assigned) && eligible.is_subset(&assigned), "R16", what)?;
    require(in_sync.is_disjoint(&eligible), "R16", what)?;
    require(in_sync.len() < MIN_IN_SYNC || eligible.is_empty(), "R16", what)?;
    let live = |node: &NodeId| after.broker(*node).is_some_and(|broker| !broker.fenced);
    require(in_sync.iter().all(live), "R16", what)?;
    let Some(old) = before.partition_by_id(partition) else { return Ok(()) };
    if **old != **state {
        require(state.partition_epoch == old.partition_epoch + 1, "C9", what)?;
    }
    require(state.leader_epoch >= old.leader_epoch, "R7", what)?;
    let moved = state.leader != old.leader;
    require(!moved || state.leader_epoch > old.leader_epoch, "R7", what)
}
