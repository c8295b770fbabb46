//! A partition's folder on the disk in memory, made of fuzz bytes, and what a log that was opened from it is held to.
//! Invariant: the disk holds what the bytes say and nothing else, so a finding repeats.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use madang_actors::clock::Wall;
use madang_protocol::record_batch::{BatchHeader, Batches, layout, write_crc};
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::format::{LOG_SUFFIX, offset_path};
use madang_storage::{BatchToAppend, Disk, FaultDisk, Log, LogConfig, LogError, LogView, OpenLog, OpenMode, Start};

/// Bytes that opening holds besides what its input is long: the buffers of its scans and walks, and the window of recent batches.
pub const OPENING: usize = 4 << 20;
/// Bytes of one read while a log is read back.
const READ: usize = 4096;

/// A disk with the folder of one partition.
#[derive(Debug)]
pub struct Folder {
    /// The disk.
    pub disk: FaultDisk,
    /// The folder.
    pub path: PathBuf,
}

impl Default for Folder {
    fn default() -> Self {
        let (disk, path) = (FaultDisk::new(), PathBuf::from("/t-0"));
        disk.create_dir(&path).expect("a folder");
        Self { disk, path }
    }
}

impl Folder {
    /// Makes `bytes` the content of a file of the folder.
    pub fn put(&self, name: impl AsRef<Path>, bytes: &[u8]) {
        let file = self.disk.open(&self.path.join(name), OpenMode::Truncate).expect("a file");
        file.write_at(0, &[IoSlice::new(bytes)]).expect("written");
    }

    /// Makes `bytes` the batches of a segment.
    pub fn put_segment(&self, base_offset: Offset, bytes: &[u8]) {
        self.put(offset_path(&self.path, base_offset, LOG_SUFFIX), bytes);
    }

    /// The batches of every segment, by file name.
    #[must_use]
    pub fn segments(&self) -> Vec<(String, Vec<u8>)> {
        let names = self.disk.list(&self.path).expect("a list");
        let content = |name: String| {
            let file = self.disk.open(&self.path.join(&name), OpenMode::Existing).expect("a file");
            let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).expect("a short file")];
            let read = file.read_at(0, &mut bytes).expect("read");
            assert_eq!(read, bytes.len());
            (name, bytes)
        };
        names.into_iter().filter(|name| name.ends_with(LOG_SUFFIX)).map(content).collect()
    }

    /// Opens the log.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(&self, open: &OpenLog) -> Result<Log, LogError> {
        let config = LogConfig { segment_bytes: 1024, index_interval_bytes: 64, ..LogConfig::default() };
        Log::open(Arc::new(self.disk.clone()), &self.path, config, open).map(|(log, _)| log)
    }
}

/// A batch with a right length and CRC at an offset; its records are bytes of no meaning.
#[must_use]
pub fn batch(base_offset: Offset, records: i32, body: &[u8]) -> Vec<u8> {
    let header = BatchHeader {
        base_offset,
        batch_length: layout::MIN_BATCH_LENGTH + body.len() as i32,
        partition_leader_epoch: LeaderEpoch(body.first().map_or(0, |byte| i32::from(*byte))),
        magic: layout::MAGIC_V2,
        crc: 0,
        attributes: 0,
        last_offset_delta: records - 1,
        base_timestamp: 1,
        max_timestamp: body.last().map_or(-1, |byte| i64::from(*byte)),
        producer_id: body.get(1).map_or(-1, |byte| i64::from(*byte) - 1),
        producer_epoch: 0,
        base_sequence: 0,
        record_count: records,
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend_from_slice(body);
    write_crc(&mut bytes).expect("a whole batch");
    bytes
}

/// Reads all that the view says there is: whole, sound batches that rise to the log's end.
pub fn assert_whole(view: &LogView) {
    let end = view.log_end_offset();
    let mut next = view.log_start_offset();
    let mut lowest = Offset(i64::MIN);
    while next < end {
        let found = view.read(next, end, READ, true).expect("what was recovered can be read");
        assert!(found.next_offset > next, "a read at {next} of a log up to {end} goes on at {}", found.next_offset);
        for batch in Batches::new(&found.records.read().expect("bytes")) {
            let batch = batch.expect("whole batches");
            batch.verify_crc().expect("sound batches");
            assert!(batch.header.base_offset >= lowest, "offsets rise");
            lowest = batch.header.next_offset();
            assert!(lowest <= end, "no batch reaches beyond the end");
        }
        next = found.next_offset;
    }
}

/// Reads through the view whatever is there; only an error may come of it, and it ends.
pub fn read_anything(view: &LogView) {
    let end = view.log_end_offset();
    let mut next = view.log_start_offset();
    while let Ok(found) = view.read(next, end, READ, true) {
        let _ = found.records.read();
        if found.next_offset <= next || found.next_offset >= end {
            break;
        }
        next = found.next_offset;
    }
    let _ = view.offset_for_timestamp(100, end);
    let _ = view.max_timestamp();
}

/// The log goes on: it takes a batch, closes, and opens as it was closed.
pub fn assert_goes_on(folder: &Folder, mut log: Log) {
    let produced = Bytes::from(batch(Offset(0), 2, b"goes on"));
    let epoch = log.leader_epochs().latest().map_or(LeaderEpoch(0), |last| last.epoch);
    let appended = BatchToAppend::new(produced).expect("a whole batch");
    // At the end of all numbers there is no next offset.
    let fits = log.append_as_leader(&[appended], epoch, Wall(1)).is_ok();
    let end = log.log_end_offset();
    if log.close().is_ok() {
        let clean = OpenLog { start: Start::Clean, recovery_point: Some(end), ..OpenLog::default() };
        let log = folder.open(&clean).expect("what was closed can be opened");
        assert_eq!((log.log_end_offset(), fits), (end, fits));
        assert_whole(&log.view());
    }
}
