//! Runs one life of a child so that its end is always reported, by whatever way it comes.
//! Invariant: the child's state is dropped outside unwinding and inside a catch, so a second panic cannot abort.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_channel::{mpsc, oneshot};

use super::panics::catch;
use super::supervise::Event;
use crate::child_spec::{ChildId, ExitReason, Incarnation};

/// Reports the end of one life when it is dropped, after closing what leads to it.
pub(crate) struct ExitGuard {
    events: mpsc::UnboundedSender<Event>,
    id: ChildId,
    incarnation: Incarnation,
    /// `Killed` until the life says better.
    reason: ExitReason,
    /// Closes the mailbox, if there is one.
    close: Option<Box<dyn FnOnce() + Send>>,
}

impl ExitGuard {
    pub(crate) fn new(
        events: mpsc::UnboundedSender<Event>,
        id: ChildId,
        incarnation: Incarnation,
        close: Option<Box<dyn FnOnce() + Send>>,
    ) -> Self {
        Self { events, id, incarnation, reason: ExitReason::Killed, close }
    }

    /// Whom to tell of the start, and what.
    pub(crate) fn addressee(&self) -> (mpsc::UnboundedSender<Event>, ChildId, Incarnation) {
        (self.events.clone(), self.id.clone(), self.incarnation)
    }

    /// Reports the end.
    pub(crate) fn end(mut self, reason: ExitReason) {
        self.reason = reason;
    }

    pub(crate) fn started(&self) {
        let event = Event::Started { id: self.id.clone(), incarnation: self.incarnation };
        drop(self.events.unbounded_send(event)); // A supervisor that has gone needs no report.
    }
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        if let Some(close) = self.close.take() {
            drop(catch(close)); // It drops queued messages, whose fields may be anything.
        }
        let reason = std::mem::replace(&mut self.reason, ExitReason::Killed);
        let event = Event::Exited { id: self.id.clone(), incarnation: self.incarnation, reason };
        drop(self.events.unbounded_send(event));
    }
}

/// The supervisor's hold on one life. Dropping it kills the life at its next poll.
pub(crate) struct Leash {
    stop: Option<oneshot::Sender<()>>,
    _kill: oneshot::Sender<()>,
}

impl Leash {
    /// A leash, the signal that asks for an orderly stop, and the one that kills.
    pub(crate) fn new() -> (Self, oneshot::Receiver<()>, oneshot::Receiver<()>) {
        let ((stop, stopped), (kill, killed)) = (oneshot::channel(), oneshot::channel());
        (Self { stop: Some(stop), _kill: kill }, stopped, killed)
    }

    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

/// Polls a life inside a catch until it ends, panics, or is killed, and reports it.
pub(crate) struct Guarded<F: Future<Output = ExitReason>> {
    guard: Option<ExitGuard>,
    life: Option<Pin<Box<F>>>,
    killed: oneshot::Receiver<()>,
}

impl<F: Future<Output = ExitReason>> Guarded<F> {
    pub(crate) fn new(guard: ExitGuard, life: F, killed: oneshot::Receiver<()>) -> Self {
        Self { guard: Some(guard), life: Some(Box::pin(life)), killed }
    }

    /// Drops the life and reports its end; a panic in dropping it is its end, unless it already had a bad one.
    fn drop_life(&mut self, reason: ExitReason) {
        let life = self.life.take();
        let reason = match catch(move || drop(life)) {
            Err(caught) if !reason.is_abnormal() => ExitReason::Panic { message: caught.message, site: caught.site },
            _ => reason,
        };
        if let Some(guard) = self.guard.take() {
            guard.end(reason);
        }
    }
}

impl<F: Future<Output = ExitReason>> Future for Guarded<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if Pin::new(&mut this.killed).poll(context).is_ready() {
            this.drop_life(ExitReason::Killed);
            return Poll::Ready(());
        }
        let Some(life) = this.life.as_mut() else { return Poll::Ready(()) };
        let reason = match catch(|| life.as_mut().poll(context)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(reason)) => reason,
            Err(caught) => ExitReason::Panic { message: caught.message, site: caught.site },
        };
        this.drop_life(reason);
        Poll::Ready(())
    }
}

impl<F: Future<Output = ExitReason>> Drop for Guarded<F> {
    fn drop(&mut self) {
        if self.life.is_some() {
            self.drop_life(ExitReason::Killed);
        }
    }
}
