//! Both directions against another implementation of the format. It collapses headers of one name, so here names differ.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression as TheirCodec, Record as Theirs, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions,
    TimestampType,
};
use madang_protocol::compression::{Codec, Compression, Limits};
use madang_protocol::record::RecordSet;
use madang_protocol::record_batch::{
    BatchBuilder, BatchOptions, ProduceRules, advance_sequence, validate_produced, verify_crc,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::{CODECS, NOW, view};

#[derive(Clone, Debug)]
struct Made {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn records() -> impl Strategy<Value = Vec<Made>> {
    let bytes = || option::of(vec(any::<u8>(), 0..300));
    let headers = vec(bytes(), 0..4).prop_map(|values| {
        values.into_iter().enumerate().map(|(index, value)| (format!("header-{index}"), value)).collect()
    });
    let record = (NOW - 1_000_000..NOW + 1_000_000, bytes(), bytes(), headers)
        .prop_map(|(timestamp, key, value, headers)| Made { timestamp, key, value, headers });
    vec(record, 1..40)
}

fn theirs(codec: Codec) -> TheirCodec {
    match codec {
        Codec::None => TheirCodec::None,
        Codec::Gzip => TheirCodec::Gzip,
        Codec::Snappy => TheirCodec::Snappy,
        Codec::Lz4 => TheirCodec::Lz4,
        Codec::Zstd => TheirCodec::Zstd,
    }
}

fn we_write(made: &[Made], codec: Codec, producer_id: i64, base_sequence: i32) -> Bytes {
    let options = BatchOptions {
        compression: Compression::of(codec),
        producer_id,
        producer_epoch: 4,
        base_sequence,
        ..BatchOptions::default()
    };
    let mut builder = BatchBuilder::new(options);
    for record in made {
        let headers: Vec<_> = record.headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref())).collect();
        builder.append(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers).expect("a record");
    }
    builder.build().expect("a batch")
}

fn they_write(made: &[Made], codec: Codec, producer_id: i64, base_sequence: i32) -> Bytes {
    let records: Vec<Theirs> = made
        .iter()
        .enumerate()
        .map(|(index, record)| Theirs {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id,
            producer_epoch: 4,
            timestamp_type: TimestampType::Creation,
            offset: index as i64,
            sequence: base_sequence + index as i32,
            timestamp: record.timestamp,
            key: record.key.clone().map(Bytes::from),
            value: record.value.clone().map(Bytes::from),
            headers: record
                .headers
                .iter()
                .map(|(key, value)| (StrBytes::from_string(key.clone()), value.clone().map(Bytes::from)))
                .collect::<IndexMap<_, _>>(),
        })
        .collect();
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: theirs(codec) };
    RecordBatchEncoder::encode(&mut out, &records, &options).expect("they encode");
    out.freeze()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn they_read_what_we_write(made in records(), producer_id in 0..i64::MAX, base_sequence in 0..1_000_000) {
        for codec in CODECS {
            let mut batch = we_write(&made, codec, producer_id, base_sequence);
            let read = RecordBatchDecoder::decode(&mut batch).expect("they decode").records;
            prop_assert_eq!(read.len(), made.len());
            for (index, (read, made)) in read.iter().zip(&made).enumerate() {
                prop_assert_eq!((read.offset, read.timestamp), (index as i64, made.timestamp));
                prop_assert_eq!(read.sequence, advance_sequence(base_sequence, index as i32));
                prop_assert_eq!((read.producer_id, read.producer_epoch), (producer_id, 4));
                prop_assert_eq!((read.key.as_deref(), read.value.as_deref()), (made.key.as_deref(), made.value.as_deref()));
                let headers: Vec<_> = read.headers.iter().map(|(key, value)| (key.to_string(), value.as_ref().map(|v| v.to_vec()))).collect();
                prop_assert_eq!(&headers, &made.headers);
            }
        }
    }

    #[test]
    fn we_read_and_accept_what_they_write(made in records(), producer_id in 0..i64::MAX, base_sequence in 0..1_000_000) {
        let rules = ProduceRules { now_ms: NOW, ..ProduceRules::default() };
        for codec in CODECS {
            let batch = they_write(&made, codec, producer_id, base_sequence);
            verify_crc(&batch).expect("a right CRC");
            let view = view(&batch);
            prop_assert_eq!((view.header.producer_id, view.header.base_sequence), (producer_id, base_sequence));
            let records = RecordSet::of(&view, &Limits::default()).expect("records");
            prop_assert_eq!(records.iter().count(), made.len());
            for (record, made) in records.iter().zip(&made) {
                let record = record.expect("a record");
                prop_assert_eq!(record.timestamp(&view.header), made.timestamp);
                prop_assert_eq!((record.key, record.value), (made.key.as_deref(), made.value.as_deref()));
                prop_assert_eq!(record.headers.len(), made.headers.len());
                for ((key, value), made) in record.headers.zip(&made.headers) {
                    prop_assert_eq!((key, value), (made.0.as_bytes(), made.1.as_deref()));
                }
            }
            let valid = validate_produced(&batch, &rules).expect("valid");
            prop_assert_eq!(valid.bytes, batch);
            prop_assert_eq!(Some(valid.max_timestamp), made.iter().map(|made| made.timestamp).max());
        }
    }
}
