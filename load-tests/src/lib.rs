//! Faults on clusters of real processes under load, and the checker of what clients saw.
//! Invariant: the checker reads no clock and no file; it judges the same history the same way for ever.

pub mod checker;
pub mod history;
pub mod payload;
pub mod synthetic;
