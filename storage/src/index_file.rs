//! The two index files of a sealed segment. They are read where they are; nothing of them stays in memory.
//! Invariant: a damaged file is found by its CRC at its first use and answered from the batches instead. A disk that fails says nothing of
//! the file: the error goes to whoever reads, and the next one looks again.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use madang_protocol::types::Offset;

use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at};
use crate::format::{Fields, INDEX_HEADER_SIZE, INDEX_SUFFIX, IndexHeader, Kind, TIME_INDEX_SUFFIX, offset_path};
use crate::index::{IndexEntry, search};

const OFFSET_ENTRY: usize = 8;
const TIME_ENTRY: usize = 12;
const CHUNK: usize = 32 << 10;

/// Where a sealed segment's index is found.
#[derive(Debug)]
pub(crate) struct SealedIndex {
    offsets: Option<Arc<dyn DiskFile>>,
    times: Option<Arc<dyn DiskFile>>,
    entries: usize,
    crcs: (u32, u32),
    sound: OnceLock<bool>,
    rebuilt: OnceLock<Box<[IndexEntry]>>,
}

/// Writes both files of a segment; they are not synced, as they can be rebuilt.
pub(crate) fn write(
    disk: &dyn Disk,
    directory: &Path,
    base_offset: Offset,
    header: IndexHeader,
    entries: &[IndexEntry],
) -> io::Result<SealedIndex> {
    let (mut offsets, mut times) = (Vec::with_capacity(entries.len() * 8), Vec::with_capacity(entries.len() * 12));
    for entry in entries {
        offsets.extend_from_slice(&entry.relative_offset.to_be_bytes());
        offsets.extend_from_slice(&entry.position.to_be_bytes());
        times.extend_from_slice(&entry.max_timestamp_before.to_be_bytes());
        times.extend_from_slice(&entry.relative_offset.to_be_bytes());
    }
    let crcs = (crc32c::crc32c(&offsets), crc32c::crc32c(&times));
    let count = u32::try_from(entries.len()).map_err(io::Error::other)?;
    let write = |suffix, kind, crc, body: &[u8]| {
        let file = disk.open(&offset_path(directory, base_offset, suffix), OpenMode::Truncate)?;
        file.needs_no_sync();
        let head = IndexHeader { entries_crc: crc, entries: count, ..header }.to_bytes(kind);
        file.write_at(0, &[IoSlice::new(&head), IoSlice::new(body)])?;
        Ok::<_, io::Error>(file)
    };
    let offsets = write(INDEX_SUFFIX, Kind::OffsetIndex, crcs.0, &offsets)?;
    let times = write(TIME_INDEX_SUFFIX, Kind::TimeIndex, crcs.1, &times)?;
    Ok(SealedIndex {
        offsets: Some(offsets),
        times: Some(times),
        entries: entries.len(),
        crcs,
        sound: OnceLock::from(true),
        rebuilt: OnceLock::new(),
    })
}

fn open_one(disk: &dyn Disk, path: &Path, kind: Kind, entry: usize) -> Option<(Arc<dyn DiskFile>, IndexHeader)> {
    let file = disk.open(path, OpenMode::Existing).ok()?;
    let mut head = [0; INDEX_HEADER_SIZE];
    read_exact_at(file.as_ref(), 0, &mut head).ok()?;
    let header = IndexHeader::parse(kind, &head)?;
    let expected = INDEX_HEADER_SIZE as u64 + u64::from(header.entries) * entry as u64;
    (file.len().ok()? == expected).then_some((file, header))
}

/// Opens both files if their headers are sound, agree, and are of a segment of `log_bytes` bytes.
pub(crate) fn open(
    disk: &dyn Disk,
    directory: &Path,
    base_offset: Offset,
    log_bytes: u64,
) -> Option<(SealedIndex, IndexHeader)> {
    open_if(disk, directory, base_offset, |header| header.log_bytes == log_bytes)
}

/// As [`open`], of any segment for which `fits` holds.
pub(crate) fn open_if(
    disk: &dyn Disk,
    directory: &Path,
    base_offset: Offset,
    fits: impl Fn(&IndexHeader) -> bool,
) -> Option<(SealedIndex, IndexHeader)> {
    let path = |suffix| offset_path(directory, base_offset, suffix);
    let (offsets, header) = open_one(disk, &path(INDEX_SUFFIX), Kind::OffsetIndex, OFFSET_ENTRY)?;
    let (times, other) = open_one(disk, &path(TIME_INDEX_SUFFIX), Kind::TimeIndex, TIME_ENTRY)?;
    let crcs = (header.entries_crc, other.entries_crc);
    let agree = IndexHeader { entries_crc: crcs.0, ..other } == header && fits(&header);
    let ordered = header.next_offset >= base_offset;
    let index = SealedIndex {
        offsets: Some(offsets),
        times: Some(times),
        entries: header.entries as usize,
        crcs,
        sound: OnceLock::new(),
        rebuilt: OnceLock::new(),
    };
    (agree && ordered).then_some((index, header))
}

impl SealedIndex {
    /// An index that could not be written: the batches are walked instead, once, at the first use.
    pub(crate) const fn absent() -> Self {
        Self { offsets: None, times: None, entries: 0, crcs: (0, 0), sound: OnceLock::new(), rebuilt: OnceLock::new() }
    }

    /// Keeps reading the files that it has, whatever becomes of their names.
    pub(crate) fn hold_open(&self) {
        for file in [&self.offsets, &self.times].into_iter().flatten() {
            file.hold_open();
        }
    }

    /// Whether both files are as they were written; reads them at the first call that can.
    ///
    /// # Errors
    /// The disk failed, and whether they are is as little known as before.
    pub(crate) fn is_sound(&self) -> io::Result<bool> {
        if let Some(sound) = self.sound.get() {
            return Ok(*sound);
        }
        let sound = is_as_written(self.offsets.as_ref(), self.entries * OFFSET_ENTRY, self.crcs.0)?
            && is_as_written(self.times.as_ref(), self.entries * TIME_ENTRY, self.crcs.1)?;
        Ok(*self.sound.get_or_init(|| sound))
    }

    /// All entries, read from the files at once; none if they are not sound.
    pub(crate) fn load(&self) -> Option<Vec<IndexEntry>> {
        let places = body(self.offsets.as_ref()?.as_ref(), self.entries * OFFSET_ENTRY, self.crcs.0)?;
        let times = body(self.times.as_ref()?.as_ref(), self.entries * TIME_ENTRY, self.crcs.1)?;
        let entry = |(place, time): (&[u8], &[u8])| {
            let (mut place, mut time) = (Fields(place), Fields(time));
            Some(IndexEntry {
                relative_offset: place.u32()?,
                position: place.u32()?,
                max_timestamp_before: time.i64()?,
            })
        };
        places.chunks_exact(OFFSET_ENTRY).zip(times.chunks_exact(TIME_ENTRY)).map(entry).collect()
    }

    fn read(&self, at: usize) -> io::Result<Option<IndexEntry>> {
        let (Some(offsets), Some(times)) = (&self.offsets, &self.times) else { return Ok(None) };
        let mut place = [0; OFFSET_ENTRY];
        read_exact_at(offsets.as_ref(), (INDEX_HEADER_SIZE + at * OFFSET_ENTRY) as u64, &mut place)?;
        let mut time = [0; 8];
        read_exact_at(times.as_ref(), (INDEX_HEADER_SIZE + at * TIME_ENTRY) as u64, &mut time)?;
        let packed = u64::from_be_bytes(place);
        Ok(Some(IndexEntry {
            relative_offset: (packed >> 32) as u32,
            position: packed as u32,
            max_timestamp_before: i64::from_be_bytes(time),
        }))
    }

    /// The last entry for which `before` holds. `rebuild` walks the batches if the files are of no use.
    pub(crate) fn last_where(
        &self,
        before: impl Fn(&IndexEntry) -> bool,
        rebuild: impl Fn() -> io::Result<Vec<IndexEntry>>,
    ) -> io::Result<Option<IndexEntry>> {
        if self.is_sound()? {
            return search(self.entries, |at| self.read(at), before);
        }
        let entries = match self.rebuilt.get() {
            Some(entries) => entries,
            None => {
                let entries = rebuild()?.into_boxed_slice();
                self.rebuilt.get_or_init(|| entries)
            }
        };
        search(entries.len(), |at| Ok(entries.get(at).copied()), before)
    }
}

/// A file that is missing or too short is not as it was written. With the segment gone too, the walk over its batches tells.
fn is_as_written(file: Option<&Arc<dyn DiskFile>>, length: usize, crc: u32) -> io::Result<bool> {
    let Some(file) = file else { return Ok(false) };
    match crc_of(file.as_ref(), length) {
        Ok(found) => Ok(found == crc),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => Ok(false),
        Err(error) => Err(error),
    }
}

fn crc_of(file: &dyn DiskFile, length: usize) -> io::Result<u32> {
    let mut buffer = vec![0; CHUNK.min(length)];
    let (mut crc, mut done) = (0, 0);
    while done < length {
        let piece = buffer.len().min(length - done);
        read_exact_at(file, (INDEX_HEADER_SIZE + done) as u64, &mut buffer[..piece])?;
        crc = crc32c::crc32c_append(crc, &buffer[..piece]);
        done += piece;
    }
    Ok(crc)
}

/// The entries' bytes; none if they are not as they were written. Their length was checked against the file's.
fn body(file: &dyn DiskFile, length: usize, crc: u32) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    read_exact_at(file, INDEX_HEADER_SIZE as u64, &mut bytes).ok()?;
    (crc32c::crc32c(&bytes) == crc).then_some(bytes)
}
