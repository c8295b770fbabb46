//! Certificates in files, as TLS and QUIC are told whom to trust by them.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error, PemObject};
use thiserror::Error;

/// Certificates or a key cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file cannot be read, or is not in PEM.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The certificates and the key are not what TLS needs.
    #[error("{0}")]
    Certificate(String),
}

impl TlsError {
    /// Whether the same call may succeed later: no, the files have to change first.
    #[must_use]
    pub const fn is_retriable(&self) -> bool {
        false
    }

    pub(crate) fn unusable(error: &rustls::Error) -> Self {
        Self::Certificate(error.to_string())
    }
}

pub(crate) fn failed(path: &Path, error: &Error) -> TlsError {
    TlsError::File { path: path.to_owned(), why: error.to_string() }
}

/// All certificates of a file; at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path).map_err(|error| failed(path, &error))?;
    let found: Result<Vec<_>, _> = found.collect();
    let found = found.map_err(|error| failed(path, &error))?;
    if found.is_empty() {
        return Err(TlsError::File { path: path.to_owned(), why: "no certificate in it".to_owned() });
    }
    Ok(found)
}

/// Trust in the certificates of a file.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| TlsError::unusable(&error))?;
    }
    Ok(roots)
}

/// The host of `HOST:PORT`, as certificates name it.
pub(crate) fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}
