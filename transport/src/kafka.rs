//! Kafka's framing over TCP: a four-byte length, then that many bytes; answers in the order of the requests.
//! Invariant: one task owns a connection, and everything it holds goes when the task ends.

mod answers;
mod cold_reads;
mod connection;
mod frame_reader;
mod intake;
mod ledger;
mod limits;
mod listener;
mod settings;
mod shutdown;
mod writer;

pub use cold_reads::ColdReads;
pub(crate) use cold_reads::Part;
pub use connection::{ConnectionContext, serve_connection};
pub use limits::{AcceptLimits, ConnectionLimits, ConnectionPermit, Refusal};
pub use listener::{Accepted, Listener, ListenerSettings, Worker};
pub use settings::ConnectionSettings;
pub use shutdown::{Shutdown, ShutdownSignal};
