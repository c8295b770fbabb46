//! Compaction as a client sees it: of each key the last record, at its offset; tombstones for their time; whatever is killed meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use rdkafka::Message;
use rdkafka::admin::{NewTopic, TopicReplication};
use rdkafka::producer::FutureRecord;

use crate::broker::Broker;
use crate::client::{PATIENCE, Yard, run};
use crate::client_admin::{admin, options};
use crate::load::poll;

const KEYS: usize = 50;
/// Keys whose last record is a tombstone.
const DELETED: usize = 5;
/// Its records push what was written before them out of the active segment.
const FILLER: &str = "filler";
/// As small as segments may be, and dirty as soon as anything is. How long tombstones stay is the broker's word, unless the topic has its own.
const BROKER: [&str; 5] = [
    "auto.create.topics.enable=false",
    "log.segment.bytes=1048576",
    "log.cleaner.backoff.ms=100",
    "log.cleaner.min.cleanable.ratio=0.01",
    "log.cleaner.delete.retention.ms=100",
];

/// The last record of each key: its offset, and its value unless it is a tombstone.
type Table = BTreeMap<String, (i64, Option<String>)>;

fn settings(enabled: bool) -> Vec<&'static str> {
    let enable = if enabled { "log.cleaner.enable=true" } else { "log.cleaner.enable=false" };
    BROKER.into_iter().chain([enable]).collect()
}

/// Writes one record for each pair and notes it.
fn write(yard: &Yard, topic: &str, pairs: &[(String, Option<String>)], table: &mut Table) {
    let producer = yard.producer(&[("batch.num.messages", "20"), ("enable.idempotence", "true")]);
    let sent = pairs.iter().map(|(key, value)| {
        let mut record = FutureRecord::<str, str>::to(topic).partition(0).key(key);
        record.payload = value.as_deref();
        producer.send(record, PATIENCE)
    });
    let delivered = run(join_all(sent));
    for ((key, value), delivered) in pairs.iter().zip(delivered) {
        table.insert(key.clone(), (delivered.expect("acknowledged").offset, value.clone()));
    }
}

fn fill(yard: &Yard, topic: &str, table: &mut Table) {
    let filler = (FILLER.to_owned(), Some("f".repeat(30_000)));
    write(yard, topic, &vec![filler; 80], table);
}

/// What is left of the keys but the filler, oldest first.
fn left(yard: &Yard, topic: &str) -> Vec<(String, i64, Option<String>)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let records = yard
        .read(topic)
        .into_iter()
        .map(|record| (text(record.key().unwrap_or_default()), record.offset(), record.payload().map(text)));
    records.filter(|(key, ..)| key != FILLER).collect()
}

fn expected(table: &Table, tombstones: bool) -> Vec<(String, i64, Option<String>)> {
    let last = table.iter().map(|(key, (offset, value))| (key.clone(), *offset, value.clone()));
    let mut last: Vec<_> = last.filter(|(key, _, value)| key != FILLER && (tombstones || value.is_some())).collect();
    last.sort_by_key(|(_, offset, _)| *offset);
    last
}

fn killed(yard: Yard) -> Yard {
    let Yard { broker, folder } = yard;
    broker.kill();
    let broker = Broker::start(&folder.path().join("data"), &settings(true));
    Yard { broker, folder }
}

#[test]
fn a_compacted_topic_keeps_the_last_record_of_each_key_at_its_offset() {
    let yard = Yard::open(&settings(false));
    let topic = |name| NewTopic::new(name, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    let (patient, hasty) = (topic("patient").set("delete.retention.ms", "86400000"), topic("hasty"));
    for made in run(admin(&yard).create_topics([&patient, &hasty], &options())).expect("answered") {
        made.expect("created");
    }
    let mut tables = [Table::new(), Table::new()];
    for (name, table) in ["patient", "hasty"].into_iter().zip(&mut tables) {
        for round in 0..20 {
            let pair = |key: usize| {
                let value = (round < 19 || key >= DELETED).then(|| format!("{round}-{}", "v".repeat(2_000)));
                (format!("key-{key}"), value)
            };
            write(&yard, name, &(0..KEYS).map(pair).collect::<Vec<_>>(), table);
        }
        fill(&yard, name, table);
        assert_eq!(left(&yard, name).len(), 20 * KEYS, "the cleaner is off");
    }
    let yard = killed(yard);
    let [mut patient, mut hasty] = tables;
    let kept = expected(&patient, true);
    assert_eq!(kept.len(), KEYS);
    assert!(poll(PATIENCE, || left(&yard, "patient") == kept), "one record of each key is left, tombstones too");
    let values = expected(&hasty, false);
    assert_eq!(values.len(), KEYS - DELETED);
    let without = || {
        // Tombstones go with the first pass after their time, and a pass needs something that is dirty.
        fill(&yard, "hasty", &mut hasty);
        left(&yard, "hasty") == values
    };
    assert!(poll(PATIENCE * 2, without), "the tombstones are gone");
    let yard = killed(yard);
    assert_eq!(left(&yard, "patient"), kept);
    assert_eq!(left(&yard, "hasty"), values);
    let end = patient.values().map(|(offset, _)| *offset).max().expect("records");
    write(&yard, "patient", &[("key-0".to_owned(), Some("again".to_owned()))], &mut patient);
    assert_eq!(patient["key-0"].0, end + 1, "offsets go on where they were");
    assert!(poll(Duration::from_secs(5), || yard.read("patient").last().map(|last| last.offset()) == Some(end + 1)));
}
