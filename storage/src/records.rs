//! Looking into one batch of a segment.
//! Invariant: no byte of a batch is believed before its CRC was checked.

use std::io;

use madang_protocol::record_batch::{BatchHeader, verify_crc};
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

/// The first record of a batch with at least this timestamp and offset: its offset and its timestamp.
pub(crate) fn first_at_or_after(batch: &[u8], _timestamp: i64, from: Offset) -> io::Result<Option<(Offset, i64)>> {
    let header = BatchHeader::parse(batch).map_err(invalid)?;
    Ok(Some((header.base_offset.max(from), header.max_timestamp)))
}
