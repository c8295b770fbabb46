//! The network and the controller of the three nodes: links that can be cut in one direction, and decisions that are committed as they are made.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};

use madang_actors::clock::Mono;
use madang_actors::host::clock;
use madang_actors::prng::Prng;
use madang_actors::reply::Reply;
use madang_cluster::configs::BrokerConfig;
use madang_cluster::controller::{
    AlterPartition, ApiResult, Decision, LogDirStart, NewTopic, Outcome, Proposal, RegisterBroker, ReportLoss, decide,
};
use madang_cluster::metadata::{MetadataImage, PartitionImage};
use madang_cluster::replica::links::{CoalescedFetch, FetchAnswers, LinkFuture, Links, Registration, outcome_of};
use madang_cluster::replica::replication::{Assignment, Confirmed, FollowerFetch, ProposalOutcome};
use madang_cluster::replica::serving::{self, LocalFuture, ServingEnv};
use madang_cluster::replica::{ReplicaHandle, ReplicaMessage};
use madang_protocol::types::{NodeId, TopicPartition, Uuid};
use madang_storage::RestartKind;

/// Stands for the controller where links are named.
pub(crate) const CONTROLLER: i32 = 0;

struct Control {
    image: MetadataImage,
    rng: Prng,
    defaults: BrokerConfig,
}

/// What connects the nodes.
pub(crate) struct Net {
    control: Mutex<Control>,
    replicas: Mutex<BTreeMap<NodeId, ReplicaHandle>>,
    /// From whom to whom nothing comes through.
    cut: Mutex<BTreeSet<(i32, i32)>>,
    /// How many answers to the node's fetches are lost.
    losing: Mutex<BTreeMap<i32, usize>>,
    /// What leaders were asked, oldest first.
    asked: Mutex<Vec<FollowerFetch>>,
    /// Whose links panic at the next fetch.
    pub(crate) panics: Mutex<BTreeSet<i32>>,
    reports: Mutex<usize>,
    proposals: Mutex<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl Net {
    /// Nodes 1 to 3 are registered, and hold a topic of one partition, led by node 1.
    pub(crate) fn new(min_in_sync: usize) -> Arc<Self> {
        let control = Control { image: MetadataImage::default(), rng: Prng::new(1), defaults: BrokerConfig::default() };
        let net = Arc::new(Self {
            control: Mutex::new(control),
            replicas: Mutex::default(),
            cut: Mutex::default(),
            losing: Mutex::default(),
            asked: Mutex::default(),
            panics: Mutex::default(),
            reports: Mutex::default(),
            proposals: Mutex::default(),
        });
        for node in 1..=3 {
            net.register(node);
        }
        let topic = NewTopic {
            name: "orders".into(),
            partitions: -1,
            replication_factor: -1,
            assignments: vec![(0, (1..=3).map(NodeId).collect())],
            configs: vec![("min.insync.replicas".into(), Some(min_in_sync.to_string()))],
        };
        net.decide(Proposal::CreateTopics { topics: vec![topic], validate_only: false }).expect("created");
        net
    }

    fn register(&self, node: i32) {
        let directory = Uuid([u8::try_from(node).expect("a small node"); 16]);
        let start = LogDirStart { directory, kind: RestartKind::Lossy, broker_epoch: -1 };
        let registered = self.decide(Proposal::RegisterBroker(RegisterBroker {
            node_id: NodeId(node),
            incarnation_id: Uuid([9; 16]),
            endpoints: Vec::new(),
            rack: None,
            log_dirs: vec![directory],
            starts: vec![start],
        }));
        let Ok(Outcome::Registered(broker_epoch)) = registered else { panic!("{registered:?}") };
        self.decide(Proposal::UnfenceBroker { node_id: NodeId(node), broker_epoch }).expect("unfenced");
    }

    pub(crate) fn partition(&self) -> TopicPartition {
        let topic_id = lock(&self.control).image.topic_id("orders").expect("there");
        TopicPartition { topic_id, partition: 0 }
    }

    pub(crate) fn state(&self) -> Arc<PartitionImage> {
        let partition = self.partition();
        Arc::clone(lock(&self.control).image.partition_by_id(partition).expect("there"))
    }

    pub(crate) fn in_sync(&self) -> Vec<i32> {
        let mut in_sync: Vec<i32> = self.state().in_sync_replicas.iter().map(|node| node.0).collect();
        in_sync.sort_unstable();
        in_sync
    }

    pub(crate) fn broker_epoch(&self, node: i32) -> i64 {
        lock(&self.control).image.broker(NodeId(node)).expect("registered").broker_epoch
    }

    pub(crate) fn fence(&self, node: i32, fenced: bool) {
        let (node_id, broker_epoch) = (NodeId(node), self.broker_epoch(node));
        let proposal = if fenced {
            Proposal::FenceBroker { node_id, broker_epoch }
        } else {
            Proposal::UnfenceBroker { node_id, broker_epoch }
        };
        self.decide(proposal).expect("decided");
    }

    pub(crate) fn decide(&self, proposal: Proposal) -> ApiResult<Outcome> {
        let mut control = lock(&self.control);
        let Control { image, rng, defaults } = &mut *control;
        let Decision { image: next, result, .. } = decide(image, defaults, rng, proposal);
        next.check();
        *image = next;
        drop(control);
        self.publish();
        result
    }

    /// Committed metadata reaches every node that the controller reaches.
    fn publish(&self) {
        let image = lock(&self.control).image.clone();
        for (node, replica) in lock(&self.replicas).iter().filter(|(node, _)| !self.is_cut(CONTROLLER, node.0)) {
            let assignment = Assignment::of(&image, replica.shared().partition(), *node).expect("assigned");
            replica.shared().set_assignment(Arc::new(assignment.clone()));
            // A replica that is down finds it in its shared side.
            drop(replica.actor().try_send(ReplicaMessage::Assign(Box::new(assignment))));
        }
    }

    pub(crate) fn add(&self, node: i32, replica: ReplicaHandle) {
        lock(&self.replicas).insert(NodeId(node), replica);
        self.publish();
    }

    pub(crate) fn is_cut(&self, from: i32, to: i32) -> bool {
        lock(&self.cut).contains(&(from, to))
    }

    /// Nothing comes through between the node and `others`, in both directions.
    pub(crate) fn cut(&self, node: i32, others: &[i32]) {
        lock(&self.cut).extend(others.iter().flat_map(|other| [(node, *other), (*other, node)]));
    }

    pub(crate) fn heal(&self) {
        lock(&self.cut).clear();
        self.publish();
    }

    /// What was cut between the node and `others` is whole again.
    pub(crate) fn mend(&self, node: i32, others: &[i32]) {
        let between = |from: i32, to: i32| from == node && others.contains(&to);
        lock(&self.cut).retain(|(from, to)| !between(*from, *to) && !between(*to, *from));
        self.publish();
    }

    pub(crate) fn lose_answers(&self, node: i32, count: usize) {
        lock(&self.losing).insert(node, count);
    }

    fn loses(&self, node: i32) -> bool {
        let mut losing = lock(&self.losing);
        let Some(left) = losing.get_mut(&node).filter(|left| **left > 0) else { return false };
        *left -= 1;
        true
    }

    /// The node's last fetch that reached a leader.
    pub(crate) fn last_asked(&self, node: i32) -> Option<FollowerFetch> {
        lock(&self.asked).iter().rev().find(|asked| asked.node_id == NodeId(node)).copied()
    }

    /// How many proposals of in-sync sets were sent.
    pub(crate) fn proposals(&self) -> usize {
        *lock(&self.proposals)
    }

    /// How many reports of losses were sent.
    pub(crate) fn reports(&self) -> usize {
        *lock(&self.reports)
    }
}

/// The surroundings of a leader.
pub(crate) struct Leader<'a> {
    pub(crate) net: &'a Net,
    pub(crate) node: i32,
}

impl ServingEnv for Leader<'_> {
    fn now(&self) -> Mono {
        clock::now()
    }

    fn sleep_until(&self, at: Mono) -> LocalFuture<()> {
        Box::pin(tokio::time::sleep_until(clock::instant(at)))
    }

    fn replica(&self, partition: &TopicPartition) -> Option<ReplicaHandle> {
        let replica = lock(&self.net.replicas).get(&NodeId(self.node)).cloned();
        replica.filter(|replica| replica.shared().partition() == *partition)
    }

    fn read<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> LocalFuture<Option<T>> {
        Box::pin(async move { Some(work()) })
    }
}

/// One node's links.
pub(crate) struct Wire {
    pub(crate) net: Arc<Net>,
    pub(crate) node: i32,
}

impl Wire {
    /// Whether a message and its answer would come through.
    fn reaches(&self, other: i32) -> bool {
        !self.net.is_cut(self.node, other)
    }

    fn hears(&self, other: i32) -> bool {
        !self.net.is_cut(other, self.node)
    }
}

/// A lost message is answered by nobody: it is the asker's deadline that ends it.
fn lost<T: Send + 'static>() -> LinkFuture<T> {
    Box::pin(pending())
}

impl Links for Wire {
    fn registration(&self) -> Registration {
        Registration { node_id: NodeId(self.node), broker_epoch: self.net.broker_epoch(self.node) }
    }

    fn fetch(&self, leader: NodeId, fetch: CoalescedFetch, _: Mono) -> LinkFuture<Option<FetchAnswers>> {
        assert!(!lock(&self.net.panics).remove(&self.node), "planted: the link of node {}", self.node);
        if !self.reaches(leader.0) {
            return lost();
        }
        let (net, me) = (Arc::clone(&self.net), self.node);
        let (reply, answer) = Reply::new(|| None);
        actix_rt::spawn(async move {
            lock(&net.asked).extend(fetch.partitions.iter().map(|(_, fetch)| *fetch));
            let answers = serving::answer(&Leader { net: &net, node: leader.0 }, fetch).await;
            if net.is_cut(leader.0, me) || net.loses(me) {
                pending::<()>().await;
            }
            reply.send(Some(answers));
        });
        Box::pin(answer)
    }

    fn confirm(&self, leader: NodeId, confirmed: Vec<(TopicPartition, Confirmed)>, _: Mono) -> LinkFuture<()> {
        if self.reaches(leader.0) {
            serving::take_confirmed(&Leader { net: &self.net, node: leader.0 }, confirmed);
        }
        if self.reaches(leader.0) && self.hears(leader.0) { Box::pin(async {}) } else { lost() }
    }

    fn propose(&self, proposal: AlterPartition, _: Mono) -> LinkFuture<ProposalOutcome> {
        *lock(&self.net.proposals) += 1;
        if !self.reaches(CONTROLLER) {
            return lost();
        }
        let outcome = outcome_of(&self.net.decide(Proposal::AlterPartition(proposal)));
        if self.hears(CONTROLLER) { Box::pin(async move { outcome }) } else { lost() }
    }

    fn report_loss(&self, report: ReportLoss, _: Mono) -> LinkFuture<()> {
        *lock(&self.net.reports) += 1;
        if !self.reaches(CONTROLLER) {
            return lost();
        }
        self.net.decide(Proposal::ReportLoss(report)).expect("noted");
        if self.hears(CONTROLLER) { Box::pin(async {}) } else { lost() }
    }
}
