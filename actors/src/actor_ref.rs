//! How others reach an actor: a handle that outlives the actor's lives and always leads to the latest.
//! Invariant: a message is either queued for a running incarnation or comes back to the sender.

use std::fmt;
use std::sync::Arc;

use crate::child_spec::Incarnation;
use crate::mailbox::{ActorState, Admission, Capacity, Depth, Mailbox, SendError};
use crate::message::ActorMessage;

/// A handle to an actor. Cheap to clone, sendable anywhere, valid across restarts.
pub struct ActorRef<M: ActorMessage> {
    id: Arc<str>,
    mailbox: Arc<Mailbox<M>>,
}

impl<M: ActorMessage> ActorRef<M> {
    /// The handle of an actor that is yet to be started under `id` (unique among its siblings), with a mailbox bounded by
    /// `capacity`.
    pub fn new(id: impl AsRef<str>, capacity: Capacity) -> Self {
        Self { id: Arc::from(id.as_ref()), mailbox: Arc::new(Mailbox::new(capacity)) }
    }

    /// The actor's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Queues `message` if there is room now.
    ///
    /// # Errors
    /// [`SendError::Full`] or [`SendError::NotRunning`], with the message.
    pub fn try_send(&self, message: M) -> Result<(), SendError<M>> {
        self.mailbox.try_push(message)
    }

    /// A future that is ready once `message` is queued. It waits without limit while the lane is full; dropping it
    /// withdraws the message.
    pub fn admit(&self, message: M) -> Admission<M> {
        self.mailbox.admit(message)
    }

    /// Queues `message`, waiting for room until `deadline` on the node's clock.
    ///
    /// # Errors
    /// [`SendError`], with the message: nothing has been done with it, so the error is definite.
    #[cfg(feature = "host")]
    pub async fn send(&self, message: M, deadline: crate::clock::Mono) -> Result<(), SendError<M>> {
        let message = match self.mailbox.try_push(message) {
            Err(SendError::Full(message)) => message,
            other => return other,
        };
        let mut admission = self.mailbox.admit(message);
        match tokio::time::timeout_at(crate::host::clock::instant(deadline), &mut admission).await {
            Ok(outcome) => outcome,
            Err(_) => admission.withdraw().map_or(Ok(()), |message| Err(SendError::Deadline(message))),
        }
    }

    /// Whether the actor takes messages, and if not, why.
    #[must_use]
    pub fn state(&self) -> ActorState {
        self.mailbox.state()
    }

    /// What is queued.
    #[must_use]
    pub fn depth(&self) -> Depth {
        self.mailbox.depth()
    }

    /// The incarnation that runs, or ran last; 0 before the first.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.mailbox.incarnation()
    }

    /// A handle to one life of the actor only: for timers and completions, which must not reach a later one.
    #[must_use]
    pub fn pinned(&self, incarnation: Incarnation) -> IncarnationRef<M> {
        IncarnationRef { actor: self.clone(), incarnation }
    }

    /// The queue itself, for whoever runs the actor.
    #[must_use]
    pub const fn mailbox(&self) -> &Arc<Mailbox<M>> {
        &self.mailbox
    }
}

impl<M: ActorMessage> Clone for ActorRef<M> {
    fn clone(&self) -> Self {
        Self { id: Arc::clone(&self.id), mailbox: Arc::clone(&self.mailbox) }
    }
}

impl<M: ActorMessage> fmt::Debug for ActorRef<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ActorRef").field(&self.id).finish()
    }
}

/// A handle to one incarnation of an actor. See [`ActorRef::pinned`].
pub struct IncarnationRef<M: ActorMessage> {
    actor: ActorRef<M>,
    incarnation: Incarnation,
}

impl<M: ActorMessage> IncarnationRef<M> {
    /// Queues `message` if that incarnation still runs and has room.
    ///
    /// # Errors
    /// As [`ActorRef::try_send`], and [`SendError::Stale`].
    pub fn try_send(&self, message: M) -> Result<(), SendError<M>> {
        self.actor.mailbox.try_push_to(self.incarnation, message)
    }

    /// Whether that incarnation has ended; one that is about to start has not.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let latest = self.actor.incarnation();
        latest > self.incarnation || (latest == self.incarnation && self.actor.state() != ActorState::Running)
    }

    /// The incarnation it leads to.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
}

impl<M: ActorMessage> Clone for IncarnationRef<M> {
    fn clone(&self) -> Self {
        self.actor.pinned(self.incarnation)
    }
}

impl<M: ActorMessage> fmt::Debug for IncarnationRef<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IncarnationRef({:?}, {})", self.actor.id(), self.incarnation)
    }
}
