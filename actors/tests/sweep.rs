//! One planted fault at every message kind: the actor dies, its replies answer, a new life serves.
#![cfg(all(feature = "host", feature = "failpoints"))]

mod common;

use std::time::Duration;

use common::*;
use madang_actors::child_spec::Strategy;
use madang_actors::failpoint::{FailAction, plant};
use madang_actors::host::{Branch, Placement};
use madang_actors::mailbox::ActorState;
use madang_actors::message::ActorMessage;
use madang_actors::reply::Reply;

fn message_of(kind: &str, reply: Reply<i64>) -> CounterMessage {
    match kind {
        "Leave" => CounterMessage::Leave,
        "Explode" => CounterMessage::Explode,
        "Add" => CounterMessage::Add { reply },
        "Park" => CounterMessage::Park { reply },
        "Tell" => CounterMessage::Tell,
        "Block" => CounterMessage::Block { released: std::sync::mpsc::channel().1 },
        "SpawnPanic" => CounterMessage::SpawnPanic,
        other => panic!("a kind without a sample: {other}"),
    }
}

#[test]
fn a_panic_or_stop_at_every_message_kind_costs_one_life() {
    for action in [FailAction::Panic, FailAction::Stop] {
        for kind in CounterMessage::KINDS {
            paused(async {
                let (journal, a) = (Journal::default(), counter_ref("swept"));
                let tree =
                    start(Branch::new("node", Strategy::OneForOne).child(counter(&a, "a", &journal, Placement::Here)))
                        .await;
                assert_eq!(add(&a).await, 1);
                let (point, before) = (plant("node/swept", kind, 1, action), a.incarnation());
                let (reply, answer) = Reply::new(|| -1);
                a.try_send(message_of(kind, reply)).unwrap();
                assert_eq!(answer.await, -1, "{kind}");
                until("a new life", || a.incarnation() > before && a.state() == ActorState::Running).await;
                assert!(point.struck(), "{kind}");
                assert_eq!(add(&a).await, 1, "{kind}: fresh state");
                tree.shutdown().await;
            });
        }
    }
}

#[test]
fn a_dropped_message_answers_and_a_delayed_actor_goes_on() {
    paused(async {
        let (journal, a) = (Journal::default(), counter_ref("dropping"));
        let tree =
            start(Branch::new("node", Strategy::OneForOne).child(counter(&a, "a", &journal, Placement::Here))).await;
        let lost = plant("node/dropping", "Add", 2, FailAction::DropMessage);
        assert_eq!((add(&a).await, add(&a).await, add(&a).await), (1, -1, 2));
        drop(lost);
        let delay = plant("*dropping", "Tell", 1, FailAction::Delay(Duration::from_secs(30)));
        let before = tokio::time::Instant::now();
        a.try_send(CounterMessage::Tell).unwrap();
        assert_eq!(add(&a).await, 4);
        assert!(before.elapsed() >= Duration::from_secs(30) && delay.struck());
        tree.shutdown().await;
    });
}

#[test]
fn a_hang_blocks_the_thread_until_it_is_lifted() {
    real(async {
        let (journal, a) = (Journal::default(), counter_ref("hanging"));
        let arbiter = madang_actors::host::Arbiter::start("hangs", madang_actors::host::Role::Network).unwrap();
        let tree = start(Branch::new("node", Strategy::OneForOne).child(counter(&a, "a", &journal, &arbiter))).await;
        let hang = plant("*hanging", "Tell", 1, FailAction::Hang);
        a.try_send(CounterMessage::Tell).unwrap();
        until("it hangs", || hang.struck()).await;
        let (reply, answer) = Reply::new(|| -1);
        a.try_send(CounterMessage::Add { reply }).unwrap();
        assert_eq!(a.depth().items, 1);
        drop(hang);
        assert_eq!(answer.await, 2);
        tree.shutdown().await;
    });
}
