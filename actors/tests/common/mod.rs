//! What the host's tests share: a counting actor and ways to wait for a condition.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use madang_actors::actor_ref::ActorRef;
use madang_actors::child_spec::{Backoff, ExitReason};
use madang_actors::host::{Behavior, Branch, Child, Observer, Placement, ShellContext, Tree, TreeOptions, clock};
use madang_actors::mailbox::Capacity;
use madang_actors::messages;
use madang_actors::reply::{Answer, Reply};

messages! {
    /// What the counter is asked.
    pub enum CounterMessage {
        control {
            /// Ends of its own accord.
            Leave,
            /// Panics.
            Explode,
        }
        data {
            /// Adds one and answers the sum.
            Add { reply: Reply<i64> },
            /// Keeps the reply until the next panic.
            Park { reply: Reply<i64> },
            /// Adds one.
            Tell,
            /// Sleeps on the thread until the other side lets go.
            Block { released: std::sync::mpsc::Receiver<()> },
            /// Panics in a spawned future.
            SpawnPanic,
        }
    }
}

/// Counts, from zero in every life.
pub struct Counter {
    pub name: &'static str,
    pub sum: i64,
    pub parked: Vec<Reply<i64>>,
    pub journal: Journal,
    pub panic_in_drop: bool,
    pub panic_in_stopping: bool,
}

/// What happened, in order.
#[derive(Clone, Default)]
pub struct Journal(pub Arc<Mutex<Vec<String>>>);

impl Journal {
    pub fn note(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Behavior for Counter {
    type Message = CounterMessage;

    fn handle(&mut self, message: CounterMessage, context: &mut ShellContext<CounterMessage>) {
        match message {
            CounterMessage::Leave => context.stop(),
            CounterMessage::Explode => panic!("exploded"),
            CounterMessage::Add { reply } => {
                self.sum += 1;
                reply.send(self.sum);
            }
            CounterMessage::Park { reply } => self.parked.push(reply),
            CounterMessage::Tell => self.sum += 1,
            CounterMessage::Block { released } => drop(released.recv()),
            CounterMessage::SpawnPanic => context.spawn(async { panic!("in a spawned future") }),
        }
    }

    fn stopping(&mut self, _: &mut ShellContext<CounterMessage>) {
        self.journal.note(format!("stop {}", self.name));
        assert!(!self.panic_in_stopping, "planted in stopping");
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        assert!(!self.panic_in_drop, "planted in drop");
    }
}

pub type CounterRef = ActorRef<CounterMessage>;

pub fn counter_ref(name: &str) -> CounterRef {
    ActorRef::new(name, Capacity::default())
}

pub fn quick() -> Backoff {
    Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(5), reset_after: Duration::from_secs(60) }
}

pub fn counter(actor: &CounterRef, name: &'static str, journal: &Journal, placement: impl Into<Placement>) -> Child {
    let journal = journal.clone();
    Child::actor(actor, placement, move |_| {
        journal.note(format!("start {name}"));
        let journal = journal.clone();
        Ok(Counter { name, sum: 0, parked: Vec::new(), journal, panic_in_drop: false, panic_in_stopping: false })
    })
    .backoff(quick())
}

/// Counts what supervision reports.
#[derive(Default)]
pub struct Counts {
    pub restarts: AtomicU64,
    pub quarantines: AtomicU64,
    pub escalations: AtomicU64,
    pub abandoned: AtomicU64,
}

impl Observer for Counts {
    fn restarted(&self, _: &str, _: &ExitReason) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }
    fn escalated(&self, _: &str, _: &str) {
        self.escalations.fetch_add(1, Ordering::Relaxed);
    }
    fn quarantined(&self, _: &str, _: &ExitReason) {
        self.quarantines.fetch_add(1, Ordering::Relaxed);
    }
    fn abandoned(&self, _: &str) {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `test` in an actix system whose clock jumps to the next timer whenever nothing runs.
pub fn paused<T>(test: impl Future<Output = T>) -> T {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    actix_rt::System::with_tokio_rt(runtime).block_on(test)
}

/// Runs `test` in an actix system with real time.
pub fn real<T>(test: impl Future<Output = T>) -> T {
    actix_rt::System::new().block_on(test)
}

/// Waits until `condition` holds, yielding to the actors meanwhile.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub async fn start(branch: Branch) -> Tree {
    let mut tree = Tree::start(
        branch,
        TreeOptions { on_escalation: Box::new(|reason| panic!("escalated: {reason}")), observer: Arc::new(()) },
    );
    tree.ready().await.unwrap();
    tree
}

pub async fn add(actor: &CounterRef) -> i64 {
    ask(actor, |reply| CounterMessage::Add { reply }).await
}

pub async fn ask(actor: &CounterRef, message: impl FnOnce(Reply<i64>) -> CounterMessage) -> i64 {
    let (reply, answer): (_, Answer<i64>) = Reply::new(|| -1);
    drop(actor.send(message(reply), clock::now() + Duration::from_secs(5)).await);
    answer.await
}
