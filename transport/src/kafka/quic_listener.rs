//! Accepts clients over QUIC and hands each connection to the network thread that has the fewest.
//! Invariant: nothing but Kafka's frames is spoken here: whoever asks for another protocol fails in the handshake, and nodes have none in common
//! with clients.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn::{Endpoint, IdleTimeout, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use rustix::net::sockopt;
use tokio::sync::Semaphore;

use crate::kafka::ConnectionContext;
use crate::kafka::limits::ConnectionLimits;
use crate::kafka::quic_certificate::ServerCertificate;
use crate::kafka::quic_client::QuicArrival;
use crate::kafka::quic_stream::code;
use crate::kafka::worker::{Arrived, Worker, Workers};
use crate::service::PeerInfo;

/// What the kernel keeps for a socket that its thread has not come to yet.
const SOCKET_BUFFER: usize = 4 << 20;
/// What a client may have sent on one stream that is not read yet, and we on one connection that has not arrived.
const STREAM_WINDOW: u32 = 256 << 10;
const SEND_WINDOW: u64 = 4 << 20;
/// A client that says nothing for so long is gone; what keeps a connection alive is the client's.
const SILENCE: Duration = Duration::from_secs(30);
/// Handshakes that may be going on. From half of them on, whoever asks has to show that it is where it says it is.
const HANDSHAKES: usize = 1_024;
/// Fewest and most connections, whatever memory there is.
const CONNECTIONS: (usize, usize) = (64, 5_000);

/// Where and as what to listen.
#[derive(Clone, Debug)]
pub struct QuicListenerSettings {
    /// Name of the listener, for example `QUIC`.
    pub name: String,
    /// Address to bind; port 0 takes a free one.
    pub address: SocketAddr,
    /// Network threads that serve its connections, at least 1.
    pub workers: usize,
    /// Streams that a connection may have at once; its client waits with more.
    pub max_streams: u32,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Bytes that all connections together may keep in their windows, which bounds their number.
    pub memory: usize,
    /// What sets this node apart from others that show the same certificate.
    pub instance: String,
}

impl QuicListenerSettings {
    fn connections(&self) -> usize {
        let each = u64::from(self.max_streams) * u64::from(STREAM_WINDOW) + SEND_WINDOW;
        let fit = self.memory as u64 / each;
        usize::try_from(fit).unwrap_or(usize::MAX).clamp(CONNECTIONS.0, CONNECTIONS.1)
    }

    /// A stream that nobody reads leaves the others their windows.
    fn transport(&self) -> TransportConfig {
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(self.max_streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(STREAM_WINDOW.saturating_mul(self.max_streams)))
            .send_window(SEND_WINDOW)
            .datagram_receive_buffer_size(None)
            .max_idle_timeout(IdleTimeout::try_from(SILENCE).ok());
        config
    }
}

/// A bound socket that accepts.
#[derive(Debug)]
pub struct QuicListener {
    socket: UdpSocket,
    local_addr: SocketAddr,
    name: Arc<str>,
    settings: QuicListenerSettings,
    certificate: ServerCertificate,
    limits: ConnectionLimits,
    context: ConnectionContext,
    workers: Workers,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    /// What the life before this one served with.
    endpoint: Mutex<Option<Endpoint>>,
}

impl QuicListener {
    /// Binds. Nothing is accepted before [`QuicListener::run`]. Each [`Worker`] goes to a network thread of its own.
    ///
    /// # Errors
    /// If the address is taken or not ours.
    pub fn bind(
        settings: QuicListenerSettings,
        certificate: ServerCertificate,
        limits: ConnectionLimits,
        context: ConnectionContext,
    ) -> io::Result<(Self, Vec<Worker>)> {
        let socket = UdpSocket::bind(settings.address)?;
        // The system may give less, and then more is lost when the thread is late.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER);
        let _ = sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER);
        let local_addr = socket.local_addr()?;
        let (workers, receivers) = Workers::new(settings.workers);
        let (connections, name) = (settings.connections(), Arc::from(settings.name.as_str()));
        let listener = Self {
            socket,
            local_addr,
            name,
            settings,
            certificate,
            limits,
            context,
            workers,
            connections: Arc::new(Semaphore::new(connections)),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            endpoint: Mutex::default(),
        };
        Ok((listener, receivers))
    }

    /// The address that is bound, with its actual port.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Accepts until the shutdown begins or every worker is gone; connections go on after it. Call it inside the runtime of the thread that is to
    /// read the socket. A second run closes what the one before it accepted.
    ///
    /// # Errors
    /// The socket is of no use to the runtime.
    pub async fn run(&self) -> io::Result<()> {
        let mut shutdown = self.context.shutdown.clone();
        shutdown.rearm();
        let endpoint = self.endpoint()?;
        tokio::select! {
            biased;
            _ = shutdown.next_deadline() => {}
            () = self.accept(&endpoint) => {}
        }
        endpoint.set_server_config(None);
        Ok(())
    }

    fn endpoint(&self) -> io::Result<Endpoint> {
        let mut server = ServerConfig::with_crypto(self.certificate.config());
        server.transport_config(Arc::new(self.settings.transport())).max_incoming(HANDSHAKES).migration(true);
        let config = self.certificate.endpoint(&self.settings.instance);
        let endpoint = Endpoint::new(config, Some(server), self.socket.try_clone()?, Arc::new(TokioRuntime))?;
        let before = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).replace(endpoint.clone());
        if let Some(before) = before {
            before.close(VarInt::from_u32(code::STOPPED), b"the listener begins anew");
        }
        Ok(endpoint)
    }

    async fn accept(&self, endpoint: &Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            if self.workers.are_gone() {
                return;
            }
            self.hand_over(incoming);
        }
    }

    fn hand_over(&self, incoming: Incoming) {
        let peer_addr = incoming.remote_address();
        if self.handshakes.available_permits() < HANDSHAKES / 2 && incoming.may_retry() {
            // An address that was made up hears nothing of it, and costs nothing.
            drop(incoming.retry());
            return;
        }
        let connection = Arc::clone(&self.connections).try_acquire_owned();
        let handshake = Arc::clone(&self.handshakes).try_acquire_owned();
        let permit = self.limits.admit(peer_addr.ip(), Instant::now());
        let (Ok(connection), Ok(handshake), Ok(permit)) = (connection, handshake, permit) else {
            self.context.stats.refuse();
            tracing::debug!(%peer_addr, "connection refused");
            return incoming.refuse();
        };
        let peer = PeerInfo { listener: Arc::clone(&self.name), peer_addr, local_addr: self.local_addr };
        let arrival = QuicArrival {
            incoming,
            handshake_timeout: self.settings.handshake_timeout,
            limits: self.limits.clone(),
            permits: (connection, handshake),
        };
        self.workers.hand_over(Arrived::Quic(Box::new(arrival)), peer, &self.context, permit);
    }
}
