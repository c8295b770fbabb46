//! The client in Rust over QUIC: what it promises over TCP, moves of its address, restarts of the broker, three nodes, the command line.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use madang_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, MetadataError, Producer, ProducerConfig, ProducerRecord,
    QuicConfig, StartAt,
};

use crate::broker::{Broker, Launch, binary};
use crate::client::{PATIENCE, run};
use crate::client_native::stories;
use crate::cluster::Cluster;

const ANY: &str = "madang.quic.listener=127.0.0.1:0";

/// A client of these addresses that trusts the file.
fn configured(addresses: &[&str], trust: &Path) -> ClientConfig {
    let quic = QuicConfig::new(trust).expect("a certificate");
    ClientConfig { quic: Some(quic), ..ClientConfig::new(addresses.iter().copied()) }
}

fn client_of(broker: &Broker) -> Client {
    let (address, trust) = broker.quic.as_ref().expect("it listens");
    Client::new(configured(&[address], trust))
}

/// Writes the numbers, and gives their offsets in partition 0.
async fn write(producer: &Producer, topic: &str, numbers: std::ops::Range<u32>) -> Vec<i64> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let record = ProducerRecord::new(topic).partition(0).value(number.to_string());
        deliveries.push(producer.send(record).await.expect("accepted"));
    }
    let mut offsets = Vec::new();
    for delivery in deliveries {
        offsets.push(delivery.await.expect("acknowledged").offset.0);
    }
    offsets
}

/// Polls until `count` records of it came.
async fn read(consumer: &mut Consumer, count: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    let reading = async {
        while numbers.len() < count {
            match consumer.poll(std::time::Duration::from_millis(200)).await {
                Ok(records) => numbers.extend(records.iter().map(|record| {
                    let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
                    text.parse::<u32>().expect("a number")
                })),
                Err(error) => assert!(error.is_retriable(), "{error}"),
            }
        }
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    assert!(read.is_ok(), "{} of {count} records came", numbers.len());
    numbers
}

async fn reader(client: &Client, topic: &str) -> Consumer {
    let mut consumer = Consumer::new(client.clone(), ConsumerConfig::default());
    consumer.assign(topic, StartAt::Earliest).await.expect("assigned");
    consumer
}

fn counter(broker: &Broker, name: &str) -> u64 {
    let page = broker.page("/metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).expect("it is counted")
}

#[test]
fn the_native_client_keeps_over_quic_what_it_promises() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(folder.path(), &[ANY, "group.initial.rebalance.delay.ms=0"]);
    let (address, trust) = broker.quic.clone().expect("it listens");
    stories::CONFIGURE.set(Box::new(move |address| configured(&[address], &trust)));
    for (name, story) in stories::ALL {
        println!("{name}");
        run(story(address.clone()));
    }
    assert_eq!(counter(&broker, "madang_quic_handshakes_failed_total"), 0);
}

#[test]
fn a_client_whose_address_changes_goes_on_with_its_connection_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(folder.path(), &[ANY]);
    run(async {
        let client = client_of(&broker);
        client.usable_metadata(&["moving"], true).await.expect("created");
        let producer = Producer::new(client.clone(), ProducerConfig::default());
        let mut consumer = reader(&client, "moving").await;
        assert_eq!(write(&producer, "moving", 0..10).await.len(), 10);
        assert_eq!(read(&mut consumer, 10).await.len(), 10);
        let opened = |name: &str| counter(&broker, name);
        let names = ["madang_quic_connections_accepted_total", "madang_connections_accepted_total"];
        let before = names.map(opened);
        let writing = async {
            for turn in 1..20 {
                // Between two batches, and while the consumer's fetch is parked.
                client.rebind().expect("another socket");
                let offsets = write(&producer, "moving", turn * 10..turn * 10 + 10).await;
                assert_eq!(offsets, (i64::from(turn) * 10..i64::from(turn) * 10 + 10).collect::<Vec<_>>());
            }
        };
        let ((), numbers) = tokio::join!(writing, read(&mut consumer, 190));
        assert_eq!(numbers, (10..200).collect::<Vec<_>>());
        assert_eq!(names.map(opened), before, "no connection was opened anew");
    });
}

#[test]
fn a_client_finds_a_broker_again_that_was_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(folder.path(), &[ANY]);
    let (address, quic) = (broker.address.clone(), broker.quic.clone().expect("it listens").0);
    run(async {
        let client = client_of(&broker);
        client.usable_metadata(&["kept"], true).await.expect("created");
        let producer = Producer::new(client.clone(), ProducerConfig::default());
        let mut consumer = reader(&client, "kept").await;
        write(&producer, "kept", 0..50).await;
        assert_eq!(read(&mut consumer, 50).await, (0..50).collect::<Vec<_>>());
        broker.kill();
        let broker = Launch::new(folder.path()).set(&format!("madang.quic.listener={quic}")).start(&address);
        let (offsets, numbers) = tokio::join!(write(&producer, "kept", 50..100), read(&mut consumer, 50));
        assert_eq!((offsets.len(), numbers), (50, (50..100).collect::<Vec<_>>()));
        assert!(broker.stop(), "an order to end is followed while a client is connected");
    });
}

#[test]
fn a_broker_that_the_file_does_not_vouch_for_is_not_spoken_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let (one, other) = (Broker::start(&one, &[ANY]), Broker::start(&other, &[ANY]));
    let (address, _) = one.quic.clone().expect("it listens");
    let (_, trust) = other.quic.clone().expect("it listens");
    let stranger = Client::new(configured(&[&address], &trust));
    let refused = run(async { stranger.all_metadata().await.expect_err("refused") });
    assert!(matches!(&refused, MetadataError::Connection(error) if error.is_unsent()), "{refused}");
    let (_, trust) = one.quic.clone().expect("it listens");
    let quic = QuicConfig::new(&trust).expect("a certificate").server_name("elsewhere.example");
    let misled = Client::new(ClientConfig { quic: Some(quic), ..ClientConfig::new([address.as_str()]) });
    assert!(run(async { misled.all_metadata().await }).is_err());
    assert_eq!(run(async { client_of(&one).all_metadata().await }).expect("metadata").brokers.len(), 1);
}

#[test]
fn the_nodes_of_a_cluster_are_told_by_where_each_is_reached_over_quic() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start_with(folder.path(), &["--quic"]);
    cluster.create_topic("spread", 6);
    run(async {
        let client = Client::new(configured(&[&cluster.quic_address(0)], &folder.path().join("authority/ca.pem")));
        let metadata = client.usable_metadata(&["spread"], false).await.expect("leaders");
        let mut told: Vec<String> = metadata.brokers.values().map(madang_client::Broker::address).collect();
        told.sort();
        assert_eq!(told, (0..3).map(|node| cluster.quic_address(node)).collect::<Vec<_>>());
        stories::fill(&client, "spread", 6, 0..600).await;
        let mut numbers = read(&mut reader(&client, "spread").await, 600).await;
        numbers.sort_unstable();
        assert_eq!(numbers, (0..600).collect::<Vec<_>>());
    });
}

fn command(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
    child.wait_with_output().expect("it ends")
}

#[test]
fn the_command_line_does_over_quic_what_it_does_over_tcp() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(folder.path(), &[ANY]);
    let (address, trust) = broker.quic.clone().expect("it listens");
    let way = ["--quic", "--ca", trust.to_str().expect("text"), "--server", &address];
    let said = command(&[&["produce", "lines"], &way[..]].concat(), "one\ntwo\n");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let said = command(&[&["consume", "lines", "--from-beginning", "--max", "2"], &way[..]].concat(), "");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "one\ntwo\n");
    let over_quic = |arguments: &[&str]| {
        let said = command(&[arguments, &way[..]].concat(), "");
        assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    over_quic(&["topic", "create", "numbers", "--partitions", "3"]);
    assert!(over_quic(&["topic", "describe", "numbers"]).contains("numbers"));
    over_quic(&["consume", "lines", "--group", "readers", "--from-beginning", "--max", "2"]);
    assert!(over_quic(&["group", "list"]).contains("readers"));
    let said = command(&["produce", "lines", "--quic", "--server", &address], "");
    assert!(String::from_utf8_lossy(&said.stderr).contains("--ca"), "whom to trust has to be said");
}
