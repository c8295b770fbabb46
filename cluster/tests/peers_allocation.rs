//! Proposals, answers and Raft's messages that announce more than they hold are refused before anything is allocated for it.
//! One test in a process of its own, because it counts all that the process allocates.

use madang_cluster::peers::{Propose, ProposeAnswer, raft_message};
use madang_protocol::node::NodeMessage;
use madang_protocol::types::NodeId;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What `read` holds at its peak; it has to fail.
fn refused<T, E>(read: impl FnOnce() -> Result<T, E>) -> usize {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = read();
    let peak = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(result.is_err());
    peak
}

#[test]
fn what_is_allocated_follows_the_bytes_that_are_there() {
    // The text of the error.
    let nothing = 256;
    for tag in 0..13_u16 {
        let lie = [&tag.to_le_bytes()[..], &[0xff; 4], &[0; 13]].concat();
        let peak = refused(|| Propose::read(1, &lie));
        assert!(peak < nothing, "{peak} bytes for a proposal of variant {tag}");
        let lie = [&[0, 0], &lie[..]].concat();
        let peak = refused(|| ProposeAnswer::read(1, &lie));
        assert!(peak < nothing, "{peak} bytes for an outcome of variant {tag}");
    }
    // A context of ten million bytes, for which protobuf's decoder would make room.
    let peak = refused(|| raft_message(NodeId(3), &[0x08, 3, 0x18, 4, 0x62, 0xff, 0xac, 0xe2, 4]));
    assert!(peak < nothing, "{peak} bytes for a context");
    // A list of as many topics as there are bytes, each of which could be an error or a topic, and of as many entries as there can be.
    let topics = [&[0; 4][..], &400_000_u32.to_le_bytes(), &vec![0; 400_000]].concat();
    let entries = [&[0x08, 3, 0x18, 4][..], &[0x3a, 4, 0x10, 1, 0x18, 0].repeat(70_000)].concat();
    let peaks = [
        (refused(|| ProposeAnswer::read(1, &topics)), topics.len()),
        (refused(|| raft_message(NodeId(3), &entries)), entries.len()),
    ];
    for (peak, length) in peaks {
        assert!(peak <= 64 * length, "{peak} bytes for {length}");
    }
}
