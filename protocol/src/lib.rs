//! Kafka's wire format: bytes in, values out. No I/O.

pub mod payload;
pub mod types;
