//! The invariants, one family a file. Each names its code when it is broken.

pub mod cluster;
pub mod compaction;
pub mod fetches;
pub mod groups;
pub mod metadata;
pub mod producers;
pub mod replication;
pub mod restarts;
pub mod several;
pub mod storage;
pub mod supervision;

use madang_protocol::compression::Limits;
use madang_protocol::record::RecordSet;
use madang_protocol::record_batch::{BatchHeader, BatchView, Batches};
use madang_protocol::types::Offset;
use madang_storage::{LogView, ReadError};

use crate::history::content;
use crate::invariants::compaction::Record;

/// A batch as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its header.
    pub header: BatchHeader,
    /// Its content.
    pub content: u64,
    /// Whether its bytes fit its checksum.
    pub sound: bool,
    /// Its records by offset, if they were asked for.
    pub records: Vec<(i64, Record)>,
}

/// All batches of `bytes`, up to the first that is none.
#[must_use]
pub fn batches(bytes: &[u8]) -> Vec<Read> {
    read_batches(bytes, false)
}

/// The same, with their records if they are to be told apart.
#[must_use]
pub fn read_batches(bytes: &[u8], with_records: bool) -> Vec<Read> {
    let whole = Batches::new(bytes).map_while(Result::ok);
    let read = |batch: BatchView<'_>| {
        let sound = batch.verify_crc().is_ok();
        let records = if with_records && sound { records_of(&batch) } else { Vec::new() };
        Read { header: batch.header, content: content(batch.bytes), sound, records }
    };
    whole.map(read).collect()
}

fn records_of(batch: &BatchView<'_>) -> Vec<(i64, Record)> {
    if batch.header.is_control() || batch.header.record_count == 0 {
        return Vec::new();
    }
    let Ok(set) = RecordSet::of(batch, &Limits::for_max_message_bytes(1 << 20)) else { return Vec::new() };
    let record = |record: madang_protocol::record::Record<'_>| {
        let key = hash(0xcbf2_9ce4_8422_2325, record.key.unwrap_or_default());
        (record.offset(&batch.header).0, Record { key, hash: hash(key ^ 1, record.value.unwrap_or_default()) })
    };
    set.iter().map_while(Result::ok).map(record).collect()
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The batches of a view from `from` to `to`.
///
/// # Errors
/// What a client would be told.
pub fn read_view(view: &LogView, from: i64, to: i64) -> Result<Vec<Read>, ReadError> {
    read_view_with(view, from, to, false)
}

/// The same, with their records if they are to be told apart.
///
/// # Errors
/// What a client would be told.
pub fn read_view_with(view: &LogView, from: i64, to: i64, with_records: bool) -> Result<Vec<Read>, ReadError> {
    let mut found = Vec::new();
    let mut at = from;
    while at < to {
        let read = view.read(Offset(at), Offset(to), 1 << 20, true)?;
        let bytes = read.records.read().map_err(ReadError::Io)?;
        let here = read_batches(&bytes, with_records);
        let Some(last) = here.last() else { break };
        at = last.header.next_offset().0.max(at + 1);
        found.extend(here);
    }
    Ok(found)
}
