//! How many bytes of requests the whole node holds at once, over all connections and threads.
//! Invariant: frames that are still arriving can never take the room of those that are complete, so slow senders cannot stop the rest.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes a permit stands for. Frames are rounded up to it.
const UNIT: usize = 1024;

/// Bytes shared by all connections: half for frames that are arriving, half for requests that are in flight.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    arriving: Pool,
    in_flight: Pool,
}

impl MemoryBudget {
    /// A budget of `bytes`, at least 2 MiB.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let half = bytes.max(2 << 20) / 2;
        Self { arriving: Pool::new(half), in_flight: Pool::new(half) }
    }

    pub(crate) fn arriving(&self) -> &Pool {
        &self.arriving
    }

    pub(crate) fn in_flight(&self) -> &Pool {
        &self.in_flight
    }
}

/// Bytes taken from a pool, given back when dropped.
pub(crate) type Charge = Option<OwnedSemaphorePermit>;

/// One half of the budget; first come, first served.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    units: Arc<Semaphore>,
    total: u32,
}

impl Pool {
    fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes / UNIT)
            .unwrap_or(u32::MAX)
            .min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self { units: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Takes `bytes` if they are free now.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.units).try_acquire_many_owned(self.units_of(bytes)).ok()
    }

    /// Takes `bytes`, waiting for them. More than the pool has takes all of it, so it is alone.
    pub(crate) async fn take(&self, bytes: usize) -> Charge {
        // The semaphore is never closed.
        Arc::clone(&self.units).acquire_many_owned(self.units_of(bytes)).await.ok()
    }

    /// What `bytes` are charged as: whole units, at most the pool.
    pub(crate) fn rounded(&self, bytes: usize) -> usize {
        self.units_of(bytes) as usize * UNIT
    }

    fn units_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).min(self.total)
    }

    #[cfg(test)]
    fn free(&self) -> usize {
        self.units.available_permits() * UNIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_above_the_pool_takes_all_of_it_and_gives_it_back() {
        let budget = MemoryBudget::new(4 << 20);
        let all = budget.in_flight().try_take(1 << 30).expect("the pool is empty");
        assert_eq!(budget.in_flight().free(), 0);
        assert!(budget.in_flight().try_take(1).is_none());
        assert_eq!(budget.arriving().free(), 2 << 20);
        drop(all);
        assert_eq!(budget.in_flight().free(), 2 << 20);
    }
}
