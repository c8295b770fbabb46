//! The fetcher as an actor: followers that want, a leader that answers or does not, mailboxes that are full or closed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use madang_actors::actor_ref::ActorRef;
use madang_actors::child_spec::{Incarnation, Strategy};
use madang_actors::clock::Mono;
use madang_actors::host::{Branch, Child, Placement, Tree, TreeOptions, clock};
use madang_actors::mailbox::{ActorState, Bounds, Capacity};
use madang_actors::reply::Reply;
use madang_cluster::controller::{AlterPartition, ReportLoss};
use madang_cluster::replica::ReplicaMessage;
use madang_cluster::replica::fetcher::FetcherConfig;
use madang_cluster::replica::fetching::FetcherRef;
use madang_cluster::replica::fetching::actor::FetcherActor;
use madang_cluster::replica::links::{CoalescedFetch, FetchAnswers, LinkFuture, Links, Registration};
use madang_cluster::replica::replication::{Confirmed, FetchAnswer, FetchBody, FetchPosition, ProposalOutcome};
use madang_cluster::replica::throttle::Throttle;
use madang_protocol::types::{LeaderEpoch, NodeId, Offset, TopicPartition, Uuid};

use crate::world::{idle, paused, until};

const LEADER: NodeId = NodeId(1);
const THROTTLED: i32 = 99;

/// Links whose other side is the test.
#[derive(Default)]
struct Hand {
    fetches: Mutex<VecDeque<(CoalescedFetch, Reply<Option<FetchAnswers>>)>>,
    words: Mutex<VecDeque<(Vec<i64>, Reply<()>)>>,
    /// Of the first partition, at 100 bytes a second.
    throttle: Arc<Throttle>,
}

impl Links for Hand {
    fn registration(&self) -> Registration {
        Registration { node_id: NodeId(2), broker_epoch: 12 }
    }

    fn fetch(&self, _: NodeId, fetch: CoalescedFetch, _: Mono) -> LinkFuture<Option<FetchAnswers>> {
        let (reply, answer) = Reply::new(|| None);
        self.fetches.lock().unwrap().push_back((fetch, reply));
        Box::pin(answer)
    }

    fn confirm(&self, _: NodeId, confirmed: Vec<(TopicPartition, Confirmed)>, _: Mono) -> LinkFuture<()> {
        let (reply, answer) = Reply::new(|| ());
        let ends = confirmed.iter().map(|(_, confirmed)| confirmed.confirmed_offset.0).collect();
        self.words.lock().unwrap().push_back((ends, reply));
        Box::pin(answer)
    }

    fn throttle(&self, of: &TopicPartition) -> Option<(Arc<Throttle>, u64)> {
        (of.partition == THROTTLED).then(|| (Arc::clone(&self.throttle), 100))
    }

    fn propose(&self, _: AlterPartition, _: Mono) -> LinkFuture<ProposalOutcome> {
        Box::pin(async { ProposalOutcome::Unknown })
    }

    fn report_loss(&self, _: ReportLoss, _: Mono) -> LinkFuture<()> {
        Box::pin(async {})
    }
}

struct World {
    links: Arc<Hand>,
    fetcher: FetcherRef,
    tree: Tree,
}

fn partition(index: i32) -> TopicPartition {
    TopicPartition { topic_id: Uuid([1; 16]), partition: index }
}

fn position(offset: i64) -> FetchPosition {
    FetchPosition {
        leader: LEADER,
        leader_epoch: LeaderEpoch(5),
        incarnation: 1,
        fetch_offset: Offset(offset),
        last_fetched_epoch: LeaderEpoch::NONE,
        confirmed_offset: Offset::ZERO,
        known: None,
        after_error: false,
    }
}

fn answer(offset: i64) -> FetchAnswer {
    let (high_watermark, log_start_offset) = (Offset::ZERO, Offset::ZERO);
    let body = FetchBody::Records { records: Bytes::from_static(&[1; 100]), high_watermark, log_start_offset };
    FetchAnswer { leader_epoch: LeaderEpoch(5), incarnation: 1, fetch_offset: Offset(offset), body }
}

fn confirmed(offset: i64) -> Confirmed {
    Confirmed {
        node_id: NodeId(2),
        broker_epoch: 12,
        incarnation: 1,
        leader_epoch: LeaderEpoch(5),
        confirmed_offset: Offset(offset),
    }
}

/// A follower's mailbox with room for one message, which the test reads.
fn follower() -> ActorRef<ReplicaMessage> {
    let bounds = Bounds { items: 1, bytes: 1 << 20, waiters: 1 };
    let actor = ActorRef::new("orders", Capacity { control: bounds, data: bounds });
    actor.mailbox().open(Incarnation(1));
    actor
}

impl World {
    async fn new() -> Self {
        let (links, fetcher) = (Arc::<Hand>::default(), FetcherRef::new(LEADER));
        let (to, of) = (Arc::clone(&links), fetcher.clone());
        let child = Child::actor(fetcher.actor(), Placement::Here, move |_| {
            Ok(FetcherActor::new(of.clone(), Arc::clone(&to) as Arc<dyn Links>, FetcherConfig::default()))
        });
        let on_escalation = Box::new(|reason| panic!("escalated: {reason}"));
        let root = Branch::new("peers", Strategy::OneForOne).child(child);
        let mut tree = Tree::start(root, TreeOptions { on_escalation, observer: Arc::new(()) });
        tree.ready().await.unwrap();
        Self { links, fetcher, tree }
    }

    fn want(&self, index: i32, offset: i64, follower: &ActorRef<ReplicaMessage>) {
        self.fetcher.want(partition(index), position(offset), follower.pinned(Incarnation(1)));
    }

    /// The next request: what it is about, and where its answer goes.
    async fn asked(&self) -> (Vec<(i32, i64)>, Reply<Option<FetchAnswers>>) {
        until("a fetch", || !self.links.fetches.lock().unwrap().is_empty()).await;
        let (fetch, reply) = self.links.fetches.lock().unwrap().pop_front().unwrap();
        let asked = fetch.partitions.iter().map(|(at, fetch)| (at.partition, fetch.position.fetch_offset.0));
        (asked.collect(), reply)
    }

    async fn told(&self) -> (Vec<i64>, Reply<()>) {
        until("a word", || !self.links.words.lock().unwrap().is_empty()).await;
        self.links.words.lock().unwrap().pop_front().unwrap()
    }
}

#[test]
fn what_many_followers_want_goes_in_one_request_and_each_gets_its_answer() {
    paused(async {
        let world = World::new().await;
        let followers = [follower(), follower()];
        for (index, follower) in (0..).zip(&followers) {
            world.want(index, 7, follower);
        }
        let (asked, reply) = world.asked().await;
        assert_eq!(asked, [(0, 7), (1, 7)]);
        reply.send(Some(vec![(partition(1), answer(7)), (partition(0), answer(7))]));
        until("both have it", || followers.iter().all(|follower| follower.depth().items == 1)).await;
        assert_eq!(world.fetcher.wanted(), 0);
        assert!(world.links.fetches.lock().unwrap().is_empty(), "what comes next they say themselves");
        world.tree.shutdown().await;
    });
}

#[test]
fn a_follower_that_has_no_room_is_asked_for_again_after_a_while() {
    paused(async {
        let (world, follower) = (World::new().await, follower());
        follower.try_send(ReplicaMessage::Answered { answer: answer(0) }).unwrap();
        world.want(0, 7, &follower);
        let (_, reply) = world.asked().await;
        let begun = clock::now();
        reply.send(Some(vec![(partition(0), answer(7))]));
        let (asked, reply) = world.asked().await;
        assert_eq!(asked, [(0, 7)]);
        assert!(clock::now().saturating_since(begun) >= FetcherConfig::default().back_off);
        assert!(follower.mailbox().pop().is_some());
        reply.send(Some(vec![(partition(0), answer(7))]));
        until("it has it", || world.fetcher.wanted() == 0 && follower.depth().items == 1).await;
        world.tree.shutdown().await;
    });
}

#[test]
fn a_life_that_is_over_is_forgotten_and_one_that_is_about_to_begin_is_not() {
    paused(async {
        let (world, over, coming) = (World::new().await, follower(), follower());
        world.want(0, 7, &over);
        world.fetcher.want(partition(1), position(7), coming.pinned(Incarnation(2)));
        let (asked, reply) = world.asked().await;
        assert_eq!(asked.len(), 2);
        over.mailbox().close(Incarnation(1), ActorState::Restarting);
        drop(reply);
        let (asked, reply) = world.asked().await;
        assert_eq!(asked, [(1, 7)]);
        coming.mailbox().close(Incarnation(1), ActorState::Restarting);
        reply.send(Some(vec![(partition(1), answer(7))]));
        let (asked, reply) = world.asked().await;
        assert_eq!(asked, [(1, 7)], "its mailbox is not open yet");
        coming.mailbox().open(Incarnation(2));
        reply.send(Some(vec![(partition(1), answer(7))]));
        until("it has it", || coming.depth().items == 1).await;
        assert_eq!(world.fetcher.wanted(), 0);
        world.tree.shutdown().await;
    });
}

#[test]
fn a_leader_that_does_not_answer_is_asked_again() {
    paused(async {
        let (world, follower) = (World::new().await, follower());
        world.want(0, 7, &follower);
        let (_, never) = world.asked().await;
        let begun = clock::now();
        let (asked, _reply) = world.asked().await;
        assert_eq!(asked, [(0, 7)]);
        assert!(clock::now().saturating_since(begun) >= FetcherConfig::default().timeout);
        assert!(never.is_abandoned(), "nobody waits for the first answer");
        world.tree.shutdown().await;
    });
}

#[test]
fn durable_ends_that_move_while_the_leader_is_told_go_together_the_newest_of_each() {
    paused(async {
        let world = World::new().await;
        world.fetcher.confirm(partition(0), confirmed(1));
        let (ends, reply) = world.told().await;
        assert_eq!(ends, [1]);
        for (index, offset) in [(0, 2), (1, 8), (0, 3)] {
            world.fetcher.confirm(partition(index), confirmed(offset));
        }
        idle().await;
        assert!(world.links.words.lock().unwrap().is_empty(), "one word at a time");
        reply.send(());
        let (ends, never) = world.told().await;
        assert_eq!(ends, [3, 8]);
        world.fetcher.confirm(partition(0), confirmed(4));
        assert_eq!(world.told().await.0, [4], "one that is lost holds up no other");
        assert!(never.is_abandoned());
        world.tree.shutdown().await;
    });
}

#[test]
fn a_follower_takes_no_more_than_its_throttle_allows_and_holds_no_other_up() {
    paused(async {
        let world = World::new().await;
        let (slow, fast) = (follower(), follower());
        let began = clock::now();
        for round in 0..4 {
            // Each answer is as much as a second allows, and the first second's worth is there from the start.
            world.want(THROTTLED, round, &slow);
            let (asked, reply) = world.asked().await;
            assert_eq!(asked, [(THROTTLED, round)]);
            let (waited, seconds) =
                (clock::now().saturating_since(began), u64::try_from(round).unwrap().saturating_sub(1));
            let expected = Duration::from_secs(seconds)..Duration::from_secs(seconds) + Duration::from_millis(100);
            assert!(expected.contains(&waited), "{round}: {waited:?}");
            reply.send(Some(vec![(partition(THROTTLED), answer(round))]));
            until("it has it", || slow.depth().items == 1).await;
            assert!(slow.mailbox().pop().is_some());
        }
        // What nobody throttles is asked for at once, though the other waits.
        world.want(THROTTLED, 4, &slow);
        world.want(1, 0, &fast);
        let (asked, _reply) = world.asked().await;
        assert_eq!(asked, [(1, 0)]);
        world.tree.shutdown().await;
    });
}
