//! The codec of requests and answers beside a copy of the same bytes: Produce, Fetch of 100 partitions, Metadata of 1,000 partitions.

#[path = "inputs/mod.rs"]
mod inputs;

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use inputs::{encoded, fetch, metadata, produce};
use madang_protocol::messages::fetch::FetchRequest;
use madang_protocol::messages::metadata::MetadataResponse;
use madang_protocol::messages::produce::ProduceRequest;
use madang_protocol::{Message, Reader};

macro_rules! codec {
    ($group:expr, $name:expr, $type:ty, $message:expr, $version:expr) => {{
        let message = $message;
        let bytes = encoded(&message, $version);
        $group.throughput(Throughput::Bytes(bytes.len() as u64));
        floor($group, $name, &bytes);
        $group.bench_function(concat!($name, ": decode"), |bench| {
            bench.iter(|| <$type>::decode(&mut Reader::new(black_box(&bytes)), $version).expect("decoded"));
        });
        $group.bench_function(concat!($name, ": encode"), |bench| {
            bench.iter(|| encoded(black_box(&message), $version));
        });
    }};
}

fn floor(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, bytes: &Bytes) {
    let mut copy = vec![0; bytes.len()];
    group.bench_function(format!("{name}: floor: memcpy of {}", bytes.len()), |bench| {
        bench.iter(|| black_box(&mut copy).copy_from_slice(black_box(bytes)));
    });
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("messages");
    group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    codec!(&mut group, "Produce v9, 6 x 16 KiB", ProduceRequest, produce(), 9);
    codec!(&mut group, "Fetch v13, 100 partitions", FetchRequest, fetch(), 13);
    codec!(&mut group, "Metadata v12, 1,000 partitions", MetadataResponse, metadata(), 12);
    group.finish();
}

criterion_group!(messages, benches);
criterion_main!(messages);
