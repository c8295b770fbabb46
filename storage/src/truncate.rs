//! Cutting a log at an offset: the segments, and everything beside the batches.
//! Invariant: a log whose cut failed half way takes no more appends; it is opened anew. Nor does one whose cut is not on the device yet: bytes of
//! both sides of a cut in one file could pass for one log after a power cut.

use std::io;
use std::sync::Arc;

use madang_protocol::types::Offset;

use crate::disk::{OpenMode, replace_file_durably};
use crate::format::{INDEX_SUFFIX, Kind, LOG_START_FILE, LOG_SUFFIX, TIME_INDEX_SUFFIX, offset_path, seal};
use crate::log::{Active, Log, LogError, doing, replay_headers};
use crate::mutants::mutant;
use crate::segment::SealedSegment;

impl Log {
    /// As [`Log::cut_to`], and on the device when it returns. Blocks for as long as the disk does.
    ///
    /// # Errors
    /// The disk failed: reopen the log.
    pub fn truncate_to(&mut self, offset: Offset) -> Result<(), LogError> {
        self.cut_to(offset)?;
        let Some(request) = self.take_dirty() else { return Ok(()) };
        let outcome = request.perform();
        let synced = self.synced(outcome);
        synced.map(drop).map_err(|error| LogError::Sync { doing: "sync a cut", source: io::Error::other(error) })
    }

    /// Cuts the log so that it ends at `offset`, a bound of batches (else at the start of the batch that contains it). Below the log's start
    /// nothing is left, and the log starts anew at `offset`. Whoever keeps a recovery point of the log has lowered it, durably, before: what is
    /// written above the cut would pass for what was there.
    ///
    /// The cut is dirty, and nothing is appended before it is synced: see [`Log::is_settled`].
    ///
    /// # Errors
    /// The disk failed: reopen the log.
    pub fn cut_to(&mut self, offset: Offset) -> Result<(), LogError> {
        if offset >= self.log_end_offset() {
            // An epoch that began here and wrote nothing may still contradict the next leader's.
            return self.forget_epochs_from(offset);
        }
        self.broken = true;
        let keep = self.sealed.iter().take_while(|segment| segment.base_offset < offset).count();
        if offset <= self.active.segment.base_offset && self.active.segment.base_offset > Offset::ZERO {
            self.drop_segments_from(keep, offset)?;
        }
        if self.active.summary.next_offset > offset {
            self.cut_active(offset)?;
        }
        self.truncate_state()?;
        self.broken = false;
        Ok(())
    }

    /// Forgets all that the log has and starts it anew at `offset`, above its end. As after [`Log::cut_to`], nothing is appended before that is
    /// on the device; a power cut until then leaves the log as it was, or without a record.
    ///
    /// # Errors
    /// `OutOfRange` at or below the log's end; the disk failed: reopen the log.
    pub fn start_anew_at(&mut self, offset: Offset) -> Result<(), LogError> {
        if offset <= self.log_end_offset() {
            return Err(LogError::OutOfRange(offset));
        }
        self.broken = true;
        // What is below the start is nobody's, so that it comes first: a segment that is left over by a crash shows nothing of itself.
        let bytes = seal(Kind::LogStart, &offset.0.to_be_bytes());
        replace_file_durably(self.disk.as_ref(), &self.directory.join(LOG_START_FILE), &bytes)
            .map_err(doing("write the log start offset"))?;
        self.log_start_offset = offset;
        self.drop_segments_from(0, offset)?;
        self.epochs = Arc::default();
        self.write_epochs()?;
        self.truncate_state()?;
        self.sync.starts_at(offset);
        self.broken = false;
        Ok(())
    }

    /// Whether nothing stands against an append: the last cut, if there was one, is on the device.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.broken && (self.sync.is_settled() || mutant(51))
    }

    fn forget_epochs_from(&mut self, offset: Offset) -> Result<(), LogError> {
        if Arc::make_mut(&mut self.epochs).truncate_from_end(offset) { self.write_epochs() } else { Ok(()) }
    }

    /// Removes the active and all sealed segments from number `keep` on, newest first; the last one kept, or a new one, becomes the active.
    fn drop_segments_from(&mut self, keep: usize, offset: Offset) -> Result<(), LogError> {
        let base = self.active.segment.base_offset;
        if keep == 0 && self.sealed.is_empty() && base == offset {
            return Ok(());
        }
        self.unlink(base)?;
        self.sync.forget_file(&self.active.segment.file);
        for segment in self.sealed.iter().skip(keep).rev() {
            self.unlink(segment.base_offset)?;
            self.sync.forget_file(&segment.file);
        }
        let last = keep.checked_sub(1).and_then(|at| self.sealed.get(at)).cloned();
        self.active = match last {
            Some(last) => self.reopen_as_active(&last)?,
            None => {
                let path = offset_path(&self.directory, offset, LOG_SUFFIX);
                let file = self.disk.open(&path, OpenMode::Truncate).map_err(doing("create a segment"))?;
                Active::new(offset, file, self.config.index_interval_bytes, -1)
            }
        };
        self.sealed = self.sealed.iter().take(keep.saturating_sub(1)).cloned().collect();
        Ok(())
    }

    fn reopen_as_active(&self, segment: &SealedSegment) -> Result<Active, LogError> {
        let interval = self.config.index_interval_bytes;
        let mut active = Active::new(segment.base_offset, Arc::clone(&segment.file), interval, -1);
        let size = segment.summary.size;
        replay_headers(&mut active, size, segment.summary.next_offset).map_err(doing("walk a segment"))?;
        Ok(active)
    }

    /// A new shared part is made, so that older views keep theirs.
    fn cut_active(&mut self, offset: Offset) -> Result<(), LogError> {
        let (base, file) = (self.active.segment.base_offset, Arc::clone(&self.active.segment.file));
        let interval = self.config.index_interval_bytes;
        let old_size = self.active.summary.size;
        let mut active = Active::new(base, file, interval, self.active.created);
        replay_headers(&mut active, old_size, offset).map_err(doing("walk a segment"))?;
        active.segment.file.truncate(active.summary.size).map_err(doing("truncate a segment"))?;
        if mutant(26) {
            active.keep_index_of(&self.active);
        }
        self.active = active;
        Ok(())
    }

    /// Brings everything beside the batches to the new end, and makes all of it dirty: one sync of what is listed here is what a cut costs.
    /// A power cut before that may leave any part of it, which recovery tells apart: each batch carries its epoch, the epochs are compared with
    /// the last of them, and snapshots above the end go.
    fn truncate_state(&mut self) -> Result<(), LogError> {
        let end = self.log_end_offset();
        self.sync.truncated(end);
        self.noted_size = 0;
        self.cleaner_offset.cut(self.disk.as_ref(), &self.directory, end)?;
        if end < self.log_start_offset {
            let bytes = seal(Kind::LogStart, &end.0.to_be_bytes());
            replace_file_durably(self.disk.as_ref(), &self.directory.join(LOG_START_FILE), &bytes)
                .map_err(doing("write the log start offset"))?;
            self.log_start_offset = end;
        }
        // What was written for a longer segment must not be taken for an index of what is appended now.
        for suffix in [INDEX_SUFFIX, TIME_INDEX_SUFFIX] {
            self.remove_if_there(&offset_path(&self.directory, self.active.segment.base_offset, suffix))?;
        }
        crate::producer_recovery::remove_snapshots_above(self.disk.as_ref(), &self.directory, end)
            .map_err(doing("remove producer snapshots"))?;
        self.producers = crate::producer_recovery::rebuild_producers(self)?;
        if Arc::make_mut(&mut self.epochs).truncate_from_end(end) {
            self.write_epochs()?;
        }
        self.sync.dirty_file(&Arc::clone(&self.active.segment.file));
        // A sync that is under way no longer counts, and nobody would ask for another.
        let confirmed = self.sync.confirmed();
        for segment in self.sealed.iter().filter(|segment| segment.summary.next_offset > confirmed) {
            self.sync.dirty_file(&segment.file);
        }
        self.sync.dirty_directory(&self.directory);
        Ok(())
    }
}
