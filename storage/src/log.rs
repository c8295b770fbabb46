//! One partition's log, as its single writer holds it.
//! Invariant: `log_start_offset <= confirmed_offset`, or the log is empty below; what a view shows was written before the view was made.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use madang_actors::clock::Wall;
use madang_protocol::record_batch::BatchHeader;
use madang_protocol::types::{LeaderEpoch, Offset};

use crate::compaction::CleanerOffset;
use crate::config::{LogConfig, millis};
use crate::disk::{Disk, DiskFile, OpenMode, read_small, replace_file, replace_file_durably};
pub(crate) use crate::error::{LogError, doing, reading, syncing};
use crate::format::{
    INDEX_SUFFIX, IndexHeader, Kind, LEADER_EPOCHS_FILE, LOG_START_FILE, LOG_SUFFIX, MAX_SIDE_FILE, SNAPSHOT_SUFFIX,
    TIME_INDEX_SUFFIX, offset_path, seal,
};
use crate::index::{IndexEntry, LiveIndex};
use crate::index_file::{self, SealedIndex};
use crate::leader_epochs::LeaderEpochs;
use crate::mutants::mutant;
use crate::producer_state::ProducerState;
use crate::reserve::Reserved;
use crate::retention::{self, Candidate};
use crate::segment::{ActiveSegment, HeaderWalk, LONG_WALK_BUFFER, Recent, Sampler, SealedSegment, Summary};
use crate::sync::{SyncError, SyncOutcome, SyncRequest, SyncState};
use crate::view::LogView;

/// When a log that was found in the page cache is synced: once the node has come to serve.
const FIRST_SYNC_WITHIN: Duration = Duration::from_secs(5);

/// The segment that is appended to.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<ActiveSegment>,
    pub(crate) summary: Summary,
    pub(crate) entries: usize,
    pub(crate) sampler: Sampler,
    pub(crate) recent: Recent,
    pub(crate) reserved: Reserved,
    /// Timestamp of the first batch, or the wall clock at creation: what `segment.ms` counts from.
    pub(crate) first_timestamp: Option<i64>,
    pub(crate) created: i64,
}

/// One partition's log. Owned by one thread; readers get a [`LogView`].
#[derive(Debug)]
pub struct Log {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    pub(crate) config: LogConfig,
    pub(crate) sealed: Arc<[Arc<SealedSegment>]>,
    pub(crate) active: Active,
    pub(crate) log_start_offset: Offset,
    pub(crate) epochs: Arc<LeaderEpochs>,
    pub(crate) producers: ProducerState,
    pub(crate) sync: SyncState,
    pub(crate) cleaner_offset: CleanerOffset,
    pub(crate) broken: bool,
    /// Bytes that this process appended, up to the warm limit.
    pub(crate) appended: u64,
    pub(crate) unsynced_messages: u64,
    pub(crate) unsynced_since: Option<i64>,
    /// Whether what a killed process left in the page cache has not been synced since.
    pub(crate) owes_first_sync: bool,
    /// Length of the active segment when its index was written beside it last.
    pub(crate) noted_size: u64,
    pub(crate) jitter: i64,
}

impl Active {
    pub(crate) fn new(base_offset: Offset, file: Arc<dyn DiskFile>, interval: u64, created: i64) -> Self {
        Self {
            segment: Arc::new(ActiveSegment { base_offset, file, index: LiveIndex::default() }),
            summary: Summary::empty(base_offset),
            entries: 0,
            sampler: Sampler::new(base_offset, interval),
            recent: Recent::default(),
            reserved: Reserved::default(),
            first_timestamp: None,
            created,
        }
    }

    /// Takes a batch that is in the file into account.
    pub(crate) fn note(&mut self, header: &BatchHeader, recent: bool) {
        let position = self.summary.size;
        if let Some(entry) = self.sampler.sample(position, header)
            && self.segment.index.set(self.entries, entry)
        {
            self.entries += 1;
        }
        if header.base_offset != self.summary.next_offset {
            // Compaction left a gap. What is recent has none, so that an offset is in the batch that starts before it.
            self.recent = Recent::default();
        }
        if recent
            && let (Ok(offset), Ok(position)) =
                (u32::try_from(header.base_offset - self.segment.base_offset), u32::try_from(position))
        {
            self.recent.push(offset, position);
        }
        if self.first_timestamp.is_none() && header.max_timestamp >= 0 {
            self.first_timestamp = Some(header.max_timestamp);
        }
        self.summary.add(header);
    }

    /// Takes over what the index of a closed segment says; `first` is the header of its first batch.
    pub(crate) fn adopt(&mut self, summary: Summary, entries: &[IndexEntry], first: Option<BatchHeader>, wall: i64) {
        for entry in entries {
            if self.segment.index.set(self.entries, *entry) {
                self.entries += 1;
            }
        }
        self.sampler.resume(entries.last().map_or(0, |last| u64::from(last.position)), summary.max_timestamp);
        self.first_timestamp = first.map(|first| first.max_timestamp).filter(|timestamp| *timestamp >= 0);
        self.created = wall;
        self.summary = summary;
    }

    /// Planted bug 26: entries of what was cut stay in the index.
    pub(crate) fn keep_index_of(&mut self, old: &Self) {
        for entry in old.index_entries().into_iter().skip(self.entries) {
            if self.segment.index.set(self.entries, entry) {
                self.entries += 1;
            }
        }
    }

    fn index_entries(&self) -> Vec<IndexEntry> {
        (0..self.entries).filter_map(|at| self.segment.index.get(at)).collect()
    }
}

impl Log {
    /// The offset of the first record that may be read.
    #[must_use]
    pub const fn log_start_offset(&self) -> Offset {
        self.log_start_offset
    }

    /// The offset that the next record will get.
    #[must_use]
    pub const fn log_end_offset(&self) -> Offset {
        self.active.summary.next_offset
    }

    /// The end of what is on the device: every file and directory entry below it has been synced.
    #[must_use]
    pub const fn confirmed_offset(&self) -> Offset {
        self.sync.confirmed()
    }

    /// The partition's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The configuration in force.
    #[must_use]
    pub const fn config(&self) -> &LogConfig {
        &self.config
    }

    /// The leader epochs, oldest first.
    #[must_use]
    pub const fn leader_epochs(&self) -> &Arc<LeaderEpochs> {
        &self.epochs
    }

    /// The idempotent producers.
    #[must_use]
    pub const fn producers(&self) -> &ProducerState {
        &self.producers
    }

    /// How many segments there are, the active one included.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.sealed.len() + 1
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn size_in_bytes(&self) -> u64 {
        self.sealed.iter().map(|segment| segment.summary.size).sum::<u64>() + self.active.summary.size
    }

    /// A snapshot for readers. Make one after each drained batch, before anything that follows from it is sent.
    #[must_use]
    pub fn view(&self) -> LogView {
        LogView {
            log_start_offset: self.log_start_offset,
            sealed: Arc::clone(&self.sealed),
            active: Arc::clone(&self.active.segment),
            summary: self.active.summary,
            entries: self.active.entries,
            recent: self.active.recent.clone(),
            epochs: Arc::clone(&self.epochs),
            warm_bytes: self.appended,
        }
    }

    /// Notes that a leader of `epoch` starts here, before it appends. Its start becomes durable with the next sync, and asks for none of its own: every
    /// batch says its epoch, and one that wrote nothing tells nobody anything.
    ///
    /// # Errors
    /// The checkpoint cannot be written; the epoch is then noted all the same, and again in each of its batches.
    pub fn begin_epoch(&mut self, epoch: LeaderEpoch) -> Result<(), LogError> {
        let start = self.log_end_offset();
        if Arc::make_mut(&mut self.epochs).assign(epoch, start) {
            let file = self.replace_epochs()?;
            self.sync.dirty_in_passing(&file, &self.directory);
        }
        Ok(())
    }

    /// As [`Log::write_epochs`], and on the device when it returns.
    pub(crate) fn write_epochs_durably(&self) -> Result<(), LogError> {
        let path = self.directory.join(LEADER_EPOCHS_FILE);
        replace_file_durably(self.disk.as_ref(), &path, &self.epochs.to_bytes())
            .map_err(doing("write the leader epochs"))
    }

    /// Whether the checkpoint is what it is to be; its bytes may be dirty.
    fn has_stored_epochs(&self) -> bool {
        let stored = read_small(self.disk.as_ref(), &self.directory.join(LEADER_EPOCHS_FILE), MAX_SIDE_FILE);
        stored.map_or_else(|_| self.epochs.entries().is_empty(), |stored| stored == self.epochs.to_bytes())
    }

    fn replace_epochs(&self) -> Result<Arc<dyn DiskFile>, LogError> {
        let path = self.directory.join(LEADER_EPOCHS_FILE);
        replace_file(self.disk.as_ref(), &path, &self.epochs.to_bytes()).map_err(doing("write the leader epochs"))
    }

    pub(crate) fn write_epochs(&mut self) -> Result<(), LogError> {
        let file = self.replace_epochs()?;
        self.sync.dirty_file(&file);
        self.sync.dirty_directory(&self.directory);
        Ok(())
    }

    /// Planted bug 25: the log goes on at an end that its files do not have.
    #[cfg(feature = "mutants")]
    pub const fn plant_end(&mut self, end: Offset) {
        self.active.summary.next_offset = end;
    }

    /// What has to be synced now, if anything is dirty. Taking it makes the log clean; the outcome must come back through [`Log::synced`].
    pub fn take_dirty(&mut self) -> Option<SyncRequest> {
        let request = self.sync.take(&self.disk, self.log_end_offset());
        if request.is_some() {
            self.unsynced_messages = 0;
            self.unsynced_since = None;
            self.owes_first_sync = false;
        }
        request
    }

    /// Gives a log that was just opened, by whomever, to the replica's life that appends to it: outcomes of syncs of any other are dropped.
    pub fn taken_by(&mut self, incarnation: u64) {
        self.sync.taken_by(incarnation);
    }

    /// Whether there is anything to sync that somebody may wait for, which the start of an epoch alone is not.
    #[must_use]
    pub const fn is_due(&self) -> bool {
        self.sync.is_due()
    }

    /// Whether there is anything to sync.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.sync.is_dirty()
    }

    /// Takes a sync's outcome; answers the confirmed offset. An outcome from before a truncation confirms nothing, one of another incarnation
    /// is dropped.
    ///
    /// # Errors
    /// The sync failed, now or before: the directory is dead.
    pub fn synced(&mut self, outcome: SyncOutcome) -> Result<Offset, SyncError> {
        self.sync.completed(outcome)
    }

    /// Whether `flush.messages` or `flush.ms` asks for a sync now.
    #[must_use]
    pub fn sync_is_due(&self, wall: Wall) -> bool {
        let by_count = self.config.flush_messages.is_some_and(|limit| self.unsynced_messages >= limit);
        let by_time = match (self.config.flush_interval, self.unsynced_since) {
            (Some(interval), Some(since)) => wall.as_millis().saturating_sub(since) >= millis(interval),
            _ => false,
        };
        self.sync.is_dirty() && (by_count || by_time)
    }

    /// How long what is dirty may wait for a sync where the page cache is all that is promised; none is for ever.
    #[must_use]
    pub fn sync_within(&self) -> Option<Duration> {
        let first = self.owes_first_sync.then_some(FIRST_SYNC_WITHIN);
        first.into_iter().chain(self.config.flush_interval).min()
    }

    /// Puts a changed configuration in force; what exists is not rewritten.
    pub fn apply_config(&mut self, config: LogConfig) {
        self.producers.configure(millis(config.producer_id_expiration));
        self.config = config;
    }

    /// Seals the active segment and starts the next one at the log's end. Nothing happens if the active segment is empty.
    ///
    /// # Errors
    /// The next segment cannot be created; the active one then stays.
    pub fn roll(&mut self, wall: Wall) -> Result<(), LogError> {
        if self.active.summary.size == 0 {
            return Ok(());
        }
        let base_offset = self.log_end_offset();
        self.write_snapshot(base_offset);
        let path = offset_path(&self.directory, base_offset, LOG_SUFFIX);
        let file = self.disk.open(&path, OpenMode::Truncate).map_err(doing("create a segment"))?;
        self.sync.dirty_file(&file);
        if !mutant(27) {
            self.sync.dirty_directory(&self.directory);
        }
        let next = Active::new(base_offset, file, self.config.index_interval_bytes, wall.as_millis());
        let full = std::mem::replace(&mut self.active, next);
        full.segment.file.give_back();
        self.sealed = self.sealed.iter().cloned().chain([Arc::new(self.seal_segment(&full))]).collect();
        self.noted_size = 0;
        self.remove_loose_snapshots();
        Ok(())
    }

    fn seal_segment(&self, full: &Active) -> SealedSegment {
        let index = self.write_index(full).unwrap_or_else(|error| {
            tracing::warn!(directory = %self.directory.display(), %error, "index not written; it will be rebuilt");
            SealedIndex::absent()
        });
        SealedSegment {
            base_offset: full.segment.base_offset,
            file: Arc::clone(&full.segment.file),
            summary: full.summary,
            index,
            index_interval: self.config.index_interval_bytes,
        }
    }

    pub(crate) fn write_index(&self, active: &Active) -> io::Result<SealedIndex> {
        let header = index_header(active.summary);
        let base_offset = active.segment.base_offset;
        index_file::write(self.disk.as_ref(), &self.directory, base_offset, header, &active.index_entries())
    }

    /// A snapshot only shortens the next recovery, so that it fails costs nothing now.
    pub(crate) fn write_snapshot(&self, offset: Offset) {
        let path = offset_path(&self.directory, offset, SNAPSHOT_SUFFIX);
        if let Err(error) = replace_file(self.disk.as_ref(), &path, &self.producers.to_bytes()) {
            tracing::warn!(path = %path.display(), %error, "producer snapshot not written");
        }
    }

    /// Moves the log's start up to `offset`: what is below may no longer be read. Durable when it returns. Lower offsets change nothing.
    ///
    /// # Errors
    /// `OutOfRange` above the log's end; `Io`, and then the start has not moved for readers.
    pub fn set_log_start_offset(&mut self, offset: Offset) -> Result<(), LogError> {
        if offset > self.log_end_offset() {
            return Err(LogError::OutOfRange(offset));
        }
        if offset <= self.log_start_offset {
            return Ok(());
        }
        let path = self.directory.join(LOG_START_FILE);
        let bytes = seal(Kind::LogStart, &offset.0.to_be_bytes());
        replace_file_durably(self.disk.as_ref(), &path, &bytes).map_err(doing("write the log start offset"))?;
        self.log_start_offset = offset;
        if Arc::make_mut(&mut self.epochs).truncate_from_start(offset) {
            self.write_epochs()?;
        }
        Ok(())
    }

    /// Deletes whole segments that retention no longer keeps, or that lie below the log's start; none that ends above `high_watermark`.
    /// The active one is sealed first if it goes too. The new start is durable before a file goes. Answers how many segments went.
    ///
    /// # Errors
    /// The disk failed; what was unlinked stays unlinked, and the rest is found again at the next call.
    pub fn delete_old_segments(&mut self, high_watermark: Offset, wall: Wall) -> Result<usize, LogError> {
        let ages = |log: &Self| {
            let age = |segment: &Arc<SealedSegment>| Candidate::new(segment.summary, segment.file.as_ref());
            log.sealed.iter().map(age).collect::<Vec<_>>()
        };
        let mut rules = retention::Rules {
            retention: self.config.retention,
            retention_bytes: self.config.retention_bytes,
            log_start_offset: self.log_start_offset,
            high_watermark,
            active_bytes: self.active.summary.size,
        };
        let active = Candidate::new(self.active.summary, self.active.segment.file.as_ref());
        let mut sealed = ages(self);
        if retention::active_goes(&sealed, active, &rules, wall) {
            self.roll(wall)?;
            rules.active_bytes = 0;
            sealed = ages(self);
        }
        let count = retention::deletable(&sealed, &rules, wall);
        let Some(last) = count.checked_sub(1).and_then(|last| self.sealed.get(last)) else { return Ok(0) };
        self.set_log_start_offset(last.summary.next_offset)?;
        let gone: Vec<Arc<SealedSegment>> = self.sealed.iter().take(count).cloned().collect();
        // Oldest first: a crash between two leaves no hole. What could not go stays known, so that it goes before any newer one.
        let mut removed = 0;
        let mut result = Ok(());
        for segment in &gone {
            result = self.unlink(segment.base_offset);
            if result.is_err() {
                break;
            }
            removed += 1;
        }
        self.sealed = self.sealed.iter().skip(removed).cloned().collect();
        result.map(|()| removed)
    }

    /// Removes a segment's files, the batches first: what is left over then is a side file without a segment.
    pub(crate) fn unlink(&self, base_offset: Offset) -> Result<(), LogError> {
        for suffix in [LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX, SNAPSHOT_SUFFIX] {
            self.remove_if_there(&offset_path(&self.directory, base_offset, suffix))?;
        }
        Ok(())
    }

    pub(crate) fn remove_if_there(&self, path: &Path) -> Result<(), LogError> {
        match self.disk.remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(doing("delete a file of a segment")(error)),
            _ => Ok(()),
        }
    }

    /// Writes what the next start needs to be quick, and syncs what it has to believe, if that is not on the device already: index and producers are
    /// checked when they are read, and rebuilt. Consumes the log: nothing can be appended after it. The outcomes of all requests must have come
    /// back before.
    ///
    /// # Errors
    /// `Io` if the disk fails now, `Broken` if it failed before or a sync is still under way; the directory must not be marked clean.
    pub fn close(mut self) -> Result<Offset, LogError> {
        if self.broken {
            return Err(LogError::Broken);
        }
        let end = self.log_end_offset();
        self.write_index(&self.active).map_err(doing("write an index"))?;
        self.write_snapshot(end);
        if !self.has_stored_epochs() {
            self.write_epochs()?;
        }
        self.active.segment.file.give_back();
        if mutant(8) {
            return Ok(end);
        }
        if !self.is_dirty() {
            let known = self.sync.is_known() && self.sync.confirmed() >= end;
            return if known { Ok(end) } else { Err(LogError::Broken) };
        }
        // Something is dirty, so that there is no request means that a sync failed before.
        let request = self.take_dirty().ok_or(LogError::Broken)?;
        let confirmed = self.synced(request.perform()).map_err(|error| doing("sync a log")(io::Error::other(error)))?;
        // An earlier request is still under way, and how it ends is not known.
        if confirmed < end { Err(LogError::Broken) } else { Ok(end) }
    }
}

pub(crate) const fn index_header(summary: Summary) -> IndexHeader {
    IndexHeader {
        entries_crc: 0,
        entries: 0,
        log_bytes: summary.size,
        next_offset: summary.next_offset,
        max_timestamp: summary.max_timestamp,
        max_timestamp_offset: summary.max_timestamp_offset,
    }
}

/// Takes the batches of a file into account that end at or below `end`, without reading their records.
pub(crate) fn replay_headers(active: &mut Active, size: u64, end: Offset) -> io::Result<()> {
    let file = Arc::clone(&active.segment.file);
    let mut walk = HeaderWalk::new(file.as_ref(), 0, size, LONG_WALK_BUFFER);
    while let Some((_, header)) = walk.next()? {
        if header.next_offset() > end {
            break;
        }
        active.note(&header, true);
    }
    Ok(())
}
