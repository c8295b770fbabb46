//! Bytes that lie: every one is an error, none a panic, none a large allocation.

use bytes::Bytes;
use madang_protocol::message::{decode_versioned, encode_versioned};
use madang_protocol::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use madang_protocol::messages::create_topics::CreateTopicsRequest;
use madang_protocol::messages::delete_groups::DeleteGroupsRequest;
use madang_protocol::messages::fetch::FetchRequest;
use madang_protocol::messages::heartbeat::HeartbeatRequest;
use madang_protocol::messages::metadata::MetadataRequest;
use madang_protocol::{DecodeError, Message, Reader, Writer};

use crate::table;
use crate::values::{Random, Version, encode, random_struct};

fn decode<'a, M: Message<'a>>(bytes: &'a Bytes, version: i16) -> Result<M, DecodeError> {
    let mut reader = Reader::new(bytes);
    let message = M::decode(&mut reader, version)?;
    reader.expect_end()?;
    Ok(message)
}

fn bytes(parts: &[&[u8]]) -> Bytes {
    Bytes::from(parts.concat())
}

#[test]
fn a_count_that_the_frame_cannot_hold_is_refused_before_anything_is_allocated() {
    let lie = bytes(&[&i32::MAX.to_be_bytes(), &[0; 10]]);
    let refused = DecodeError::TooManyElements { count: i32::MAX as usize, remaining: 10 };
    assert_eq!(decode::<MetadataRequest>(&lie, 1), Err(refused));
    assert_eq!(decode::<CreateTopicsRequest>(&lie, 2), Err(refused));
    // Ten bytes hold five empty strings, not six.
    let six = bytes(&[&6_i32.to_be_bytes(), &[0; 10]]);
    let refused = DecodeError::TooManyElements { count: 6, remaining: 10 };
    assert_eq!(decode::<DeleteGroupsRequest>(&six, 0), Err(refused));
    let five = bytes(&[&5_i32.to_be_bytes(), &[0; 10]]);
    assert_eq!(decode::<DeleteGroupsRequest>(&five, 0).map(|request| request.groups_names.len()), Ok(5));
}

#[test]
fn a_frame_of_empty_strings_cannot_take_many_times_its_size_in_memory() {
    let strings = |count: u32| {
        let mut writer = Writer::new();
        writer.put_unsigned_varint(count + 1);
        writer.put_slice(&vec![1; count as usize]);
        writer.put_unsigned_varint(0);
        writer.into_bytes().expect("in memory")
    };
    assert_eq!(
        decode(&strings(500_000), 2).map(|request: DeleteGroupsRequest<'_>| request.groups_names.len()),
        Ok(500_000)
    );
    let frame = strings(1_000_000);
    let limit = (16 << 20) + 4 * frame.len();
    assert_eq!(decode::<DeleteGroupsRequest>(&frame, 2), Err(DecodeError::TooMuchMemory { limit }));
}

#[test]
fn a_compact_count_of_31_bits_is_refused() {
    let lie = Bytes::from_static(&[0x80, 0x80, 0x80, 0x80, 0x08, 0, 0, 0]);
    let refused = DecodeError::TooManyElements { count: i32::MAX as usize, remaining: 3 };
    assert_eq!(decode::<MetadataRequest>(&lie, 9), Err(refused));
}

#[test]
fn every_negative_length_is_null_as_kafka_reads_it() {
    for null in [-1_i32, -2, i32::MIN] {
        let all = bytes(&[&null.to_be_bytes()]);
        assert_eq!(decode::<MetadataRequest>(&all, 1).map(|request| request.topics), Ok(None));
    }
    let of_32_bits = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0]);
    assert_eq!(decode::<MetadataRequest>(&of_32_bits, 9).map(|request| request.topics), Ok(None));
    let lie = bytes(&[&(-2_i16).to_be_bytes(), &[0; 20]]);
    assert_eq!(decode::<HeartbeatRequest>(&lie, 0), Err(DecodeError::UnexpectedNull));
}

#[test]
fn what_is_not_utf8_is_replaced_as_kafka_replaces_it() {
    let frame = bytes(&[&[0, 3, b'a', 0xff, 0xfe], &[0; 4], &[0, 1, b'm']]);
    assert_eq!(decode::<HeartbeatRequest>(&frame, 0).map(|request| request.group_id), Ok("a\u{fffd}\u{fffd}".into()));
}

#[test]
fn null_in_a_field_without_null_is_refused() {
    assert_eq!(decode::<MetadataRequest>(&bytes(&[&(-1_i32).to_be_bytes()]), 0), Err(DecodeError::UnexpectedNull));
    assert_eq!(decode::<HeartbeatRequest>(&bytes(&[&[0xff; 2], &[0; 20]]), 0), Err(DecodeError::UnexpectedNull));
    assert_eq!(decode::<HeartbeatRequest>(&Bytes::from_static(&[0; 20]), 4), Err(DecodeError::UnexpectedNull));
    let null_name = Bytes::from_static(&[2, 0, 0, 1, 0, 0, 0]);
    assert_eq!(decode::<MetadataRequest>(&null_name, 9), Err(DecodeError::UnexpectedNull));
}

#[test]
fn a_string_longer_than_the_frame_or_than_strings_may_be_is_refused() {
    let lie = bytes(&[&[0x7f, 0xff], b"short"]);
    assert_eq!(decode::<HeartbeatRequest>(&lie, 0), Err(DecodeError::UnexpectedEnd { needed: 32_767, remaining: 5 }));
    // 32,768 as a compact length.
    let long = bytes(&[&[0x81, 0x80, 0x02], &[b'a'; 40_000]]);
    assert_eq!(decode::<HeartbeatRequest>(&long, 4), Err(DecodeError::StringTooLong { length: 32_768 }));
}

#[test]
fn variable_length_numbers_end() {
    let six = Bytes::from_static(&[0x80, 0x80, 0x80, 0x80, 0x80, 0]);
    assert_eq!(Reader::new(&six).read_unsigned_varint(), Err(DecodeError::VarintTooLong));
    let more_than_32_bits = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x1f]);
    assert_eq!(Reader::new(&more_than_32_bits).read_unsigned_varint(), Ok(u32::MAX));
    let eleven = Bytes::from_static(&[0x80; 11]);
    assert_eq!(Reader::new(&eleven).read_varlong(), Err(DecodeError::VarintTooLong));
    let more_than_64_bits = bytes(&[&[0xff; 9], &[2]]);
    assert_eq!(Reader::new(&more_than_64_bits).read_varlong(), Err(DecodeError::VarintTooLong));
}

#[test]
fn variable_length_numbers_survive() {
    for number in [0, 1, -1, 63, 64, -64, -65, 8191, i32::MAX.into(), i32::MIN.into(), i64::MAX, i64::MIN] {
        let mut writer = Writer::new();
        writer.put_varlong(number);
        writer.put_varint(number as i32);
        writer.put_unsigned_varint(number as u32);
        let bytes = writer.into_bytes().unwrap();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.read_varlong(), Ok(number));
        assert_eq!(reader.read_varint(), Ok(number as i32));
        assert_eq!(reader.read_unsigned_varint(), Ok(number as u32));
        assert_eq!(reader.expect_end(), Ok(()));
    }
}

/// A Fetch request of version 15 with this section of tagged fields at its end.
fn fetch_with_tags(section: &[u8]) -> Result<FetchRequest<'static>, DecodeError> {
    let fields: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1];
    let frame: &'static Bytes = Box::leak(Box::new(bytes(&[fields, section])));
    decode(frame, 15)
}

#[test]
fn tagged_fields_are_taken_as_kafka_takes_them() {
    let cluster = [0, 2, 2, b'c'];
    let state = [1, 13, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9, 0];
    let both = fetch_with_tags(&[&[2_u8][..], &cluster, &state].concat()).unwrap();
    assert_eq!((both.cluster_id.as_deref(), both.replica_state.replica_id), (Some("c"), 7));
    // In any order, and of several with one tag the last.
    assert_eq!(fetch_with_tags(&[&[2_u8][..], &state, &cluster].concat()).as_ref(), Ok(&both));
    assert_eq!(fetch_with_tags(&[&[3_u8][..], &[0, 2, 2, b'x'], &cluster, &state].concat()), Ok(both));
    // Unknown ones are skipped.
    let unknown = fetch_with_tags(&[&[2_u8, 100, 3, 1, 2, 3][..], &cluster].concat()).unwrap();
    assert_eq!(unknown.cluster_id.as_deref(), Some("c"));
}

#[test]
fn tagged_fields_that_lie_about_their_size_are_refused() {
    let left_over = fetch_with_tags(&[1, 0, 3, 2, b'c', 0]);
    assert_eq!(left_over, Err(DecodeError::TrailingBytes { remaining: 1 }));
    let too_short = fetch_with_tags(&[1, 0, 1, 2, b'c']);
    assert_eq!(too_short, Err(DecodeError::UnexpectedEnd { needed: 1, remaining: 0 }));
    let beyond = fetch_with_tags(&[1, 100, 50, 1]);
    assert_eq!(beyond, Err(DecodeError::UnexpectedEnd { needed: 50, remaining: 1 }));
    let endless = fetch_with_tags(&[0xff, 0xff, 0xff, 0xff, 0x07]);
    assert_eq!(endless, Err(DecodeError::UnexpectedEnd { needed: 1, remaining: 0 }));
    assert!(fetch_with_tags(&[0xff, 0xff, 0xff, 0xff, 0x0f]).is_ok(), "a negative count is none");
}

#[test]
fn a_tag_that_the_version_does_not_have_is_refused() {
    // Version 12 has no replica state.
    let mut frame = vec![0xff; 4];
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0]);
    assert_eq!(decode::<FetchRequest>(&frame.into(), 12), Err(DecodeError::InvalidTag { tag: 1, version: 12 }));
}

#[test]
fn what_follows_a_message_is_refused() {
    let frame = Bytes::from_static(&[0, 0, 0, 0, 0, 9]);
    assert_eq!(decode::<MetadataRequest>(&frame, 0), Err(DecodeError::TrailingBytes { remaining: 2 }));
    let subscription = ConsumerProtocolSubscription { generation_id: 4, ..Default::default() };
    let encoded = encode_versioned(&subscription, 3).unwrap();
    assert_eq!(decode_versioned(&encoded), Ok((subscription, 3)));
    let longer = bytes(&[&encoded, &[0]]);
    let refused = decode_versioned::<ConsumerProtocolSubscription>(&longer);
    assert_eq!(refused, Err(DecodeError::TrailingBytes { remaining: 1 }));
}

/// Decodes at least `total` hostile byte strings, spread over all messages and versions.
fn attack(total: usize, seed: u64, mut hostile: impl FnMut(&table::Row, Version, &mut Random) -> Vec<u8>) {
    let rows = table::all();
    let mut random = Random(seed);
    let mut done = 0;
    while done < total {
        for row in &rows {
            for number in row.versions.min..=row.versions.max {
                let version = Version { number, flexible: row.flexible.contains(number) };
                let bytes = Bytes::from(hostile(row, version, &mut random));
                if let Ok(again) = (row.recode)(&bytes, number) {
                    // What was accepted has one canonical form.
                    assert_eq!(
                        (row.recode)(&again, number).as_ref(),
                        Ok(&again),
                        "{} v{number} seed {seed}",
                        row.name()
                    );
                }
                done += 1;
            }
        }
    }
}

#[test]
fn random_bytes_never_panic() {
    attack(100_000, 3, |_, _, random| (0..random.below(64)).map(|_| random.next() as u8 >> random.below(8)).collect());
}

#[test]
fn damaged_messages_never_panic() {
    attack(50_000, 4, |row, version, random| {
        let mut bytes = Vec::new();
        encode(&random_struct(row.schema, version, random), version, &mut bytes);
        for _ in 0..=random.below(3) {
            if bytes.is_empty() {
                break;
            }
            let at = random.below(bytes.len() as u64) as usize;
            match random.below(3) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes.truncate(at),
                _ => bytes[at] ^= 1 << random.below(8),
            }
        }
        bytes
    });
}
