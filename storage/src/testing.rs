//! Headers for this crate's unit tests.

use madang_protocol::record_batch::{BatchHeader, layout};
use madang_protocol::types::{LeaderEpoch, Offset};

/// A header of `count` records at `offset`, without a producer.
pub(crate) fn header(offset: i64, count: i32) -> BatchHeader {
    BatchHeader {
        base_offset: Offset(offset),
        batch_length: layout::MIN_BATCH_LENGTH,
        partition_leader_epoch: LeaderEpoch::NONE,
        magic: layout::MAGIC_V2,
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: count,
    }
}
