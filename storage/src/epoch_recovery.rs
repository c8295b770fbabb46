//! The leader epochs of a log that is opened: what is stored, and the batches after it.
//! Invariant: what recovery answers of the epochs is on the device, or is dirty with all else that is not.

use std::io;
use std::sync::Arc;

use madang_protocol::types::LeaderEpoch;

use crate::disk::{OpenMode, read_small};
use crate::format::{LEADER_EPOCHS_FILE, MAX_SIDE_FILE};
use crate::leader_epochs::LeaderEpochs;
use crate::log::{Log, LogError, doing, reading, syncing};
use crate::recovery::{OpenLog, Recovery, Start};
use crate::segment::{HeaderWalk, LONG_WALK_BUFFER, WALK_BUFFER};

fn missing_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

impl Log {
    /// The epoch of the last batch; none if there is no batch.
    fn last_batch_epoch(&self) -> Result<Option<LeaderEpoch>, LogError> {
        let mut epoch = None;
        for (file, start, size) in self.files_after(self.log_end_offset() + -1).map_err(reading)? {
            let mut walk = HeaderWalk::new(file.as_ref(), start, size, WALK_BUFFER);
            while let Some((_, header)) = walk.next().map_err(reading)? {
                epoch = Some(header.partition_leader_epoch);
            }
        }
        Ok(epoch)
    }

    pub(crate) fn recover_epochs(&mut self, open: &OpenLog, report: &mut Recovery) -> Result<(), LogError> {
        let path = self.directory.join(LEADER_EPOCHS_FILE);
        if open.synced && open.start == Start::Unclean {
            // What the device has is read, as it is not written again.
            let dropped = self.disk.open(&path, OpenMode::Existing).and_then(|file| file.drop_cache(0));
            dropped.or_else(missing_is_fine).map_err(doing("drop the leader epochs' pages"))?;
        }
        let stored = read_small(self.disk.as_ref(), &path, MAX_SIDE_FILE).ok();
        let stored = stored.and_then(|bytes| LeaderEpochs::from_bytes(&bytes));
        let from = match (&stored, open.start) {
            (Some(_), Start::Clean) => self.log_end_offset(),
            (Some(_), _) => open.intact_end().or(open.recovery_point).unwrap_or(self.log_start_offset),
            (None, _) => self.log_start_offset,
        };
        let missing = stored.is_none() && self.log_end_offset() > self.log_start_offset;
        let end = self.log_end_offset();
        let mut epochs = stored.clone().unwrap_or_default();
        // An epoch that has begun and written nothing is in no batch.
        let begun = epochs.latest().filter(|last| last.start_offset == end);
        let mut from = from.min(end);
        let latest = epochs.latest();
        if open.start != Start::Clean && latest.map(|last| last.epoch) < self.last_batch_epoch()? {
            // It could not be written when that epoch began, and the log went on; or the epochs of a cut are on the device, and the cut is not.
            from = from.min(latest.map_or(self.log_start_offset, |last| last.start_offset));
        }
        epochs.truncate_from_end(from);
        for (file, start, size) in self.files_after(from).map_err(reading)? {
            let mut walk = HeaderWalk::new(file.as_ref(), start, size, LONG_WALK_BUFFER);
            while let Some((_, header)) = walk.next().map_err(reading)? {
                if header.next_offset() > from {
                    epochs.assign(header.partition_leader_epoch, header.base_offset.max(self.log_start_offset));
                }
            }
        }
        if let Some(begun) = begun.filter(|begun| epochs.latest().is_none_or(|last| last.epoch < begun.epoch)) {
            epochs.assign(begun.epoch, begun.start_offset);
        }
        epochs.truncate_from_start(self.log_start_offset);
        let changed = stored.as_ref() != Some(&epochs);
        self.epochs = Arc::new(epochs);
        if missing {
            report.rebuilt.push(LEADER_EPOCHS_FILE.to_owned());
        }
        // What was written before a kill may be on no device yet, and what recovery answers has to stay true.
        match open.start {
            _ if changed && (stored.is_some() || !self.epochs.entries().is_empty()) => self.write_epochs_durably(),
            // In the boot in which it was written, nothing but this sync is between the file and the device.
            Start::Unclean if stored.is_some() && open.noted.is_some() && !open.synced => {
                let file = self.disk.open(&path, OpenMode::Existing).map_err(doing("open the leader epochs"))?;
                file.sync().map_err(syncing("sync the leader epochs"))
            }
            Start::Unclean if stored.is_some() && !open.synced => self.write_epochs_durably(),
            Start::SameBoot if stored.is_some() => {
                let file = self.disk.open(&path, OpenMode::Existing).map_err(doing("open the leader epochs"))?;
                self.sync.dirty_file(&file);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
