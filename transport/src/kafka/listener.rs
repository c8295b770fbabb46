//! Accepts connections and hands each to the network thread that has the fewest.
//! Invariant: an accepted socket is either counted and handed over, or closed at once.
//!
//! One acceptor for each listener, not one for each thread with `SO_REUSEPORT`: the kernel's hash puts few connections on
//! threads unevenly and for good, a second process could bind the same port unnoticed, and connections queued to a dying thread are lost.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::kafka::ConnectionContext;
use crate::kafka::limits::ConnectionLimits;
use crate::kafka::worker::{Arrived, Open, Worker, Workers};
use crate::service::PeerInfo;

/// Connections that have finished their handshake and wait to be accepted.
const BACKLOG: i32 = 4096;
/// Silence after which the kernel asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(120);
/// Pause after the first accept that failed for want of descriptors or memory; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where and as what to listen.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Name of the listener, for example `PLAINTEXT`.
    pub name: String,
    /// Address to bind; port 0 takes a free one.
    pub address: SocketAddr,
    /// Network threads that serve its connections, at least 1.
    pub workers: usize,
}

/// A bound socket that accepts.
#[derive(Debug)]
pub struct Listener {
    socket: StdListener,
    name: Arc<str>,
    local_addr: SocketAddr,
    limits: ConnectionLimits,
    context: ConnectionContext,
    workers: Workers,
}

impl Listener {
    /// Binds. Nothing is accepted before [`Listener::run`]. Each [`Worker`] goes to a network thread of its own.
    ///
    /// # Errors
    /// If the address is taken or not ours.
    pub fn bind(
        settings: &ListenerSettings,
        limits: ConnectionLimits,
        context: ConnectionContext,
    ) -> io::Result<(Self, Vec<Worker>)> {
        let socket = bind(settings.address)?;
        let local_addr = socket.local_addr()?;
        let (workers, receivers) = Workers::new(settings.workers);
        let name = Arc::from(settings.name.as_str());
        Ok((Self { socket, name, local_addr, limits, context, workers }, receivers))
    }

    /// The address that is bound, with its actual port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Accepts until the shutdown begins or every worker is gone. Call it inside tokio's runtime.
    ///
    /// # Errors
    /// If the socket cannot be registered with the runtime.
    pub async fn run(&self) -> io::Result<()> {
        let mut shutdown = self.context.shutdown.clone();
        shutdown.rearm();
        let listener = TcpListener::from_std(self.socket.try_clone()?)?;
        tokio::select! {
            biased;
            _ = shutdown.next_deadline() => {}
            () = self.accept(&listener) => {}
        }
        Ok(())
    }

    async fn accept(&self, listener: &TcpListener) {
        let mut pause = FIRST_PAUSE;
        loop {
            match listener.accept().await {
                Ok((stream, peer_addr)) => {
                    pause = FIRST_PAUSE;
                    if self.workers.are_gone() {
                        return;
                    }
                    if let Err(error) = self.hand_over(stream, peer_addr) {
                        tracing::debug!(%peer_addr, %error, "a connection was gone before it was served");
                    }
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, ?pause, "cannot accept");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn hand_over(&self, stream: TcpStream, peer_addr: SocketAddr) -> io::Result<()> {
        let permit = match self.limits.admit(peer_addr.ip(), Instant::now()) {
            Ok(permit) => permit,
            Err(refusal) => {
                self.context.stats.refuse();
                tracing::debug!(%peer_addr, ?refusal, "connection refused");
                return Ok(());
            }
        };
        set_options(&stream)?;
        let local_addr = stream.local_addr()?;
        let arrived = Arrived::Tcp(stream.into_std()?, Open::new(&self.context.stats));
        let peer = PeerInfo { listener: Arc::clone(&self.name), peer_addr, local_addr };
        self.workers.hand_over(arrived, peer, &self.context, permit);
        Ok(())
    }
}

fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // A restarted node must not wait for the old one's connections to be forgotten.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(StdListener::from(socket))
}

pub(crate) fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    Ok(())
}

/// Errors of a connection that failed while it was queued; the listener itself is well.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
