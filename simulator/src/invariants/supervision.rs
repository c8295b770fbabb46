//! U1, U3, U5: exactly one answer, bounded queues, nothing outlives its owner.

use std::time::Duration;

use madang_actors::mailbox::Depth;

use crate::sim::Sim;

/// No request of the simulated clients may take longer than this while its connection lives.
pub const LONGEST_REQUEST: Duration = Duration::from_secs(60);

/// U1: a request's time is up and there is no answer.
pub fn unanswered(sim: &Sim, what: &str) {
    sim.violate("U1", format!("{what} was accepted and never answered"));
}

/// U3: a mailbox is within its bounds.
pub fn bounded(sim: &Sim, what: &str, depth: Depth, items: usize) {
    sim.require(depth.items <= items, "U3", || format!("the mailbox of {what} holds {} of {items}", depth.items));
}

/// U5: a closed mailbox holds nothing.
pub fn closed(sim: &Sim, what: &str, depth: Depth) {
    sim.require(depth.items == 0, "U5", || format!("the closed mailbox of {what} holds {}", depth.items));
}
