//! A plain thread that sees arbiters that do not turn. Stuck is not dead: a handler that runs cannot be killed.
//! Invariant: it allocates, locks and calls nothing that an arbiter could hold, except its own list.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::arbiter::{Arbiter, Role};

/// Set once and for ever when a thread has been written off. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Revoked(Arc<AtomicBool>);

impl Revoked {
    /// Writes the thread off.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether the thread has been written off: it must touch nothing more.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// When the watchdog speaks and when it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchdogLimits {
    /// Silence after which it logs.
    pub warn: Duration,
    /// Silence after which it calls.
    pub stuck: Duration,
    /// How often it looks.
    pub interval: Duration,
}

impl Default for WatchdogLimits {
    /// Logs after 2 s, calls after 10 s, looks twice a second.
    fn default() -> Self {
        Self { warn: Duration::from_secs(2), stuck: Duration::from_secs(10), interval: Duration::from_millis(500) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Turning,
    Slow,
    Stuck,
}

struct Watched {
    arbiter: Arbiter,
    verdict: Verdict,
}

struct Shared {
    watched: Mutex<Vec<Watched>>,
    ended: Mutex<bool>,
    bell: Condvar,
}

/// The thread's handle; dropping it ends the thread.
pub struct Watchdog {
    shared: Arc<Shared>,
    limits: WatchdogLimits,
}

impl Watchdog {
    /// Starts the thread. `on_stuck` gets the arbiter's name and role, once per spell of silence, on the watchdog's thread:
    /// a network or metadata arbiter means fence and exit; a disk arbiter, whose [`Revoked`] flag is already set, costs
    /// its log directory.
    ///
    /// # Errors
    /// If the thread cannot be created.
    pub fn start(limits: WatchdogLimits, on_stuck: impl Fn(&str, &Role) + Send + 'static) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { watched: Mutex::new(Vec::new()), ended: Mutex::new(false), bell: Condvar::new() });
        let looking = Arc::clone(&shared);
        thread::Builder::new().name("watchdog".into()).spawn(move || {
            let mut ended = looking.ended.lock().unwrap_or_else(PoisonError::into_inner);
            let mut awake = Awake::new(Instant::now());
            while !*ended {
                let woken = looking.bell.wait_timeout(ended, limits.interval);
                ended = woken.unwrap_or_else(PoisonError::into_inner).0;
                look(&looking, limits, awake.at(Instant::now(), limits), &on_stuck);
            }
        })?;
        Ok(Self { shared, limits })
    }

    /// Watches one more arbiter.
    pub fn watch(&self, arbiter: &Arbiter) {
        let mut watched = self.shared.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.push(Watched { arbiter: arbiter.clone(), verdict: Verdict::Turning });
    }

    /// When it speaks and acts.
    #[must_use]
    pub const fn limits(&self) -> WatchdogLimits {
        self.limits
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.bell.notify_all();
    }
}

impl std::fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watchdog").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Since when the watchdog has looked without a break. A process that is stopped, or a machine that is suspended, makes nobody else stuck.
struct Awake {
    since: Instant,
    last: Instant,
}

impl Awake {
    const fn new(now: Instant) -> Self {
        Self { since: now, last: now }
    }

    /// It looks again; answers how long it has been awake.
    fn at(&mut self, now: Instant, limits: WatchdogLimits) -> Duration {
        if now.saturating_duration_since(self.last) > limits.interval + limits.warn {
            self.since = now;
        }
        self.last = now;
        now.saturating_duration_since(self.since)
    }
}

fn look(shared: &Shared, limits: WatchdogLimits, awake: Duration, on_stuck: &impl Fn(&str, &Role)) {
    let mut stuck = Vec::new();
    let mut all = shared.watched.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|watched| !watched.arbiter.has_ended());
    for watched in all.iter_mut() {
        let silence = watched.arbiter.silence().min(awake);
        let verdict = judge(silence, limits);
        let (name, role) = (watched.arbiter.name(), watched.arbiter.role());
        if verdict != watched.verdict {
            match verdict {
                Verdict::Turning => tracing::warn!(arbiter = name, %role, "the arbiter turns again"),
                Verdict::Slow => tracing::warn!(arbiter = name, %role, ?silence, "the arbiter does not turn"),
                Verdict::Stuck => tracing::error!(arbiter = name, %role, ?silence, "the arbiter is stuck"),
            }
            if verdict == Verdict::Stuck {
                if matches!(role, Role::Disk(_)) {
                    watched.arbiter.revoked().set();
                }
                stuck.push(watched.arbiter.clone());
            }
        }
        watched.verdict = verdict;
    }
    drop(all); // The callback may watch another arbiter.
    for arbiter in stuck {
        on_stuck(arbiter.name(), arbiter.role());
    }
}

fn judge(silence: Duration, limits: WatchdogLimits) -> Verdict {
    if silence > limits.stuck {
        Verdict::Stuck
    } else if silence > limits.warn {
        Verdict::Slow
    } else {
        Verdict::Turning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_that_was_asleep_begins_anew() {
        let (limits, start) = (WatchdogLimits::default(), Instant::now());
        let mut awake = Awake::new(start);
        for looks in 1..=20 {
            assert_eq!(awake.at(start + limits.interval * looks, limits), limits.interval * looks);
        }
        let woken = start + Duration::from_secs(100);
        assert_eq!(awake.at(woken, limits), Duration::ZERO);
        assert_eq!(awake.at(woken + limits.interval, limits), limits.interval);
    }

    #[test]
    fn silence_is_judged_by_the_limits_exclusively() {
        let limits = WatchdogLimits::default();
        for (silence, expected) in [
            (Duration::ZERO, Verdict::Turning),
            (limits.warn, Verdict::Turning),
            (limits.warn + Duration::from_millis(1), Verdict::Slow),
            (limits.stuck, Verdict::Slow),
            (limits.stuck + Duration::from_millis(1), Verdict::Stuck),
        ] {
            assert!(judge(silence, limits) == expected, "{silence:?}");
        }
    }
}
