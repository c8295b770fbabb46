//! What lies beside the batches: indexes, epochs, producers, log start, cleaner's offset, a segment that compaction left, the metadata of
//! partition and directory. The first byte chooses the file, the second whether the bytes get their envelope and how the log was left.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use madang_fuzz::folder::{Folder, OPENING, assert_goes_on, assert_whole, batch, read_anything};
use madang_fuzz::guarded;
use madang_protocol::types::{NodeId, Offset, Uuid};
use madang_storage::format::{
    CLEANER_OFFSET_FILE, IndexHeader, Kind, LEADER_EPOCHS_FILE, LOG_START_FILE, PARTITION_METADATA_FILE, seal,
};
use madang_storage::{LeaderEpochs, LogDir, OpenLog, OpenLogDir, Start};

/// A log of three segments, from offset 0.
fn lay(folder: &Folder) -> Offset {
    let mut next = Offset(0);
    for _ in 0..3 {
        let base = next;
        let mut segment = Vec::new();
        for size in 0..5 {
            segment.extend(batch(next, 3, &[b'x'; 40][..size * 10]));
            next = next + 3;
        }
        folder.put_segment(base, &segment);
    }
    next
}

/// The file, and the kind of its envelope if it has one.
const FILES: &[(&str, Option<Kind>)] = &[
    ("00000000000000000000.index", Some(Kind::OffsetIndex)),
    ("00000000000000000000.timeindex", Some(Kind::TimeIndex)),
    ("00000000000000000030.index", Some(Kind::OffsetIndex)),
    (LEADER_EPOCHS_FILE, Some(Kind::LeaderEpochs)),
    ("00000000000000000015.snapshot", Some(Kind::Producers)),
    (LOG_START_FILE, Some(Kind::LogStart)),
    (CLEANER_OFFSET_FILE, Some(Kind::CleanerOffset)),
    ("00000000000000000015.swap", None),
    ("00000000000000000015.7.cleaned", None),
    (PARTITION_METADATA_FILE, Some(Kind::Partition)),
];

/// Both index files of one segment, their headers right for it and their entries the input's.
fn put_index(folder: &Folder, body: &[u8]) {
    let length = folder.segments()[0].1.len() as u64;
    let entries = (body.len() / 12) as u32;
    for (suffix, kind, size) in [("index", Kind::OffsetIndex, 8), ("timeindex", Kind::TimeIndex, 12)] {
        let body = &body[..entries as usize * size];
        let header = IndexHeader {
            entries_crc: crc32c::crc32c(body),
            entries,
            log_bytes: length,
            next_offset: Offset(15),
            max_timestamp: i64::from(b'x'),
            max_timestamp_offset: Offset(3),
        };
        let bytes = [&header.to_bytes(kind)[..], body].concat();
        folder.put(format!("00000000000000000000.{suffix}"), &bytes);
    }
}

fn open_directory(folder: &Folder, name: &str, bytes: &[u8]) {
    folder.put(name, bytes);
    let who = OpenLogDir {
        cluster_id: "c".to_owned(),
        node_id: NodeId(1),
        new_directory_id: Uuid([1; 16]),
        boot_id: "b".to_owned(),
    };
    if let Ok(mut directory) = LogDir::open(Arc::new(folder.disk.clone()), &folder.path, &who) {
        let _ = directory.partitions();
        directory.unfenced(1, true).expect("a disk without faults");
        let identity = directory.identity().clone();
        drop(directory);
        let again = LogDir::open(Arc::new(folder.disk.clone()), &folder.path, &who).expect("it is this node's now");
        assert_eq!(again.identity(), &identity);
    }
}

fuzz_target!(|data: &[u8]| {
    let [which, how, body @ ..] = data else { return };
    guarded(body, OPENING, |body| {
        if let Some(epochs) = LeaderEpochs::from_bytes(body) {
            assert_eq!(LeaderEpochs::from_bytes(&epochs.to_bytes()), Some(epochs));
        }
        let folder = Folder::default();
        let sealed = how & 1 != 0;
        let which = usize::from(*which) % (FILES.len() + 3);
        let wrapped = |kind| if sealed { seal(kind, body) } else { body.to_vec() };
        match which.checked_sub(FILES.len()) {
            Some(0) => return open_directory(&folder, "directory.metadata", &wrapped(Kind::Directory)),
            Some(1) => return open_directory(&folder, "clean-shutdown", &wrapped(Kind::CleanShutdown)),
            _ => {}
        }
        let end = lay(&folder);
        match FILES.get(which) {
            Some((name, Some(kind))) => folder.put(name, &wrapped(*kind)),
            Some((name, None)) => folder.put(name, body),
            None => put_index(&folder, body),
        }
        let start = [Start::Unclean, Start::SameProcess, Start::Clean][usize::from(how >> 1) % 3];
        let recovery_point = (how & 8 != 0).then_some(end);
        let open = OpenLog { start, recovery_point, ..OpenLog::default() };
        let swapped = FILES.get(which).is_some_and(|(name, _)| name.ends_with(".swap"));
        let log = match folder.open(&open) {
            Ok(log) => log,
            // A compacted segment takes the place of others only after it was synced whole.
            Err(_) if swapped => return,
            Err(error) => panic!("the batches are whole: {error}"),
        };
        if swapped || which >= FILES.len() {
            return read_anything(&log.view());
        }
        assert_eq!(log.log_end_offset(), end, "the batches alone say where the log ends");
        assert_whole(&log.view());
        assert_goes_on(&folder, log);
    });
});
