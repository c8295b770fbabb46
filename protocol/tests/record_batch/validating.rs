//! What a leader accepts, changes and answers.

use bytes::Bytes;
use madang_protocol::compression::{Codec, Compression, Limits};
use madang_protocol::record::RecordSet;
use madang_protocol::record_batch::{
    BatchBuilder, BatchOptions, ProduceRules, Rejection, TimestampType, TopicCompression, layout, validate_produced,
    verify_crc,
};

use crate::{CODECS, NOW, forged, produced, put, view};

fn rules() -> ProduceRules {
    ProduceRules { now_ms: NOW, ..ProduceRules::default() }
}

fn one_record(timestamp: i64, key: Option<&[u8]>) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(NOW, Some(b"k"), None, &[]).expect("a record");
    builder.append(timestamp, key, Some(b"v"), &[]).expect("a record");
    builder.build().expect("a batch")
}

#[test]
fn a_sound_batch_is_kept_as_it_is() {
    for codec in CODECS {
        let batch = produced(codec, 10);
        let valid = validate_produced(&batch, &rules()).expect("valid");
        assert_eq!(valid.bytes.as_ptr(), batch.as_ptr(), "not copied");
        assert_eq!((valid.max_timestamp, valid.max_timestamp_offset_delta), (NOW + 9, 9));
        assert_eq!(valid.header, view(&batch).header);
    }
}

#[test]
fn a_wrong_highest_timestamp_is_corrected() {
    for codec in CODECS {
        let batch = forged(&produced(codec, 10), |bytes| put(bytes, layout::MAX_TIMESTAMP, &i64::MAX.to_be_bytes()));
        let valid = validate_produced(&batch, &rules()).expect("valid");
        verify_crc(&valid.bytes).expect("a right CRC");
        assert_eq!(valid.header.max_timestamp, NOW + 9);
        assert_eq!(valid.bytes[layout::RECORDS..], batch[layout::RECORDS..]);
    }
}

#[test]
fn the_first_of_equal_timestamps_is_found() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for timestamp in [NOW - 1, NOW, NOW, NOW - 2] {
        builder.append(timestamp, None, None, &[]).expect("a record");
    }
    let valid = validate_produced(&builder.build().expect("a batch"), &rules()).expect("valid");
    assert_eq!((valid.max_timestamp, valid.max_timestamp_offset_delta), (NOW, 1));
}

#[test]
fn log_append_time_is_the_brokers() {
    for compression in [TopicCompression::Producer, TopicCompression::Of(Compression::of(Codec::Lz4))] {
        let rules = ProduceRules {
            timestamp_type: TimestampType::LogAppendTime,
            now_ms: NOW * 2,
            before_max_ms: 0,
            compression,
            ..rules()
        };
        let valid = validate_produced(&produced(Codec::None, 3), &rules).expect("valid");
        verify_crc(&valid.bytes).expect("a right CRC");
        assert_eq!((valid.max_timestamp, valid.max_timestamp_offset_delta), (NOW * 2, 2));
        assert_eq!(valid.header.timestamp_type(), TimestampType::LogAppendTime);
        let records = RecordSet::of(&view(&valid.bytes), &Limits::default()).map(|set| set.iter().count());
        assert_eq!(records, Ok(3));
    }
}

#[test]
fn another_codec_of_the_topic_means_recompression() {
    for from in CODECS {
        for to in CODECS {
            let batch = produced(from, 50);
            let rules = ProduceRules { compression: TopicCompression::Of(Compression::of(to)), ..rules() };
            let valid = validate_produced(&batch, &rules).expect("valid");
            assert_eq!(valid.header.codec(), Ok(to));
            verify_crc(&valid.bytes).expect("a right CRC");
            assert_eq!(valid.bytes.as_ptr() == batch.as_ptr(), from == to);
            let before = RecordSet::of(&view(&batch), &Limits::default()).expect("records");
            let after = view(&valid.bytes);
            let after = RecordSet::of(&after, &Limits::default()).expect("records");
            assert!(before.iter().eq(after.iter()));
        }
    }
}

#[test]
fn the_size_is_checked_before_and_after_recompression() {
    let batch = produced(Codec::Zstd, 500);
    let exact = ProduceRules { max_message_bytes: batch.len(), ..rules() };
    validate_produced(&batch, &exact).expect("exactly the limit");
    let below = ProduceRules { max_message_bytes: batch.len() - 1, ..rules() };
    assert_eq!(validate_produced(&batch, &below).map_err(|no| no.error), Err(Rejection::MessageTooLarge));
    let plain = ProduceRules { compression: TopicCompression::Of(Compression::NONE), ..exact };
    assert_eq!(validate_produced(&batch, &plain).map_err(|no| no.error), Err(Rejection::MessageTooLarge));
}

#[test]
fn timestamps_out_of_range_are_named() {
    let rules = ProduceRules { before_max_ms: 1_000, after_max_ms: 2_000, ..rules() };
    for good in [NOW - 1_000, NOW + 2_000, -1] {
        validate_produced(&one_record(good, Some(b"k")), &rules).expect("in range");
    }
    for bad in [NOW - 1_001, NOW + 2_001, -2, i64::MIN, i64::MAX / 2, 253_402_300_799_000] {
        let no = validate_produced(&one_record(bad, Some(b"k")), &rules).expect_err("out of range");
        assert_eq!(no.error, Rejection::InvalidTimestamp, "{bad}");
        assert_eq!(no.record_errors.iter().map(|error| error.batch_index).collect::<Vec<_>>(), [1]);
    }
}

#[test]
fn a_time_before_1970_is_kept_but_not_compressed_anew() {
    for early in [-2, -5_000, NOW - i64::MAX] {
        let valid = validate_produced(&one_record(early, Some(b"k")), &rules()).expect("in range");
        assert_eq!(valid.max_timestamp, NOW);
        let records: Vec<i64> = RecordSet::of(&view(&valid.bytes), &Limits::default())
            .expect("records")
            .iter()
            .map(|record| record.expect("a record").timestamp(&valid.header))
            .collect();
        assert_eq!(records, [NOW, early]);
        let anew = ProduceRules { compression: TopicCompression::Of(Compression::of(Codec::Zstd)), ..rules() };
        let no = validate_produced(&one_record(early, Some(b"k")), &anew).expect_err("compressed anew");
        assert_eq!((no.error, no.error.code()), (Rejection::UnknownServerError, -1));
    }
    for early in [i64::MIN, NOW - i64::MAX - 1] {
        let no = validate_produced(&one_record(early, Some(b"k")), &rules()).expect_err("too early");
        assert_eq!(no.error, Rejection::InvalidTimestamp, "{early}");
    }
}

#[test]
fn a_delete_horizon_is_kept_unless_the_batch_is_written_anew() {
    let batch =
        forged(&produced(Codec::None, 3), |bytes| bytes[layout::ATTRIBUTES + 1] |= layout::DELETE_HORIZON as u8);
    let valid = validate_produced(&batch, &rules()).expect("valid");
    assert_eq!(valid.header.delete_horizon(), Some(NOW));
    let anew = ProduceRules { compression: TopicCompression::Of(Compression::of(Codec::Gzip)), ..rules() };
    let valid = validate_produced(&batch, &anew).expect("valid");
    assert_eq!(valid.header.delete_horizon(), None);
}

#[test]
fn a_compacted_topic_needs_keys_and_a_bad_timestamp_wins() {
    let rules = ProduceRules { compacted: true, before_max_ms: 1_000, ..rules() };
    let no = validate_produced(&one_record(NOW, None), &rules).expect_err("no key");
    assert_eq!((no.error, no.error.code()), (Rejection::InvalidRecord, 87));
    assert_eq!(no.record_errors.iter().map(|error| error.batch_index).collect::<Vec<_>>(), [1]);
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(NOW, None, None, &[]).expect("a record");
    builder.append(NOW - 5_000, Some(b"k"), None, &[]).expect("a record");
    let no = validate_produced(&builder.build().expect("a batch"), &rules).expect_err("both");
    assert_eq!((no.error, no.record_errors.len()), (Rejection::InvalidTimestamp, 2));
}

#[test]
fn zstd_needs_a_client_that_knows_it() {
    let batch = produced(Codec::Zstd, 1);
    let old = ProduceRules { produce_version: 6, ..rules() };
    let no = validate_produced(&batch, &old).expect_err("too old");
    assert_eq!((no.error, no.error.code()), (Rejection::UnsupportedCompressionType, 76));
    validate_produced(&batch, &ProduceRules { produce_version: 7, ..rules() }).expect("new enough");
}

#[test]
fn a_transactional_batch_is_reported() {
    let options = BatchOptions {
        transactional: true,
        producer_id: 3,
        producer_epoch: 0,
        base_sequence: i32::MAX,
        ..BatchOptions::default()
    };
    let mut builder = BatchBuilder::new(options);
    builder.append(NOW, None, None, &[]).expect("a record");
    builder.append(NOW, None, None, &[]).expect("a record");
    let valid = validate_produced(&builder.build().expect("a batch"), &rules()).expect("valid");
    assert!(valid.header.is_transactional());
    assert_eq!(valid.header.last_sequence(), 0);
}

#[test]
fn errors_of_records_are_bounded() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for _ in 0..10_000 {
        builder.append(NOW, None, None, &[]).expect("a record");
    }
    let batch = builder.build().expect("a batch");
    let no = validate_produced(&batch, &ProduceRules { compacted: true, ..rules() }).expect_err("no keys");
    assert_eq!(no.record_errors.len(), 100);
    assert!(no.message.contains("10000 of 10000"), "{}", no.message);
}
