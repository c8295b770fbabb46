//! Record batches beside their floors: the CRC beside a copy of the bytes, checking a produced batch beside its CRC.

#[path = "inputs/mod.rs"]
mod inputs;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use madang_protocol::compression::{Codec, Limits};
use madang_protocol::record::RecordSet;
use madang_protocol::record_batch::{BatchView, Batches, ProduceRules, layout, validate_produced, verify_crc};

fn benches(criterion: &mut Criterion) {
    let plain = inputs::batch(Codec::None, 127);
    let rules = ProduceRules::default();
    let mut group = criterion.benchmark_group("record_batch");
    group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Bytes(plain.len() as u64));
    let mut copy = vec![0; plain.len()];
    group.bench_function("floor: memcpy", |bench| {
        bench.iter(|| black_box(&mut copy).copy_from_slice(black_box(&plain)))
    });
    group.bench_function("floor: crc32c", |bench| {
        bench.iter(|| crc32c::crc32c(black_box(&plain[layout::ATTRIBUTES..])));
    });
    group.bench_function("verify_crc", |bench| bench.iter(|| verify_crc(black_box(&plain))));
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch = inputs::batch(codec, 127);
        group.bench_function(format!("validate_produced {codec}"), |bench| {
            bench.iter(|| validate_produced(black_box(&batch), &rules));
        });
    }
    let eight: Vec<u8> = plain.iter().copied().cycle().take(plain.len() * 8).collect();
    group.throughput(Throughput::Bytes(eight.len() as u64));
    group.bench_function("batches, 8 of 128 KiB", |bench| bench.iter(|| Batches::new(black_box(&eight)).count()));
    group.throughput(Throughput::Bytes(plain.len() as u64));
    group.bench_function("records, 127 of 1 KiB", |bench| {
        let view = BatchView::parse(&plain).expect("a batch");
        bench.iter(|| RecordSet::of(black_box(&view), &Limits::default()).map(|set| set.iter().count()));
    });
    group.finish();
}

criterion_group!(record_batch, benches);
criterion_main!(record_batch);
