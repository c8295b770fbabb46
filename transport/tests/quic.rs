//! Nodes that speak QUIC to each other over loopback: who gets in, what arrives, and what becomes of calls when something fails.
#![allow(missing_docs)]

use std::cell::Cell;
use std::future::{Future, pending};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use madang_protocol::payload::{Payload, Region};
use madang_protocol::types::{NodeId, Uuid};
use madang_transport::kafka::ColdReads;
use madang_transport::quic::LaneKind::{self, Control, Data, Snapshot};
use madang_transport::quic::{
    CallError, CertificateError, Link, LinkError, LinkState, NodeCertificates, NodeFrame, NodeListener, NodeName,
    NodeService, QuicSettings, Role,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::task::{LocalSet, spawn_local};

const CLUSTER: Uuid = Uuid([7; 16]);
const LEVELS: (u16, u16) = (1, 2);
const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A cluster's authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key for the names.
    fn issue(&self, names: Vec<String>) -> (String, String) {
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("signed").pem(), key.serialize_pem())
    }

    fn node_of(&self, cluster_id: Uuid, node: i32) -> NodeCertificates {
        let name = NodeName { cluster_id, node_id: NodeId(node), role: Role::Node };
        let (chain, key) = self.issue(vec![name.to_string()]);
        NodeCertificates::from_pem(name, self.pem.as_bytes(), chain.as_bytes(), key.as_bytes()).expect("certificates")
    }

    fn node(&self, node: i32) -> NodeCertificates {
        self.node_of(CLUSTER, node)
    }
}

fn settings() -> QuicSettings {
    QuicSettings {
        max_frame_bytes: 4 << 20,
        max_head_bytes: 64 << 10,
        in_flight: 4,
        frame_timeout: Duration::from_millis(500),
        call_timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(2),
        back_off: Duration::from_millis(10),
        back_off_max: Duration::from_millis(50),
        ..QuicSettings::default()
    }
}

fn listener_on(address: SocketAddr, certificates: NodeCertificates, settings: QuicSettings) -> NodeListener {
    let reads = ColdReads::start(1, 4).expect("a thread");
    NodeListener::bind(address, certificates, settings, reads).expect("binds")
}

/// Tags of the test's requests.
const ECHO: u16 = 1;
const WHO: u16 = 2;
const HANG: u16 = 3;
const PANIC: u16 = 4;
const SLOW: u16 = 5;
const FILE: u16 = 6;

/// Answers each tag in its way, and counts.
#[derive(Clone, Default)]
struct Tester {
    calls: Rc<Cell<usize>>,
    at_once: Rc<Cell<usize>>,
    most_at_once: Rc<Cell<usize>>,
}

/// A range of a file that is in no page cache.
#[derive(Debug)]
struct Cold(Vec<u8>);

impl Region for Cold {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read_at(&self, offset: usize, buffer: &mut [u8]) -> std::io::Result<()> {
        buffer.copy_from_slice(&self.0[offset..offset + buffer.len()]);
        Ok(())
    }

    fn as_fd(&self) -> Option<(std::os::fd::BorrowedFd<'_>, u64)> {
        None
    }

    fn is_warm(&self) -> bool {
        false
    }
}

fn cold() -> Vec<u8> {
    (0..700_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

impl NodeService for Tester {
    const LEVELS: (u16, u16) = LEVELS;

    fn serves(&self, kind: LaneKind) -> bool {
        kind != Snapshot
    }

    fn call(&self, peer: NodeId, kind: LaneKind, level: u16, frame: NodeFrame) -> impl Future<Output = NodeFrame> {
        let this = self.clone();
        async move {
            this.calls.set(this.calls.get() + 1);
            this.at_once.set(this.at_once.get() + 1);
            this.most_at_once.set(this.most_at_once.get().max(this.at_once.get()));
            match frame.tag {
                HANG => pending::<()>().await,
                PANIC => panic!("planted"),
                SLOW => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => {}
            }
            this.at_once.set(this.at_once.get() - 1);
            match frame.tag {
                WHO => answer(format!("{peer} {kind:?} {level}")),
                FILE => {
                    let regions: Arc<[Arc<dyn Region>]> = Arc::new([Arc::new(Cold(cold())), Arc::new(Cold(cold()))]);
                    NodeFrame { tag: FILE, payload: Payload::Regions(regions), ..NodeFrame::default() }
                }
                _ => frame,
            }
        }
    }
}

fn answer(text: String) -> NodeFrame {
    NodeFrame { tag: WHO, head: text.into(), ..NodeFrame::default() }
}

fn ask(tag: u16) -> NodeFrame {
    NodeFrame { tag, head: Bytes::from_static(b"head"), payload: Bytes::from_static(b"payload").into() }
}

/// Node 2 that serves, at an address.
fn serve(authority: &Authority, address: SocketAddr) -> (SocketAddr, Tester, Rc<NodeListener>) {
    serve_as(authority.node(2), address)
}

fn serve_as(certificates: NodeCertificates, address: SocketAddr) -> (SocketAddr, Tester, Rc<NodeListener>) {
    let (tester, listener) = (Tester::default(), Rc::new(listener_on(address, certificates, settings())));
    let bound = listener.local_addr().expect("an address");
    let (served, service) = (Rc::clone(&listener), tester.clone());
    spawn_local(async move { served.run(service).await });
    (bound, tester, listener)
}

/// A link of a node to node 2.
fn dial(certificates: NodeCertificates, address: SocketAddr, levels: (u16, u16), kinds: &[LaneKind]) -> Link {
    let (link, driver) =
        Link::new(&listener_on(ANY, certificates, settings()), NodeId(2), address.to_string(), levels, kinds);
    spawn_local(driver);
    link
}

/// The first state of a link for which `wanted` holds.
async fn state(link: &mut Link, wanted: impl FnMut(&LinkState) -> bool) -> LinkState {
    let waiting = link.state.wait_for(wanted);
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("in time").expect("a driver").clone()
}

async fn up(link: &mut Link) {
    state(link, |state| matches!(state, LinkState::Up { .. })).await;
}

fn is_refusal(state: &LinkState) -> bool {
    matches!(state, LinkState::Down(error) if *error != LinkError::New)
}

fn test<F: Future<Output = ()>>(run: impl FnOnce(Authority) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, run(Authority::new()));
}

#[test]
fn calls_on_every_lane_are_answered_with_the_same_bytes() {
    test(|authority| async move {
        let (address, tester, _listener) = serve(&authority, ANY);
        let mut link = dial(authority.node(1), address, LEVELS, &[Control, Data, Data]);
        up(&mut link).await;
        let who = link.lanes[0].call(ask(WHO)).await.expect("answered");
        assert_eq!(&who.head[..], b"1 Control 2");
        for lane in &link.lanes {
            assert_eq!(lane.call(ask(ECHO)).await, Ok(ask(ECHO)));
        }
        let large = NodeFrame { payload: Bytes::from(cold()).into(), ..ask(ECHO) };
        let calls = (0..20).map(|_| link.lanes[1].call(large.clone()));
        for answer in futures_util::future::join_all(calls).await {
            assert_eq!(answer, Ok(large.clone()));
        }
        let file = link.lanes[2].call(ask(FILE)).await.expect("answered");
        assert_eq!(file.payload.read().expect("in memory"), [cold(), cold()].concat());
        assert_eq!(tester.calls.get(), 25);
    });
}

#[test]
fn nobody_without_a_certificate_of_this_cluster_reaches_the_service() {
    test(|authority| async move {
        let (address, tester, _listener) = serve(&authority, ANY);
        let stranger = Authority::new();
        let mut of_another_authority = dial(stranger.node(1), address, LEVELS, &[Control]);
        state(&mut of_another_authority, is_refusal).await;
        let mut of_another_cluster = dial(authority.node_of(Uuid([8; 16]), 1), address, LEVELS, &[Control]);
        state(&mut of_another_cluster, is_refusal).await;
        assert_eq!(of_another_cluster.lanes[0].call(ask(ECHO)).await, Err(CallError::NotSent));
        assert_eq!(tester.calls.get(), 0);
        // And whoever listens as another node is not spoken to.
        let (other, listener, _kept) = serve_as(authority.node(3), ANY);
        let mut to_another_node = dial(authority.node(1), other, LEVELS, &[Control]);
        let refused = state(&mut to_another_node, is_refusal).await;
        assert!(matches!(&refused, LinkState::Down(LinkError::Connect(why)) if why.contains("name")), "{refused:?}");
        assert_eq!(listener.calls.get(), 0);
    });
}

#[test]
fn a_certificate_names_one_node_and_no_other() {
    let authority = Authority::new();
    let name = |node| NodeName { cluster_id: CLUSTER, node_id: NodeId(node), role: Role::Node };
    let load = |names: Vec<String>| {
        let (chain, key) = authority.issue(names);
        NodeCertificates::from_pem(name(1), authority.pem.as_bytes(), chain.as_bytes(), key.as_bytes()).map(|_| ())
    };
    assert_eq!(load(vec![name(1).to_string()]), Ok(()));
    assert_eq!(load(vec![name(2).to_string()]), Err(CertificateError::Another { found: name(2), expected: name(1) }));
    assert_eq!(load(vec![name(1).to_string(), name(2).to_string()]), Err(CertificateError::Names(2)));
    assert_eq!(load(vec![]), Err(CertificateError::Names(0)));
    assert_eq!(load(vec!["broker.example".into()]), Err(CertificateError::Name("broker.example".into())));
    for odd in ["node-01", "node-+1", "node--1", "node-1x", "node-99999999999"] {
        let odd = name(1).to_string().replace("node-1", odd);
        assert!(odd.parse::<NodeName>().is_err(), "{odd}");
    }
    assert_eq!(name(1).to_string().parse(), Ok(name(1)));
    let empty = NodeCertificates::from_pem(name(1), b"", b"", b"");
    assert!(matches!(empty, Err(CertificateError::Unreadable { .. })));
}

#[test]
fn a_lane_holds_a_bounded_number_of_calls() {
    test(|authority| async move {
        let (address, tester, _listener) = serve(&authority, ANY);
        let mut link = dial(authority.node(1), address, LEVELS, &[Data]);
        up(&mut link).await;
        let calls = (0..40).map(|_| link.lanes[0].call(ask(SLOW)));
        assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
        assert_eq!((tester.calls.get(), tester.most_at_once.get()), (40, settings().in_flight));
        let long = NodeFrame { payload: Bytes::from(vec![0; 5 << 20]).into(), ..ask(ECHO) };
        assert!(matches!(link.lanes[0].call(long).await, Err(CallError::TooLong(_))));
        let long = NodeFrame { head: Bytes::from(vec![0; 65 << 10]), ..ask(ECHO) };
        assert!(matches!(link.lanes[0].call(long).await, Err(CallError::TooLong(_))));
        assert_eq!(link.lanes[0].call(ask(ECHO)).await, Ok(ask(ECHO)), "the lane goes on");
    });
}

#[test]
fn a_link_comes_back_when_its_peer_does_and_calls_fail_at_once_meanwhile() {
    test(|authority| async move {
        let (address, _, listener) = serve(&authority, ANY);
        let mut link = dial(authority.node(1), address, LEVELS, &[Control, Data]);
        up(&mut link).await;
        let hanging = link.lanes[1].clone();
        let hanging = spawn_local(async move { hanging.call(ask(HANG)).await });
        assert_eq!(link.lanes[1].call(ask(ECHO)).await, Ok(ask(ECHO)), "what hangs holds up nothing");
        listener.close();
        let lost = state(&mut link, is_refusal).await;
        assert!(matches!(lost, LinkState::Down(LinkError::Lost(_))), "{lost:?}");
        assert_eq!(hanging.await.expect("ends"), Err(CallError::Lost), "it was sent");
        let begun = Instant::now();
        assert_eq!(link.lanes[0].call(ask(ECHO)).await, Err(CallError::NotSent));
        assert!(begun.elapsed() < Duration::from_secs(1), "nobody waits for a link that is down");
        drop(listener);
        let (again, tester, _listener) = loop {
            tokio::task::yield_now().await;
            if std::net::UdpSocket::bind(address).is_ok() {
                break serve(&authority, address);
            }
        };
        assert_eq!(again, address);
        up(&mut link).await;
        assert_eq!(link.lanes[0].call(ask(ECHO)).await, Ok(ask(ECHO)));
        assert_eq!(tester.calls.get(), 1);
    });
}

/// A killed process says nothing. The one after it does not know the connection, and says so: nobody waits until the silence has been long enough.
#[test]
fn a_peer_that_was_killed_and_started_again_is_found_out_at_once() {
    test(|authority| async move {
        let certificates = authority.node(2);
        let long = Duration::from_secs(60);
        let silence = QuicSettings { idle_timeout: long, call_timeout: long, ..settings() };
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = tokio::sync::oneshot::channel();
        let (killed, quiet) = (certificates.clone(), silence.clone());
        let first_life = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, async move {
                let listener = listener_on(ANY, killed, quiet);
                tell.send(listener.local_addr().expect("an address")).expect("heard");
                tokio::select! {
                    () = listener.run(Tester::default()) => {}
                    _ = ended => {}
                }
            });
            // With the runtime goes what would have said good-bye.
        });
        let address = told.recv().expect("an address");
        let (mut link, driver) = Link::new(
            &listener_on(ANY, authority.node(1), silence),
            NodeId(2),
            address.to_string(),
            LEVELS,
            &[Control],
        );
        spawn_local(driver);
        up(&mut link).await;
        let lane = link.lanes[0].clone();
        let hanging = spawn_local(async move { lane.call(ask(HANG)).await });
        end.send(()).expect("heard");
        first_life.join().expect("it ends");
        let (_, tester, _listener) = serve_as(certificates, address);
        let lost = state(&mut link, is_refusal).await;
        assert!(matches!(&lost, LinkState::Down(LinkError::Lost(why)) if why.contains("reset")), "{lost:?}");
        assert_eq!(hanging.await.expect("ends"), Err(CallError::Lost));
        up(&mut link).await;
        assert_eq!(link.lanes[0].call(ask(ECHO)).await, Ok(ask(ECHO)));
        assert_eq!(tester.calls.get(), 1);
    });
}

#[test]
fn a_call_without_an_answer_and_one_that_panics_cost_their_lane_and_not_the_link_for_good() {
    test(|authority| async move {
        let (address, _, _listener) = serve(&authority, ANY);
        let short = QuicSettings { call_timeout: Duration::from_millis(300), ..settings() };
        let (mut link, driver) = Link::new(
            &listener_on(ANY, authority.node(1), short),
            NodeId(2),
            address.to_string(),
            LEVELS,
            &[Control, Data],
        );
        spawn_local(driver);
        for fault in [HANG, PANIC] {
            up(&mut link).await;
            assert_eq!(link.lanes[1].call(ask(fault)).await, Err(CallError::Lost));
            state(&mut link, is_refusal).await;
        }
        up(&mut link).await;
        assert_eq!(link.lanes[1].call(ask(ECHO)).await, Ok(ask(ECHO)));
    });
}

#[test]
fn lanes_that_are_not_served_and_levels_that_nobody_shares_are_refused_with_a_reason() {
    test(|authority| async move {
        let (address, tester, _listener) = serve(&authority, ANY);
        let mut snapshot = dial(authority.node(1), address, LEVELS, &[Control, Snapshot]);
        let refused = state(&mut snapshot, is_refusal).await;
        assert!(
            matches!(&refused, LinkState::Down(LinkError::Refused(why)) if why.contains("not served")),
            "{refused:?}"
        );
        let mut newer = dial(authority.node(1), address, (3, 9), &[Control]);
        let refused = state(&mut newer, is_refusal).await;
        assert!(matches!(&refused, LinkState::Down(LinkError::Refused(why)) if why.contains("level")), "{refused:?}");
        let mut older = dial(authority.node(1), address, (0, 1), &[Control]);
        assert_eq!(
            state(&mut older, |state| !is_refusal(state) && *state != LinkState::Down(LinkError::New)).await,
            LinkState::Up { level: 1 }
        );
        assert_eq!(&older.lanes[0].call(ask(WHO)).await.expect("answered").head[..], b"1 Control 1");
        assert_eq!(tester.calls.get(), 1);
    });
}

/// A stream of a peer that has a certificate and does not keep to the protocol.
struct Rogue {
    connection: quinn::Connection,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
}

impl Rogue {
    async fn new(authority: &Authority, address: SocketAddr) -> Self {
        let name = NodeName { cluster_id: CLUSTER, node_id: NodeId(1), role: Role::Node };
        let (chain, key) = authority.issue(vec![name.to_string()]);
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("one")).expect("a root");
        let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).expect("one")];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("TLS 1.3");
        let mut tls = builder.with_root_certificates(roots).with_client_auth_cert(chain, key).expect("a client");
        tls.alpn_protocols = vec![b"madang-node/1".to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("of QUIC");
        let endpoint = quinn::Endpoint::client(ANY).expect("binds");
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let peer = NodeName { node_id: NodeId(2), ..name }.to_string();
        let connection = endpoint.connect_with(config, address, &peer).expect("dials").await.expect("connects");
        let (send, receive) = connection.open_bi().await.expect("a stream");
        Self { connection, send, receive }
    }

    async fn hello(&mut self) {
        self.send.write_all(&[21, 0, 0, 0, 1, 0, 0, 0]).await.expect("sent");
        self.send.write_all(&[0; 8]).await.expect("sent");
        self.send.write_all(&[5, 0, 0, 0, 2, 1, 0, 2, 0]).await.expect("sent");
        let mut answer = [0; 22];
        self.receive.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(answer[20..], [2, 0]);
    }

    /// Whether the other side ends the lane, or the connection, by itself.
    async fn cut_off(mut self) -> bool {
        let mut buffer = [0; 64];
        let ended = async { while let Ok(Some(_)) = self.receive.read(&mut buffer).await {} };
        tokio::time::timeout(Duration::from_secs(5), ended).await.is_ok()
    }
}

#[test]
fn what_is_no_frame_is_cut_off_and_the_others_are_served() {
    test(|authority| async move {
        let (address, tester, _listener) = serve(&authority, ANY);
        let mut link = dial(authority.node(1), address, LEVELS, &[Control]);
        up(&mut link).await;
        let garbage: [&[u8]; 5] = [
            &[255; 64],
            &[21, 0, 0, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1, 1, 0, 2, 0],
            &[20, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 1, 0, 2],
            &[16, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            b"GET / HTTP/1.1\r\n\r\n",
        ];
        for bytes in garbage {
            let mut rogue = Rogue::new(&authority, address).await;
            rogue.send.write_all(bytes).await.expect("sent");
            let closed = tokio::time::timeout(Duration::from_secs(5), rogue.connection.closed()).await;
            assert!(closed.is_ok(), "{bytes:?} instead of a hello");
        }
        let after_hello: [&[u8]; 4] = [
            &[255; 4],
            &[15, 0, 0, 0, 1],
            &[16, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[16, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        ];
        for bytes in after_hello {
            let mut rogue = Rogue::new(&authority, address).await;
            rogue.hello().await;
            rogue.send.write_all(bytes).await.expect("sent");
            assert!(rogue.cut_off().await, "{bytes:?} instead of a frame");
        }
        // A frame that begins and does not go on.
        let mut rogue = Rogue::new(&authority, address).await;
        rogue.hello().await;
        rogue.send.write_all(&[0, 0, 16, 0, 1, 0, 1, 0]).await.expect("sent");
        assert!(rogue.cut_off().await, "a frame that does not arrive");
        assert_eq!(tester.calls.get(), 0);
        assert_eq!(link.lanes[0].call(ask(ECHO)).await, Ok(ask(ECHO)), "the others are served");
    });
}
