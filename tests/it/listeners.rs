//! What clients are told of a broker's listeners: the one they came in on, by an address they can reach.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::broker::{Broker, Launch};
use crate::client::PATIENCE;

/// Host and port of the one broker, as a client hears it that comes in by `address`.
fn told(address: &str) -> (String, i32) {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", address).create().expect("a client");
    let metadata = client.fetch_metadata(None, PATIENCE).expect("metadata");
    let broker = &metadata.brokers()[0];
    (broker.host().to_owned(), broker.port())
}

fn port(address: &str) -> i32 {
    address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

#[test]
fn a_client_is_told_of_the_listener_it_came_in_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = [
        "listeners=INSIDE://127.0.0.1:0,OUTSIDE://127.0.0.1:0",
        "advertised.listeners=INSIDE://127.0.0.1:0,OUTSIDE://localhost:0",
        "listener.security.protocol.map=INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT",
    ];
    let broker = Broker::start(folder.path(), &settings);
    let [inside, outside] = &broker.listeners[..] else { panic!("{:?}", broker.listeners) };
    assert_eq!(told(inside), ("127.0.0.1".to_owned(), port(inside)));
    assert_eq!(told(outside), ("localhost".to_owned(), port(outside)));
}

#[test]
fn a_listener_of_controllers_is_not_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound").port();
    let listeners = format!("listeners=PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:{free}");
    let settings = [&*listeners, "controller.listener.names=CONTROLLER", "process.roles=broker,controller"];
    let broker = Broker::start(folder.path(), &settings);
    assert_eq!(broker.listeners.len(), 1);
    assert_eq!(told(&broker.address), ("127.0.0.1".to_owned(), port(&broker.address)));
    assert!(TcpStream::connect(("127.0.0.1", free)).is_err());
}

#[test]
fn a_listener_without_a_host_is_told_by_the_machines_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = Launch::new(folder.path()).set("listeners=PLAINTEXT://:0").start("127.0.0.1:0");
    let (host, _) = told(&format!("127.0.0.1:{}", port(&broker.address)));
    let own = Command::new("uname").arg("-n").output().expect("uname runs").stdout;
    assert_eq!(host, String::from_utf8(own).expect("text").trim());
}

#[test]
fn a_broker_that_would_not_do_as_it_is_told_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    for setting in ["listeners=SASL_SSL://127.0.0.1:0", "listeners=PLAINTEXT://0.0.0.0:0", "authorizer.class.name=A"] {
        assert!(Launch::new(folder.path()).set(setting).try_start("127.0.0.1:0").is_none(), "{setting}");
    }
}

/// A connection that was taken and answers; nothing if it was turned away.
fn connect(address: &str) -> Option<TcpStream> {
    const API_VERSIONS: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 255, 255];
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(&API_VERSIONS).ok()?;
    stream.read_exact(&mut [0; 8]).ok()?;
    Some(stream)
}

async fn alter(client: &AdminClient<DefaultClientContext>, key: &str, value: &str) -> bool {
    let change = AlterConfig { specifier: ResourceSpecifier::Broker(1), entries: [(key, value)].into() };
    let altered = client.alter_configs([&change], &AdminOptions::new()).await.expect("an answer");
    altered[0] == Ok(OwnedResourceSpecifier::Broker(1))
}

#[tokio::test]
async fn how_many_connections_there_may_be_changes_while_the_broker_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(folder.path(), &["madang.reserved.connections=2", "node.id=1"]);
    let client: AdminClient<_> =
        ClientConfig::new().set("bootstrap.servers", &broker.address).create().expect("a client");
    assert!(alter(&client, "max.connections", "8").await);
    // Some of the ten are the client's.
    let held: Vec<TcpStream> = (0..11).map_while(|_| connect(&broker.address)).collect();
    assert!((6..10).contains(&held.len()), "{}", held.len());
    assert!(alter(&client, "max.connections", "20").await);
    assert!(connect(&broker.address).is_some());
}
