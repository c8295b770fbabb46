//! A bounded list of parked waiters, any number of lists to one waiter: what a parked fetch registers with.
//! Invariant: a waiter that completed or was dropped is in no list; registering and removing cost O(1).

use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use crate::sync::{Mutex, MutexGuard};

/// Why a registration was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListFull;

impl std::fmt::Display for ListFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the list of waiters is full")
    }
}

impl std::error::Error for ListFull {}

/// The list. Cheap to clone; clones share their waiters.
#[derive(Clone)]
pub struct Waiters {
    shared: Arc<Mutex<Slab>>,
}

/// Registrations by slot; free slots form a list, so that both ends of a registration's life are O(1).
struct Slab {
    slots: Vec<Slot>,
    free: Vec<usize>,
    capacity: usize,
}

enum Slot {
    Free,
    /// The token says which waiter, the tag which of its registrations.
    Held {
        token: Weak<Mutex<Signal>>,
        tag: u64,
    },
}

/// What a waiter has been told since it last looked.
#[derive(Default)]
struct Signal {
    woken: bool,
    /// The tags of the lists that woke it, each once.
    tags: Vec<u64>,
    waker: Option<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No user code runs under these locks, so a poisoned one is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiters {
    /// An empty list that holds at most `capacity` registrations.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { shared: Arc::new(Mutex::new(Slab { slots: Vec::new(), free: Vec::new(), capacity })) }
    }

    /// Wakes every registered waiter. They stay registered: a waiter recounts and sleeps again, or completes.
    pub fn wake_all(&self) {
        let mut wakers = Vec::new();
        let slab = lock(&self.shared);
        for slot in &slab.slots {
            if let Slot::Held { token, tag } = slot
                && let Some(token) = token.upgrade()
            {
                let mut signal = lock(&token);
                signal.woken = true;
                if !signal.tags.contains(tag) {
                    signal.tags.push(*tag);
                }
                wakers.extend(signal.waker.take());
            }
        }
        drop(slab);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The registrations it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        let slab = lock(&self.shared);
        slab.slots.len() - slab.free.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for Waiters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiters").field("len", &self.len()).finish()
    }
}

/// One parked request. Dropping it removes it from every list.
#[derive(Default)]
pub struct Waiter {
    signal: Arc<Mutex<Signal>>,
    registrations: Vec<(Weak<Mutex<Slab>>, usize)>,
}

impl Waiter {
    /// A waiter that is in no list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Joins `list`; a wake by it reports `tag`. Register, then look again, then sleep: a wake between is kept.
    ///
    /// # Errors
    /// [`ListFull`] if the list is at its capacity.
    pub fn register(&mut self, list: &Waiters, tag: u64) -> Result<(), ListFull> {
        let mut slab = lock(&list.shared);
        let held = Slot::Held { token: Arc::downgrade(&self.signal), tag };
        let slot = if let Some(slot) = slab.free.pop() {
            slab.slots[slot] = held;
            slot
        } else if slab.slots.len() < slab.capacity {
            slab.slots.push(held);
            slab.slots.len() - 1
        } else {
            return Err(ListFull);
        };
        drop(slab);
        self.registrations.push((Arc::downgrade(&list.shared), slot));
        Ok(())
    }

    /// The lists it is in.
    #[must_use]
    pub fn registrations(&self) -> usize {
        self.registrations.len()
    }

    /// Ready, with the tags of the lists that woke it, if any has since the last ready poll.
    pub fn poll_woken(&mut self, context: &mut Context<'_>) -> Poll<Vec<u64>> {
        let mut signal = lock(&self.signal);
        if signal.woken {
            signal.woken = false;
            return Poll::Ready(std::mem::take(&mut signal.tags));
        }
        match &mut signal.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Waits for the next wake and yields the tags of the lists that gave it.
    pub async fn woken(&mut self) -> Vec<u64> {
        std::future::poll_fn(|context| self.poll_woken(context)).await
    }

    /// Leaves every list.
    pub fn clear(&mut self) {
        for (list, slot) in self.registrations.drain(..) {
            let Some(list) = list.upgrade() else { continue };
            let mut slab = lock(&list);
            slab.slots[slot] = Slot::Free;
            slab.free.push(slot);
            if slab.free.len() == slab.slots.len() {
                slab.slots = Vec::new(); // Nobody waits: an idle partition holds no memory for it.
                slab.free = Vec::new();
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.clear();
    }
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiter").field("registrations", &self.registrations.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(waiter: &mut Waiter) -> Poll<Vec<u64>> {
        waiter.poll_woken(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_wake_reaches_every_waiter_and_names_its_list() {
        let (orders, payments) = (Waiters::new(10), Waiters::new(10));
        let (mut a, mut b) = (Waiter::new(), Waiter::new());
        a.register(&orders, 1).unwrap();
        a.register(&payments, 2).unwrap();
        b.register(&payments, 7).unwrap();
        assert!(poll(&mut a).is_pending() && poll(&mut b).is_pending());
        payments.wake_all();
        payments.wake_all();
        assert_eq!(poll(&mut a), Poll::Ready(vec![2]));
        assert_eq!(poll(&mut b), Poll::Ready(vec![7]));
        assert!(poll(&mut a).is_pending(), "a wake is reported once");
        orders.wake_all();
        assert_eq!(poll(&mut a), Poll::Ready(vec![1]));
    }

    #[test]
    fn a_wake_between_registering_and_sleeping_is_kept() {
        let list = Waiters::new(1);
        let mut waiter = Waiter::new();
        waiter.register(&list, 3).unwrap();
        list.wake_all();
        assert_eq!(poll(&mut waiter), Poll::Ready(vec![3]));
    }

    #[test]
    fn a_dropped_waiter_leaves_every_list() {
        let lists: Vec<_> = (0..1000).map(|_| Waiters::new(4)).collect();
        let mut kept = Waiter::new();
        kept.register(&lists[0], 0).unwrap();
        for _ in 0..100 {
            let mut waiter = Waiter::new();
            for (tag, list) in lists.iter().enumerate() {
                waiter.register(list, tag as u64).unwrap();
            }
            assert_eq!(lists[0].len(), 2);
        }
        assert_eq!(lists.iter().map(Waiters::len).sum::<usize>(), 1);
        lists[0].wake_all();
        assert_eq!(poll(&mut kept), Poll::Ready(vec![0]));
    }

    #[test]
    fn the_list_is_bounded_and_a_freed_place_is_used_again() {
        let list = Waiters::new(2);
        let (mut a, mut b, mut c) = (Waiter::new(), Waiter::new(), Waiter::new());
        a.register(&list, 0).unwrap();
        b.register(&list, 0).unwrap();
        assert_eq!(c.register(&list, 0), Err(ListFull));
        drop(a);
        c.register(&list, 0).unwrap();
        assert_eq!(list.len(), 2);
    }
}
