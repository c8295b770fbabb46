//! The process that runs this one, as far as this one knows it: told which registration the node has, and that it lives.
//! Invariant: whoever runs the node knows its registration before anybody counts on it.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use madang_protocol::types::NodeId;

/// Names the socket of the process that runs this one, in Linux' abstract namespace.
pub const SUPERVISOR: &str = "MADANG_SUPERVISOR";
/// What a line says that names a registration.
pub(crate) const EPOCH: &str = "epoch ";
/// What a line says that names the other members of the quorum: `ID@HOST:PORT`, separated by commas.
pub(crate) const MEMBERS: &str = "members ";
/// What a line says that tells of life.
pub(crate) const ALIVE: &str = "alive";
/// A supervisor that does not read is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// See the file's head.
#[derive(Debug)]
pub struct Outer {
    stream: Mutex<UnixStream>,
}

impl Outer {
    /// The supervisor that the environment names, if it does.
    ///
    /// # Errors
    /// It is named, and not there.
    pub fn from_environment() -> io::Result<Option<Self>> {
        let Ok(name) = std::env::var(SUPERVISOR) else { return Ok(None) };
        let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Some(Self { stream: Mutex::new(stream) }))
    }

    /// The node is about to serve under this registration.
    pub fn registered(&self, broker_epoch: i64) {
        self.say(&format!("{EPOCH}{broker_epoch}\n"));
    }

    /// Whom to tell of this node's death.
    pub fn members(&self, members: &BTreeMap<NodeId, String>) {
        let named: Vec<String> = members.iter().map(|(node, address)| format!("{node}@{address}")).collect();
        self.say(&format!("{MEMBERS}{}\n", named.join(",")));
    }

    /// The node's threads turn.
    pub fn lives(&self) {
        self.say(&format!("{ALIVE}\n"));
    }

    fn say(&self, line: &str) {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = stream.write_all(line.as_bytes()) {
            tracing::debug!(%error, "the supervisor does not listen");
        }
    }
}
