//! One partition's log on a disk that may fail.
//!
//! [`Log`] is the writer, [`LogView`] what readers read through, [`SyncRequest`] what a flusher thread performs. All I/O goes through
//! [`Disk`]: `RealDisk` (feature `real-disk`), or [`FaultDisk`] in memory for tests and simulation.

mod append;
mod config;
mod disk;
mod fault_disk;
mod fault_inode;
pub mod format;
mod index;
mod index_file;
mod leader_epochs;
mod log;
mod producer_state;
#[cfg(feature = "real-disk")]
mod real_disk;
mod records;
mod recovery;
mod region;
pub mod retention;
mod segment;
mod sync;
#[cfg(test)]
mod testing;
mod view;

pub use append::{AppendError, AppendOutcome, Appended, BatchToAppend};
pub use config::LogConfig;
pub use disk::{
    Disk, DiskFile, DiskLock, MAX_BATCH, OpenMode, read_exact_at, read_small, replace_file, replace_file_durably,
};
pub use fault_disk::{Crash, Fault, FaultDisk};
pub use leader_epochs::{EpochStart, LeaderEpochs};
pub use log::{Log, LogError};
pub use producer_state::{ProducedBatch, ProducerState, REMEMBERED_BATCHES, SequenceError};
#[cfg(feature = "real-disk")]
pub use real_disk::RealDisk;
pub use recovery::{OpenLog, Recovery, Start};
pub use sync::{SyncError, SyncOutcome, SyncRequest};
pub use view::{LogView, ReadError, ReadResult, TimestampAndOffset};
