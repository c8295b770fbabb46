//! The long part: reads the dirty part for its keys, then goes through all segments and writes what stays of them.
//! Invariant: changes no file that the log knows of; if it fails, what it has written is removed.

use std::sync::Arc;

use madang_protocol::record::RecordSet;
use madang_protocol::record_batch::{BatchError, BatchHeader, BatchView, Batches};
use madang_protocol::types::Offset;

use super::filter::{Filter, Verdict, limits};
use super::offset_map::{OffsetMap, Put};
use super::output::Output;
use super::plan::{SegmentFacts, groups};
use super::{CompactionError, CompactionJob, CompactionResult, CompactionStats, Pace, Swap};
use crate::disk::{DiskFile, read_exact_at};
use crate::segment::SealedSegment;

/// Bytes that are read at once, a longer batch aside.
const READ_BUFFER: usize = 1 << 20;

/// Asked with the bytes that were read or written since it was asked last.
type Ask<'a> = dyn FnMut(u64) -> Pace + 'a;

impl From<&SealedSegment> for SegmentFacts {
    fn from(segment: &SealedSegment) -> Self {
        let summary = segment.summary;
        Self {
            base_offset: segment.base_offset,
            next_offset: summary.next_offset,
            size: summary.size,
            max_timestamp: summary.max_timestamp,
        }
    }
}

/// Goes through the batches of a segment, each with its CRC checked, until `each` answers false.
fn for_each_batch(
    segment: &SealedSegment,
    ask: &mut Ask<'_>,
    mut each: impl FnMut(u64, &BatchView<'_>) -> Result<bool, StepError>,
) -> Result<(), CompactionError> {
    let size = segment.summary.size;
    let damaged = |position, source| CompactionError::Damaged { segment: segment.base_offset, position, source };
    let (mut buffer, mut wanted, mut position) = (Vec::new(), READ_BUFFER, 0);
    while position < size {
        let left = usize::try_from(size - position).unwrap_or(usize::MAX);
        buffer.resize(wanted.min(left), 0);
        read_exact_at(segment.file.as_ref(), position, &mut buffer)?;
        if ask(buffer.len() as u64) == Pace::Stop {
            return Err(CompactionError::Stopped);
        }
        wanted = READ_BUFFER;
        let mut batches = Batches::new(&buffer);
        let mut done = 0;
        while let Some(batch) = batches.next() {
            let place = position + done as u64;
            let view = match batch {
                Ok(view) => view,
                Err(BatchError::Torn { needed, .. }) if needed <= left as u64 - done as u64 => {
                    wanted = READ_BUFFER.max(usize::try_from(needed).unwrap_or(READ_BUFFER));
                    break;
                }
                Err(error) => return Err(damaged(place, error)),
            };
            view.verify_crc().map_err(|error| damaged(place, error))?;
            match each(place, &view) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(StepError::Batch(error)) => return Err(damaged(place, error)),
                Err(StepError::Compaction(error)) => return Err(error),
            }
            done = batches.position();
        }
        position += done as u64;
    }
    Ok(())
}

enum StepError {
    Batch(BatchError),
    Compaction(CompactionError),
}

impl From<BatchError> for StepError {
    fn from(error: BatchError) -> Self {
        Self::Batch(error)
    }
}

impl From<std::io::Error> for StepError {
    fn from(error: std::io::Error) -> Self {
        Self::Compaction(error.into())
    }
}

/// Notes the keys of a batch; answers where the map was full.
fn note_keys(map: &mut OffsetMap, batch: &BatchView<'_>, from: Offset) -> Result<Option<Offset>, BatchError> {
    let header = &batch.header;
    if header.is_control() || header.record_count == 0 || header.next_offset() <= from {
        return Ok(None);
    }
    for record in RecordSet::of(batch, &limits())?.iter() {
        let record = record?;
        let offset = record.offset(header);
        let Some(key) = record.key.filter(|_| offset >= from) else { continue };
        if map.put(key, offset) == Put::Full {
            return Ok(Some(offset));
        }
    }
    Ok(None)
}

/// The time at which records without timestamps were written is all that says how old they are, so their copy gets it.
fn keep_age(members: &[Arc<SealedSegment>], file: &dyn DiskFile) {
    let written = members.iter().filter_map(|member| member.file.modified().ok()).max();
    if let Some(Err(error)) = written.map(|wall| file.set_modified(wall)) {
        tracing::warn!(%error, "a compacted segment counts as new");
    }
}

impl CompactionJob {
    /// Does all the reading and writing. Blocks for long; `pace` is asked about every MiB with the bytes read or written since it was asked
    /// last, and can hold the job up or stop it.
    ///
    /// # Errors
    /// See [`CompactionError`]; nothing is left behind then, as far as the disk lets it.
    pub fn run(self, mut pace: impl FnMut(u64) -> Pace) -> Result<CompactionResult, CompactionError> {
        let mut stats = CompactionStats::default();
        let (map, reach) = self.collect_keys(&mut |bytes| {
            stats.bytes_read += bytes;
            pace(bytes)
        })?;
        let touched = self.sources.partition_point(|source| source.base_offset < reach);
        let sources = self.sources.get(..touched).unwrap_or_default();
        let filter = Filter {
            map: &map,
            reach,
            first_dirty_offset: self.first_dirty_offset,
            now: self.now,
            horizon: self.horizon,
            producers: &self.producers,
        };
        let facts: Vec<SegmentFacts> = sources.iter().map(|source| source.as_ref().into()).collect();
        stats.keys = map.len();
        stats.segments_before = sources.len();
        stats.segments_after = sources.len();
        stats.bytes_before = facts.iter().map(|facts| facts.size).sum();
        stats.bytes_after = stats.bytes_before;
        let mut swaps: Vec<Swap> = Vec::new();
        for group in groups(&facts, self.limits) {
            let members = sources.get(group.clone()).unwrap_or_default();
            match self.clean(members, &filter, &mut stats, &mut pace) {
                Ok(None) => {}
                Ok(Some(cleaned)) => {
                    let before: u64 = members.iter().map(|member| member.summary.size).sum();
                    stats.bytes_after = stats.bytes_after - before + cleaned.summary.size;
                    stats.bytes_written += cleaned.summary.size;
                    stats.segments_after -= members.len() - 1;
                    swaps.push(Swap { sources: group, cleaned });
                }
                Err(error) => {
                    for swap in swaps {
                        // What cannot be removed now is removed when the log is opened.
                        drop(self.disk.remove_file(&swap.cleaned.path));
                    }
                    return Err(error);
                }
            }
        }
        Ok(CompactionResult { sources: sources.to_vec(), swaps, reach, stats })
    }

    /// Reads the dirty part's keys, as many as the memory takes; the answer's offset is where that ends.
    fn collect_keys(&self, ask: &mut Ask<'_>) -> Result<(OffsetMap, Offset), CompactionError> {
        let end = self.sources.last().map_or(self.first_dirty_offset, |last| last.summary.next_offset);
        let offsets = u64::try_from(end - self.first_dirty_offset).unwrap_or(0);
        let mut map = OffsetMap::new(self.dedupe_buffer_bytes, offsets, self.seed);
        let mut full = None;
        for source in self.sources.iter().filter(|source| source.summary.next_offset > self.first_dirty_offset) {
            for_each_batch(source, ask, |_, batch| {
                full = note_keys(&mut map, batch, self.first_dirty_offset)?;
                Ok(full.is_none())
            })?;
            if full.is_some() {
                break;
            }
        }
        Ok((map, full.unwrap_or(end)))
    }

    /// Writes the successor of `members` and syncs it; none if nothing would change.
    fn clean(
        &self,
        members: &[Arc<SealedSegment>],
        filter: &Filter<'_>,
        stats: &mut CompactionStats,
        pace: &mut Ask<'_>,
    ) -> Result<Option<super::output::CleanedSegment>, CompactionError> {
        let Some((first, last)) = members.first().zip(members.last()) else { return Ok(None) };
        let interval = self.limits.index_interval_bytes;
        let mut output = Output::new(&self.directory, first.base_offset, self.incarnation, interval);
        let path = output.path().to_owned();
        let done = self.fill(&mut output, members, last, filter, &mut |bytes| {
            stats.bytes_read += bytes;
            pace(bytes)
        });
        let opened = output.is_open();
        let finished = done.and_then(|()| {
            let Some((file, cleaned)) = output.finish()? else { return Ok(None) };
            if cleaned.summary.max_timestamp < 0 {
                keep_age(members, file.as_ref());
            }
            file.sync().map_err(CompactionError::Sync)?;
            Ok(Some(cleaned))
        });
        if finished.is_err() && opened {
            drop(self.disk.remove_file(&path));
        }
        finished
    }

    fn fill(
        &self,
        output: &mut Output,
        members: &[Arc<SealedSegment>],
        last: &Arc<SealedSegment>,
        filter: &Filter<'_>,
        ask: &mut Ask<'_>,
    ) -> Result<(), CompactionError> {
        if members.len() > 1 {
            // Several become one: that is a change, even if every batch stays.
            self.open(output, last)?;
        }
        for member in members {
            for_each_batch(member, ask, |position, batch| {
                let end = position + batch.bytes.len() as u64;
                let is_last = Arc::ptr_eq(member, last) && end == member.summary.size;
                let verdict = filter.judge(batch, is_last)?;
                if verdict != Verdict::Keep && !output.is_open() {
                    self.open(output, member)?;
                }
                match verdict {
                    Verdict::Keep if output.is_open() => output.append(&batch.header, batch.bytes)?,
                    Verdict::Keep => output.pass(&batch.header),
                    Verdict::Drop => {}
                    Verdict::Replace(bytes) => output.append(&BatchHeader::parse(&bytes)?, &bytes)?,
                }
                Ok(true)
            })?;
        }
        Ok(())
    }

    fn open(&self, output: &mut Output, source: &SealedSegment) -> Result<(), std::io::Error> {
        let file: &dyn DiskFile = source.file.as_ref();
        output.open(self.disk.as_ref(), file)
    }
}
