//! What a step of committed metadata asks of a node: which replicas and shards start, change and end. Pure, so that the simulated
//! node decides as the real one does.
//! Invariant: a topic's data goes only because its tombstone was committed, and before anything new takes the topic's name; one partition's only
//! because a committed state of it says that this node has left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use madang_cluster::configs::BrokerConfig;
use madang_cluster::coordinator::OFFSETS_TOPIC;
use madang_cluster::metadata::{MetadataDelta, MetadataImage, PartitionImage, TopicImage};
use madang_cluster::replica::ReplicaConfig;
use madang_cluster::replica::replication::Assignment;
use madang_protocol::types::{LeaderEpoch, TopicId, TopicPartition};

use crate::replicas::{led_in, replica_config};

/// A replica that this node holds.
#[derive(Clone, Debug)]
pub struct ReplicaPlan {
    /// The partition.
    pub partition: TopicPartition,
    /// Its topic.
    pub topic: Arc<TopicImage>,
    /// The epoch in which this node leads it, if it does.
    pub leads_in: Option<LeaderEpoch>,
    /// What the metadata says of it, if several nodes hold it: who leads it is in there.
    pub assignment: Option<Box<Assignment>>,
    /// Its settings.
    pub config: ReplicaConfig,
}

/// One thing to do. They are done in order, each after the one before it.
#[derive(Clone, Debug)]
pub enum Change {
    /// End the topic's replicas and delete its data. The name is empty if this node never saw the topic.
    DeleteTopic {
        /// The topic's id.
        topic_id: TopicId,
        /// The name it had.
        name: Arc<str>,
    },
    /// Tell a replica whether it leads.
    Lead {
        /// The partition.
        partition: TopicPartition,
        /// The epoch in which it leads, if it does.
        leads_in: Option<LeaderEpoch>,
    },
    /// Tell a replica what the metadata says of a partition that several nodes hold, after its settings.
    Assign {
        /// The partition.
        partition: TopicPartition,
        /// The settings.
        config: Box<ReplicaConfig>,
        /// What it says.
        assignment: Box<Assignment>,
    },
    /// End the replica of a partition that this node has left, and delete its data.
    Remove(TopicPartition),
    /// Start replicas of one topic that this node did not hold.
    Start(Vec<ReplicaPlan>),
    /// Give a replica new settings.
    Configure {
        /// The partition.
        partition: TopicPartition,
        /// The settings.
        config: Box<ReplicaConfig>,
    },
    /// Start the group shards of these partitions of the offsets topic, as far as their replicas are here: one that runs in an older leadership
    /// is started anew.
    StartShards {
        /// The offsets topic.
        topic: Arc<TopicImage>,
        /// The partitions.
        partitions: Vec<i32>,
    },
    /// End the group shards of these partitions, which another node leads.
    EndShards(Vec<i32>),
}

/// Everything that the metadata says this node holds, for its first start.
#[must_use]
pub fn all_replicas(image: &MetadataImage, broker: &BrokerConfig) -> Vec<ReplicaPlan> {
    let full = MetadataDelta::full(image);
    let held = full.changed_partitions(image).filter(|(_, state)| state.assigned_replicas.contains(&broker.node_id));
    let planned = held.filter_map(|(partition, state)| {
        let topic = image.topic_by_id(partition.topic_id)?;
        Some(plan(image, broker, topic, partition, state))
    });
    planned.collect()
}

fn plan(
    image: &MetadataImage,
    broker: &BrokerConfig,
    topic: &Arc<TopicImage>,
    partition: TopicPartition,
    state: &PartitionImage,
) -> ReplicaPlan {
    let assignment = assignment(image, broker, partition, state);
    let leads_in = led_in(state, broker).filter(|_| assignment.is_none());
    let config = replica_config(image, broker, topic, state);
    ReplicaPlan { partition, topic: Arc::clone(topic), leads_in, assignment, config }
}

/// What the metadata says of a partition, if several nodes hold it and this one does.
fn assignment(
    image: &MetadataImage,
    broker: &BrokerConfig,
    partition: TopicPartition,
    state: &PartitionImage,
) -> Option<Box<Assignment>> {
    let of = || Assignment::of(image, partition, broker.node_id).map(Box::new);
    if state.assigned_replicas.len() > 1 { of() } else { None }
}

/// The partitions of the offsets topic that this node leads.
#[must_use]
pub fn led_shards(topic: &TopicImage, broker: &BrokerConfig) -> Vec<i32> {
    let led = topic.partitions.iter().filter(|(_, state)| led_in(state, broker).is_some());
    led.map(|(index, _)| *index).collect()
}

/// What `delta`, which led to `image`, asks of a node that holds `held`: partitions with their topics' names.
#[must_use]
pub fn changes(
    image: &MetadataImage,
    delta: &MetadataDelta,
    broker: &BrokerConfig,
    held: &BTreeMap<TopicPartition, Arc<str>>,
) -> Vec<Change> {
    let deleted =
        delta.deleted_topics().map(|(topic_id, name)| Change::DeleteTopic { topic_id, name: Arc::clone(name) });
    let mut changes: Vec<Change> = deleted.collect();
    // Who learns of a state of the partition knows the settings that it was judged by.
    changes.extend(configured(image, delta, broker, held));
    let mut new: BTreeMap<TopicId, Vec<ReplicaPlan>> = BTreeMap::new();
    let mut left = Vec::new();
    for (partition, state) in delta.changed_partitions(image) {
        let Some(topic) = image.topic_by_id(partition.topic_id) else { continue };
        if held.contains_key(&partition) && state.has_left(broker.node_id) {
            left.push(Change::Remove(partition));
        } else if held.contains_key(&partition) {
            changes.push(told(image, broker, topic, partition, state));
        } else if state.assigned_replicas.contains(&broker.node_id) {
            new.entry(partition.topic_id).or_default().push(plan(image, broker, topic, partition, state));
        }
    }
    changes.extend(neighbours_changed(image, delta, broker, held));
    changes.extend(new.into_values().map(Change::Start));
    changes.extend(shards(image, delta, broker));
    // A shard ends before the replica that it reads.
    changes.extend(left);
    changes
}

/// What a replica that is here is told of its partition. Among other nodes a partition may get replicas and lose them again, so there each is
/// told what the metadata says, also one that is alone.
fn told(
    image: &MetadataImage,
    broker: &BrokerConfig,
    topic: &TopicImage,
    partition: TopicPartition,
    state: &PartitionImage,
) -> Change {
    let among_others = broker.node_listener.is_some();
    let alone = || Assignment::of(image, partition, broker.node_id).map(Box::new).filter(|_| among_others);
    match assignment(image, broker, partition, state).or_else(alone) {
        Some(assignment) => {
            let config = Box::new(replica_config(image, broker, topic, state));
            Change::Assign { partition, config, assignment }
        }
        None => Change::Lead { partition, leads_in: led_in(state, broker) },
    }
}

/// A registration of a node is part of what its partitions' other replicas know, whether or not the partition's state has changed with it.
fn neighbours_changed<'a>(
    image: &'a MetadataImage,
    delta: &'a MetadataDelta,
    broker: &'a BrokerConfig,
    held: &'a BTreeMap<TopicPartition, Arc<str>>,
) -> impl Iterator<Item = Change> + 'a {
    let changed: BTreeSet<TopicPartition> = delta.changed_partitions(image).map(|(partition, _)| partition).collect();
    let concerned = held.keys().filter(|_| !delta.brokers.is_empty());
    concerned.filter(move |partition| !changed.contains(partition)).filter_map(|&partition| {
        let (topic, state) = (image.topic_by_id(partition.topic_id)?, image.partition_by_id(partition)?);
        let concerns = state.assigned_replicas.iter().any(|node| delta.brokers.contains(node));
        let shared = state.assigned_replicas.len() > 1;
        (concerns && shared).then(|| told(image, broker, topic, partition, state))
    })
}

/// The group shards that this node is to run from now on, and those that it is not.
fn shards(image: &MetadataImage, delta: &MetadataDelta, broker: &BrokerConfig) -> Vec<Change> {
    let Some(topic) = image.topic(OFFSETS_TOPIC) else { return Vec::new() };
    let changed = delta.changed_partitions(image).filter(|(partition, _)| partition.topic_id == topic.topic_id);
    let (led, not): (Vec<_>, Vec<_>) = changed.partition(|(_, state)| led_in(state, broker).is_some());
    let indexes = |of: Vec<(TopicPartition, _)>| of.into_iter().map(|(partition, _)| partition.partition).collect();
    let (partitions, others): (Vec<i32>, Vec<i32>) = (indexes(led), indexes(not));
    let start = Change::StartShards { topic: Arc::clone(topic), partitions };
    let end = Change::EndShards(others);
    let asks = |change: &Change| match change {
        Change::StartShards { partitions, .. } | Change::EndShards(partitions) => !partitions.is_empty(),
        _ => true,
    };
    [end, start].into_iter().filter(asks).collect()
}

/// New settings for every replica whose topic's, or whose broker's, have changed.
fn configured<'a>(
    image: &'a MetadataImage,
    delta: &'a MetadataDelta,
    broker: &'a BrokerConfig,
    held: &'a BTreeMap<TopicPartition, Arc<str>>,
) -> impl Iterator<Item = Change> + 'a {
    let all = delta.broker_configs_changed();
    let named: Vec<&Arc<str>> = delta.changed_topic_configs().collect();
    let concerned = held.iter().filter(move |(_, topic)| all || named.contains(topic));
    concerned.filter_map(|(&partition, _)| {
        let topic = image.topic_by_id(partition.topic_id)?;
        let state = image.partition_by_id(partition)?;
        Some(Change::Configure { partition, config: Box::new(replica_config(image, broker, topic, state)) })
    })
}

#[cfg(test)]
mod tests {
    use madang_actors::prng::Prng;
    use madang_cluster::controller::{
        AlterPartition, InternalTopic, NamedPartition, NewTopic, Outcome, Proposal, Reassignment, RegisterBroker,
        decide,
    };
    use madang_cluster::metadata::TopicChange;
    use madang_cluster::replica::replication::IsrMember;
    use madang_protocol::types::{NodeId, Uuid};

    use super::*;

    struct World {
        image: MetadataImage,
        broker: BrokerConfig,
    }

    impl World {
        /// Three nodes that serve; this one is number 1.
        fn new() -> Self {
            let mut world = Self { image: MetadataImage::default(), broker: BrokerConfig::default() };
            for node in 1..=3 {
                let registered = RegisterBroker {
                    node_id: NodeId(node),
                    incarnation_id: Uuid([9; 16]),
                    endpoints: Vec::new(),
                    rack: None,
                    log_dirs: Vec::new(),
                    starts: Vec::new(),
                };
                world.decide(Proposal::RegisterBroker(registered));
                world.fence(node, false);
            }
            world
        }

        fn decide(&mut self, proposal: Proposal) -> Outcome {
            let decided = decide(&self.image, &self.broker, &mut Prng::new(1), proposal);
            self.image = decided.image;
            decided.result.expect("decided")
        }

        /// Fences the node, or has it serve; answers what has changed by that.
        fn fence(&mut self, node: i32, fenced: bool) -> MetadataDelta {
            let (node_id, before) = (NodeId(node), self.image.clone());
            let broker_epoch = before.broker(node_id).expect("registered").broker_epoch;
            self.decide(if fenced {
                Proposal::FenceBroker { node_id, broker_epoch }
            } else {
                Proposal::UnfenceBroker { node_id, broker_epoch }
            });
            let mut delta = MetadataDelta { brokers: [node_id].into(), ..MetadataDelta::default() };
            for topic in self.image.topics() {
                let changed = |index: &i32| before.partition(&topic.name, *index) != topic.partitions.get(index);
                let partitions: BTreeSet<i32> = topic.partitions.keys().copied().filter(changed).collect();
                if !partitions.is_empty() {
                    delta.topics.insert(topic.topic_id, TopicChange::Changed { created: false, partitions });
                }
            }
            delta
        }

        fn held(&self) -> BTreeMap<TopicPartition, Arc<str>> {
            let plans = all_replicas(&self.image, &self.broker);
            plans.into_iter().map(|plan| (plan.partition, Arc::clone(&plan.topic.name))).collect()
        }

        fn changes(&self, delta: &MetadataDelta) -> Vec<Change> {
            changes(&self.image, delta, &self.broker, &self.held())
        }

        /// The shards that this node is to run.
        fn led(&self) -> Vec<i32> {
            led_shards(self.image.topic(OFFSETS_TOPIC).expect("there"), &self.broker)
        }
    }

    /// Moves the only partition of `a` and answers what this node, 1, has to do.
    fn moved(world: &mut World, replicas: &[i32], in_sync: &[i32]) -> Vec<Change> {
        let held = world.held();
        let partition = NamedPartition { topic: "a".into(), partition: 0 };
        let replicas = Some(replicas.iter().copied().map(NodeId).collect());
        let reassignments = vec![Reassignment { partition, replicas }];
        world.decide(Proposal::AlterReassignments { reassignments, allow_factor_change: true });
        let topic_id = world.image.topic_id("a").expect("there");
        let state = Arc::clone(world.image.partition("a", 0).expect("there"));
        let member = |node: &i32| {
            let node_id = NodeId(*node);
            let broker_epoch = world.image.broker(node_id).expect("registered").broker_epoch;
            IsrMember { node_id, broker_epoch, incarnation: 1 }
        };
        let asked = AlterPartition {
            partition: TopicPartition { topic_id, partition: 0 },
            node_id: state.leader,
            broker_epoch: world.image.broker(state.leader).expect("registered").broker_epoch,
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            in_sync_replicas: in_sync.iter().map(member).collect(),
        };
        world.decide(Proposal::AlterPartition(asked));
        let changed = TopicChange::Changed { created: false, partitions: [0].into() };
        let delta = MetadataDelta { topics: [(topic_id, changed)].into(), ..MetadataDelta::default() };
        changes(&world.image, &delta, &world.broker, &held)
    }

    #[test]
    fn a_replica_goes_when_a_committed_state_says_that_its_node_has_left_and_not_before() {
        let mut world = World::new();
        world.broker.node_listener = Some(("a".into(), 1));
        let assignments = vec![(0, vec![NodeId(1)])];
        let topic = NewTopic { name: "a".into(), partitions: -1, replication_factor: -1, assignments, configs: vec![] };
        world.decide(Proposal::CreateTopics { topics: vec![topic], validate_only: false });
        let begun = moved(&mut world, &[2], &[1]);
        assert!(matches!(&begun[..], [Change::Assign { .. }]), "it gets another replica: {begun:?}");
        let ended = moved(&mut world, &[2], &[1, 2]);
        assert!(matches!(&ended[..], [Change::Remove(partition)] if partition.partition == 0), "{ended:?}");
        let back = moved(&mut world, &[1, 2], &[2]);
        assert!(matches!(&back[..], [Change::Start(plans)] if plans[0].assignment.is_some()), "{back:?}");
        let alone = moved(&mut world, &[1], &[1, 2]);
        let sole = |change: &Change| matches!(change, Change::Assign { assignment, .. } if assignment.assigned_replicas.len() == 1);
        assert!(alone.len() == 1 && sole(&alone[0]), "{alone:?}");
    }

    fn assigned(changes: &[Change]) -> BTreeSet<TopicPartition> {
        let of = |change: &Change| match change {
            Change::Assign { partition, .. } => Some(*partition),
            _ => None,
        };
        changes.iter().filter_map(of).collect()
    }

    #[test]
    fn whoever_holds_a_partition_with_others_hears_of_every_change_of_them_and_runs_the_shards_that_it_leads() {
        let mut world = World::new();
        world.decide(Proposal::CreateInternalTopic(InternalTopic::ConsumerOffsets));
        let plans = all_replicas(&world.image, &world.broker);
        assert_eq!(plans.len(), 50);
        assert!(plans.iter().all(|plan| plan.leads_in.is_none() && plan.assignment.is_some()), "by assignment alone");
        let all: BTreeSet<_> = world.held().into_keys().collect();
        let before = world.led();
        assert!((1..50).contains(&before.len()));

        let changed = {
            let delta = world.fence(2, true);
            world.changes(&delta)
        };
        assert_eq!(assigned(&changed), all, "each has node 2 in its in-sync set");
        let started = changed.iter().find_map(|change| match change {
            Change::StartShards { partitions, .. } => Some(partitions.clone()),
            _ => None,
        });
        assert_eq!(started, Some(world.led()));
        assert!(world.led().len() > before.len(), "what node 2 led is led by others");

        let delta = world.fence(2, false);
        assert!(delta.topics.is_empty(), "no partition's state changes by it");
        let changed = world.changes(&delta);
        assert_eq!((assigned(&changed), changed.len()), (all.clone(), 50), "yet each hears of the registration");

        let changed = {
            let delta = world.fence(1, true);
            world.changes(&delta)
        };
        assert_eq!((assigned(&changed), world.led()), (all, vec![]));
        assert!(changed.iter().any(|change| matches!(change, Change::EndShards(ended) if ended.len() == 50)));
    }
}
