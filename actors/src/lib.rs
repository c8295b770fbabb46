//! Pure state machines, supervision, and their thin host on actix. Knows nothing of Kafka.

pub mod clock;
pub mod machine;
pub mod prng;
