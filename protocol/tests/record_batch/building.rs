//! Building batches, changing them in place, reading them back.

use madang_protocol::compression::{Compression, Limits, compress, decompress};
use madang_protocol::record::{ControlRecord, RecordSet};
use madang_protocol::record_batch::{
    BatchBuilder, BatchHeader, BatchOptions, TimestampType, advance_sequence, layout, set_log_append_time,
    set_max_timestamp, stamp, verify_crc,
};
use madang_protocol::types::{LeaderEpoch, Offset};

use crate::{CODECS, NOW, produced, view};

#[test]
fn every_codec_gives_the_records_back() {
    for codec in CODECS {
        let batch = produced(codec, 5_000);
        verify_crc(&batch).expect("a right CRC");
        let view = view(&batch);
        assert_eq!(view.header.codec(), Ok(codec));
        assert_eq!((view.header.record_count, view.header.last_offset_delta), (5_000, 4_999));
        assert_eq!((view.header.base_timestamp, view.header.max_timestamp), (NOW, NOW + 4_999));
        let records = RecordSet::of(&view, &Limits::default()).expect("records");
        for (index, record) in records.iter().enumerate() {
            let record = record.expect("a record");
            assert_eq!(record.key, Some(format!("key-{index}").as_bytes()), "{codec}");
            assert_eq!(record.value, Some(b"a value of some length".as_slice()));
            assert_eq!(record.timestamp(&view.header), NOW + index as i64);
            let headers: Vec<_> = record.headers.collect();
            assert_eq!(headers, [(b"h".as_slice(), Some(b"1".as_slice())), (b"h".as_slice(), None)]);
        }
        assert_eq!(records.iter().count(), 5_000);
    }
}

#[test]
fn every_codec_takes_every_level_and_no_bytes() {
    for codec in CODECS {
        for level in [None, Some(i32::MIN), Some(-1), Some(0), Some(1), Some(9), Some(22), Some(i32::MAX)] {
            for input in [&b""[..], &[7; 100_000]] {
                let compressed = compress(Compression { codec, level }, input).expect("compressed");
                assert_eq!(
                    decompress(codec, &compressed, &Limits::default()).as_deref(),
                    Ok(input),
                    "{codec} {level:?}"
                );
            }
        }
    }
}

#[test]
fn stamping_leaves_the_crc_right() {
    let mut batch = produced(madang_protocol::compression::Codec::None, 3).to_vec();
    stamp(&mut batch, Offset(1 << 40), LeaderEpoch(7));
    verify_crc(&batch).expect("a right CRC");
    let header = BatchHeader::parse(&batch).expect("a header");
    assert_eq!((header.base_offset, header.partition_leader_epoch), (Offset(1 << 40), LeaderEpoch(7)));
    assert_eq!((header.last_offset(), header.next_offset()), (Offset((1 << 40) + 2), Offset((1 << 40) + 3)));
    assert_eq!(header.to_bytes(), batch[..layout::RECORDS]);
    stamp(&mut batch[..15], Offset(9), LeaderEpoch(9));
    assert_eq!(BatchHeader::parse(&batch).map(|header| header.base_offset), Ok(Offset(1 << 40)));
}

#[test]
fn times_are_set_with_the_crc_and_only_when_they_change() {
    let mut batch = produced(madang_protocol::compression::Codec::None, 3).to_vec();
    assert_eq!(set_max_timestamp(&mut batch, NOW + 2), Ok(false));
    assert_eq!(set_max_timestamp(&mut batch, NOW + 9), Ok(true));
    verify_crc(&batch).expect("a right CRC");
    assert_eq!(set_log_append_time(&mut batch, NOW + 9), Ok(true));
    assert_eq!(set_log_append_time(&mut batch, NOW + 9), Ok(false));
    verify_crc(&batch).expect("a right CRC");
    let header = BatchHeader::parse(&batch).expect("a header");
    assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, NOW + 9));
}

#[test]
fn a_cleaned_batch_keeps_offsets_gaps_and_producer() {
    let original = BatchHeader {
        base_offset: Offset(100),
        last_offset_delta: 9,
        producer_id: 5,
        producer_epoch: 1,
        base_sequence: i32::MAX - 3,
        attributes: layout::TRANSACTIONAL | layout::DELETE_HORIZON,
        base_timestamp: NOW + 1_000,
        max_timestamp: NOW,
        ..view(&produced(madang_protocol::compression::Codec::None, 1)).header
    };
    let mut builder = BatchBuilder::new(BatchOptions::retaining(&original, Compression::NONE));
    for offset in [103, 107] {
        builder.append_at(Offset(offset), NOW, Some(b"k"), None, std::iter::empty()).expect("a record");
    }
    assert!(builder.append_at(Offset(107), NOW, None, None, std::iter::empty()).is_err());
    let batch = builder.build().expect("a batch");
    let view = view(&batch);
    assert_eq!((view.header.base_offset, view.header.last_offset()), (Offset(100), Offset(109)));
    assert_eq!((view.header.delete_horizon(), view.header.max_timestamp), (Some(NOW + 1_000), NOW));
    assert_eq!(view.header.last_sequence(), 5);
    assert!(view.header.is_transactional());
    let records = RecordSet::of(&view, &Limits::default()).expect("records");
    let read: Vec<_> = records.iter().map(|record| record.expect("a record")).collect();
    assert_eq!(read.iter().map(|record| record.offset(&view.header).0).collect::<Vec<_>>(), [103, 107]);
    assert_eq!(read[0].timestamp(&view.header), NOW);
}

#[test]
fn a_producers_last_batch_may_be_kept_empty() {
    let original = view(&produced(madang_protocol::compression::Codec::Gzip, 4)).header;
    let options = BatchOptions::retaining(&original, Compression::of(madang_protocol::compression::Codec::Gzip));
    let batch = BatchBuilder::new(options).build().expect("a batch");
    let view = view(&batch);
    verify_crc(&batch).expect("a right CRC");
    assert_eq!(batch.len(), layout::RECORDS);
    assert_eq!((view.header.record_count, view.header.last_offset_delta), (0, 3));
    assert_eq!(view.header.max_timestamp, original.max_timestamp);
    assert_eq!(RecordSet::of(&view, &Limits::default()).expect("records").iter().count(), 0);
}

#[test]
fn a_marker_is_one_control_record() {
    let options =
        BatchOptions { control: true, transactional: true, producer_id: 1, producer_epoch: 0, ..Default::default() };
    let mut builder = BatchBuilder::new(options);
    builder.append_control(NOW, ControlRecord::Commit, 3).expect("a marker");
    let batch = builder.build().expect("a batch");
    let view = view(&batch);
    assert!(view.header.is_control());
    let records = RecordSet::of(&view, &Limits::default()).expect("records");
    let record = records.iter().next().expect("one").expect("a record");
    assert_eq!(record.key.and_then(ControlRecord::from_key), Some(ControlRecord::Commit));
    assert_eq!(record.value, Some([0, 0, 0, 0, 0, 3].as_slice()));
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(advance_sequence(i32::MAX, 1), 0);
    assert_eq!(advance_sequence(i32::MAX - 1, 5), 3);
    assert_eq!(advance_sequence(0, 0), 0);
}
