//! The segment that a job writes, under a name that does not count yet.
//! Invariant: its summary and index are what a walk over its batches would find.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use madang_protocol::record_batch::BatchHeader;
use madang_protocol::types::Offset;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::format::{CLEANED_SUFFIX, offset_path};
use crate::index::IndexEntry;
use crate::segment::{Sampler, Summary};

/// Bytes that are gathered for one write.
const BUFFER: usize = 1 << 20;

/// A segment that was written and synced.
#[derive(Debug)]
pub(super) struct CleanedSegment {
    pub(super) base_offset: Offset,
    pub(super) path: PathBuf,
    pub(super) summary: Summary,
    pub(super) entries: Vec<IndexEntry>,
}

/// A segment that is being written. Nothing is written until a first byte differs from the source, if there is only one.
#[derive(Debug)]
pub(super) struct Output {
    base_offset: Offset,
    path: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    buffer: Vec<u8>,
    written: u64,
    summary: Summary,
    sampler: Sampler,
    entries: Vec<IndexEntry>,
}

impl Output {
    pub(super) fn new(directory: &Path, base_offset: Offset, incarnation: u64, interval: u64) -> Self {
        Self {
            base_offset,
            path: offset_path(directory, base_offset, &format!(".{incarnation}{CLEANED_SUFFIX}")),
            file: None,
            buffer: Vec::new(),
            written: 0,
            summary: Summary::empty(base_offset),
            sampler: Sampler::new(base_offset, interval),
            entries: Vec::new(),
        }
    }

    /// Takes a batch into account that is the same, and at the same place, in the source.
    pub(super) fn pass(&mut self, header: &BatchHeader) {
        self.entries.extend(self.sampler.sample(self.summary.size, header));
        self.summary.add(header);
    }

    pub(super) const fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Creates the file and copies what was passed from the source.
    pub(super) fn open(&mut self, disk: &dyn Disk, source: &dyn DiskFile) -> io::Result<()> {
        let file = disk.open(&self.path, OpenMode::Truncate)?;
        let mut buffer = vec![0; BUFFER.min(usize::try_from(self.summary.size).unwrap_or(BUFFER))];
        while self.written < self.summary.size {
            let left = usize::try_from(self.summary.size - self.written).unwrap_or(BUFFER);
            let piece = buffer.get_mut(..left.min(BUFFER)).unwrap_or_default();
            crate::disk::read_exact_at(source, self.written, piece)?;
            file.write_at(self.written, &[IoSlice::new(piece)])?;
            self.written += piece.len() as u64;
        }
        self.file = Some(file);
        Ok(())
    }

    /// Appends a batch.
    pub(super) fn append(&mut self, header: &BatchHeader, bytes: &[u8]) -> io::Result<()> {
        self.pass(header);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.write_at(self.written, &[IoSlice::new(&self.buffer)])?;
        }
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what is left; the file and what is known of it, if one was opened. It is not synced.
    pub(super) fn finish(mut self) -> io::Result<Option<(Arc<dyn DiskFile>, CleanedSegment)>> {
        self.flush()?;
        let Some(file) = self.file else { return Ok(None) };
        let Self { base_offset, path, summary, entries, .. } = self;
        Ok(Some((file, CleanedSegment { base_offset, path, summary, entries })))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
