//! The host under real actors: panics, restarts, order, admission, shutdown.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::*;
use madang_actors::actor_ref::ActorRef;
use madang_actors::child_spec::{ExitReason, Incarnation, Intensity, Restart, Strategy};
use madang_actors::host::{Arbiter, Branch, Child, Placement, Role, Tree, TreeOptions, clock};
use madang_actors::mailbox::{ActorState, Bounds, Capacity, SendError};
use madang_actors::reply::Reply;
use madang_actors::supervisor::{ChildState, Policy};

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

        let (parked, parked_answer) = Reply::new(|| -1);
        let (queued, queued_answer) = Reply::new(|| -1);
        a.try_send(CounterMessage::Park { reply: parked }).unwrap();
        until("parked", || a.depth().items == 0).await;
        a.try_send(CounterMessage::Add { reply: queued }).unwrap();
        a.try_send(CounterMessage::Explode).unwrap(); // Control: overtakes the queued one.
        assert_eq!((parked_answer.await, queued_answer.await), (-1, -1));

        until("a runs again", || a.state() == ActorState::Running).await;
        assert!(a.incarnation() > before);
        assert_eq!((add(&a).await, add(&b).await), (1, 2), "fresh state; the sibling kept its own");
        let snapshot = tree.snapshot().await;
        assert_eq!(snapshot.children[0].restarts, 1);
        match &snapshot.children[0].last_reason {
            Some(ExitReason::Panic { message, site }) => {
                assert_eq!(message, "exploded");
                assert!(site.contains("tests/common.rs:"), "{site}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(tree.shutdown().await, ExitReason::Shutdown);
        assert_eq!(a.state(), ActorState::Stopped);
    });
}
