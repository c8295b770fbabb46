//! Raft's messages, fetches and confirmed offsets, there and back; random and damaged bytes of all that the controller is sent.

use std::time::Duration;

use bytes::Bytes;
use madang_actors::prng::Prng;
use madang_protocol::ErrorCode;
use madang_protocol::node::{NodeError, NodeMessage, ReplicaFetchAnswer};
use madang_protocol::types::{LeaderEpoch, NodeId, Offset, TopicPartition, Uuid};
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot, SnapshotMetadata};

use super::super::{
    FetchLimits, Propose, ProposeAnswer, ProposeResult, confirm, confirmed, fetch, fetch_answer, fetch_answers,
    fetches, raft_message, raft_payload,
};
use super::proposals::{outcomes, proposals};
use crate::replica::replication::{Confirmed, FetchAnswer, FetchBody, FetchPosition, FollowerFetch, Known};

/// Raft's number of it is 4.
const PEER: NodeId = NodeId(3);

fn append() -> Message {
    let mut entry = Entry { entry_type: EntryType::EntryNormal, term: 5, index: 6, ..Entry::default() };
    entry.data = Bytes::from_static(b"records");
    let mut message = Message {
        msg_type: MessageType::MsgAppend,
        from: 4,
        to: 1,
        term: 5,
        log_term: 4,
        index: 5,
        ..Message::default()
    };
    message.commit = 3;
    message.entries = vec![entry, Entry { term: 5, index: 7, ..Entry::default() }].into();
    message
}

fn snapshot() -> Message {
    let voters = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    let mut metadata = SnapshotMetadata { index: 300, term: 2, ..SnapshotMetadata::default() };
    metadata.set_conf_state(voters);
    let mut snapshot = Snapshot { data: Bytes::from_static(b"all"), ..Snapshot::default() };
    snapshot.set_metadata(metadata);
    let mut message = Message { msg_type: MessageType::MsgSnapshot, from: 4, to: 2, term: 5, ..Message::default() };
    message.set_snapshot(snapshot);
    message
}

#[test]
fn a_message_of_raft_survives_the_wire() {
    for message in [append(), snapshot()] {
        let payload = raft_payload(&message).expect("written");
        assert_eq!(raft_message(PEER, &payload), Ok(message));
    }
    // The numbers of Raft's own fields, so that an update of raft-rs that changes them is noticed.
    let vote = Message { msg_type: MessageType::MsgRequestVote, from: 4, to: 1, term: 5, ..Message::default() };
    assert_eq!(raft_payload(&vote).expect("written"), [0x08, 5, 0x10, 1, 0x18, 4, 0x20, 5].as_slice());
}

fn is_refused(payload: &[u8]) -> bool {
    matches!(raft_message(PEER, payload), Err(NodeError::Malformed(_)))
}

#[test]
fn a_voter_speaks_in_its_own_name_and_proposes_nothing_past_the_controller() {
    let payload = raft_payload(&append()).expect("written");
    assert!(matches!(raft_message(NodeId(2), &payload), Err(NodeError::Malformed(_))));
    for local in [MessageType::MsgPropose, MessageType::MsgHup, MessageType::MsgTransferLeader] {
        assert!(is_refused(&raft_payload(&Message { msg_type: local, ..append() }).expect("written")), "{local:?}");
    }
}

#[test]
fn fields_of_raft_that_cannot_be_are_refused_before_the_decoder_sees_them() {
    let sound = [0x08, 3, 0x18, 4];
    assert_eq!(raft_message(PEER, &sound).map(|message| message.term), Ok(0));
    let with = |more: &[u8]| [&sound, more].concat();
    assert!(is_refused(&with(&[0x62, 0xff, 0xac, 0xe2, 4])), "a context of ten million bytes");
    assert!(is_refused(&with(&[0x3a, 6, 0x22, 0xff, 0xff, 0xff, 0xff, 0x0f])), "an entry's data of four gigabytes");
    assert!(is_refused(&with(&[0x3a, 0])), "an entry without a term and an index");
    assert!(is_refused(&with(&[0x4a, 8, 0x12, 6, 0x0a, 4, 0x0a, 3, 1, 2])), "voters past the end of their part");
    assert!(is_refused(&with(&[0x90, 1, 0])), "field 18");
    assert!(is_refused(&with(&[0x3b, 0x3b, 0x3b])), "groups in groups");
    assert!(is_refused(&with(&[0x08, 99])), "an unknown type");
    assert!(is_refused(&with(&[0x08])) && is_refused(&with(&[0xff; 11])), "numbers without an end");
}

fn partition(index: i32) -> TopicPartition {
    TopicPartition { topic_id: Uuid([7; 16]), partition: index }
}

fn position(offset: i64) -> FetchPosition {
    FetchPosition {
        leader: NodeId(1),
        leader_epoch: LeaderEpoch(5),
        incarnation: 2,
        fetch_offset: Offset(offset),
        last_fetched_epoch: LeaderEpoch(4),
        confirmed_offset: Offset(3),
        known: None,
        after_error: false,
    }
}

#[test]
fn a_fetch_reaches_the_leader_as_it_was_meant() {
    let limits = FetchLimits { max_wait: Duration::from_millis(500), max_bytes: 10 << 20 };
    let hurt = FetchPosition { after_error: true, ..position(9) };
    let known = Some(Known { high_watermark: Offset(4), log_start_offset: Offset(2) });
    let asked = [(partition(1), FetchPosition { known, ..position(4) }), (partition(0), hurt)];
    let of = |position| FollowerFetch { node_id: PEER, broker_epoch: 8, position };
    for (level, known) in [(1, None), (2, known)] {
        let head = fetch(8, limits, &asked).write(level).expect("written");
        let message = NodeMessage::read(level, &head).expect("read");
        let first = of(FetchPosition { known, ..position(4) });
        let expected = vec![(partition(1), first), (partition(0), of(position(9)))];
        assert_eq!(fetches(PEER, NodeId(1), &message), (limits, expected), "at level {level}");
    }
    let endless = FetchLimits { max_wait: Duration::MAX, ..limits };
    assert_eq!(fetch(8, endless, &[]).max_wait_ms, u32::MAX);
}

fn answers() -> Vec<(TopicPartition, FetchAnswer)> {
    let records = |bytes: &'static str| FetchBody::Records {
        records: Bytes::from_static(bytes.as_bytes()),
        high_watermark: Offset(4),
        log_start_offset: Offset(1),
    };
    let bodies = [
        records("first"),
        FetchBody::Diverging { epoch: LeaderEpoch(3), end_offset: Offset(2) },
        records(""),
        FetchBody::BelowStart { log_start_offset: Offset(7) },
        records("second"),
        FetchBody::Error(ErrorCode::NotLeaderOrFollower),
    ];
    let of = |(index, body)| {
        let (leader_epoch, fetch_offset) = (LeaderEpoch(5), Offset(i64::from(index)));
        (partition(index), FetchAnswer { leader_epoch, incarnation: 2, fetch_offset, body })
    };
    (0..).zip(bodies).map(of).collect()
}

#[test]
fn an_answer_carries_its_records_as_payload() {
    for answers in [answers(), answers()[..1].to_vec(), answers()[1..4].to_vec(), Vec::new()] {
        let (message, payload) = fetch_answer(answers.clone()).expect("written");
        let payload = payload.read().expect("in memory");
        let message = ReplicaFetchAnswer::read(1, &message.write(1).expect("written")).expect("read");
        assert_eq!(fetch_answers(message.clone(), payload.clone()), Ok(answers));
        let longer = Bytes::from([&payload[..], b"x"].concat());
        let (announced, there) = (payload.len() as u64, longer.len());
        assert_eq!(fetch_answers(message, longer), Err(NodeError::Payload { announced, there }));
    }
    let (_, payload) = fetch_answer(answers()).expect("written");
    assert_eq!(payload.read().expect("in memory"), "firstsecond");
}

#[test]
fn confirmed_ends_are_of_one_registration() {
    let end = |broker_epoch, offset| Confirmed {
        node_id: PEER,
        broker_epoch,
        incarnation: 2,
        leader_epoch: LeaderEpoch(5),
        confirmed_offset: Offset(offset),
    };
    let ends = [(partition(0), end(8, 1)), (partition(1), end(7, 2)), (partition(2), end(8, 3))];
    let head = confirm(8, &ends).write(1).expect("written");
    let message = NodeMessage::read(1, &head).expect("read");
    assert_eq!(confirmed(PEER, &message).collect::<Vec<_>>(), [ends[0], ends[2]]);
}

fn damage(bytes: &mut Vec<u8>, rng: &mut Prng) {
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        // The values at which something changes come often.
        let byte = [0, 1, 2, 0xff, rng.next_u64() as u8, rng.next_u64() as u8][rng.below(6) as usize];
        match rng.below(4) {
            0 => bytes.insert(at, byte),
            1 => bytes.truncate(at),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|place| *place = byte),
        }
    }
}

#[test]
fn random_and_damaged_bytes_are_a_message_with_that_encoding_or_an_error() {
    let mut rng = Prng::new(1);
    let committed = |outcome| ProposeAnswer { result: ProposeResult::Committed(outcome), metadata_index: 9 };
    let asked = proposals().into_iter().map(|(proposal, _)| Propose { proposal }.write(1));
    let answered = outcomes().into_iter().map(|(outcome, _)| committed(outcome).write(1));
    let raft = [append(), snapshot()].map(|message| raft_payload(&message));
    let samples: Vec<Bytes> = asked.chain(answered).chain(raft).map(|bytes| bytes.expect("written")).collect();
    let mut whole = 0;
    for round in 0..150_000 {
        let mut bytes = samples[round % samples.len()].to_vec();
        damage(&mut bytes, &mut rng);
        if let Ok(message) = Propose::read(1, &bytes) {
            assert_eq!(message.write(1), Ok(bytes.clone().into()));
            whole += 1;
        }
        if let Ok(message) = ProposeAnswer::read(1, &bytes) {
            assert_eq!(message.write(1), Ok(bytes.clone().into()));
            whole += 1;
        }
        if let Ok(message) = raft_message(PEER, &bytes) {
            let again = raft_payload(&message).expect("written");
            assert_eq!(raft_message(PEER, &again), Ok(message));
            whole += 1;
        }
    }
    assert!(whole > 1_000, "most of it is no message, but not all: {whole}");
}
