//! Accepts connections and hands each to the network thread that has the fewest.
//! Invariant: an accepted socket is either counted and handed over, or closed at once.
//!
//! One acceptor for each listener, not one for each thread with `SO_REUSEPORT`: the kernel's hash puts few connections on
//! threads unevenly and for good, a second process could bind the same port unnoticed, and connections queued to a dying thread are lost.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::kafka::limits::{ConnectionLimits, ConnectionPermit};
use crate::kafka::{ConnectionContext, serve_connection};
use crate::service::{PeerInfo, Service};
use crate::stats::{CloseReason, Stats};

/// Connections that have finished their handshake and wait to be accepted.
const BACKLOG: i32 = 4096;
/// Connections handed to a thread that has not taken them yet.
const HANDED_OVER: usize = 1024;
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
    workers: Vec<WorkerHandle>,
}

#[derive(Debug)]
struct WorkerHandle {
    connections: Arc<AtomicUsize>,
    queue: mpsc::Sender<Accepted>,
}

/// One network thread's end: what it is handed.
#[derive(Debug)]
pub struct Worker {
    queue: mpsc::Receiver<Accepted>,
}

/// An accepted connection on its way to its thread. Dropped, it closes the socket.
#[derive(Debug)]
pub struct Accepted {
    stream: StdStream,
    peer: PeerInfo,
    context: ConnectionContext,
    counted: Counted,
}

/// A connection's places in the counts, given back on drop.
#[derive(Debug)]
struct Counted {
    worker: Arc<AtomicUsize>,
    stats: Arc<Stats>,
    _permit: ConnectionPermit,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.worker.fetch_sub(1, Ordering::Relaxed);
        self.stats.release();
    }
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
        let pairs = (0..settings.workers.max(1)).map(|_| {
            let (queue, receiver) = mpsc::channel(HANDED_OVER);
            (WorkerHandle { connections: Arc::default(), queue }, Worker { queue: receiver })
        });
        let (workers, receivers) = pairs.unzip();
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
                    if self.workers.iter().all(|worker| worker.queue.is_closed()) {
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
        let stream = stream.into_std()?;
        let peer = PeerInfo { listener: Arc::clone(&self.name), peer_addr, local_addr };
        let Some(worker) = self.least_loaded() else { return Ok(()) };
        worker.connections.fetch_add(1, Ordering::Relaxed);
        self.context.stats.accept();
        let counted = Counted {
            worker: Arc::clone(&worker.connections),
            stats: Arc::clone(&self.context.stats),
            _permit: permit,
        };
        let accepted = Accepted { stream, peer, context: self.context.clone(), counted };
        if worker.queue.try_send(accepted).is_err() {
            self.context.stats.refuse();
            tracing::warn!(%peer_addr, "connection refused: its network thread does not keep up");
        }
        Ok(())
    }

    fn least_loaded(&self) -> Option<&WorkerHandle> {
        let alive = self.workers.iter().filter(|worker| !worker.queue.is_closed());
        alive.min_by_key(|worker| worker.connections.load(Ordering::Relaxed))
    }
}

impl Worker {
    /// The next connection to serve; `None` once the listener is over. For a host that runs each connection as a child of its own.
    pub async fn next(&mut self) -> Option<Accepted> {
        self.queue.recv().await
    }

    /// Serves connections on this thread until the listener is over and the last of them has ended. Call it inside a `LocalSet`.
    pub async fn run<S: Service>(mut self, service: S) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.queue.recv() => match accepted {
                    Some(accepted) => drop(connections.spawn_local(accepted.serve(service.clone()))),
                    None => break,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        while connections.join_next().await.is_some() {}
    }
}

impl Accepted {
    /// Whom it is from.
    #[must_use]
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// Serves it until it is over, as [`serve_connection`] does. Poll it on one thread, inside tokio's runtime.
    pub fn serve<S: Service>(self, service: S) -> impl Future<Output = CloseReason> + 'static {
        let Self { stream, peer, context, counted } = self;
        async move {
            let reason = match TcpStream::from_std(stream) {
                Ok(stream) => serve_connection(service, stream, peer, context).await,
                Err(_) => CloseReason::ReadFailed,
            };
            drop(counted);
            reason
        }
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

fn set_options(stream: &TcpStream) -> io::Result<()> {
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
