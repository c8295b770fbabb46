//! The mailbox's bounds, order, admission and closing, driven without any runtime.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;
use crate::messages;
use crate::reply::Reply;

messages! {
    enum Sample {
        control { Fence(u32) }
        data { Append { number: u32, size: usize } => *size, Ask { reply: Reply<i32> } }
    }
}

fn append(number: u32) -> Sample {
    Sample::Append { number, size: 0 }
}

fn number(message: Option<Sample>) -> Option<u32> {
    match message? {
        Sample::Append { number, .. } => Some(number),
        Sample::Fence(number) => Some(1000 + number),
        Sample::Ask { .. } => None,
    }
}

fn mailbox(items: usize, bytes: usize) -> Arc<Mailbox<Sample>> {
    let bounds = Bounds { items, bytes, waiters: 3 };
    let mailbox = Arc::new(Mailbox::new(Capacity { control: bounds, data: bounds }));
    mailbox.open(Incarnation(1));
    mailbox
}

#[derive(Default)]
struct Counter(AtomicUsize);
impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn control_goes_before_data_and_each_lane_keeps_its_order() {
    let mailbox = mailbox(10, 10_000);
    for message in [append(1), append(2), Sample::Fence(1), append(3), Sample::Fence(2)] {
        mailbox.try_push(message).unwrap();
    }
    let order: Vec<_> = std::iter::from_fn(|| number(mailbox.pop())).collect();
    assert_eq!(order, [1001, 1002, 1, 2, 3]);
    assert_eq!(mailbox.depth(), Depth::default());
}

#[test]
fn items_and_bytes_are_bounded_and_a_full_data_lane_leaves_control_open() {
    let mailbox = mailbox(3, 10_000);
    (0..3).for_each(|n| mailbox.try_push(append(n)).unwrap());
    assert!(matches!(mailbox.try_push(append(3)), Err(SendError::Full(_))));
    mailbox.try_push(Sample::Fence(1)).unwrap();
    let mailbox = self::mailbox(100, 1000);
    mailbox.try_push(Sample::Append { number: 0, size: 600 }).unwrap();
    assert!(matches!(mailbox.try_push(Sample::Append { number: 1, size: 600 }), Err(SendError::Full(_))));
    mailbox.try_push(Sample::Append { number: 2, size: 100 }).unwrap();
}

#[test]
fn a_message_heavier_than_the_lane_is_admitted_alone() {
    let mailbox = mailbox(100, 1000);
    mailbox.try_push(Sample::Append { number: 0, size: 5000 }).unwrap();
    assert!(matches!(mailbox.try_push(append(1)), Err(SendError::Full(_))));
    assert_eq!(number(mailbox.pop()), Some(0));
    mailbox.try_push(append(1)).unwrap();
}

#[test]
fn waiting_senders_are_let_in_by_order_of_arrival() {
    let mailbox = mailbox(1, 10_000);
    mailbox.try_push(append(0)).unwrap();
    let (mut first, mut second) = (mailbox.admit(append(1)), mailbox.admit(append(2)));
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    assert!(matches!(mailbox.try_push(append(9)), Err(SendError::Full(_))), "nobody overtakes a waiter");
    assert_eq!(number(mailbox.pop()), Some(0));
    assert_eq!(poll(&mut first), Poll::Ready(Ok(())));
    assert!(poll(&mut second).is_pending());
    assert_eq!(number(mailbox.pop()), Some(1));
    assert_eq!(poll(&mut second), Poll::Ready(Ok(())));
    assert_eq!(number(mailbox.pop()), Some(2));
}

#[test]
fn a_light_newcomer_does_not_overtake_a_heavy_waiter() {
    let mailbox = mailbox(100, 1000);
    mailbox.try_push(Sample::Append { number: 0, size: 600 }).unwrap();
    let mut heavy = mailbox.admit(Sample::Append { number: 1, size: 600 });
    assert!(poll(&mut heavy).is_pending());
    assert!(matches!(mailbox.try_push(append(2)), Err(SendError::Full(_))), "it would fit, but it came later");
    let mut light = mailbox.admit(append(2));
    assert!(poll(&mut light).is_pending());
    assert!(heavy.withdraw().is_some());
    assert_eq!(poll(&mut light), Poll::Ready(Ok(())), "the way is free again");
}

#[test]
fn a_sender_that_waited_through_a_restart_reaches_the_next_life() {
    let mailbox = mailbox(1, 10_000);
    mailbox.try_push(append(0)).unwrap();
    let mut waiting = mailbox.admit(append(1));
    assert!(poll(&mut waiting).is_pending());
    mailbox.close(Incarnation(1), ActorState::Restarting);
    mailbox.open(Incarnation(2));
    assert_eq!(poll(&mut waiting), Poll::Ready(Ok(())));
    assert_eq!(number(mailbox.pop()), Some(1));
}

impl PartialEq for Sample {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}
impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

#[test]
fn a_withdrawn_or_dropped_admission_leaves_no_trace() {
    let mailbox = mailbox(1, 10_000);
    mailbox.try_push(append(0)).unwrap();
    let (mut first, mut second) = (mailbox.admit(append(1)), mailbox.admit(append(2)));
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    assert_eq!(mailbox.depth().waiting, 2);
    assert_eq!(number(first.withdraw()), Some(1));
    drop(second);
    assert_eq!(mailbox.depth(), Depth { items: 1, bytes: size_of::<Sample>(), waiting: 0 });
}

#[test]
fn the_list_of_waiters_is_bounded() {
    let mailbox = mailbox(1, 10_000);
    mailbox.try_push(append(0)).unwrap();
    let mut waiting: Vec<_> = (1..4).map(|n| mailbox.admit(append(n))).collect();
    assert!(waiting.iter_mut().all(|admission| poll(admission).is_pending()));
    assert!(matches!(poll(&mut mailbox.admit(append(9))), Poll::Ready(Err(SendError::Full(_)))));
}

#[test]
fn closing_drops_what_is_queued_and_gives_waiting_messages_back() {
    let mailbox = mailbox(1, 10_000);
    let (reply, mut answer) = Reply::new(|| -1);
    mailbox.try_push(Sample::Ask { reply }).unwrap();
    let mut waiting = mailbox.admit(append(1));
    assert!(poll(&mut waiting).is_pending() && poll(&mut answer).is_pending());
    mailbox.close(Incarnation(1), ActorState::Restarting);
    assert_eq!(poll(&mut answer), Poll::Ready(-1));
    match poll(&mut waiting) {
        Poll::Ready(Err(SendError::NotRunning { message, state: ActorState::Restarting })) => {
            assert_eq!(number(Some(message)), Some(1));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(mailbox.try_push(append(2)), Err(SendError::NotRunning { .. })));
    assert_eq!(mailbox.depth(), Depth::default());
}

#[test]
fn only_the_open_incarnation_is_reached_and_an_old_one_cannot_close_it() {
    let mailbox = mailbox(4, 10_000);
    mailbox.close(Incarnation(1), ActorState::Restarting);
    mailbox.open(Incarnation(2));
    mailbox.close(Incarnation(1), ActorState::Stopped);
    assert_eq!(mailbox.state(), ActorState::Running);
    assert!(matches!(mailbox.try_push_to(Incarnation(1), append(0)), Err(SendError::Stale(_))));
    mailbox.try_push_to(Incarnation(2), append(0)).unwrap();
}

#[test]
fn wakes_coalesce() {
    let mailbox = mailbox(100, 100_000);
    let counter = Arc::new(Counter::default());
    let waker = Waker::from(Arc::clone(&counter));
    assert!(mailbox.sleep(&waker));
    (0..10).for_each(|n| mailbox.try_push(append(n)).unwrap());
    assert_eq!(counter.0.load(Ordering::Relaxed), 1);
    assert!(!mailbox.sleep(&waker), "something is queued");
    while mailbox.pop().is_some() {}
    assert!(mailbox.sleep(&waker));
}
