//! What the client promises, told against a cluster that runs. A story that fails panics.

mod consuming;
mod groups;
mod members;
mod producing;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use madang_client::{Admin, Client, ClientConfig, NewTopic, Producer, ProducerConfig, ProducerRecord};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

type Story = fn(String) -> Pin<Box<dyn Future<Output = ()>>>;

/// All stories by name.
pub(crate) const ALL: [(&str, Story); 12] = [
    ("producing: every codec makes the round trip", |at| Box::pin(producing::every_codec(at))),
    ("producing: partitioners", |at| Box::pin(producing::partitioners(at))),
    ("producing: a full buffer sends what lingers", |at| Box::pin(producing::full_buffer(at))),
    ("consuming: seek, pause, resume", |at| Box::pin(consuming::seek_and_pause(at))),
    ("consuming: offsets of a group by name", |at| Box::pin(consuming::offsets_by_name(at))),
    ("consuming: a stream gives back what was not taken", |at| Box::pin(consuming::stream(at))),
    ("consuming: administration of records, offsets and brokers", |at| Box::pin(consuming::administration(at))),
    ("groups: every assignor shares and hands over", |at| Box::pin(groups::every_assignor(at))),
    ("groups: from eager to cooperative", |at| Box::pin(groups::two_assignors_offered(at))),
    ("members: a second process fences the first", |at| Box::pin(members::fenced(at))),
    ("members: who does not poll leaves", |at| Box::pin(members::max_poll(at))),
    ("members: commits by themselves, started and with metadata", |at| Box::pin(members::commits(at))),
];

type Configure = Box<dyn Fn(&str) -> ClientConfig>;

thread_local! {
    /// How the stories that this thread tells reach the cluster.
    pub(crate) static CONFIGURE: RefCell<Configure> = RefCell::new(Box::new(|address| ClientConfig::new([address])));
}

pub(crate) fn client(address: &str) -> Client {
    Client::new(CONFIGURE.with_borrow(|configure| configure(address)))
}

/// A name that nobody else has.
pub(crate) fn fresh(what: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("suite-{what}-{}-{}", std::process::id(), now.as_nanos())
}

/// A topic of one replica.
pub(crate) async fn topic(client: &Client, what: &str, partitions: i32) -> String {
    let name = fresh(what);
    let topic = NewTopic {
        name: name.clone(),
        partitions: Some(partitions),
        replication_factor: Some(1),
        configs: BTreeMap::new(),
    };
    Admin::new(client.clone()).create_topic(&topic, false).await.expect("a topic");
    client.usable_metadata(&[&name], true).await.expect("with leaders");
    name
}

/// Writes the numbers from `from` up to `to`, each to the partition of its rest.
pub(crate) async fn fill(client: &Client, topic: &str, partitions: i32, numbers: std::ops::Range<i32>) {
    let producer = Producer::new(client.clone(), ProducerConfig::default());
    let mut deliveries = Vec::new();
    for number in numbers {
        let record = ProducerRecord::new(topic).partition(number % partitions).value(number.to_string());
        deliveries.push(producer.send(record.timestamp(1_000_000 + i64::from(number))).await.expect("accepted"));
    }
    for delivery in deliveries {
        delivery.await.expect("acknowledged");
    }
}

pub(crate) fn number(record: &madang_client::ConsumerRecord) -> i32 {
    let text = record.value.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    text.parse().expect("a number")
}

pub(crate) fn numbers(records: &[madang_client::ConsumerRecord]) -> BTreeSet<i32> {
    records.iter().map(number).collect()
}
