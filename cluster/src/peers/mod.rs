//! What nodes say to each other, from and to what the cores speak of. Pure.
//! Invariant: who has sent something is what its certificate says, whatever its fields do; an end that is left open is never taken for a refusal.

mod encoding;
mod propose;
mod raft;
mod replication;
#[cfg(test)]
mod tests;

pub use self::propose::{Propose, ProposeAnswer, ProposeResult};
pub use self::raft::{raft_message, raft_payload};
pub use self::replication::{FetchLimits, confirm, confirmed, fetch, fetch_answer, fetch_answers, fetches};
