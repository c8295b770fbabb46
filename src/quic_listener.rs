//! The listener for clients over QUIC: where it is bound, and which certificate it shows.
//! Invariant: what clients are told to connect to is bound, and no certificate of nodes is shown to them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use madang_actors::host::{Arbiter, Role};
use madang_cluster::configs::{BrokerConfig, QUIC_LISTENER, QuicConfig};
use madang_transport::kafka::{
    ConnectionContext, ConnectionLimits, QuicListener, QuicListenerSettings, ServerCertificate, Worker,
};

use crate::certificates::{QUIC_CERTIFICATE, QUIC_KEY, sign_own};
use crate::peers::AUTHORITY;
use crate::server::{arbiter, complete, resolve};

/// Where the certificate is that the node makes itself, within the first log directory.
const FOLDER: &str = "quic";
/// Streams of one connection: a client has one for each purpose at each broker.
const STREAMS: u32 = 32;

/// Where clients connect, and by what they know that it is this node.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The address that is bound.
    pub address: SocketAddr,
    /// A file with the certificate that clients have to trust.
    pub trust: PathBuf,
}

/// A listener whose thread is not started.
pub(crate) struct Bound {
    listener: QuicListener,
    workers: Vec<Worker>,
    shown: Shown,
}

/// Binds it, if there is to be one, and completes what is advertised. Connections may hold `memory` bytes.
///
/// # Errors
/// A text for a person.
pub(crate) fn bind(
    config: &mut BrokerConfig,
    context: ConnectionContext,
    limits: &ConnectionLimits,
    workers: usize,
    memory: usize,
) -> Result<Option<Bound>, String> {
    let Some(mut quic) = config.quic.clone() else { return Ok(None) };
    // Its hosts are in the certificate; the port is known only after it is bound.
    complete(&mut quic.advertised, 0);
    let (certificate, trust) = certificate(config, &quic)?;
    if !certificate.names(&quic.advertised.host) {
        tracing::warn!(
            host = quic.advertised.host,
            "clients over QUIC do not find the host that they are told of in the certificate"
        );
    }
    let address = resolve(&quic.listener)?;
    let settings = QuicListenerSettings {
        name: QUIC_LISTENER.to_owned(),
        address,
        workers,
        max_streams: STREAMS,
        handshake_timeout: config.handshake_timeout,
        memory,
        instance: config.node_id.to_string(),
    };
    let (listener, workers) = QuicListener::bind(settings, certificate, limits.clone(), context)
        .map_err(|error| format!("cannot listen on UDP {address}: {error}"))?;
    let address = listener.local_addr();
    quic.listener.port = address.port();
    complete(&mut quic.advertised, address.port());
    config.quic = Some(quic);
    Ok(Some(Bound { listener, workers, shown: Shown { address, trust } }))
}

/// The certificate, and the file by which clients believe it: what is configured, what the cluster's authority has issued, or what the node makes itself.
fn certificate(config: &BrokerConfig, quic: &QuicConfig) -> Result<(ServerCertificate, PathBuf), String> {
    if let Some((certificate, key)) = &quic.certificate {
        return Ok((read(Path::new(certificate), Path::new(key))?, PathBuf::from(certificate)));
    }
    if let Some(folder) = config.node_certificates.as_deref().map(Path::new)
        && folder.join(QUIC_CERTIFICATE).exists()
    {
        return Ok((read(&folder.join(QUIC_CERTIFICATE), &folder.join(QUIC_KEY))?, folder.join(AUTHORITY)));
    }
    let first = config.log_dirs.first().ok_or_else(|| "log.dirs names no directory".to_owned())?;
    let folder = Path::new(first).join(FOLDER);
    sign_own(&own_names(quic), &folder)?;
    let certificate = folder.join(QUIC_CERTIFICATE);
    Ok((read(&certificate, &folder.join(QUIC_KEY))?, certificate))
}

/// What this machine may be called by a client.
fn own_names(quic: &QuicConfig) -> Vec<String> {
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let known = ["localhost", "127.0.0.1", "::1", &machine, &quic.listener.host, &quic.advertised.host];
    let mut names: Vec<String> = Vec::new();
    for name in known.into_iter().filter(|name| !name.is_empty()) {
        if !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn read(certificate: &Path, key: &Path) -> Result<ServerCertificate, String> {
    let bytes = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    ServerCertificate::from_pem(&bytes(certificate)?, &bytes(key)?)
        .map_err(|error| format!("{}: {error}", certificate.display()))
}

impl Bound {
    /// Gives each network thread its end, and the socket a thread of its own.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn served(
        self,
        network: &mut [(Arbiter, Vec<Worker>)],
    ) -> Result<((QuicListener, Arbiter), Shown), String> {
        for ((_, own), worker) in network.iter_mut().zip(self.workers) {
            own.push(worker);
        }
        Ok(((self.listener, arbiter("quic", Role::Network)?), self.shown))
    }
}

#[cfg(test)]
mod tests {
    use madang_protocol::types::Uuid;

    use super::*;
    use crate::certificates::Authority;

    fn config(folder: &Path, more: &[(&str, &str)]) -> BrokerConfig {
        let data = folder.join("data");
        let pairs = [("log.dirs", data.to_str().unwrap()), ("madang.quic.listener", "127.0.0.1:0")];
        let pairs = pairs.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        BrokerConfig::parse(pairs).unwrap().0
    }

    #[test]
    fn the_certificate_is_the_configured_one_or_the_authoritys_or_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let chosen = |config: &BrokerConfig| certificate(config, config.quic.as_ref().unwrap());
        let (own, trust) = chosen(&config(folder.path(), &[])).unwrap();
        assert!(own.names("127.0.0.1") && own.names("localhost"));
        assert_eq!(trust, folder.path().join("data/quic/quic.pem"));

        let certificates = folder.path().join("certificates");
        let authority = Authority::create(&folder.path().join("authority"), Uuid([1; 16])).unwrap();
        authority.issue(madang_protocol::types::NodeId(1), &certificates).unwrap();
        let among = [("madang.node.certificates", certificates.to_str().unwrap())];
        assert_eq!(chosen(&config(folder.path(), &among)).unwrap().1, trust, "none is there for clients");
        authority.issue_for_clients(&["a.example".to_owned()], &certificates).unwrap();
        let (issued, trust) = chosen(&config(folder.path(), &among)).unwrap();
        assert!(issued.names("a.example") && !issued.names("localhost"));
        assert_eq!(trust, certificates.join("ca.pem"));

        let (pem, key) = (certificates.join(QUIC_CERTIFICATE), folder.path().join("data/quic/quic.key"));
        let mixed = [("madang.quic.certificate", pem.to_str().unwrap()), ("madang.quic.key", key.to_str().unwrap())];
        assert!(chosen(&config(folder.path(), &mixed)).is_err(), "the key is another's");
        let missing = [("madang.quic.certificate", "missing.pem"), ("madang.quic.key", "missing.key")];
        assert!(chosen(&config(folder.path(), &missing)).unwrap_err().starts_with("missing.pem: "));
    }
}
