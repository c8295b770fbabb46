//! librdkafka's consumer groups: sharing, rebalances, committed offsets, restarts.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use madang_client::{Assignor, Client, ClientConfig, ConsumerConfig, GroupConfig, GroupConsumer, OutOfRange};

use rdkafka::admin::NewPartitions;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::FutureRecord;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::client::{PATIENCE, Yard, run};
use crate::client_admin::{admin, options};
use crate::load::poll;

const PARTITIONS: i32 = 4;
const INTERNAL: &str = "__consumer_offsets";

fn fill(yard: &Yard, topic: &str, from: i32, to: i32) {
    let producer = yard.producer(&[("linger.ms", "5")]);
    run(async {
        let sent = (from..to).map(|number| {
            let producer = &producer;
            async move {
                let value = number.to_string();
                let record = FutureRecord::<str, str>::to(topic).partition(number % PARTITIONS).payload(&value);
                producer.send(record, PATIENCE).await.expect("acknowledged");
            }
        });
        futures_util::future::join_all(sent).await;
    });
}

fn member(yard: &Yard, topic: &str, strategy: &str) -> BaseConsumer {
    let pairs = [
        ("group.id", "workers"),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "200"),
        ("partition.assignment.strategy", strategy),
    ];
    let consumer: BaseConsumer = yard.config(&pairs).create().expect("a consumer");
    consumer.subscribe(&[topic]).expect("subscribed");
    consumer
}

fn number(message: &impl Message) -> i32 {
    String::from_utf8_lossy(message.payload().unwrap_or_default()).parse().expect("a number")
}

/// Polls every member until `count` numbers came; gives all that came.
fn take(members: &[&BaseConsumer], count: usize) -> BTreeSet<i32> {
    let mut numbers = BTreeSet::new();
    let deadline = Instant::now() + PATIENCE;
    while numbers.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} records came", numbers.len());
        for member in members {
            if let Some(Ok(message)) = member.poll(Duration::from_millis(5)) {
                numbers.insert(number(&message));
            }
        }
    }
    numbers
}

/// How many partitions each member has.
fn shares(members: &[&BaseConsumer]) -> Vec<usize> {
    for member in members {
        drop(member.poll(Duration::from_millis(5)));
    }
    members.iter().map(|member| member.assignment().map_or(0, |list| list.count())).collect()
}

fn shares_and_hands_over(strategy: &str) {
    let yard = Yard::open(&[&format!("num.partitions={PARTITIONS}"), "group.initial.rebalance.delay.ms=0"]);
    fill(&yard, "work", 0, 40);
    let first = member(&yard, "work", strategy);
    assert_eq!(take(&[&first], 40), (0..40).collect());
    first.commit_consumer_state(CommitMode::Sync).expect("committed");
    let second = member(&yard, "work", strategy);
    assert!(poll(PATIENCE, || shares(&[&first, &second]) == [2, 2]), "{strategy}: two members share");
    fill(&yard, "work", 40, 80);
    assert_eq!(take(&[&first, &second], 40), (40..80).collect(), "{strategy}: what was committed does not come again");
    first.commit_consumer_state(CommitMode::Sync).expect("committed");
    second.commit_consumer_state(CommitMode::Sync).expect("committed");
    drop(second);
    assert!(poll(PATIENCE, || shares(&[&first]) == [4]), "{strategy}: the one that stays takes all");
    drop(first);
    let yard = yard.reopen();
    fill(&yard, "work", 80, 90);
    let third = member(&yard, "work", strategy);
    assert_eq!(take(&[&third], 10), (80..90).collect(), "{strategy}: the group goes on after a restart");
}

#[test]
fn two_members_share_and_hand_over_and_the_group_survives_a_restart() {
    shares_and_hands_over("range");
}

#[test]
fn cooperative_members_share_and_hand_over() {
    shares_and_hands_over("cooperative-sticky");
}

/// As in Kafka, which asks for the number of partitions when it starts: what groups have committed stays in their sight.
#[test]
fn partitions_that_are_added_to_the_offsets_topic_move_no_group_before_the_next_start() {
    let yard = Yard::open(&[&format!("num.partitions={PARTITIONS}"), "offsets.topic.num.partitions=2"]);
    fill(&yard, "kept", 0, 4);
    let groups: Vec<BaseConsumer> = (0..8)
        .map(|number| yard.config(&[("group.id", &format!("group-{number}"))]).create().expect("a consumer"))
        .collect();
    let at = |offset| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("kept", 0, offset).expect("a partition");
        list
    };
    for group in &groups {
        group.commit(&at(Offset::Offset(1)), CommitMode::Sync).expect("committed");
    }
    let grown = NewPartitions::new(INTERNAL, 50);
    let grown = run(admin(&yard).create_partitions([&grown], &options())).expect("answered");
    assert_eq!(grown, [Ok(INTERNAL.to_owned())]);
    for (number, group) in groups.iter().enumerate() {
        let committed = group.committed_offsets(at(Offset::Invalid), PATIENCE).expect("answered");
        assert_eq!(committed.find_partition("kept", 0).expect("asked").offset(), Offset::Offset(1), "group {number}");
        group.commit(&at(Offset::Offset(2)), CommitMode::Sync).expect("committed");
    }
}

/// What the two members of a mixed group have and have read.
#[derive(Default)]
struct Mixed {
    seen: Mutex<BTreeSet<i32>>,
    ours: AtomicUsize,
    theirs: AtomicUsize,
    stop: AtomicBool,
}

impl Mixed {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn read(&self, number: i32) {
        self.seen.lock().expect("sound").insert(number);
    }

    fn has_read(&self, count: usize) -> bool {
        self.seen.lock().expect("sound").len() == count
    }

    fn shares(&self) -> (usize, usize) {
        (self.ours.load(Ordering::Relaxed), self.theirs.load(Ordering::Relaxed))
    }

    fn run_theirs(&self, yard: &Yard, strategy: &str) {
        let member = member(yard, "work", strategy);
        while self.goes_on() {
            if let Some(Ok(message)) = member.poll(Duration::from_millis(20)) {
                self.read(number(&message));
            }
            self.theirs.store(member.assignment().map_or(0, |list| list.count()), Ordering::Relaxed);
        }
    }

    fn run_ours(&self, yard: &Yard, assignor: Assignor) {
        let config = GroupConfig {
            assignors: vec![assignor],
            session_timeout: Duration::from_secs(6),
            heartbeat_interval: Duration::from_millis(200),
            consumer: ConsumerConfig { out_of_range: OutOfRange::Earliest, ..ConsumerConfig::default() },
            ..GroupConfig::new("workers")
        };
        run(async {
            let client = Client::new(ClientConfig::new([yard.broker.address.as_str()]));
            let mut member = GroupConsumer::new(client, config, ["work"]);
            while self.goes_on() {
                for record in member.poll(Duration::from_millis(50)).await.expect("polled") {
                    let text = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
                    self.read(text.parse().expect("a number"));
                }
                self.ours.store(member.positions().count(), Ordering::Relaxed);
            }
            member.leave().await.expect("left");
        });
    }
}

/// Whoever comes first leads, and shares with the other by what that one says of itself.
fn shares_with_a_member_of_ours(strategy: &str, assignor: Assignor, ours_leads: bool) {
    let yard = Yard::open(&[&format!("num.partitions={PARTITIONS}"), "group.initial.rebalance.delay.ms=0"]);
    fill(&yard, "work", 0, 40);
    let mixed = Mixed::default();
    let (alone, shared, all) = std::thread::scope(|scope| {
        let ours = || drop(scope.spawn(|| mixed.run_ours(&yard, assignor)));
        let theirs = || drop(scope.spawn(|| mixed.run_theirs(&yard, strategy)));
        let expected = if ours_leads { (4, 0) } else { (0, 4) };
        if ours_leads {
            ours()
        } else {
            theirs()
        }
        let alone = poll(PATIENCE, || mixed.shares() == expected && mixed.has_read(40));
        if ours_leads {
            theirs()
        } else {
            ours()
        }
        let shared = poll(PATIENCE, || mixed.shares() == (2, 2));
        fill(&yard, "work", 40, 80);
        let all = poll(PATIENCE, || mixed.has_read(80));
        mixed.stop.store(true, Ordering::Relaxed);
        (alone, shared, all)
    });
    assert!(
        alone && shared && all,
        "{strategy}, ours leads: {ours_leads}: {alone} {shared} {all}, {:?}",
        mixed.shares()
    );
}

#[test]
fn a_member_of_ours_and_one_of_librdkafka_share_by_range() {
    shares_with_a_member_of_ours("range", Assignor::Range, false);
    shares_with_a_member_of_ours("range", Assignor::Range, true);
}

#[test]
fn a_member_of_ours_and_one_of_librdkafka_share_cooperatively() {
    shares_with_a_member_of_ours("cooperative-sticky", Assignor::CooperativeSticky, false);
    shares_with_a_member_of_ours("cooperative-sticky", Assignor::CooperativeSticky, true);
}
