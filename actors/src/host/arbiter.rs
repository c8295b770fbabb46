//! Arbiters: a named thread each, with one current-thread runtime, a role and a heartbeat.
//! Invariant: the heartbeat advances only while the arbiter's own loop turns.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::panics::install_panic_hook;
use super::watchdog::Revoked;

/// How often an arbiter shows that it lives.
pub const HEARTBEAT: Duration = Duration::from_millis(100);

/// What an arbiter's thread is for; decides what its being stuck costs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sockets.
    Network,
    /// The quorum member, the controller, supervision.
    Metadata,
    /// The partitions of one log directory.
    Disk(PathBuf),
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network => f.write_str("network"),
            Self::Metadata => f.write_str("metadata"),
            Self::Disk(dir) => write!(f, "disk({})", dir.display()),
        }
    }
}

/// When an arbiter's loop last turned.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    start: Instant,
    millis: AtomicU64,
    /// The thread has ended: silence is no sign of being stuck.
    ended: AtomicBool,
}

impl Heartbeat {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), millis: AtomicU64::new(0), ended: AtomicBool::new(false) }
    }

    pub(crate) fn beat(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Release);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// How long the loop has not turned by `now`; zero once it has ended.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        if self.has_ended() {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.millis.load(Ordering::Acquire));
        now.saturating_duration_since(self.start).saturating_sub(last)
    }
}

/// Marks the end of the thread's loop, however it comes.
struct EndOfBeats(Arc<Heartbeat>);

impl Drop for EndOfBeats {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

/// A handle to an arbiter. Cheap to clone; the thread runs until [`Arbiter::stop`] or the end of its actix system.
#[derive(Clone, Debug)]
pub struct Arbiter {
    shared: Arc<Shared>, // One pointer: every child's declaration holds a handle.
}

#[derive(Debug)]
struct Shared {
    name: String,
    role: Role,
    handle: actix_rt::ArbiterHandle,
    heartbeat: Arc<Heartbeat>,
    revoked: Revoked,
}

impl Arbiter {
    /// Starts a thread. Linux shows the first 15 bytes of `name`. Needs a running actix system on this thread.
    ///
    /// # Errors
    /// If the thread or its runtime cannot be created.
    pub fn start(name: &str, role: Role) -> io::Result<Self> {
        install_panic_hook();
        let mut visible: Vec<u8> = name.bytes().filter(|byte| *byte != 0).collect();
        visible.truncate(15);
        let visible = CString::new(visible).unwrap_or_default();
        let arbiter = actix_rt::Arbiter::try_with_tokio_rt(move || {
            let _ = rustix::thread::set_name(&visible); // A wrong name in top is no reason not to run.
            tokio::runtime::Builder::new_current_thread().enable_all().build()
        })?;
        let heartbeat = Arc::new(Heartbeat::new());
        let handle = arbiter.handle();
        drop(arbiter); // Joining a thread that may hang is nobody's job; it ends with its last task.
        let beating = Arc::clone(&heartbeat);
        handle.spawn_fn(move || {
            actix_rt::spawn(async move {
                let end = EndOfBeats(beating);
                loop {
                    end.0.beat();
                    tokio::time::sleep(HEARTBEAT).await;
                }
            });
        });
        let shared = Shared { name: name.into(), role, handle, heartbeat, revoked: Revoked::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What it is for.
    #[must_use]
    pub fn role(&self) -> &Role {
        &self.shared.role
    }

    /// The flag that its thread checks before each system call: set once it has been written off.
    #[must_use]
    pub fn revoked(&self) -> &Revoked {
        &self.shared.revoked
    }

    /// How long its loop has not turned.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.shared.heartbeat.silence(Instant::now())
    }

    /// Whether the thread's loop is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.heartbeat.has_ended()
    }

    /// Runs `work` on the thread; false if the thread has ended.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) -> bool {
        self.shared.handle.spawn_fn(work)
    }

    /// Asks the thread to end; what runs on it is dropped.
    pub fn stop(&self) {
        self.shared.handle.stop();
    }
}

/// Where a child lives.
#[derive(Clone, Debug, Default)]
pub enum Placement {
    /// On its supervisor's own thread.
    #[default]
    Here,
    /// On an arbiter.
    Arbiter(Arbiter),
}

impl Placement {
    /// Runs `work` there, inside the thread's local tasks. False if the thread has ended: `work` is dropped.
    pub(crate) fn run(&self, work: impl FnOnce() + Send + 'static) -> bool {
        match self {
            Self::Here => {
                work();
                true
            }
            Self::Arbiter(arbiter) => arbiter.run(work),
        }
    }
}

impl From<&Arbiter> for Placement {
    fn from(arbiter: &Arbiter) -> Self {
        Self::Arbiter(arbiter.clone())
    }
}
