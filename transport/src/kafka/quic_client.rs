//! A client's QUIC connection on its network thread: the handshake, and the streams, each a connection of Kafka's protocol.
//! Invariant: a connection has a bounded number of streams, and what was sent on them and not read is bounded with them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::kafka::ConnectionContext;
use crate::kafka::limits::ConnectionLimits;
use crate::kafka::quic_stream::{code, serve_stream};
use crate::kafka::worker::Open;
use crate::service::{PeerInfo, Service};
use crate::stats::{CloseReason, Stats};

/// A connection that is announced.
#[derive(Debug)]
pub(crate) struct QuicArrival {
    pub(crate) incoming: Incoming,
    pub(crate) handshake_timeout: Duration,
    pub(crate) limits: ConnectionLimits,
    /// One of the connections that there may be, and one of the handshakes that may be going on.
    pub(crate) permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

/// A QUIC connection that is open, in the node's counters until it is dropped.
struct OpenQuic(Arc<Stats>);

impl OpenQuic {
    fn new(stats: &Arc<Stats>) -> Self {
        stats.accept_quic();
        Self(Arc::clone(stats))
    }
}

impl Drop for OpenQuic {
    fn drop(&mut self) {
        self.0.release_quic();
    }
}

impl QuicArrival {
    /// Serves the connection until it is over. If the future is dropped it is closed at once, with all its streams.
    pub(crate) async fn serve<S: Service>(
        self: Box<Self>,
        service: S,
        peer: PeerInfo,
        context: ConnectionContext,
    ) -> CloseReason {
        let Self { incoming, handshake_timeout, limits, permits: (_connection, handshake) } = *self;
        let from = peer.peer_addr;
        let connecting = match incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => return failed(&peer, &context, &error.to_string()),
        };
        let connection = match timeout(handshake_timeout, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return failed(&peer, &context, &error.to_string()),
            Err(_) => return failed(&peer, &context, "it took too long"),
        };
        drop(handshake);
        let _open = OpenQuic::new(&context.stats);
        let (reason, code) = Client { service, peer, context, limits }.streams(&connection).await;
        connection.close(VarInt::from_u32(code), reason.label().as_bytes());
        tracing::debug!(peer = %from, %reason, "QUIC connection closed");
        reason
    }
}

fn failed(peer: &PeerInfo, context: &ConnectionContext, why: &str) -> CloseReason {
    context.stats.fail_handshake();
    tracing::debug!(peer = %peer.peer_addr, why, "a client's handshake failed");
    CloseReason::ReadFailed
}

struct Client<S> {
    service: S,
    peer: PeerInfo,
    context: ConnectionContext,
    limits: ConnectionLimits,
}

impl<S: Service> Client<S> {
    /// Serves streams until the client or the node has had enough, and the last of them is over.
    async fn streams(&self, connection: &Connection) -> (CloseReason, u32) {
        let mut streams = JoinSet::new();
        let mut shutdown = self.context.shutdown.clone();
        shutdown.rearm();
        let end = loop {
            // From the end of the last stream on, or from the handshake.
            let idle = tokio::time::Instant::now() + self.context.settings.max_idle;
            tokio::select! {
                stream = connection.accept_bi() => match stream {
                    Ok((send, receive)) => self.stream(connection, &mut streams, send, receive),
                    Err(_) => break (CloseReason::ClientClosed, code::OVER),
                },
                Some(_) = streams.join_next() => {}
                _ = shutdown.next_deadline() => break (CloseReason::Shutdown, code::STOPPED),
                () = sleep_until(idle), if streams.is_empty() => break (CloseReason::Idle, code::IDLE),
            }
        };
        while streams.join_next().await.is_some() {}
        end
    }

    fn stream(
        &self,
        connection: &Connection,
        streams: &mut JoinSet<()>,
        mut send: SendStream,
        mut receive: RecvStream,
    ) {
        // Where the client is now: it may have moved since it connected.
        let peer = PeerInfo { peer_addr: connection.remote_address(), ..self.peer.clone() };
        let permit = match self.limits.admit(peer.peer_addr.ip(), Instant::now()) {
            Ok(permit) => permit,
            Err(refusal) => {
                self.context.stats.refuse();
                tracing::debug!(peer = %peer.peer_addr, ?refusal, "stream refused");
                // Both fail only on what has ended already.
                drop(receive.stop(VarInt::from_u32(code::REFUSED)));
                drop(send.reset(VarInt::from_u32(code::REFUSED)));
                return;
            }
        };
        let (service, context, open) = (self.service.clone(), self.context.clone(), Open::new(&self.context.stats));
        streams.spawn_local(async move {
            serve_stream(service, send, receive, peer, &context).await;
            drop((open, permit));
        });
    }
}
