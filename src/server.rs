//! Starts and stops a node: threads, sockets, the tree; waits until it serves; ends it in order.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use madang_actors::host::{Arbiter, Branch, Role, Tree, TreeOptions, Watchdog, WatchdogLimits, clock};
use madang_cluster::configs::{BrokerConfig, ListenerConfig};
use madang_cluster::controller::actor::MetadataSyncs;
use madang_cluster::controller::{ControllerConfig, Proposal};
use madang_cluster::metadata::MetadataImage;
use madang_cluster::replica::Neighbours;
use madang_cluster::replica::fetching::{FetcherRef, Fetchers};
use madang_cluster::replica::links::Links;
use madang_protocol::types::Uuid;
use madang_storage::{Disk, DiskLock, OpenMode, RealDisk};
use madang_transport::kafka::{
    ColdReads, ConnectionContext, ConnectionLimits, ConnectionSettings, Listener, ListenerSettings, Shutdown, Worker,
};
use madang_transport::{MemoryBudget, Stats};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;

use crate::admin::{self, AdminState};
use crate::applier::{Applier, Phase};
use crate::connections::accept_limits;
use crate::directory::Directory;
use crate::follower::Feed;
use crate::node_env::Node;
use crate::outer::Outer;
use crate::peers::{NodeLinks, Peers, propose};
use crate::quic_listener::{self, Shown};
use crate::supervision::{self, Neighbourhood, Parts};

/// Where the metadata log is, within the first log directory.
const METADATA_FOLDER: &str = "metadata";
/// Segment files of partitions that are open at once.
const OPEN_FILES: usize = 10_000;
/// The most that is asked of the system.
const MOST_DESCRIPTORS: u64 = 1 << 20;
/// Threads that read what is not warm, and reads that may wait for them.
const COLD_READ_THREADS: usize = 2;
const COLD_READ_QUEUE: usize = 1024;
/// How long requests in flight may take when the node ends.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// How long handing over may take then.
const HAND_OVER: Duration = Duration::from_secs(3);
/// What the process exits with when the root of the tree has given up.
pub const EXIT_ESCALATED: i32 = 70;
/// What the process exits with when a thread that everything needs is stuck.
pub const EXIT_STUCK: i32 = 71;

/// A node that runs.
pub struct Server {
    tree: Tree,
    node: Arc<Node>,
    directories: Vec<Arc<Directory>>,
    shutdown: Shutdown,
    admin: Option<SocketAddr>,
    listeners: Vec<(String, SocketAddr)>,
    quic: Option<Shown>,
    escalated: Arc<AtomicBool>,
    _watchdog: Watchdog,
    _lock: Box<dyn DiskLock>,
}

impl Server {
    /// Starts a node on this thread's actix system and waits until it serves.
    ///
    /// # Errors
    /// A text for a person: an address in use, a directory that cannot be taken, a log that cannot be read.
    pub async fn start(config: BrokerConfig) -> Result<Self, String> {
        let Assembled { parts, shutdown, admin_state, admin, listeners, quic, watchdog, lock } = assemble(config)?;
        let (node, directories) = (Arc::clone(&parts.node), parts.directories.clone());
        let escalated = Arc::new(AtomicBool::new(false));
        let tree = start_tree(parts, &escalated);
        admin_state.show(tree.viewer());
        let (_watchdog, _lock) = (watchdog, lock);
        let server = Self { tree, node, directories, shutdown, admin, listeners, quic, escalated, _watchdog, _lock };
        server.wait_until_it_serves().await?;
        Ok(server)
    }

    async fn wait_until_it_serves(&self) -> Result<(), String> {
        let mut phase = self.node.phase.clone();
        let reached = phase.wait_for(|phase| *phase != Phase::Starting).await;
        match reached.as_deref() {
            Ok(Phase::Failed(why)) => Err(why.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err("the node ended while it started".to_owned()),
        }
    }

    /// Where clients connect: the listeners' names and addresses.
    #[must_use]
    pub fn listeners(&self) -> &[(String, SocketAddr)] {
        &self.listeners
    }

    /// Where clients connect over QUIC, if they may.
    #[must_use]
    pub const fn quic(&self) -> Option<&Shown> {
        self.quic.as_ref()
    }

    /// Where `/metrics`, `/health` and `/tree` are.
    #[must_use]
    pub const fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Ends when the tree has given up, with the exit code to use.
    pub async fn ended(&mut self) -> i32 {
        let reason = self.tree.ended().await;
        tracing::error!(%reason, "the supervision tree has ended");
        EXIT_ESCALATED
    }

    /// Ends the node in order: no new requests, answers for those in flight, everything synced and marked clean.
    pub async fn stop(self) {
        self.hand_over().await;
        self.shutdown.begin(SHUTDOWN_GRACE);
        let reason = self.tree.shutdown().await;
        tracing::info!(%reason, "stopped");
        if self.escalated.load(Ordering::Acquire) {
            return;
        }
        for directory in &self.directories {
            directory.close_clean();
        }
    }
}

impl Server {
    /// Others lead what this node leads before it stops to serve.
    async fn hand_over(&self) {
        let Some(peers) = &self.node.peers else { return };
        let (node_id, broker_epoch) = (self.node.config.node_id, self.node.broker_epoch());
        let fenced = Proposal::FenceBroker { node_id, broker_epoch };
        if let Err(refused) = propose(&self.node, peers, fenced, clock::now() + HAND_OVER).await {
            tracing::warn!(error = ?refused.error, "the node stops without having handed over what it leads");
        }
    }
}

/// A node whose threads and sockets are there and whose tree is not started.
pub(crate) struct Assembled {
    pub(crate) parts: Parts,
    shutdown: Shutdown,
    admin_state: AdminState,
    admin: Option<SocketAddr>,
    listeners: Vec<(String, SocketAddr)>,
    quic: Option<Shown>,
    watchdog: Watchdog,
    lock: Box<dyn DiskLock>,
}

/// Starts the threads, binds the sockets and takes the metadata directory.
pub(crate) fn assemble(mut config: BrokerConfig) -> Result<Assembled, String> {
    let open_files = open_files(config.log_dirs.len());
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(open_files));
    let metadata = metadata_folder(&config)?;
    let lock = take_metadata(&disk, &metadata)?;
    let shutdown = Shutdown::new();
    let stats = Arc::<Stats>::default();
    let cold_reads = ColdReads::start(COLD_READ_THREADS, COLD_READ_QUEUE).map_err(|error| error.to_string())?;
    let context = connection_context(&config, &shutdown, &stats, cold_reads.clone());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let connection_limits = ConnectionLimits::new(accept_limits(&MetadataImage::default(), &config));
    let bound = bind(&mut config, &context, &connection_limits, workers)?;
    let quic = quic_listener::bind(&mut config, context, &connection_limits, workers, request_memory())?;
    let (phase, phase_seen) = watch::channel(Phase::Starting);
    let outer = Outer::from_environment().map_err(|error| format!("the process that runs this one: {error}"))?;
    let peers = Peers::bind(&config, &cold_reads)?;
    let node = Arc::new(Node::new(config, phase_seen, cold_reads, peers.clone(), outer));
    let directories = directories(&node, open_files)?;
    drop(node.directories.set(directories.clone()));
    let metadata_arbiter = arbiter("metadata", Role::Metadata)?;
    let coordinator_arbiter = arbiter("coordinators", Role::Network)?;
    let coordinators = Branch::dynamic("coordinators");
    let (neighbourhood, neighbours) = peers.clone().map(|peers| neighbourhood(&node, peers)).transpose()?.unzip();
    let applier = Arc::new(Applier {
        node: Arc::clone(&node),
        directories: directories.clone(),
        coordinators: coordinators.handle(),
        coordinator_arbiter: coordinator_arbiter.clone(),
        incarnation_id: Uuid::from_random(node.entropy.next(), node.entropy.next()),
        connection_limits,
        neighbours,
        shard_epochs: Mutex::default(),
        unfencing: AtomicBool::new(false),
        phase,
    });
    let (sockets, mut network) = network(bound, workers)?;
    let (quic, shown) = quic.map(|quic| quic.served(&mut network)).transpose()?.unzip();
    let listeners: Vec<_> = sockets.iter().map(|(name, listener)| (name.clone(), listener.local_addr())).collect();
    let (admin_child, admin_state, admin) = admin(&node, &stats, &listeners)?;
    let watchdog = watchdog(&directories)?;
    let fixed = [&metadata_arbiter, &coordinator_arbiter].into_iter().chain(quic.iter().map(|(_, arbiter)| arbiter));
    let of_connections = network.iter().map(|(arbiter, _)| arbiter);
    let of_directories = directories.iter().map(|directory| &directory.arbiter);
    let of_peers = neighbourhood.iter().flat_map(|all| [&all.control, &all.data]);
    let watched = fixed.chain(of_connections).chain(of_directories).chain(of_peers);
    watched.for_each(|arbiter| watchdog.watch(arbiter));
    let controller = controller_config(&node, peers.as_deref(), metadata);
    let feed = Arc::new(Feed::new(peers));
    let sink = Arc::clone(&feed);
    let metadata_syncs = MetadataSyncs::start(sink).map_err(|error| format!("thread metadata-sync: {error}"))?;
    let parts = Parts {
        node,
        controller,
        metadata_syncs,
        disk,
        feed,
        applier,
        metadata_arbiter,
        directories,
        neighbourhood,
        coordinators,
        network,
        listeners: sockets,
        quic,
        admin: admin_child,
    };
    Ok(Assembled { parts, shutdown, admin_state, admin, listeners, quic: shown, watchdog, lock })
}

/// What the controller starts from.
fn controller_config(node: &Node, peers: Option<&Peers>, directory: PathBuf) -> ControllerConfig {
    ControllerConfig {
        node_id: node.config.node_id,
        voters: peers.map_or_else(|| vec![node.config.node_id], Peers::first_voters),
        cluster_id: peers.map(Peers::cluster_id),
        broker: node.config.clone(),
        directory,
    }
}

/// The threads for other nodes, and the ways that the replicas have to them.
fn neighbourhood(node: &Arc<Node>, peers: Arc<Peers>) -> Result<(Neighbourhood, Neighbours), String> {
    let control = arbiter("peers-control", Role::Network)?;
    let data = arbiter("peers-data", Role::Network)?;
    let links: Arc<dyn Links> = Arc::new(NodeLinks::new(node, Arc::clone(&peers)));
    let fetchers = Branch::dynamic("fetchers");
    let (handle, to, on) = (fetchers.handle(), Arc::clone(&links), data.clone());
    let known = Arc::new(Fetchers::new(move |fetcher: &FetcherRef| {
        let (handle, child) = (handle.clone(), supervision::fetcher_child(fetcher, &to, &on));
        // A supervisor that does not run takes it up with the others when it starts.
        tokio::task::spawn_local(async move { drop(handle.add(child).await) });
    }));
    let (again, to, on) = (Arc::clone(&known), Arc::clone(&links), data.clone());
    let fetchers = fetchers
        .repopulate(move || again.all().iter().map(|fetcher| supervision::fetcher_child(fetcher, &to, &on)).collect());
    Ok((Neighbourhood { peers, control, data, fetchers }, Neighbours { links, fetchers: known }))
}

fn take_metadata(disk: &Arc<dyn Disk>, folder: &Path) -> Result<Box<dyn DiskLock>, String> {
    disk.create_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    disk.lock(&folder.join(".lock")).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => format!("{} is in use by another process", folder.display()),
        _ => format!("{}: {error}", folder.display()),
    })
}

fn metadata_folder(config: &BrokerConfig) -> Result<PathBuf, String> {
    let first = config.log_dirs.first().ok_or_else(|| "log.dirs names no directory".to_owned())?;
    Ok(Path::new(first).join(METADATA_FOLDER))
}

pub(crate) fn arbiter(name: &str, role: Role) -> Result<Arbiter, String> {
    Arbiter::start(name, role).map_err(|error| format!("thread {name}: {error}"))
}

/// How many descriptors each disk keeps: as many as the system lets the process have, half of them for connections, and no more than help.
fn open_files(log_dirs: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(MOST_DESCRIPTORS).min(MOST_DESCRIPTORS);
    if limit.current.is_some_and(|current| current < most) {
        limit.current = Some(most);
        // What a shell allows, often 1,024, is less than a busy node has partitions.
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files stays");
        }
    }
    let now = getrlimit(Resource::Nofile).current.unwrap_or(MOST_DESCRIPTORS);
    let share = usize::try_from(now / 2).unwrap_or(OPEN_FILES) / (log_dirs + 1);
    share.clamp(16, OPEN_FILES)
}

fn directories(node: &Arc<Node>, open_files: usize) -> Result<Vec<Arc<Directory>>, String> {
    let paths = node.config.log_dirs.iter().enumerate();
    paths
        .map(|(number, path)| {
            let path = PathBuf::from(path);
            let arbiter = arbiter(&format!("disk-{number}"), Role::Disk(path.clone()))?;
            let directory = Arc::new(Directory::new(&path, arbiter, Arc::new(RealDisk::new(open_files))));
            directory.belongs_to(node);
            Ok(directory)
        })
        .collect()
}

fn connection_context(
    config: &BrokerConfig,
    shutdown: &Shutdown,
    stats: &Arc<Stats>,
    cold_reads: ColdReads,
) -> ConnectionContext {
    let settings = ConnectionSettings {
        max_request_bytes: config.socket_request_max_bytes,
        max_idle: config.connections_max_idle,
        request_deadline: config.request_body_timeout,
        write_stall: config.response_write_timeout,
        max_in_flight: config.max_in_flight_requests,
        max_in_flight_bytes: config.max_in_flight_bytes,
        ..ConnectionSettings::default()
    };
    ConnectionContext {
        settings: Arc::new(settings),
        budget: MemoryBudget::new(request_memory()),
        stats: Arc::clone(stats),
        cold_reads,
        shutdown: shutdown.signal(),
    }
}

/// A quarter of the machine's memory for the bytes of requests.
fn request_memory() -> usize {
    let info = rustix::system::sysinfo();
    let total = (info.totalram as usize).saturating_mul(info.mem_unit as usize);
    (total / 4).max(64 << 20)
}

type Bound = Vec<(String, Listener, Vec<Worker>)>;

/// Binds every listener, and completes what is advertised.
fn bind(
    config: &mut BrokerConfig,
    context: &ConnectionContext,
    limits: &ConnectionLimits,
    workers: usize,
) -> Result<Bound, String> {
    let mut bound = Vec::new();
    for listener in &mut config.listeners {
        let address = resolve(listener)?;
        let settings = ListenerSettings { name: listener.name.clone(), address, workers };
        let (socket, queues) = Listener::bind(&settings, limits.clone(), context.clone())
            .map_err(|error| format!("cannot listen on {address}: {error}"))?;
        let port = socket.local_addr().port();
        listener.port = port;
        for advertised in config.advertised_listeners.iter_mut().filter(|one| one.name == listener.name) {
            complete(advertised, port);
        }
        bound.push((listener.name.clone(), socket, queues));
    }
    Ok(bound)
}

/// What clients are told where the settings leave it open: the port that is bound and, as in Kafka, the machine's own name.
pub(crate) fn complete(advertised: &mut ListenerConfig, port: u16) {
    if advertised.port == 0 {
        advertised.port = port;
    }
    if advertised.host.is_empty() {
        advertised.host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    }
}

pub(crate) fn resolve(listener: &ListenerConfig) -> Result<SocketAddr, String> {
    let host = if listener.host.is_empty() { "0.0.0.0" } else { &listener.host };
    let mut found = (host, listener.port).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
    found.next().ok_or_else(|| format!("{host} has no address"))
}

type Network = (Vec<(String, Listener)>, Vec<(Arbiter, Vec<Worker>)>);

/// Gives each network thread its end of every listener.
fn network(bound: Bound, workers: usize) -> Result<Network, String> {
    let mut threads = Vec::new();
    for number in 0..workers {
        threads.push((arbiter(&format!("network-{number}"), Role::Network)?, Vec::new()));
    }
    let mut listeners = Vec::new();
    for (name, listener, queues) in bound {
        for ((_, own), queue) in threads.iter_mut().zip(queues) {
            own.push(queue);
        }
        listeners.push((name, listener));
    }
    Ok((listeners, threads))
}

type Admin = (madang_actors::host::Child, AdminState, Option<SocketAddr>);

fn admin(node: &Arc<Node>, stats: &Arc<Stats>, listeners: &[(String, SocketAddr)]) -> Result<Admin, String> {
    let kafka_port = listeners.first().map_or(0, |(_, address)| address.port());
    let wanted = node.config.admin_listener.clone().unwrap_or_else(|| admin::default_address(kafka_port));
    let state = AdminState::new(Arc::clone(node), Arc::clone(stats));
    let (child, address) = admin::bind(&wanted, state.clone())?;
    Ok((child, state, address))
}

fn watchdog(directories: &[Arc<Directory>]) -> Result<Watchdog, String> {
    let directories = directories.to_vec();
    let on_stuck = move |name: &str, role: &Role| match role {
        Role::Disk(path) => {
            for directory in directories.iter().filter(|directory| directory.path == *path) {
                directory.fail("its thread is stuck");
            }
        }
        Role::Network | Role::Metadata => {
            tracing::error!(name, %role, "a thread that everything needs is stuck; the process ends");
            std::process::exit(EXIT_STUCK);
        }
    };
    Watchdog::start(WatchdogLimits::default(), on_stuck).map_err(|error| error.to_string())
}

fn start_tree(parts: Parts, escalated: &Arc<AtomicBool>) -> Tree {
    let escalated = Arc::clone(escalated);
    let options = TreeOptions {
        on_escalation: Box::new(move |reason| {
            escalated.store(true, Ordering::Release);
            tracing::error!(%reason, "supervision has given up");
        }),
        observer: Arc::new(admin::Observer),
    };
    Tree::start(supervision::tree(parts), options)
}

/// How long one write of 4 KiB and its sync take in `folder`: the median of five.
///
/// # Errors
/// The folder cannot be written.
pub fn sync_time(folder: &Path) -> std::io::Result<Duration> {
    let disk = RealDisk::new(1);
    let path = folder.join(".sync-probe");
    let file = disk.open(&path, OpenMode::Truncate)?;
    let block = [0_u8; 4096];
    let mut times = Vec::new();
    for turn in 0..5_u64 {
        let start = Instant::now();
        file.write_at(turn * 4096, &[std::io::IoSlice::new(&block)])?;
        file.sync()?;
        times.push(start.elapsed());
    }
    disk.remove_file(&path)?;
    times.sort();
    Ok(times[times.len() / 2])
}
