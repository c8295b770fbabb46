//! What clients are told of a broker's listeners: the one they came in on, by an address they can reach.

use std::process::Command;

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
