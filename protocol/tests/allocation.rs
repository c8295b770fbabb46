//! No input makes the parser allocate more than 64 times its own length and 1 MiB; a decoder has its window besides, and what it expands has its limit.
//! One test in a process of its own, because it counts all that the process allocates.

use std::io::Write;

use bytes::Bytes;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use madang_protocol::compression::{Codec, Compression, Limits, compress, decompress};
use madang_protocol::record::RecordSet;
use madang_protocol::record_batch::{
    BatchBuilder, BatchOptions, BatchView, ProduceRules, layout, scan, validate_produced, write_crc,
};
use madang_protocol::types::Offset;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;
/// The buffers of an lz4 frame of linked blocks of 4 MiB, the largest there are.
const WINDOW: usize = 13 * MIB;

/// What `work` allocates at its peak, beyond what was allocated before.
fn peak(work: impl FnOnce()) -> usize {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    work();
    ALLOCATOR.peak_usage().saturating_sub(before)
}

fn with_body(codec: Codec, count: i32, body: &[u8]) -> Bytes {
    let mut bytes = BatchBuilder::new(BatchOptions::default()).build().expect("a batch").to_vec();
    bytes.extend_from_slice(body);
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(layout::BATCH_LENGTH, &((layout::RECORDS - layout::LENGTH_PREFIX + body.len()) as i32).to_be_bytes());
    put(layout::ATTRIBUTES, &codec.bits().to_be_bytes());
    put(layout::RECORD_COUNT, &count.to_be_bytes());
    put(layout::LAST_OFFSET_DELTA, &(count - 1).to_be_bytes());
    write_crc(&mut bytes).expect("a whole batch");
    Bytes::from(bytes)
}

fn lz4_of_the_largest_blocks() -> Vec<u8> {
    let info = FrameInfo::new().block_mode(BlockMode::Linked).block_size(BlockSize::Max4MB);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(b"few").expect("written");
    encoder.finish().expect("a frame")
}

/// Bodies that declare much and hold little.
fn hostile() -> Vec<(Codec, Vec<u8>)> {
    let zeros = vec![0; 40 * MIB];
    let mut all: Vec<_> = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd]
        .into_iter()
        .map(|codec| (codec, compress(Compression::of(codec), &zeros).expect("compressed")))
        .collect();
    all.push((Codec::Snappy, vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0]));
    all.push((Codec::Snappy, [&b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\x7f\xff\xff\xff"[..], &[0xff; 9]].concat()));
    all.push((Codec::Zstd, vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 1, 0, 0]));
    all.push((Codec::Lz4, lz4_of_the_largest_blocks()));
    all.push((Codec::None, vec![20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]));
    all.push((Codec::None, vec![0xfe, 0xff, 0xff, 0xff, 0x0f]));
    all
}

#[test]
fn allocation_follows_the_bytes_that_are_there() {
    let limits = Limits { max_bytes: 2 * MIB, ..Limits::default() };
    for (codec, body) in hostile() {
        for count in [1, i32::MAX] {
            let batch = with_body(codec, count, &body);
            let bound = 64 * batch.len() + MIB + if codec == Codec::Lz4 { WINDOW } else { 0 };
            let parsed = peak(|| {
                scan(&batch, Offset(0), |_, _| ());
                let rules = ProduceRules { max_message_bytes: usize::MAX, ..ProduceRules::default() };
                assert!(validate_produced(&batch, &rules).is_err());
            });
            assert!(parsed <= bound, "{codec}: {parsed} bytes to check {} bytes", batch.len());
            let expanded = peak(|| {
                let view = BatchView::parse(&batch).expect("a batch");
                if let Ok(set) = RecordSet::of(&view, &limits) {
                    assert!(set.iter().any(|record| record.is_err()));
                }
            });
            // A growing vector holds its old and its new self for a moment.
            assert!(expanded <= bound + 3 * limits.max_bytes, "{codec}: {expanded} bytes to expand {}", batch.len());
        }
        assert!(
            peak(|| drop(decompress(codec, &body, &limits))) <= 64 * body.len() + MIB + WINDOW + 3 * limits.max_bytes
        );
    }
}
