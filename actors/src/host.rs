//! The half that runs on actix: children in guarded tasks, supervisors, arbiters, the watchdog.
//! Invariant: whatever a child does short of aborting the process, its end is reported to its supervisor exactly once.

pub mod arbiter;
pub mod child;
pub mod clock;
mod guard;
mod panics;
pub mod shell;
pub mod supervise;
pub mod tree;
pub mod watchdog;

pub use arbiter::{Arbiter, Placement, Role};
pub use child::{Branch, Child, StopSignal, TaskContext};
pub use panics::{assert_panics_unwind, install_panic_hook};
pub use shell::{Behavior, ShellContext, StartResult};
pub use supervise::{ChildError, Observer, SupervisorHandle};
pub use tree::{Tree, TreeOptions, TreeSnapshot, TreeViewer};
pub use watchdog::{Revoked, Watchdog, WatchdogLimits};
