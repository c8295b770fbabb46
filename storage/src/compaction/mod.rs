//! Log compaction (KIP-58, KIP-354, KIP-534): of each key the last record stays, at its offset.
//!
//! [`Log::compaction_plan`] decides on the writer's thread and is cheap; [`CompactionJob::run`] reads the sealed segments and writes their
//! successors beside them, on any thread; [`Log::install`] lets those take their predecessors' names, on the writer's thread again.
//!
//! Invariant: a segment set is replaced whole or not at all, whenever the power goes; readers of an older view keep reading the older files.
//!
//! [`Log::compaction_plan`]: crate::Log::compaction_plan
//! [`Log::install`]: crate::Log::install

mod filter;
mod install;
mod leftovers;
mod offset_map;
mod output;
mod plan;
mod run;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use madang_protocol::record_batch::BatchError;
use madang_protocol::types::Offset;

use self::output::CleanedSegment;
pub use self::plan::CompactionSettings;
use self::plan::GroupLimits;
use crate::disk::Disk;
use crate::segment::SealedSegment;

pub(crate) use self::install::CleanerOffset;
pub(crate) use self::leftovers::{complete_swaps, remove_index};

/// Whether a job goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It goes on.
    Continue,
    /// It ends at once and leaves nothing behind.
    Stop,
}

/// What a compaction did, for logs and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionStats {
    /// Bytes of the segments that were gone through.
    pub bytes_before: u64,
    /// Bytes of what takes their place.
    pub bytes_after: u64,
    /// Bytes read, the first pass over the dirty part included.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Different keys in the dirty part, as far as the memory reached.
    pub keys: usize,
    /// Segments before.
    pub segments_before: usize,
    /// Segments after.
    pub segments_after: usize,
}

/// Why a job has no result. Nothing of the log has changed.
#[derive(Debug, thiserror::Error)]
pub enum CompactionError {
    /// It was told to stop.
    #[error("compaction was stopped")]
    Stopped,
    /// The disk failed, or a segment went meanwhile: it can be tried again.
    #[error("compaction: {0}")]
    Io(#[from] io::Error),
    /// What was written may not be on the device: the directory is to be given up.
    #[error("compaction: sync failed: {0}")]
    Sync(io::Error),
    /// A batch is not as it was written. Trying again finds the same; the log is readable up to there, and grows.
    #[error("compaction: the batch at {position} of segment {segment}: {source}")]
    Damaged {
        /// Base offset of the segment.
        segment: Offset,
        /// Where in the file, bytes.
        position: u64,
        /// What is wrong with it.
        source: BatchError,
    },
}

/// What is to be compacted. It holds what it needs, so it can be sent to another thread; the log goes on meanwhile.
#[derive(Debug)]
#[must_use]
pub struct CompactionJob {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    incarnation: u64,
    sources: Vec<Arc<SealedSegment>>,
    limits: GroupLimits,
    first_dirty_offset: Offset,
    dirty_bytes: u64,
    total_bytes: u64,
    dedupe_buffer_bytes: u64,
    seed: u64,
    now: i64,
    horizon: i64,
    /// See `Filter::producers`.
    producers: BTreeMap<i64, Offset>,
}

impl CompactionJob {
    /// The part of the bytes that is dirty, 0 to 1: of several logs, the one with the highest comes first.
    #[must_use]
    pub fn dirty_ratio(&self) -> f64 {
        if self.total_bytes == 0 { 0.0 } else { self.dirty_bytes as f64 / self.total_bytes as f64 }
    }

    /// Bytes of the segments that it may go through.
    #[must_use]
    pub const fn total_bytes(&self) -> u64 {
        self.total_bytes
    }
}

/// What a job has written, on its way back to the log. Dropped, it leaves files that the next start of the log removes.
#[derive(Debug)]
#[must_use]
pub struct CompactionResult {
    /// What the offsets were judged by, oldest first: if one of them has gone, the result is worth nothing.
    sources: Vec<Arc<SealedSegment>>,
    /// Which of the sources give way to what.
    swaps: Vec<Swap>,
    reach: Offset,
    stats: CompactionStats,
}

impl CompactionResult {
    /// What was done.
    #[must_use]
    pub const fn stats(&self) -> &CompactionStats {
        &self.stats
    }
}

#[derive(Debug)]
struct Swap {
    sources: std::ops::Range<usize>,
    cleaned: CleanedSegment,
}

/// What became of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Installed {
    /// The log is compacted up to its new first dirty offset.
    Swapped(CompactionStats),
    /// The log was truncated, or lost segments to retention, since the job was made: nothing was changed.
    Stale,
}
