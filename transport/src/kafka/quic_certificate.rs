//! What a QUIC listener shows to clients: a certificate, and behind it the keys by which a client knows the node again after a restart.
//! Invariant: the private key is in no message and no log.

use std::fmt;
use std::sync::Arc;

use quinn::EndpointConfig;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::quic::{CertificateError, Resets, unreadable};

/// Names the protocol in the handshake (RFC 7301). Nodes speak another one.
pub const CLIENT_ALPN: &[u8] = b"kafka/1";

/// A server's certificate, with those between it and its authority, and its key. Clients need none.
#[derive(Clone)]
pub struct ServerCertificate {
    config: Arc<QuicServerConfig>,
    own: CertificateDer<'static>,
    key: Arc<PrivateKeyDer<'static>>,
}

/// Without the key.
impl fmt::Debug for ServerCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ServerCertificate").finish_non_exhaustive()
    }
}

impl ServerCertificate {
    /// From PEM.
    ///
    /// # Errors
    /// One of them is not what it should be, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let failed = unreadable("certificate");
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| failed(error.to_string()))?;
        let own = chain.first().cloned().ok_or_else(|| failed("no certificate in it".to_owned()))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unreadable("key")(error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| failed(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, key.clone_key())
            .map_err(|error| failed(error.to_string()))?;
        config.alpn_protocols = vec![CLIENT_ALPN.to_vec()];
        // What comes before the handshake has ended can be sent again by anybody, and a record would be written again.
        config.max_early_data_size = 0;
        let config = QuicServerConfig::try_from(config).map_err(|error| failed(error.to_string()))?;
        Ok(Self { config: Arc::new(config), own, key: Arc::new(key) })
    }

    /// Whether a client that connects to this host name or address finds it in the certificate.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        let parsed = webpki::EndEntityCert::try_from(&self.own);
        let name = ServerName::try_from(host);
        parsed.is_ok_and(|own| name.is_ok_and(|name| own.verify_is_valid_for_subject_name(&name).is_ok()))
    }

    pub(crate) fn config(&self) -> Arc<QuicServerConfig> {
        Arc::clone(&self.config)
    }

    /// The same after every start of the same node, so that a client which does not know of a restart is told that its connection is gone
    /// instead of being left to its silence. Another node cannot tell it so.
    pub(crate) fn endpoint(&self, instance: &str) -> EndpointConfig {
        Resets::of(self.key.secret_der(), instance).endpoint()
    }
}
