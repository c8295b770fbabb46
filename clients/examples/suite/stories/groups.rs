//! Groups of several members.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use madang_client::{
    Assignor, Client, CommittedOffsets, ConsumerConfig, GroupConfig, GroupConsumer, OutOfRange, RebalanceListener,
    TopicPartition,
};

use super::{PATIENCE, client, fill, fresh, numbers, topic};

const PARTITIONS: i32 = 4;

/// What a member has by what it was told, and how often something was taken from it.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) has: Arc<Mutex<BTreeSet<TopicPartition>>>,
    pub(super) revoked: Arc<Mutex<usize>>,
    pub(super) lost: Arc<Mutex<usize>>,
}

impl Told {
    fn goes(&self, partitions: &[TopicPartition]) {
        let mut has = self.has.lock().expect("sound");
        for partition in partitions {
            assert!(has.remove(partition), "{partition} goes and has not come");
        }
    }

    pub(super) fn has(&self) -> usize {
        self.has.lock().expect("sound").len()
    }
}

impl RebalanceListener for Told {
    fn assigned(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            assert!(self.has.lock().expect("sound").insert(partition.clone()), "{partition} comes twice");
        }
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) -> CommittedOffsets {
        self.goes(partitions);
        *self.revoked.lock().expect("sound") += partitions.len();
        CommittedOffsets::new()
    }

    fn lost(&mut self, partitions: &[TopicPartition]) {
        self.goes(partitions);
        *self.lost.lock().expect("sound") += partitions.len();
    }
}

pub(super) fn config(group: &str, assignors: &[Assignor]) -> GroupConfig {
    GroupConfig {
        assignors: assignors.to_vec(),
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_millis(100),
        consumer: ConsumerConfig { out_of_range: OutOfRange::Earliest, ..ConsumerConfig::default() },
        ..GroupConfig::new(group)
    }
}

fn member(client: &Client, topic: &str, group: &str, assignors: &[Assignor]) -> (GroupConsumer, Told) {
    let told = Told::default();
    (GroupConsumer::new(client.clone(), config(group, assignors), [topic]).with_listener(told.clone()), told)
}

/// Polls until `is_done`, which sees what has come so far to all who share `seen`.
async fn drive(member: &mut GroupConsumer, seen: &RefCell<BTreeSet<i32>>, is_done: &impl Fn(&BTreeSet<i32>) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_done(&seen.borrow()) {
        assert!(Instant::now() < deadline, "not in time; {} records came", seen.borrow().len());
        let records = member.poll(Duration::from_millis(100)).await.expect("polled");
        seen.borrow_mut().extend(numbers(&records));
    }
}

/// Each at its own pace, as a rebalance waits until both have joined.
async fn together(
    first: &mut GroupConsumer,
    second: &mut GroupConsumer,
    is_done: impl Fn(&BTreeSet<i32>) -> bool,
) -> BTreeSet<i32> {
    let seen = RefCell::default();
    tokio::join!(drive(first, &seen, &is_done), drive(second, &seen, &is_done));
    seen.into_inner()
}

async fn alone(member: &mut GroupConsumer, is_done: impl Fn(&BTreeSet<i32>) -> bool) -> BTreeSet<i32> {
    let seen = RefCell::default();
    drive(member, &seen, &is_done).await;
    seen.into_inner()
}

pub(super) async fn every_assignor(address: String) {
    for assignor in [Assignor::Range, Assignor::RoundRobin, Assignor::Sticky, Assignor::CooperativeSticky] {
        let client = client(&address);
        let (topic, group) = (topic(&client, "shared", PARTITIONS).await, fresh("group"));
        fill(&client, &topic, PARTITIONS, 0..40).await;
        let (mut first, told_first) = member(&client, &topic, &group, &[assignor]);
        assert_eq!(alone(&mut first, |seen| seen.len() == 40).await, (0..40).collect());
        first.commit().await.expect("committed");

        let (mut second, told_second) = member(&client, &topic, &group, &[assignor]);
        *told_first.revoked.lock().expect("sound") = 0;
        let is_shared = |_: &BTreeSet<i32>| (told_first.has(), told_second.has()) == (2, 2);
        assert_eq!(together(&mut first, &mut second, is_shared).await, BTreeSet::new(), "what is committed is read");
        let taken = *told_first.revoked.lock().expect("sound");
        let expected = if assignor == Assignor::CooperativeSticky { 2 } else { 4 };
        assert_eq!(taken, expected, "{}: a cooperative member gives up only what goes", assignor.name());
        fill(&client, &topic, PARTITIONS, 40..80).await;
        assert_eq!(together(&mut first, &mut second, |seen| seen.len() == 40).await, (40..80).collect());
        first.commit().await.expect("committed");
        second.commit().await.expect("committed");

        second.leave().await.expect("left");
        assert_eq!(told_second.has(), 0);
        alone(&mut first, |_| told_first.has() == 4).await;
        fill(&client, &topic, PARTITIONS, 80..120).await;
        assert_eq!(alone(&mut first, |seen| seen.len() == 40).await, (80..120).collect(), "{}", assignor.name());
        assert_eq!(*told_first.lost.lock().expect("sound"), 0);
        first.leave().await.expect("left");
    }
}

pub(super) async fn two_assignors_offered(address: String) {
    let client = client(&address);
    let (topic, group) = (topic(&client, "offered", PARTITIONS).await, fresh("group"));
    fill(&client, &topic, PARTITIONS, 0..8).await;
    let (mut old, told_old) = member(&client, &topic, &group, &[Assignor::Range]);
    alone(&mut old, |seen| seen.len() == 8).await;
    let both = [Assignor::CooperativeSticky, Assignor::Range];
    let (mut new, told_new) = member(&client, &topic, &group, &both);
    together(&mut old, &mut new, |_| (told_old.has(), told_new.has()) == (2, 2)).await;
    old.leave().await.expect("left");
    alone(&mut new, |_| told_new.has() == 4).await;
    new.leave().await.expect("left");
}
