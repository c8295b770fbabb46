//! Reading batches back from the device and checking each: what a start does with what it cannot trust.
//! Invariant: only whole batches with a sound CRC, in the order of their offsets, are taken into account.

use madang_protocol::record_batch::{BatchHeader, Scan, scan};

use crate::disk::{DiskFile, MAX_BATCH, read_exact_at};
use crate::log::{Active, LogError, doing, reading, syncing};
use crate::mutants::mutant;

/// Bytes that a scan reads at once, a longer batch aside.
const SCAN_BUFFER: usize = 256 << 10;

/// Makes the device tell what it has from `position` on: what is dirty goes down first, then the pages go, so that the next read is not of
/// the cache. After an fsync that failed unseen, cache and device differ. `synced` says that nothing of it is dirty.
pub(crate) fn settle_tail(file: &dyn DiskFile, position: u64, synced: bool) -> Result<(), LogError> {
    if !synced {
        file.sync().map_err(syncing("sync a recovered tail"))?;
    }
    if mutant(37) {
        return Ok(());
    }
    file.drop_cache(position).map_err(doing("drop a recovered tail's pages"))
}

/// Takes the sound batches after those that `active` knows into account; answers what ends them before the file ends.
pub(crate) fn scan_batches(file: &dyn DiskFile, length: u64, active: &mut Active) -> Result<Option<String>, LogError> {
    let mut buffer = vec![0; SCAN_BUFFER];
    let mut wanted = SCAN_BUFFER as u64;
    while active.summary.size < length {
        let left = length - active.summary.size;
        if wanted > buffer.len() as u64 {
            if wanted > left.min(MAX_BATCH) {
                return Ok(Some("the last batch is not whole".to_owned()));
            }
            buffer.resize(usize::try_from(wanted).unwrap_or(SCAN_BUFFER), 0);
        }
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let bytes = buffer.get_mut(..piece).unwrap_or_default();
        read_exact_at(file, active.summary.size, bytes).map_err(reading)?;
        let mut headers: Vec<BatchHeader> = Vec::new();
        let (_, stopped) = scan(bytes, active.summary.next_offset, |_, view| headers.push(view.header));
        for header in &headers {
            active.note(header, true);
        }
        match stopped {
            Scan::Complete => wanted = SCAN_BUFFER as u64,
            Scan::Torn { needed } if needed > left => return Ok(Some("the last batch is not whole".to_owned())),
            Scan::Torn { needed } => wanted = needed,
            Scan::Corrupt(error) => return Ok(Some(error.to_string())),
        }
    }
    Ok(None)
}
