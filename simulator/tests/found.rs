//! Bugs that the simulator has found, each in its smallest form.

use std::path::Path;
use std::sync::Arc;

use madang_actors::clock::Wall;
use madang_protocol::record_batch::{BatchBuilder, BatchOptions};
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{BatchToAppend, Disk, Fault, FaultDisk, Log, LogConfig, OpenLog};

fn open(disk: &FaultDisk, confirmed: i64) -> Log {
    let config = LogConfig { segment_bytes: 300, retention: None, retention_bytes: Some(600), ..LogConfig::default() };
    let open = OpenLog { recovery_point: Some(Offset(confirmed)), ..OpenLog::default() };
    let opened = Log::open(Arc::new(disk.clone()), Path::new("/data/orders-0"), config, &open);
    opened.map(|(log, _)| log).expect("opens")
}

fn append(log: &mut Log, count: usize) {
    for _ in 0..count {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(0, None, Some(&[7; 100]), &[]).expect("fits");
        let batch = BatchToAppend::new(builder.build().expect("a batch")).expect("a whole batch");
        log.append_as_leader(&[batch], LeaderEpoch(0), Wall(0)).expect("appends");
    }
    let request = log.take_dirty().expect("dirty");
    log.synced(request.perform()).expect("synced");
}

/// Seed 43: a segment that could not be unlinked was forgotten, newer ones went, and the hole set the partition aside.
#[test]
fn a_failed_unlink_leaves_no_hole() {
    for failing in 0.. {
        let disk = FaultDisk::new();
        disk.create_dir(Path::new("/data")).expect("creates");
        let mut log = open(&disk, 0);
        append(&mut log, 12);
        let at = disk.operations() + failing;
        disk.plan(at, Fault::Error(std::io::ErrorKind::Other));
        // This one may fail, the next one may not.
        drop(log.delete_old_segments(log.log_end_offset(), Wall(0)));
        if disk.operations() <= at {
            return;
        }
        append(&mut log, 12);
        log.delete_old_segments(log.log_end_offset(), Wall(0)).expect("deletes");
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        drop(log);
        let log = open(&disk, end.0);
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (start, end), "operation {failing} failed");
    }
}
