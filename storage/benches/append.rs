//! Appending 128 KiB batches, beside the bare write of the same bytes; both sides on the same filesystem, in one run.
#![allow(missing_docs, unreachable_pub)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use madang_actors::clock::Wall;
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{Log, LogConfig, OpenLog, RealDisk};

const BATCH: usize = 128 << 10;
/// The log is cut back so that the disk does not fill.
const LIMIT: u64 = 256 << 20;

fn append(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut group = criterion.benchmark_group("append-128KiB");
    group.throughput(Throughput::Bytes(BATCH as u64));
    let batch = common::batch(128, BATCH - 61, 1);
    let disk = Arc::new(RealDisk::new(16));
    let mut log =
        Log::open(disk, &directory.path().join("t-0"), LogConfig::default(), &OpenLog::default()).expect("opens").0;
    group.bench_function("log", |bencher| {
        bencher.iter_batched(
            || batch.clone(),
            |batch| {
                if log.size_in_bytes() > LIMIT {
                    log.truncate_to(Offset(0)).expect("cuts");
                }
                log.append_as_leader(&[batch], LeaderEpoch(1), Wall(1)).expect("appends")
            },
            BatchSize::SmallInput,
        );
    });
    let bytes = common::bytes(128, BATCH - 61, 1);
    let path = directory.path().join("floor");
    let file: File = OpenOptions::new().create(true).write(true).truncate(true).open(path).expect("opens");
    let mut at = 0;
    group.bench_function("pwrite", |bencher| {
        bencher.iter(|| {
            if at > LIMIT {
                file.set_len(0).expect("cuts");
                file.sync_data().expect("syncs");
                at = 0;
            }
            file.write_all_at(&bytes, at).expect("writes");
            at += bytes.len() as u64;
        });
    });
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
