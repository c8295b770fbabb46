//! Recovery points and high watermarks of a directory's partitions. All of it can be lost: recovery then scans more.
//! Invariant: a checkpoint that cannot be read is as if it were not there.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::sync::{Mutex, PoisonError};

use madang_protocol::types::{Offset, TopicPartition};

/// What is noted of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The end that was confirmed on the device.
    pub recovery_point: Offset,
    /// The high watermark; whoever reads it clamps it to the log.
    pub high_watermark: Offset,
}

/// Where checkpoints are kept. Calls block.
pub trait Checkpoints: Send + Sync + Debug {
    /// The partition's checkpoint, if it is known.
    fn load(&self, partition: TopicPartition) -> Option<Checkpoint>;

    /// Notes all of them at once, durably.
    ///
    /// # Errors
    /// Whatever the disk reports; the old ones may then still be there.
    fn store(&self, checkpoints: &[(TopicPartition, Checkpoint)]) -> io::Result<()>;

    /// Forgets a partition that was deleted.
    ///
    /// # Errors
    /// Whatever the disk reports.
    fn remove(&self, partition: TopicPartition) -> io::Result<()>;
}

/// Checkpoints that live as long as the process.
#[derive(Debug, Default)]
pub struct MemoryCheckpoints {
    known: Mutex<BTreeMap<TopicPartition, Checkpoint>>,
}

impl MemoryCheckpoints {
    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<TopicPartition, Checkpoint>) -> T) -> T {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Checkpoints for MemoryCheckpoints {
    fn load(&self, partition: TopicPartition) -> Option<Checkpoint> {
        self.change(|known| known.get(&partition).copied())
    }

    fn store(&self, checkpoints: &[(TopicPartition, Checkpoint)]) -> io::Result<()> {
        self.change(|known| known.extend(checkpoints.iter().copied()));
        Ok(())
    }

    fn remove(&self, partition: TopicPartition) -> io::Result<()> {
        self.change(|known| known.remove(&partition));
        Ok(())
    }
}
