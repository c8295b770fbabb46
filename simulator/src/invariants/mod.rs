//! The invariants, one family a file. Each names its code when it is broken.

pub mod cluster;
pub mod groups;
pub mod replication;
pub mod storage;
pub mod supervision;

use madang_protocol::record_batch::{BatchHeader, Batches};
use madang_protocol::types::Offset;
use madang_storage::{LogView, ReadError};

use crate::history::content;

/// A batch as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Its header.
    pub header: BatchHeader,
    /// Its content.
    pub content: u64,
    /// Whether its bytes fit its checksum.
    pub sound: bool,
}

/// All batches of `bytes`, up to the first that is none.
#[must_use]
pub fn batches(bytes: &[u8]) -> Vec<Read> {
    let whole = Batches::new(bytes).map_while(Result::ok);
    whole
        .map(|batch| Read { header: batch.header, content: content(batch.bytes), sound: batch.verify_crc().is_ok() })
        .collect()
}

/// The batches of a view from `from` to `to`.
///
/// # Errors
/// What a client would be told.
pub fn read_view(view: &LogView, from: i64, to: i64) -> Result<Vec<Read>, ReadError> {
    let mut found = Vec::new();
    let mut at = from;
    while at < to {
        let read = view.read(Offset(at), Offset(to), 1 << 20, true)?;
        let bytes = read.records.read().map_err(ReadError::Io)?;
        let here = batches(&bytes);
        let Some(last) = here.last() else { break };
        at = last.header.next_offset().0.max(at + 1);
        found.extend(here);
    }
    Ok(found)
}
