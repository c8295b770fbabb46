//! Three nodes with a replica of one partition each, over disks in memory, on a clock that jumps to the next timer whenever nothing runs.

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use madang_actors::actor_ref::ActorRef;
use madang_actors::child_spec::{Backoff, Strategy};
use madang_actors::host::{Branch, Child, Placement, ShellContext, StartResult, Tree, TreeOptions, clock};
use madang_actors::mailbox::Capacity;
use madang_actors::reply::Answer;
use madang_cluster::replica::actor::{Directory, ReplicaActor};
use madang_cluster::replica::fetcher::FetcherConfig;
use madang_cluster::replica::fetching::actor::FetcherActor;
use madang_cluster::replica::fetching::{FetcherRef, Fetchers};
use madang_cluster::replica::links::Links;
use madang_cluster::replica::{
    AppendResult, Durability, Neighbours, Replica, ReplicaConfig, ReplicaHandle, ReplicaMessage, ReplicaSnapshot,
    RequiredAcks, SharedReplica,
};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::record_batch::{BatchBuilder, BatchOptions, ProduceRules, ValidatedBatch, validate_produced};
use madang_protocol::types::{LeaderEpoch, NodeId, TopicPartition};
use madang_storage::{
    Checkpoint, CompactionJob, Disk, FaultDisk, Log, LogConfig, OpenLog, OpenMode, Start, SyncRequest,
};
use tokio::sync::watch;

use crate::wire::{Net, Wire};

/// `replica.lag.time.max.ms`.
pub(crate) const LAG: Duration = Duration::from_secs(10);
/// `min.insync.replicas`.
const MIN_IN_SYNC: usize = 2;
/// Where each node has its log.
const LOG: &str = "/data/orders-0";

/// Runs `test` in an actix system whose clock jumps to the next timer whenever nothing runs.
pub(crate) fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    actix_rt::System::with_tokio_rt(runtime).block_on(test)
}

/// Lets the actors run until `condition` holds; it has two minutes of their time.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = clock::now() + Duration::from_secs(120);
    while !condition() {
        assert!(clock::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Lets the actors run until all of them wait for time to pass.
pub(crate) async fn idle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// The answer, if it is there.
pub(crate) fn answered(answer: &mut Answer<AppendResult>) -> Option<AppendResult> {
    match Pin::new(answer).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// A batch of one record of that value.
pub(crate) fn validated(value: u8) -> ValidatedBatch {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(0, None, Some(&[value; 40]), &[]).unwrap();
    validate_produced(&builder.build().unwrap(), &ProduceRules::default()).unwrap()
}

/// What can go wrong on one node.
struct Faults {
    /// Whether the next publication panics.
    panic: AtomicBool,
    /// Whether half of the log's bytes and a few more go with it.
    damage: AtomicBool,
    /// What happens during the next publication that does not panic.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    disk: FaultDisk,
    /// Whether syncs wait.
    held: watch::Sender<bool>,
}

#[derive(Clone)]
struct TestDirectory(Arc<Faults>);

impl Directory for TestDirectory {
    fn sync(&self, request: SyncRequest, context: &ShellContext<ReplicaMessage>) {
        let (life, mut held) = (context.this_life(), self.0.held.subscribe());
        actix_rt::spawn(async move {
            drop(held.wait_for(|held| !held).await);
            drop(life.try_send(ReplicaMessage::Synced(request.perform())));
        });
    }

    fn compact(&self, _: CompactionJob, _: &mut ShellContext<ReplicaMessage>) {}

    fn note(&self, _: TopicPartition, _: &ReplicaSnapshot) {
        if self.0.panic.swap(false, Ordering::Relaxed) {
            if self.0.damage.swap(false, Ordering::Relaxed) {
                let path = Path::new(LOG).join("00000000000000000000.log");
                let file = self.0.disk.open(&path, OpenMode::Existing).unwrap();
                file.truncate(file.len().unwrap() / 2 - 4).unwrap();
            }
            panic!("planted: a publication");
        }
        let meanwhile = self.0.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
    }

    fn lower(&self, _: TopicPartition, _: Checkpoint, number: u64, context: &mut ShellContext<ReplicaMessage>) {
        let life = context.this_life();
        context.spawn(async move { drop(life.try_send(ReplicaMessage::Lowered(number))) });
    }

    fn fail(&self, why: &str) {
        panic!("a directory fails: {why}");
    }
}

/// A node.
pub(crate) struct Node {
    pub(crate) replica: ReplicaHandle,
    fetchers: Arc<Fetchers>,
    faults: Arc<Faults>,
}

/// The three nodes.
pub(crate) struct World {
    pub(crate) net: Arc<Net>,
    nodes: Vec<Node>,
    tree: Tree,
}

pub(crate) fn config(durability: Durability) -> ReplicaConfig {
    ReplicaConfig {
        log: LogConfig::default(),
        produce: ProduceRules::default(),
        durability,
        min_in_sync_replicas: MIN_IN_SYNC,
        deletes_old_records: true,
        compaction: None,
        replication_factor: 3,
        in_sync_replicas: 1,
        replica_lag_time_max: LAG,
    }
}

fn quick() -> Backoff {
    Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(5), reset_after: Duration::from_secs(60) }
}

/// One life of a replica, from its disk.
fn life(
    shared: &Arc<SharedReplica>,
    directory: &TestDirectory,
    neighbours: &Neighbours,
    context: &mut ShellContext<ReplicaMessage>,
) -> StartResult<ReplicaActor<TestDirectory>> {
    let (before, incarnation) = (shared.last_published(), context.incarnation().0);
    let open = OpenLog {
        start: if before.is_some() { Start::SameProcess } else { Start::Unclean },
        recovery_point: before.as_ref().map(|before| before.recovery_point()),
        noted: before.as_ref().map(|before| before.note()),
        incarnation,
        ..OpenLog::default()
    };
    let reopen = || Log::open(Arc::new(directory.0.disk.clone()), Path::new(LOG), LogConfig::default(), &open);
    let config = (*shared.config()).clone();
    let replica = match Replica::new(incarnation, reopen()?.0, config.clone(), before.as_deref()) {
        Ok(replica) => replica,
        Err(lost) => Replica::after_loss(incarnation, reopen()?.0, config, lost),
    };
    let mut actor = ReplicaActor::new(replica, Arc::clone(shared), directory.clone()).linked(neighbours.clone());
    actor.begin(context);
    Ok(actor)
}

fn node(id: i32, net: &Arc<Net>, durability: Durability, prepare: &impl Fn(i32, &SharedReplica)) -> (Node, Branch) {
    let disk = FaultDisk::new();
    disk.create_dir(Path::new("/data")).unwrap();
    let (panic, damage) = (AtomicBool::new(false), AtomicBool::new(false));
    let faults = Arc::new(Faults { panic, damage, meanwhile: Mutex::default(), disk, held: watch::Sender::new(false) });
    let shared = Arc::new(SharedReplica::new(net.partition(), "orders".into(), false, None, config(durability)));
    prepare(id, &shared);
    let actor = ActorRef::new("orders-0", Capacity::default());
    let replica = ReplicaHandle::new(Arc::clone(&shared), actor.clone());
    net.add(id, replica.clone());
    let links: Arc<dyn Links> = Arc::new(Wire { net: Arc::clone(net), node: id });
    let peers = Branch::dynamic("peers");
    let (handle, to) = (peers.handle(), Arc::clone(&links));
    let fetchers = Arc::new(Fetchers::new(move |fetcher: &FetcherRef| {
        let (fetcher, links, handle) = (fetcher.clone(), Arc::clone(&to), handle.clone());
        let child = Child::actor(fetcher.clone().actor(), Placement::Here, move |_| {
            Ok(FetcherActor::new(fetcher.clone(), Arc::clone(&links), FetcherConfig::default()))
        });
        actix_rt::spawn(async move { handle.add(child.backoff(quick())).await.expect("it starts") });
    }));
    let neighbours = Neighbours { links, fetchers: Arc::clone(&fetchers) };
    let directory = TestDirectory(Arc::clone(&faults));
    let child = Child::actor(&actor, Placement::Here, move |context| life(&shared, &directory, &neighbours, context));
    let branch = Branch::new(format!("node-{id}"), Strategy::OneForOne).child(peers).child(child.backoff(quick()));
    (Node { replica, fetchers, faults }, branch)
}

impl World {
    /// Three nodes that run, all in sync; node 1 leads.
    pub(crate) async fn new(durability: Durability) -> Self {
        Self::prepared(durability, |_, _| {}).await
    }

    /// As [`World::new`], with one record that everybody has.
    pub(crate) async fn holding_one(durability: Durability) -> Self {
        let world = Self::new(durability).await;
        assert_eq!(world.produce(1, 1).await, Ok(0));
        world.settle(1).await;
        world
    }

    /// As [`World::new`]; `prepare` is given each node's number and its replica before that starts.
    pub(crate) async fn prepared(durability: Durability, prepare: impl Fn(i32, &SharedReplica)) -> Self {
        let net = Net::new(MIN_IN_SYNC);
        let mut nodes = Vec::new();
        let mut root = Branch::new("cluster", Strategy::OneForOne);
        for id in 1..=3 {
            let (node, branch) = node(id, &net, durability, &prepare);
            nodes.push(node);
            root = root.child(branch);
        }
        let on_escalation = Box::new(|reason| panic!("escalated: {reason}"));
        let mut tree = Tree::start(root, TreeOptions { on_escalation, observer: Arc::new(()) });
        tree.ready().await.unwrap();
        let world = Self { net, nodes, tree };
        until("node 1 leads", || world.leads(1).is_some()).await;
        world
    }

    /// Ends all of it, in order, and checks that nothing is left parked.
    pub(crate) async fn end(self) {
        self.tree.shutdown().await;
        let replicas: Vec<_> = self.nodes.into_iter().map(|node| node.replica).collect();
        until("nobody waits on a replica", || replicas.iter().all(|replica| replica.waiters().is_empty())).await;
    }

    pub(crate) fn node(&self, id: i32) -> &Node {
        &self.nodes[usize::try_from(id - 1).unwrap()]
    }

    pub(crate) fn snapshot(&self, id: i32) -> Arc<ReplicaSnapshot> {
        self.node(id).replica.shared().last_published().expect("published")
    }

    /// The epoch in which the node leads.
    pub(crate) fn leads(&self, id: i32) -> Option<LeaderEpoch> {
        self.node(id).replica.shared().last_published()?.leader_epoch
    }

    pub(crate) fn high_watermark(&self, id: i32) -> i64 {
        self.snapshot(id).high_watermark.0
    }

    pub(crate) fn log_end(&self, id: i32) -> i64 {
        self.snapshot(id).view.log_end_offset().0
    }

    /// All bytes of the node's log.
    pub(crate) fn records(&self, id: i32) -> Bytes {
        let view = self.snapshot(id).view.clone();
        let read = view.read(view.log_start_offset(), view.log_end_offset(), 1 << 20, true).unwrap();
        read.records.read().unwrap()
    }

    /// What the node's replica wants of other nodes.
    pub(crate) fn wanted(&self, id: i32) -> Vec<(NodeId, usize)> {
        let all = self.node(id).fetchers.all();
        all.iter().map(|fetcher| (fetcher.leader(), fetcher.wanted())).filter(|(_, wanted)| *wanted > 0).collect()
    }

    pub(crate) fn hold_syncs(&self, id: i32, held: bool) {
        self.node(id).faults.held.send_replace(held);
    }

    /// The node's replica panics as soon as it publishes.
    pub(crate) fn plant_panic(&self, id: i32) {
        self.node(id).faults.panic.store(true, Ordering::Relaxed);
    }

    /// As [`World::plant_panic`], and `meanwhile` happens while its next life begins.
    pub(crate) fn plant_restart(&self, id: i32, meanwhile: impl FnOnce() + Send + 'static) {
        *self.node(id).faults.meanwhile.lock().unwrap() = Some(Box::new(meanwhile));
        self.plant_panic(id);
    }

    /// As [`World::plant_panic`], and the older half of its log is damaged behind its back.
    pub(crate) fn plant_loss(&self, id: i32) {
        self.node(id).faults.damage.store(true, Ordering::Relaxed);
        self.plant_panic(id);
    }

    pub(crate) fn send(&self, id: i32, message: ReplicaMessage) {
        self.node(id).replica.actor().try_send(message).unwrap();
    }

    /// A record of that value, on its way into the node's log; with how it ends.
    pub(crate) fn append(&self, id: i32, value: u8, acks: RequiredAcks, within: Duration) -> Answer<AppendResult> {
        let (message, answer) = ReplicaHandle::append_message(validated(value), acks, clock::now() + within);
        self.send(id, message);
        answer
    }

    /// As [`World::append`] with acks=all and half a minute, waited for.
    pub(crate) async fn produce(&self, id: i32, value: u8) -> Result<i64, ErrorCode> {
        let result = self.append(id, value, RequiredAcks::All, Duration::from_secs(30)).await;
        result.map(|appended| appended.base_offset.0).map_err(|refused| refused.error)
    }

    /// Every node has the leader's log, and its high watermark.
    pub(crate) async fn settle(&self, leader: i32) {
        until("all logs are the leader's", || {
            let (end, high_watermark) = (self.log_end(leader), self.high_watermark(leader));
            let same = |id| self.log_end(id) == end && self.high_watermark(id) == high_watermark;
            high_watermark == end && (1..=3).all(same) && self.net.in_sync() == [1, 2, 3]
        })
        .await;
        assert!((1..=3).all(|id| self.records(id) == self.records(leader)));
    }
}
