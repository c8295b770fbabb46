//! Faults on clusters of real processes under load, the checker of what clients saw, and the pure half of the load generator `madang-bench`.
//! Invariant: the checker reads no clock and no file; it judges the same history the same way for ever.

pub mod bench;
pub mod checker;
pub mod history;
pub mod payload;
pub mod synthetic;
