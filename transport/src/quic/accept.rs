//! The accepting side: one UDP socket, the peers that it lets in, and the requests on their lanes.
//! Invariant: a request that was read is answered, or its lane ends; a peer holds no more memory than its lanes and their frames allow.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::FutureExt;
use madang_protocol::types::NodeId;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, TokioRuntime, VarInt};
use rustix::net::sockopt;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::frame::{NodeFrame, Received};
use super::identity::{NodeCertificates, NodeName, Role};
use super::lane::{HELLO, Hello, LaneKind, common_level, level_frame};
use super::settings::QuicSettings;
use super::stream::{FrameSource, StreamError, send};
use crate::kafka::ColdReads;

/// What the kernel keeps for a socket that its thread has not come to yet.
const SOCKET_BUFFER: usize = 4 << 20;

/// Codes with which connections and streams are closed; the peer's log shows them with their text.
pub(crate) mod code {
    pub(crate) const STOPPED: u32 = 1;
    pub(crate) const STRANGER: u32 = 2;
    pub(crate) const HELLO: u32 = 3;
    pub(crate) const BROKEN: u32 = 4;
}

/// The node as its peers see it. Cloned once for each connection, used on one thread.
pub trait NodeService: Clone + 'static {
    /// Lowest and highest feature level of its messages.
    const LEVELS: (u16, u16);

    /// Whether lanes of this kind are served here.
    fn serves(&self, kind: LaneKind) -> bool;

    /// Answers one request of a peer. A tag that it does not know has an answer too. It has to be done before the caller's deadline; it
    /// is dropped where it waits if the lane goes.
    fn call(&self, peer: NodeId, kind: LaneKind, level: u16, frame: NodeFrame) -> impl Future<Output = NodeFrame>;
}

/// A bound endpoint for nodes. The same socket accepts and dials.
#[derive(Debug)]
pub struct NodeListener {
    endpoint: Endpoint,
    certificates: NodeCertificates,
    settings: Arc<QuicSettings>,
    reads: ColdReads,
}

impl NodeListener {
    /// Binds. Nothing is accepted before [`NodeListener::run`]. Call it inside the runtime of the thread that will serve it.
    ///
    /// # Errors
    /// If the address is taken or not ours.
    pub fn bind(
        address: SocketAddr,
        certificates: NodeCertificates,
        settings: QuicSettings,
        reads: ColdReads,
    ) -> io::Result<Self> {
        Self::over(UdpSocket::bind(address)?, certificates, settings, reads)
    }

    /// As [`NodeListener::bind`], over a socket that is bound.
    ///
    /// # Errors
    /// The socket is of no use to the runtime.
    pub fn over(
        socket: UdpSocket,
        certificates: NodeCertificates,
        settings: QuicSettings,
        reads: ColdReads,
    ) -> io::Result<Self> {
        // The system may give less, and then more is lost when the thread is late.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER);
        let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
        let mut server = quinn::ServerConfig::with_crypto(certificates.server());
        server.transport_config(settings.transport()).max_incoming(settings.max_connections);
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new(certificates.endpoint(), Some(server), socket, runtime)?;
        Ok(Self { endpoint, certificates, settings: Arc::new(settings), reads })
    }

    /// The address that is bound, with its actual port.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    pub(crate) fn parts(&self) -> (Endpoint, NodeCertificates, Arc<QuicSettings>, ColdReads) {
        (self.endpoint.clone(), self.certificates.clone(), Arc::clone(&self.settings), self.reads.clone())
    }

    /// Serves peers until it is dropped. Call it inside a `LocalSet`.
    pub async fn run<S: NodeService>(&self, service: S) {
        let mut peers = JoinSet::new();
        while let Some(incoming) = self.endpoint.accept().await {
            while peers.try_join_next().is_some() {}
            if peers.len() >= self.settings.max_connections {
                incoming.refuse();
                continue;
            }
            let peer = Peer {
                service: service.clone(),
                settings: Arc::clone(&self.settings),
                reads: self.reads.clone(),
                certificates: self.certificates.clone(),
            };
            peers.spawn_local(peer.serve(incoming));
        }
    }

    /// Closes every connection of the endpoint, whoever made it, and accepts no more.
    pub fn close(&self) {
        self.endpoint.close(VarInt::from_u32(code::STOPPED), b"the node stops");
    }
}

struct Peer<S> {
    service: S,
    settings: Arc<QuicSettings>,
    reads: ColdReads,
    certificates: NodeCertificates,
}

impl<S: NodeService> Peer<S> {
    async fn serve(self, incoming: Incoming) {
        let from = incoming.remote_address();
        let connection = match timeout(self.settings.connect_timeout, incoming).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return tracing::info!(%from, %error, "a peer's handshake failed"),
            Err(_) => return tracing::info!(%from, "a peer's handshake took too long"),
        };
        let name = match self.certificates.peer(&connection) {
            Ok(name) => name,
            Err(error) => {
                tracing::warn!(%from, %error, "a peer that is no node of this cluster");
                return connection.close(VarInt::from_u32(code::STRANGER), error.to_string().as_bytes());
            }
        };
        let (peer, mut lanes) = (Rc::new(self), JoinSet::new());
        loop {
            match connection.accept_bi().await {
                Ok((send, receive)) => {
                    while lanes.try_join_next().is_some() {}
                    lanes.spawn_local(Rc::clone(&peer).lane(name, connection.clone(), send, receive));
                }
                Err(error) => return tracing::debug!(%name, %from, %error, "a peer is gone"),
            }
        }
    }

    async fn lane(self: Rc<Self>, name: NodeName, connection: Connection, send_half: SendStream, receive: RecvStream) {
        let node = name.node_id;
        let mut source = FrameSource::new(receive, &self.settings);
        let answers = Rc::new(Mutex::new(send_half));
        let end = match self.hello(name.role, &mut source, &answers).await {
            Ok((kind, level)) => self.requests(node, kind, level, &mut source, &answers).await,
            Err(why) => {
                // Whoever speaks another language is told so once, for all its lanes.
                connection.close(VarInt::from_u32(code::HELLO), why.as_bytes());
                return tracing::warn!(%node, why, "a peer's lane is not served");
            }
        };
        tracing::debug!(%node, %end, "a lane is over");
        source.stop(code::BROKEN);
        drop(answers.lock().await.reset(VarInt::from_u32(code::BROKEN)));
    }

    async fn hello(
        &self,
        role: Role,
        source: &mut FrameSource,
        answers: &Mutex<SendStream>,
    ) -> Result<(LaneKind, u16), &'static str> {
        let first = timeout(self.settings.connect_timeout, source.next()).await;
        let first = first.map_err(|_| "no hello in time")?.map_err(|_| "no hello")?;
        let hello = Some(first).filter(|frame| frame.tag == HELLO).and_then(|frame| Hello::parse(frame.head));
        let hello = hello.ok_or("not a hello")?;
        if (role == Role::Supervisor) != (hello.kind == LaneKind::Supervisor) || !self.service.serves(hello.kind) {
            return Err("lanes of this kind are not served here");
        }
        let level = common_level(S::LEVELS, hello.levels).ok_or("no feature level in common")?;
        let mut stream = answers.lock().await;
        send(&mut stream, &level_frame(level), 0, &self.reads).await.map_err(|_| "the hello cannot be answered")?;
        Ok((hello.kind, level))
    }

    /// Reads requests while fewer than the lane takes are without an answer.
    async fn requests(
        self: &Rc<Self>,
        node: NodeId,
        kind: LaneKind,
        level: u16,
        source: &mut FrameSource,
        answers: &Rc<Mutex<SendStream>>,
    ) -> StreamError {
        let room = Arc::new(Semaphore::new(self.settings.in_flight));
        // Dropped with the lane, and so is what still works for it.
        let mut working = JoinSet::new();
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return StreamError::Ended };
            match next(source, &mut working).await {
                Ok(received) => {
                    let answer = Rc::clone(self).answer(node, kind, level, received, Rc::clone(answers), permit);
                    working.spawn_local(answer);
                }
                Err(error) => return error,
            }
        }
    }

    async fn answer(
        self: Rc<Self>,
        node: NodeId,
        kind: LaneKind,
        level: u16,
        received: Received,
        answers: Rc<Mutex<SendStream>>,
        _permit: OwnedSemaphorePermit,
    ) -> Result<(), StreamError> {
        let (correlation, tag) = (received.correlation, received.tag);
        let call = AssertUnwindSafe(self.service.call(node, kind, level, received.into())).catch_unwind();
        let Ok(answer) = call.await else {
            tracing::error!(%node, tag, "a request of a peer panicked; its lane ends");
            return Err(StreamError::Ended);
        };
        send(&mut *answers.lock().await, &answer, correlation, &self.reads).await
    }
}

/// The next request, unless an answer cannot leave.
async fn next(
    source: &mut FrameSource,
    working: &mut JoinSet<Result<(), StreamError>>,
) -> Result<Received, StreamError> {
    // Half a frame may have been read when an answer is done, so the read is never begun anew.
    let mut next = pin!(source.next());
    loop {
        tokio::select! {
            received = &mut next => return received,
            Some(done) = working.join_next() => done.unwrap_or(Err(StreamError::Ended))?,
        }
    }
}
