//! Appending as follower: what the leader sent, with the offsets and epochs that it gave.
//! Invariant: all of it is checked before any of it is written; offsets follow each other and epochs never go back.

use bytes::Bytes;
use madang_actors::clock::Wall;
use madang_protocol::record_batch::{BatchError, BatchHeader, Batches};
use madang_protocol::types::{LeaderEpoch, Offset};

use crate::append::{AppendError, BatchToAppend, HEAD, Placed};
use crate::log::{Log, LogError};
use crate::mutants::mutant;

/// Why nothing, or not all, of what the leader sent was appended.
#[derive(Debug, thiserror::Error)]
pub enum FollowerAppendError {
    /// A batch is damaged: fetch it again.
    #[error("the leader sent a damaged batch: {0}")]
    Corrupt(#[from] BatchError),
    /// A batch does not follow the one before it.
    #[error("the leader sent offset {found} where {expected} is next")]
    Gap {
        /// What was to come.
        expected: Offset,
        /// What came.
        found: Offset,
    },
    /// A batch's epoch is below the one before it, or above the leader's.
    #[error("the leader of epoch {leader} sent epoch {found} after {latest}")]
    Epoch {
        /// The leader's.
        leader: LeaderEpoch,
        /// The newest in the log.
        latest: LeaderEpoch,
        /// The batch's.
        found: LeaderEpoch,
    },
    /// The write failed; batches before the one that failed may be in the log.
    #[error(transparent)]
    Write(AppendError),
}

impl Log {
    /// Appends the whole batches of `records`; a torn last one, as a limited fetch may bring, is left out. `gaps` says whether compaction may
    /// have taken offsets between batches. Answers how many batches were appended.
    ///
    /// Nothing is durable until a sync is confirmed: see [`Log::take_dirty`].
    ///
    /// # Errors
    /// See [`FollowerAppendError`]; all but `Write` leave the log as it was.
    pub fn append_as_follower(
        &mut self,
        records: &Bytes,
        leader_epoch: LeaderEpoch,
        gaps: bool,
        wall: Wall,
    ) -> Result<usize, FollowerAppendError> {
        if !self.is_settled() {
            let (outcomes, source) = (Vec::new(), std::io::Error::other(LogError::Broken));
            return Err(FollowerAppendError::Write(AppendError { outcomes, definite: true, source }));
        }
        let batches = self.checked(records, leader_epoch, gaps)?;
        self.write_all(&batches, wall).map_err(|(definite, source)| {
            FollowerAppendError::Write(AppendError { outcomes: Vec::new(), definite, source })
        })?;
        Ok(batches.len())
    }

    fn checked(
        &self,
        records: &Bytes,
        leader: LeaderEpoch,
        gaps: bool,
    ) -> Result<Vec<BatchToAppend>, FollowerAppendError> {
        let mut expected = self.log_end_offset();
        let mut latest = self.epochs.latest().map_or(LeaderEpoch::NONE, |last| last.epoch);
        let mut batches = Vec::new();
        let mut walk = Batches::new(records);
        let mut start = 0;
        while let Some(view) = walk.next() {
            let view = match view {
                Err(BatchError::Torn { .. }) => break,
                view => view?,
            };
            view.verify_crc()?;
            let BatchHeader { base_offset: found, partition_leader_epoch: epoch, .. } = view.header;
            if found < expected || (found > expected && !gaps) {
                return Err(FollowerAppendError::Gap { expected, found });
            }
            if epoch < latest || epoch > leader || epoch < LeaderEpoch(0) {
                return Err(FollowerAppendError::Epoch { leader, latest, found: epoch });
            }
            (expected, latest) = (view.header.next_offset(), epoch);
            batches.push(BatchToAppend::new(records.slice(start..walk.position()))?);
            start = walk.position();
        }
        Ok(batches)
    }

    fn write_all(&mut self, batches: &[BatchToAppend], wall: Wall) -> Result<(), (bool, std::io::Error)> {
        let mut group: Vec<Placed> = Vec::new();
        let mut size = self.active.summary.size;
        for (place, batch) in batches.iter().enumerate() {
            let header = *batch.header();
            let epoch_before = group.last().map(|last| last.header.partition_leader_epoch);
            let roll = self.must_roll(batch, size, header.base_offset, wall);
            if let Some(epoch) = epoch_before.filter(|epoch| roll || *epoch != header.partition_leader_epoch) {
                self.write_group(batches, &mut group, epoch, wall)?;
            }
            if roll {
                self.roll(wall).map_err(|error| (true, std::io::Error::other(error)))?;
                size = 0;
            }
            let mut head = [0; HEAD];
            head.iter_mut().zip(batch.bytes().iter()).for_each(|(to, from)| *to = *from);
            let remembered = if mutant(69) { BatchHeader { producer_id: -1, ..header } } else { header };
            let undo = self.producers.note(&remembered, wall.as_millis());
            size += batch.size_in_bytes() as u64;
            group.push(Placed { place, head, header, undo });
        }
        match group.last().map(|last| last.header.partition_leader_epoch) {
            Some(epoch) => self.write_group(batches, &mut group, epoch, wall),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use madang_protocol::record_batch::{BatchBuilder, BatchOptions, stamp};

    use super::*;
    use crate::{Disk, Fault, FaultDisk, LogConfig, OpenLog};

    fn log(disk: &FaultDisk, segment_bytes: u64) -> Log {
        let config = LogConfig { segment_bytes, ..LogConfig::default() };
        let opened = Log::open(Arc::new(disk.clone()), Path::new("/data/orders-0"), config, &OpenLog::default());
        opened.map(|(log, _)| log).expect("opens")
    }

    fn batch(offset: i64, epoch: i32) -> Vec<u8> {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(0, None, Some(&[7; 20]), &[]).expect("fits");
        let mut bytes = builder.build().expect("a batch").to_vec();
        stamp(&mut bytes, Offset(offset), LeaderEpoch(epoch));
        bytes
    }

    fn batches(of: &[(i64, i32)]) -> Bytes {
        of.iter().flat_map(|(offset, epoch)| batch(*offset, *epoch)).collect::<Vec<_>>().into()
    }

    fn follow(log: &mut Log, of: &[(i64, i32)], leader: i32) -> Result<usize, FollowerAppendError> {
        log.append_as_follower(&batches(of), LeaderEpoch(leader), false, Wall(0))
    }

    #[test]
    fn the_copy_has_the_leaders_offsets_epochs_and_bytes_across_rolled_segments() {
        let disk = FaultDisk::new();
        disk.create_dir(Path::new("/data")).expect("creates");
        let mut log = log(&disk, 200);
        let sent = [(0, 1), (1, 1), (2, 3), (3, 3), (4, 5)];
        assert_eq!(follow(&mut log, &sent, 5).expect("appends"), 5);
        assert_eq!((log.log_end_offset(), log.segment_count()), (Offset(5), 3));
        let starts: Vec<_> =
            log.leader_epochs().entries().iter().map(|entry| (entry.epoch.0, entry.start_offset.0)).collect();
        assert_eq!(starts, [(1, 0), (3, 2), (5, 4)]);
        let read = log.view().read(Offset(0), Offset(5), 1 << 20, true).expect("reads");
        assert_eq!(read.records.read().expect("reads"), batches(&sent));
    }

    #[test]
    fn a_gap_an_older_epoch_and_a_damaged_batch_change_nothing() {
        let disk = FaultDisk::new();
        disk.create_dir(Path::new("/data")).expect("creates");
        let mut log = log(&disk, 1 << 20);
        follow(&mut log, &[(0, 2)], 2).expect("appends");
        assert!(matches!(follow(&mut log, &[(1, 2), (3, 2)], 2), Err(FollowerAppendError::Gap { .. })));
        assert!(matches!(follow(&mut log, &[(0, 2)], 2), Err(FollowerAppendError::Gap { .. })));
        assert!(matches!(follow(&mut log, &[(1, 1)], 2), Err(FollowerAppendError::Epoch { .. })));
        assert!(matches!(follow(&mut log, &[(1, 3)], 2), Err(FollowerAppendError::Epoch { .. })));
        let mut damaged = batch(1, 2);
        *damaged.last_mut().expect("bytes") ^= 1;
        let damaged = log.append_as_follower(&damaged.into(), LeaderEpoch(2), false, Wall(0));
        assert!(matches!(damaged, Err(FollowerAppendError::Corrupt(_))));
        assert_eq!(log.log_end_offset(), Offset(1));
        let compacted = log.append_as_follower(&batches(&[(4, 2)]), LeaderEpoch(2), true, Wall(0));
        assert_eq!((compacted.expect("a gap of compaction"), log.log_end_offset()), (1, Offset(5)));
    }

    #[test]
    fn a_torn_last_batch_is_left_out_and_a_failed_write_is_taken_back() {
        let disk = FaultDisk::new();
        disk.create_dir(Path::new("/data")).expect("creates");
        let mut log = log(&disk, 1 << 20);
        let mut sent = batches(&[(0, 1), (1, 1)]).to_vec();
        sent.truncate(sent.len() - 3);
        let appended = log.append_as_follower(&sent.into(), LeaderEpoch(1), false, Wall(0));
        assert_eq!((appended.expect("one is whole"), log.log_end_offset()), (1, Offset(1)));
        disk.plan(disk.operations(), Fault::Short(10));
        let failed = follow(&mut log, &[(1, 1)], 1);
        assert!(matches!(failed, Err(FollowerAppendError::Write(AppendError { definite: true, .. }))), "{failed:?}");
        follow(&mut log, &[(1, 1)], 1).expect("there is room again");
        assert_eq!(log.log_end_offset(), Offset(2));
    }
}
