//! The other nodes: two QUIC endpoints, what is asked and answered over them, and who of the voters leads.
//! Invariant: whoever asks another node hears of it by its own deadline, and nothing that was lost counts as done.

mod endpoint;
mod given_up;
mod gone;
mod heartbeats;
mod links;
mod membership;
mod propose;
mod service;
mod silence;
mod voters;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use madang_cluster::configs::BrokerConfig;
use madang_cluster::metadata::{Endpoint as RegisteredEndpoint, MetadataImage, SecurityProtocol};
use madang_protocol::types::{NodeId, Uuid};
use madang_transport::kafka::ColdReads;
use madang_transport::quic::{LaneKind, NodeCertificates, NodeName, Role};
use tokio::sync::watch;

use crate::outer::Outer;

pub use self::endpoint::{CallFailed, Endpoint};
pub(crate) use self::endpoint::{serve, settings};
pub(crate) use self::gone::Gone;
pub(crate) use self::heartbeats::{EXIT_REPLACED, run as heartbeats};
pub use self::links::NodeLinks;
pub(crate) use self::propose::{propose, propose_until_decided};
pub(crate) use self::service::PeerService;
pub(crate) use self::silence::Lease;
pub use self::voters::Voters;

/// Name of the endpoint under which a node registers its UDP address. No listener of clients has it.
pub const NODE_ENDPOINT: &str = "MADANG-NODE";
/// Files of `madang.node.certificates`.
pub const AUTHORITY: &str = "ca.pem";
/// The node's certificate.
pub const CERTIFICATE: &str = "node.pem";
/// Its key.
pub const KEY: &str = "node.key";
/// The certificate of whoever runs the node's process.
pub const SUPERVISOR_CERTIFICATE: &str = "supervisor.pem";
/// Its key.
pub const SUPERVISOR_KEY: &str = "supervisor.key";

const CONTROL_LANES: &[LaneKind] = &[LaneKind::Control, LaneKind::Snapshot];
/// What the control endpoint serves beside the lanes that it opens itself.
const CONTROL_SERVED: &[LaneKind] = &[LaneKind::Control, LaneKind::Snapshot, LaneKind::Supervisor];
const DATA_LANES: &[LaneKind] = &[LaneKind::Data];
/// Places of the lanes in a link.
pub(crate) const CONTROL: usize = 0;
pub(crate) const SNAPSHOT: usize = 1;
pub(crate) const DATA: usize = 0;

/// The other nodes, as this one reaches them.
pub struct Peers {
    own: NodeId,
    cluster_id: Uuid,
    address: RegisteredEndpoint,
    /// The first voters, as the configuration names them.
    first: BTreeMap<NodeId, String>,
    voters: ArcSwap<Vec<NodeId>>,
    /// The other members of the quorum, and where they are.
    members: ArcSwap<BTreeMap<NodeId, String>>,
    leader: watch::Sender<Option<NodeId>>,
    /// The newest version of the metadata that the controller here has committed.
    committed: AtomicU64,
    heard: silence::Heard,
    pub(crate) gone: Arc<Gone>,
    /// Raft, heartbeats, proposals: never behind data.
    pub control: Arc<Endpoint>,
    /// Replication.
    pub data: Arc<Endpoint>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("own", &self.own).field("first", &self.first).finish_non_exhaustive()
    }
}

impl Peers {
    /// Binds both addresses and reads the certificates; none if the node is to stay alone.
    ///
    /// # Errors
    /// A text for a person.
    pub fn bind(config: &BrokerConfig, reads: &ColdReads) -> Result<Option<Arc<Self>>, String> {
        let Some(listener) = &config.node_listener else { return Ok(None) };
        let folder =
            config.node_certificates.as_deref().ok_or("madang.node.listener needs madang.node.certificates")?;
        let certificates = certificates(Path::new(folder), config.node_id)?;
        let cluster_id = certificates.name().cluster_id;
        let (host, port) = listener;
        let socket = |port: u16| bind(host, port);
        let data = socket(*port)?;
        let bound = data.local_addr().map_err(|error| error.to_string())?;
        let control_port =
            bound.port().checked_add(1).ok_or("madang.node.listener: the port after it is for control")?;
        let control = socket(control_port)?;
        let endpoint = |name, socket, opened, served| {
            Endpoint::new(name, socket, certificates.clone(), reads.clone(), opened, served)
        };
        let (host, port) =
            config.node_advertised_listener.as_ref().map_or((host, bound.port()), |(at, port)| (at, *port));
        let first: BTreeMap<NodeId, String> = config.quorum_voters.iter().cloned().collect();
        let peers = Self {
            own: config.node_id,
            cluster_id,
            address: RegisteredEndpoint {
                listener: NODE_ENDPOINT.into(),
                host: host.as_str().into(),
                port,
                security_protocol: SecurityProtocol::Ssl,
            },
            leader: watch::Sender::new(None),
            committed: AtomicU64::new(0),
            heard: silence::Heard::default(),
            gone: Arc::default(),
            control: Arc::new(endpoint("control", control, CONTROL_LANES, CONTROL_SERVED)),
            data: Arc::new(endpoint("data", data, DATA_LANES, DATA_LANES)),
            voters: ArcSwap::from_pointee(first.keys().copied().collect()),
            members: ArcSwap::default(),
            first,
        };
        peers.control.want(peers.other_first_voters());
        Ok(Some(Arc::new(peers)))
    }

    fn other_first_voters(&self) -> BTreeMap<NodeId, String> {
        self.first.iter().filter(|(node, _)| **node != self.own).map(|(node, at)| (*node, at.clone())).collect()
    }

    /// The first voters of the metadata log, as the configuration names them: those to ask as long as nobody else is known.
    #[must_use]
    pub fn first_voters(&self) -> Vec<NodeId> {
        self.first.keys().copied().collect()
    }

    /// The voters of the metadata log, as far as this node knows.
    #[must_use]
    pub fn voters(&self) -> Arc<Vec<NodeId>> {
        self.voters.load_full()
    }

    /// Notes who votes.
    pub fn voted_by(&self, voters: Vec<NodeId>) {
        self.voters.store(Arc::new(voters));
    }

    /// The cluster that the node's certificate is of.
    #[must_use]
    pub const fn cluster_id(&self) -> Uuid {
        self.cluster_id
    }

    /// Where this node is reached, as it registers it.
    #[must_use]
    pub const fn address(&self) -> &RegisteredEndpoint {
        &self.address
    }

    /// Where the control endpoint is reached: host and port.
    #[must_use]
    pub fn control_address(&self) -> String {
        host_port(&self.address.host, self.address.port.saturating_add(1))
    }

    /// Keeps a link to every node that is registered, and to every member of the quorum. What a member has said of itself counts for more than what
    /// this node's configuration says of it. Whoever runs this process is told of the members, to tell them of its death.
    pub fn follow(&self, image: &MetadataImage, outer: Option<&Outer>) {
        let (mut control, mut data) = (self.other_first_voters(), BTreeMap::new());
        for broker in image.brokers().filter(|broker| broker.node_id != self.own) {
            let Some(at) = broker.endpoint(NODE_ENDPOINT) else { continue };
            data.insert(broker.node_id, host_port(&at.host, at.port));
            control.entry(broker.node_id).or_insert_with(|| host_port(&at.host, at.port.saturating_add(1)));
        }
        let mut members = self.other_first_voters();
        for (node, address) in image.quorum_addresses().iter().filter(|(node, _)| **node != self.own) {
            members.insert(*node, address.to_string());
        }
        control.extend(members.clone());
        self.control.want(control);
        self.data.want(data);
        if **self.members.load() != members {
            outer.into_iter().for_each(|outer| outer.members(&members));
            self.members.store(Arc::new(members));
        }
    }

    /// The other nodes that serve.
    fn others(&self, image: &MetadataImage) -> impl Iterator<Item = NodeId> {
        let own = self.own;
        image.live_brokers().map(|broker| broker.node_id).filter(move |node| *node != own)
    }

    /// Who leads the quorum, as far as this node knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        *self.leader.borrow()
    }

    /// Tells when that changes.
    #[must_use]
    pub fn leaders(&self) -> watch::Receiver<Option<NodeId>> {
        self.leader.subscribe()
    }

    /// Notes that the controller here has committed this version of the metadata.
    pub fn committed(&self, version: u64) {
        self.committed.fetch_max(version, Ordering::AcqRel);
    }

    /// What the answers of the controller here rest on, at most: a version of the metadata.
    #[must_use]
    pub fn newest_committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Notes who leads.
    pub fn led_by(&self, leader: Option<NodeId>) {
        self.leader.send_replace(leader);
    }
}

/// As an address is written: an IPv6 host is in brackets.
fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn bind(host: &str, port: u16) -> Result<UdpSocket, String> {
    let failed = |error: std::io::Error| format!("cannot listen for nodes on {host}:{port}: {error}");
    let mut found = (host, port).to_socket_addrs().map_err(failed)?;
    let address: SocketAddr = found.next().ok_or_else(|| format!("{host} has no address"))?;
    UdpSocket::bind(address).map_err(failed)
}

fn certificates(folder: &Path, node_id: NodeId) -> Result<NodeCertificates, String> {
    let read = read_certificates(folder, CERTIFICATE, KEY)?;
    let named = read.name();
    if named.node_id == node_id && named.role == Role::Node {
        return Ok(read);
    }
    Err(format!("{} is of {named}, and this is node {node_id}", folder.join(CERTIFICATE).display()))
}

/// Reads a certificate and its key from a folder that also has the authority's.
pub(crate) fn read_certificates(folder: &Path, certificate: &str, key: &str) -> Result<NodeCertificates, String> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let (authority, chain, key) = (read(AUTHORITY)?, read(certificate)?, read(key)?);
    let failed = |error| format!("{}: {error}", folder.join(certificate).display());
    let named = NodeName::of_pem(&chain).map_err(failed)?;
    NodeCertificates::from_pem(named, &authority, &chain, &key).map_err(failed)
}
