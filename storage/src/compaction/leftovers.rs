//! What a crash in the middle of an installation leaves, when a log is opened.
//! Invariant: a `.swap` file counts from the moment it has that name, and takes the place of every segment that it covers.

use std::io;
use std::path::Path;
use std::sync::Arc;

use madang_protocol::types::Offset;

use crate::disk::{Disk, OpenMode};
use crate::format::{
    CLEANED_SUFFIX, INDEX_SUFFIX, LOG_SUFFIX, SNAPSHOT_SUFFIX, SWAP_SUFFIX, TIME_INDEX_SUFFIX, offset_of, offset_path,
};
use crate::log::{Active, LogError, doing, syncing};
use crate::scan::scan_batches;

/// A cleaned segment under its second name.
struct Swap {
    base_offset: Offset,
    next_offset: Offset,
}

/// Removes what was never finished, and finishes what was begun. Answers whether there was anything to finish.
///
/// # Errors
/// `Quarantine` if a `.swap` file is damaged, as the segments before it may be gone; nothing was changed then. `Io` if the disk fails.
pub(crate) fn complete_swaps(disk: &dyn Disk, directory: &Path) -> Result<bool, LogError> {
    let names = disk.list(directory).map_err(doing("list the partition's directory"))?;
    let mut swaps = Vec::new();
    for base_offset in names.iter().filter_map(|name| offset_of(name, SWAP_SUFFIX)) {
        swaps.push(measure(disk, directory, base_offset)?);
    }
    for name in names.iter().filter(|name| name.ends_with(CLEANED_SUFFIX)) {
        disk.remove_file(&directory.join(name)).map_err(doing("remove a segment that was not finished"))?;
    }
    if swaps.is_empty() {
        return Ok(false);
    }
    let bases: Vec<Offset> = names.iter().filter_map(|name| offset_of(name, LOG_SUFFIX)).collect();
    for swap in &swaps {
        let covered = |base: &&Offset| swap.base_offset < **base && **base < swap.next_offset;
        for base in bases.iter().filter(covered) {
            remove_segment(disk, directory, *base)?;
        }
        remove_index(disk, directory, swap.base_offset)?;
    }
    // No segment that a new one covers may be there when the new one has its name.
    disk.sync_dir(directory).map_err(syncing("sync the partition's directory"))?;
    for swap in &swaps {
        let from = offset_path(directory, swap.base_offset, SWAP_SUFFIX);
        let to = offset_path(directory, swap.base_offset, LOG_SUFFIX);
        disk.rename(&from, &to).map_err(doing("rename a cleaned segment"))?;
    }
    disk.sync_dir(directory).map_err(syncing("sync the partition's directory"))?;
    Ok(true)
}

fn measure(disk: &dyn Disk, directory: &Path, base_offset: Offset) -> Result<Swap, LogError> {
    let path = offset_path(directory, base_offset, SWAP_SUFFIX);
    let file = disk.open(&path, OpenMode::Existing).map_err(doing("open a cleaned segment"))?;
    let length = file.len().map_err(doing("measure a cleaned segment"))?;
    let mut walked = Active::new(base_offset, Arc::clone(&file), u64::MAX, -1);
    match scan_batches(file.as_ref(), length, &mut walked)? {
        None => Ok(Swap { base_offset, next_offset: walked.summary.next_offset }),
        Some(problem) => {
            Err(LogError::Quarantine { reason: format!("cleaned segment {base_offset} is damaged: {problem}") })
        }
    }
}

/// Removes a segment's files, the batches first.
pub(super) fn remove_segment(disk: &dyn Disk, directory: &Path, base_offset: Offset) -> Result<(), LogError> {
    remove_if_there(disk, &offset_path(directory, base_offset, LOG_SUFFIX))?;
    remove_if_there(disk, &offset_path(directory, base_offset, SNAPSHOT_SUFFIX))?;
    remove_index(disk, directory, base_offset)
}

/// Removes a segment's index: it is not of the segment that takes the name.
pub(crate) fn remove_index(disk: &dyn Disk, directory: &Path, base_offset: Offset) -> Result<(), LogError> {
    remove_if_there(disk, &offset_path(directory, base_offset, INDEX_SUFFIX))?;
    remove_if_there(disk, &offset_path(directory, base_offset, TIME_INDEX_SUFFIX))
}

fn remove_if_there(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    match disk.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(doing("delete a file of a segment")(error)),
        _ => Ok(()),
    }
}
