//! Opening a log: what is on the disk decides, and what is missing beside the batches is rebuilt from them.
//! Invariant: nothing below the recovery point is ever cut; damage there sets the partition aside, whole, for somebody to look at.

use std::io;
use std::path::Path;
use std::sync::Arc;

use madang_actors::clock::Wall;
use madang_actors::prng::Prng;
use madang_protocol::record_batch::layout;
use madang_protocol::types::Offset;

use crate::active_index::{self, Place};
use crate::compaction::{self, CleanerOffset, remove_index};
use crate::config::{LogConfig, millis};
use crate::disk::{Disk, DiskFile, OpenMode, read_small};
use crate::format::{
    Fields, Kind, LOG_START_FILE, LOG_SUFFIX, MAX_SIDE_FILE, TEMPORARY_SUFFIX, offset_of, offset_path, unseal,
};
use crate::index_file;
use crate::log::{Active, Log, LogError, doing, index_header, reading, replay_headers, syncing};
use crate::notes::Note;
use crate::producer_recovery::{rebuild_producers, remove_snapshots_above};
use crate::producer_state::ProducerState;
use crate::scan::{scan_batches, settle_tail};
use crate::segment::{HeaderWalk, SealedSegment, SegmentView};
use crate::sync::SyncState;

/// How the log was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Closed, and the directory's marker says so: everything was flushed.
    Clean,
    /// Its actor restarted in a living process: what was written is in the page cache.
    SameProcess,
    /// Its process was killed, the system runs on, and the page cache is all that was promised: what was written is in it. It is synced once
    /// the log serves.
    SameBoot,
    /// Anything else: a crash of the system, a power cut, a kill where the device was promised. Tails are synced, dropped and read back from
    /// the device.
    Unclean,
}

impl Start {
    /// Whether what was written is in the page cache, and may be on no device.
    const fn keeps_pages(self) -> bool {
        matches!(self, Self::SameProcess | Self::SameBoot)
    }
}

/// What a log is opened with.
#[derive(Clone, Debug)]
pub struct OpenLog {
    /// How it was left.
    pub start: Start,
    /// The end that was known to be on the device; none if that is not known, and then everything is scanned.
    pub recovery_point: Option<Offset>,
    /// What was noted of it in this very boot and mount, by this process or the one before: below it nothing has to be checked again.
    pub noted: Option<Note>,
    /// Whether one sync of the whole file system has brought to the device all that an earlier process wrote, and nothing was written to this log
    /// since then.
    pub synced: bool,
    /// Where a log without any segment starts.
    pub first_offset: Offset,
    /// The replica's incarnation: sync outcomes of another one are dropped.
    pub incarnation: u64,
    /// The wall clock, for `segment.ms` and the producers' expiry.
    pub wall: Wall,
    /// For the jitter of the segments' age.
    pub seed: u64,
}

impl OpenLog {
    /// The end that is known to be on the device.
    fn confirmed_end(&self) -> Option<Offset> {
        self.recovery_point.max(self.noted.map(|noted| noted.confirmed_end))
    }

    /// The end of what is known to be as it was written: on the device, or in the page cache where that is trusted.
    pub(crate) fn intact_end(&self) -> Option<Offset> {
        let noted = self.noted?;
        Some(if self.start.keeps_pages() { noted.log_end_offset } else { noted.confirmed_end })
    }
}

impl Default for OpenLog {
    fn default() -> Self {
        Self {
            start: Start::Unclean,
            recovery_point: None,
            noted: None,
            synced: false,
            first_offset: Offset::ZERO,
            incarnation: 0,
            wall: Wall(0),
            seed: 0,
        }
    }
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The log's end.
    pub log_end_offset: Offset,
    /// Bytes of batches that were read and checked.
    pub scanned_bytes: u64,
    /// Bytes that were cut from the end: a torn write, zeros, garbage.
    pub truncated_bytes: u64,
    /// Whether the log ends below its recovery point: it lost what was confirmed, whatever its directory says.
    pub below_recovery_point: bool,
    /// Whether the log ends below what was noted as written in this boot: it lost that, whatever its directory says.
    pub below_noted_end: bool,
    /// The end that was known before, by the recovery point or by a note; the log may be shorter.
    pub known_end: Option<Offset>,
    /// Files that were missing or damaged and were rebuilt.
    pub rebuilt: Vec<String>,
}

/// What a walk over headers needs: the file, where to begin, the file's length.
pub(crate) type WalkFrom = (Arc<dyn DiskFile>, u64, u64);

/// Work in progress of [`Log::open`].
struct Opening<'a> {
    disk: &'a Arc<dyn Disk>,
    directory: &'a Path,
    config: &'a LogConfig,
    open: &'a OpenLog,
    report: Recovery,
    /// Somebody wrote or cut something that the caller has to sync.
    dirty: Vec<Arc<dyn DiskFile>>,
}

impl Log {
    /// Opens the log in `directory`, creating both if there is nothing.
    ///
    /// # Errors
    /// `Quarantine` if confirmed batches are damaged or missing; nothing was changed then. `Io` if the disk fails.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        config: LogConfig,
        open: &OpenLog,
    ) -> Result<(Self, Recovery), LogError> {
        let mut opening =
            Opening { disk: &disk, directory, config: &config, open, report: Recovery::default(), dirty: Vec::new() };
        opening.create_directory()?;
        compaction::complete_swaps(disk.as_ref(), directory)?;
        let bases = opening.segment_bases()?;
        let found = bases.len();
        let (sealed, active) = opening.open_segments(bases)?;
        // A segment that was made, or ones that are gone behind a torn end.
        let renamed = sealed.len() + 1 != found;
        let end = active.summary.next_offset;
        let first = sealed.first().map_or(active.segment.base_offset, |segment| segment.base_offset);
        let log_start_offset = opening.log_start_offset(first, end);
        let mut jitter = Prng::new(open.seed);
        let jitter = jitter.below(u64::try_from(millis(config.segment_jitter)).unwrap_or(0));
        let confirmed = match open.start {
            Start::Clean | Start::Unclean => end,
            Start::SameProcess | Start::SameBoot => {
                // What lies below the start was deleted, and needs no device.
                open.confirmed_end().map_or(log_start_offset, |point| point.max(log_start_offset)).min(end)
            }
        };
        let (dirty, report) = (std::mem::take(&mut opening.dirty), std::mem::take(&mut opening.report));
        let mut log = Self {
            producers: ProducerState::new(config.max_producers, millis(config.producer_id_expiration)),
            disk,
            directory: directory.to_owned(),
            config,
            sealed: sealed.into(),
            active,
            log_start_offset,
            epochs: Arc::default(),
            sync: SyncState::new(confirmed, open.incarnation),
            cleaner_offset: CleanerOffset::default(),
            broken: false,
            appended: 0,
            unsynced_messages: 0,
            unsynced_since: None,
            owes_first_sync: open.start == Start::SameBoot,
            noted_size: 0,
            jitter: i64::try_from(jitter).unwrap_or(0),
        };
        let report = log.finish_open(open, report, &dirty, renamed)?;
        Ok((log, report))
    }

    /// What lies beside the segments.
    fn finish_open(
        &mut self,
        open: &OpenLog,
        mut report: Recovery,
        dirty: &[Arc<dyn DiskFile>],
        renamed: bool,
    ) -> Result<Recovery, LogError> {
        let end = self.log_end_offset();
        for file in dirty {
            self.sync.dirty_file(file);
        }
        if open.start.keeps_pages() {
            if open.noted.is_some_and(|noted| noted.unsettled) {
                self.sync.begins_unsettled();
            }
            self.sync.dirty_file(&Arc::clone(&self.active.segment.file));
            let confirmed = self.sync.confirmed();
            for segment in self.sealed.iter().filter(|segment| segment.summary.next_offset > confirmed) {
                self.sync.dirty_file(&segment.file);
            }
            self.sync.dirty_directory(&self.directory);
        }
        let removed = open.start != Start::Clean
            && remove_snapshots_above(self.disk.as_ref(), &self.directory, end)
                .map_err(doing("remove producer snapshots"))?;
        if removed || open.start == Start::Unclean && (renamed || !open.synced) {
            // A segment that was created and not yet named on the device counts from here on, so its name has to be there too; and a snapshot
            // from before a cut could come back once the log has grown past it.
            self.disk.sync_dir(&self.directory).map_err(syncing("sync the partition's directory"))?;
        }
        self.cleaner_offset = CleanerOffset::load(self.disk.as_ref(), &self.directory, end)?;
        self.producers = rebuild_producers(self)?;
        self.recover_epochs(open, &mut report)?;
        report.log_end_offset = end;
        report.below_recovery_point = open.confirmed_end().is_some_and(|point| end < point);
        report.known_end = open.confirmed_end().max(open.noted.map(|noted| noted.log_end_offset));
        report.below_noted_end = open.noted.is_some_and(|noted| end < noted.log_end_offset);
        Ok(report)
    }

    /// The segments with batches at or after `from`: file, where a walk to `from` begins, length.
    pub(crate) fn files_after(&self, from: Offset) -> io::Result<Vec<WalkFrom>> {
        let active = SegmentView::Active {
            segment: &self.active.segment,
            summary: self.active.summary,
            entries: self.active.entries,
            recent: &self.active.recent,
        };
        let all = self.sealed.iter().map(|segment| SegmentView::Sealed(segment)).chain([active]);
        let after = all.filter(|segment| segment.summary().next_offset > from);
        after
            .map(|segment| Ok((Arc::clone(segment.file()), segment.walk_start(from)?, segment.summary().size)))
            .collect()
    }
}

impl Opening<'_> {
    fn create_directory(&self) -> Result<(), LogError> {
        if self.disk.exists(self.directory).map_err(doing("look for the partition's directory"))? {
            return Ok(());
        }
        self.disk.create_dir(self.directory).map_err(doing("create the partition's directory"))?;
        match self.directory.parent() {
            Some(parent) => self.disk.sync_dir(parent).map_err(syncing("sync the log directory")),
            None => Ok(()),
        }
    }

    /// Base offsets, lowest first. Files that were about to take a name never counted, so they go.
    fn segment_bases(&self) -> Result<Vec<Offset>, LogError> {
        let names = self.disk.list(self.directory).map_err(doing("list the partition's directory"))?;
        for name in names.iter().filter(|name| name.ends_with(TEMPORARY_SUFFIX)) {
            self.disk.remove_file(&self.directory.join(name)).map_err(doing("remove a temporary file"))?;
        }
        let mut bases: Vec<Offset> = names.iter().filter_map(|name| offset_of(name, LOG_SUFFIX)).collect();
        bases.sort_unstable();
        Ok(bases)
    }

    fn stored_log_start(&self) -> Option<Offset> {
        let bytes = read_small(self.disk.as_ref(), &self.directory.join(LOG_START_FILE), MAX_SIDE_FILE).ok()?;
        Fields(unseal(Kind::LogStart, &bytes)?).i64().map(Offset)
    }

    fn log_start_offset(&self, first: Offset, end: Offset) -> Offset {
        self.stored_log_start().unwrap_or(first).clamp(first, end.max(first))
    }

    fn open_file(&self, base: Offset, mode: OpenMode) -> Result<Arc<dyn DiskFile>, LogError> {
        self.disk.open(&offset_path(self.directory, base, LOG_SUFFIX), mode).map_err(reading)
    }

    fn open_segments(&mut self, mut bases: Vec<Offset>) -> Result<(Vec<Arc<SealedSegment>>, Active), LogError> {
        let interval = self.config.index_interval_bytes;
        let mut sealed: Vec<Arc<SealedSegment>> = Vec::new();
        if bases.is_empty() {
            let base = self.stored_log_start().unwrap_or(self.open.first_offset);
            let file = self.open_file(base, OpenMode::Create)?;
            self.dirty.push(Arc::clone(&file));
            self.disk.sync_dir(self.directory).map_err(syncing("sync the partition's directory"))?;
            return Ok((sealed, Active::new(base, file, interval, self.open.wall.as_millis())));
        }
        let last = bases.pop().unwrap_or_default();
        for (place, base) in bases.iter().enumerate() {
            let next = bases.get(place + 1).copied().unwrap_or(last);
            let file = self.open_file(*base, OpenMode::Existing)?;
            let (segment, cut) = self.open_sealed(*base, next, file)?;
            if !cut {
                sealed.push(Arc::new(segment));
                continue;
            }
            // Nothing above the recovery point was promised: what follows a torn end has no place in the log.
            let later = bases.get(place + 1..).unwrap_or_default().iter().chain([&last]);
            for gone in later.rev() {
                self.remove_segment(*gone)?;
            }
            let active = self.open_active(*base, Arc::clone(&segment.file))?;
            return Ok((sealed, active));
        }
        let file = self.open_file(last, OpenMode::Existing)?;
        let active = self.open_active(last, file)?;
        Ok((sealed, active))
    }

    fn remove_segment(&mut self, base: Offset) -> Result<(), LogError> {
        let path = offset_path(self.directory, base, LOG_SUFFIX);
        let file = self.disk.open(&path, OpenMode::Existing).map_err(doing("open a segment"))?;
        self.report.truncated_bytes += file.len().map_err(doing("measure a segment"))?;
        self.disk.remove_file(&path).map_err(doing("remove a segment after a torn end"))
    }

    /// Whether batches up to `next` may be damaged by the way the log was left.
    fn is_suspect(&self, next: Offset) -> bool {
        let known = self.open.intact_end().or(self.open.recovery_point);
        self.open.start != Start::Clean && known.is_none_or(|point| next > point)
    }

    /// Opens a segment that another follows. The flag says that it ends early and the log with it.
    fn open_sealed(
        &mut self,
        base: Offset,
        next: Offset,
        file: Arc<dyn DiskFile>,
    ) -> Result<(SealedSegment, bool), LogError> {
        let length = file.len().map_err(reading)?;
        if !self.is_suspect(next) {
            let found = index_file::open(self.disk.as_ref(), self.directory, base, length);
            if let Some((index, header)) = found.filter(|(_, header)| header.next_offset == next) {
                // A damaged entry is found at its first use.
                let usable =
                    self.open.start == Start::Clean || self.open.noted.is_some() || index.is_sound().unwrap_or(false);
                if usable {
                    return Ok((self.sealed_segment(base, file, header.into(), index), false));
                }
            }
        }
        let mut active = Active::new(base, Arc::clone(&file), self.config.index_interval_bytes, -1);
        if self.is_suspect(next) {
            self.scan_segment(&mut active, length, Some(next))?;
        } else {
            replay_headers(&mut active, length, next).map_err(|error| damaged(base, error))?;
        }
        let end = active.summary.next_offset;
        // Only what is known to lie above the recovery point may be cut.
        let cut = end < next && self.is_suspect(next) && self.open.confirmed_end().is_some_and(|point| end >= point);
        if !cut && (end != next || active.summary.size != length) {
            return Err(LogError::Quarantine { reason: format!("segment {base} does not end where {next} begins") });
        }
        if !cut {
            self.report.rebuilt.push(format!("{:020}.index", base.0));
        }
        let index = active.write_index(self.disk.as_ref(), self.directory);
        Ok((self.sealed_segment(base, file, active.summary, index), cut))
    }

    fn sealed_segment(
        &self,
        base_offset: Offset,
        file: Arc<dyn DiskFile>,
        summary: crate::segment::Summary,
        index: index_file::SealedIndex,
    ) -> SealedSegment {
        SealedSegment { base_offset, file, summary, index, index_interval: self.config.index_interval_bytes }
    }

    fn intact_active(&self, base: Offset, file: &Arc<dyn DiskFile>, length: u64) -> Option<Active> {
        let place = Place { disk: self.disk.as_ref(), directory: self.directory, base, file, length };
        let wall = self.open.wall.as_millis();
        active_index::intact(place, self.open.intact_end()?, self.config.index_interval_bytes, wall)
    }

    /// Opens the last segment.
    fn open_active(&mut self, base: Offset, file: Arc<dyn DiskFile>) -> Result<Active, LogError> {
        let length = file.len().map_err(reading)?;
        let interval = self.config.index_interval_bytes;
        let mut active = Active::new(base, Arc::clone(&file), interval, self.open.wall.as_millis());
        if self.open.start == Start::Clean {
            if let Some(active) = self.closed_active(base, &file, length) {
                return Ok(active);
            }
            self.report.rebuilt.push(format!("{:020}.index", base.0));
            if replay_headers(&mut active, length, Offset(i64::MAX)).is_ok() && active.summary.size == length {
                return Ok(active);
            }
            return Err(LogError::Quarantine { reason: format!("segment {base} was closed whole and is not now") });
        }
        match self.intact_active(base, &file, length) {
            Some(intact) => active = intact,
            // What it was written for may be gone, and something else be appended in its place.
            None => remove_index(self.disk.as_ref(), self.directory, base)?,
        }
        self.scan_segment(&mut active, length, None)?;
        Ok(active)
    }

    /// The last segment as it was closed, by its index alone; none if that is of no use.
    fn closed_active(&self, base: Offset, file: &Arc<dyn DiskFile>, length: u64) -> Option<Active> {
        let (index, header) = index_file::open(self.disk.as_ref(), self.directory, base, length)?;
        let entries = index.load()?;
        let mut active = Active::new(base, Arc::clone(file), self.config.index_interval_bytes, -1);
        let first = HeaderWalk::new(file.as_ref(), 0, length, layout::RECORDS).next().ok()?;
        if first.is_none() && header.next_offset != base {
            return None;
        }
        active.adopt(header.into(), &entries, first.map(|(_, first)| first), self.open.wall.as_millis());
        Some(active)
    }

    /// Reads what of a segment `active` does not know from the device, checks every batch, and cuts what is not one from its end.
    fn scan_segment(&mut self, active: &mut Active, mut length: u64, next: Option<Offset>) -> Result<(), LogError> {
        let file = Arc::clone(&active.segment.file);
        let known = active.summary.size;
        if length == known && known > 0 {
            // There is no tail; a cut of one may be on no device yet, so that what was cut could be back.
            let is_dirty = self.open.start == Start::Unclean && !self.open.synced;
            return if is_dirty { file.sync().map_err(syncing("sync a recovered segment")) } else { Ok(()) };
        }
        if self.open.start == Start::Unclean {
            settle_tail(file.as_ref(), known, self.open.synced)?;
            // The device may have less than the cache had.
            length = file.len().map_err(reading)?;
        }
        let problem = scan_batches(file.as_ref(), length, active)?;
        self.report.scanned_bytes += active.summary.size - known;
        let base = active.segment.base_offset;
        let end = active.summary.next_offset;
        let Some(problem) = problem else { return Ok(()) };
        let confirmed = self.open.confirmed_end().is_some_and(|point| end < point);
        // Without a recovery point, damage in a segment that another follows cannot be told from a torn write.
        let unknown = self.open.confirmed_end().is_none() && next.is_some();
        // All offsets up to the next segment are there, or more than that: no write is torn so, and nothing may go.
        let reaches = next.is_some_and(|next| end >= next);
        if confirmed || unknown || reaches {
            return Err(LogError::Quarantine {
                reason: format!("segment {base} is damaged at offset {end}: {problem}"),
            });
        }
        self.report.truncated_bytes += length - active.summary.size;
        file.truncate(active.summary.size).map_err(doing("cut a torn end"))?;
        if self.open.start.keeps_pages() {
            // It is dirty from the start, and nothing of it counts as confirmed before it is synced.
            return Ok(());
        }
        file.sync().map_err(syncing("sync a cut end"))
    }
}

impl Active {
    fn write_index(&self, disk: &dyn Disk, directory: &Path) -> index_file::SealedIndex {
        let entries: Vec<_> = (0..self.entries).filter_map(|at| self.segment.index.get(at)).collect();
        let header = index_header(self.summary);
        index_file::write(disk, directory, self.segment.base_offset, header, &entries)
            .unwrap_or_else(|_| index_file::SealedIndex::absent())
    }
}

fn damaged(base: Offset, error: io::Error) -> LogError {
    if error.kind() != io::ErrorKind::InvalidData {
        return reading(error);
    }
    LogError::Quarantine { reason: format!("segment {base} is damaged: {error}") }
}
