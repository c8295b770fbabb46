//! What a connection asks of the node: to admit frames in order and to say what leaves in answer.
//! Invariant: a frame is given out once, and its outcome leaves after the outcomes of all earlier frames.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use madang_protocol::payload::Payload;

/// Whom a connection is from, and through which door it came.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Name of the listener, for example `PLAINTEXT`.
    pub listener: Arc<str>,
    /// Address of the client.
    pub peer_addr: SocketAddr,
    /// Address of ours that the client reached.
    pub local_addr: SocketAddr,
}

/// The node as connections see it. Cloned once for each connection, used on one thread.
pub trait Service: Clone + 'static {
    /// What the service remembers about one connection, for example who is authenticated on it.
    type Connection;

    /// Called once, before the first frame is read.
    fn accepted(&self, peer: &PeerInfo) -> Self::Connection;

    /// Whether this frame (without its length prefix) may be admitted while earlier frames that also answered true are still
    /// completing, as Produce may. Everything else waits until the outcome of every earlier frame is known, and holds up
    /// what follows it until its own is.
    fn overlaps(&self, frame: &Bytes) -> bool;

    /// Admits one frame (without its length prefix). Its bytes are uniquely owned, so `Bytes::try_into_mut` succeeds while no
    /// slice of it is held. Keeping a slice of a frame above 4 KiB keeps up to four times the frame; of a smaller one, the frame.
    ///
    /// Resolves when the request's effects are enqueued in order; what is left of its work is in the [`Admission`].
    /// If the client goes away, a frame that does not overlap is dropped where it waits, so everything it has registered
    /// must be removed on drop. A frame that overlaps is never dropped while it is being admitted, save by a panic or at the deadline of a shutdown.
    fn admit(&self, connection: &mut Self::Connection, frame: Bytes) -> impl Future<Output = Admission>;

    /// Called once when the connection is over, whatever ended it.
    fn closed(&self, connection: Self::Connection) {
        drop(connection);
    }
}

/// How far a request is when it is admitted.
pub enum Admission {
    /// Its outcome is known.
    Done(Outcome),
    /// Its effects are enqueued and its outcome is not known yet. The future is first polled when the outcomes of all
    /// earlier frames are known, so a timer inside it must be started before it is returned.
    Completing(LocalBoxFuture<'static, Outcome>),
}

/// What leaves in answer to one request.
#[derive(Debug)]
pub enum Outcome {
    /// An answer.
    Respond(Response),
    /// Nothing, as for Produce with acks=0 that succeeded.
    Silent,
    /// Nothing; the connection is closed once every earlier answer has left. The text says why, in the log.
    Close(&'static str),
}

/// One answer.
#[derive(Debug, Default)]
pub struct Response {
    /// All its bytes, the length prefix included, in order.
    pub chunks: Vec<Payload>,
    /// For how long nothing more is read from the connection once this answer is known. Zero: it is not throttled.
    pub throttle: Duration,
    /// Whether, and why, the connection is closed after the answer has left.
    pub close: Option<&'static str>,
}

impl Response {
    /// An answer after which the connection goes on.
    #[must_use]
    pub fn new(chunks: Vec<Payload>) -> Self {
        Self { chunks, throttle: Duration::ZERO, close: None }
    }

    /// The same answer, after which nothing is read for `throttle`.
    #[must_use]
    pub fn throttled(mut self, throttle: Duration) -> Self {
        self.throttle = throttle;
        self
    }

    /// The same answer, after which the connection is closed.
    #[must_use]
    pub fn closing(mut self, why: &'static str) -> Self {
        self.close = Some(why);
        self
    }

    /// Length in bytes, the prefix included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.iter().map(Payload::len).sum()
    }

    /// Whether there are no bytes at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.iter().all(Payload::is_empty)
    }
}

impl From<Response> for Outcome {
    fn from(response: Response) -> Self {
        Self::Respond(response)
    }
}

impl From<Outcome> for Admission {
    fn from(outcome: Outcome) -> Self {
        Self::Done(outcome)
    }
}
