//! Who a node is to its peers: one name in its certificate, which holds the cluster and the node.
//! Invariant: whoever is let in has a certificate of the cluster's authority with exactly one such name, of this cluster.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use madang_protocol::types::{NodeId, Uuid};
use quinn::EndpointConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::resets::Resets;

/// Names the protocol in the handshake (RFC 7301): peers that speak another are refused there.
const ALPN: &[u8] = b"madang-node/1";
const SUFFIX: &str = ".madang.internal";

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The node itself.
    Node,
    /// Whoever runs the node's process, and may say that it is dead.
    Supervisor,
}

impl Role {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Node => "node-",
            Self::Supervisor => "supervisor-",
        }
    }
}

/// A node of a cluster, or its supervisor, as its certificate names it: `node-<id>.<cluster id in hexadecimal>.madang.internal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeName {
    /// The cluster.
    pub cluster_id: Uuid,
    /// The node.
    pub node_id: NodeId,
    /// Whether it is the node.
    pub role: Role,
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}.", self.role.prefix(), self.node_id.0)?;
        self.cluster_id.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))?;
        formatter.write_str(SUFFIX)
    }
}

impl NodeName {
    /// The node that a certificate in PEM names, the first of its chain.
    ///
    /// # Errors
    /// It is no certificate, or does not name exactly one node.
    pub fn of_pem(chain: &[u8]) -> Result<Self, CertificateError> {
        let failed = unreadable("node certificate");
        let own = CertificateDer::pem_slice_iter(chain).next();
        let own = own.ok_or_else(|| failed("no certificate in it".to_owned()))?;
        name_of(&own.map_err(|error| failed(error.to_string()))?)
    }
}

impl FromStr for NodeName {
    type Err = CertificateError;

    /// Reads what `Display` writes, and nothing else.
    fn from_str(text: &str) -> Result<Self, CertificateError> {
        let parse = || {
            let of = |role: Role| Some((role, text.strip_prefix(role.prefix())?));
            let (role, rest) = of(Role::Node).or_else(|| of(Role::Supervisor))?;
            let (node, cluster) = rest.strip_suffix(SUFFIX)?.split_once('.')?;
            let node_id = NodeId(node.parse().ok().filter(|id: &i32| *id >= 0)?);
            let cluster = u128::from_str_radix(cluster, 16).ok()?;
            let name = Self { cluster_id: Uuid(cluster.to_be_bytes()), node_id, role };
            // One spelling: no sign, no leading zero, no capital.
            (name.to_string() == text).then_some(name)
        };
        parse().ok_or_else(|| CertificateError::Name(text.chars().take(100).collect()))
    }
}

/// Why certificates are of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// A file is not what it should be.
    #[error("{what}: {reason}")]
    Unreadable {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A name that is no node's.
    #[error("{0:?} is not the name of a node")]
    Name(String),
    /// The certificate does not name exactly one node.
    #[error("the certificate names {0} nodes, and has to name one")]
    Names(usize),
    /// The certificate is another node's.
    #[error("the certificate is of {found}, not of {expected}")]
    Another {
        /// Whose it is.
        found: NodeName,
        /// Whose it has to be.
        expected: NodeName,
    },
}

pub(crate) fn unreadable(what: &'static str) -> impl Fn(String) -> CertificateError {
    move |reason| CertificateError::Unreadable { what, reason }
}

/// A node's certificates, checked: its own with the key, and the authority that its peers' must be of.
#[derive(Clone)]
pub struct NodeCertificates {
    name: NodeName,
    server: Arc<QuicServerConfig>,
    client: Arc<QuicClientConfig>,
    resets: Resets,
}

/// Without the key.
impl fmt::Debug for NodeCertificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NodeCertificates").field("name", &self.name).finish_non_exhaustive()
    }
}

impl NodeCertificates {
    /// From PEM: the authority's certificate, the node's with what lies between it and the authority, and the node's key.
    ///
    /// # Errors
    /// Any of them is not what it should be, or the certificate is not that of `name`.
    pub fn from_pem(name: NodeName, authority: &[u8], chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let roots = Arc::new(roots(authority)?);
        let failed = unreadable("node certificate");
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| failed(error.to_string()))?;
        let own = chain.first().ok_or_else(|| failed("no certificate in it".to_owned()))?;
        let found = name_of(own)?;
        if found != name {
            return Err(CertificateError::Another { found, expected: name });
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unreadable("node key")(error.to_string()))?;
        let resets = Resets::of(key.secret_der(), "node");
        let server = server_config(&roots, chain.clone(), key.clone_key()).map_err(&failed)?;
        let client = client_config(&roots, chain, key).map_err(&failed)?;
        Ok(Self { name, server: Arc::new(server), client: Arc::new(client), resets })
    }

    /// The node that they name.
    #[must_use]
    pub const fn name(&self) -> NodeName {
        self.name
    }

    /// What an endpoint with these certificates is set to.
    pub(crate) fn endpoint(&self) -> EndpointConfig {
        self.resets.endpoint()
    }

    pub(crate) fn server(&self) -> Arc<QuicServerConfig> {
        Arc::clone(&self.server)
    }

    pub(crate) fn client(&self) -> Arc<QuicClientConfig> {
        Arc::clone(&self.client)
    }

    /// Who is at the other end: a node of this cluster or its supervisor, by the certificate that the handshake has verified.
    pub(crate) fn peer(&self, connection: &quinn::Connection) -> Result<NodeName, CertificateError> {
        let identity = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let certificates = identity.ok_or(CertificateError::Names(0))?;
        let found = name_of(certificates.first().ok_or(CertificateError::Names(0))?)?;
        if found.cluster_id != self.name.cluster_id {
            let expected = NodeName { cluster_id: self.name.cluster_id, ..found };
            return Err(CertificateError::Another { found, expected });
        }
        Ok(found)
    }
}

fn roots(authority: &[u8]) -> Result<RootCertStore, CertificateError> {
    let failed = unreadable("cluster authority");
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() { Err(failed("no certificate in it".to_owned())) } else { Ok(roots) }
}

/// The one node that a certificate names.
fn name_of(certificate: &CertificateDer<'_>) -> Result<NodeName, CertificateError> {
    let parsed = webpki::EndEntityCert::try_from(certificate)
        .map_err(|error| unreadable("node certificate")(error.to_string()))?;
    let names: Vec<&str> = parsed.valid_dns_names().collect();
    match names[..] {
        [name] => name.parse(),
        _ => Err(CertificateError::Names(names.len())),
    }
}

fn server_config(
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<QuicServerConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider)).build();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier.map_err(|error| error.to_string())?)
        .with_single_cert(chain, key)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // What comes before the handshake has ended can be sent again by anybody.
    config.max_early_data_size = 0;
    QuicServerConfig::try_from(config).map_err(|error| error.to_string())
}

fn client_config(
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<QuicClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(Arc::clone(roots))
        .with_client_auth_cert(chain, key)
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    QuicClientConfig::try_from(config).map_err(|error| error.to_string())
}
