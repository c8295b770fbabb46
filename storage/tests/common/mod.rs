//! Batches for this crate's integration tests and benches.
#![allow(dead_code, unreachable_pub)]

use bytes::Bytes;
use madang_protocol::payload::Payload;
use madang_protocol::record_batch::{BatchHeader, Batches, layout, write_crc};
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{BatchToAppend, LogConfig};

/// A sound batch of `records` records that are `size` bytes of no meaning, as a producer sends it.
pub fn bytes(records: i32, size: usize, timestamp: i64) -> Bytes {
    let header = BatchHeader {
        base_offset: Offset(0),
        batch_length: layout::MIN_BATCH_LENGTH + size as i32,
        partition_leader_epoch: LeaderEpoch::NONE,
        magic: layout::MAGIC_V2,
        crc: 0,
        attributes: 0,
        last_offset_delta: records - 1,
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: records,
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend((0..size).map(|at| (at as i64 * 31 + timestamp) as u8));
    write_crc(&mut bytes).expect("a whole batch");
    bytes.into()
}

pub fn batch(records: i32, size: usize, timestamp: i64) -> BatchToAppend {
    BatchToAppend::new(bytes(records, size, timestamp)).expect("a whole batch")
}

/// Segments of 2 KiB with an index entry for each 256 bytes; the active one's is written twice on its way.
pub fn small() -> LogConfig {
    LogConfig { segment_bytes: 2048, index_interval_bytes: 256, active_index_bytes: 700, ..LogConfig::default() }
}

/// The headers of all batches of a payload, each with its CRC checked.
pub fn payload_batches(payload: &Payload) -> Vec<BatchHeader> {
    let bytes = payload.read().expect("readable");
    let batches = Batches::new(&bytes).map(|batch| {
        let batch = batch.expect("whole batches");
        batch.verify_crc().expect("sound batches");
        batch.header
    });
    batches.collect()
}

/// A batch of an idempotent producer in its epoch 0.
pub fn producer_batch(id: i64, sequence: i32, records: i32, size: usize, timestamp: i64) -> BatchToAppend {
    let mut raw = bytes(records, size, timestamp).to_vec();
    raw[layout::PRODUCER_ID..layout::PRODUCER_ID + 8].copy_from_slice(&id.to_be_bytes());
    raw[layout::PRODUCER_EPOCH..layout::PRODUCER_EPOCH + 2].copy_from_slice(&0_i16.to_be_bytes());
    raw[layout::BASE_SEQUENCE..layout::BASE_SEQUENCE + 4].copy_from_slice(&sequence.to_be_bytes());
    write_crc(&mut raw).expect("a whole batch");
    BatchToAppend::new(raw.into()).expect("a whole batch")
}
