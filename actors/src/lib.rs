//! Pure state machines, supervision, and their thin host on actix. Knows nothing of Kafka.
//! Invariant: without the feature `host` nothing here knows actix, tokio, a thread or a clock.

pub mod actor_ref;
pub mod child_spec;
pub mod clock;
pub mod failpoint;
#[cfg(feature = "host")]
pub mod host;
pub mod machine;
pub mod mailbox;
pub mod message;
pub mod mutants;
pub mod prng;
pub mod published;
pub mod reply;
pub mod supervisor;
mod sync;
pub mod waiters;
