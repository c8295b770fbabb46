//! A reply slot that is answered exactly once: by its holder, or, if the holder drops it, by a default.
//! Invariant: dropping a `Reply` runs no code of its user, so it is safe while a thread unwinds.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_channel::oneshot;

enum Otherwise<T> {
    Function(fn() -> T),
    Boxed(Box<dyn FnOnce() -> T + Send>),
}

/// The obligation to answer one request. Travels inside the message that asks.
#[must_use = "dropping it answers with the default"]
pub struct Reply<T> {
    sender: oneshot::Sender<T>,
}

/// The asking side: a future under any executor that always yields an answer.
#[must_use = "an answer that nobody awaits is lost"]
pub struct Answer<T> {
    receiver: oneshot::Receiver<T>,
    otherwise: Option<Otherwise<T>>,
}

impl<T> Reply<T> {
    /// A slot and the future of its answer. If the slot is dropped unsent, the future yields `otherwise()`, which should be
    /// a retriable, indeterminate error: whoever dropped the slot may have done part of the work.
    pub fn new(otherwise: fn() -> T) -> (Self, Answer<T>) {
        Self::build(Otherwise::Function(otherwise))
    }

    /// As [`Reply::new`], for a default that needs to know more than a plain function does. Costs one allocation more.
    pub fn with_default(otherwise: impl FnOnce() -> T + Send + 'static) -> (Self, Answer<T>) {
        Self::build(Otherwise::Boxed(Box::new(otherwise)))
    }

    fn build(otherwise: Otherwise<T>) -> (Self, Answer<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender }, Answer { receiver, otherwise: Some(otherwise) })
    }

    /// Answers. If the asker is gone the value is dropped.
    pub fn send(self, value: T) {
        drop(self.sender.send(value));
    }

    /// Whether the asker has gone, so that the work can be spared.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.sender.is_canceled()
    }
}

impl<T> Future for Answer<T> {
    type Output = T;

    /// # Panics
    /// If polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.receiver).poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(value)) => {
                self.otherwise = None;
                Poll::Ready(value)
            }
            Poll::Ready(Err(oneshot::Canceled)) => match self.otherwise.take() {
                Some(Otherwise::Function(function)) => Poll::Ready(function()),
                Some(Otherwise::Boxed(function)) => Poll::Ready(function()),
                None => panic!("an answer was polled after it was ready"),
            },
        }
    }
}

// The default holds no self-reference; it is only ever moved out.
impl<T> Unpin for Answer<T> {}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("abandoned", &self.is_abandoned()).finish()
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn poll<T>(answer: &mut Answer<T>) -> Poll<T> {
        Pin::new(answer).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_sent_value_is_the_answer() {
        let (reply, mut answer) = Reply::new(|| -1);
        assert_eq!(poll(&mut answer), Poll::Pending);
        reply.send(7);
        assert_eq!(poll(&mut answer), Poll::Ready(7));
    }

    #[test]
    fn a_dropped_slot_answers_its_default() {
        let (reply, mut answer) = Reply::new(|| -1);
        drop(reply);
        assert_eq!(poll(&mut answer), Poll::Ready(-1));
        let name = String::from("orders-3");
        let (reply, mut answer) = Reply::with_default(move || name);
        drop(reply);
        assert_eq!(poll(&mut answer), Poll::Ready(String::from("orders-3")));
    }

    #[test]
    fn a_slot_dropped_by_a_panic_answers_its_default() {
        let (reply, mut answer) = Reply::new(|| -1);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = reply;
            panic!("planted");
        }));
        assert!(outcome.is_err());
        assert_eq!(poll(&mut answer), Poll::Ready(-1));
    }

    #[test]
    fn a_slot_knows_that_its_asker_has_gone() {
        let (reply, answer) = Reply::new(|| 0);
        assert!(!reply.is_abandoned());
        drop(answer);
        assert!(reply.is_abandoned());
        reply.send(1);
    }
}
