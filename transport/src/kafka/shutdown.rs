//! The signal that ends listeners and connections: no new work from now on, no work at all after a deadline.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Begins the shutdown of everything that holds one of its signals.
#[derive(Debug)]
pub struct Shutdown(watch::Sender<Option<Instant>>);

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A shutdown that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::channel(None).0)
    }

    /// What listeners and connections watch.
    #[must_use]
    pub fn signal(&self) -> ShutdownSignal {
        ShutdownSignal(self.0.subscribe())
    }

    /// Stops accepting and reading now; requests in flight have `grace` to be answered. A later call moves the deadline.
    pub fn begin(&self, grace: Duration) {
        self.0.send_replace(Some(Instant::now() + grace));
    }
}

/// One watcher of a [`Shutdown`]. If the `Shutdown` is dropped without having begun, it never begins.
#[derive(Clone, Debug)]
pub struct ShutdownSignal(watch::Receiver<Option<Instant>>);

impl ShutdownSignal {
    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Resolves with the deadline once the shutdown begins, and again whenever the deadline moves.
    pub(crate) async fn next_deadline(&mut self) -> Instant {
        loop {
            if self.0.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(deadline) = *self.0.borrow_and_update() {
                return deadline;
            }
        }
    }

    /// Forgets what was seen, so that a shutdown that has already begun is reported too.
    pub(crate) fn rearm(&mut self) {
        self.0.mark_changed();
    }
}
