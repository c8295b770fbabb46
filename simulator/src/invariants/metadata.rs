//! C3, C4, C8, T1: what is committed stays, the same index is the same state, and clients see no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use madang_actors::clock::Mono;
use madang_cluster::metadata::MetadataImage;
use madang_cluster::replica::ReplicaConfig;
use madang_protocol::types::{TopicId, TopicPartition};

use crate::node::Node;
use crate::sim::Sim;

/// A topic whose creation was acknowledged.
#[derive(Clone, Debug)]
struct Promise {
    topic_id: TopicId,
    partitions: i32,
    since: Mono,
    version: u64,
}

/// What is known of the metadata.
#[derive(Clone, Debug, Default)]
pub struct MetadataHistory {
    /// The state's digest at each index.
    digests: BTreeMap<u64, u64>,
    promised: BTreeMap<String, Promise>,
    /// Topics whose deletion was asked for.
    doomed: BTreeSet<TopicId>,
    /// Topics whose deletion was acknowledged, and when.
    deleted: BTreeMap<TopicId, Mono>,
    producer_ids: BTreeSet<i64>,
}

impl MetadataHistory {
    /// Whether the topic's deletion was asked for, so that it may go at any time.
    #[must_use]
    pub fn is_doomed(&self, topic_id: TopicId) -> bool {
        self.doomed.contains(&topic_id)
    }
}

/// A topic as a client was told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its id; zero where the version has none.
    pub topic_id: TopicId,
    /// Its partitions.
    pub partitions: i32,
}

/// C4: the controller shows committed metadata.
pub fn committed(sim: &Sim, image: &MetadataImage) {
    let (version, digest) = (image.version(), image.digest());
    sim.note("committed", &[i64::try_from(version).unwrap_or(0)]);
    image.check();
    let first = sim.history.borrow().learn(|metadata| *metadata.digests.entry(version).or_insert(digest));
    sim.require(first == digest, "C4", || format!("two states of the metadata at index {version}"));
}

/// C3: a process shows metadata to its clients; nothing that was ever shown is gone from it.
pub fn shown(node: &Node, image: &Arc<MetadataImage>) {
    let before = node.shown.borrow().version();
    node.sim.require(image.version() >= before, "C3", || {
        format!("metadata of index {} is shown after {before}", image.version())
    });
    *node.shown.borrow_mut() = Arc::clone(image);
}

/// A replica starts with these settings.
pub fn started(sim: &Sim, partition: TopicPartition, internal: bool, config: &ReplicaConfig) {
    let mut history = sim.history.borrow_mut();
    let known = history.of(partition);
    known.internal = internal;
    known.retains = config.deletes_old_records && config.log.retention_bytes.is_some();
    known.compacted = config.compaction.is_some() && sim.swarm.nodes == 1;
}

/// The creation of a topic, or of more partitions, was acknowledged, when `version` of the metadata was committed.
pub fn promised(sim: &Sim, name: &str, topic_id: TopicId, partitions: i32, version: u64) {
    let promise = Promise { topic_id, partitions, since: sim.now(), version };
    sim.history.borrow().learn(|metadata| metadata.promised.insert(name.to_owned(), promise));
}

/// A topic is about to be deleted, so that nothing is promised of it any more.
pub fn doomed(sim: &Sim, name: &str, topic_id: TopicId) {
    let mut history = sim.history.borrow_mut();
    history.learn(|metadata| {
        metadata.promised.remove(name);
        metadata.doomed.insert(topic_id);
    });
    for (partition, known) in &mut history.partitions {
        known.doomed |= partition.topic_id == topic_id;
    }
}

/// A deletion was acknowledged.
pub fn deleted(sim: &Sim, topic_id: TopicId) {
    let now = sim.now();
    sim.history.borrow().learn(|metadata| metadata.deleted.insert(topic_id, now));
}

/// A client that asked at `asked`, of a node that had applied `version` then, for all topics is told of these.
pub fn listed(sim: &Sim, (asked, version): (Mono, u64), topics: &[Listed]) {
    let history = sim.history.borrow();
    let metadata = history.metadata();
    for (name, promise) in
        metadata.promised.iter().filter(|(_, promise)| promise.since < asked && promise.version <= version)
    {
        let found = topics.iter().find(|topic| topic.name == *name);
        let same = found.is_some_and(|found| {
            (found.topic_id == promise.topic_id || found.topic_id.is_zero()) && found.partitions >= promise.partitions
        });
        sim.require(same, "C3", || format!("{promise:?} of {name} was acknowledged; a client is told of {found:?}"));
    }
    for topic in topics {
        let gone = metadata.deleted.get(&topic.topic_id).is_some_and(|since| *since < asked);
        sim.require(!gone, "C8", || format!("{topic:?} was deleted, and a client is told of it"));
    }
}

/// T1: a producer got its id.
pub fn producer_id(sim: &Sim, id: i64) {
    let fresh = sim.history.borrow().learn(|metadata| metadata.producer_ids.insert(id));
    sim.require(fresh, "T1", || format!("producer id {id} was given out twice"));
}
