//! Clients over QUIC: each stream a connection of Kafka's protocol, none of which holds up another.
#![allow(missing_docs)]

mod common;

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{FileRegion, Script, Seen, context, frame, regions, run};
use madang_protocol::payload::Payload;
use madang_protocol::types::{NodeId, Uuid};
use madang_transport::kafka::{
    AcceptLimits, CLIENT_ALPN, ColdReads, ConnectionLimits, ConnectionSettings, QuicListener, QuicListenerSettings,
    ServerCertificate, Shutdown,
};
use madang_transport::quic::{NodeCertificates, NodeListener, NodeName, QuicSettings, Role};
use madang_transport::{CloseReason, MemoryBudget, Stats};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, ReadExactError, RecvStream, SendStream, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

const HOST: &str = "broker.test";

/// A certificate that trusts itself, and its key.
struct Identity {
    pem: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Identity {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec![HOST.to_owned()]).expect("a certificate");
        let der = made.cert.der().clone();
        Self { pem: made.cert.pem(), key: made.signing_key.serialize_pem(), der }
    }

    fn certificate(&self) -> ServerCertificate {
        ServerCertificate::from_pem(self.pem.as_bytes(), self.key.as_bytes()).expect("good")
    }

    /// A client that trusts it and speaks these protocols.
    fn client(&self, protocols: &[&[u8]]) -> Endpoint {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("good");
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
        let mut client = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("TLS 1.3")));
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_millis(200)));
        client.transport_config(Arc::new(transport));
        let mut endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a port");
        endpoint.set_default_client_config(client);
        endpoint
    }
}

/// A node of one QUIC listener and one thread.
struct Node {
    seen: Rc<Seen>,
    stats: Arc<Stats>,
    shutdown: Shutdown,
    address: SocketAddr,
    identity: Identity,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    fn start(settings: ConnectionSettings) -> Self {
        Self::start_as(Identity::new(), ([127, 0, 0, 1], 0).into(), settings, AcceptLimits::default())
    }

    fn start_as(identity: Identity, address: SocketAddr, settings: ConnectionSettings, limits: AcceptLimits) -> Self {
        let shutdown = Shutdown::new();
        let context = context(settings, MemoryBudget::new(256 << 20), &shutdown);
        let stats = Arc::clone(&context.stats);
        let bind = QuicListenerSettings {
            name: "QUIC".into(),
            address,
            workers: 1,
            max_streams: 4,
            handshake_timeout: Duration::from_secs(2),
            memory: 1 << 30,
            instance: "1".into(),
        };
        let bound = QuicListener::bind(bind, identity.certificate(), ConnectionLimits::new(limits), context);
        let (listener, workers) = bound.expect("a free port");
        let address = listener.local_addr();
        let seen = Rc::new(Seen::default());
        let worker = workers.into_iter().next().expect("one worker");
        let tasks = vec![
            spawn_local(async move { listener.run().await.expect("a socket") }),
            spawn_local(worker.run(Script(Rc::clone(&seen)))),
        ];
        Self { seen, stats, shutdown, address, identity, tasks }
    }

    async fn connect(&self) -> Connection {
        let client = self.identity.client(&[CLIENT_ALPN]);
        client.connect(self.address, HOST).expect("a name").await.expect("connected")
    }
}

struct Stream(SendStream, RecvStream);

impl Stream {
    async fn open(connection: &Connection) -> Self {
        let (send, receive) = connection.open_bi().await.expect("a stream");
        Self(send, receive)
    }

    async fn send(&mut self, body: impl AsRef<[u8]>) {
        self.0.write_all(&frame(body.as_ref())).await.expect("an open stream");
    }

    async fn receive(&mut self) -> Vec<u8> {
        self.try_receive().await.expect("an answer")
    }

    async fn try_receive(&mut self) -> Result<Vec<u8>, ReadExactError> {
        let mut length = [0; 4];
        self.1.read_exact(&mut length).await?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.1.read_exact(&mut body).await?;
        Ok(body)
    }

    async fn ask(&mut self, body: impl AsRef<[u8]>) -> Vec<u8> {
        self.send(body).await;
        self.receive().await
    }
}

/// Waits until something becomes so.
async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn answers_of_a_stream_leave_in_the_order_of_its_requests() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let connection = node.connect().await;
        let mut stream = Stream::open(&connection).await;
        for body in ["pa", "pb", "e3"] {
            stream.send(body).await;
        }
        node.seen.wait_admitted(2).await;
        node.seen.open(b'b');
        node.seen.open(b'a');
        for body in ["pa", "pb", "e3"] {
            assert_eq!(stream.receive().await, body.as_bytes());
        }
        let large = [b"e".as_slice(), &vec![7; 3 << 20]].concat();
        let (mut send, mut receive) = (stream.0, stream.1);
        let written = async { send.write_all(&frame(&large)).await.expect("written") };
        let mut answer = vec![0; 4 + large.len()];
        let read = async { receive.read_exact(&mut answer).await.expect("read") };
        tokio::join!(written, read);
        assert_eq!(answer[4..], large);
    });
}

#[test]
fn a_stream_that_its_client_does_not_read_holds_up_no_other() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let connection = node.connect().await;
        let mut stalled = Stream::open(&connection).await;
        // More than the client's window and ours together.
        let body = [b"e".as_slice(), &vec![1; 128 << 10]].concat();
        let flood = spawn_local(async move {
            loop {
                stalled.send(&body).await;
            }
        });
        let before = node.stats.bytes_out();
        until(|| node.stats.bytes_out() > before + (1 << 20)).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let blocked = node.stats.bytes_in();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(node.stats.bytes_in(), blocked, "the stalled stream is not read any more");
        let mut other = Stream::open(&connection).await;
        for number in 0..50_u8 {
            assert_eq!(other.ask([b'e', number]).await, [b'e', number]);
        }
        flood.abort();
    });
}

#[test]
fn a_parked_stream_holds_up_no_other() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let connection = node.connect().await;
        let mut parked = Stream::open(&connection).await;
        parked.send("k1").await;
        node.seen.wait_admitted(1).await;
        assert_eq!(Stream::open(&connection).await.ask("e2").await, b"e2");
        node.seen.open(b'1');
        assert_eq!(parked.receive().await, b"k1");
    });
}

#[test]
fn an_answer_that_nobody_reads_ends_its_stream_and_no_other() {
    run(|| async {
        let settings = ConnectionSettings { write_stall: Duration::from_millis(300), ..ConnectionSettings::default() };
        let node = Node::start(settings);
        let connection = node.connect().await;
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&vec![9; 8 << 20]).expect("written");
        let region = FileRegion { file: Arc::new(file), position: 0, length: 8 << 20, warm: true, has_fd: true };
        node.seen.regions.borrow_mut().push(regions(vec![region]));
        let (mut stalled, mut other) = (Stream::open(&connection).await, Stream::open(&connection).await);
        stalled.send("r").await;
        until(|| node.stats.closed_for(CloseReason::WriteStalled) == 1).await;
        assert_eq!(other.ask("e1").await, b"e1");
        assert!(stalled.try_receive().await.is_err());
    });
}

#[test]
fn ranges_of_files_are_sent_whole_warm_or_cold() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let content: Vec<u8> = (0..700_000_u32).map(|number| (number % 251) as u8).collect();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&content).expect("written");
        let file: Arc<File> = Arc::new(file);
        let region =
            |position, length, warm| FileRegion { file: Arc::clone(&file), position, length, warm, has_fd: true };
        let head = Payload::Bytes(Bytes::from_static(b"head"));
        let both = regions(vec![region(10, 600_000, true), region(0, 0, true), region(99, 500_000, false)]);
        node.seen.regions.borrow_mut().extend([head, both]);
        let connection = node.connect().await;
        let answer = Stream::open(&connection).await.ask("r").await;
        assert_eq!(answer, [b"head", &content[10..600_010], &content[99..500_099]].concat());
    });
}

#[test]
fn a_file_that_is_shorter_than_promised_ends_the_stream_with_a_reset() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[1; 100]).expect("written");
        let region = FileRegion { file: Arc::new(file), position: 0, length: 200, warm: true, has_fd: true };
        node.seen.regions.borrow_mut().push(regions(vec![region]));
        let connection = node.connect().await;
        let mut stream = Stream::open(&connection).await;
        stream.send("r").await;
        assert!(matches!(stream.try_receive().await, Err(ReadExactError::ReadError(quinn::ReadError::Reset(_)))));
        assert_eq!(node.stats.closed_for(CloseReason::RegionTruncated), 1);
    });
}

#[test]
fn a_frame_that_is_too_long_or_too_slow_ends_its_stream_alone() {
    run(|| async {
        let settings = ConnectionSettings {
            max_request_bytes: 1_000,
            request_deadline: Duration::from_millis(200),
            ..ConnectionSettings::default()
        };
        let node = Node::start(settings);
        let connection = node.connect().await;
        let mut good = Stream::open(&connection).await;
        assert_eq!(good.ask("e1").await, b"e1");
        for bytes in [&1_001_u32.to_be_bytes()[..], &0_u32.to_be_bytes(), &u32::MAX.to_be_bytes(), &[0, 0, 0, 9, 1]] {
            let mut bad = Stream::open(&connection).await;
            bad.0.write_all(bytes).await.expect("written");
            assert!(matches!(bad.try_receive().await, Err(ReadExactError::FinishedEarly(0))), "{bytes:?}");
        }
        assert_eq!(node.stats.closed_for(CloseReason::FrameLength), 3);
        assert_eq!(node.stats.closed_for(CloseReason::RequestDeadline), 1);
        assert_eq!(good.ask("e2").await, b"e2");
    });
}

#[test]
fn a_panic_ends_its_stream_alone() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let connection = node.connect().await;
        let (mut panics, mut other) = (Stream::open(&connection).await, Stream::open(&connection).await);
        panics.send("!").await;
        assert!(panics.try_receive().await.is_err());
        assert_eq!(node.stats.closed_for(CloseReason::Panicked), 1);
        assert_eq!(other.ask("e").await, b"e");
    });
}

#[test]
fn streams_above_the_bound_wait_for_one_that_ends() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let connection = node.connect().await;
        let mut streams = Vec::new();
        for _ in 0..4 {
            let mut stream = Stream::open(&connection).await;
            stream.ask("e").await;
            streams.push(stream);
        }
        assert_eq!((node.stats.open_connections(), node.stats.open_quic_connections()), (4, 1));
        assert!(timeout(Duration::from_millis(200), connection.open_bi()).await.is_err());
        assert!(timeout(Duration::from_millis(50), connection.open_uni()).await.is_err(), "nor of one direction");
        assert!(connection.send_datagram(Bytes::from_static(b"x")).is_err(), "nor datagrams");
        drop(streams.pop());
        assert_eq!(Stream::open(&connection).await.ask("e").await, b"e");
    });
}

#[test]
fn streams_count_as_connections_do() {
    run(|| async {
        let limits = AcceptLimits { total: 0, loopback_reserve: 3, ..AcceptLimits::default() };
        let address = ([127, 0, 0, 1], 0).into();
        let node = Node::start_as(Identity::new(), address, ConnectionSettings::default(), limits);
        let connection = node.connect().await;
        let (mut one, mut two) = (Stream::open(&connection).await, Stream::open(&connection).await);
        assert_eq!((one.ask("e1").await, two.ask("e2").await), (b"e1".to_vec(), b"e2".to_vec()));
        let mut third = Stream::open(&connection).await;
        third.send("e3").await;
        assert!(third.try_receive().await.is_err());
        let another = node.identity.client(&[CLIENT_ALPN]).connect(node.address, HOST).expect("a name").await;
        assert!(matches!(another, Err(ConnectionError::ConnectionClosed(_))), "{another:?}");
        assert_eq!(node.stats.refused(), 2);
        drop(one);
        until(|| node.stats.open_connections() == 1).await;
        assert_eq!(Stream::open(&connection).await.ask("e4").await, b"e4");
    });
}

#[test]
fn a_client_that_wants_no_answer_any_more_frees_what_it_has_parked() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let connection = node.connect().await;
        let mut first = Stream::open(&connection).await;
        first.send("k1").await;
        let mut second = Stream::open(&connection).await;
        second.send("k2").await;
        until(|| node.seen.parked.get() == 2).await;
        drop(first);
        until(|| node.seen.parked.get() == 1).await;
        connection.close(VarInt::from_u32(0), b"");
        until(|| node.seen.parked.get() == 0 && node.seen.closed.get() == 2).await;
        until(|| node.stats.open_connections() == 0 && node.stats.open_quic_connections() == 0).await;
    });
}

#[test]
fn a_client_that_asks_nothing_is_closed() {
    run(|| async {
        let settings = ConnectionSettings { max_idle: Duration::from_millis(200), ..ConnectionSettings::default() };
        let node = Node::start(settings);
        let connection = node.connect().await;
        let mut stream = Stream::open(&connection).await;
        assert_eq!(stream.ask("e").await, b"e");
        assert!(matches!(stream.try_receive().await, Err(ReadExactError::FinishedEarly(0))));
        assert!(matches!(connection.closed().await, ConnectionError::ApplicationClosed(_)));
        assert_eq!(node.stats.closed_for(CloseReason::Idle), 1);
    });
}

#[test]
fn a_shutdown_answers_what_is_in_flight_and_ends_everything() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let connection = node.connect().await;
        let mut stream = Stream::open(&connection).await;
        stream.send("pa").await;
        node.seen.wait_admitted(1).await;
        node.shutdown.begin(Duration::from_secs(10));
        node.seen.open(b'a');
        assert_eq!(stream.receive().await, b"pa");
        assert!(matches!(stream.try_receive().await, Err(ReadExactError::FinishedEarly(0))));
        assert!(matches!(connection.closed().await, ConnectionError::ApplicationClosed(_)));
        for task in node.tasks {
            task.await.expect("it ends");
        }
    });
}

#[test]
fn a_client_that_moves_goes_on_with_its_connection() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        let client = node.identity.client(&[CLIENT_ALPN]);
        let connection = client.connect(node.address, HOST).expect("a name").await.expect("connected");
        let (mut stream, mut parked) = (Stream::open(&connection).await, Stream::open(&connection).await);
        parked.send("k1").await;
        for number in 0..200_u8 {
            if number % 50 == 25 {
                client.rebind(UdpSocket::bind("127.0.0.1:0").expect("a port")).expect("rebound");
            }
            assert_eq!(stream.ask([b'e', number]).await, [b'e', number]);
        }
        node.seen.open(b'1');
        assert_eq!(parked.receive().await, b"k1");
        assert_eq!((node.stats.quic_accepted(), node.stats.accepted()), (1, 2), "nothing was opened anew");
        assert_eq!(node.seen.admitted.borrow().len(), 201, "nothing was asked twice");
    });
}

/// A process that is killed closes nothing. The next one, on the same address with the same certificate, tells a client at its first packet.
#[test]
fn a_client_learns_of_a_restart_from_the_node_that_comes_after() {
    run(|| async {
        let identity = Identity::new();
        let client = identity.client(&[CLIENT_ALPN]);
        let gone = silenced(&identity).await;
        let connecting = client.connect(gone.address, HOST).expect("a name");
        let connection = connecting.await.expect("connected");
        gone.stop();
        let limits = AcceptLimits::default();
        let node = Node::start_as(identity, gone.address, ConnectionSettings::default(), limits);
        let closed = timeout(Duration::from_secs(5), connection.closed()).await.expect("at once");
        assert_eq!(closed, ConnectionError::Reset);
        assert_eq!(Stream::open(&node.connect().await).await.ask("e").await, b"e");
    });
}

/// A node whose runtime ends without a word, as a killed process does.
struct Silenced {
    address: SocketAddr,
    stop: std::sync::mpsc::Sender<()>,
    ended: std::thread::JoinHandle<()>,
}

impl Silenced {
    fn stop(&self) {
        self.stop.send(()).expect("it runs");
        while !self.ended.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

async fn silenced(identity: &Identity) -> Silenced {
    let same = Identity { pem: identity.pem.clone(), key: identity.key.clone(), der: identity.der.clone() };
    let (told, address) = tokio::sync::oneshot::channel();
    let (stop, stopped) = std::sync::mpsc::channel();
    let ended = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async {
            let any = ([127, 0, 0, 1], 0).into();
            let node = Node::start_as(same, any, ConnectionSettings::default(), AcceptLimits::default());
            told.send(node.address).expect("somebody waits");
            until(|| stopped.try_recv().is_ok()).await;
        });
        // The driver of the connection is dropped before it can say that it is.
        runtime.shutdown_background();
        drop(local);
    });
    Silenced { address: address.await.expect("an address"), stop, ended }
}

#[test]
fn clients_and_nodes_speak_different_protocols() {
    run(|| async {
        let node = Node::start(ConnectionSettings::default());
        for protocols in [&[b"madang-node/1".as_slice()][..], &[b"h3"], &[]] {
            let refused = node.identity.client(protocols).connect(node.address, HOST).expect("a name").await;
            assert!(refused.is_err(), "{protocols:?}");
        }
        until(|| node.stats.quic_failed() == 3).await;
        let name = NodeName { cluster_id: Uuid([7; 16]), node_id: NodeId(1), role: Role::Node };
        let own = rcgen::generate_simple_self_signed(vec![name.to_string()]).expect("a certificate");
        let (pem, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let certificates = NodeCertificates::from_pem(name, pem.as_bytes(), pem.as_bytes(), key.as_bytes());
        let reads = ColdReads::start(1, 1).expect("a thread");
        let any = ([127, 0, 0, 1], 0).into();
        let nodes = NodeListener::bind(any, certificates.expect("good"), QuicSettings::default(), reads);
        let nodes = nodes.expect("a free port");
        let address = nodes.local_addr().expect("bound");
        let trusting = Identity { pem, key, der: own.cert.der().clone() };
        spawn_local(async move { nodes.run(NoService).await });
        let refused = trusting.client(&[CLIENT_ALPN]).connect(address, &name.to_string()).expect("a name").await;
        assert!(matches!(refused, Err(ConnectionError::ConnectionClosed(_))), "{refused:?}");
    });
}

#[derive(Clone)]
struct NoService;

impl madang_transport::quic::NodeService for NoService {
    const LEVELS: (u16, u16) = (1, 1);

    fn serves(&self, _: madang_transport::quic::LaneKind) -> bool {
        false
    }

    async fn call(
        &self,
        _: NodeId,
        _: madang_transport::quic::LaneKind,
        _: u16,
        frame: madang_transport::quic::NodeFrame,
    ) -> madang_transport::quic::NodeFrame {
        frame
    }
}

#[test]
fn a_certificate_says_whom_it_names() {
    let identity = Identity::new();
    assert!(identity.certificate().names(HOST) && !identity.certificate().names("127.0.0.1"));
    assert!(ServerCertificate::from_pem(b"", identity.key.as_bytes()).is_err());
    assert!(ServerCertificate::from_pem(identity.pem.as_bytes(), b"").is_err());
    let other = Identity::new();
    assert!(ServerCertificate::from_pem(identity.pem.as_bytes(), other.key.as_bytes()).is_err());
}
