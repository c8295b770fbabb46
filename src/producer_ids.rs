//! Producer ids from blocks that the controller has granted to this node.
//! Invariant: an id is given out once, ever; the rest of a block is lost with the process.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use madang_actors::clock::Mono;
use madang_cluster::controller::{Outcome, Proposal};
use madang_protocol::error_code::ErrorCode;

use crate::env::Env;

/// What is left of the current block.
#[derive(Debug, Default)]
pub struct ProducerIds {
    left: Mutex<Range<i64>>,
}

impl ProducerIds {
    fn take(&self) -> Option<i64> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// Takes a new block into use and one id from it. A block that another request brought meanwhile is used up first.
    fn refill(&self, block: Range<i64>) -> Option<i64> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.is_empty() {
            *left = block;
        }
        left.next()
    }
}

/// The next id, from a new block if need be.
///
/// # Errors
/// Those of the way to the controller.
pub async fn next<E: Env>(env: &E, deadline: Mono) -> Result<i64, ErrorCode> {
    if let Some(id) = env.producer_ids().take() {
        return Ok(id);
    }
    let proposal = Proposal::AllocateProducerIds { node_id: env.node_id(), broker_epoch: env.broker_epoch() };
    match env.propose(proposal, deadline).await.map_err(|error| error.error)? {
        Outcome::ProducerIds { first, count } => {
            env.producer_ids().refill(first..first.saturating_add(count)).ok_or(ErrorCode::CoordinatorLoadInProgress)
        }
        _ => Err(ErrorCode::UnknownServerError),
    }
}

#[cfg(test)]
mod tests {
    use super::ProducerIds;

    #[test]
    fn ids_are_given_out_once_and_a_second_block_waits_for_the_first_to_end() {
        let ids = ProducerIds::default();
        assert_eq!(ids.take(), None);
        assert_eq!(ids.refill(10..12), Some(10));
        assert_eq!(ids.refill(20..22), Some(11));
        assert_eq!(ids.take(), None);
    }
}
