//! The index of the active segment and the producers, written beside it as it grows, so that a start after a kill walks little of it.
//! Invariant: an index of the active segment is taken over only below an end that is known to be intact; else it is removed before an append.

use std::path::Path;
use std::sync::Arc;

use madang_protocol::types::Offset;

use crate::disk::{Disk, DiskFile};
use crate::format::{SNAPSHOT_SUFFIX, offset_of, offset_path};
use crate::index_file;
use crate::log::{Active, Log};
use crate::segment::{HeaderWalk, LONG_WALK_BUFFER, Summary};

/// Where an active segment is found.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) directory: &'a Path,
    pub(crate) base: Offset,
    pub(crate) file: &'a Arc<dyn DiskFile>,
    pub(crate) length: u64,
}

/// The active segment up to `end`, below which it is as it was written: its index as far as it was written, and the headers after it. None
/// if the segment does not hold what it should; it is then read as if nothing were known of it.
pub(crate) fn intact(place: Place<'_>, end: Offset, interval: u64, wall: i64) -> Option<Active> {
    if end <= place.base {
        return None;
    }
    let mut active = indexed(place, end, interval, wall)
        .unwrap_or_else(|| Active::new(place.base, Arc::clone(place.file), interval, wall));
    let mut walk = HeaderWalk::new(place.file.as_ref(), active.summary.size, place.length, LONG_WALK_BUFFER);
    while active.summary.next_offset < end {
        let (_, header) = walk.next().ok()??;
        if header.base_offset < active.summary.next_offset || header.next_offset() > end {
            return None;
        }
        active.note(&header, true);
    }
    Some(active)
}

/// What the index says, if it is whole, ends at or below `end`, and meets the segment where it says so.
fn indexed(place: Place<'_>, end: Offset, interval: u64, wall: i64) -> Option<Active> {
    let Place { disk, directory, base, file, length } = place;
    let (index, header) = index_file::open_if(disk, directory, base, |found| found.log_bytes <= length)?;
    if header.next_offset > end {
        return None;
    }
    let entries = index.load()?;
    let (mut at, mut offset) =
        entries.last().map_or((0, base), |last| (u64::from(last.position), base + i64::from(last.relative_offset)));
    let mut walk = HeaderWalk::new(file.as_ref(), at, header.log_bytes, LONG_WALK_BUFFER);
    let mut first = true;
    while let Some((position, batch)) = walk.next().ok()? {
        let follows =
            if first { batch.base_offset == offset || entries.is_empty() } else { batch.base_offset >= offset };
        if !follows {
            return None;
        }
        (at, offset, first) = (position + batch.size_in_bytes() as u64, batch.next_offset(), false);
    }
    if (at, offset) != (header.log_bytes, header.next_offset) {
        return None;
    }
    let first = HeaderWalk::new(file.as_ref(), 0, length, LONG_WALK_BUFFER).next().ok()?;
    let mut active = Active::new(base, Arc::clone(file), interval, wall);
    active.adopt(Summary::from(header), &entries, first.map(|(_, first)| first), wall);
    Some(active)
}

impl Log {
    /// Writes index and producers once enough was appended since the last time. That it fails costs the next start time, and nothing now.
    pub(crate) fn note_active(&mut self) {
        if self.active.summary.size < self.noted_size + self.config.active_index_bytes.max(1) {
            return;
        }
        self.noted_size = self.active.summary.size;
        if let Err(error) = self.write_index(&self.active) {
            tracing::warn!(directory = %self.directory.display(), %error, "index of the active segment not written");
        }
        self.write_snapshot(self.log_end_offset());
        self.remove_loose_snapshots();
    }

    /// Snapshots that are neither at a segment's start nor the newest shorten no recovery any more.
    pub(crate) fn remove_loose_snapshots(&self) {
        let Ok(names) = self.disk.list(&self.directory) else { return };
        let end = self.log_end_offset();
        let at_a_start = |offset: Offset| {
            offset == self.active.segment.base_offset || self.sealed.iter().any(|segment| segment.base_offset == offset)
        };
        for offset in names.iter().filter_map(|name| offset_of(name, SNAPSHOT_SUFFIX)) {
            if offset < end && !at_a_start(offset) {
                let path = offset_path(&self.directory, offset, SNAPSHOT_SUFFIX);
                if let Err(error) = self.disk.remove_file(&path) {
                    tracing::debug!(path = %path.display(), %error, "producer snapshot stays");
                }
            }
        }
    }
}
