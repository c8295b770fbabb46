//! The host under real actors: panics, restarts, order, admission, shutdown.
#![cfg(feature = "host")]

mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::*;
use madang_actors::actor_ref::ActorRef;
use madang_actors::child_spec::{ExitReason, Incarnation, Intensity, Restart, Strategy};
use madang_actors::host::{
    Arbiter, Behavior, Branch, Child, ChildError, Placement, Role, ShellContext, Tree, TreeOptions, clock,
};
use madang_actors::mailbox::{ActorState, Bounds, Capacity, SendError};
use madang_actors::messages;
use madang_actors::reply::Reply;
use madang_actors::supervisor::ChildState;

const HERE: Placement = Placement::Here;

#[test]
fn a_panic_answers_all_replies_and_the_factory_builds_a_new_life() {
    paused(async {
        let (journal, a, b) = (Journal::default(), counter_ref("a"), counter_ref("b"));
        let branch = Branch::new("node", Strategy::OneForOne)
            .child(counter(&a, "a", &journal, HERE))
            .child(counter(&b, "b", &journal, HERE));
        let tree = start(branch).await;
        assert_eq!((add(&a).await, add(&a).await, add(&b).await), (1, 2, 1));
        let before = a.incarnation();
        let stale = a.pinned(before);

        let (parked, parked_answer) = Reply::new(|| -1);
        let (queued, queued_answer) = Reply::new(|| -1);
        a.try_send(CounterMessage::Park { reply: parked }).unwrap();
        until("parked", || a.depth().items == 0).await;
        a.try_send(CounterMessage::Add { reply: queued }).unwrap();
        a.try_send(CounterMessage::Explode).unwrap(); // Control: overtakes the queued one.
        assert_eq!((parked_answer.await, queued_answer.await), (-1, -1));

        until("a runs again", || a.state() == ActorState::Running).await;
        assert!(a.incarnation() > before);
        assert!(matches!(stale.try_send(CounterMessage::Tell), Err(SendError::Stale(_))));
        assert_eq!((add(&a).await, add(&b).await), (1, 2), "fresh state; the sibling kept its own");
        let snapshot = tree.snapshot().await;
        assert_eq!(snapshot.children[0].restarts, 1);
        match &snapshot.children[0].last_reason {
            Some(ExitReason::Panic { message, site }) => {
                assert_eq!(message, "exploded");
                assert!(site.contains("tests/common/mod.rs:"), "{site}");
            }
            other => panic!("{other:?}"),
        }
        assert!(snapshot.to_string().contains("restarts 1 (last: panic at "), "{snapshot}");
        assert_eq!(tree.shutdown().await, ExitReason::Shutdown);
        assert_eq!(a.state(), ActorState::Stopped);
    });
}

#[test]
fn a_second_panic_in_drop_or_stopping_does_not_abort() {
    paused(async {
        let (a, journal) = (counter_ref("a"), Journal::default());
        let child = Child::actor(&a, HERE, move |_| {
            let journal = journal.clone();
            Ok(Counter { name: "a", sum: 0, parked: vec![], journal, panic_in_drop: true, panic_in_stopping: true })
        });
        let tree = start(Branch::new("node", Strategy::OneForOne).child(child.backoff(quick()))).await;
        for message in [CounterMessage::Explode, CounterMessage::Leave, CounterMessage::SpawnPanic] {
            let before = a.incarnation();
            a.try_send(message).unwrap();
            until("it runs again", || a.incarnation() > before && a.state() == ActorState::Running).await;
        }
        assert_eq!(tree.snapshot().await.children[0].restarts, 3);
        assert_eq!(tree.shutdown().await, ExitReason::Shutdown);
    });
}

async fn group(strategy: Strategy) -> (Tree, Journal, [CounterRef; 3]) {
    let (journal, actors) = (Journal::default(), ["a", "b", "c"].map(counter_ref));
    let mut branch = Branch::new("node", strategy);
    for (actor, name) in actors.iter().zip(["a", "b", "c"]) {
        branch = branch.child(counter(actor, name, &journal, HERE));
    }
    let tree = start(branch).await;
    assert_eq!(journal.take(), ["start a", "start b", "start c"]);
    (tree, journal, actors)
}

async fn explode(actor: &CounterRef) {
    let before = actor.incarnation();
    actor.try_send(CounterMessage::Explode).expect("it runs");
    until("it runs again", || actor.incarnation() > before && actor.state() == ActorState::Running).await;
}

#[test]
fn one_for_all_stops_in_reverse_and_starts_in_order() {
    paused(async {
        let (tree, journal, [_, b, c]) = group(Strategy::OneForAll).await;
        explode(&b).await;
        until("c runs", || c.state() == ActorState::Running).await;
        assert_eq!(journal.take(), ["stop c", "stop a", "start a", "start b", "start c"]);
        tree.shutdown().await;
        assert_eq!(journal.take(), ["stop c", "stop b", "stop a"]);
    });
}

#[test]
fn rest_for_one_leaves_the_earlier_ones_alone() {
    paused(async {
        let (tree, journal, [a, b, c]) = group(Strategy::RestForOne).await;
        assert_eq!(add(&a).await, 1);
        explode(&b).await;
        until("c runs", || c.state() == ActorState::Running).await;
        assert_eq!(journal.take(), ["stop c", "start b", "start c"]);
        assert_eq!(add(&a).await, 2);
        tree.shutdown().await;
    });
}

#[test]
fn a_crash_loop_escalates_through_its_parent_to_the_root() {
    paused(async {
        let counts = Arc::new(Counts::default());
        let told = Rc::new(RefCell::new(None));
        let failing = |_: &mut ShellContext<CounterMessage>| -> Result<Counter, Box<dyn std::error::Error>> {
            Err("no such directory".into())
        };
        let few = Intensity { max: 2, window: Duration::from_secs(1000) };
        let inner = Branch::new("inner", Strategy::RestForOne).intensity(few).child(Child::actor(
            &counter_ref("a"),
            HERE,
            failing,
        ));
        let hear = Rc::clone(&told);
        let mut tree = Tree::start(
            Branch::new("node", Strategy::RestForOne).intensity(few).child(inner),
            TreeOptions {
                on_escalation: Box::new(move |reason| *hear.borrow_mut() = Some(reason)),
                observer: counts.clone(),
            },
        );
        let reason = tree.ready().await.unwrap_err();
        assert!(reason.to_string().contains("no such directory"), "{reason}");
        until("the callback", || told.borrow().is_some()).await;
        assert_eq!(told.borrow_mut().take(), Some(reason));
        assert_eq!(counts.escalations.load(Ordering::Relaxed), 4, "three times the inner one, then the root");
        assert_eq!(counts.restarts.load(Ordering::Relaxed), 2 * 3 + 2);
    });
}

#[test]
fn dynamic_children_come_and_go_and_a_repeated_panic_sets_one_aside() {
    paused(async {
        let (journal, a, b) = (Journal::default(), counter_ref("a"), counter_ref("b"));
        let replicas = Branch::dynamic("replicas");
        let handle = replicas.handle();
        let tree = start(Branch::new("node", Strategy::OneForOne).child(replicas)).await;
        handle.add(counter(&a, "a", &journal, HERE)).await.unwrap();
        handle.add(counter(&b, "b", &journal, HERE)).await.unwrap();
        assert_eq!(handle.add(counter(&b, "b", &journal, HERE)).await, Err(ChildError::Refused));
        explode(&a).await;
        explode(&a).await;
        a.try_send(CounterMessage::Explode).unwrap();
        until("set aside", || a.state() == ActorState::Quarantined).await;
        assert_eq!(add(&a).await, -1);
        assert_eq!(add(&b).await, 1);
        let snapshot = tree.snapshot().await;
        assert_eq!(snapshot.children[0].children[0].state, ChildState::Quarantined);
        handle.release("a");
        until("released", || a.state() == ActorState::Running).await;
        handle.remove("a").await.unwrap();
        assert_eq!(a.state(), ActorState::Stopped);
        assert_eq!(tree.snapshot().await.children[0].children.len(), 1);
        tree.shutdown().await;
        assert_eq!(handle.add(counter(&a, "a", &journal, HERE)).await, Err(ChildError::NoSupervisor));
    });
}

#[test]
fn a_restarted_dynamic_supervisor_begins_with_what_it_is_told() {
    paused(async {
        let (journal, a, b) = (Journal::default(), counter_ref("a"), counter_ref("b"));
        let (again, told) = (a.clone(), journal.clone());
        let none = Intensity { max: 0, window: Duration::from_secs(1) };
        let replicas =
            Branch::dynamic("replicas").intensity(none).repopulate(move || vec![counter(&again, "a", &told, HERE)]);
        let handle = replicas.handle();
        let tree = start(Branch::new("node", Strategy::OneForOne).child(replicas)).await;
        until("a runs", || a.state() == ActorState::Running).await;
        handle.add(counter(&b, "b", &journal, HERE)).await.unwrap();
        let before = a.incarnation();
        b.try_send(CounterMessage::Explode).unwrap(); // One failure too many.
        until("a runs again", || a.incarnation() > before && a.state() == ActorState::Running).await;
        assert_eq!(b.state(), ActorState::Stopped);
        tree.shutdown().await;
    });
}

messages! {
    enum TickingMessage {
        control {}
        data { Look }
    }
}

#[test]
fn a_deadline_that_passes_gives_a_definite_answer() {
    real(async {
        let bounds = Bounds { items: 1, bytes: 10_000, waiters: 10 };
        let a: CounterRef = ActorRef::new("a", Capacity { control: bounds, data: bounds });
        let arbiter = Arbiter::start("blocked", Role::Network).unwrap();
        let journal = Journal::default();
        let tree = start(Branch::new("node", Strategy::OneForOne).child(counter(&a, "a", &journal, &arbiter))).await;
        let (release, released) = std::sync::mpsc::channel();
        a.try_send(CounterMessage::Block { released }).unwrap();
        until("the thread is blocked", || a.depth().items == 0).await;
        a.try_send(CounterMessage::Tell).unwrap();
        let outcome = a.send(CounterMessage::Tell, clock::now() + Duration::from_millis(20)).await;
        assert!(matches!(outcome, Err(SendError::Deadline(CounterMessage::Tell))), "{outcome:?}");
        assert_eq!(a.depth().items, 1, "nothing was queued");
        let waiting = a.clone();
        let patient = actix_rt::spawn(async move { add(&waiting).await });
        until("it waits for room", || a.depth().waiting == 1).await;
        drop(release);
        assert_eq!(patient.await.unwrap(), 2, "admitted as soon as there was room");
        assert_eq!(tree.shutdown().await, ExitReason::Shutdown);
    });
}

#[test]
fn a_flooded_actor_yields_to_its_neighbour_after_every_turn() {
    paused(async {
        let roomy = Bounds { items: 100_000, bytes: 1 << 30, waiters: 1 };
        let (journal, flooded) = (Journal::default(), ActorRef::new("a", Capacity { control: roomy, data: roomy }));
        let neighbour = counter_ref("b");
        let branch = Branch::new("node", Strategy::OneForOne)
            .child(counter(&flooded, "a", &journal, HERE))
            .child(counter(&neighbour, "b", &journal, HERE));
        let tree = start(branch).await;
        (0..10_000).for_each(|_| flooded.try_send(CounterMessage::Tell).unwrap());
        let before = flooded.depth().items;
        // As a task of its own: the system's main future is polled only once in 61 tasks.
        let asker = actix_rt::spawn(async move {
            assert_eq!(add(&neighbour).await, 1);
            before - flooded.depth().items
        });
        let handled = asker.await.unwrap();
        assert!(handled <= 4 * 64, "the neighbour waited for {handled} messages");
        tree.shutdown().await;
    });
}

struct Ticking {
    ticks: Arc<AtomicU64>,
    next: madang_actors::clock::Mono,
}

impl Behavior for Ticking {
    type Message = TickingMessage;
    fn handle(&mut self, _: TickingMessage, _: &mut ShellContext<TickingMessage>) {}
    fn deadline(&self) -> Option<madang_actors::clock::Mono> {
        Some(self.next)
    }
    fn on_deadline(&mut self, context: &mut ShellContext<TickingMessage>) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        self.next = context.now() + Duration::from_secs(10);
    }
    fn stopping(&mut self, context: &mut ShellContext<TickingMessage>) {
        let ticks = Arc::clone(&self.ticks);
        context.spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            ticks.store(1000, Ordering::Relaxed);
        });
    }
}

#[test]
fn one_timer_follows_the_deadline_and_an_orderly_stop_waits_for_its_flush() {
    paused(async {
        let (actor, ticks) = (ActorRef::new("a", Capacity::default()), Arc::new(AtomicU64::new(0)));
        let shared = Arc::clone(&ticks);
        let child = Child::actor(&actor, HERE, move |context| {
            Ok(Ticking { ticks: shared.clone(), next: context.now() + Duration::from_secs(10) })
        });
        let tree = start(Branch::new("node", Strategy::OneForOne).child(child)).await;
        tokio::time::sleep(Duration::from_secs(105)).await;
        assert_eq!(ticks.load(Ordering::Relaxed), 10);
        assert_eq!(tree.shutdown().await, ExitReason::Shutdown);
        assert_eq!(ticks.load(Ordering::Relaxed), 1000);
    });
}

#[test]
fn a_task_that_will_not_end_is_abandoned_and_dropped() {
    paused(async {
        struct OnDrop(Arc<AtomicBool>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let (dropped, polite) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (sets, ends) = (dropped.clone(), polite.clone());
        let stubborn = Child::task("stubborn", HERE, move |_| {
            let held = OnDrop(sets.clone());
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        });
        let obedient = Child::task("obedient", HERE, move |context| {
            let ends = ends.clone();
            async move {
                context.stop.await;
                ends.store(true, Ordering::Relaxed);
            }
        });
        let branch = Branch::new("listeners", Strategy::OneForOne)
            .child(stubborn.shutdown_deadline(Duration::from_secs(2)).restart(Restart::Temporary))
            .child(obedient);
        let tree = start(branch).await;
        let before = clock::now();
        assert_eq!(tree.shutdown().await, ExitReason::Shutdown);
        assert_eq!((clock::now() - before).as_secs(), 2);
        until("it is dropped", || dropped.load(Ordering::Relaxed)).await;
        assert!(polite.load(Ordering::Relaxed));
    });
}

#[test]
fn children_on_a_dead_arbiter_are_reported_as_killed() {
    real(async {
        let (journal, a) = (Journal::default(), counter_ref("a"));
        let arbiter = Arbiter::start("short", Role::Network).unwrap();
        let few = Intensity { max: 1, window: Duration::from_secs(60) };
        let branch =
            Branch::new("node", Strategy::OneForOne).intensity(few).child(counter(&a, "a", &journal, &arbiter));
        let options = TreeOptions { on_escalation: Box::new(drop), observer: Arc::new(()) };
        let mut tree = Tree::start(branch, options);
        tree.ready().await.unwrap();
        arbiter.stop();
        let reason = tree.ended().await;
        assert!(reason.to_string().ends_with("killed"), "{reason}");
        assert!(a.incarnation() >= Incarnation(1));
    });
}

#[test]
fn the_declared_tree_is_drawn() {
    let (journal, a) = (Journal::default(), counter_ref("metadata_follower"));
    let node = Branch::new("node", Strategy::RestForOne)
        .child(Branch::new("metadata", Strategy::OneForAll).child(counter(&a, "a", &journal, HERE)))
        .child(Branch::dynamic("peers"))
        .child(Child::task("accept", HERE, |_| async {}).restart(Restart::Temporary));
    assert_eq!(
        node.describe(),
        "node  rest_for_one\n\
         ├ metadata  one_for_all\n\
         │ └ metadata_follower  actor permanent\n\
         ├ peers  one_for_one dynamic\n\
         └ accept  task temporary\n"
    );
}
