//! Bytes of every message, how levels talk to each other, and bytes that lie.

use std::collections::BTreeSet;
use std::fmt::Debug;

use super::*;
use crate::error_code::ErrorCode;
use crate::node_message;
use crate::types::{LeaderEpoch, NodeId, Offset, TopicPartition, Uuid};

/// A message's bytes at level 1, and its reader, which writes again what it has read.
struct Sample {
    tag: Tag,
    bytes: Bytes,
    golden: &'static str,
    again: fn(&[u8]) -> Result<Bytes, NodeError>,
}

fn sample<M: NodeMessage + Debug + PartialEq>(message: M, golden: &'static str) -> Sample {
    let bytes = message.write(1).expect("written");
    assert_eq!(M::read(1, &bytes), Ok(message));
    Sample { tag: M::TAG, bytes, golden, again: |bytes| M::read(1, bytes)?.write(1) }
}

fn partition(index: i32) -> TopicPartition {
    TopicPartition { topic_id: Uuid([7; 16]), partition: index }
}

fn answer(body: AnswerBody) -> PartitionAnswer {
    let (leader_epoch, fetch_offset) = (LeaderEpoch(5), Offset(258));
    PartitionAnswer { partition: partition(1), leader_epoch, incarnation: 2, fetch_offset, body }
}

fn records(length: u32) -> PartitionAnswer {
    answer(AnswerBody::Records { length, high_watermark: Offset(9), log_start_offset: Offset(3) })
}

fn of_control() -> Vec<Sample> {
    let confirm = PartitionConfirm {
        partition: partition(1),
        leader_epoch: LeaderEpoch(5),
        incarnation: 2,
        confirmed_offset: Offset(9),
    };
    let heartbeat = |dirs| Heartbeat { node_id: NodeId(3), broker_epoch: 4, metadata_index: 5, offline_log_dirs: dirs };
    vec![
        sample(Received {}, ""),
        sample(Rejected { refusal: Refusal::UnknownTag }, "0000"),
        sample(Rejected { refusal: Refusal::Malformed }, "0100"),
        sample(Rejected { refusal: Refusal::NotServed }, "0200"),
        sample(Raft {}, ""),
        sample(
            heartbeat(vec![Uuid([8; 16])]),
            "03000000040000000000000005000000000000000100000008080808080808080808080808080808",
        ),
        sample(heartbeat(Vec::new()), "030000000400000000000000050000000000000000000000"),
        sample(HeartbeatAnswer { result: HeartbeatResult::Heard { fenced: true } }, "000001"),
        sample(
            HeartbeatAnswer { result: HeartbeatResult::NotController { leader: Some(NodeId(2)) } },
            "01000102000000",
        ),
        sample(HeartbeatAnswer { result: HeartbeatResult::NotController { leader: None } }, "010000"),
        sample(HeartbeatAnswer { result: HeartbeatResult::Refused(ErrorCode::StaleBrokerEpoch) }, "02004d00"),
        sample(Death { node_id: NodeId(3), broker_epoch: 4 }, "030000000400000000000000"),
        sample(
            Confirm { broker_epoch: 4, partitions: vec![confirm] },
            "04000000000000000100000007070707070707070707070707070707010000000500000002000000000000000900000000000000",
        ),
    ]
}

fn of_data() -> Vec<Sample> {
    let fetch = PartitionFetch {
        partition: partition(1),
        leader_epoch: LeaderEpoch(5),
        incarnation: 2,
        fetch_offset: Offset(258),
        last_fetched_epoch: LeaderEpoch::NONE,
        confirmed_offset: Offset(9),
    };
    let of = |body| ReplicaFetchAnswer { partitions: vec![answer(body)] };
    vec![
        sample(
            ReplicaFetch {
                broker_epoch: 4,
                max_wait_ms: 500,
                max_bytes: 1 << 20,
                partitions: vec![fetch],
                known: Vec::new(),
            },
            "0400000000000000f4010000000010000100000007070707070707070707070707070707010000000500000002000000000000000201000000000000ffffffff0900000000000000",
        ),
        sample(
            ReplicaFetchAnswer { partitions: vec![records(513)] },
            "010000000707070707070707070707070707070701000000050000000200000000000000020100000000000000000102000009000000000000000300000000000000",
        ),
        sample(
            of(AnswerBody::Diverging { epoch: LeaderEpoch(4), end_offset: Offset(6) }),
            "01000000070707070707070707070707070707070100000005000000020000000000000002010000000000000100040000000600000000000000",
        ),
        sample(
            of(AnswerBody::BelowStart { log_start_offset: Offset(300) }),
            "010000000707070707070707070707070707070701000000050000000200000000000000020100000000000002002c01000000000000",
        ),
        sample(
            of(AnswerBody::Error(ErrorCode::FencedLeaderEpoch)),
            "010000000707070707070707070707070707070701000000050000000200000000000000020100000000000003004a00",
        ),
    ]
}

fn samples() -> Vec<Sample> {
    of_control().into_iter().chain(of_data()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_a_message_never_change() {
    for Sample { tag, bytes, golden, again } in samples() {
        assert_eq!(hex(&bytes), golden, "{tag:?}");
        assert_eq!(again(&bytes), Ok(bytes));
    }
}

#[test]
fn the_bytes_of_what_began_at_level_2_never_change() {
    let known = PartitionKnown { high_watermark: Offset(9), log_start_offset: Offset::NONE };
    let fetch =
        ReplicaFetch { broker_epoch: 4, max_wait_ms: 500, max_bytes: 1, partitions: Vec::new(), known: vec![known] };
    let bytes = fetch.write(2).expect("written");
    assert_eq!(hex(&bytes), "0400000000000000f40100000100000000000000010000000900000000000000ffffffffffffffff");
    assert_eq!(ReplicaFetch::read(2, &bytes), Ok(fetch.clone()));
    let at_1 = fetch.write(1).expect("written for a node that is a level behind");
    assert_eq!(ReplicaFetch::read(1, &at_1), Ok(ReplicaFetch { known: Vec::new(), ..fetch }));
}

#[test]
fn a_tag_keeps_its_number() {
    let numbers: Vec<u16> = Tag::ALL.iter().map(|tag| tag.code()).collect();
    assert_eq!(numbers, (1..=11).collect::<Vec<u16>>());
    assert!(Tag::ALL.iter().all(|tag| Tag::from_code(tag.code()) == Some(*tag)));
    assert_eq!((Tag::from_code(0), Tag::from_code(12)), (None, None), "the hello, and what a newer node may send");
    let elsewhere = [Tag::Propose, Tag::ProposeAnswer];
    let there: BTreeSet<Tag> = samples().iter().map(|sample| sample.tag).chain(elsewhere).collect();
    assert!(Tag::ALL.iter().all(|tag| there.contains(tag)), "each message has a sample");
}

node_message! {
    /// A message as it began.
    struct Old = Tag::Received {
        /// A list, so that it has no fixed length.
        numbers: Vec<u32>,
    }
}

node_message! {
    /// The same message, two levels later.
    struct New = Tag::Received {
        /// A list, so that it has no fixed length.
        numbers: Vec<u32>,
    } since 2 {
        /// A text that an old node does not know.
        text: Option<String>,
        /// A number beside it.
        count: u16,
    } since 3 {
        /// The newest field.
        flag: bool,
    }
}

fn new() -> New {
    New { numbers: vec![1, 2], text: Some("new".into()), count: 4, flag: true }
}

#[test]
fn a_node_talks_to_one_that_is_a_level_behind_both_ways() {
    let old = Old { numbers: vec![1, 2] };
    let at_1 = write_at(&new(), 2, 1).expect("written for an old node");
    assert_eq!(read_at(1, 1, &at_1), Ok(old.clone()), "no more than it knows");
    let from_old = write_at(&old, 1, 1).expect("written by an old node");
    assert_eq!(read_at(2, 1, &from_old), Ok(New { numbers: vec![1, 2], text: None, count: 0, flag: false }));
    let at_2 = write_at(&new(), 3, 2).expect("written for a node of level 2");
    assert_eq!(read_at(3, 2, &at_2), Ok(New { flag: false, ..new() }));
    let at_3 = write_at(&new(), 3, 3).expect("written for an equal");
    assert_eq!(read_at(3, 3, &at_3), Ok(new()));
}

#[test]
fn newer_fields_are_ignored_only_from_a_peer_whose_level_has_them() {
    let at_2 = write_at(&new(), 2, 2).expect("written");
    assert_eq!(read_at(1, 2, &at_2), Ok(Old { numbers: vec![1, 2] }));
    assert_eq!(read_at::<Old>(1, 1, &at_2), Err(NodeError::TrailingBytes(10)));
    let from_old = Old { numbers: vec![1, 2] }.write(1).expect("written");
    let missing = read_at::<New>(2, 2, &from_old);
    assert!(matches!(missing, Err(NodeError::Malformed(_))), "a peer of level 2 writes the tail: {missing:?}");
}

#[test]
fn levels_that_are_not_spoken_are_refused() {
    assert_eq!(Received {}.write(0), Err(NodeError::Level(0)));
    assert_eq!(Received {}.write(LEVELS.1 + 1), Err(NodeError::Level(LEVELS.1 + 1)));
    assert_eq!(Received::read(0, &[]), Err(NodeError::Level(0)));
}

#[test]
fn a_message_that_is_cut_or_longer_is_an_error() {
    for Sample { tag, bytes, again, .. } in samples() {
        for end in 0..bytes.len() {
            assert!(matches!(again(&bytes[..end]), Err(NodeError::Malformed(_))), "{tag:?} cut at {end}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(again(&longer), Err(NodeError::TrailingBytes(1)), "{tag:?}");
    }
}

#[test]
fn what_no_variant_has_is_an_error() {
    let is_malformed =
        |result: Result<(), NodeError>| assert!(matches!(result, Err(NodeError::Malformed(_))), "{result:?}");
    is_malformed(Rejected::read(1, &[3, 0]).map(drop));
    is_malformed(Rejected::read(1, &[0, 1]).map(drop));
    is_malformed(HeartbeatAnswer::read(1, &[3, 0, 0]).map(drop));
    is_malformed(HeartbeatAnswer::read(1, &[2, 0, 0x10, 0x27]).map(drop));
    let error = ReplicaFetchAnswer { partitions: vec![answer(AnswerBody::Error(ErrorCode::None))] };
    let mut bytes = error.write(1).expect("written").to_vec();
    let at = bytes.len() - 4;
    bytes[at] = 4;
    is_malformed(ReplicaFetchAnswer::read(1, &bytes).map(drop));
    // Whether there is something, and whether something holds, is 0 or 1.
    assert_eq!(HeartbeatAnswer::read(1, &[0, 0, 2]), Err(NodeError::NotCanonical));
    assert_eq!(HeartbeatAnswer::read(1, &[1, 0, 2, 1, 0, 0, 0]), Err(NodeError::NotCanonical));
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        // The values at which something changes come often.
        let all = self.below(256) as u8;
        [0, 1, 2, 0xff, all, all][self.below(6)]
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let (at, byte) = (self.below(bytes.len() + 1), self.byte());
            match self.below(3) {
                0 => bytes.insert(at, byte),
                1 => bytes.truncate(at),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|place| *place = byte),
            }
        }
    }
}

#[test]
fn random_and_damaged_bytes_are_a_message_with_that_encoding_or_an_error() {
    let (mut random, mut whole) = (Random(1), 0);
    let samples = samples();
    for round in 0..200_000 {
        let sample = &samples[round % samples.len()];
        let mut bytes = sample.bytes.to_vec();
        if random.below(4) == 0 {
            bytes = (0..random.below(80)).map(|_| random.byte()).collect();
        } else {
            random.damage(&mut bytes);
        }
        if let Ok(again) = (sample.again)(&bytes) {
            assert_eq!(again, bytes, "{:?}", sample.tag);
            whole += 1;
        }
    }
    assert!(whole > 1_000, "most of it is no message, but not all: {whole}");
}

#[test]
fn lengths_of_records_add_up_to_exactly_the_payload() {
    let there = AnswerBody::BelowStart { log_start_offset: Offset(1) };
    let partitions = vec![records(2), answer(there), records(0), records(3)];
    let message = ReplicaFetchAnswer { partitions };
    let split = |payload: &'static [u8]| {
        let parts = message.clone().with_records(Bytes::from_static(payload))?;
        Ok(parts.map(|(_, records)| records).collect::<Vec<_>>())
    };
    assert_eq!(split(b"aabbb"), Ok(["aa", "", "", "bbb"].map(Bytes::from).to_vec()));
    for payload in [&b"aabb"[..], b"aabbbb", b""] {
        assert_eq!(split(payload), Err(NodeError::Payload { announced: 5, there: payload.len() }));
    }
    let huge = ReplicaFetchAnswer { partitions: vec![records(u32::MAX); 3] };
    let announced = 3 * u64::from(u32::MAX);
    let refused = huge.with_records(Bytes::from_static(b"few")).map(|_| ());
    assert_eq!(refused, Err(NodeError::Payload { announced, there: 3 }));
}
