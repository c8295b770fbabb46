//! What one actor lets every thread see of itself: its last snapshot, whether it may be read, and who waits for the next.
//! Invariant: a reader gets one snapshot whole, never one older than it got before, and none of an ended life once a new one published;
//! whoever registers, looks and then sleeps misses no snapshot. `tests/loom.rs` holds this in every order of the threads.

use std::sync::Arc;

use crate::sync::{AtomicBool, Ordering, Slot};
use crate::waiters::Waiters;

/// The place where snapshots are published. One thread at a time publishes; any thread reads.
#[derive(Debug)]
pub struct Published<T> {
    snapshot: Slot<T>,
    /// Whether the snapshot may be read: not while a new life has not yet published its first.
    serving: AtomicBool,
    /// Whether nothing may be read any more.
    offline: AtomicBool,
    waiters: Waiters,
}

impl<T> Published<T> {
    /// Nothing is published yet. At most `max_waiters` wait at once.
    #[must_use]
    pub fn new(max_waiters: usize) -> Self {
        Self {
            snapshot: Slot::empty(),
            serving: AtomicBool::new(false),
            offline: AtomicBool::new(false),
            waiters: Waiters::new(max_waiters),
        }
    }

    /// Publishes a snapshot and wakes whoever waits. What is sent to another thread after this call is seen there after the snapshot is.
    pub fn publish(&self, snapshot: Arc<T>) {
        self.snapshot.store(snapshot);
        // After the snapshot: whoever sees that it may be read sees this life's.
        self.serving.store(true, Ordering::Release);
        self.waiters.wake_all();
    }

    /// The last snapshot that any life published, whether or not it may be read.
    #[must_use]
    pub fn last(&self) -> Option<Arc<T>> {
        self.snapshot.load()
    }

    /// The last snapshot, if it may be read.
    #[must_use]
    pub fn readable(&self) -> Option<Arc<T>> {
        // Before the snapshot, for the same reason.
        let readable = self.serving.load(Ordering::Acquire) && !self.is_offline();
        if readable { self.snapshot.load() } else { None }
    }

    /// Stops readers until the next snapshot, and wakes those who wait so that they find out.
    pub fn suspend(&self) {
        self.serving.store(false, Ordering::Release);
        self.waiters.wake_all();
    }

    /// Stops readers for good, whatever the publishing thread is doing.
    pub fn set_offline(&self) {
        self.offline.store(true, Ordering::Release);
        self.waiters.wake_all();
    }

    /// Whether readers are stopped for good.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    /// Whoever waits for the next snapshot.
    #[must_use]
    pub const fn waiters(&self) -> &Waiters {
        &self.waiters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspended_life_is_not_read_and_is_there_for_the_next() {
        let published = Published::new(1);
        assert_eq!(published.readable(), None);
        published.publish(Arc::new(1));
        assert_eq!(published.readable(), Some(Arc::new(1)));
        published.suspend();
        assert_eq!((published.readable(), published.last()), (None, Some(Arc::new(1))));
        published.publish(Arc::new(2));
        assert_eq!(published.readable(), Some(Arc::new(2)));
        published.set_offline();
        published.publish(Arc::new(3));
        assert_eq!((published.readable(), published.is_offline()), (None, true));
    }
}
