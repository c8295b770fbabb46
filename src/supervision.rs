//! The whole supervision tree of a node. A test compares this drawing with the tree that is built.
//!
//! ```text
//! node  rest_for_one
//! ├ metadata  one_for_all
//! │ ├ controller  actor permanent
//! │ └ follower  actor permanent
//! ├ log_dirs  one_for_one
//! │ └ directory-0  rest_for_one
//! │   ├ flusher  actor permanent
//! │   ├ replicas  one_for_one dynamic
//! │   └ cleaner  task permanent
//! ├ peers  one_for_one
//! │ ├ control  task permanent
//! │ ├ data  task permanent
//! │ ├ fetchers  one_for_one dynamic
//! │ └ heartbeats  task permanent
//! ├ coordinators  one_for_one dynamic
//! └ listeners  one_for_one
//!   ├ network-0  one_for_one
//!   │ ├ connections  one_for_one dynamic
//!   │ ├ worker  task permanent
//!   │ └ worker-1  task permanent
//!   ├ acceptor-PLAINTEXT  task permanent
//!   ├ acceptor-QUIC  task permanent
//!   └ admin  task permanent
//! ```
//! The top starts first and stops last. There is a `directory-N` for each log directory, a `network-N` for each network thread and
//! an acceptor for each listener, which each network thread has a worker for. A node that is alone has no `peers`, and one without
//! `madang.quic.listener` no `acceptor-QUIC`. Replicas, shards and connections are added while the node runs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use madang_actors::child_spec::{Restart, Strategy};
use madang_actors::host::{Arbiter, Branch, Child, SupervisorHandle};
use madang_cluster::configs::QUIC_LISTENER;
use madang_cluster::controller::ControllerConfig;
use madang_cluster::controller::actor::{ControllerActor, MetadataSyncs, NoVoters, VoterLinks};
use madang_cluster::replica::fetcher::FetcherConfig;
use madang_cluster::replica::fetching::FetcherRef;
use madang_cluster::replica::fetching::actor::FetcherActor;
use madang_cluster::replica::links::Links;
use madang_storage::Disk;
use madang_transport::kafka::{Listener, QuicListener, Worker};

use crate::applier::Applier;
use crate::broker::Broker;
use crate::cleaner;
use crate::connections;
use crate::directory::{Directory, Flusher};
use crate::follower::{Feed, Follower};
use crate::node_env::{Node, NodeEnv};
use crate::peers::{self, Endpoint, PeerService, Peers, Voters};

/// An orderly end of a replica may have to sync its log first.
const REPLICA_STOP: Duration = Duration::from_secs(30);

/// What a child takes in its first life and never again, such as an accepted connection.
pub type Once<T> = Arc<Mutex<Option<T>>>;

/// Wraps what the first life takes.
pub fn once<T>(value: T) -> Once<T> {
    Arc::new(Mutex::new(Some(value)))
}

/// Takes it; nothing for every life but the first.
pub fn take<T>(once: &Once<T>) -> Option<T> {
    once.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// What the tree is built over.
pub struct Parts {
    /// The node.
    pub node: Arc<Node>,
    /// What the controller starts from.
    pub controller: ControllerConfig,
    /// The thread that syncs the metadata log.
    pub metadata_syncs: MetadataSyncs,
    /// The disk under everything.
    pub disk: Arc<dyn Disk>,
    /// Committed metadata on its way to the follower.
    pub feed: Arc<Feed>,
    /// What applies it.
    pub applier: Arc<Applier>,
    /// The thread of the controller and of supervision.
    pub metadata_arbiter: Arbiter,
    /// The log directories.
    pub directories: Vec<Arc<Directory>>,
    /// What deals with other nodes, if there are any.
    pub neighbourhood: Option<Neighbourhood>,
    /// The supervisor of the group shards.
    pub coordinators: Branch,
    /// Each network thread, and what it is handed by each listener.
    pub network: Vec<(Arbiter, Vec<Worker>)>,
    /// The listeners.
    pub listeners: Vec<(String, Listener)>,
    /// The listener over QUIC, and the thread that reads its socket.
    pub quic: Option<(QuicListener, Arbiter)>,
    /// The admin listener.
    pub admin: Child,
}

/// The tree, ready to be started.
#[must_use]
pub fn tree(parts: Parts) -> Branch {
    let metadata = metadata(&parts);
    let listeners = listeners(&parts.node, parts.network, parts.listeners, parts.quic, parts.admin);
    let mut all = Branch::new("node", Strategy::RestForOne).child(metadata).child(log_dirs(&parts.directories));
    if let Some(neighbourhood) = parts.neighbourhood {
        all = all.child(peers(&parts.node, neighbourhood));
    }
    all.child(parts.coordinators).child(listeners)
}

/// What deals with other nodes.
pub struct Neighbourhood {
    /// The other nodes.
    pub peers: Arc<Peers>,
    /// The thread of the control endpoint.
    pub control: Arbiter,
    /// The thread of the data endpoint and of the fetchers.
    pub data: Arbiter,
    /// The supervisor of the fetchers.
    pub fetchers: Branch,
}

fn peers(node: &Arc<Node>, neighbourhood: Neighbourhood) -> Branch {
    let Neighbourhood { peers, control, data, fetchers } = neighbourhood;
    let endpoint = |endpoint: &Arc<Endpoint>, arbiter: &Arbiter| {
        let (endpoint, node, peers) = (Arc::clone(endpoint), Arc::clone(node), Arc::clone(&peers));
        Child::task(endpoint.name(), arbiter, move |context| {
            let service = PeerService::new(Arc::clone(&node), Arc::clone(&peers), endpoint.served());
            peers::serve(Arc::clone(&endpoint), service, context)
        })
    };
    let (beating, to) = (Arc::clone(node), Arc::clone(&peers));
    Branch::new("peers", Strategy::OneForOne)
        .child(endpoint(&peers.control, &control))
        .child(endpoint(&peers.data, &data))
        .child(fetchers)
        .child(Child::task("heartbeats", &control, move |context| {
            peers::heartbeats(Arc::clone(&beating), Arc::clone(&to), context)
        }))
}

/// The fetcher of one leader as its supervisor runs it.
pub(crate) fn fetcher_child(fetcher: &FetcherRef, links: &Arc<dyn Links>, arbiter: &Arbiter) -> Child {
    let (fetcher, links) = (fetcher.clone(), Arc::clone(links));
    Child::actor(fetcher.clone().actor(), arbiter, move |_| {
        Ok(FetcherActor::new(fetcher.clone(), Arc::clone(&links), FetcherConfig::default()))
    })
}

fn metadata(parts: &Parts) -> Branch {
    let (node, feed, applier) = (Arc::clone(&parts.node), Arc::clone(&parts.feed), Arc::clone(&parts.applier));
    let (config, disk, syncs) = (parts.controller.clone(), Arc::clone(&parts.disk), parts.metadata_syncs.clone());
    let arbiter = &parts.metadata_arbiter;
    let (actor, follower) = (node.controller.clone(), feed.follower().clone());
    let sink = Arc::clone(&feed);
    let links: Arc<dyn VoterLinks> = match &node.peers {
        Some(peers) => Arc::new(Voters::new(Arc::clone(peers))),
        None => Arc::new(NoVoters),
    };
    Branch::new("metadata", Strategy::OneForAll)
        .child(Child::actor(&actor, arbiter, move |_| {
            let sink = Arc::clone(&sink);
            let (disk, links) = (Arc::clone(&disk), Arc::clone(&links));
            ControllerActor::open(config.clone(), disk, sink, syncs.clone(), links, node.entropy.next())
        }))
        .child(Child::actor(&follower, arbiter, move |context| {
            Ok(Follower::new(Arc::clone(&feed), Arc::clone(&applier), context))
        }))
}

fn log_dirs(directories: &[Arc<Directory>]) -> Branch {
    let branches = directories.iter().enumerate().map(|(number, directory)| {
        let replicas = Branch::dynamic("replicas");
        directory.supervised_by(replicas.handle());
        let repopulated = Arc::clone(directory);
        let (cleaned, flushed) = (Arc::clone(directory), Arc::clone(directory));
        Branch::new(format!("directory-{number}"), Strategy::RestForOne)
            .child(Child::actor(&directory.flusher, &directory.arbiter, move |_| Flusher::start(Arc::clone(&flushed))))
            .child(replicas.repopulate(move || repopulated.children()))
            .child(Child::task("cleaner", &directory.arbiter, move |context| {
                cleaner::run(Arc::clone(&cleaned), context)
            }))
    });
    branches.fold(Branch::new("log_dirs", Strategy::OneForOne), |all, branch| all.child(branch))
}

fn listeners(
    node: &Arc<Node>,
    network: Vec<(Arbiter, Vec<Worker>)>,
    listeners: Vec<(String, Listener)>,
    quic: Option<(QuicListener, Arbiter)>,
    admin: Child,
) -> Branch {
    let mut all = Branch::new("listeners", Strategy::OneForOne);
    for (number, (arbiter, workers)) in network.into_iter().enumerate() {
        let connections = Branch::dynamic("connections");
        let handle = connections.handle();
        let mut thread = Branch::new(format!("network-{number}"), Strategy::OneForOne).child(connections);
        for (place, worker) in workers.into_iter().enumerate() {
            let id = if place == 0 { "worker".to_owned() } else { format!("worker-{place}") };
            thread = thread.child(worker_child(&id, node, &arbiter, worker, handle.clone()));
        }
        all = all.child(thread);
    }
    for (name, listener) in listeners {
        let (listener, node) = (Arc::new(listener), Arc::clone(node));
        all =
            all.child(Child::task(format!("acceptor-{name}"), madang_actors::host::Placement::Here, move |context| {
                connections::accept(Arc::clone(&listener), Arc::clone(&node), context)
            }));
    }
    if let Some((listener, arbiter)) = quic {
        let (listener, node) = (Arc::new(listener), Arc::clone(node));
        all = all.child(Child::task(format!("acceptor-{QUIC_LISTENER}"), &arbiter, move |context| {
            connections::accept_quic(Arc::clone(&listener), Arc::clone(&node), context)
        }));
    }
    all.child(admin)
}

fn worker_child(id: &str, node: &Arc<Node>, arbiter: &Arbiter, worker: Worker, handle: SupervisorHandle) -> Child {
    let (worker, broker, own) =
        (Arc::new(tokio::sync::Mutex::new(worker)), Broker::new(NodeEnv::new(Arc::clone(node))), arbiter.clone());
    Child::task(id, arbiter, move |context| {
        connections::serve(Arc::clone(&worker), broker.clone(), own.clone(), handle.clone(), context)
    })
}

/// A replica's child as its supervisor runs it.
#[must_use]
pub fn replica_child(child: Child) -> Child {
    child.restart(Restart::Permanent).start_deadline(None).shutdown_deadline(REPLICA_STOP)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use madang_cluster::configs::BrokerConfig;
    use madang_protocol::types::{NodeId, Uuid};

    use crate::certificates::Authority;
    use crate::server::assemble;

    /// The drawing at the top of this file, without its comment marks.
    fn drawing() -> String {
        let source = include_str!("supervision.rs");
        let inside = source.split("//! ```text\n").nth(1).and_then(|rest| rest.split("//! ```").next());
        let lines = inside.unwrap_or_default().lines().map(|line| line.strip_prefix("//! ").unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The tree of a node with these settings and one network thread, as the drawing has it, whatever the machine has.
    fn built(folder: &Path, more: &[(&str, &str)]) -> String {
        let data = folder.join("data");
        let alone = [
            ("log.dirs", data.to_str().unwrap()),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("madang.quic.listener", "127.0.0.1:0"),
            ("madang.admin.listener", "127.0.0.1:0"),
        ];
        let pairs = alone.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let (config, _) = BrokerConfig::parse(pairs).unwrap();
        fs::create_dir_all(data).unwrap();
        let tree = actix_rt::System::new().block_on(async {
            let mut assembled = assemble(config).unwrap();
            assembled.parts.network.truncate(1);
            super::tree(assembled.parts).describe()
        });
        tree.trim_end().to_owned()
    }

    #[test]
    fn the_tree_that_is_built_is_the_one_that_is_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = folder.path().join("certificates");
        let authority = Authority::create(&folder.path().join("authority"), Uuid([1; 16])).unwrap();
        authority.issue(NodeId(1), &certificates).unwrap();
        let of_three = [
            ("madang.node.listener", "127.0.0.1:0"),
            ("madang.node.certificates", certificates.to_str().unwrap()),
            ("controller.quorum.voters", "1@127.0.0.1:1,2@127.0.0.1:2,3@127.0.0.1:3"),
        ];
        assert_eq!(built(folder.path(), &of_three), drawing().trim_end());
    }

    #[test]
    fn a_node_that_is_alone_has_no_peers() {
        let folder = tempfile::tempdir().unwrap();
        let drawing = drawing();
        let (above, rest) = drawing.split_once("├ peers").unwrap();
        let (_, below) = rest.split_once("├ coordinators").unwrap();
        assert_eq!(built(folder.path(), &[]), format!("{above}├ coordinators{below}").trim_end());
    }
}
