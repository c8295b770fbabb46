//! QUIC, as Madang's QUIC listeners speak it: one connection to each broker, and on it a stream for each purpose, so that none waits behind another.
//! Invariant: no stream is opened before the broker's certificate is found good.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::poll_immediate;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Endpoint, EndpointConfig, IdleTimeout, RecvStream, SendStream, TokioRuntime, TransportConfig, VarInt};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::lookup_host;

use crate::connection::udp_socket;
use crate::pem::{TlsError, host, roots};

/// The protocol's name in the handshake.
const ALPN: &[u8] = b"kafka/1";
/// A broker that says nothing for so long is gone, and is asked often enough that it is heard of.
const SILENCE: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// Whom a client trusts that reaches its brokers over QUIC. The file is read once, when it is made.
///
/// ```no_run
/// # fn example() -> Result<(), madang_client::TlsError> {
/// use madang_client::{ClientConfig, QuicConfig};
///
/// let quic = QuicConfig::new("ca.pem")?;
/// let config = ClientConfig { quic: Some(quic), ..ClientConfig::new(["broker.example:9094"]) };
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct QuicConfig {
    crypto: Arc<QuicClientConfig>,
    server_name: Option<String>,
}

impl fmt::Debug for QuicConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicConfig").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl PartialEq for QuicConfig {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.crypto, &other.crypto) && self.server_name == other.server_name
    }
}

impl Eq for QuicConfig {}

impl QuicConfig {
    /// Trusts the certificates of a file in PEM: the authority's, or a broker's own.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(ca_file: impl AsRef<Path>) -> Result<Self, TlsError> {
        let unusable = |error: rustls::Error| TlsError::unusable(&error);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .with_root_certificates(roots(ca_file.as_ref())?)
            .with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicClientConfig::try_from(client).map_err(|error| TlsError::Certificate(error.to_string()))?;
        Ok(Self { crypto: Arc::new(crypto), server_name: None })
    }

    /// Expects this name in every broker's certificate instead of the host that it is reached at.
    #[must_use]
    pub fn server_name(self, name: impl Into<String>) -> Self {
        Self { server_name: Some(name.into()), ..self }
    }

    fn client(&self) -> quinn::ClientConfig {
        let mut transport = TransportConfig::default();
        // Brokers open nothing towards clients.
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None)
            .keep_alive_interval(Some(KEEP_ALIVE))
            .max_idle_timeout(IdleTimeout::try_from(SILENCE).ok());
        let mut client = quinn::ClientConfig::new(Arc::clone(&self.crypto) as _);
        client.transport_config(Arc::new(transport));
        client
    }
}

/// The connections to one broker; more than one only if it has more purposes than a connection may have streams.
type Shared = Arc<tokio::sync::Mutex<Vec<quinn::Connection>>>;

/// A client's sockets, and its connections by address.
#[derive(Debug)]
pub(crate) struct Pool {
    config: QuicConfig,
    sockets: Mutex<Vec<Endpoint>>,
    connections: Mutex<HashMap<String, Shared>>,
}

impl Pool {
    pub(crate) fn new(config: QuicConfig) -> Self {
        Self { config, sockets: Mutex::default(), connections: Mutex::default() }
    }

    /// Opens a stream to the broker at `address`, on a connection that is there or on a new one.
    pub(crate) async fn open(&self, address: &str) -> io::Result<Stream> {
        let shared = Arc::clone(lock(&self.connections).entry(address.to_owned()).or_default());
        // Held while a connection is made, so that all who want one share it.
        let mut connections = shared.lock().await;
        connections.retain(|connection| connection.close_reason().is_none());
        for connection in &*connections {
            // One with as many streams as it may have would only be waited for.
            if let Some(Ok((send, receive))) = poll_immediate(pin!(connection.open_bi())).await {
                return Ok(Stream { send, receive });
            }
        }
        let connection = self.dial(address).await?;
        let (send, receive) = connection.open_bi().await?;
        connections.push(connection);
        Ok(Stream { send, receive })
    }

    async fn dial(&self, address: &str) -> io::Result<quinn::Connection> {
        let name = self.config.server_name.as_deref().unwrap_or_else(|| host(address));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
        for to in lookup_host(address).await? {
            let connecting = self.socket(to)?.connect_with(self.config.client(), to, name);
            match connecting.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?.await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    /// The socket by which addresses of this family are reached.
    fn socket(&self, to: SocketAddr) -> io::Result<Endpoint> {
        let mut sockets = lock(&self.sockets);
        let of_family = |one: &&Endpoint| one.local_addr().is_ok_and(|own| own.is_ipv4() == to.is_ipv4());
        if let Some(socket) = sockets.iter().find(of_family) {
            return Ok(socket.clone());
        }
        let socket = udp_socket(to.is_ipv4())?;
        let socket = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
        sockets.push(socket.clone());
        Ok(socket)
    }

    /// Goes on over new sockets, with the connections there are.
    pub(crate) fn rebind(&self) -> io::Result<()> {
        for socket in &*lock(&self.sockets) {
            socket.rebind(udp_socket(socket.local_addr()?.is_ipv4())?)?;
        }
        Ok(())
    }

    /// Forgets the connections to all other addresses; they end with their last stream.
    pub(crate) fn keep(&self, wanted: impl Fn(&String) -> bool) {
        lock(&self.connections).retain(|address, _| wanted(address));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One stream in both directions. Dropped, it ends, and the broker knows that nobody waits for answers.
#[derive(Debug)]
pub(crate) struct Stream {
    send: SendStream,
    receive: RecvStream,
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.get_mut().receive), context, to)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.get_mut().send), context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.get_mut().send), context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.get_mut().send), context)
    }
}

#[cfg(test)]
mod tests {
    use madang_protocol::messages::metadata::MetadataRequest;
    use quinn::crypto::rustls::QuicServerConfig;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;
    use crate::connection::{Call, Connection, Settings};
    use crate::error::ConnectionError;

    const NAME: &str = "broker.test";

    /// A broker that serves no API but ApiVersions, on `streams` streams of a connection at once, the endpoint to keep, and the file to trust.
    fn broker(folder: &Path, alpn: &[u8], streams: u32) -> (String, Endpoint, std::path::PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("a certificate");
        let file = folder.join("ca.pem");
        std::fs::write(&file, made.cert.pem()).expect("written");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a server");
        tls.alpn_protocols = vec![alpn.to_vec()];
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("TLS 1.3")));
        let mut transport = TransportConfig::default();
        transport.max_concurrent_bidi_streams(VarInt::from_u32(streams));
        config.transport_config(Arc::new(transport));
        let endpoint = Endpoint::server(config, ([127, 0, 0, 1], 0).into()).expect("a port");
        let address = endpoint.local_addr().expect("bound").to_string();
        let accepting = endpoint.clone();
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                tokio::spawn(serve(incoming));
            }
        });
        (address, endpoint, file)
    }

    async fn serve(incoming: quinn::Incoming) -> Option<()> {
        let connection = incoming.await.ok()?;
        loop {
            let (mut send, mut receive) = connection.accept_bi().await.ok()?;
            tokio::spawn(async move {
                let mut length = [0; 4];
                receive.read_exact(&mut length).await.ok()?;
                let mut request = vec![0; u32::from_be_bytes(length) as usize];
                receive.read_exact(&mut request).await.ok()?;
                // The correlation id, no error, no APIs, no throttling, no tags.
                let answer = [&[0, 0, 0, 12][..], &request[4..8], &[0, 0, 1, 0, 0, 0, 0, 0]].concat();
                send.write_all(&answer).await.ok()?;
                receive.read_exact(&mut length).await.ok()
            });
        }
    }

    fn settings(config: QuicConfig) -> Arc<Settings> {
        Arc::new(Settings {
            client_id: "test".to_owned(),
            connect_timeout: Duration::from_secs(10),
            max_response_bytes: 1_000,
            #[cfg(feature = "tls")]
            tls: None,
            quic: Some(Pool::new(config)),
        })
    }

    async fn asked(connection: &Connection) -> ConnectionError {
        let call = Call::within(Duration::from_secs(20));
        connection.send(&MetadataRequest::default(), call).await.expect_err("it serves nothing")
    }

    async fn asked_once(address: &str, config: QuicConfig) -> ConnectionError {
        asked(&Connection::new(address.to_owned(), settings(config))).await
    }

    #[tokio::test]
    async fn versions_are_exchanged_with_a_broker_of_the_expected_name_and_with_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let (address, _broker, file) = broker(folder.path(), ALPN, 8);
        let named = QuicConfig::new(&file).expect("read").server_name(NAME);
        let answered = asked_once(&address, named.clone()).await;
        assert!(matches!(answered, ConnectionError::Unsupported { api: "Metadata", .. }), "{answered}");
        let misnamed = asked_once(&address, named.server_name("other.test")).await;
        assert!(matches!(misnamed, ConnectionError::Connect { .. }), "{misnamed}");
        let by_address = asked_once(&address, QuicConfig::new(&file).expect("read")).await;
        assert!(matches!(by_address, ConnectionError::Connect { .. }), "{by_address}");
        let (elsewhere, _other, _) = broker(tempfile::tempdir().expect("a folder").path(), ALPN, 8);
        let untrusted = asked_once(&elsewhere, QuicConfig::new(&file).expect("read").server_name(NAME)).await;
        assert!(matches!(untrusted, ConnectionError::Connect { .. }), "{untrusted}");
        let (nodes, _nodes, file) = broker(folder.path(), b"madang-node/1", 8);
        let unspoken = asked_once(&nodes, QuicConfig::new(file).expect("read").server_name(NAME)).await;
        assert!(matches!(unspoken, ConnectionError::Connect { .. }), "{unspoken}");
    }

    #[tokio::test]
    async fn streams_share_a_connection_until_it_may_have_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let (address, broker, file) = broker(folder.path(), ALPN, 2);
        let shared = settings(QuicConfig::new(file).expect("read").server_name(NAME));
        let open = |count| -> Vec<Connection> {
            (0..count).map(|_| Connection::new(address.clone(), Arc::clone(&shared))).collect()
        };
        let pair = open(2);
        for connection in &pair {
            asked(connection).await;
        }
        assert_eq!(broker.open_connections(), 1);
        let more = open(2);
        for connection in &more {
            asked(connection).await;
        }
        assert_eq!(broker.open_connections(), 2);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        assert!(matches!(QuicConfig::new("missing.pem"), Err(TlsError::File { .. })));
    }
}
