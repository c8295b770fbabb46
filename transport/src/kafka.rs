//! Kafka's framing over TCP or a QUIC stream: a four-byte length, then that many bytes; answers in the order of the requests.
//! Invariant: one task owns a connection, and everything it holds goes when the task ends.

mod absence;
mod answers;
mod cold_reads;
mod connection;
mod duplex;
mod frame_reader;
mod intake;
mod ledger;
mod limits;
mod listener;
mod quic_certificate;
mod quic_client;
mod quic_listener;
mod quic_stream;
mod settings;
mod shutdown;
mod worker;
mod writer;

pub use absence::watch_listener;
pub use cold_reads::ColdReads;
pub(crate) use cold_reads::Part;
pub use connection::{ConnectionContext, serve_connection};
pub use limits::{AcceptLimits, ConnectionLimits, ConnectionPermit, Refusal};
pub use listener::{Listener, ListenerSettings};
pub use quic_certificate::{CLIENT_ALPN, ServerCertificate};
pub use quic_listener::{QuicListener, QuicListenerSettings};
pub use settings::ConnectionSettings;
pub use shutdown::{Shutdown, ShutdownSignal};
pub use worker::{Accepted, Worker};
