//! How many instructions a log takes: `cargo bench -p madang-storage --bench instructions` compares them with `instructions.tsv`.
#![allow(missing_docs, unreachable_pub)]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../../protocol/benches/counts/mod.rs"]
mod counts;
mod flat_disk;

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use counts::{Workload, count};
use flat_disk::FlatDisk;
use madang_actors::clock::Wall;
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{BatchToAppend, Log, LogConfig, OpenLog};

/// Records of a batch in [`filled`].
const RECORDS: i32 = 4;
/// Batches in [`filled`].
const BATCHES: i64 = 4096;

fn log(config: LogConfig) -> Log {
    let opened = Log::open(Arc::new(FlatDisk::default()), Path::new("/d/t-0"), config, &OpenLog::default());
    opened.expect("opens").0
}

fn append(log: &mut Log, batches: &[BatchToAppend]) {
    drop(black_box(log.append_as_leader(black_box(batches), LeaderEpoch(1), Wall(1)).expect("appends")));
}

/// Appends at once `together` batches of `size` bytes, which their producers gave no sequence.
fn appends(together: usize, size: usize) {
    let mut log = log(LogConfig::default());
    let batches = vec![common::batch(16, size - 61, 1); together];
    count(|| append(&mut log, &batches));
}

/// Appends what an idempotent producer sends, one batch after the other.
fn appends_of_a_producer() {
    let mut log = log(LogConfig::default());
    let batches: Vec<_> = (0..64).map(|number| common::producer_batch(7, number * 16, 16, 1024 - 61, 1)).collect();
    let mut next = batches.iter();
    count(|| append(&mut log, std::slice::from_ref(next.next().expect("enough of them"))));
}

/// 4 MiB of batches of 1 KiB: four segments, of which the last is written to.
fn filled() -> Log {
    let mut log = log(LogConfig { segment_bytes: 1 << 20, index_interval_bytes: 4096, ..LogConfig::default() });
    for number in 0..BATCHES {
        append(&mut log, &[common::batch(RECORDS, 1024 - 61, number)]);
    }
    assert!(log.segment_count() >= 4);
    log
}

/// Plans a read of at most `bytes` from so many batches before the end on.
fn reads(before_end: i64, bytes: usize) {
    let view = filled().view();
    let end = view.log_end_offset();
    let from = Offset(end.0 - before_end * i64::from(RECORDS));
    count(|| {
        let found = black_box(&view).read(black_box(from), end, bytes, true).expect("reads");
        assert!(black_box(found).size > 0);
    });
}

fn looks_up_a_time() {
    let view = filled().view();
    let end = view.log_end_offset();
    count(|| {
        // Records of no meaning cannot be searched; the index is, and the header of the batch.
        drop(black_box(black_box(&view).offset_for_timestamp(black_box(BATCHES / 3), end)));
    });
}

fn snapshots() {
    let log = filled();
    count(|| drop(black_box(black_box(&log).view())));
}

fn main() -> ExitCode {
    let all = [
        Workload { name: "append a batch of 128 KiB", run: || appends(1, 128 << 10) },
        Workload { name: "append a batch of 1 KiB", run: || appends(1, 1 << 10) },
        Workload { name: "append 64 batches of 1 KiB at once", run: || appends(64, 1 << 10) },
        Workload { name: "append a batch of 1 KiB of an idempotent producer", run: appends_of_a_producer },
        Workload { name: "make a snapshot for readers", run: snapshots },
        Workload { name: "plan a read of the last batch", run: || reads(1, 1 << 20) },
        Workload { name: "plan a read of 64 KiB in the active segment", run: || reads(500, 64 << 10) },
        Workload { name: "plan a read of 64 KiB in a sealed segment", run: || reads(2500, 64 << 10) },
        Workload { name: "plan a read of 512 KiB over two segments", run: || reads(2304, 512 << 10) },
        Workload { name: "look up a time", run: looks_up_a_time },
    ];
    counts::main(&all, concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.tsv"))
}
