//! Group coordination: one `Shard` per led partition of `__consumer_offsets`, a pure machine over classic groups and committed offsets.
//! Invariant: persisted state changes only by replaying a record, live and at load alike.

#[cfg(feature = "host")]
pub mod actor;
pub mod config;
pub mod group;
pub mod message;
pub mod records;
pub mod request;
mod requests;
pub mod response;
mod serve;
mod shard;
mod store;
mod timers;

pub use config::GroupConfig;
pub use madang_protocol::error_code::ErrorCode;
pub use message::{Effect, Input, Record, Ticket};
pub use request::Request;
pub use response::Response;
pub use shard::Shard;

/// The name of the internal topic that holds groups and committed offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The partition of `__consumer_offsets` that holds `group`: Kafka's own hash, so that both brokers read each other's topic.
/// `partitions` is the topic's partition count; 0 answers 0.
#[must_use]
pub fn partition_for_group(group: &str, partitions: u32) -> u32 {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka maps the one number that has no positive twin to 0.
    let positive = hash.checked_abs().unwrap_or(0).unsigned_abs();
    positive.checked_rem(partitions).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::partition_for_group;

    #[test]
    fn a_group_hashes_as_a_java_string_does() {
        // "hello".hashCode() == 99162322.
        assert_eq!(partition_for_group("hello", 50), 99_162_322 % 50);
        assert_eq!(partition_for_group("", 50), 0);
        // The one known short string whose hash code is i32::MIN.
        assert_eq!(partition_for_group("polygenelubricants", 50), 0);
        assert_eq!(partition_for_group("g", 0), 0);
    }
}
