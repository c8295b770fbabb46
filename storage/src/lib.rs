//! One partition's log on a disk that may fail.
//!
//! [`Log`] is the writer, [`LogView`] what readers read through, [`SyncRequest`] what a flusher thread performs. All I/O goes through
//! [`Disk`]: `RealDisk` (feature `real-disk`), or [`FaultDisk`] in memory for tests and simulation.

mod active_index;
mod append;
mod append_as_follower;
mod checkpoints;
mod compaction;
mod config;
#[cfg(feature = "real-disk")]
mod descriptors;
mod disk;
mod epoch_recovery;
mod error;
mod fault_disk;
mod fault_inode;
mod flusher;
pub mod format;
mod index;
mod index_file;
mod leader_epochs;
mod log;
mod log_dir;
mod notes;
mod producer_recovery;
mod producer_state;
#[cfg(feature = "real-disk")]
mod real_disk;
mod records;
mod recovery;
mod region;
mod reserve;
pub mod retention;
mod scan;
mod segment;
#[cfg(feature = "real-disk")]
mod sled_checkpoints;
mod slot_notes;
mod sync;
#[cfg(feature = "real-disk")]
mod sync_pool;
#[cfg(test)]
mod testing;
#[cfg(feature = "real-disk")]
mod tmpfs_notes;
mod truncate;
mod view;

pub use madang_actors::mutants;

pub use append::{AppendError, AppendOutcome, Appended, BatchToAppend};
pub use append_as_follower::FollowerAppendError;
pub use checkpoints::{Checkpoint, Checkpoints, MemoryCheckpoints};
pub use compaction::{
    CompactionError, CompactionJob, CompactionResult, CompactionSettings, CompactionStats, Installed, Pace,
};
pub use config::LogConfig;
pub use disk::{
    Disk, DiskFile, DiskLock, MAX_BATCH, OpenDescriptor, OpenMode, read_exact_at, read_small, replace_file,
    replace_file_durably,
};
pub use error::LogError;
pub use fault_disk::{Crash, Fault, FaultDisk};
pub use flusher::Flusher;
pub use leader_epochs::{EpochStart, LeaderEpochs};
pub use log::Log;
pub use log_dir::{
    Identity, LogDir, LogDirError, OpenLogDir, PartitionDir, PartitionFolders, RestartFacts, RestartKind,
};
pub use notes::{Disbelief, Note, Notes, NotesOwner};
pub use producer_state::{ProducedBatch, ProducerState, REMEMBERED_BATCHES, SequenceError};
#[cfg(feature = "real-disk")]
pub use real_disk::RealDisk;
pub use recovery::{OpenLog, Recovery, Start};
#[cfg(feature = "real-disk")]
pub use sled_checkpoints::SledCheckpoints;
pub use slot_notes::{MemoryFile, MemoryNotes, NotesFile, SlotNotes};
pub use sync::{SyncError, SyncOutcome, SyncRequest};
#[cfg(feature = "real-disk")]
pub use sync_pool::SyncPool;
#[cfg(feature = "real-disk")]
pub use tmpfs_notes::TmpfsNotes;
pub use view::{LogView, ReadError, ReadResult, TimestampAndOffset};
