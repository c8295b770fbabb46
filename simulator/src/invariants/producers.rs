//! T6: what Kafka's rule for sequences lets a sound producer be told.

use bytes::Bytes;
use madang_protocol::types::TopicPartition;

use crate::history::{PartitionHistory, content};
use crate::sim::Sim;

/// What a partition may have forgotten of its producers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    losses: u64,
    start: i64,
}

impl Known {
    /// As of now.
    #[must_use]
    pub fn of(sim: &Sim, partition: Option<TopicPartition>) -> Self {
        let Some(partition) = partition else { return Self::default() };
        let mut history = sim.history.borrow_mut();
        let known = history.of(partition);
        Self { losses: known.losses, start: known.log_start }
    }
}

/// A producer that is refused.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// Its id.
    pub id: i64,
    /// Whether a batch of an earlier window was acknowledged.
    pub established: bool,
    /// What the partition had lost when it began.
    pub since: Known,
}

fn is_stored(known: &PartitionHistory, batch: &Bytes) -> bool {
    let content = content(batch);
    known.stored.values().any(|stored| stored.content == content)
}

/// A producer is told that `batch`, the first of `window` that it has not heard of, is out of order. A partition that knows the producer
/// takes its next batch; one that does not takes any batch first, and refuses those before it from then on. So the refused batch is not
/// stored and a later one of the window is, unless records were lost as the durability allows.
pub fn out_of_order(sim: &Sim, partition: TopicPartition, refused: &Refused, batch: &Bytes, window: &[Bytes]) {
    let mut history = sim.history.borrow_mut();
    let known = history.of(partition);
    if known.losses > refused.since.losses || known.doomed {
        return;
    }
    let id = refused.id;
    let place = window.iter().position(|one| one == batch).unwrap_or(0);
    // It may only be unknown before its first batch, or when its records have gone from the log's start. What came before in the window
    // was acknowledged.
    let may_be_unknown = !refused.established && place == 0 || known.log_start > refused.since.start;
    sim.require(may_be_unknown, "T6", || {
        format!("{partition:?}: producer {id} is known, and the first batch it has not heard of is out of order")
    });
    if known.log_start > refused.since.start || sim.swarm.nodes > 1 {
        // What a leader had taken of the window may have gone with its leadership.
        return;
    }
    sim.require(!is_stored(known, batch), "T6", || {
        format!("{partition:?}: a batch of producer {id} is stored and out of order")
    });
    let later = window.iter().skip(place + 1).any(|later| is_stored(known, later));
    sim.require(later, "T6", || {
        format!("{partition:?}: a batch of producer {id} is out of order, and no later one is stored")
    });
}
