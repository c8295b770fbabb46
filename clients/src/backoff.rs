//! How long to wait before the next try, and when to give up.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// What a wait without end comes to.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The moment that comes `time` after `start`, however long that is.
pub(crate) fn after(start: Instant, time: Duration) -> Instant {
    start + time.min(FOR_EVER)
}

/// Waits that double from 50 ms to 1 s until a deadline.
#[derive(Debug)]
pub(crate) struct Backoff {
    deadline: Instant,
    next: Duration,
}

impl Backoff {
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { deadline, next: FIRST }
    }

    pub(crate) fn within(time: Duration) -> Self {
        Self::until(after(Instant::now(), time))
    }

    /// Waits; `false`, at once, if the next try would come after the deadline.
    pub(crate) async fn wait(&mut self) -> bool {
        if Instant::now() + self.next > self.deadline {
            return false;
        }
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(LONGEST);
        true
    }
}
