//! What a thousand partitions cost in memory. Alone in its process, as that is what is measured.

mod common;

use std::sync::Arc;

use madang_actors::clock::Wall;
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{Disk, Log, LogConfig, OpenLog, RealDisk, Start};

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

#[test]
fn a_thousand_partitions_written_and_read_fit_in_a_few_mebibytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(64));
    let before = resident();
    let open = OpenLog { start: Start::SameProcess, ..OpenLog::default() };
    let mut logs = Vec::new();
    for at in 0..1000 {
        let path = directory.path().join(format!("t-{at}"));
        logs.push(Log::open(Arc::clone(&disk), &path, LogConfig::default(), &open).expect("opens").0);
    }
    let views: Vec<_> = logs
        .iter_mut()
        .map(|log| {
            log.append_as_leader(&[common::batch(10, 1000, 1)], LeaderEpoch(1), Wall(1)).expect("appends");
            let view = log.view();
            assert_eq!(view.read(Offset(0), Offset(10), 5000, true).expect("reads").size, 1061);
            view
        })
        .collect();
    let each = resident().saturating_sub(before) / 1000;
    assert_eq!(views.len(), 1000);
    println!("{each} bytes for each partition");
    assert!(each < 10 << 10, "{each} bytes for each partition");
}
