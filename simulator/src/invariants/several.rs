//! R1 to R16 of whole clusters: what each node has and publishes against its own log before, against what any leader has committed, and against
//! the controller.
//! Invariant: it learns only from snapshots, answers, committed metadata and what the disks really have, never from a replica's insides.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use madang_cluster::metadata::{MetadataImage, PartitionImage};
use madang_cluster::replica::{Appended, ReplicaSnapshot, RequiredAcks};
use madang_protocol::types::{NodeId, TopicPartition};

use crate::cluster::{Cluster, MIN_IN_SYNC};
use crate::cover;
use crate::history::{Acked, PartitionHistory, Stored};
use crate::invariants::storage::surviving;
use crate::invariants::{cluster as decisions, read_view, replication};
use crate::node::{Node, Slot};
use crate::sim::{Sim, Violation};

/// A replica publishes a snapshot; `before` is what its process published of it last.
pub fn published(
    cluster: &Cluster,
    node: &Node,
    slot: &Slot,
    snapshot: &ReplicaSnapshot,
    before: Option<&ReplicaSnapshot>,
) {
    let (sim, partition) = (&node.sim, slot.partition);
    let (start, end) = (snapshot.view.log_start_offset().0, snapshot.view.log_end_offset().0);
    let (stable, high) = (snapshot.last_stable_offset.0, snapshot.high_watermark.0);
    let leads = snapshot.leader_epoch.map_or(-1, |epoch| epoch.0);
    sim.note("publish", &[i64::from(node.id.0), start, high, end, snapshot.confirmed_end.0, i64::from(leads)]);
    sim.tell(|| {
        let (epoch, maximal) = (snapshot.known_epoch, &snapshot.maximal_isr);
        format!(
            "{} of {}-{}: epoch {epoch}, waits for {maximal:?}, {:?}",
            node.id, slot.topic, partition.partition, snapshot.loss
        )
    });
    let what = || format!("{} of {partition:?}: {start}, {stable}, {high}, {end}", node.id);
    sim.require(start <= stable && stable <= high && high <= end, "R13", what);
    let known = before.filter(|before| before.loss.is_none() && snapshot.loss.is_none());
    if let Some(known) = known.map(|known| known.high_watermark.0) {
        sim.require(high >= known, "R6", || format!("{}: the high watermark was {known}", what()));
        sim.require(end >= known, "R13", || format!("{}: cut below the high watermark {known}", what()));
    }
    own_log(cluster, node, slot, snapshot, before);
    if snapshot.leader_epoch.is_some() {
        led(cluster, node, slot, snapshot, before);
    }
}

/// R7, R8, R10, S2, S6 of the node's own log, as far as it may have changed.
fn own_log(cluster: &Cluster, node: &Node, slot: &Slot, snapshot: &ReplicaSnapshot, before: Option<&ReplicaSnapshot>) {
    let (sim, partition) = (&node.sim, slot.partition);
    let (start, end) = (snapshot.view.log_start_offset().0, snapshot.view.log_end_offset().0);
    let mut history = sim.history.borrow_mut();
    let safe = history.of(partition).high_watermark.min(history.of(partition).end).max(start);
    let fresh = sim.look(|| read_view(&snapshot.view, safe, end)).unwrap_or_default();
    let same_leader =
        snapshot.leader_epoch.is_some() && before.is_some_and(|one| one.leader_epoch == snapshot.leader_epoch);
    let gone = history.of(partition).stored.split_off(&safe);
    let mut at = None;
    let mut last_epoch = history.of(partition).stored.last_key_value().map_or(-1, |(_, last)| last.epoch);
    for read in &fresh {
        let (base, next, epoch) =
            (read.header.base_offset.0, read.header.next_offset().0, read.header.partition_leader_epoch.0);
        let place = || format!("{} of {partition:?} at {base}", node.id);
        sim.require(read.sound, "S2", || format!("{}: a damaged batch", place()));
        sim.require(history.sent(read.content).is_some(), "S6", || format!("{}: nobody wrote it", place()));
        sim.require(at.is_none_or(|at| at == base), "R8", || format!("{}, where {at:?} is next", place()));
        sim.require(epoch >= last_epoch, "R7", || format!("{}: epoch {epoch} after {last_epoch}", place()));
        (at, last_epoch) = (Some(next), epoch);
        history.of(partition).stored.insert(base, Stored { content: read.content, epoch, next });
        let mut truth = cluster.sim.history.borrow_mut();
        let first = *truth.of(partition).ever.entry((epoch, base)).or_insert(read.content);
        sim.require(first == read.content, "R7", || format!("{}: two batches of epoch {epoch}", place()));
    }
    sim.require(at.is_none_or(|at| at == end), "R8", || format!("{}: ends at {at:?}, not {end}", node.id));
    let kept = |base: &i64, was: &Stored| holds(&fresh, *base, was.content);
    if let Some((base, _)) = gone.iter().find(|(base, was)| !kept(base, was)) {
        cover!("log cut to its leader's");
        sim.require(!same_leader, "R8", || format!("{} leads {partition:?} and has changed {base}", node.id));
    }
    let own = history.of(partition);
    let (confirmed_before, confirmed) = (own.confirmed, snapshot.confirmed_end.0);
    (own.end, own.kept, own.log_start) = (end, snapshot.known_end().0, start);
    own.confirmed = snapshot.recovery_point().0;
    // What the node itself is held to: a follower hears of a high watermark that its own disk has not reached.
    own.high_watermark = snapshot.high_watermark.min(snapshot.recovery_point()).0;
    if confirmed <= confirmed_before {
        return;
    }
    let from = confirmed_before.max(start);
    let first = own.stored.range(..=from).next_back().map_or(0, |(base, _)| *base);
    let stored = own.stored.range(first..).map(|(base, stored)| (*base, *stored)).collect();
    drop(history);
    let fresh = PartitionHistory { stored, ..PartitionHistory::default() };
    replication::durable(sim, partition, &slot.directory, &fresh, from, confirmed);
}

fn holds(fresh: &[super::Read], base: i64, content: u64) -> bool {
    fresh.iter().any(|read| read.header.base_offset.0 == base && read.content == content)
}

/// R1, R7, R9, R10, R11: what a leader says is committed.
fn led(cluster: &Cluster, node: &Node, slot: &Slot, snapshot: &ReplicaSnapshot, before: Option<&ReplicaSnapshot>) {
    let (sim, partition) = (&cluster.sim, slot.partition);
    let Some(epoch) = snapshot.leader_epoch else { return };
    let high = snapshot.high_watermark.0;
    let mut truth = sim.history.borrow_mut();
    let first = *truth.leaders.entry((partition, epoch.0)).or_insert(node.id);
    sim.require(first == node.id, "R7", || format!("{first} and {} lead {partition:?} in epoch {epoch}", node.id));
    let known = truth.of(partition);
    let begins = before.is_none_or(|before| before.leader_epoch != Some(epoch));
    let from = if begins { 0 } else { known.high_watermark };
    let own = {
        let mut history = node.sim.history.borrow_mut();
        let stored = &history.of(partition).stored;
        let first = stored.range(..=from).next_back().map_or(0, |(base, _)| *base);
        stored.range(first..high.max(first)).map(|(base, stored)| (*base, *stored)).collect::<BTreeMap<_, _>>()
    };
    let mut fresh = BTreeMap::new();
    for (base, stored) in own.iter().filter(|(_, stored)| stored.next > from && stored.next <= high) {
        let first = known.stored.entry(*base).or_insert_with(|| {
            fresh.insert(*base, *stored);
            *stored
        });
        sim.require(first.content == stored.content, "R1", || {
            format!("{} leads {partition:?} and has another batch at {base} than was committed", node.id)
        });
    }
    known.high_watermark = known.high_watermark.max(high);
    known.end = known.high_watermark;
    let committed = if begins { known.stored.clone() } else { BTreeMap::new() };
    drop(truth);
    if begins {
        let current = cluster.newest.borrow().partition_by_id(partition).cloned();
        if current.is_some_and(|state| state.leader == node.id && state.leader_epoch == epoch) {
            has_all(cluster, node, &slot.directory, partition, &committed, "R2");
        }
        superset(cluster, node, slot, snapshot);
    }
    if fresh.is_empty() {
        return;
    }
    let members = &snapshot.maximal_isr;
    sim.require(members.len() >= MIN_IN_SYNC, "R9", || {
        format!("{} commits in {partition:?} with {members:?} in sync", node.id)
    });
    let counted = members.iter().filter_map(|id| cluster.node(*id));
    for member in counted.filter(|member| !was_given_up(cluster, member, partition, snapshot)) {
        has_all(cluster, &member, &slot.directory, partition, &fresh, "R10");
    }
}

/// Whether the member has lost stored data since it told the leader what it had, and is not counted on by the controller, be it no more or, as the
/// leader has only proposed it, not yet: what the leader commits by its word is on all others that it waits for.
fn was_given_up(cluster: &Cluster, member: &Node, partition: TopicPartition, snapshot: &ReplicaSnapshot) -> bool {
    let newest = cluster.newest.borrow();
    let state = newest.partition_by_id(partition).filter(|state| state.partition_epoch >= snapshot.partition_epoch);
    let counts = |state: &PartitionImage| {
        state.in_sync_replicas.contains(&member.id) || state.eligible_leader_replicas.contains(&member.id)
    };
    member.doubted.get().is_some() && state.is_some_and(|state| !counts(state))
}

/// Each of `batches` is where it counts on the node's disk, unless that may have lost what it was counted on for.
fn has_all(
    cluster: &Cluster,
    node: &Node,
    directory: &Path,
    partition: TopicPartition,
    batches: &BTreeMap<i64, Stored>,
    code: &'static str,
) {
    let Some((first, _)) = batches.first_key_value() else { return };
    if cluster.is_doubted(node) {
        return;
    }
    let doomed = cluster.sim.history.borrow_mut().of(partition).doomed;
    let found = if cluster.sim.swarm.page_cache {
        let mut history = node.sim.history.borrow_mut();
        let stored = history.of(partition).stored.range(*first..);
        stored.map(|(base, stored)| (*base, stored.content)).collect()
    } else {
        surviving(&node.sim, directory, *first)
    };
    for (base, stored) in batches {
        let there = doomed || found.get(base) == Some(&stored.content);
        let held = cluster.sim.require(there, code, || {
            format!("{} is counted on for {partition:?} and lacks the committed batch at {base}", node.id)
        });
        if !held {
            return;
        }
    }
}

/// R4: the maximal set of a leader that is not stale holds all that the controller may elect from.
fn superset(cluster: &Cluster, node: &Node, slot: &Slot, snapshot: &ReplicaSnapshot) {
    let newest = cluster.newest.borrow();
    let Some(state) = newest.partition_by_id(slot.partition) else { return };
    if state.leader != node.id || snapshot.leader_epoch != Some(state.leader_epoch) {
        return;
    }
    let mut counted = state.in_sync_replicas.iter().chain(&state.eligible_leader_replicas);
    let small = state.in_sync_replicas.len() < MIN_IN_SYNC;
    let holds = small || counted.all(|member| snapshot.maximal_isr.contains(member));
    cluster.sim.require(holds, "R4", || {
        format!("{} waits for {:?}, the controller has {state:?}", node.id, snapshot.maximal_isr)
    });
}

/// A leader acknowledges a batch.
pub fn acknowledged(
    cluster: &Cluster,
    node: &Node,
    partition: TopicPartition,
    content: u64,
    acks: RequiredAcks,
    appended: &Appended,
    published: Option<&ReplicaSnapshot>,
) {
    if acks != RequiredAcks::All {
        return;
    }
    let sim = &cluster.sim;
    let (base, next) = (appended.base_offset.0, appended.last_offset.0 + 1);
    let high = published.map_or(-1, |snapshot| snapshot.high_watermark.0);
    let members = published.map_or(0, |snapshot| snapshot.maximal_isr.len());
    sim.require(high >= next && members >= MIN_IN_SYNC, "R9", || {
        format!("{} of {partition:?}: acknowledged to {next}, high watermark {high}, {members} in sync", node.id)
    });
    let mut truth = sim.history.borrow_mut();
    let known = truth.of(partition);
    let stored = known.stored.get(&base).copied();
    sim.require(stored.is_some_and(|stored| stored.content == content), "R10", || {
        format!("{} of {partition:?}: acknowledged at {base}, where {stored:?} is committed", node.id)
    });
    if known.acked.insert(base, Acked { content, all: true }).is_some() {
        cover!("duplicate answered with its original");
    }
    cover!("acked by the high watermark");
}

/// R3, R4, R16, C9, C10: the controller has decided something.
pub fn decided(cluster: &Cluster, before: &MetadataImage, after: &Arc<MetadataImage>) {
    let one_step = after.version() == before.version() + 1;
    for broker in after.brokers().filter(|broker| before.broker(broker.node_id) != Some(*broker)) {
        cluster.sim.tell(|| format!("{} in epoch {}, fenced {}", broker.node_id, broker.broker_epoch, broker.fenced));
    }
    for topic in after.topics() {
        for (index, state) in &topic.partitions {
            let partition = TopicPartition { topic_id: topic.topic_id, partition: *index };
            if before.partition_by_id(partition).is_some_and(|old| old == state) {
                continue;
            }
            if state.assigned_replicas.len() >= MIN_IN_SYNC {
                let judged = decisions::decided(before, after, partition);
                // Several steps at once raise the partition epoch by more than one.
                let judged = judged.or_else(|found| if found.code == "C9" && !one_step { Ok(()) } else { Err(found) });
                if let Err(Violation { code, what }) = judged {
                    cluster.sim.violate(code, what);
                }
            }
            cluster.sim.note("state", &[i64::from(state.leader.0), i64::from(state.leader_epoch.0)]);
            cluster.sim.tell(|| {
                let (in_sync, eligible) = (&state.in_sync_replicas, &state.eligible_leader_replicas);
                let epochs = (state.leader_epoch.0, state.partition_epoch);
                format!(
                    "{}-{index}: led by {}, epochs {epochs:?}, in sync {in_sync:?}, eligible {eligible:?}",
                    topic.name, state.leader
                )
            });
            candidates(cluster, partition, &topic.name, state);
        }
    }
}

/// R3: whoever may be elected has all that was ever committed.
fn candidates(cluster: &Cluster, partition: TopicPartition, topic: &str, state: &PartitionImage) {
    let committed = cluster.sim.history.borrow_mut().of(partition).stored.clone();
    let directory = Path::new(crate::node::DATA).join(format!("{topic}-{}", partition.partition));
    let counted = state.in_sync_replicas.iter().chain(&state.eligible_leader_replicas);
    for node in counted.filter_map(|id| cluster.node(*id)) {
        has_all(cluster, &node, &directory, partition, &committed, "R3");
    }
}

/// R1, R12, L4: at rest all replicas have the same committed batches, and all that was acknowledged.
pub fn at_rest(cluster: &Cluster) {
    let sim: &Sim = &cluster.sim;
    let image = Arc::clone(&cluster.newest.borrow());
    for topic in image.topics() {
        for (index, state) in &topic.partitions {
            let partition = TopicPartition { topic_id: topic.topic_id, partition: *index };
            let known = sim.history.borrow_mut().of(partition).clone();
            for (base, acked) in &known.acked {
                let stored = known.stored.get(base);
                sim.require(stored.is_some_and(|stored| stored.content == acked.content), "R12", || {
                    format!("{partition:?}: the batch acknowledged at {base} is not the committed one")
                });
            }
            for id in &state.assigned_replicas {
                replica_at_rest(cluster, *id, partition, &known.stored, known.high_watermark);
            }
        }
    }
}

fn replica_at_rest(
    cluster: &Cluster,
    id: NodeId,
    partition: TopicPartition,
    committed: &BTreeMap<i64, Stored>,
    high: i64,
) {
    let sim = &cluster.sim;
    let slot = cluster.node(id).and_then(|node| node.slots().into_iter().find(|slot| slot.partition == partition));
    let snapshot = slot.and_then(|slot| slot.handle.shared().last_published());
    let Some(snapshot) = snapshot else {
        return sim.violate("L6", format!("{id} has no replica of {partition:?} at the end"));
    };
    let told = snapshot.high_watermark.0;
    sim.require(told >= high, "L4", || format!("{id} of {partition:?} is at {told} long after {high} was committed"));
    let found = read_view(&snapshot.view, 0, high.min(told)).unwrap_or_default();
    let found: BTreeMap<i64, u64> = found
        .into_iter()
        .map(|read| (read.header.base_offset.0, read.content))
        .filter(|(base, _)| *base < high)
        .collect();
    let same = found.len() == committed.len()
        && committed.iter().all(|(base, stored)| found.get(base) == Some(&stored.content));
    sim.require(same, "R1", || format!("{id} of {partition:?} has other batches below {high} than were committed"));
}
