//! One segment as readers see it: where a batch starts, where a read ends. Never writes.
//! Invariant: positions that it answers are starts of batches, as the batches themselves say; an index only shortens the walk.

use std::io;
use std::sync::Arc;

use madang_protocol::record_batch::{BatchHeader, layout};
use madang_protocol::types::Offset;

use crate::disk::DiskFile;
use crate::format::IndexHeader;
use crate::index::{IndexEntry, LiveIndex, RECENT, RecentBatches};
use crate::index_file::SealedIndex;

/// Bytes that a walk over headers reads at once.
pub(crate) const WALK_BUFFER: usize = 4096;
/// The same for a walk over a whole segment.
pub(crate) const LONG_WALK_BUFFER: usize = 64 << 10;

/// What is known of a segment's content without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Length in bytes of the batches.
    pub(crate) size: u64,
    /// The offset that follows the last batch.
    pub(crate) next_offset: Offset,
    /// Highest timestamp in milliseconds, or -1.
    pub(crate) max_timestamp: i64,
    /// Base offset of the first batch that has it, or -1.
    pub(crate) max_timestamp_offset: Offset,
}

impl From<IndexHeader> for Summary {
    fn from(header: IndexHeader) -> Self {
        Self {
            size: header.log_bytes,
            next_offset: header.next_offset,
            max_timestamp: header.max_timestamp,
            max_timestamp_offset: header.max_timestamp_offset,
        }
    }
}

impl Summary {
    pub(crate) const fn empty(base_offset: Offset) -> Self {
        Self { size: 0, next_offset: base_offset, max_timestamp: -1, max_timestamp_offset: Offset::NONE }
    }

    pub(crate) fn add(&mut self, header: &BatchHeader) {
        self.size += header.size_in_bytes() as u64;
        self.next_offset = header.next_offset();
        if header.max_timestamp > self.max_timestamp {
            self.max_timestamp = header.max_timestamp;
            self.max_timestamp_offset = header.base_offset;
        }
    }
}

/// A segment that nobody appends to.
#[derive(Debug)]
pub(crate) struct SealedSegment {
    pub(crate) base_offset: Offset,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) summary: Summary,
    pub(crate) index: SealedIndex,
    pub(crate) index_interval: u64,
}

/// The parts of the active segment that the writer and all snapshots share.
#[derive(Debug)]
pub(crate) struct ActiveSegment {
    pub(crate) base_offset: Offset,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) index: LiveIndex,
}

/// The newest batches, in two blocks so that there are always some while the newer block fills.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recent {
    pub(crate) older: Option<Arc<RecentBatches>>,
    pub(crate) newer: Option<Arc<RecentBatches>>,
    /// Batches in `newer`.
    pub(crate) count: usize,
}

impl Recent {
    pub(crate) fn push(&mut self, relative_offset: u32, position: u32) {
        if self.newer.is_none() || self.count == RECENT {
            self.older = self.newer.take();
            self.count = 0;
        }
        self.newer.get_or_insert_with(|| Arc::new(RecentBatches::new())).set(self.count, relative_offset, position);
        self.count += 1;
    }

    fn len(&self) -> usize {
        self.count + if self.older.is_some() { RECENT } else { 0 }
    }

    fn get(&self, at: usize) -> Option<(u32, u32)> {
        match &self.older {
            Some(older) if at < RECENT => older.get(at),
            Some(_) => self.newer.as_ref()?.get(at - RECENT),
            None => self.newer.as_ref()?.get(at),
        }
    }

    /// How many of the batches hold `before`, which holds for a prefix of them.
    fn partition(&self, before: impl Fn((u32, u32)) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.get(middle).is_some_and(&before) { low = middle + 1 } else { high = middle }
        }
        low
    }
}

/// One segment within one snapshot.
pub(crate) enum SegmentView<'a> {
    Sealed(&'a SealedSegment),
    Active { segment: &'a ActiveSegment, summary: Summary, entries: usize, recent: &'a Recent },
}

/// The start of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchStart {
    pub(crate) position: u64,
    pub(crate) offset: Offset,
}

impl SegmentView<'_> {
    pub(crate) fn base_offset(&self) -> Offset {
        match self {
            Self::Sealed(segment) => segment.base_offset,
            Self::Active { segment, .. } => segment.base_offset,
        }
    }

    pub(crate) fn file(&self) -> &Arc<dyn DiskFile> {
        match self {
            Self::Sealed(segment) => &segment.file,
            Self::Active { segment, .. } => &segment.file,
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        match self {
            Self::Sealed(segment) => segment.summary,
            Self::Active { summary, .. } => *summary,
        }
    }

    /// The last indexed batch for which `before` holds, or the segment's start.
    fn indexed(&self, before: impl Fn(&IndexEntry) -> bool) -> io::Result<u64> {
        let found = match self {
            Self::Active { segment, entries, .. } => segment.index.last_where(*entries, before),
            Self::Sealed(segment) => segment.index.last_where(before, || segment.walk_for_index())?,
        };
        Ok(found.map_or(0, |entry| u64::from(entry.position)))
    }

    /// A batch at or before the one that contains `from`, from which a walk finds that.
    pub(crate) fn walk_start(&self, from: Offset) -> io::Result<u64> {
        let relative = self.relative(from);
        if relative <= 0 { Ok(0) } else { self.indexed(|entry| i64::from(entry.relative_offset) <= relative) }
    }

    fn relative(&self, offset: Offset) -> i64 {
        offset - self.base_offset()
    }

    /// The batch that contains `from`, or the first one after it; none if there is none in this segment.
    pub(crate) fn locate(&self, from: Offset) -> io::Result<Option<BatchStart>> {
        let summary = self.summary();
        if from >= summary.next_offset {
            return Ok(None);
        }
        let relative = self.relative(from);
        if let Self::Active { recent, .. } = self {
            let after = recent.partition(|(offset, _)| i64::from(offset) <= relative);
            if let Some((offset, position)) = after.checked_sub(1).and_then(|at| recent.get(at)) {
                let offset = self.base_offset() + i64::from(offset);
                return Ok(Some(BatchStart { position: u64::from(position), offset }));
            }
        }
        let start = self.indexed(|entry| i64::from(entry.relative_offset) <= relative)?;
        let mut walk = HeaderWalk::new(self.file().as_ref(), start, summary.size, WALK_BUFFER);
        while let Some((position, header)) = walk.next()? {
            if header.next_offset() > from {
                return Ok(Some(BatchStart { position, offset: header.base_offset }));
            }
        }
        Ok(None)
    }

    /// A position at or before the batch that contains `from`, as near as can be told from memory alone.
    pub(crate) fn nearest_known(&self, from: Offset) -> u64 {
        let Self::Active { segment, entries, recent, .. } = self else { return 0 };
        let relative = self.relative(from);
        let after = recent.partition(|(offset, _)| i64::from(offset) <= relative);
        if let Some((_, position)) = after.checked_sub(1).and_then(|at| recent.get(at)) {
            return u64::from(position);
        }
        let found = segment.index.last_where(*entries, |entry| i64::from(entry.relative_offset) <= relative);
        found.map_or(0, |entry| u64::from(entry.position))
    }

    /// Where a read that starts at `start` ends: whole batches below `upper`, at most `max_bytes`. Also the offset that comes next.
    pub(crate) fn end_of_read(&self, start: BatchStart, upper: Offset, max_bytes: u64) -> io::Result<BatchStart> {
        let summary = self.summary();
        let end = BatchStart { position: summary.size, offset: summary.next_offset };
        let limit = start.position.saturating_add(max_bytes);
        if upper >= summary.next_offset && summary.size <= limit {
            return Ok(end);
        }
        let relative = self.relative(upper);
        if let Self::Active { recent, .. } = self {
            let fits = |(offset, position): (u32, u32)| u64::from(position) <= limit && i64::from(offset) <= relative;
            // The last start that still fits is where the read ends, as the batch there does not fit.
            let after = recent.partition(fits);
            if let Some((offset, position)) = after.checked_sub(1).and_then(|at| recent.get(at))
                && u64::from(position) >= start.position
            {
                return Ok(BatchStart {
                    position: u64::from(position),
                    offset: self.base_offset() + i64::from(offset),
                });
            }
        }
        let fits =
            |entry: &IndexEntry| u64::from(entry.position) <= limit && i64::from(entry.relative_offset) <= relative;
        let from = self.indexed(fits)?.max(start.position);
        let mut walk = HeaderWalk::new(self.file().as_ref(), from, summary.size, WALK_BUFFER);
        while let Some((position, header)) = walk.next()? {
            if header.next_offset() > upper || position + header.size_in_bytes() as u64 > limit {
                return Ok(BatchStart { position, offset: header.base_offset });
            }
        }
        Ok(end)
    }

    /// Walks the headers from the last indexed batch before which no timestamp reaches `timestamp`.
    pub(crate) fn walk_by_time(&self, timestamp: i64) -> io::Result<HeaderWalk<'_>> {
        let start = self.indexed(|entry| entry.max_timestamp_before < timestamp)?;
        Ok(HeaderWalk::new(self.file().as_ref(), start, self.summary().size, WALK_BUFFER))
    }

    /// The header of the batch at a position.
    pub(crate) fn header_at(&self, position: u64) -> io::Result<Option<BatchHeader>> {
        let mut walk = HeaderWalk::new(self.file().as_ref(), position, self.summary().size, layout::RECORDS);
        Ok(walk.next()?.map(|(_, header)| header))
    }
}

impl SealedSegment {
    fn walk_for_index(&self) -> io::Result<Vec<IndexEntry>> {
        let mut walk = HeaderWalk::new(self.file.as_ref(), 0, self.summary.size, LONG_WALK_BUFFER);
        let mut sampler = Sampler::new(self.base_offset, self.index_interval);
        let mut entries = Vec::new();
        while let Some((position, header)) = walk.next()? {
            entries.extend(sampler.sample(position, &header));
        }
        Ok(entries)
    }
}

/// Decides which batches get an index entry: the first that starts at least an interval after the last one that has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sampler {
    base_offset: Offset,
    interval: u64,
    last_position: u64,
    max_timestamp: i64,
}

impl Sampler {
    pub(crate) const fn new(base_offset: Offset, interval: u64) -> Self {
        Self { base_offset, interval, last_position: 0, max_timestamp: -1 }
    }

    /// Goes on after the last entry of a segment that was closed.
    pub(crate) const fn resume(&mut self, last_position: u64, max_timestamp: i64) {
        self.last_position = last_position;
        self.max_timestamp = max_timestamp;
    }

    /// The entry for the batch at `position`, if it gets one. Batches come in order.
    pub(crate) fn sample(&mut self, position: u64, header: &BatchHeader) -> Option<IndexEntry> {
        let max_timestamp_before = self.max_timestamp;
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        if position < self.last_position + self.interval.max(1) {
            return None;
        }
        self.last_position = position;
        Some(IndexEntry {
            relative_offset: u32::try_from(header.base_offset - self.base_offset).ok()?,
            position: u32::try_from(position).ok()?,
            max_timestamp_before,
        })
    }
}

/// The headers of a part of a segment, one after the other.
pub(crate) struct HeaderWalk<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
    filled: usize,
}

impl<'a> HeaderWalk<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, position: u64, end: u64, buffer: usize) -> Self {
        Self { file, position, end, buffer: vec![0; buffer.max(layout::RECORDS)], buffer_at: 0, filled: 0 }
    }

    /// The next batch's position and header; none at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, BatchHeader)>> {
        if self.position >= self.end {
            return Ok(None);
        }
        let in_buffer = self.position.checked_sub(self.buffer_at).and_then(|skip| usize::try_from(skip).ok());
        let mut skip = in_buffer.unwrap_or(usize::MAX);
        if skip.saturating_add(layout::RECORDS) > self.filled {
            let wanted = usize::try_from(self.end - self.position).unwrap_or(usize::MAX).min(self.buffer.len());
            self.filled = self.file.read_at(self.position, &mut self.buffer[..wanted])?;
            self.buffer_at = self.position;
            skip = 0;
        }
        let bytes = self.buffer.get(skip..self.filled).unwrap_or_default();
        let header = BatchHeader::parse(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let position = self.position;
        self.position += header.size_in_bytes() as u64;
        if self.position > self.end {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a batch ends after its segment"));
        }
        Ok(Some((position, header)))
    }
}
