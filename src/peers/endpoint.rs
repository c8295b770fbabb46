//! One UDP socket for nodes: the peers that it lets in, and the links that it keeps to others.
//! Invariant: a call is made on a link that is up, or fails at once; a link that nobody wants any more ends.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use madang_actors::host::TaskContext;
use madang_protocol::node::{self, NodeMessage, NodeRequest};
use madang_protocol::payload::Payload;
use madang_protocol::types::NodeId;
use madang_transport::kafka::ColdReads;
use madang_transport::quic::{
    CallError, Lane, LaneKind, Link, LinkState, NodeCertificates, NodeFrame, NodeListener, NodeService, QuicSettings,
};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailed {
    /// Nothing of it has left, or the peer has not looked into it.
    NotDone,
    /// It may have arrived.
    Lost,
}

/// A link, where it leads, and how it is.
struct Peer {
    address: String,
    lanes: Vec<Lane>,
    state: watch::Receiver<LinkState>,
}

/// See the file's head. It outlives the task that serves it.
pub struct Endpoint {
    name: &'static str,
    socket: UdpSocket,
    certificates: NodeCertificates,
    reads: ColdReads,
    opened: &'static [LaneKind],
    served: &'static [LaneKind],
    wanted: watch::Sender<BTreeMap<NodeId, String>>,
    peers: ArcSwap<BTreeMap<NodeId, Arc<Peer>>>,
}

impl Endpoint {
    pub(super) fn new(
        name: &'static str,
        socket: UdpSocket,
        certificates: NodeCertificates,
        reads: ColdReads,
        opened: &'static [LaneKind],
        served: &'static [LaneKind],
    ) -> Self {
        let (wanted, peers) = (watch::Sender::default(), ArcSwap::default());
        Self { name, socket, certificates, reads, opened, served, wanted, peers }
    }

    /// Its name in the supervision tree.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The kinds of lanes that it serves.
    #[must_use]
    pub const fn served(&self) -> &'static [LaneKind] {
        self.served
    }

    /// Keeps links to these nodes, at these addresses, and to no others.
    pub(super) fn want(&self, wanted: BTreeMap<NodeId, String>) {
        self.wanted.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
    }

    /// Asks `peer` on the lane at place `lane`.
    ///
    /// # Errors
    /// As [`CallFailed`] says.
    pub async fn call<R: NodeRequest>(
        &self,
        peer: NodeId,
        lane: usize,
        request: &R,
        payload: Payload,
    ) -> Result<(R::Answer, Bytes), CallFailed> {
        let link = self.peers.load().get(&peer).cloned().ok_or(CallFailed::NotDone)?;
        let LinkState::Up { level } = *link.state.borrow() else { return Err(CallFailed::NotDone) };
        let lane = link.lanes.get(lane).ok_or(CallFailed::NotDone)?;
        let head = request.write(level).map_err(|_| CallFailed::NotDone)?;
        let frame = NodeFrame { tag: R::TAG.code(), head, payload };
        let answer = lane.call(frame).await.map_err(|error| match error {
            CallError::NotSent | CallError::TooLong(_) => CallFailed::NotDone,
            CallError::Lost => CallFailed::Lost,
        })?;
        if answer.tag == node::Tag::Rejected.code() {
            tracing::warn!(%peer, tag = R::TAG.code(), "a peer does not serve a request");
            return Err(CallFailed::NotDone);
        }
        let Payload::Bytes(records) = answer.payload else { return Err(CallFailed::Lost) };
        match R::Answer::read(level, &answer.head) {
            Ok(message) if answer.tag == R::Answer::TAG.code() => Ok((message, records)),
            _ => {
                tracing::warn!(%peer, tag = R::TAG.code(), "a peer's answer cannot be read");
                Err(CallFailed::Lost)
            }
        }
    }

    /// Begins and ends links, so that there is one to each node that is wanted.
    fn connect(&self, listener: &NodeListener, drivers: &mut JoinSet<()>) {
        let (mut links, before) = (BTreeMap::new(), self.peers.load_full());
        let wanted = self.wanted.borrow().clone();
        for (node, address) in wanted {
            let kept = before.get(&node).filter(|peer| peer.address == address && peer.state.has_changed().is_ok());
            let peer = kept.cloned().unwrap_or_else(|| {
                let (Link { lanes, state }, driver) =
                    Link::new(listener, node, address.clone(), node::LEVELS, self.opened);
                drivers.spawn_local(driver);
                Arc::new(Peer { address, lanes, state })
            });
            links.insert(node, peer);
        }
        self.peers.store(Arc::new(links));
    }
}

/// A process that was killed says nothing, and the one that comes after it does not know its connections: silence alone tells, so it may not
/// be long.
pub(crate) fn settings() -> QuicSettings {
    QuicSettings {
        connect_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(2),
        keep_alive: Duration::from_millis(400),
        back_off_max: Duration::from_millis(500),
        ..QuicSettings::default()
    }
}

/// Serves the endpoint until the supervisor stops it.
pub(crate) async fn serve<S: NodeService>(endpoint: Arc<Endpoint>, service: S, mut context: TaskContext) {
    let listener = endpoint.socket.try_clone().and_then(|socket| {
        NodeListener::over(socket, endpoint.certificates.clone(), settings(), endpoint.reads.clone())
    });
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(endpoint = endpoint.name, %error, "no endpoint for nodes"),
    };
    let (mut wanted, mut drivers) = (endpoint.wanted.subscribe(), JoinSet::new());
    let mut serving = std::pin::pin!(listener.run(service));
    loop {
        endpoint.connect(&listener, &mut drivers);
        tokio::select! {
            () = &mut serving => break,
            changed = wanted.changed() => if changed.is_err() { break },
            () = &mut context.stop => break,
        }
        while drivers.try_join_next().is_some() {}
    }
    listener.close();
    endpoint.peers.store(Arc::default());
}
