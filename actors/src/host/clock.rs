//! The node's clocks, read by shells only. Follows tokio's clock, so a test that pauses it pauses everything.

use std::future::Future;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::clock::{Mono, Wall};

static START: OnceLock<Instant> = OnceLock::new();

fn start() -> Instant {
    *START.get_or_init(Instant::now)
}

/// The monotonic clock.
#[must_use]
pub fn now() -> Mono {
    let start = start(); // Before the reading, or the first reading would lie before the start.
    Mono::new(tokio::time::Instant::now().into_std().saturating_duration_since(start))
}

/// The wall clock.
#[must_use]
pub fn wall() -> Wall {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// The instant of tokio's timers that `at` is.
#[must_use]
pub fn instant(at: Mono) -> tokio::time::Instant {
    let far = std::time::Duration::from_secs(86_400 * 365);
    tokio::time::Instant::from_std(start() + at.since_start().min(far))
}

/// Resolves when `work` does, or at `at` with none: `work` is dropped then.
pub async fn until<T>(at: Mono, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(instant(at), work).await.ok()
}
