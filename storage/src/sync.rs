//! What of a log is not yet on the device, and how far it is.
//! Invariant: the confirmed offset is the longest prefix of which every file and every directory entry has been synced.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use madang_protocol::types::Offset;

use crate::disk::{Disk, DiskFile};
use crate::mutants::mutant;

/// What a flusher thread has to do for one log. It can be sent anywhere; only [`SyncRequest::perform`] does I/O.
#[derive(Debug)]
#[must_use]
pub struct SyncRequest {
    disk: Arc<dyn Disk>,
    files: Vec<Arc<dyn DiskFile>>,
    directories: Vec<PathBuf>,
    ticket: u64,
    end: Offset,
    truncations: u64,
    incarnation: u64,
}

impl SyncRequest {
    /// The log's end when the request was made: what is confirmed if it succeeds.
    #[must_use]
    pub const fn end(&self) -> Offset {
        self.end
    }

    /// The files to sync.
    #[must_use]
    pub fn files(&self) -> &[Arc<dyn DiskFile>] {
        &self.files
    }

    /// The directories to sync after the files.
    #[must_use]
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Syncs the files, then the directories; stops at the first failure. Blocks.
    pub fn perform(self) -> SyncOutcome {
        let again = |file: &Arc<dyn DiskFile>, error| if mutant(9) { file.sync() } else { Err(error) };
        let files = self.files.iter().try_for_each(|file| file.sync().or_else(|error| again(file, error)));
        // A partition that was deleted meanwhile has no names to keep.
        let sync_dir = |path: &PathBuf| match self.disk.sync_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        let result = files.and_then(|()| self.directories.iter().try_for_each(sync_dir));
        self.completed(result)
    }

    /// The outcome for a caller that synced all of it by other means, such as one `syncfs`.
    pub fn completed(self, result: io::Result<()>) -> SyncOutcome {
        SyncOutcome {
            ticket: self.ticket,
            end: self.end,
            truncations: self.truncations,
            incarnation: self.incarnation,
            result,
        }
    }
}

/// How a [`SyncRequest`] ended.
#[derive(Debug)]
#[must_use]
pub struct SyncOutcome {
    ticket: u64,
    end: Offset,
    truncations: u64,
    incarnation: u64,
    result: io::Result<()>,
}

impl SyncOutcome {
    /// Whether everything was synced.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.result.is_ok()
    }
}

/// A sync failed: what was written may be lost, and no later sync can tell. The directory is to be given up; nothing is retried.
#[derive(Debug, thiserror::Error)]
#[error("sync failed: {0}")]
pub struct SyncError(#[from] io::Error);

#[derive(Debug)]
struct Outstanding {
    ticket: u64,
    end: Offset,
    truncations: u64,
    done: bool,
}

/// The log's side of syncing.
#[derive(Debug)]
pub(crate) struct SyncState {
    files: Vec<Arc<dyn DiskFile>>,
    directories: Vec<PathBuf>,
    /// Whether something of it is waited for; the rest goes with the next sync.
    is_due: bool,
    outstanding: VecDeque<Outstanding>,
    next_ticket: u64,
    confirmed: Offset,
    truncations: u64,
    /// Whether a truncation is not on the device yet, and the request that brings it there once it is taken.
    unsettled: bool,
    settling: Option<u64>,
    incarnation: u64,
    failed: bool,
}

impl SyncState {
    pub(crate) const fn new(confirmed: Offset, incarnation: u64) -> Self {
        Self {
            files: Vec::new(),
            directories: Vec::new(),
            is_due: false,
            outstanding: VecDeque::new(),
            next_ticket: 0,
            confirmed,
            truncations: 0,
            unsettled: false,
            settling: None,
            incarnation,
            failed: false,
        }
    }

    pub(crate) const fn confirmed(&self) -> Offset {
        self.confirmed
    }

    /// Whether the last truncation is on the device.
    pub(crate) const fn is_settled(&self) -> bool {
        !self.unsettled
    }

    /// Whether no sync has failed, and none is under way.
    pub(crate) fn is_known(&self) -> bool {
        !self.failed && self.outstanding.is_empty()
    }

    pub(crate) const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The life that appends from here on. What an earlier one asked for is not counted as its own.
    pub(crate) fn taken_by(&mut self, incarnation: u64) {
        if incarnation != self.incarnation {
            self.outstanding.clear();
            self.incarnation = incarnation;
        }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.files.is_empty() || !self.directories.is_empty()
    }

    /// Whether anything is dirty that is not there for company only.
    pub(crate) const fn is_due(&self) -> bool {
        self.is_due
    }

    /// A small file that has another's name now, and whose bytes and name may reach the device with whatever is synced next.
    pub(crate) fn dirty_in_passing(&mut self, file: &Arc<dyn DiskFile>, directory: &std::path::Path) {
        let was_due = self.is_due;
        self.dirty_file(file);
        self.dirty_directory(directory);
        self.is_due = was_due;
    }

    pub(crate) fn dirty_file(&mut self, file: &Arc<dyn DiskFile>) {
        self.is_due = true;
        if !self.files.iter().any(|dirty| Arc::ptr_eq(dirty, file)) {
            self.files.push(Arc::clone(file));
        }
    }

    pub(crate) fn dirty_directory(&mut self, path: &std::path::Path) {
        self.is_due = true;
        if !self.directories.iter().any(|dirty| dirty == path) {
            self.directories.push(path.to_owned());
        }
    }

    /// The log starts at `offset`, above all that it had: nothing below it can be lacking.
    pub(crate) const fn starts_at(&mut self, offset: Offset) {
        self.confirmed = offset;
    }

    /// A cut of an earlier life may be on no device yet.
    pub(crate) const fn begins_unsettled(&mut self) {
        self.unsettled = true;
    }

    /// The file is unlinked: there is nothing to sync of it any more.
    pub(crate) fn forget_file(&mut self, file: &Arc<dyn DiskFile>) {
        self.files.retain(|dirty| !Arc::ptr_eq(dirty, file));
    }

    /// The log was cut to `end`: a completion from before says nothing about what is written from now on.
    pub(crate) fn truncated(&mut self, end: Offset) {
        self.confirmed = self.confirmed.min(end);
        self.truncations += 1;
        (self.unsettled, self.settling) = (true, None);
    }

    pub(crate) fn take(&mut self, disk: &Arc<dyn Disk>, end: Offset) -> Option<SyncRequest> {
        if self.failed || !self.is_dirty() {
            return None;
        }
        self.is_due = false;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if self.unsettled {
            self.settling.get_or_insert(ticket);
        }
        self.outstanding.push_back(Outstanding { ticket, end, truncations: self.truncations, done: false });
        Some(SyncRequest {
            disk: Arc::clone(disk),
            files: std::mem::take(&mut self.files),
            directories: std::mem::take(&mut self.directories),
            ticket,
            end,
            truncations: self.truncations,
            incarnation: self.incarnation,
        })
    }

    pub(crate) fn completed(&mut self, outcome: SyncOutcome) -> Result<Offset, SyncError> {
        // Whichever life asked: the pages that could not be written may be gone, and this one's next sync would not tell.
        if let Err(error) = outcome.result {
            self.failed = true;
            return Err(SyncError(error));
        }
        if outcome.incarnation != self.incarnation {
            return Ok(self.confirmed);
        }
        if self.failed {
            return Err(SyncError(io::Error::other("an earlier sync of this log failed")));
        }
        debug_assert!(outcome.truncations <= self.truncations && outcome.end >= Offset::ZERO);
        if let Some(request) = self.outstanding.iter_mut().find(|request| request.ticket == outcome.ticket) {
            request.done = true;
        }
        if self.settling == Some(outcome.ticket) {
            (self.unsettled, self.settling) = (false, None);
        }
        // A later request may be done first: its files are synced, those of an earlier one not yet.
        while let Some(first) = self.outstanding.front().filter(|first| first.done) {
            if first.truncations == self.truncations || mutant(38) {
                self.confirmed = self.confirmed.max(first.end);
            }
            self.outstanding.pop_front();
        }
        Ok(self.confirmed)
    }
}
