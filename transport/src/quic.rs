//! QUIC between nodes: mutual TLS 1.3, one connection for each peer and endpoint, and on it lanes, each a stream of framed requests and
//! answers in both directions. Frames are opaque here; what they mean is the [`NodeService`]'s business.
//! Invariant: a connection whose peer has not shown a certificate of this cluster reaches no service, and a lane has a bounded number of
//! requests without an answer.

mod accept;
mod frame;
mod identity;
mod lane;
mod link;
mod resets;
mod settings;
mod stream;

pub use accept::{NodeListener, NodeService};
pub use frame::{NodeFrame, PROTOCOL_VERSION};
pub(crate) use identity::unreadable;
pub use identity::{CertificateError, NodeCertificates, NodeName, Role};
pub use lane::{CallError, Lane, LaneKind};
pub use link::{Link, LinkError, LinkState};
pub(crate) use resets::Resets;
pub use settings::QuicSettings;
