//! Looking into one batch of a segment.
//! Invariant: no byte of a batch is believed before its CRC was checked.

use std::io;

use madang_protocol::compression::Limits;
use madang_protocol::record::RecordSet;
use madang_protocol::record_batch::{BatchHeader, BatchView, verify_crc};
use madang_protocol::types::Offset;

use crate::disk::{DiskFile, read_exact_at};

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Reads a whole batch and checks its CRC. Its size was checked against its segment's.
pub(crate) fn read_batch(file: &dyn DiskFile, position: u64, header: &BatchHeader) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; header.size_in_bytes()];
    read_exact_at(file, position, &mut bytes)?;
    verify_crc(&bytes).map_err(invalid)?;
    Ok(bytes)
}

/// The first record of a batch with at least this timestamp (milliseconds) and offset: its offset and its timestamp. Control records are
/// no records for a consumer.
pub(crate) fn first_at_or_after(batch: &[u8], timestamp: i64, from: Offset) -> io::Result<Option<(Offset, i64)>> {
    let mut first = None;
    each(batch, |offset, time| {
        let found = time >= timestamp && offset >= from;
        first = found.then_some((offset, time));
        !found
    })?;
    Ok(first)
}

/// The highest timestamp (milliseconds) of a batch's records from this offset on; -1 if there is none.
pub(crate) fn highest_from(batch: &[u8], from: Offset) -> io::Result<i64> {
    let mut highest = -1;
    each(batch, |offset, time| {
        if offset >= from {
            highest = highest.max(time);
        }
        true
    })?;
    Ok(highest)
}

/// Shows the records of a batch one after the other, until `more` is false.
fn each(batch: &[u8], mut more: impl FnMut(Offset, i64) -> bool) -> io::Result<()> {
    let view = BatchView::parse(batch).map_err(invalid)?;
    if view.header.is_control() {
        return Ok(());
    }
    // It passed the produce path's limit of its own time, so that of today's size is a bound on memory, not on what is stored.
    let records = RecordSet::of(&view, &Limits::for_max_message_bytes(batch.len())).map_err(invalid)?;
    for record in records.iter() {
        let record = record.map_err(invalid)?;
        if !more(record.offset(&view.header), record.timestamp(&view.header)) {
            break;
        }
    }
    Ok(())
}
