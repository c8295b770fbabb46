//! Reading 1 MiB, at the tail and in the middle, beside one pread of as many bytes. A read alone finds the region and copies nothing.
#![allow(missing_docs, unreachable_pub)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use madang_actors::clock::Wall;
use madang_protocol::payload::Payload;
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{Log, LogConfig, OpenLog, RealDisk};

const MIB: usize = 1 << 20;

fn read(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("t-0");
    let mut log =
        Log::open(Arc::new(RealDisk::new(16)), &path, LogConfig::default(), &OpenLog::default()).expect("opens").0;
    let batch = common::batch(16, (16 << 10) - 61, 1);
    for _ in 0..4096 {
        log.append_as_leader(std::slice::from_ref(&batch), LeaderEpoch(1), Wall(1)).expect("appends");
    }
    let view = log.view();
    let end = view.log_end_offset();
    let mut group = criterion.benchmark_group("read-1MiB");
    group.throughput(Throughput::Bytes(MIB as u64));
    for (name, from) in [("tail", end + -16 * 60), ("middle", Offset(end.0 / 2))] {
        group.bench_function(format!("find-{name}"), |bencher| {
            bencher.iter(|| view.read(black_box(from), end, MIB, true).expect("reads"));
        });
    }
    let mut buffer = vec![0; MIB];
    group.bench_function("find-and-pread-middle", |bencher| {
        bencher.iter(|| {
            let found = view.read(Offset(end.0 / 2), end, MIB, true).expect("reads");
            if let Payload::Regions(regions) = &found.records {
                regions[0].read_at(0, &mut buffer[..regions[0].len()]).expect("reads");
            }
        });
    });
    // The same bytes: where a batch begins is seldom where a page does, and that is slower to copy.
    let found = view.read(Offset(end.0 / 2), end, MIB, true).expect("reads").records;
    let Payload::Regions(regions) = &found else { panic!("a region of a file") };
    let (position, length) = (regions[0].as_fd().expect("a file").1, regions[0].len());
    let file = File::open(path.join("00000000000000000000.log")).expect("opens");
    group.bench_function("pread-middle", |bencher| {
        bencher.iter(|| file.read_exact_at(&mut buffer[..length], position).expect("reads"));
    });
    group.bench_function("pread-at-a-page", |bencher| {
        bencher.iter(|| file.read_exact_at(&mut buffer, 32 << 20).expect("reads"));
    });
    group.finish();
}

criterion_group!(benches, read);
criterion_main!(benches);
