//! An actor's queue: two lanes (control before data), each first in first out and bounded in items and in bytes.
//! Belongs to no runtime: waiting is done with wakers, so the node's arbiters and the simulator drive the same code.
//! Invariant: after `close` it holds no message, and a push either is queued for the open incarnation or comes back.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::child_spec::Incarnation;
use crate::message::{ActorMessage, Lane};
use crate::mutants::mutant;
use crate::sync::{Mutex, MutexGuard};

/// The bounds of one lane. A message heavier than `bytes` is admitted alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most messages queued.
    pub items: usize,
    /// The most bytes queued, by [`ActorMessage::weight_bytes`].
    pub bytes: usize,
    /// The most senders that may wait for admission; one more is refused at once.
    pub waiters: usize,
}

/// The bounds of both lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Of the control lane.
    pub control: Bounds,
    /// Of the data lane.
    pub data: Bounds,
}

impl Default for Capacity {
    /// Control: 1,024 messages, 4 MiB. Data: 1,024 messages, 64 MiB. 16,384 waiters each.
    fn default() -> Self {
        Self {
            control: Bounds { items: 1024, bytes: 4 << 20, waiters: 16_384 },
            data: Bounds { items: 1024, bytes: 64 << 20, waiters: 16_384 },
        }
    }
}

/// Whether an actor takes messages, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActorState {
    /// It has not started yet.
    Starting,
    /// It takes messages.
    Running,
    /// It ended and its supervisor will start it again.
    Restarting,
    /// Its supervisor has set it aside: it stays down until it is released.
    Quarantined,
    /// It ended for good.
    Stopped,
}

impl ActorState {
    /// A fixed lower-case word for metrics and `madang tree`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Quarantined => "quarantined",
            Self::Stopped => "stopped",
        }
    }
}

/// Why a message was not taken. The message comes back: nothing has been done with it.
#[derive(PartialEq, Eq)]
pub enum SendError<M> {
    /// The lane is full (for [`Mailbox::admit`]: so is the list of waiters).
    Full(M),
    /// The deadline passed before there was room.
    Deadline(M),
    /// The actor takes no messages now.
    NotRunning {
        /// The message.
        message: M,
        /// Why.
        state: ActorState,
    },
    /// It was meant for an incarnation that is no longer the running one.
    Stale(M),
}

impl<M> SendError<M> {
    /// The message that was not taken.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(message) | Self::Deadline(message) | Self::Stale(message) => message,
            Self::NotRunning { message, .. } => message,
        }
    }
}

impl<M> fmt::Display for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the mailbox is full"),
            Self::Deadline(_) => f.write_str("the mailbox had no room before the deadline"),
            Self::NotRunning { state, .. } => write!(f, "the actor is {}", state.label()),
            Self::Stale(_) => f.write_str("the message was meant for an earlier incarnation"),
        }
    }
}

impl<M> fmt::Debug for SendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<M> std::error::Error for SendError<M> {}

/// What a mailbox holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages queued in both lanes.
    pub items: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Senders waiting for admission.
    pub waiting: usize,
}

struct LaneQueue<M> {
    bounds: Bounds,
    queue: VecDeque<(M, usize)>,
    bytes: usize,
    /// Senders without room, by ticket: the lowest goes first.
    waiting: BTreeMap<u64, Waiting<M>>,
}

struct Waiting<M> {
    message: M,
    weight: usize,
    waker: Waker,
}

impl<M> LaneQueue<M> {
    const fn new(bounds: Bounds) -> Self {
        Self { bounds, queue: VecDeque::new(), bytes: 0, waiting: BTreeMap::new() }
    }

    fn fits(&self, weight: usize) -> bool {
        // Planted bug 29: the bounds are not looked at.
        mutant(29)
            || self.queue.is_empty()
            || (self.queue.len() < self.bounds.items && self.bytes.saturating_add(weight) <= self.bounds.bytes)
    }

    fn push(&mut self, message: M, weight: usize) {
        self.bytes = self.bytes.saturating_add(weight);
        self.queue.push_back((message, weight));
    }

    fn pop(&mut self, admitted: &mut Vec<Waker>) -> Option<M> {
        let (message, weight) = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(weight);
        self.admit_waiting(admitted);
        if self.queue.is_empty() && self.queue.capacity() > 256 {
            self.queue.shrink_to(64); // A burst does not pin memory in an actor that is idle again.
        }
        Some(message)
    }

    fn admit_waiting(&mut self, admitted: &mut Vec<Waker>) {
        while let Some(weight) = self.waiting.first_key_value().map(|(_, first)| first.weight) {
            if !self.fits(weight) {
                return;
            }
            let Some((_, Waiting { message, weight, waker })) = self.waiting.pop_first() else { return };
            self.push(message, weight);
            admitted.push(waker);
        }
    }
}

struct Inner<M> {
    state: ActorState,
    incarnation: Incarnation,
    control: LaneQueue<M>,
    data: LaneQueue<M>,
    next_ticket: u64,
    /// The actor's own waker while it sleeps; taken by the push that wakes it, so one wake is in flight at most.
    sleeper: Option<Waker>,
}

impl<M> Inner<M> {
    const fn lane(&mut self, lane: Lane) -> &mut LaneQueue<M> {
        match lane {
            Lane::Control => &mut self.control,
            Lane::Data => &mut self.data,
        }
    }
}

/// The queue itself; shared by an actor's lives, so that whoever holds it reaches the latest one.
pub struct Mailbox<M> {
    inner: Mutex<Inner<M>>,
}

impl<M: ActorMessage> Mailbox<M> {
    /// A closed, empty mailbox of an actor that is [`ActorState::Starting`].
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self {
            inner: Mutex::new(Inner {
                state: ActorState::Starting,
                incarnation: Incarnation::default(),
                control: LaneQueue::new(capacity.control),
                data: LaneQueue::new(capacity.data),
                next_ticket: 0,
                sleeper: None,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<M>> {
        // No user code runs under the lock, so a poisoned one is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes messages for `incarnation` from now on.
    pub fn open(&self, incarnation: Incarnation) {
        let mut admitted = Vec::new();
        let mut inner = self.lock();
        if incarnation > inner.incarnation {
            inner.incarnation = incarnation;
            inner.state = ActorState::Running;
            // Senders that waited for the previous life and have not looked since are let in to this one.
            inner.control.admit_waiting(&mut admitted);
            inner.data.admit_waiting(&mut admitted);
        }
        drop(inner);
        admitted.into_iter().for_each(Waker::wake);
    }

    /// Takes no more messages for `incarnation` and drops all that are queued, so that their replies answer. Waiting
    /// senders get their messages back. Does nothing if a later incarnation is open.
    pub fn close(&self, incarnation: Incarnation, state: ActorState) {
        let mut inner = self.lock();
        if incarnation < inner.incarnation {
            return;
        }
        inner.state = state;
        inner.sleeper = None;
        let queues = (mem::take(&mut inner.control.queue), mem::take(&mut inner.data.queue));
        inner.control.bytes = 0;
        inner.data.bytes = 0;
        let waiting: Vec<Waker> = [&inner.control, &inner.data]
            .into_iter()
            .flat_map(|lane| lane.waiting.values().map(|waiting| waiting.waker.clone()))
            .collect();
        drop(inner);
        drop(queues); // Outside the lock: dropping a message may wake its asker.
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Changes the reason why a closed mailbox is closed. Does nothing while it is running.
    pub fn set_closed_state(&self, state: ActorState) {
        let mut inner = self.lock();
        if inner.state != ActorState::Running {
            inner.state = state;
        }
    }

    /// Whether the actor takes messages.
    pub fn state(&self) -> ActorState {
        self.lock().state
    }

    /// The incarnation that is open, or was last.
    pub fn incarnation(&self) -> Incarnation {
        self.lock().incarnation
    }

    /// What is queued now.
    pub fn depth(&self) -> Depth {
        let inner = self.lock();
        Depth {
            items: inner.control.queue.len() + inner.data.queue.len(),
            bytes: inner.control.bytes + inner.data.bytes,
            waiting: inner.control.waiting.len() + inner.data.waiting.len(),
        }
    }

    /// Queues `message` if there is room and nobody waits before it.
    ///
    /// # Errors
    /// [`SendError::Full`] or [`SendError::NotRunning`], with the message.
    pub fn try_push(&self, message: M) -> Result<(), SendError<M>> {
        self.push(message, None)
    }

    /// As [`Mailbox::try_push`], for one incarnation only.
    ///
    /// # Errors
    /// As there, and [`SendError::Stale`] if `incarnation` is not the open one.
    pub fn try_push_to(&self, incarnation: Incarnation, message: M) -> Result<(), SendError<M>> {
        self.push(message, Some(incarnation))
    }

    fn push(&self, message: M, only: Option<Incarnation>) -> Result<(), SendError<M>> {
        let (lane, weight) = (message.lane(), message.weight_bytes());
        let mut inner = self.lock();
        if only.is_some_and(|incarnation| incarnation != inner.incarnation) {
            return Err(SendError::Stale(message));
        }
        if inner.state != ActorState::Running {
            return Err(SendError::NotRunning { message, state: inner.state });
        }
        let queue = inner.lane(lane);
        if !queue.waiting.is_empty() || !queue.fits(weight) {
            return Err(SendError::Full(message));
        }
        queue.push(message, weight);
        let sleeper = inner.sleeper.take();
        drop(inner);
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
        Ok(())
    }

    /// A future that is ready once `message` is queued; dropping it withdraws a message that is not. Waiting senders of
    /// a lane are admitted in order of arrival.
    pub fn admit(self: &Arc<Self>, message: M) -> Admission<M> {
        Admission { mailbox: Arc::clone(self), stage: Stage::New(message) }
    }

    /// The next message: control first, each lane in order. Lets in the senders for which there is room now.
    pub fn pop(&self) -> Option<M> {
        let mut admitted = Vec::new();
        let mut inner = self.lock();
        let message = match inner.control.pop(&mut admitted) {
            Some(message) => Some(message),
            None => inner.data.pop(&mut admitted),
        };
        drop(inner);
        admitted.into_iter().for_each(Waker::wake);
        message
    }

    /// Asks for `waker` to be woken by the next push. False if something is queued already: drain it first.
    pub fn sleep(&self, waker: &Waker) -> bool {
        let mut inner = self.lock();
        if !inner.control.queue.is_empty() || !inner.data.queue.is_empty() {
            return false;
        }
        match &mut inner.sleeper {
            Some(sleeper) => sleeper.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        true
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

enum Stage<M> {
    New(M),
    Waiting { lane: Lane, ticket: u64 },
    Done,
}

/// A message on its way into a mailbox. See [`Mailbox::admit`].
#[must_use = "a message is queued only if its admission is polled"]
pub struct Admission<M: ActorMessage> {
    mailbox: Arc<Mailbox<M>>,
    stage: Stage<M>,
}

impl<M: ActorMessage> Admission<M> {
    /// Gives up: the message, or `None` if it has been queued.
    pub fn withdraw(mut self) -> Option<M> {
        self.take()
    }

    fn take(&mut self) -> Option<M> {
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::New(message) => Some(message),
            Stage::Waiting { lane, ticket } => {
                let mut admitted = Vec::new();
                let mut inner = self.mailbox.lock();
                let removed = inner.lane(lane).waiting.remove(&ticket);
                if inner.state == ActorState::Running {
                    inner.lane(lane).admit_waiting(&mut admitted); // It may have been too heavy and the next one is not.
                }
                let sleeper = if admitted.is_empty() { None } else { inner.sleeper.take() };
                drop(inner);
                admitted.into_iter().chain(sleeper).for_each(Waker::wake);
                removed.map(|waiting| waiting.message)
            }
            Stage::Done => None,
        }
    }

    fn enter(&mut self, message: M, waker: &Waker) -> Poll<Result<(), SendError<M>>> {
        let message = match self.mailbox.try_push(message) {
            Err(SendError::Full(message)) => message,
            other => return Poll::Ready(other),
        };
        let (lane, weight) = (message.lane(), message.weight_bytes());
        let mut inner = self.mailbox.lock();
        if inner.state != ActorState::Running {
            return Poll::Ready(Err(SendError::NotRunning { message, state: inner.state }));
        }
        let ticket = inner.next_ticket;
        let queue = inner.lane(lane);
        if queue.waiting.len() >= queue.bounds.waiters {
            return Poll::Ready(Err(SendError::Full(message)));
        }
        queue.waiting.insert(ticket, Waiting { message, weight, waker: waker.clone() });
        inner.next_ticket = ticket + 1;
        self.stage = Stage::Waiting { lane, ticket };
        // Room may have been made between the two locks.
        let mut admitted = Vec::new();
        inner.lane(lane).admit_waiting(&mut admitted);
        let sleeper = if admitted.is_empty() { None } else { inner.sleeper.take() };
        drop(inner);
        admitted.into_iter().chain(sleeper).for_each(Waker::wake);
        Poll::Pending
    }

    fn wait(&mut self, lane: Lane, ticket: u64, waker: &Waker) -> Poll<Result<(), SendError<M>>> {
        let mut inner = self.mailbox.lock();
        let state = inner.state;
        let queue = inner.lane(lane);
        if state == ActorState::Running {
            if let Some(waiting) = queue.waiting.get_mut(&ticket) {
                waiting.waker.clone_from(waker);
                return Poll::Pending;
            }
            self.stage = Stage::Done;
            return Poll::Ready(Ok(()));
        }
        self.stage = Stage::Done;
        match queue.waiting.remove(&ticket) {
            Some(Waiting { message, .. }) => Poll::Ready(Err(SendError::NotRunning { message, state })),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl<M: ActorMessage> Future for Admission<M> {
    type Output = Result<(), SendError<M>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match mem::replace(&mut self.stage, Stage::Done) {
            Stage::New(message) => self.enter(message, context.waker()),
            Stage::Waiting { lane, ticket } => {
                self.stage = Stage::Waiting { lane, ticket };
                self.wait(lane, ticket, context.waker())
            }
            Stage::Done => Poll::Ready(Ok(())),
        }
    }
}

// The message is only ever moved out whole, never pinned in place.
impl<M: ActorMessage> Unpin for Admission<M> {}

impl<M: ActorMessage> Drop for Admission<M> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

#[cfg(test)]
#[path = "mailbox_tests.rs"]
mod tests;
