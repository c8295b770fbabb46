//! The writer's side: what is to be compacted, and how a result takes its place.
//! Invariant: names change in an order in which every prefix is a whole log; lower offsets before higher ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use madang_actors::clock::Wall;
use madang_protocol::record_batch::layout;
use madang_protocol::types::Offset;

use super::leftovers::{remove_index, remove_segment};
use super::plan::{GroupLimits, SegmentFacts, cleanable, is_due};
use super::{CompactionJob, CompactionResult, CompactionSettings, Installed, Swap};
use crate::config::millis;
use crate::disk::{Disk, OpenMode, read_small, replace_file, replace_file_durably};
use crate::format::{
    CLEANER_OFFSET_FILE, Fields, Kind, LOG_SUFFIX, MAX_SIDE_FILE, SWAP_SUFFIX, offset_path, seal, unseal,
};
use crate::index_file::{self, SealedIndex};
use crate::log::{Log, LogError, doing, index_header, syncing};
use crate::segment::{HeaderWalk, SealedSegment};

/// Up to where a log is compacted, and its side file. Lost, it costs a compaction from the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CleanerOffset(pub(crate) Offset);

impl CleanerOffset {
    /// What the file says, or the start. An offset above the log's end is of records that were cut: it is taken back, durably, before others
    /// take their place.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn load(disk: &dyn Disk, directory: &Path, end: Offset) -> Result<Self, LogError> {
        let bytes = read_small(disk, &directory.join(CLEANER_OFFSET_FILE), MAX_SIDE_FILE).ok();
        let stored = bytes.and_then(|bytes| Fields(unseal(Kind::CleanerOffset, &bytes)?).i64());
        let mut offset = Self(stored.map_or(Offset::ZERO, Offset));
        offset.cut(disk, directory, end)?;
        Ok(offset)
    }

    /// The log ends at `end` now. Durable when it returns.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn cut(&mut self, disk: &dyn Disk, directory: &Path, end: Offset) -> Result<(), LogError> {
        if self.0 <= end {
            return Ok(());
        }
        self.0 = end;
        replace_file_durably(disk, &directory.join(CLEANER_OFFSET_FILE), &self.to_bytes())
            .map_err(doing("write the cleaner's offset"))
    }

    fn to_bytes(self) -> Vec<u8> {
        seal(Kind::CleanerOffset, &self.0.0.to_be_bytes())
    }
}

impl Log {
    /// From where on the log may hold records that a later one has superseded.
    #[must_use]
    pub fn first_dirty_offset(&self) -> Offset {
        let first = self.sealed.first().map_or(self.active.segment.base_offset, |segment| segment.base_offset);
        self.cleaner_offset.0.max(first).max(self.log_start_offset).min(self.log_end_offset())
    }

    /// What is to be compacted now, if it is time; `wall` decides about lags and tombstones. Cheap: reads no more than the first header of
    /// each dirty segment, and only under a `max.compaction.lag.ms`.
    #[must_use]
    pub fn compaction_plan(
        &self,
        high_watermark: Offset,
        wall: Wall,
        settings: &CompactionSettings,
    ) -> Option<CompactionJob> {
        if self.broken {
            return None;
        }
        let first_dirty_offset = self.first_dirty_offset();
        let facts: Vec<SegmentFacts> = self.sealed.iter().map(|segment| segment.as_ref().into()).collect();
        let decision = cleanable(&facts, first_dirty_offset, high_watermark, settings, wall)?;
        let touched = self.sealed.get(..decision.segments)?;
        let oldest = settings.max_compaction_lag.and_then(|_| oldest_dirty(touched, first_dirty_offset));
        if !is_due(&decision, oldest, settings, wall) {
            return None;
        }
        let producers: BTreeMap<i64, Offset> = self.producers.remembered_below(high_watermark).collect();
        Some(CompactionJob {
            disk: Arc::clone(&self.disk),
            directory: self.directory.clone(),
            incarnation: self.sync.incarnation(),
            sources: touched.to_vec(),
            limits: GroupLimits {
                segment_bytes: self.config.max_segment_bytes(),
                segment_index_bytes: self.config.segment_index_bytes,
                index_interval_bytes: self.config.index_interval_bytes,
            },
            first_dirty_offset,
            dirty_bytes: decision.dirty_bytes,
            total_bytes: decision.total_bytes,
            dedupe_buffer_bytes: settings.dedupe_buffer_bytes,
            seed: settings.seed,
            now: wall.as_millis(),
            horizon: wall.as_millis().saturating_add(millis(settings.delete_retention)),
            producers,
        })
    }

    /// Puts a job's segments in the place of those that they were made from, durably. Make a new view afterwards; older ones keep reading
    /// the older files, or find them stale. A result that no longer fits is refused, and its files are removed.
    ///
    /// # Errors
    /// The disk failed: reopen the log, which finishes what was begun.
    pub fn install(&mut self, result: CompactionResult) -> Result<Installed, LogError> {
        if self.broken || !self.still_has(&result.sources) {
            for swap in &result.swaps {
                // What cannot be removed now is removed when the log is opened.
                drop(self.disk.remove_file(&swap.cleaned.path));
            }
            return if self.broken { Err(LogError::Broken) } else { Ok(Installed::Stale) };
        }
        self.broken = true;
        if !result.swaps.is_empty() {
            self.swap(&result)?;
        }
        self.broken = false;
        self.cleaner_offset.0 = self.cleaner_offset.0.max(result.reach);
        let path = self.directory.join(CLEANER_OFFSET_FILE);
        if let Err(error) = replace_file(self.disk.as_ref(), &path, &self.cleaner_offset.to_bytes()) {
            tracing::warn!(path = %path.display(), %error, "cleaner's offset not written");
        }
        Ok(Installed::Swapped(result.stats))
    }

    /// Whether the log still begins with these very segments: then nothing was truncated among them, and none has gone.
    fn still_has(&self, sources: &[Arc<SealedSegment>]) -> bool {
        sources.len() <= self.sealed.len() && sources.iter().zip(self.sealed.iter()).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    fn swap(&mut self, result: &CompactionResult) -> Result<(), LogError> {
        let members = |swap: &Swap| result.sources.get(swap.sources.clone()).unwrap_or_default();
        for first in result.swaps.iter().filter_map(|swap| members(swap).first()) {
            // The name will be another file's, and older views must not find that.
            first.file.hold_open();
            first.index.hold_open();
        }
        for Swap { cleaned, .. } in &result.swaps {
            let path = offset_path(&self.directory, cleaned.base_offset, SWAP_SUFFIX);
            self.disk.rename(&cleaned.path, &path).map_err(doing("rename a cleaned segment"))?;
        }
        self.disk.sync_dir(&self.directory).map_err(syncing("sync the partition's directory"))?;
        for swap in &result.swaps {
            for source in members(swap).iter().skip(1).rev() {
                remove_segment(self.disk.as_ref(), &self.directory, source.base_offset)?;
            }
            remove_index(self.disk.as_ref(), &self.directory, swap.cleaned.base_offset)?;
        }
        // No segment that a new one covers may be there when the new one has its name.
        self.disk.sync_dir(&self.directory).map_err(syncing("sync the partition's directory"))?;
        let mut sealed = Vec::new();
        let mut at = 0;
        for swap in &result.swaps {
            sealed.extend(self.sealed.get(at..swap.sources.start).unwrap_or_default().iter().cloned());
            sealed.push(Arc::new(self.take_name(swap)?));
            at = swap.sources.end;
        }
        sealed.extend(self.sealed.get(at..).unwrap_or_default().iter().cloned());
        self.sealed = sealed.into();
        self.sync.dirty_directory(&self.directory);
        Ok(())
    }

    fn take_name(&self, swap: &Swap) -> Result<SealedSegment, LogError> {
        let (base_offset, summary) = (swap.cleaned.base_offset, swap.cleaned.summary);
        let path = offset_path(&self.directory, base_offset, LOG_SUFFIX);
        let from = offset_path(&self.directory, base_offset, SWAP_SUFFIX);
        self.disk.rename(&from, &path).map_err(doing("rename a cleaned segment"))?;
        let file = self.disk.open(&path, OpenMode::Existing).map_err(doing("open a cleaned segment"))?;
        let header = index_header(summary);
        let index = index_file::write(self.disk.as_ref(), &self.directory, base_offset, header, &swap.cleaned.entries)
            .unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "index not written; it will be rebuilt");
                SealedIndex::absent()
            });
        let index_interval = self.config.index_interval_bytes;
        Ok(SealedSegment { base_offset, file, summary, index, index_interval })
    }
}

/// The lowest timestamp in milliseconds with which a dirty segment begins.
fn oldest_dirty(segments: &[Arc<SealedSegment>], first_dirty_offset: Offset) -> Option<i64> {
    let dirty = segments.iter().filter(|segment| segment.summary.next_offset > first_dirty_offset);
    let first = |segment: &Arc<SealedSegment>| {
        let mut walk = HeaderWalk::new(segment.file.as_ref(), 0, segment.summary.size, layout::RECORDS);
        let (_, header) = walk.next().ok()??;
        (header.max_timestamp >= 0).then_some(header.max_timestamp)
    };
    dirty.filter_map(first).min()
}
