//! Sockets: Kafka's framing over TCP, with files sent by `sendfile`, and over QUIC; QUIC between nodes. Frames are opaque here; what they mean is the [`Service`]'s business.
//! Invariant: nothing is allocated for bytes that a peer has announced and not sent.

pub mod budget;
pub mod kafka;
pub mod quic;
pub mod service;
pub mod stats;

pub use budget::MemoryBudget;
pub use service::{Admission, Outcome, PeerInfo, Response, Service};
pub use stats::{CloseReason, Stats};
