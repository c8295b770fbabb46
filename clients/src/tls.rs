//! TLS over TCP, as Kafka's SSL listeners speak it: the broker's certificate is checked against a CA and its name; a certificate of the client's own is
//! shown if it has one.
//! Invariant: no connection is used before the broker's certificate is found good.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::pem::{TlsError, certificates, failed, host, roots};

/// Whom a client trusts, and who it is. Files are read once, when it is made.
///
/// ```no_run
/// # fn example() -> Result<(), madang_client::TlsError> {
/// use madang_client::{ClientConfig, TlsConfig};
///
/// let tls = TlsConfig::new("ca.pem")?;
/// let config = ClientConfig { tls: Some(tls), ..ClientConfig::new(["kafka.example:9093"]) };
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TlsConfig {
    client: Arc<ClientConfig>,
    server_name: Option<String>,
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl PartialEq for TlsConfig {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.client, &other.client) && self.server_name == other.server_name
    }
}

impl Eq for TlsConfig {}

impl TlsConfig {
    /// Trusts the certificates of a file in PEM.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(ca_file: impl AsRef<Path>) -> Result<Self, TlsError> {
        Self::made(ca_file.as_ref(), None)
    }

    /// Trusts the certificates of a file, and shows a certificate of its own (with those between it and its CA behind it in the file). All in PEM.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn with_identity(
        ca_file: impl AsRef<Path>,
        certificate_file: impl AsRef<Path>,
        key_file: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        Self::made(ca_file.as_ref(), Some((certificate_file.as_ref(), key_file.as_ref())))
    }

    /// Expects this name in every broker's certificate instead of the host that it is reached at.
    #[must_use]
    pub fn server_name(self, name: impl Into<String>) -> Self {
        Self { server_name: Some(name.into()), ..self }
    }

    fn made(ca_file: &Path, identity: Option<(&Path, &Path)>) -> Result<Self, TlsError> {
        let unusable = |error: rustls::Error| TlsError::unusable(&error);
        let roots = roots(ca_file)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(unusable)?.with_root_certificates(roots);
        let client = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let file = |error: rustls::pki_types::pem::Error| failed(key, &error);
                let private = PrivateKeyDer::from_pem_file(key).map_err(file)?;
                builder.with_client_auth_cert(certificates(certificate)?, private).map_err(unusable)?
            }
        };
        Ok(Self { client: Arc::new(client), server_name: None })
    }

    /// Secures a connection to `address`, which is host and port.
    pub(crate) async fn connect(&self, socket: TcpStream, address: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = self.server_name.as_deref().unwrap_or_else(|| host(address)).to_owned();
        let name = ServerName::try_from(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        TlsConnector::from(Arc::clone(&self.client)).connect(name, socket).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use madang_protocol::messages::metadata::MetadataRequest;
    use rustls::RootCertStore;
    use rustls::server::WebPkiClientVerifier;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::connection::{Call, Connection, Settings};
    use crate::error::ConnectionError;

    /// A folder with `NAME.pem` and `NAME.key` of certificates that trust themselves.
    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for name in names {
            let made = rcgen::generate_simple_self_signed(vec![(*name).to_owned()]).expect("a certificate");
            std::fs::write(folder.path().join(format!("{name}.pem")), made.cert.pem()).expect("written");
            let key = made.signing_key.serialize_pem();
            std::fs::write(folder.path().join(format!("{name}.key")), key).expect("written");
        }
        folder
    }

    /// A broker for one connection that serves no API but ApiVersions, to clients whose certificate is `client.pem` if `asks`.
    async fn broker(folder: &Path, asks: bool) -> String {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificates(&folder.join("client.pem")).expect("a certificate").remove(0)).expect("good");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("versions");
        let builder = if asks {
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_file(folder.join("broker.test.key")).expect("a key");
        let chain = certificates(&folder.join("broker.test.pem")).expect("a certificate");
        let config = builder.with_single_cert(chain, key).expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await?;
            let mut socket = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(socket).await?;
            let length = socket.read_i32().await?;
            let mut request = vec![0; length as usize];
            socket.read_exact(&mut request).await?;
            // ApiVersions is asked in version 3; the answer has the correlation id, no error, no APIs, no throttling, no tags.
            assert_eq!(request[..4], [0, 18, 0, 3]);
            let answer = [&[0, 0, 0, 12][..], &request[4..8], &[0, 0, 1, 0, 0, 0, 0, 0]].concat();
            socket.write_all(&answer).await?;
            socket.flush().await?;
            socket.read_i32().await
        });
        address
    }

    async fn asked(address: String, tls: TlsConfig) -> ConnectionError {
        let settings = Settings {
            client_id: "test".to_owned(),
            connect_timeout: Duration::from_secs(10),
            max_response_bytes: 1_000,
            tls: Some(tls),
            #[cfg(feature = "quic")]
            quic: None,
        };
        let call = Call::within(Duration::from_secs(20));
        let connection = Connection::new(address, Arc::new(settings));
        connection.send(&MetadataRequest::default(), call).await.expect_err("it serves nothing")
    }

    #[tokio::test]
    async fn versions_are_exchanged_with_a_broker_of_the_expected_name_and_with_no_other() {
        let folder = folder(&["broker.test", "client"]);
        let tls = TlsConfig::new(folder.path().join("broker.test.pem")).expect("read").server_name("broker.test");
        let answered = asked(broker(folder.path(), false).await, tls.clone()).await;
        assert!(matches!(answered, ConnectionError::Unsupported { api: "Metadata", .. }), "{answered}");

        let misnamed = asked(broker(folder.path(), false).await, tls.server_name("other.test")).await;
        assert!(matches!(misnamed, ConnectionError::Connect { .. }), "{misnamed}");
        let by_address = TlsConfig::new(folder.path().join("broker.test.pem")).expect("read");
        let unnamed = asked(broker(folder.path(), false).await, by_address).await;
        assert!(matches!(unnamed, ConnectionError::Connect { .. }), "the address is not in the certificate: {unnamed}");
        let stranger = TlsConfig::new(folder.path().join("client.pem")).expect("read").server_name("broker.test");
        let untrusted = asked(broker(folder.path(), false).await, stranger).await;
        assert!(matches!(untrusted, ConnectionError::Connect { .. }), "{untrusted}");
    }

    #[tokio::test]
    async fn a_client_shows_its_certificate_where_it_is_asked_for() {
        let folder = folder(&["broker.test", "client"]);
        let file = |name: &str| folder.path().join(name);
        let known = TlsConfig::with_identity(file("broker.test.pem"), file("client.pem"), file("client.key"));
        let known = known.expect("read").server_name("broker.test");
        let answered = asked(broker(folder.path(), true).await, known).await;
        assert!(matches!(answered, ConnectionError::Unsupported { .. }), "{answered}");
        let nobody = TlsConfig::new(file("broker.test.pem")).expect("read").server_name("broker.test");
        let refused = asked(broker(folder.path(), true).await, nobody).await;
        assert!(!matches!(refused, ConnectionError::Unsupported { .. }), "{refused}");
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let folder = folder(&["client"]);
        assert!(matches!(TlsConfig::new(folder.path().join("missing.pem")), Err(TlsError::File { .. })));
        assert!(matches!(TlsConfig::new(folder.path().join("client.key")), Err(TlsError::File { .. })));
    }
}
