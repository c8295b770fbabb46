//! A reply slot that is answered exactly once: by its holder, or, if the holder drops it, by a default.
//! Invariant: dropping a `Reply` runs no code of its user, so it is safe while a thread unwinds.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_channel::oneshot;

use crate::sync::Mutex;

enum Otherwise<T> {
    Function(fn() -> T),
    Boxed(Box<dyn FnOnce() -> T + Send>),
}

/// The obligation to answer one request. Travels inside the message that asks.
#[must_use = "dropping it answers with the default"]
pub struct Reply<T> {
    /// There until it is answered.
    sender: Option<oneshot::Sender<T>>,
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
        (Self { sender: Some(sender) }, Answer { receiver, otherwise: Some(otherwise) })
    }

    /// Answers. If the asker is gone the value is dropped.
    pub fn send(mut self, value: T) {
        if let Some(sender) = self.sender.take() {
            drop(sender.send(value));
        }
    }

    /// Whether the asker has gone, so that the work can be spared.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.sender.as_ref().is_none_or(oneshot::Sender::is_canceled)
    }
}

/// Planted bug 28: a slot that is dropped by a panic is lost, and nobody is answered.
#[cfg(feature = "mutants")]
impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if crate::mutants::mutant(28) && std::thread::panicking() {
            std::mem::forget(self.sender.take());
        }
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

/// Waits for every one of `answers` and yields them in their order. Whoever awaits it is woken once, when the last one is there, and not for
/// each: so one request of many parts costs the asking thread one wake-up.
pub fn all<T>(answers: Vec<Answer<T>>) -> AllAnswers<T> {
    AllAnswers { parts: answers.into_iter().map(Part::Waiting).collect() }
}

enum Part<T> {
    Waiting(Answer<T>),
    There(T),
}

/// See [`all`]. Polled again after it was ready, it yields nothing.
#[must_use = "answers that nobody awaits are lost"]
pub struct AllAnswers<T> {
    parts: Vec<Part<T>>,
}

/// Wakes when as many wakes have come as answers were missing.
struct Countdown {
    left: Mutex<usize>,
    waker: Waker,
}

impl Wake for Countdown {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A wake too many wakes too early, which costs a poll; it can never be too late.
        if self.count(1) {
            self.waker.wake_by_ref();
        }
    }
}

impl Countdown {
    /// Counts `less` fewer; true if none is left now.
    fn count(&self, less: usize) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *left;
        *left = before.saturating_sub(less);
        before > 0 && *left == 0
    }
}

impl<T> AllAnswers<T> {
    /// Polls what is missing; answers how many of them came.
    fn poll_parts(&mut self, waker: &Waker) -> usize {
        let mut context = Context::from_waker(waker);
        let mut answered = 0;
        for part in &mut self.parts {
            if let Part::Waiting(answer) = part
                && let Poll::Ready(value) = Pin::new(answer).poll(&mut context)
            {
                *part = Part::There(value);
                answered += 1;
            }
        }
        answered
    }
}

impl<T> Future for AllAnswers<T> {
    type Output = Vec<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<T>> {
        loop {
            let missing = self.parts.iter().filter(|part| matches!(part, Part::Waiting(_))).count();
            // One more than there are, so that it cannot end while they are polled.
            let countdown = Arc::new(Countdown { left: Mutex::new(missing + 1), waker: context.waker().clone() });
            let answered = self.poll_parts(&Waker::from(Arc::clone(&countdown)));
            if answered == missing {
                let there = |part| if let Part::There(value) = part { Some(value) } else { None };
                return Poll::Ready(std::mem::take(&mut self.parts).into_iter().filter_map(there).collect());
            }
            // Those that were there will not wake any more.
            if !countdown.count(answered + 1) {
                return Poll::Pending;
            }
            // The rest came meanwhile.
        }
    }
}

// Nothing in it is pinned in place.
impl<T> Unpin for AllAnswers<T> {}

impl<T> fmt::Debug for AllAnswers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllAnswers").field("parts", &self.parts.len()).finish()
    }
}

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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll_all<T>(all: &mut AllAnswers<T>, wakes: &Arc<Wakes>) -> Poll<Vec<T>> {
        Pin::new(all).poll(&mut Context::from_waker(&Waker::from(Arc::clone(wakes))))
    }

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
    #[test]
    fn many_answers_wake_their_asker_once_and_keep_their_order() {
        let (mut replies, answers): (Vec<_>, Vec<_>) = (0..6).map(|_| Reply::new(|| -1)).unzip();
        let (mut all, wakes) = (self::all(answers), Arc::default());
        replies.remove(2).send(2);
        assert!(poll_all(&mut all, &wakes).is_pending());
        for (reply, number) in replies.drain(..4).zip([0, 1, 3, 4]) {
            assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
            reply.send(number);
        }
        drop(replies);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(poll_all(&mut all, &wakes), Poll::Ready(vec![0, 1, 2, 3, 4, -1]));
        assert_eq!(poll_all(&mut self::all(Vec::<Answer<i32>>::new()), &wakes), Poll::Ready(vec![]));
    }

    #[test]
    fn a_poll_in_between_takes_nothing_away() {
        let (mut replies, answers): (Vec<_>, Vec<_>) = (0..3).map(|_| Reply::new(|| -1)).unzip();
        let (mut all, wakes) = (self::all(answers), Arc::default());
        for number in 0..3 {
            assert!(poll_all(&mut all, &wakes).is_pending());
            replies.remove(0).send(number);
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert_eq!(poll_all(&mut all, &wakes), Poll::Ready(vec![0, 1, 2]));
    }
}
