//! What this crate relies on, or defends against, in actix. An upgrade that changes one of these must be looked at.
#![cfg(feature = "host")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Context as TaskContext;
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, Supervised};

struct Explode;
struct Note;
struct Leave;
impl Message for Explode {
    type Result = ();
}
impl Message for Note {
    type Result = u64;
}
impl Message for Leave {
    type Result = ();
}

#[derive(Clone, Default)]
struct Seen {
    notes: Arc<AtomicU64>,
    starts: Arc<AtomicU64>,
    restarts: Arc<AtomicU64>,
    stopped_while_panicking: Arc<AtomicBool>,
}

struct Subject {
    seen: Seen,
    own: u64,
}

impl Subject {
    fn new(seen: &Seen) -> Self {
        Self { seen: seen.clone(), own: 0 }
    }
}

impl Actor for Subject {
    type Context = Context<Self>;
    fn started(&mut self, _: &mut Self::Context) {
        self.seen.starts.fetch_add(1, Ordering::Relaxed);
    }
    fn stopped(&mut self, _: &mut Self::Context) {
        self.seen.stopped_while_panicking.store(std::thread::panicking(), Ordering::Relaxed);
    }
}
impl Supervised for Subject {
    fn restarting(&mut self, _: &mut Self::Context) {
        self.seen.restarts.fetch_add(1, Ordering::Relaxed);
    }
}
impl Handler<Explode> for Subject {
    type Result = ();
    fn handle(&mut self, _: Explode, _: &mut Self::Context) {
        panic!("exploded");
    }
}
impl Handler<Note> for Subject {
    type Result = u64;
    fn handle(&mut self, _: Note, _: &mut Self::Context) -> u64 {
        self.own += 1;
        self.seen.notes.fetch_add(1, Ordering::Relaxed);
        self.own
    }
}
impl Handler<Leave> for Subject {
    type Result = ();
    fn handle(&mut self, _: Leave, context: &mut Self::Context) {
        context.stop();
    }
}

fn system<T>(test: impl Future<Output = T>) -> T {
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    actix_rt::System::with_tokio_rt(runtime).block_on(test)
}

async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_panic_in_a_handler_closes_the_address_without_a_restart() {
    system(async {
        let seen = Seen::default();
        let address = Subject::new(&seen).start();
        assert!(address.send(Explode).await.is_err());
        settle().await;
        assert!(!address.connected());
        assert!(address.send(Note).await.is_err());
        assert_eq!((seen.starts.load(Ordering::Relaxed), seen.restarts.load(Ordering::Relaxed)), (1, 0));
    });
}

#[test]
fn actix_s_own_supervisor_does_not_restart_after_a_panic() {
    system(async {
        let seen = Seen::default();
        let inner = seen.clone();
        let address = actix::Supervisor::start(move |_| Subject::new(&inner));
        assert!(address.send(Explode).await.is_err());
        settle().await;
        assert!(!address.connected());
        assert_eq!((seen.starts.load(Ordering::Relaxed), seen.restarts.load(Ordering::Relaxed)), (1, 0));
    });
}

#[test]
fn actix_s_own_supervisor_uses_the_same_struct_after_a_stop() {
    system(async {
        let seen = Seen::default();
        let inner = seen.clone();
        let address = actix::Supervisor::start(move |_| Subject::new(&inner));
        assert_eq!(address.send(Note).await, Ok(1));
        address.send(Leave).await.unwrap();
        settle().await;
        assert_eq!(address.send(Note).await, Ok(2), "the count of the former life");
        assert_eq!(seen.restarts.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn queued_messages_are_dropped_by_a_panic_and_their_senders_told() {
    system(async {
        let seen = Seen::default();
        let address = Subject::new(&seen).start();
        let (explode, note) = (address.send(Explode), address.send(Note));
        let (exploded, noted) = tokio::join!(explode, note);
        assert!(exploded.is_err() && noted.is_err());
        assert_eq!(seen.notes.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn stopped_runs_while_the_thread_unwinds_unless_the_future_is_caught() {
    system(async {
        let seen = Seen::default();
        let address = Subject::new(&seen).start();
        let _ = address.send(Explode).await;
        settle().await;
        assert!(seen.stopped_while_panicking.load(Ordering::Relaxed), "on half-changed state");

        let caught = Seen::default();
        let context = Context::new();
        let address = context.address();
        let mut future = context.into_future(Subject::new(&caught));
        address.do_send(Explode);
        let waker = std::task::Waker::noop();
        let outcome =
            catch_unwind(AssertUnwindSafe(|| Pin::new(&mut future).poll(&mut TaskContext::from_waker(waker))));
        assert!(outcome.is_err());
        drop(future);
        assert!(!caught.stopped_while_panicking.load(Ordering::Relaxed));
    });
}

#[test]
fn dropping_the_context_s_future_polls_the_actor_once_more() {
    system(async {
        let seen = Seen::default();
        let context = Context::new();
        let address = context.address();
        let future = context.into_future(Subject::new(&seen));
        drop(future);
        assert_eq!(seen.starts.load(Ordering::Relaxed), 1, "it was never polled before");
        assert!(!address.connected());
    });
}

#[test]
fn one_poll_drains_the_whole_mailbox() {
    system(async {
        let seen = Seen::default();
        let context = Context::new();
        let address = context.address();
        let mut future = context.into_future(Subject::new(&seen));
        (0..5000).for_each(|_| address.do_send(Note));
        let waker = std::task::Waker::noop();
        assert!(Pin::new(&mut future).poll(&mut TaskContext::from_waker(waker)).is_pending());
        assert_eq!(seen.notes.load(Ordering::Relaxed), 5000, "no budget: neighbours starve");
    });
}

#[test]
fn do_send_ignores_the_bound_and_drops_silently_on_a_dead_actor() {
    system(async {
        let seen = Seen::default();
        let address = Subject::new(&seen).start();
        assert!((0..100).any(|_| address.try_send(Note).is_err()), "try_send is bounded");
        (0..1000).for_each(|_| address.do_send(Note));
        settle().await;
        assert!(seen.notes.load(Ordering::Relaxed) >= 1000);
        let _ = address.send(Explode).await;
        settle().await;
        address.do_send(Note);
    });
}

#[test]
fn an_actor_without_addresses_lives_while_it_has_a_future() {
    struct Lonely(Arc<AtomicBool>);
    impl Actor for Lonely {
        type Context = Context<Self>;
        fn started(&mut self, context: &mut Self::Context) {
            context.run_later(Duration::from_secs(10), |actor, _| actor.0.store(true, Ordering::Relaxed));
        }
    }
    system(async {
        let fired = Arc::new(AtomicBool::new(false));
        drop(Lonely(fired.clone()).start());
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(fired.load(Ordering::Relaxed));
    });
}

#[test]
fn an_arbiter_survives_the_panic_of_what_runs_on_it() {
    actix_rt::System::new().block_on(async {
        let arbiter = actix_rt::Arbiter::new();
        arbiter.spawn_fn(|| panic!("on the arbiter"));
        arbiter.spawn(async { panic!("in a task on the arbiter") });
        let (sender, receiver) = tokio::sync::oneshot::channel();
        assert!(arbiter.spawn_fn(move || assert!(sender.send(7).is_ok())));
        assert_eq!(receiver.await, Ok(7));
        arbiter.stop();
    });
}

#[test]
fn a_panic_in_started_is_told_to_nobody_but_the_sender() {
    struct Stillborn;
    impl Actor for Stillborn {
        type Context = Context<Self>;
        fn started(&mut self, _: &mut Self::Context) {
            panic!("in started");
        }
    }
    impl Handler<Note> for Stillborn {
        type Result = u64;
        fn handle(&mut self, _: Note, _: &mut Self::Context) -> u64 {
            0
        }
    }
    system(async {
        let address = Stillborn.start();
        assert!(address.connected(), "it looks alive");
        assert!(address.send(Note).await.is_err());
        assert!(!address.connected());
    });
}
