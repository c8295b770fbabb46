//! Every order of threads around what they share: published snapshots, waiters, the mailbox's wake. `.ci/run loom` runs it; it is empty
//! without `cfg(loom)`, under which the rest of the crate's tests do not run.
#![cfg(loom)]
#![allow(missing_docs)]

use std::sync::Arc;
use std::task::Poll;

use loom::future::block_on;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use madang_actors::child_spec::Incarnation;
use madang_actors::mailbox::{ActorState, Bounds, Capacity, Mailbox};
use madang_actors::messages;
use madang_actors::published::Published;
use madang_actors::reply::{self, Reply};
use madang_actors::waiters::{Waiter, Waiters};

/// A snapshot whose two halves say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Snapshot {
    life: u64,
    end: u64,
    end_again: u64,
}

fn snapshot(life: u64, end: u64) -> Arc<Snapshot> {
    Arc::new(Snapshot { life, end, end_again: end })
}

#[test]
fn a_reader_sees_whole_snapshots_that_never_go_back() {
    loom::model(|| {
        let published = Arc::new(Published::new(4));
        let writer = {
            let published = Arc::clone(&published);
            thread::spawn(move || (1..=3).for_each(|end| published.publish(snapshot(1, end))))
        };
        let mut before = 0;
        for _ in 0..3 {
            if let Some(seen) = published.readable() {
                assert_eq!(seen.end, seen.end_again);
                assert!(seen.end >= before, "{} after {before}", seen.end);
                before = seen.end;
            } else {
                assert_eq!(before, 0, "what could be read once can be read again");
            }
        }
        writer.join().unwrap();
        assert_eq!(published.readable(), Some(snapshot(1, 3)));
    });
}

#[test]
fn what_is_answered_has_been_published() {
    loom::model(|| {
        let (published, answered) = (Arc::new(Published::new(4)), Arc::new(AtomicUsize::new(0)));
        let writer = {
            let (published, answered) = (Arc::clone(&published), Arc::clone(&answered));
            thread::spawn(move || {
                for end in 1..=2 {
                    published.publish(snapshot(1, end));
                    answered.store(end as usize, Ordering::Release);
                }
            })
        };
        let answer = answered.load(Ordering::Acquire) as u64;
        let seen = published.readable().map_or(0, |seen| seen.end);
        assert!(seen >= answer, "the answer to {answer} came before its snapshot, {seen}");
        writer.join().unwrap();
    });
}

/// A life ends, another one publishes: who asks after the end sees the new one or nothing.
#[test]
fn a_new_life_is_never_read_as_the_old_one() {
    loom::model(|| {
        let (published, ended) = (Arc::new(Published::new(4)), Arc::new(AtomicBool::new(false)));
        published.publish(snapshot(1, 9));
        let writer = {
            let (published, ended) = (Arc::clone(&published), Arc::clone(&ended));
            thread::spawn(move || {
                published.suspend();
                ended.store(true, Ordering::Release);
                published.publish(snapshot(2, 5));
            })
        };
        let after_the_end = ended.load(Ordering::Acquire);
        if let Some(seen) = published.readable() {
            assert!(seen.life == 2 || !after_the_end, "{seen:?} after its life");
        }
        writer.join().unwrap();
    });
}

/// Setting a partition aside holds at once for whoever asks later, though its own thread goes on publishing.
#[test]
fn nothing_is_read_after_offline_is_set() {
    loom::model(|| {
        let published = Arc::new(Published::new(4));
        published.publish(snapshot(1, 1));
        let writer = {
            let published = Arc::clone(&published);
            thread::spawn(move || published.publish(snapshot(1, 2)))
        };
        published.set_offline();
        assert_eq!(published.readable(), None);
        writer.join().unwrap();
        assert_eq!(published.readable(), None);
    });
}

/// Registers, looks, sleeps, until the snapshot has reached `end` or there will be none. Loom fails a model in which a thread sleeps for ever.
fn wait_for(published: &Published<Snapshot>, end: u64) {
    let mut waiter = Waiter::new();
    waiter.register(published.waiters(), 7).unwrap();
    while !published.is_offline() && published.readable().is_none_or(|seen| seen.end < end) {
        assert_eq!(block_on(waiter.woken()), [7]);
    }
}

#[test]
fn who_registers_looks_and_sleeps_misses_no_snapshot() {
    loom::model(|| {
        let published = Arc::new(Published::new(4));
        let writer = {
            let published = Arc::clone(&published);
            thread::spawn(move || (1..=2).for_each(|end| published.publish(snapshot(1, end))))
        };
        wait_for(&published, 2);
        writer.join().unwrap();
        assert!(published.waiters().is_empty(), "a waiter that is gone is in no list");
    });
}

#[test]
fn who_waits_is_told_that_nothing_will_come() {
    loom::model(|| {
        let published = Arc::new(Published::new(4));
        let stopper = {
            let published = Arc::clone(&published);
            thread::spawn(move || published.set_offline())
        };
        wait_for(&published, 1);
        stopper.join().unwrap();
    });
}

#[test]
fn a_waiter_that_leaves_while_it_is_woken_is_in_no_list() {
    loom::model(|| {
        let lists = Arc::new([Waiters::new(2), Waiters::new(2)]);
        let waker = {
            let lists = Arc::clone(&lists);
            thread::spawn(move || lists.iter().for_each(Waiters::wake_all))
        };
        let mut kept = Waiter::new();
        kept.register(&lists[1], 1).unwrap();
        let mut leaves = Waiter::new();
        lists.iter().for_each(|list| leaves.register(list, 0).unwrap());
        drop(leaves);
        waker.join().unwrap();
        assert_eq!((lists[0].len(), lists[1].len()), (0, 1));
    });
}

/// Answers that come from two threads while the asker polls: it is woken when the last is there.
#[test]
fn who_waits_for_many_answers_misses_none() {
    loom::model(|| {
        let (replies, answers): (Vec<Reply<u64>>, Vec<_>) = (0..3).map(|_| Reply::new(|| 100)).unzip();
        let mut replies = replies.into_iter();
        let mut take = || replies.next().unwrap();
        let (first, second, dropped) = (take(), take(), take());
        let senders = [
            thread::spawn(move || {
                first.send(1);
                thread::yield_now();
                drop(dropped);
            }),
            thread::spawn(move || second.send(2)),
        ];
        assert_eq!(block_on(reply::all(answers)), [1, 2, 100]);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

messages! {
    enum Message {
        control { Stop }
        data { Count(u64) }
    }
}

fn mailbox(items: usize) -> Arc<Mailbox<Message>> {
    let bounds = Bounds { items, bytes: 1 << 20, waiters: 4 };
    let mailbox = Arc::new(Mailbox::new(Capacity { control: bounds, data: bounds }));
    mailbox.open(Incarnation(1));
    mailbox
}

/// Takes messages as the shell does: all there are, then sleep unless there are more.
fn drain(mailbox: &Mailbox<Message>, wanted: u64) -> u64 {
    let (mut sum, mut taken) = (0, 0);
    block_on(std::future::poll_fn(|context| {
        loop {
            while let Some(message) = mailbox.pop() {
                taken += 1;
                sum += if let Message::Count(count) = message { count } else { 100 };
            }
            if taken == wanted {
                return Poll::Ready(sum);
            }
            if mailbox.sleep(context.waker()) {
                return Poll::Pending;
            }
        }
    }))
}

#[test]
fn a_push_wakes_the_actor_that_goes_to_sleep() {
    loom::model(|| {
        let mailbox = mailbox(4);
        let senders = [Message::Count(1), Message::Stop].map(|message| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.try_push(message).unwrap())
        });
        assert_eq!(drain(&mailbox, 2), 101);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn a_sender_that_waits_for_room_is_let_in_and_the_actor_woken() {
    loom::model(|| {
        let mailbox = mailbox(1);
        mailbox.try_push(Message::Count(1)).unwrap();
        let sender = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || block_on(mailbox.admit(Message::Count(2))).unwrap())
        };
        assert_eq!(drain(&mailbox, 2), 3);
        sender.join().unwrap();
    });
}

/// A message is taken by the actor or comes back to its sender, whatever the end of a life meets.
#[test]
fn a_message_that_meets_the_end_of_a_life_is_not_lost() {
    loom::model(|| {
        let mailbox = mailbox(1);
        mailbox.try_push(Message::Count(1)).unwrap();
        let sender = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || block_on(mailbox.admit(Message::Count(2))).is_ok())
        };
        let mut taken = u64::from(mailbox.pop().is_some());
        let dropped = mailbox.depth().items as u64;
        mailbox.close(Incarnation(1), ActorState::Stopped);
        let admitted = sender.join().unwrap();
        taken += u64::from(mailbox.pop().is_some());
        assert!(admitted || taken + dropped == 1, "a refused message was queued");
        assert_eq!(mailbox.depth().items, 0);
    });
}
