//! How many instructions the codec takes: `cargo bench -p madang-protocol --bench instructions` compares them with `instructions.tsv`.

#[path = "counts/mod.rs"]
mod counts;
#[path = "inputs/mod.rs"]
mod inputs;

use std::hint::black_box;
use std::process::ExitCode;

use counts::{Workload, count};
use inputs::encoded;
use madang_protocol::compression::{Codec, Limits};
use madang_protocol::messages::fetch::{FetchRequest, FetchResponse};
use madang_protocol::messages::metadata::MetadataResponse;
use madang_protocol::messages::produce::{ProduceRequest, ProduceResponse};
use madang_protocol::record::RecordSet;
use madang_protocol::record_batch::{BatchView, Batches, ProduceRules, validate_produced, verify_crc};
use madang_protocol::{Message, Reader};

fn crc() {
    let batch = inputs::batch(Codec::None, 127);
    count(|| black_box(verify_crc(black_box(&batch))).expect("a sound batch"));
}

fn validate(codec: Codec, records: i64) {
    let (batch, rules) = (inputs::batch(codec, records), ProduceRules::default());
    count(|| drop(black_box(validate_produced(black_box(&batch), &rules).expect("a sound batch"))));
}

fn walk(codec: Codec) {
    let batch = inputs::batch(codec, 127);
    let view = BatchView::parse(&batch).expect("a batch");
    count(|| {
        let set = RecordSet::of(black_box(&view), &Limits::default()).expect("records");
        assert_eq!(black_box(set.iter().filter(Result::is_ok).count()), 127);
    });
}

fn batches() {
    let eight: Vec<u8> = inputs::batch(Codec::None, 15).repeat(8);
    count(|| assert_eq!(black_box(Batches::new(black_box(&eight)).count()), 8));
}

macro_rules! codec {
    ($type:ty, $message:expr, $version:expr, $name:literal) => {
        [
            Workload {
                name: concat!("decode ", $name),
                run: || {
                    let bytes = encoded(&$message, $version);
                    count(|| {
                        drop(black_box(<$type>::decode(&mut Reader::new(black_box(&bytes)), $version).expect("sound")));
                    });
                },
            },
            Workload {
                name: concat!("encode ", $name),
                run: || {
                    let message = $message;
                    count(|| drop(black_box(encoded(black_box(&message), $version))));
                },
            },
        ]
    };
}

fn main() -> ExitCode {
    let mut all = vec![
        Workload { name: "CRC of a batch of 127 KiB", run: crc },
        Workload { name: "validate 127 records of 1 KiB", run: || validate(Codec::None, 127) },
        Workload { name: "validate 127 records of 1 KiB, lz4", run: || validate(Codec::Lz4, 127) },
        Workload { name: "validate 1 record of 1 KiB", run: || validate(Codec::None, 1) },
        Workload { name: "walk 127 records of 1 KiB", run: || walk(Codec::None) },
        Workload { name: "walk 127 records of 1 KiB, lz4", run: || walk(Codec::Lz4) },
        Workload { name: "find 8 batches", run: batches },
    ];
    all.extend(codec!(ProduceRequest, inputs::produce(), 9, "Produce v9, 6 partitions of 16 KiB"));
    all.extend(codec!(ProduceResponse, inputs::produced(), 9, "the answer to Produce v9, 6 partitions"));
    all.extend(codec!(FetchRequest, inputs::fetch(), 13, "Fetch v13, 100 partitions"));
    all.extend(codec!(FetchResponse, inputs::fetched(), 13, "the answer to Fetch v13, 100 partitions of 1 KiB"));
    all.extend(codec!(MetadataResponse, inputs::metadata(), 12, "the answer to Metadata v12, 1,000 partitions"));
    counts::main(&all, concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.tsv"))
}
