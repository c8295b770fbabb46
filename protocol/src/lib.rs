//! Kafka's wire format: bytes in, values out. No I/O.

pub mod payload;
pub mod types;
pub mod compression;
pub mod record;
pub mod record_batch;
