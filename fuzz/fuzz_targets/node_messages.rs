//! What nodes send each other: the first byte chooses a message. What is read has these bytes and no others.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use madang_cluster::peers::{Propose, ProposeAnswer, fetch_answers, raft_message, raft_payload};
use madang_fuzz::guarded;
use madang_protocol::node::{
    Confirm, Death, Heartbeat, HeartbeatAnswer, LEVELS, NodeMessage, Received, Rejected, ReplicaFetch, ReplicaFetchAnswer,
};
use madang_protocol::types::NodeId;

fn whole<M: NodeMessage>(head: &Bytes) {
    for level in LEVELS.0..=LEVELS.1 {
        if let Ok(message) = M::read(level, head) {
            assert_eq!(message.write(level).expect("what was read can be written"), head);
        }
    }
}

/// A head, and what is left for the payload: the first byte is the head's length.
fn fetched(bytes: &Bytes) {
    let Some(length) = bytes.first().map(|length| usize::from(*length)).filter(|length| *length < bytes.len()) else {
        return;
    };
    let (head, payload) = (bytes.slice(1..=length), bytes.slice(1 + length..));
    let message = ReplicaFetchAnswer::read(LEVELS.1, &head);
    if let Ok(answers) = message.and_then(|message| fetch_answers(message, payload)) {
        assert!(answers.len() <= head.len());
    }
}

fuzz_target!(|data: &[u8]| {
    let [choice, message @ ..] = data else { return };
    guarded(message, 0, |bytes| match choice % 12 {
        0 => whole::<Received>(bytes),
        1 => whole::<Rejected>(bytes),
        2 => whole::<Propose>(bytes),
        3 => whole::<ProposeAnswer>(bytes),
        4 => whole::<Heartbeat>(bytes),
        5 => whole::<HeartbeatAnswer>(bytes),
        6 => whole::<Confirm>(bytes),
        7 => whole::<ReplicaFetch>(bytes),
        8 => whole::<ReplicaFetchAnswer>(bytes),
        9 => fetched(bytes),
        10 => whole::<Death>(bytes),
        _ => {
            let peer = NodeId(i32::from(*choice));
            if let Ok(message) = raft_message(peer, bytes) {
                let again = raft_payload(&message).expect("what was read can be written");
                assert_eq!(raft_message(peer, &again), Ok(message));
            }
        }
    });
});
