//! Certificates of nodes: a cluster's authority, and what it issues.
//! Invariant: a key is readable by its owner alone, and an authority is never written over.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use madang_protocol::types::{NodeId, Uuid};
use madang_transport::quic::{NodeName, Role};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::peers::{AUTHORITY, CERTIFICATE, KEY, SUPERVISOR_CERTIFICATE, SUPERVISOR_KEY};

/// In a folder of certificates, the one that clients over QUIC are shown.
pub const QUIC_CERTIFICATE: &str = "quic.pem";
/// Its key.
pub const QUIC_KEY: &str = "quic.key";
/// The authority's key.
const AUTHORITY_KEY: &str = "ca.key";
/// The id of the cluster, as Kafka writes it.
const CLUSTER_ID: &str = "cluster.id";

/// A cluster's authority, in a folder of its own.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    /// The cluster.
    pub cluster_id: Uuid,
    key: KeyPair,
}

/// What every certificate of the authority is signed as.
fn parameters(cluster_id: Uuid) -> Result<CertificateParams, String> {
    let mut parameters = CertificateParams::new(Vec::new()).map_err(|error| error.to_string())?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("Madang cluster {cluster_id}"));
    parameters.distinguished_name = name;
    Ok(parameters)
}

impl Authority {
    /// Makes an authority in `folder`, which is made if need be.
    ///
    /// # Errors
    /// A text for a person; also if there is one.
    pub fn create(folder: &Path, cluster_id: Uuid) -> Result<Self, String> {
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        let certificate = parameters(cluster_id)?.self_signed(&key).map_err(|error| error.to_string())?;
        fs::create_dir_all(folder).map_err(|error| said(folder, &error))?;
        write_new(&folder.join(AUTHORITY_KEY), &key.serialize_pem(), 0o600)?;
        write_new(&folder.join(AUTHORITY), &certificate.pem(), 0o644)?;
        write_new(&folder.join(CLUSTER_ID), &format!("{cluster_id}\n"), 0o644)?;
        Ok(Self { folder: folder.to_owned(), cluster_id, key })
    }

    /// Opens the authority in `folder`.
    ///
    /// # Errors
    /// A text for a person.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).map_err(|error| said(&folder.join(name), &error));
        let id = read(CLUSTER_ID)?;
        let cluster_id =
            id.trim().parse().map_err(|_| format!("{}: not a cluster id", folder.join(CLUSTER_ID).display()))?;
        let key = KeyPair::from_pem(&read(AUTHORITY_KEY)?)
            .map_err(|error| format!("{}: {error}", folder.join(AUTHORITY_KEY).display()))?;
        Ok(Self { folder: folder.to_owned(), cluster_id, key })
    }

    /// Issues certificates to a node and to whoever runs its process: the folder that its `madang.node.certificates` names.
    ///
    /// # Errors
    /// A text for a person; also if the node has one there.
    pub fn issue(&self, node_id: NodeId, folder: &Path) -> Result<(), String> {
        let authority = self.folder.join(AUTHORITY);
        let authority = fs::read_to_string(&authority).map_err(|error| said(&authority, &error))?;
        fs::create_dir_all(folder).map_err(|error| said(folder, &error))?;
        for (role, certificate, key) in
            [(Role::Node, CERTIFICATE, KEY), (Role::Supervisor, SUPERVISOR_CERTIFICATE, SUPERVISOR_KEY)]
        {
            let (chain, secret) = self.certify(NodeName { cluster_id: self.cluster_id, node_id, role })?;
            write_new(&folder.join(key), &secret, 0o600)?;
            write_new(&folder.join(certificate), &chain, 0o644)?;
        }
        if fs::canonicalize(folder).ok() != fs::canonicalize(&self.folder).ok() {
            write_new(&folder.join(AUTHORITY), &authority, 0o644)?;
        }
        Ok(())
    }

    /// Issues a certificate for clients, who reach a node at these names and addresses. It makes nobody a node.
    ///
    /// # Errors
    /// A text for a person; also if there is one in the folder.
    pub fn issue_for_clients(&self, hosts: &[String], folder: &Path) -> Result<(), String> {
        let (wanted, key) = for_clients(hosts)?;
        let signs = parameters(self.cluster_id)?;
        let certificate = wanted.signed_by(&key, &Issuer::from_params(&signs, &self.key));
        let certificate = certificate.map_err(|error| error.to_string())?;
        fs::create_dir_all(folder).map_err(|error| said(folder, &error))?;
        write_new(&folder.join(QUIC_KEY), &key.serialize_pem(), 0o600)?;
        write_new(&folder.join(QUIC_CERTIFICATE), &certificate.pem(), 0o644)
    }

    /// A certificate and its key, in PEM.
    fn certify(&self, name: NodeName) -> Result<(String, String), String> {
        let mut wanted = CertificateParams::new(vec![name.to_string()]).map_err(|error| error.to_string())?;
        wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        let signs = parameters(self.cluster_id)?;
        let issuer = Issuer::from_params(&signs, &self.key);
        let certificate = wanted.signed_by(&key, &issuer).map_err(|error| error.to_string())?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// What a certificate for clients says, and its key.
fn for_clients(hosts: &[String]) -> Result<(CertificateParams, KeyPair), String> {
    let mut wanted = CertificateParams::new(hosts).map_err(|error| error.to_string())?;
    wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "Madang listener");
    wanted.distinguished_name = name;
    Ok((wanted, KeyPair::generate().map_err(|error| error.to_string())?))
}

/// Makes a certificate for clients in `folder` that is its own authority, unless it is there.
///
/// # Errors
/// A text for a person.
pub fn sign_own(hosts: &[String], folder: &Path) -> Result<(), String> {
    let (certificate, key) = (folder.join(QUIC_CERTIFICATE), folder.join(QUIC_KEY));
    if certificate.exists() {
        return Ok(());
    }
    // The certificate comes last, so a key alone is what a start left that did not come to its end.
    if key.exists() {
        fs::remove_file(&key).map_err(|error| said(&key, &error))?;
    }
    let (wanted, pair) = for_clients(hosts)?;
    let signed = wanted.self_signed(&pair).map_err(|error| error.to_string())?;
    fs::create_dir_all(folder).map_err(|error| said(folder, &error))?;
    write_new(&key, &pair.serialize_pem(), 0o600)?;
    let unfinished = folder.join("quic.pem.new");
    fs::write(&unfinished, signed.pem()).map_err(|error| said(&unfinished, &error))?;
    fs::rename(&unfinished, &certificate).map_err(|error| said(&certificate, &error))
}

fn said(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    written.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| said(path, &error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use madang_transport::kafka::ServerCertificate;
    use madang_transport::quic::NodeCertificates;

    use super::*;

    #[test]
    fn an_authority_that_is_opened_again_issues_what_its_nodes_believe() {
        let folder = tempfile::tempdir().unwrap();
        let (authority, node) = (folder.path().join("authority"), folder.path().join("node"));
        let cluster_id = Uuid([5; 16]);
        drop(Authority::create(&authority, cluster_id).unwrap());
        assert!(Authority::create(&authority, cluster_id).unwrap_err().contains("exists"), "it is not written over");
        let opened = Authority::open(&authority).unwrap();
        assert_eq!(opened.cluster_id, cluster_id);
        opened.issue(NodeId(7), &node).unwrap();
        assert!(opened.issue(NodeId(7), &node).is_err(), "nor is a node's key");
        let read = |name: &str| fs::read(node.join(name)).unwrap();
        for (role, certificate, key) in
            [(Role::Node, CERTIFICATE, KEY), (Role::Supervisor, SUPERVISOR_CERTIFICATE, SUPERVISOR_KEY)]
        {
            let name = NodeName::of_pem(&read(certificate)).unwrap();
            assert_eq!(name, NodeName { cluster_id, node_id: NodeId(7), role });
            assert!(NodeCertificates::from_pem(name, &read(AUTHORITY), &read(certificate), &read(key)).is_ok());
        }
        opened.issue_for_clients(&["a.example".to_owned(), "10.0.0.7".to_owned()], &node).unwrap();
        let shown = ServerCertificate::from_pem(&read(QUIC_CERTIFICATE), &read(QUIC_KEY)).unwrap();
        assert!(shown.names("a.example") && shown.names("10.0.0.7") && !shown.names("b.example"));
        assert!(NodeName::of_pem(&read(QUIC_CERTIFICATE)).is_err(), "it names no node");
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(node.join(KEY)), mode(authority.join(AUTHORITY_KEY))), (0o600, 0o600));
        assert_eq!(mode(node.join(QUIC_KEY)), 0o600);
    }

    #[test]
    fn a_certificate_that_signs_itself_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("quic");
        let read = |name: &str| fs::read(folder.join(name)).unwrap();
        let hosts = ["localhost".to_owned(), "::1".to_owned()];
        sign_own(&hosts, &folder).unwrap();
        let (first, key) = (read(QUIC_CERTIFICATE), read(QUIC_KEY));
        let shown = ServerCertificate::from_pem(&first, &key).unwrap();
        assert!(shown.names("localhost") && shown.names("::1"));
        sign_own(&hosts, &folder).unwrap();
        assert_eq!((read(QUIC_CERTIFICATE), read(QUIC_KEY)), (first, key));
        fs::remove_file(folder.join(QUIC_CERTIFICATE)).unwrap();
        sign_own(&hosts, &folder).unwrap();
        assert!(
            ServerCertificate::from_pem(&read(QUIC_CERTIFICATE), &read(QUIC_KEY)).is_ok(),
            "a key alone is left over"
        );
        let mode = fs::metadata(folder.join(QUIC_KEY)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }
}
