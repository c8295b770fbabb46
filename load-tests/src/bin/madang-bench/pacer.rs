//! Wakes producers when something of theirs is due. The runtime's own timers are no finer than a millisecond, so this is a thread that sleeps.
//! Invariant: nobody is woken before something is due, and nobody is waited for.

use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use tokio::sync::Notify;

use super::state::Shared;

/// What becomes due within so many nanoseconds is sent at once.
const LEAST: u64 = 100_000;
/// How long it sleeps at most, so that it sees the end.
const MOST: Duration = Duration::from_millis(20);

/// Wakes each producer whose record has become due, until the producers are to end; then all of them.
pub(crate) fn run(shared: &Shared, wakers: &[Notify]) {
    if let Some(schedule) = shared.schedule {
        let count = wakers.len() as u64;
        let mut woken = 0;
        while !shared.producers_end.is_set() {
            let now = shared.now();
            if now >= shared.end_ns.load(Ordering::Acquire) {
                break;
            }
            let due = schedule.all_due(now);
            for place in woken.max(due.saturating_sub(count))..due {
                wakers[(place % count) as usize].notify_one();
            }
            woken = due;
            let next = schedule.next_tick(now, LEAST);
            sleep(Duration::from_nanos(next.saturating_sub(shared.now())).min(MOST));
        }
    }
    for waker in wakers {
        waker.notify_one();
    }
}
