//! The one actix actor: it owns an actor's mailbox and lends the behavior one batch at a time.
//! Invariant: once the behavior has panicked it is never entered again, only dropped.
//!
//! actix carries no message here. An actix mailbox is drained to its end in one poll, so a shell that re-sent itself a
//! wake-up would starve its neighbours, and each such message costs two allocations. The mailbox wakes the actor's task
//! instead: one wake in flight, no allocation, and a turn that is cut short goes to the back of the arbiter's queue.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use actix::AsyncContext;
use futures_channel::oneshot;
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;

use super::clock;
use crate::actor_ref::{ActorRef, IncarnationRef};
use crate::child_spec::{ExitReason, Incarnation};
use crate::clock::{Mono, Wall};
use crate::failpoint::{self, FailAction};
use crate::mailbox::ActorState;
use crate::message::ActorMessage;

/// The most messages of one turn.
pub const TURN_MESSAGES: usize = 64;
/// The longest turn; the message being handled is finished.
pub const TURN_TIME: Duration = Duration::from_millis(1);

/// What a factory yields: the behavior, or why it cannot start.
pub type StartResult<B> = Result<B, Box<dyn std::error::Error>>;

/// What an actor does. Need not be `Send`: it is built on its arbiter and never leaves it.
pub trait Behavior: 'static {
    /// What it is sent.
    type Message: ActorMessage;

    /// Takes one message. Must not block.
    fn handle(&mut self, message: Self::Message, context: &mut ShellContext<Self::Message>);

    /// Ends a batch of at most [`TURN_MESSAGES`]: the place for the one write and the one publication.
    fn end_batch(&mut self, _context: &mut ShellContext<Self::Message>) {}

    /// When it next wants [`Behavior::on_deadline`]. Asked after every batch.
    fn deadline(&self) -> Option<Mono> {
        None
    }

    /// Its deadline has come.
    fn on_deadline(&mut self, _context: &mut ShellContext<Self::Message>) {}

    /// An orderly end: queued messages have been dropped, none will come. What it spawns here is run to its end, within
    /// the supervisor's shutdown deadline; what it spawned before is dropped. Not called after a panic.
    fn stopping(&mut self, _context: &mut ShellContext<Self::Message>) {}
}

/// What a behavior may ask of its shell.
pub struct ShellContext<M: ActorMessage> {
    path: Arc<str>,
    incarnation: Incarnation,
    me: ActorRef<M>,
    spawned: Vec<LocalBoxFuture<'static, ()>>,
    stop: bool,
}

impl<M: ActorMessage> ShellContext<M> {
    pub(crate) const fn new(path: Arc<str>, incarnation: Incarnation, me: ActorRef<M>) -> Self {
        Self { path, incarnation, me, spawned: Vec::new(), stop: false }
    }

    /// The actor's place in the tree: `node/log_dirs/…`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// This life's number.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The actor's own handle.
    #[must_use]
    pub const fn me(&self) -> &ActorRef<M> {
        &self.me
    }

    /// A handle to this life only, for timers and completions.
    #[must_use]
    pub fn this_life(&self) -> IncarnationRef<M> {
        self.me.pinned(self.incarnation)
    }

    /// Runs `future` on this arbiter beside the actor; it is dropped when this life ends, and a panic in it is the actor's.
    pub fn spawn(&mut self, future: impl Future<Output = ()> + 'static) {
        self.spawned.push(Box::pin(future));
    }

    /// Ends this life of its own accord, after this call returns: the rest of the batch is dropped.
    pub const fn stop(&mut self) {
        self.stop = true;
    }

    /// The monotonic clock.
    #[must_use]
    pub fn now(&self) -> Mono {
        clock::now()
    }

    /// The wall clock.
    #[must_use]
    pub fn wall(&self) -> Wall {
        clock::wall()
    }
}

impl<M: ActorMessage> std::fmt::Debug for ShellContext<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ShellContext({}, {})", self.path, self.incarnation)
    }
}

/// What the shell and the future that drives it both see.
#[derive(Default)]
struct Control {
    /// The behavior is being called. Still set when polled again: the call panicked.
    entered: Cell<bool>,
    /// The supervisor asked for the end.
    asked: Cell<bool>,
    /// The driving future is being dropped: actix polls once more, but nothing may run.
    dead: Cell<bool>,
}

struct Shell<B: Behavior> {
    behavior: B,
    context: ShellContext<B::Message>,
    control: Rc<Control>,
    stop: oneshot::Receiver<()>,
    stopping: bool,
    tasks: Option<FuturesUnordered<LocalBoxFuture<'static, ()>>>,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
    timer_at: Option<Mono>,
    /// A planted delay.
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<B: Behavior> actix::Actor for Shell<B> {
    type Context = actix::Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.spawn(Pump);
    }
}

/// The future inside the actor's context that gives it its turns.
struct Pump;

impl<B: Behavior> actix::ActorFuture<Shell<B>> for Pump {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        shell: &mut Shell<B>,
        context: &mut actix::Context<Shell<B>>,
        task: &mut Context<'_>,
    ) -> Poll<()> {
        if shell.control.dead.get() || shell.control.entered.replace(true) {
            return Poll::Pending;
        }
        let ended = shell.turn(task);
        shell.control.entered.set(false);
        if ended {
            shell.control.dead.set(true);
            actix::ActorContext::stop(context);
        }
        Poll::Pending
    }
}

impl<B: Behavior> Shell<B> {
    /// One turn; true once the actor has ended in order.
    fn turn(&mut self, task: &mut Context<'_>) -> bool {
        if !self.stopping && Pin::new(&mut self.stop).poll(task).is_ready() {
            self.control.asked.set(true);
            self.begin_stop();
        }
        if !self.stopping {
            self.run_batch(task);
        }
        self.run_tasks(task);
        self.stopping && self.tasks.as_ref().is_none_or(FuturesUnordered::is_empty)
    }

    fn begin_stop(&mut self) {
        self.stopping = true;
        self.context.me.mailbox().close(self.context.incarnation, ActorState::Restarting);
        self.tasks = None;
        self.context.spawned.clear();
        self.behavior.stopping(&mut self.context);
    }

    fn run_batch(&mut self, task: &mut Context<'_>) {
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(task).is_pending() {
                return;
            }
            self.pause = None;
        }
        let mut worked = false;
        if self.behavior.deadline().is_some_and(|deadline| deadline <= clock::now()) {
            self.behavior.on_deadline(&mut self.context);
            worked = true;
        }
        let emptied = self.drain(&mut worked);
        if worked && !self.context.stop {
            self.behavior.end_batch(&mut self.context);
        }
        if self.context.stop {
            self.begin_stop();
            return;
        }
        self.arm_timer(task);
        let mailbox = self.context.me.mailbox();
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(task).is_ready() {
                task.waker().wake_by_ref();
            }
        } else if !emptied || !mailbox.sleep(task.waker()) {
            task.waker().wake_by_ref(); // To the back of the arbiter's queue: the neighbours go first.
        }
    }

    /// Handles messages until the mailbox is empty (true) or the turn is over (false).
    fn drain(&mut self, worked: &mut bool) -> bool {
        let began = Instant::now();
        for _ in 0..TURN_MESSAGES {
            if self.context.stop {
                return false;
            }
            let Some(message) = self.context.me.mailbox().pop() else { return true };
            *worked = true;
            match failpoint::hit(&self.context.path, message.kind()) {
                None => self.behavior.handle(message, &mut self.context),
                Some(action) => {
                    self.fail(action, message);
                    if self.pause.is_some() {
                        return false;
                    }
                }
            }
            if began.elapsed() >= TURN_TIME {
                return false;
            }
        }
        false
    }

    fn fail(&mut self, action: FailAction, message: B::Message) {
        match action {
            FailAction::Panic => panic!("planted: {} takes {}", self.context.path, message.kind()),
            FailAction::Stop => self.context.stop = true,
            FailAction::DropMessage => drop(message),
            FailAction::Hang => {
                failpoint::hang();
                self.behavior.handle(message, &mut self.context);
            }
            FailAction::Delay(pause) => {
                self.behavior.handle(message, &mut self.context);
                self.pause = Some(Box::pin(tokio::time::sleep(pause)));
            }
        }
    }

    fn arm_timer(&mut self, task: &mut Context<'_>) {
        let deadline = self.behavior.deadline();
        let Some(at) = deadline else {
            self.timer = None;
            self.timer_at = None;
            return;
        };
        match &mut self.timer {
            Some(timer) if self.timer_at != deadline => timer.as_mut().reset(clock::instant(at)),
            Some(_) => {}
            none => *none = Some(Box::pin(tokio::time::sleep_until(clock::instant(at)))),
        }
        self.timer_at = deadline;
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(task).is_ready()
        {
            self.timer = None;
            task.waker().wake_by_ref();
        }
    }

    fn run_tasks(&mut self, task: &mut Context<'_>) {
        if !self.context.spawned.is_empty() {
            self.tasks.get_or_insert_default().extend(self.context.spawned.drain(..));
        }
        let Some(tasks) = &mut self.tasks else { return };
        for _ in 0..TURN_MESSAGES {
            match tasks.poll_next_unpin(task) {
                Poll::Pending => return,
                Poll::Ready(None) => {
                    self.tasks = None;
                    return;
                }
                Poll::Ready(Some(())) => {}
            }
        }
        task.waker().wake_by_ref();
    }
}

// Nothing in it is pinned in place.
impl<B: Behavior> Unpin for Shell<B> {}

/// One life of an actor on this arbiter, from a behavior that its factory has just built.
pub(crate) fn live<B: Behavior>(
    behavior: B,
    context: ShellContext<B::Message>,
    stop: oneshot::Receiver<()>,
) -> Life<B> {
    let control = Rc::new(Control::default());
    let shell = Shell {
        behavior,
        context,
        control: Rc::clone(&control),
        stop,
        stopping: false,
        tasks: None,
        timer: None,
        timer_at: None,
        pause: None,
    };
    Life { control, future: actix::Context::new().into_future(shell) }
}

/// The driving future. A plain struct and not an `async` block, whose locals (the behavior) a panic would drop while it
/// unwinds: a second panic in the behavior's own `Drop` would then abort the process.
pub(crate) struct Life<B: Behavior> {
    control: Rc<Control>,
    future: actix::dev::ContextFut<Shell<B>, actix::Context<Shell<B>>>,
}

impl<B: Behavior> Future for Life<B> {
    type Output = ExitReason;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<ExitReason> {
        match Pin::new(&mut self.future).poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) if self.control.asked.get() => Poll::Ready(ExitReason::Shutdown),
            Poll::Ready(()) => Poll::Ready(ExitReason::Normal),
        }
    }
}

impl<B: Behavior> Drop for Life<B> {
    fn drop(&mut self) {
        self.control.dead.set(true); // actix polls its future once more in its own drop, which comes after this one.
    }
}
