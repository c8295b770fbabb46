//! What threads meet at in the pure half: from std, or under `cfg(loom)` from loom, which then tries every order of the threads.
//! Invariant: nothing else in the pure half is shared between threads and changes.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, Ordering},
};

pub(crate) use slot::Slot;

#[cfg(not(loom))]
mod slot {
    use std::sync::Arc;

    use arc_swap::ArcSwapOption;

    /// A place for one shared value that is replaced whole. Reading never waits for writing.
    #[derive(Debug)]
    pub(crate) struct Slot<T>(ArcSwapOption<T>);

    impl<T> Slot<T> {
        pub(crate) fn empty() -> Self {
            Self(ArcSwapOption::empty())
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            self.0.store(Some(value));
        }

        pub(crate) fn load(&self) -> Option<Arc<T>> {
            self.0.load_full()
        }
    }
}

#[cfg(loom)]
mod slot {
    use std::sync::{Arc, Mutex, PoisonError};

    use loom::sync::atomic::{AtomicUsize, Ordering};

    /// The same with no more order between threads than arc-swap promises: a store releases, a load acquires, nothing else. The values
    /// lie behind a lock that loom does not see, so that it brings no order of its own. One thread at a time stores.
    #[derive(Debug)]
    pub(crate) struct Slot<T> {
        values: Mutex<Vec<Arc<T>>>,
        /// How many values there are for whoever reads this.
        count: AtomicUsize,
    }

    impl<T> Slot<T> {
        pub(crate) fn empty() -> Self {
            Self { values: Mutex::new(Vec::new()), count: AtomicUsize::new(0) }
        }

        pub(crate) fn store(&self, value: Arc<T>) {
            let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            values.push(value);
            let count = values.len();
            drop(values);
            self.count.store(count, Ordering::Release);
        }

        pub(crate) fn load(&self) -> Option<Arc<T>> {
            let newest = self.count.load(Ordering::Acquire).checked_sub(1)?;
            self.values.lock().unwrap_or_else(PoisonError::into_inner).get(newest).cloned()
        }
    }
}
