//! The metadata log cut, flipped and robbed: what a crash explains is dropped, anything else is refused.

use std::io::IoSlice;
use std::path::Path;

use madang_storage::{FaultDisk, OpenMode};

use super::tests::{World, topic};
use super::*;

/// A log with a few entries: the disk, the path of the log and its bytes.
fn small_log() -> (Arc<FaultDisk>, std::path::PathBuf, Vec<u8>) {
    let mut world = World::new();
    world.create(topic("a", 1)).expect("created");
    world.create(topic("b", 1)).expect("created");
    let path = Path::new("/metadata/00000000000000000000.log").to_owned();
    world.disk.settle();
    let bytes = world.disk.durable_bytes(&path).expect("a log");
    (world.disk, path, bytes)
}

fn load(disk: &Arc<FaultDisk>) -> Result<Loaded, RaftLogError> {
    let unused = StoredSnapshot::default();
    RaftLog::open(Arc::clone(disk) as Arc<dyn Disk>, Path::new("/metadata"), &unused).map(|(_, loaded)| loaded)
}

#[test]
fn a_log_cut_at_any_byte_loads_as_a_prefix_of_it() {
    let (disk, path, bytes) = small_log();
    let whole = load(&disk).expect("intact").entries;
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("frames") + 1;
    for cut in 0..used {
        let file = disk.open(&path, OpenMode::Existing).expect("a log");
        let mut torn = bytes[..cut].to_vec();
        torn.resize(used, 0);
        file.write_at(0, &[IoSlice::new(&torn)]).expect("a write");
        let loaded = load(&disk).expect("a torn tail is no damage");
        assert_eq!(loaded.entries, whole[..loaded.entries.len()], "cut at {cut}");
    }
}

#[test]
fn damage_to_what_was_synced_is_refused_and_nothing_is_changed() {
    let (disk, path, bytes) = small_log();
    disk.flip_bit(&path, 30, 0).expect("a flip");
    let before = disk.durable_bytes(&path).expect("a log");
    assert_ne!(before, bytes);
    assert!(matches!(load(&disk), Err(RaftLogError::Damaged { position: 0, .. })));
    assert_eq!(disk.durable_bytes(&path).expect("a log"), before);
}

#[test]
fn a_damaged_or_missing_snapshot_is_refused_and_nothing_is_changed() {
    let (disk, path, bytes) = small_log();
    let snapshot = Path::new("/metadata/00000000000000000000.snapshot");
    let length = disk.durable_bytes(snapshot).expect("a snapshot").len() as u64;
    for position in 0..length {
        disk.flip_bit(snapshot, position, 3).expect("a flip");
        assert!(load(&disk).is_err(), "byte {position}");
        disk.flip_bit(snapshot, position, 3).expect("a flip");
    }
    assert!(load(&disk).is_ok());
    disk.remove_file(snapshot).expect("removed");
    assert!(load(&disk).is_err());
    assert_eq!(disk.durable_bytes(&path).expect("a log"), bytes);
}

#[test]
fn what_a_failed_sync_left_in_the_cache_alone_is_not_loaded() {
    let (disk, path, _) = small_log();
    let before = load(&disk).expect("intact").entries;
    let unused = StoredSnapshot::default();
    let (mut log, _) =
        RaftLog::open(Arc::clone(&disk) as Arc<dyn Disk>, Path::new("/metadata"), &unused).expect("opens");
    let last = before.last().expect("an entry");
    let entry = Entry { index: last.index + 1, term: last.term, ..Entry::default() };
    log.append(&[entry], None).expect("written");
    disk.fail_next_sync(&path).expect("a log");
    assert!(log.sync_target().0.sync().is_err());
    drop(log);
    assert_eq!(load(&disk).expect("opens").entries, before);
}
