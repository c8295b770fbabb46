//! The network threads of a listener, and what they are handed.
//! Invariant: an accepted connection is either counted and handed over, or closed at once.

use std::future::Future;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::kafka::limits::ConnectionPermit;
use crate::kafka::quic_client::QuicArrival;
use crate::kafka::{ConnectionContext, serve_connection};
use crate::service::{PeerInfo, Service};
use crate::stats::{CloseReason, Stats};

/// Connections handed to a thread that has not taken them yet.
const HANDED_OVER: usize = 1024;

/// The threads of one listener, as it sees them.
#[derive(Debug)]
pub(crate) struct Workers(Vec<WorkerHandle>);

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

/// An accepted connection on its way to its thread. Dropped, it is closed.
#[derive(Debug)]
pub struct Accepted {
    arrived: Arrived,
    peer: PeerInfo,
    context: ConnectionContext,
    counted: Counted,
}

/// What was accepted.
#[derive(Debug)]
pub(crate) enum Arrived {
    Tcp(StdStream, Open),
    Quic(Box<QuicArrival>),
}

/// A connection's places in the counts, given back on drop.
#[derive(Debug)]
struct Counted {
    worker: Arc<AtomicUsize>,
    _permit: ConnectionPermit,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.worker.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection of Kafka's protocol that is open, in the node's counters until it is dropped.
#[derive(Debug)]
pub(crate) struct Open(Arc<Stats>);

impl Open {
    pub(crate) fn new(stats: &Arc<Stats>) -> Self {
        stats.accept();
        Self(Arc::clone(stats))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Workers {
    /// At least one.
    pub(crate) fn new(count: usize) -> (Self, Vec<Worker>) {
        let pairs = (0..count.max(1)).map(|_| {
            let (queue, receiver) = mpsc::channel(HANDED_OVER);
            (WorkerHandle { connections: Arc::default(), queue }, Worker { queue: receiver })
        });
        let (handles, workers) = pairs.unzip();
        (Self(handles), workers)
    }

    /// Whether no thread takes connections any more.
    pub(crate) fn are_gone(&self) -> bool {
        self.0.iter().all(|worker| worker.queue.is_closed())
    }

    /// Gives the connection to the thread that has the fewest.
    pub(crate) fn hand_over(
        &self,
        arrived: Arrived,
        peer: PeerInfo,
        context: &ConnectionContext,
        permit: ConnectionPermit,
    ) {
        let alive = self.0.iter().filter(|worker| !worker.queue.is_closed());
        let Some(worker) = alive.min_by_key(|worker| worker.connections.load(Ordering::Relaxed)) else { return };
        worker.connections.fetch_add(1, Ordering::Relaxed);
        let counted = Counted { worker: Arc::clone(&worker.connections), _permit: permit };
        let peer_addr = peer.peer_addr;
        let accepted = Accepted { arrived, peer, context: context.clone(), counted };
        if worker.queue.try_send(accepted).is_err() {
            context.stats.refuse();
            tracing::warn!(%peer_addr, "connection refused: its network thread does not keep up");
        }
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

    /// Serves it until it is over, as [`serve_connection`] does; one over QUIC with all its streams. Poll it on one thread, inside tokio's
    /// runtime and a `LocalSet`.
    pub fn serve<S: Service>(self, service: S) -> impl Future<Output = CloseReason> + 'static {
        let Self { arrived, peer, context, counted } = self;
        async move {
            let reason = match arrived {
                Arrived::Tcp(stream, open) => {
                    let reason = match TcpStream::from_std(stream) {
                        Ok(stream) => serve_connection(service, stream, peer, context).await,
                        Err(_) => CloseReason::ReadFailed,
                    };
                    drop(open);
                    reason
                }
                Arrived::Quic(arrival) => arrival.serve(service, peer, context).await,
            };
            drop(counted);
            reason
        }
    }
}
