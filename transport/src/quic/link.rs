//! The dialing side: one link to one peer, made again whenever it is lost, and the lanes on it.
//! Invariant: a link is up only when the peer has answered a hello on every lane; while it is not, calls fail at once.

use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use madang_protocol::types::NodeId;
use quinn::{Connection, Endpoint, VarInt};
use tokio::net::lookup_host;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::accept::{NodeListener, code};
use super::identity::{NodeCertificates, NodeName, Role};
use super::lane::{Call, HELLO, Hello, Lane, LaneKind, LaneStream, drive};
use super::settings::QuicSettings;
use super::stream::{FrameSource, send};
use crate::kafka::ColdReads;

/// Why a link is not up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not tried yet.
    #[error("not tried yet")]
    New,
    /// The address has no host behind it.
    #[error("{0}")]
    Address(String),
    /// No connection: nobody there, or no node of this cluster with that id.
    #[error("{0}")]
    Connect(String),
    /// The peer is there and does not take the lanes.
    #[error("{0}")]
    Refused(String),
    /// It was up.
    #[error("{0}")]
    Lost(String),
}

/// How a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Calls fail at once; it is tried again by itself.
    Down(LinkError),
    /// Calls are sent.
    Up {
        /// The feature level that both speak.
        level: u16,
    },
}

/// A link to one peer. Dropped together with its lanes, it ends.
#[derive(Debug)]
pub struct Link {
    /// Its lanes, in the order in which they were asked for.
    pub lanes: Vec<Lane>,
    /// How it is now.
    pub state: watch::Receiver<LinkState>,
}

struct Driver {
    endpoint: Endpoint,
    certificates: NodeCertificates,
    settings: Arc<QuicSettings>,
    reads: ColdReads,
    peer: NodeId,
    address: String,
    levels: (u16, u16),
    kinds: Vec<LaneKind>,
    state: watch::Sender<LinkState>,
}

impl Link {
    /// A link over the listener's socket to the node `peer` at `address` (`host:port`), and the work that keeps it up: to be run inside
    /// a `LocalSet` on the listener's thread. It ends when the link and all its lanes are dropped.
    pub fn new(
        listener: &NodeListener,
        peer: NodeId,
        address: String,
        levels: (u16, u16),
        kinds: &[LaneKind],
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (endpoint, certificates, settings, reads) = listener.parts();
        let (lanes, queues) = kinds.iter().map(|kind| Lane::new(*kind, &settings)).unzip();
        let (state, seen) = watch::channel(LinkState::Down(LinkError::New));
        let kinds = kinds.to_vec();
        let driver = Driver { endpoint, certificates, settings, reads, peer, address, levels, kinds, state };
        (Self { lanes, state: seen }, driver.run(queues))
    }
}

impl Driver {
    async fn run(self, mut queues: Vec<mpsc::Receiver<Call>>) {
        let mut failures = 0;
        loop {
            let Some(connected) = refusing(&mut queues, self.connect()).await else { return };
            let error = match connected {
                Ok((connection, level, streams)) => {
                    failures = 0;
                    self.state.send_replace(LinkState::Up { level });
                    let lost = self.serve(&connection, streams, &mut queues).await;
                    connection.close(VarInt::from_u32(code::STOPPED), lost.as_bytes());
                    LinkError::Lost(lost)
                }
                Err(error) => error,
            };
            tracing::debug!(peer = %self.peer, address = self.address, %error, "link down");
            self.state.send_replace(LinkState::Down(error));
            let wait = sleep(self.wait(failures));
            failures += 1;
            if refusing(&mut queues, wait).await.is_none() {
                return;
            }
        }
    }

    /// Doubles, and is spread over half of itself, so that many links do not come back at one moment.
    fn wait(&self, failures: u32) -> Duration {
        let longest = self.settings.back_off.saturating_mul(1 << failures.min(16)).min(self.settings.back_off_max);
        let spread = RandomState::new().hash_one(failures) % 512;
        longest / 2 + longest / 2 * u32::try_from(spread).unwrap_or(0) / 512
    }

    async fn connect(&self) -> Result<(Connection, u16, Vec<LaneStream>), LinkError> {
        let connecting = timeout(self.settings.connect_timeout, self.dial());
        connecting.await.unwrap_or_else(|_| Err(LinkError::Connect("no answer in time".to_owned())))
    }

    async fn dial(&self) -> Result<(Connection, u16, Vec<LaneStream>), LinkError> {
        let failed = |error: &dyn ToString| LinkError::Address(format!("{}: {}", self.address, error.to_string()));
        let mut addresses = lookup_host(&self.address).await.map_err(|error| failed(&error))?;
        let address = addresses.next().ok_or_else(|| failed(&"no address"))?;
        let mut config = quinn::ClientConfig::new(self.certificates.client());
        config.transport_config(self.settings.transport());
        let name = NodeName { node_id: self.peer, role: Role::Node, ..self.certificates.name() }.to_string();
        let connecting = self.endpoint.connect_with(config, address, &name);
        let connection = connecting.map_err(|error| LinkError::Connect(error.to_string()))?;
        let connection = connection.await.map_err(|error| LinkError::Connect(error.to_string()))?;
        // Until the peer has spoken it may still refuse our certificate.
        let lanes = join_all(self.kinds.iter().map(|kind| self.open(&connection, *kind))).await;
        let lanes: Result<Vec<(u16, LaneStream)>, LinkError> = lanes.into_iter().collect();
        let lanes = lanes.inspect_err(|error| {
            connection.close(VarInt::from_u32(code::HELLO), error.to_string().as_bytes());
        })?;
        let level = lanes.iter().map(|(level, _)| *level).min().unwrap_or(self.levels.1);
        Ok((connection, level, lanes.into_iter().map(|(_, lane)| lane).collect()))
    }

    /// A stream exists for the peer only after its first bytes, so the hello goes at once.
    async fn open(&self, connection: &Connection, kind: LaneKind) -> Result<(u16, LaneStream), LinkError> {
        // A stream knows that its connection is lost; the connection knows why.
        let refused = |error: &dyn ToString| {
            let why = connection.close_reason().map_or_else(|| error.to_string(), |reason| reason.to_string());
            LinkError::Refused(why)
        };
        let (mut stream, receive) = connection.open_bi().await.map_err(|error| refused(&error))?;
        let hello = Hello { kind, levels: self.levels };
        send(&mut stream, &hello.frame(), 0, &self.reads).await.map_err(|error| refused(&error))?;
        let mut source = FrameSource::new(receive, &self.settings);
        let answer = source.next().await.map_err(|error| refused(&error))?;
        let level = <[u8; 2]>::try_from(&answer.head[..answer.head.len().min(2)]).map(u16::from_le_bytes);
        match level {
            Ok(level) if answer.tag == HELLO && (self.levels.0..=self.levels.1).contains(&level) => {
                Ok((level, LaneStream { send: stream, source }))
            }
            _ => Err(refused(&"not an answer to a hello")),
        }
    }

    /// Drives all lanes; the first that ends takes the others along.
    async fn serve(
        &self,
        connection: &Connection,
        streams: Vec<LaneStream>,
        queues: &mut [mpsc::Receiver<Call>],
    ) -> String {
        let lanes = streams.into_iter().zip(queues);
        let lanes = lanes.map(|(stream, queue)| Box::pin(drive(stream, queue, &self.settings, &self.reads)));
        tokio::select! {
            // A lane knows that its connection is lost; the connection knows why.
            (end, _, _) = select_all(lanes) => connection.close_reason().map_or_else(|| end.to_string(), |why| why.to_string()),
            closed = connection.closed() => closed.to_string(),
        }
    }
}

/// Refuses calls while the work goes on; none if nobody can call any more.
async fn refusing<T>(queues: &mut [mpsc::Receiver<Call>], work: impl Future<Output = T>) -> Option<T> {
    let refuse = queues.iter_mut().map(|queue| async {
        while let Some(call) = queue.recv().await {
            call.refuse();
        }
    });
    tokio::select! {
        done = work => Some(done),
        _ = join_all(refuse) => None,
    }
}
