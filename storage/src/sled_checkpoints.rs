//! Checkpoints in a sled database of the directory. Small values, each batch of changes atomic and followed by an fdatasync, as sled's own
//! flush does not reach the device.
//! Invariant: a database that cannot be opened is deleted and begun anew, as all it holds can be lost.

use std::fs::{self, File};
use std::io;
use std::panic::catch_unwind;
use std::path::Path;

use madang_protocol::types::{Offset, TopicPartition};

use crate::checkpoints::{Checkpoint, Checkpoints};
use crate::format::Fields;

/// The database's cache in bytes; the values of 10,000 partitions are below 1 MiB.
const CACHE: u64 = 1 << 20;

/// Checkpoints in `<log directory>/checkpoints`.
#[derive(Debug)]
pub struct SledCheckpoints {
    database: sled::Db,
    file: File,
    begun_anew: bool,
}

impl SledCheckpoints {
    /// Opens the database in `path`, or begins a new one.
    ///
    /// # Errors
    /// A new one cannot be created either.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(opened) = Self::try_open(path) {
            return opened;
        }
        tracing::warn!(path = %path.display(), "checkpoints cannot be read; beginning new ones");
        fs::remove_dir_all(path)?;
        let opened =
            Self::try_open(path).unwrap_or_else(|| Err(io::Error::other("a new checkpoint database cannot be opened")));
        opened.map(|opened| Self { begun_anew: true, ..opened })
    }

    /// Whether what was there could not be read, so that a partition that is missing may have been noted before.
    #[must_use]
    pub const fn begun_anew(&self) -> bool {
        self.begun_anew
    }

    /// None if what is there is damaged: sled may panic on it.
    fn try_open(path: &Path) -> Option<io::Result<Self>> {
        let owned = path.to_owned();
        let opened =
            catch_unwind(move || sled::Config::new().path(owned).cache_capacity(CACHE).flush_every_ms(None).open());
        let Ok(Ok(database)) = opened else { return None };
        Some(File::open(path.join("db")).map(|file| Self { database, file, begun_anew: false }))
    }

    fn apply(&self, batch: sled::Batch) -> io::Result<()> {
        self.database.apply_batch(batch)?;
        self.database.flush()?;
        self.file.sync_data()
    }
}

fn key(partition: TopicPartition) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&partition.topic_id.0);
    key[16..].copy_from_slice(&partition.partition.to_be_bytes());
    key
}

/// The two offsets and the CRC of key and offsets.
fn value(key: &[u8; 20], checkpoint: Checkpoint) -> [u8; 20] {
    let mut value = [0; 20];
    value[..8].copy_from_slice(&checkpoint.recovery_point.0.to_be_bytes());
    value[8..16].copy_from_slice(&checkpoint.high_watermark.0.to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &value[..16]);
    value[16..].copy_from_slice(&crc.to_be_bytes());
    value
}

impl Checkpoints for SledCheckpoints {
    fn load(&self, partition: TopicPartition) -> Option<Checkpoint> {
        let key = key(partition);
        let stored = self.database.get(key).ok().flatten()?;
        let mut fields = Fields(&stored);
        let checkpoint = Checkpoint { recovery_point: Offset(fields.i64()?), high_watermark: Offset(fields.i64()?) };
        (value(&key, checkpoint)[..] == stored[..]).then_some(checkpoint)
    }

    fn store(&self, checkpoints: &[(TopicPartition, Checkpoint)]) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        for (partition, checkpoint) in checkpoints {
            let key = key(*partition);
            batch.insert(&key, &value(&key, *checkpoint));
        }
        self.apply(batch)
    }

    fn remove(&self, partition: TopicPartition) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        batch.remove(&key(partition));
        self.apply(batch)
    }
}
