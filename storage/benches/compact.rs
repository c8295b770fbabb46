//! Compacting 64 MiB of 1 KiB records, of which one in ten stays, beside a copy of the same file; both on the same filesystem, in one run.
#![allow(missing_docs, unreachable_pub)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use madang_actors::clock::Wall;
use madang_protocol::compression::{Codec, Compression};
use madang_protocol::record_batch::{BatchBuilder, BatchOptions};
use madang_protocol::types::LeaderEpoch;
use madang_storage::{BatchToAppend, CompactionSettings, Log, LogConfig, OpenLog, Pace, RealDisk};

const RECORDS: usize = 64 << 10;
const KEYS: usize = RECORDS / 10;
const IN_A_BATCH: usize = 16;

/// A log whose first segment holds all records, as a topic's cleaner finds it.
fn filled(directory: &Path, codec: Codec) -> Log {
    let config = LogConfig { segment_bytes: 1 << 30, ..LogConfig::default() };
    let mut log = Log::open(Arc::new(RealDisk::new(64)), directory, config, &OpenLog::default()).expect("opens").0;
    let value: Vec<u8> = (0..1000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for first in (0..RECORDS).step_by(IN_A_BATCH) {
        let mut builder =
            BatchBuilder::new(BatchOptions { compression: Compression::of(codec), ..BatchOptions::default() });
        for at in first..first + IN_A_BATCH {
            let key = format!("key {:016}", at % KEYS);
            builder.append(1, Some(key.as_bytes()), Some(&value), &[]).expect("fits");
        }
        let batch = BatchToAppend::new(builder.build().expect("builds")).expect("a batch");
        log.append_as_leader(&[batch], LeaderEpoch(1), Wall(1)).expect("appends");
    }
    log.roll(Wall(1)).expect("rolls");
    log
}

/// The time that `work` takes, `times` times, each on a log of its own.
fn timed(times: u64, codec: Codec, work: impl Fn(&Log, &Path)) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..times {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("t-0");
        let log = filled(&path, codec);
        let begin = Instant::now();
        work(&log, &path);
        total += begin.elapsed();
    }
    total
}

fn compact(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compact-64MiB");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    group.throughput(Throughput::Bytes((RECORDS * 1024) as u64));
    for (name, codec) in [("uncompressed", Codec::None), ("lz4", Codec::Lz4)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                timed(times, codec, |log, _| {
                    let job = log.compaction_plan(log.log_end_offset(), Wall(2), &CompactionSettings::default());
                    drop(job.expect("all of it is dirty").run(|_| Pace::Continue).expect("runs"));
                })
            });
        });
    }
    group.bench_function("floor: copy of the file", |bencher| {
        bencher.iter_custom(|times| {
            timed(times, Codec::None, |_, path| {
                std::fs::copy(path.join("00000000000000000000.log"), path.join("copy")).expect("copies");
            })
        });
    });
    group.finish();
}

criterion_group!(benches, compact);
criterion_main!(benches);
