//! Hostile batches, each with the answer it gets. The numbers are those of the list of bad inputs.

use bytes::Bytes;
use madang_protocol::compression::{Codec, Compression, Limits, compress, decompress};
use madang_protocol::record_batch::{BatchError, BatchView, ProduceRules, Rejection, layout, validate_produced};

use crate::{CODECS, NOW, forged, produced, put, with_body};

const SNAPPY_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];

fn answer(batch: &Bytes) -> Result<(), Rejection> {
    let rules = ProduceRules { now_ms: NOW, max_message_bytes: 64 << 20, ..ProduceRules::default() };
    validate_produced(batch, &rules).map(|_| ()).map_err(|no| no.error)
}

fn check(cases: &[(&str, Bytes, Rejection)]) {
    for (what, batch, expected) in cases {
        assert_eq!(answer(batch), Err(*expected), "{what}");
    }
}

fn header(at: usize, value: &[u8]) -> Bytes {
    forged(&produced(Codec::None, 3), |bytes| put(bytes, at, value))
}

fn raw(change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = produced(Codec::None, 3).to_vec();
    change(&mut bytes);
    Bytes::from(bytes)
}

#[test]
fn frames_of_batches_37_to_41_and_55() {
    use Rejection::{CorruptMessage, InvalidRecord};
    check(&[
        ("37 CRC wrong", raw(|bytes| bytes[layout::CRC] ^= 1), CorruptMessage),
        ("37 record wrong", raw(|bytes| bytes[70] ^= 1), CorruptMessage),
        ("38 magic 3", raw(|bytes| bytes[layout::MAGIC] = 3), CorruptMessage),
        ("38 magic -1", raw(|bytes| bytes[layout::MAGIC] = 0xff), CorruptMessage),
        ("55 magic 1", raw(|bytes| bytes[layout::MAGIC] = 1), InvalidRecord),
        ("55 magic 0", raw(|bytes| bytes[layout::MAGIC] = 0), InvalidRecord),
        ("39 length 48", raw(|bytes| put(bytes, layout::BATCH_LENGTH, &48_i32.to_be_bytes())), CorruptMessage),
        ("39 length -1", raw(|bytes| put(bytes, layout::BATCH_LENGTH, &(-1_i32).to_be_bytes())), CorruptMessage),
        ("39 length 2^31-1", raw(|bytes| put(bytes, layout::BATCH_LENGTH, &i32::MAX.to_be_bytes())), InvalidRecord),
        ("39 truncated", raw(|bytes| bytes.truncate(bytes.len() - 1)), InvalidRecord),
        ("39 no header", Bytes::from_static(&[0; 8]), InvalidRecord),
        ("39 nothing", Bytes::new(), InvalidRecord),
        ("40 two batches", raw(|bytes| bytes.extend_from_slice(&produced(Codec::None, 1))), InvalidRecord),
        ("41 last offset delta", header(layout::LAST_OFFSET_DELTA, &7_i32.to_be_bytes()), InvalidRecord),
        ("41 count 2^31-1", with_body(Codec::None, i32::MAX, &[0; 64]), InvalidRecord),
        ("41 count 0", with_body(Codec::None, 0, &[]), InvalidRecord),
        ("41 count -1", header(layout::RECORD_COUNT, &(-1_i32).to_be_bytes()), InvalidRecord),
        ("41 count -2^31", header(layout::RECORD_COUNT, &i32::MIN.to_be_bytes()), InvalidRecord),
        ("56 base offset", header(layout::BASE_OFFSET, &5_i64.to_be_bytes()), InvalidRecord),
    ]);
    assert_eq!(answer(&raw(|bytes| bytes.push(0))), Ok(()), "40: what is no whole batch is dropped");
    let forged_epoch = header(layout::LEADER_EPOCH, &i32::MAX.to_be_bytes());
    assert_eq!(answer(&forged_epoch), Ok(()), "56: the leader overwrites the epoch");
}

#[test]
fn attributes_producers_and_times_42_to_44() {
    use Rejection::{InvalidRecord, InvalidTimestamp, UnknownServerError};
    let attributes = |bits: i16| header(layout::ATTRIBUTES, &bits.to_be_bytes());
    let producer = |id: i64, epoch: i16, sequence: i32| {
        forged(&produced(Codec::None, 3), |bytes| {
            put(bytes, layout::PRODUCER_ID, &id.to_be_bytes());
            put(bytes, layout::PRODUCER_EPOCH, &epoch.to_be_bytes());
            put(bytes, layout::BASE_SEQUENCE, &sequence.to_be_bytes());
        })
    };
    check(&[
        ("42 codec 5", attributes(5), UnknownServerError),
        ("42 codec 6", attributes(6), UnknownServerError),
        ("42 codec 7", attributes(7), UnknownServerError),
        ("42 control", attributes(layout::CONTROL), InvalidRecord),
        ("42 transactional without producer", attributes(layout::TRANSACTIONAL), InvalidRecord),
        ("43 sequence -1", producer(5, 0, -1), InvalidRecord),
        ("43 sequence -2", producer(5, 0, -2), InvalidRecord),
        ("43 producer -2", producer(-2, 0, 0), InvalidRecord),
        ("44 year 9999", header(layout::BASE_TIMESTAMP, &253_402_300_799_000_i64.to_be_bytes()), InvalidTimestamp),
        ("44 beyond 64 bits", header(layout::BASE_TIMESTAMP, &i64::MAX.to_be_bytes()), InvalidTimestamp),
    ]);
    assert_eq!(answer(&producer(5, 0, i32::MAX)), Ok(()), "43: sequences wrap");
    assert_eq!(answer(&header(layout::MAX_TIMESTAMP, &0_i64.to_be_bytes())), Ok(()), "44: corrected");
}

#[test]
fn records_45_to_47_and_53() {
    let cases: &[(&str, i32, &[u8])] = &[
        ("45 length past the end", 1, &[20, 0, 0, 0, 1, 1, 0]),
        ("45 length negative", 1, &[1, 0, 0, 0, 1, 1, 0]),
        ("45 length zero", 1, &[0]),
        ("45 length of six bytes", 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0]),
        ("45 no record", 1, &[]),
        ("45 shorter than it says", 1, &[14, 0, 0, 0, 1, 1, 0, 0]),
        ("46 key length -2", 1, &[12, 0, 0, 0, 3, 1, 0]),
        ("46 key past the record", 2, &[12, 0, 0, 0, 40, 1, 0, 12, 0, 0, 2, 1, 1, 0]),
        ("46 value length -2", 1, &[12, 0, 0, 0, 1, 3, 0]),
        ("47 header count 2^31-1", 1, &[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]),
        ("47 header count -1", 1, &[12, 0, 0, 0, 1, 1, 1]),
        ("47 null header key", 1, &[16, 0, 0, 0, 1, 1, 2, 1, 1]),
        ("47 header value past the end", 1, &[18, 0, 0, 0, 1, 1, 2, 2, b'k', 8]),
        ("53 bytes after the last record", 1, &[12, 0, 0, 0, 1, 1, 0, 0]),
    ];
    assert_eq!(answer(&with_body(Codec::None, 1, &[12, 0, 0, 0, 1, 1, 0])), Ok(()), "the least record");
    for (what, count, body) in cases {
        for codec in CODECS {
            let compressed = compress(Compression::of(codec), body).expect("compressed");
            let no = answer(&with_body(codec, *count, &compressed));
            assert_eq!(no, Err(Rejection::InvalidRecord), "{what}, {codec}");
        }
    }
    let least = |delta: u8| [12, 0, 0, delta, 1, 1, 0];
    for (first, second) in [(0, 0), (2, 0), (0, 14), (1, 0)] {
        for codec in CODECS {
            let compressed =
                compress(Compression::of(codec), &[least(first), least(second)].concat()).expect("compressed");
            let plain = codec == Codec::None;
            let expected = if plain { Rejection::InvalidRecord } else { Rejection::UnknownServerError };
            assert_eq!(answer(&with_body(codec, 2, &compressed)), Err(expected), "deltas {first} {second}, {codec}");
        }
    }
}

#[test]
fn bombs_48() {
    let zeros = vec![0; 80 << 20];
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let bomb = compress(Compression::of(codec), &zeros).expect("compressed");
        let small = Limits { max_bytes: 1 << 20, ..Limits::default() };
        assert!(matches!(decompress(codec, &bomb, &small), Err(BatchError::TooLarge(_))), "{codec}");
        let ratio = Limits { max_bytes: usize::MAX, max_ratio: 10, ratio_free_bytes: 1 << 16 };
        assert!(matches!(decompress(codec, &bomb, &ratio), Err(BatchError::TooLarge(_))), "{codec}");
    }
    // As a batch: one record whose value never ends.
    let mut record = vec![0xfe, 0xff, 0xff, 0x7f, 0, 0, 0, 1];
    record.extend_from_slice(&[0xe0, 0xff, 0xff, 0x7f]);
    record.extend_from_slice(&zeros[..30 << 20]);
    let bomb = compress(Compression::of(Codec::Zstd), &record).expect("compressed");
    let rules = ProduceRules { now_ms: NOW, ..ProduceRules::default() };
    let no = validate_produced(&with_body(Codec::Zstd, 1, &bomb), &rules).map_err(|no| no.error);
    assert_eq!(no, Err(Rejection::MessageTooLarge), "a ratio above 1,000 beyond 16 MiB");
    let nested =
        compress(Compression::of(Codec::Gzip), &compress(Compression::of(Codec::Gzip), &[0; 100]).expect("one"));
    assert_eq!(answer(&with_body(Codec::Gzip, 1, &nested.expect("two"))), Err(Rejection::InvalidRecord), "48 nested");
}

#[test]
fn streams_that_lie_49_to_52() {
    let corrupt = |codec: Codec, input: &[u8], what: &str| {
        let found = decompress(codec, input, &Limits::default());
        assert_eq!(found, Err(BatchError::Compressed(codec)), "{what}");
        assert_eq!(answer(&with_body(codec, 1, input)), Err(Rejection::UnknownServerError), "{what}");
    };
    corrupt(Codec::Zstd, &[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 1, 0, 0], "49 window of 2 GiB");
    corrupt(Codec::Zstd, &[0x28, 0xb5, 0x2f, 0xfd, 0x20, 200, 9, 0, 0, 0], "49 content size too high");
    corrupt(Codec::Zstd, &[0x28, 0xb5, 0x2f, 0xfd, 0x20, 1, 17, 0, 0, 7, 7], "49 content size too low");
    corrupt(Codec::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0], "50 4 GiB declared");
    let framed = |version: i32, compatible: i32, length: u32, block: &[u8]| {
        [&SNAPPY_MAGIC[..], &version.to_be_bytes(), &compatible.to_be_bytes(), &length.to_be_bytes(), block].concat()
    };
    let block = snap::raw::Encoder::new().compress_vec(&[12, 0, 0, 0, 1, 1, 0]).expect("a block");
    let length = block.len() as u32;
    assert_eq!(answer(&with_body(Codec::Snappy, 1, &framed(1, 1, length, &block))), Ok(()));
    assert_eq!(answer(&with_body(Codec::Snappy, 1, &block)), Ok(()), "without framing");
    for (version, compatible) in [(0, 1), (-1, 1)] {
        corrupt(Codec::Snappy, &framed(version, compatible, length, &block), "51 version");
    }
    for bad in [1 << 31, u32::MAX, i32::MAX as u32, length + 1, length - 1, 0] {
        corrupt(Codec::Snappy, &framed(1, 1, bad, &block), "51 block length");
    }
    assert_eq!(answer(&with_body(Codec::Snappy, 1, &framed(1, 7, length, &block))), Ok(()), "51 as Java reads it");
    corrupt(Codec::Snappy, &SNAPPY_MAGIC, "51 header cut");
    let sound = compress(Compression::of(Codec::Lz4), &[12, 0, 0, 0, 1, 1, 0]).expect("a frame");
    let changed = |at: usize| {
        let mut frame = sound.clone();
        frame[at] ^= 1;
        frame
    };
    corrupt(Codec::Lz4, &changed(6), "52 header checksum");
    corrupt(Codec::Lz4, &changed(0), "52 magic");
    corrupt(Codec::Lz4, &sound[..sound.len() - 4], "52 no end mark");
    let mut outside = sound[..7].to_vec();
    outside.extend_from_slice(&6_u32.to_le_bytes());
    outside.extend_from_slice(&[0x14, b'a', 0xff, 0xff, 0x10, b'b']);
    outside.extend_from_slice(&[0; 4]);
    corrupt(Codec::Lz4, &outside, "52 offset outside the window");
}

#[test]
fn every_cut_and_every_byte_after_a_stream_is_refused_53() {
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch = produced(codec, 20);
        let body = &batch[layout::RECORDS..];
        for end in 0..body.len() {
            let no = answer(&with_body(codec, 20, &body[..end]));
            // Where a block or a frame may end, as in Kafka, the records end too early instead.
            let whole = matches!((codec, end), (Codec::Zstd, 0) | (Codec::Snappy, 16));
            let expected = if whole { Rejection::InvalidRecord } else { Rejection::UnknownServerError };
            assert_eq!(no, Err(expected), "{codec} cut at {end}");
        }
        for after in [&[0][..], &[0; 100], body] {
            let no = answer(&with_body(codec, 20, &[body, after].concat()));
            // Java reads on or drops the rest, others do not: none of it is stored.
            let refused = matches!(no, Err(Rejection::InvalidRecord | Rejection::UnknownServerError));
            assert!(refused, "{codec} and {} bytes", after.len());
        }
    }
}

#[test]
fn a_batch_inside_a_batch_is_no_record_54() {
    for codec in CODECS {
        let inner = compress(Compression::of(codec), &produced(Codec::None, 1)).expect("compressed");
        assert_eq!(answer(&with_body(codec, 1, &inner)), Err(Rejection::InvalidRecord), "{codec}");
    }
}

#[test]
fn a_header_claims_nothing_that_is_not_there() {
    let batch = produced(Codec::None, 1);
    for end in 0..batch.len() {
        let torn = BatchView::parse(&batch[..end]);
        assert!(matches!(torn, Err(BatchError::Torn { needed, .. }) if needed <= batch.len() as u64), "{end}");
    }
}
