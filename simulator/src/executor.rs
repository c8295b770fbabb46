//! The one thread: tasks, a virtual clock, timers. Which ready task runs next is drawn from the seed.
//! Invariant: the same seed runs the same tasks in the same order; time moves only when no task is ready.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_channel::oneshot;
use madang_actors::clock::Mono;
use madang_actors::prng::Prng;

/// What a planted panic carries, so that it is told from a real one.
#[derive(Debug)]
pub struct Planted;

/// How a task ended.
#[derive(Debug)]
pub enum Exit {
    /// By itself.
    Returned,
    /// By a panic: planted, or with the text of a real one.
    Panicked(Option<String>),
    /// Its scope was killed.
    Killed,
}

/// Tasks that die together: a process, the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope(pub u64);

struct Task {
    scope: Scope,
    /// None while it is polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    exit: Option<oneshot::Sender<Exit>>,
}

#[derive(Default)]
struct Ready {
    queue: Vec<u64>,
}

struct TaskWaker {
    id: u64,
    ready: Arc<Mutex<Ready>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.queue.contains(&self.id) {
            ready.queue.push(self.id);
        }
    }
}

struct Inner {
    now: Cell<Duration>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: Arc<Mutex<Ready>>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    next: Cell<u64>,
    rng: RefCell<Prng>,
    polls: Cell<u64>,
    /// Scopes that stand still, with those of their tasks that would run.
    frozen: RefCell<BTreeMap<Scope, Vec<u64>>>,
}

/// A handle to the executor. Clones share it.
#[derive(Clone)]
pub struct Executor {
    inner: Rc<Inner>,
}

impl Executor {
    /// An executor at time zero without tasks.
    #[must_use]
    pub fn new(rng: Prng) -> Self {
        Self {
            inner: Rc::new(Inner {
                now: Cell::new(Duration::ZERO),
                tasks: RefCell::new(BTreeMap::new()),
                ready: Arc::default(),
                timers: RefCell::new(BTreeMap::new()),
                next: Cell::new(1),
                rng: RefCell::new(rng),
                polls: Cell::new(0),
                frozen: RefCell::default(),
            }),
        }
    }

    /// The virtual clock.
    #[must_use]
    pub fn now(&self) -> Mono {
        Mono::new(self.inner.now.get())
    }

    /// How many times a task was polled.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.inner.polls.get()
    }

    /// Tasks that have not ended, of one scope.
    #[must_use]
    pub fn tasks_in(&self, scope: Scope) -> usize {
        self.inner.tasks.borrow().values().filter(|task| task.scope == scope).count()
    }

    fn next_id(&self) -> u64 {
        let id = self.inner.next.get();
        self.inner.next.set(id + 1);
        id
    }

    /// Starts a task; the answer tells how it ended.
    pub fn spawn(&self, scope: Scope, future: impl Future<Output = ()> + 'static) -> oneshot::Receiver<Exit> {
        let (exit, ended) = oneshot::channel();
        let id = self.next_id();
        let task = Task { scope, future: Some(Box::pin(future)), exit: Some(exit) };
        self.inner.tasks.borrow_mut().insert(id, task);
        self.inner.ready.lock().unwrap_or_else(PoisonError::into_inner).queue.push(id);
        ended
    }

    /// Starts a task whose end nobody waits for.
    pub fn detach(&self, scope: Scope, future: impl Future<Output = ()> + 'static) {
        drop(self.spawn(scope, future));
    }

    /// No task of the scope runs until it is thawed or killed.
    pub fn freeze(&self, scope: Scope) {
        self.inner.frozen.borrow_mut().entry(scope).or_default();
    }

    /// Whether the scope stands still.
    #[must_use]
    pub fn is_frozen(&self, scope: Scope) -> bool {
        self.inner.frozen.borrow().contains_key(&scope)
    }

    /// Its tasks run on.
    pub fn thaw(&self, scope: Scope) {
        let held = self.inner.frozen.borrow_mut().remove(&scope).unwrap_or_default();
        let mut ready = self.inner.ready.lock().unwrap_or_else(PoisonError::into_inner);
        for id in held {
            if !ready.queue.contains(&id) {
                ready.queue.push(id);
            }
        }
    }

    /// Drops all tasks of a scope at once, as a kill does. The task that runs now, if it is one of them, ends at its next await.
    pub fn kill(&self, scope: Scope) {
        self.inner.frozen.borrow_mut().remove(&scope);
        let gone: Vec<u64> =
            self.inner.tasks.borrow().iter().filter(|(_, task)| task.scope == scope).map(|(id, _)| *id).collect();
        for id in gone {
            let task = self.inner.tasks.borrow_mut().remove(&id);
            // Dropped outside of the borrow: what a future holds may wake others.
            if let Some(mut task) = task {
                drop(task.future.take());
                if let Some(exit) = task.exit.take() {
                    drop(exit.send(Exit::Killed));
                }
            }
        }
    }

    /// Resolves at `at`.
    #[must_use]
    pub fn sleep_until(&self, at: Mono) -> Sleep {
        Sleep { executor: self.clone(), at: at.since_start(), key: None }
    }

    /// Resolves after `wait`.
    #[must_use]
    pub fn sleep(&self, wait: Duration) -> Sleep {
        self.sleep_until(self.now() + wait)
    }

    /// Runs one task, or moves the clock to the next timer; false if there is neither.
    pub fn step(&self) -> bool {
        let picked = {
            let mut ready = self.inner.ready.lock().unwrap_or_else(PoisonError::into_inner);
            let count = ready.queue.len() as u64;
            if count == 0 {
                None
            } else {
                let at = self.inner.rng.borrow_mut().below(count) as usize;
                Some(ready.queue.swap_remove(at))
            }
        };
        match picked {
            Some(id) => {
                self.poll(id);
                true
            }
            None => self.advance(),
        }
    }

    fn advance(&self) -> bool {
        let Some((at, _)) = self.inner.timers.borrow().keys().next().copied() else { return false };
        self.inner.now.set(self.inner.now.get().max(at));
        loop {
            let due = {
                let mut timers = self.inner.timers.borrow_mut();
                match timers.first_entry() {
                    Some(first) if first.key().0 <= at => Some(first.remove()),
                    _ => None,
                }
            };
            match due {
                Some(waker) => waker.wake(),
                None => return true,
            }
        }
    }

    /// Keeps a task of a scope that stands still for later.
    fn hold(&self, id: u64) -> bool {
        let mut frozen = self.inner.frozen.borrow_mut();
        if frozen.is_empty() {
            return false;
        }
        let scope = self.inner.tasks.borrow().get(&id).map(|task| task.scope);
        match scope.and_then(|scope| frozen.get_mut(&scope)) {
            Some(held) => {
                held.push(id);
                true
            }
            None => false,
        }
    }

    fn poll(&self, id: u64) {
        if self.hold(id) {
            return;
        }
        let Some(mut future) = self.inner.tasks.borrow_mut().get_mut(&id).and_then(|task| task.future.take()) else {
            return;
        };
        self.inner.polls.set(self.inner.polls.get() + 1);
        let waker = Waker::from(Arc::new(TaskWaker { id, ready: Arc::clone(&self.inner.ready) }));
        let mut context = Context::from_waker(&waker);
        let outcome = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        let exit = match outcome {
            Ok(Poll::Pending) => {
                if let Some(task) = self.inner.tasks.borrow_mut().get_mut(&id) {
                    task.future = Some(future);
                    return;
                }
                Exit::Killed
            }
            Ok(Poll::Ready(())) => Exit::Returned,
            Err(payload) => Exit::Panicked(text(payload.as_ref())),
        };
        let task = self.inner.tasks.borrow_mut().remove(&id);
        // The future's own drop may panic no further: what it holds answers by default.
        drop(future);
        if let Some(sender) = task.and_then(|task| task.exit) {
            drop(sender.send(exit));
        }
    }
}

fn text(payload: &(dyn Any + Send)) -> Option<String> {
    if payload.is::<Planted>() {
        return None;
    }
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    Some(text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned()))
}

/// See [`Executor::sleep_until`].
pub struct Sleep {
    executor: Executor,
    at: Duration,
    key: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.executor.inner.now.get() >= self.at {
            return Poll::Ready(());
        }
        let key = match self.key {
            Some(key) => key,
            None => self.executor.next_id(),
        };
        self.key = Some(key);
        self.executor.inner.timers.borrow_mut().insert((self.at, key), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.executor.inner.timers.borrow_mut().remove(&(self.at, key));
        }
    }
}
