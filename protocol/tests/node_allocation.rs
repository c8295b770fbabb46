//! A message between nodes that announces more than it holds is refused before anything is allocated for it.
//! One test in a process of its own, because it counts all that the process allocates.

use madang_protocol::node::{Confirm, Heartbeat, NodeError, NodeMessage, ReplicaFetch, ReplicaFetchAnswer};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What reading `head` holds at its peak, and how it ends.
fn read<M: NodeMessage>(head: &[u8]) -> (usize, Result<(), NodeError>) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = M::read(1, head).map(drop);
    (ALLOCATOR.peak_usage().saturating_sub(before), result)
}

#[test]
fn what_is_allocated_follows_the_bytes_that_are_there() {
    // The bytes before the count, and then a count for which too few bytes follow.
    let lie = |before: usize, count: u32| [&vec![0; before], &count.to_le_bytes()[..], &[0; 30]].concat();
    for count in [2, 1 << 16, 1 << 31, u32::MAX] {
        let refusals = [
            read::<Heartbeat>(&lie(20, count)),
            read::<Confirm>(&lie(8, count)),
            read::<ReplicaFetch>(&lie(16, count)),
            read::<ReplicaFetchAnswer>(&lie(0, count)),
        ];
        for (peak, result) in refusals {
            assert!(matches!(result, Err(NodeError::Malformed(_))), "{count} elements: {result:?}");
            // The text of the error.
            assert!(peak < 256, "{peak} bytes for {count} elements");
        }
    }
    let whole = [vec![0; 8], 20_000_u32.to_le_bytes().to_vec(), vec![1; 800_000]].concat();
    let (peak, result) = read::<Confirm>(&whole);
    assert_eq!(result, Ok(()));
    // The message, and its encoding, which is compared.
    assert!(peak <= 4 * whole.len(), "{peak} bytes for {}", whole.len());
}
