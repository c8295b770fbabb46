//! One leader and what followers ask of it: when a fetch is counted, when it is answered, and with how much.

use std::collections::BTreeMap;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use madang_actors::actor_ref::ActorRef;
use madang_actors::child_spec::Incarnation;
use madang_actors::clock::{Mono, Wall};
use madang_actors::host::clock;
use madang_actors::machine::Machine;
use madang_actors::mailbox::{ActorState, Bounds, Capacity};
use madang_actors::prng::Prng;
use madang_cluster::replica::links::{CoalescedFetch, FetchAnswers};
use madang_cluster::replica::replication::{FetchBody, FetchPosition, FollowerFetch, Known};
use madang_cluster::replica::serving::{LocalFuture, ServingEnv, answer};
use madang_cluster::replica::throttle::Throttle;
use madang_cluster::replica::{
    Append, Durability, Replica, ReplicaConfig, ReplicaEffect, ReplicaHandle, ReplicaInput, ReplicaMessage,
    RequiredAcks, SharedReplica,
};
use madang_cluster::request::RequestId;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{LeaderEpoch, NodeId, Offset, TopicPartition, Uuid};
use madang_storage::{Disk, FaultDisk, Log, LogConfig, OpenLog};

use crate::world::{config, paused, validated};

const EPOCH: LeaderEpoch = LeaderEpoch(5);
const WAIT: Duration = Duration::from_millis(500);

/// A leader that a test steps by hand.
struct Led {
    replica: Replica,
    handle: ReplicaHandle,
}

/// Leaders of a few partitions on one node.
struct Leaders(BTreeMap<TopicPartition, Led>);

fn partition(index: i32) -> TopicPartition {
    TopicPartition { topic_id: Uuid([1; 16]), partition: index }
}

fn empty() -> Log {
    let disk = FaultDisk::new();
    disk.create_dir(Path::new("/data")).unwrap();
    Log::open(Arc::new(disk), Path::new("/data/orders-0"), LogConfig::default(), &OpenLog::default()).unwrap().0
}

impl Led {
    fn step(&mut self, input: ReplicaInput) {
        let mut effects = Vec::new();
        self.replica.step(clock::now(), Wall(0), input, &mut Prng::new(0), &mut effects);
        for effect in effects {
            if let ReplicaEffect::Publish(snapshot) = effect {
                self.handle.shared().publish(snapshot);
            }
        }
    }

    /// The next life of the replica leads; its log is as empty as it was.
    fn rebuild(&mut self) {
        let before = self.handle.shared().last_published().unwrap();
        self.replica =
            Replica::new(before.incarnation + 1, empty(), config(Durability::PageCache), Some(&before)).unwrap();
        self.step(ReplicaInput::Lead(EPOCH));
    }

    fn append(&mut self, value: u8) {
        let deadline = clock::now() + WAIT;
        let (request, required_acks) = (RequestId(u64::from(value)), RequiredAcks::Leader);
        let append = Append { request, batch: validated(value), required_acks, deadline, expected_epoch: None };
        self.step(ReplicaInput::Append(append));
        self.step(ReplicaInput::EndBatch);
    }

    /// What reached its mailbox first of what is left there: the follower that was counted, and the offset that it wants.
    fn counted(&self) -> Option<(NodeId, Offset)> {
        match self.handle.actor().mailbox().pop()? {
            ReplicaMessage::Fetched(fetched) => Some((fetched.fetch.node_id, fetched.fetch.position.fetch_offset)),
            other => panic!("{other:?}"),
        }
    }
}

impl Leaders {
    fn new(partitions: i32, room: usize) -> Self {
        let led = |index| {
            let config = config(Durability::PageCache);
            let shared = SharedReplica::new(partition(index), "orders".into(), false, Some(EPOCH), config.clone());
            let bounds = Bounds { items: room, bytes: 1 << 20, waiters: 10 };
            let actor = ActorRef::new("orders", Capacity { control: bounds, data: bounds });
            actor.mailbox().open(Incarnation(1));
            let handle = ReplicaHandle::new(Arc::new(shared), actor);
            let mut led = Led { replica: Replica::new(1, empty(), config, None).unwrap(), handle };
            led.step(ReplicaInput::Lead(EPOCH));
            (partition(index), led)
        };
        Self((0..partitions).map(led).collect())
    }

    fn led(&mut self, index: i32) -> &mut Led {
        self.0.get_mut(&partition(index)).unwrap()
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings(self.0.iter().map(|(partition, led)| (*partition, led.handle.clone())).collect(), None)
    }
}

struct Surroundings(BTreeMap<TopicPartition, ReplicaHandle>, Option<(Arc<Throttle>, u64)>);

impl ServingEnv for Surroundings {
    fn now(&self) -> Mono {
        clock::now()
    }

    fn sleep_until(&self, at: Mono) -> LocalFuture<()> {
        Box::pin(tokio::time::sleep_until(clock::instant(at)))
    }

    fn replica(&self, partition: &TopicPartition) -> Option<ReplicaHandle> {
        self.0.get(partition).cloned()
    }

    fn throttle(&self, partition: &TopicPartition) -> Option<(Arc<Throttle>, u64)> {
        self.1.clone().filter(|_| partition.partition == 0)
    }

    fn read<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> LocalFuture<Option<T>> {
        Box::pin(async move { Some(work()) })
    }
}

/// Node 2's fetch of those partitions, of which it has so many records.
fn fetch(partitions: &[(i32, i64)], max_bytes: usize) -> CoalescedFetch {
    let one = |(index, offset): &(i32, i64)| {
        let position = FetchPosition {
            leader: NodeId(1),
            leader_epoch: EPOCH,
            incarnation: 1,
            fetch_offset: Offset(*offset),
            last_fetched_epoch: if *offset == 0 { LeaderEpoch::NONE } else { EPOCH },
            confirmed_offset: Offset(*offset),
            known: None,
            after_error: false,
        };
        (partition(*index), FollowerFetch { node_id: NodeId(2), broker_epoch: 12, position })
    };
    CoalescedFetch { partitions: partitions.iter().map(one).collect(), max_wait: WAIT, max_bytes }
}

/// Which partitions, in their order, and how many bytes of records of each; -1 for a refusal.
fn sizes(answers: &FetchAnswers) -> Vec<(i32, i64)> {
    let size = |body: &FetchBody| match body {
        FetchBody::Records { records, .. } => i64::try_from(records.len()).unwrap(),
        _ => -1,
    };
    answers.iter().map(|(partition, answer)| (partition.partition, size(&answer.body))).collect()
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_fetch_at_the_logs_end_is_counted_at_once_and_once_and_waits_for_news() {
    paused(async {
        let mut leaders = Leaders::new(1, 10);
        let env = leaders.surroundings();
        leaders.led(0).append(1);
        assert!(!answer(&env, fetch(&[(0, 0)], 1000)).await.is_empty());
        assert_eq!(leaders.led(0).counted(), Some((NodeId(2), Offset(0))));
        let mut parked = pin!(answer(&env, fetch(&[(0, 1)], 1000)));
        assert!(poll(parked.as_mut()).is_pending());
        assert_eq!(leaders.led(0).counted(), Some((NodeId(2), Offset(1))));
        leaders.led(0).step(ReplicaInput::Tick);
        assert!(poll(parked.as_mut()).is_pending());
        leaders.led(0).append(2);
        let Poll::Ready(answers) = poll(parked.as_mut()) else { panic!("there is a record") };
        assert!(sizes(&answers)[0].1 > 0);
        assert_eq!(leaders.led(0).counted(), None);
        assert!(leaders.led(0).handle.waiters().is_empty());
    });
}

#[test]
fn a_fetch_without_news_is_answered_when_its_wait_is_over() {
    paused(async {
        let mut leaders = Leaders::new(2, 10);
        let env = leaders.surroundings();
        let asked = || fetch(&[(0, 0), (1, 0)], 1000);
        assert_eq!(sizes(&answer(&env, asked()).await), [(0, 0), (1, 0)], "at first the high watermark is news");
        let begun = clock::now();
        assert_eq!(sizes(&answer(&env, asked()).await), [(0, 0), (1, 0)]);
        assert_eq!(clock::now().saturating_since(begun), WAIT);
        assert!((0..2).all(|index| leaders.led(index).handle.waiters().is_empty()));
        let _given_up = poll(pin!(answer(&env, asked())));
        assert!((0..2).all(|index| leaders.led(index).handle.waiters().is_empty()));
    });
}

/// What a follower says that it knows, and has confirmed, is not told again; it need not hear that there is nothing.
#[test]
fn a_follower_that_knows_everything_is_left_out_of_the_answer() {
    paused(async {
        let mut leaders = Leaders::new(3, 10);
        let env = leaders.surroundings();
        let asked = |high_watermark: i64, confirmed: i64| {
            let mut fetch = fetch(&[(0, 0), (1, 0), (2, 0)], 1 << 20);
            for (partition, one) in &mut fetch.partitions {
                if partition.partition > 0 {
                    let (high_watermark, log_start_offset) = (Offset(high_watermark), Offset(0));
                    one.position.known = Some(Known { high_watermark, log_start_offset });
                    one.position.confirmed_offset = Offset(confirmed);
                }
            }
            fetch
        };
        leaders.led(0).append(1);
        leaders.led(2).append(1);
        let answered = |answers: &FetchAnswers| answers.iter().map(|(id, _)| id.partition).collect::<Vec<_>>();
        assert_eq!(answered(&answer(&env, asked(0, 0)).await), [0, 2], "1 has nothing new");
        assert_eq!(answered(&answer(&env, asked(-2, 0)).await), [1, 0, 2], "another high watermark is news");
        assert_eq!(answered(&answer(&env, asked(0, -1)).await), [0, 2], "what is durable does not count");
        for index in 0..3 {
            let shared = Arc::clone(leaders.led(index).handle.shared());
            shared.set_config(ReplicaConfig { durability: Durability::Fsync, ..(*shared.config()).clone() });
        }
        let answers = answer(&env, asked(0, -1)).await;
        assert_eq!(answered(&answers), [1, 0, 2], "the next fetch has to tell the durable end");
        let begun = clock::now();
        let alone = CoalescedFetch { partitions: asked(0, 0).partitions.drain(1..2).collect(), ..asked(0, 0) };
        assert!(answer(&env, alone).await.is_empty());
        assert_eq!(clock::now().saturating_since(begun), WAIT);
    });
}

/// A fetch that says the same again tells the replica nothing; what it has not heard for a while it is told.
#[test]
fn a_fetch_that_says_the_same_again_is_not_counted_again_for_a_while() {
    paused(async {
        let mut leaders = Leaders::new(1, 10);
        let env = leaders.surroundings();
        drop(answer(&env, fetch(&[(0, 0)], 1000)).await);
        assert_eq!(leaders.led(0).counted(), Some((NodeId(2), Offset(0))));
        let again = || answer(&env, fetch(&[(0, 0)], 1000));
        drop(again().await);
        assert_eq!(leaders.led(0).counted(), None);
        drop(again().await);
        drop(again().await);
        assert_eq!(leaders.led(0).counted(), Some((NodeId(2), Offset(0))), "a second has passed");
        assert_eq!(leaders.led(0).counted(), None);
    });
}

#[test]
fn the_bytes_of_one_answer_are_bounded_and_who_got_none_asks_first() {
    paused(async {
        let mut leaders = Leaders::new(3, 10);
        let env = leaders.surroundings();
        for index in 0..3 {
            leaders.led(index).append(1);
            leaders.led(index).append(2);
        }
        let whole = sizes(&answer(&env, fetch(&[(0, 0)], 1 << 20)).await)[0].1;
        let limit = |bytes: i64| usize::try_from(bytes).unwrap();
        let all = [(2, 0), (0, 0), (1, 0)];
        let answers = answer(&env, fetch(&all, limit(whole + whole / 2))).await;
        assert_eq!(sizes(&answers), [(1, 0), (2, whole), (0, whole / 2)]);
        let answers = answer(&env, fetch(&all, 1)).await;
        assert_eq!(sizes(&answers), [(0, 0), (1, 0), (2, whole / 2)], "one batch goes whatever the limit");
    });
}

#[test]
fn a_follower_out_of_sync_is_fed_no_faster_than_the_throttle_allows_and_other_partitions_as_fast_as_ever() {
    paused(async {
        let mut leaders = Leaders::new(2, 1000);
        let mut env = leaders.surroundings();
        leaders.led(0).append(1);
        leaders.led(1).append(1);
        let whole = sizes(&answer(&env, fetch(&[(0, 0)], 1 << 20)).await)[0].1;
        let rate = u64::try_from(whole / 4).unwrap();
        env.1 = Some((Arc::default(), rate));
        assert_eq!(sizes(&answer(&env, fetch(&[(0, 0)], 1 << 20)).await), [(0, whole)], "a second's worth is saved");
        let mut empty = 0;
        while sizes(&answer(&env, fetch(&[(0, 0)], 1 << 20)).await) == [(0, 0)] {
            empty += 1;
            assert_eq!(sizes(&answer(&env, fetch(&[(1, 0)], 1 << 20)).await), [(1, whole)]);
            assert!(empty < 100);
        }
        assert!((6..=8).contains(&empty), "three seconds' worth is owed: {empty} waits of half a second");
    });
}

#[test]
fn a_fetch_that_counts_waits_for_room_in_the_mailbox_while_it_is_parked() {
    paused(async {
        let mut leaders = Leaders::new(1, 1);
        let env = leaders.surroundings();
        drop(answer(&env, fetch(&[(0, 0)], 1000)).await);
        let mut other = fetch(&[(0, 0)], 1000);
        other.partitions[0].1.position.confirmed_offset = Offset(-1);
        let mut parked = pin!(answer(&env, other));
        assert!(poll(parked.as_mut()).is_pending());
        assert_eq!(leaders.led(0).handle.actor().depth().waiting, 1);
        assert!(leaders.led(0).counted().is_some());
        assert!(poll(parked.as_mut()).is_pending());
        assert!(leaders.led(0).counted().is_some(), "the second one too");
    });
}

#[test]
fn a_leader_that_is_rebuilt_counts_the_fetches_that_are_parked() {
    paused(async {
        let mut leaders = Leaders::new(1, 10);
        let env = leaders.surroundings();
        drop(answer(&env, fetch(&[(0, 0)], 1000)).await);
        let mut parked = pin!(answer(&env, fetch(&[(0, 0)], 1000)));
        assert!(poll(parked.as_mut()).is_pending());
        while leaders.led(0).counted().is_some() {}
        leaders.led(0).rebuild();
        assert!(poll(parked.as_mut()).is_pending(), "it has no news");
        assert_eq!(leaders.led(0).counted(), Some((NodeId(2), Offset(0))));
        assert_eq!(leaders.led(0).counted(), None);
    });
}

#[test]
fn a_leader_that_does_not_run_has_its_followers_ask_again() {
    paused(async {
        let mut leaders = Leaders::new(1, 10);
        let env = leaders.surroundings();
        leaders.led(0).append(1);
        leaders.led(0).handle.actor().mailbox().close(Incarnation(1), ActorState::Restarting);
        let answers = answer(&env, fetch(&[(0, 0)], 1000)).await;
        assert_eq!(answers[0].1.body, FetchBody::Error(ErrorCode::NotLeaderOrFollower));
        leaders.led(0).handle.actor().mailbox().open(Incarnation(2));
        assert!(sizes(&answer(&env, fetch(&[(0, 0)], 1000)).await)[0].1 > 0);
    });
}

#[test]
fn a_refusal_is_told_at_once_and_holds_nobody_up() {
    paused(async {
        let mut leaders = Leaders::new(2, 10);
        let env = leaders.surroundings();
        drop(answer(&env, fetch(&[(0, 0), (1, 0)], 1000)).await);
        let mut parked = pin!(answer(&env, fetch(&[(0, 0), (1, 0)], 1000)));
        assert!(poll(parked.as_mut()).is_pending());
        leaders.led(1).handle.shared().set_offline();
        let Poll::Ready(answers) = poll(parked.as_mut()) else { panic!("the follower of 1 must hear of it") };
        assert_eq!(sizes(&answers), [(0, 0), (1, -1)]);
        assert_eq!(answers[1].1.body, FetchBody::Error(ErrorCode::KafkaStorageError));
        let answers = answer(&env, fetch(&[(7, 0)], 1000)).await;
        assert_eq!(answers[0].1.body, FetchBody::Error(ErrorCode::UnknownTopicOrPartition));
    });
}
