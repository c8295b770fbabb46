//! One connection to one broker: sockets, frames, correlation, version negotiation. The only file that opens a socket.
//! Invariant: a connection that failed, timed out or was given up half-way is closed, never used again.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use madang_protocol::frame::{LENGTH_PREFIX, RequestHeader, decode_response, encode_request};
use madang_protocol::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use madang_protocol::schema::Versions;
use madang_protocol::{ApiKey, ErrorCode, IntoStatic, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::error::ConnectionError;
use crate::socket::Socket;

/// Brokers close connections after 10 minutes without a request; one that rested longer than this is replaced before it is used.
const MAX_IDLE: Duration = Duration::from_secs(9 * 60);
/// Requests up to this size leave in one write.
const SMALL_REQUEST: usize = 64 << 10;
/// Most bytes that one read makes room for: what is announced takes no memory before it arrives.
const READ_STEP: usize = 256 << 10;

/// What all connections of a client have in common.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) client_id: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_response_bytes: usize,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::tls::TlsConfig>,
    #[cfg(feature = "quic")]
    pub(crate) quic: Option<crate::quic::Pool>,
}

/// Opens a TCP connection.
pub(crate) async fn open(address: &str, limit: Duration) -> Result<TcpStream, ConnectionError> {
    let failed = |source| ConnectionError::Connect { address: address.to_owned(), source };
    match timeout(limit, TcpStream::connect(address)).await {
        Err(_) => Err(ConnectionError::ConnectTimeout { address: address.to_owned(), timeout: limit }),
        Ok(Err(source)) => Err(failed(source)),
        Ok(Ok(socket)) => socket.set_nodelay(true).map(|()| socket).map_err(failed),
    }
}

/// Binds a UDP port by which any address of the family is reached.
#[cfg(feature = "quic")]
pub(crate) fn udp_socket(ipv4: bool) -> io::Result<std::net::UdpSocket> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    if ipv4 {
        std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
    }
}

/// A connection that opens when it is needed. One request at a time, as brokers execute them.
#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    settings: Arc<Settings>,
    live: Mutex<Option<Live>>,
}

#[derive(Debug)]
struct Live {
    socket: Socket,
    versions: HashMap<ApiKey, Versions>,
    correlation_id: i32,
    last_used: Instant,
}

/// How one request is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) timeout: Duration,
    /// The highest version that carries what is asked.
    pub(crate) max_version: i16,
}

impl Call {
    pub(crate) const fn within(timeout: Duration) -> Self {
        Self { timeout, max_version: i16::MAX }
    }

    pub(crate) const fn up_to(self, max_version: i16) -> Self {
        Self { max_version, ..self }
    }
}

impl Connection {
    pub(crate) fn new(address: String, settings: Arc<Settings>) -> Self {
        Self { address, settings, live: Mutex::new(None) }
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn send<'q, R: Request<'q>>(
        &self,
        request: &R,
        call: Call,
    ) -> Result<R::Response<'static>, ConnectionError> {
        self.timed::<R, _>(call, async {
            let mut slot = self.live.lock().await;
            // Taken out while in use: whoever gives up on this future closes the socket with it.
            let mut live = self.ready(slot.take()).await?;
            let version = match self.version::<R>(&live, call.max_version) {
                Ok(version) => version,
                Err(error) => {
                    *slot = Some(live);
                    return Err(error);
                }
            };
            let answer = self.exchange(&mut live, request, version).await?;
            *slot = Some(live);
            Ok(answer)
        })
        .await
    }

    /// Sends a request that is not answered: Produce with acks=0.
    pub(crate) async fn send_unanswered<'q, R: Request<'q>>(
        &self,
        request: &R,
        call: Call,
    ) -> Result<(), ConnectionError> {
        self.timed::<R, _>(call, async {
            let mut slot = self.live.lock().await;
            let mut live = self.ready(slot.take()).await?;
            let version = self.version::<R>(&live, call.max_version)?;
            self.write(&mut live, request, version).await?;
            *slot = Some(live);
            Ok(())
        })
        .await
    }

    async fn timed<'q, R: Request<'q>, T>(
        &self,
        call: Call,
        work: impl Future<Output = Result<T, ConnectionError>>,
    ) -> Result<T, ConnectionError> {
        let late =
            || ConnectionError::Timeout { address: self.address.clone(), api: R::KEY.name(), timeout: call.timeout };
        timeout(call.timeout, work).await.unwrap_or_else(|_| Err(late()))
    }

    async fn ready(&self, live: Option<Live>) -> Result<Live, ConnectionError> {
        if let Some(live) = live.filter(|live| live.last_used.elapsed() < MAX_IDLE) {
            return Ok(live);
        }
        let socket = self.open().await?;
        let mut live = Live { socket, versions: HashMap::new(), correlation_id: 0, last_used: Instant::now() };
        live.versions = self.negotiate(&mut live).await?;
        Ok(live)
    }

    async fn open(&self) -> Result<Socket, ConnectionError> {
        #[cfg(feature = "quic")]
        if let Some(pool) = &self.settings.quic {
            return Ok(Socket::Quic(Box::new(self.in_time(pool.open(&self.address)).await?)));
        }
        let socket = open(&self.address, self.settings.connect_timeout).await?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.settings.tls {
            return Ok(Socket::Tls(Box::new(self.in_time(tls.connect(socket, &self.address)).await?)));
        }
        Ok(Socket::Plain(socket))
    }

    #[cfg(any(feature = "tls", feature = "quic"))]
    async fn in_time<T>(&self, opening: impl Future<Output = io::Result<T>>) -> Result<T, ConnectionError> {
        let (address, limit) = (|| self.address.clone(), self.settings.connect_timeout);
        match timeout(limit, opening).await {
            Err(_) => Err(ConnectionError::ConnectTimeout { address: address(), timeout: limit }),
            Ok(Err(source)) => Err(ConnectionError::Connect { address: address(), source }),
            Ok(Ok(opened)) => Ok(opened),
        }
    }

    /// Asks which versions the broker serves. A broker that does not know version 3 says so in version 0, and is asked in that.
    async fn negotiate(&self, live: &mut Live) -> Result<HashMap<ApiKey, Versions>, ConnectionError> {
        let request = ApiVersionsRequest {
            client_software_name: env!("CARGO_PKG_NAME").into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        let mut version = 3;
        loop {
            let asked = self.write(live, &request, version).await?;
            let frame = self.read(live, ApiKey::ApiVersions.name()).await?;
            let answer = self.api_versions(&frame, asked, version)?;
            match ErrorCode::from_code(answer.error_code) {
                Some(ErrorCode::None) => return Ok(known_versions(&answer)),
                Some(ErrorCode::UnsupportedVersion) if version != 0 => version = 0,
                _ => return Err(self.unsupported::<ApiVersionsRequest<'_>>()),
            }
        }
    }

    fn api_versions<'f>(
        &self,
        frame: &'f Bytes,
        asked: i32,
        version: i16,
    ) -> Result<ApiVersionsResponse<'f>, ConnectionError> {
        let decode = |version| decode_response::<ApiVersionsRequest<'_>>(frame, version);
        let decoded = decode(version).or_else(|error| decode(0).map_err(|_| error));
        let (header, answer) = decoded.map_err(decode_error::<ApiVersionsRequest<'_>>)?;
        self.correlate(asked, header.correlation_id)?;
        Ok(answer)
    }

    fn version<'q, R: Request<'q>>(&self, live: &Live, max_version: i16) -> Result<i16, ConnectionError> {
        let ours = R::KEY.served();
        let theirs = live.versions.get(&R::KEY).copied().unwrap_or(Versions::NONE);
        let version = ours.max.min(theirs.max).min(max_version);
        if version < ours.min.max(theirs.min) { Err(self.unsupported::<R>()) } else { Ok(version) }
    }

    fn unsupported<'q, R: Request<'q>>(&self) -> ConnectionError {
        ConnectionError::Unsupported { address: self.address.clone(), api: R::KEY.name() }
    }

    fn correlate(&self, asked: i32, answered: i32) -> Result<(), ConnectionError> {
        if asked == answered {
            return Ok(());
        }
        Err(ConnectionError::Correlation { address: self.address.clone(), asked, answered })
    }

    async fn exchange<'q, R: Request<'q>>(
        &self,
        live: &mut Live,
        request: &R,
        version: i16,
    ) -> Result<R::Response<'static>, ConnectionError> {
        let asked = self.write(live, request, version).await?;
        let frame = self.read(live, R::KEY.name()).await?;
        let (header, answer) = decode_response::<R>(&frame, version).map_err(decode_error::<R>)?;
        self.correlate(asked, header.correlation_id)?;
        Ok(answer.into_static())
    }

    async fn write<'q, R: Request<'q>>(
        &self,
        live: &mut Live,
        request: &R,
        version: i16,
    ) -> Result<i32, ConnectionError> {
        let api = R::KEY.name();
        live.correlation_id = live.correlation_id.wrapping_add(1) & i32::MAX;
        live.last_used = Instant::now();
        let header = RequestHeader {
            api_key: R::KEY,
            api_version: version,
            correlation_id: live.correlation_id,
            client_id: Some(self.settings.client_id.as_str().into()),
        };
        let chunks = encode_request(&header, request).map_err(|source| ConnectionError::Encode { api, source })?;
        let closed = |source| self.closed(api, source);
        if chunks.iter().map(|chunk| chunk.len()).sum::<usize>() <= SMALL_REQUEST {
            let mut whole = BytesMut::new();
            for chunk in &chunks {
                whole.extend_from_slice(&chunk.read().map_err(closed)?);
            }
            live.socket.write_all(&whole).await.map_err(closed)?;
        } else {
            for chunk in &chunks {
                live.socket.write_all(&chunk.read().map_err(closed)?).await.map_err(closed)?;
            }
        }
        live.socket.flush().await.map_err(closed)?;
        Ok(live.correlation_id)
    }

    async fn read(&self, live: &mut Live, api: &'static str) -> Result<Bytes, ConnectionError> {
        let mut prefix = [0; LENGTH_PREFIX];
        live.socket.read_exact(&mut prefix).await.map_err(|source| self.closed(api, source))?;
        let announced = i32::from_be_bytes(prefix);
        let length = usize::try_from(announced).ok().filter(|length| *length <= self.settings.max_response_bytes);
        let length =
            length.ok_or_else(|| ConnectionError::Length { address: self.address.clone(), length: announced })?;
        let mut frame = BytesMut::new();
        while frame.len() < length {
            let missing = length - frame.len();
            frame.reserve(missing.min(READ_STEP));
            let read = (&mut live.socket).take(missing as u64).read_buf(&mut frame).await;
            if read.map_err(|source| self.closed(api, source))? == 0 {
                return Err(self.closed(api, io::ErrorKind::UnexpectedEof.into()));
            }
        }
        live.last_used = Instant::now();
        Ok(frame.freeze())
    }

    fn closed(&self, api: &'static str, source: io::Error) -> ConnectionError {
        ConnectionError::Closed { address: self.address.clone(), api, source }
    }
}

fn decode_error<'q, R: Request<'q>>(source: madang_protocol::DecodeError) -> ConnectionError {
    ConnectionError::Decode { api: R::KEY.name(), source }
}

/// The ranges of the APIs that this client knows.
fn known_versions(answer: &ApiVersionsResponse<'_>) -> HashMap<ApiKey, Versions> {
    let range = |min, max| Versions { min, max };
    let known = answer
        .api_keys
        .iter()
        .filter_map(|api| ApiKey::from_code(api.api_key).map(|key| (key, range(api.min_version, api.max_version))));
    known.collect()
}
