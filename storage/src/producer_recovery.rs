//! The idempotent producers of a log that is opened or cut: from the newest sound snapshot and the batches after it.
//! Invariant: a snapshot only saves work; without any, the batches alone give the same state.

use std::io;
use std::path::Path;

use madang_protocol::types::Offset;

use crate::config::millis;
use crate::disk::{Disk, read_small};
use crate::format::{MAX_SIDE_FILE, SNAPSHOT_SUFFIX, offset_of, offset_path};
use crate::log::{Log, LogError, doing, reading};
use crate::producer_state::ProducerState;
use crate::segment::{HeaderWalk, LONG_WALK_BUFFER};

/// Removes snapshots from a future that was cut; answers whether there were any.
pub(crate) fn remove_snapshots_above(disk: &dyn Disk, directory: &Path, end: Offset) -> io::Result<bool> {
    let mut removed = false;
    for name in disk.list(directory)? {
        if offset_of(&name, SNAPSHOT_SUFFIX).is_some_and(|offset| offset > end) {
            disk.remove_file(&directory.join(name))?;
            removed = true;
        }
    }
    Ok(removed)
}

/// The producers at the log's end: the newest sound snapshot, and the batches after it.
pub(crate) fn rebuild_producers(log: &Log) -> Result<ProducerState, LogError> {
    let empty = || ProducerState::new(log.config.max_producers, millis(log.config.producer_id_expiration));
    let names = log.disk.list(&log.directory).map_err(doing("list the partition's directory"))?;
    let mut snapshots: Vec<Offset> = names.iter().filter_map(|name| offset_of(name, SNAPSHOT_SUFFIX)).collect();
    snapshots.retain(|offset| *offset <= log.log_end_offset());
    snapshots.sort_unstable();
    let (mut state, mut from) = (empty(), log.log_start_offset);
    for offset in snapshots.into_iter().rev() {
        let path = offset_path(&log.directory, offset, SNAPSHOT_SUFFIX);
        let bytes = read_small(log.disk.as_ref(), &path, MAX_SIDE_FILE).ok();
        if let Some(found) = bytes.and_then(|bytes| empty().filled(&bytes)) {
            (state, from) = (found, offset);
            break;
        }
    }
    for (file, start, size) in log.files_after(from).map_err(reading)? {
        let mut walk = HeaderWalk::new(file.as_ref(), start, size, LONG_WALK_BUFFER);
        while let Some((_, header)) = walk.next().map_err(reading)? {
            if header.base_offset >= from {
                state.note(&header, header.max_timestamp);
            }
        }
    }
    Ok(state)
}
