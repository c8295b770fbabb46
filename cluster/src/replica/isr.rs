//! The in-sync set as a leader knows it: what is committed, and what may be.
//! Invariant: the maximal set holds every node that the controller may believe to be in sync at this partition epoch or the next; a proposal
//! leaves it only when it is known never to be committed, or when the metadata has moved on.

use std::collections::BTreeSet;

use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::NodeId;
use madang_storage::mutants::mutant;

use super::replication::ProposalOutcome;

/// Where the proposal in flight is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Flight {
    /// There is none.
    None,
    /// It was sent.
    Sent(u64),
    /// The controller is known to have moved on; the metadata has to arrive.
    MovedOn,
}

/// The in-sync set of one leadership.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct InSync {
    committed: BTreeSet<NodeId>,
    partition_epoch: i32,
    /// Of the proposal in flight.
    proposed: BTreeSet<NodeId>,
    /// Of all earlier proposals of this partition epoch that may still be committed.
    in_doubt: BTreeSet<NodeId>,
    flight: Flight,
    next_number: u64,
}

impl InSync {
    /// The committed set; `in_doubt` is what an earlier life may have proposed at the same partition epoch.
    pub(super) const fn new(
        committed: BTreeSet<NodeId>,
        partition_epoch: i32,
        in_doubt: BTreeSet<NodeId>,
        next_number: u64,
    ) -> Self {
        Self { committed, partition_epoch, proposed: BTreeSet::new(), in_doubt, flight: Flight::None, next_number }
    }

    pub(super) const fn committed(&self) -> &BTreeSet<NodeId> {
        &self.committed
    }

    pub(super) const fn partition_epoch(&self) -> i32 {
        self.partition_epoch
    }

    /// What the high watermark has to wait for.
    pub(super) fn maximal(&self) -> BTreeSet<NodeId> {
        if mutant(4) {
            return self.committed.clone();
        }
        if mutant(31) && !self.proposed.is_empty() {
            return self.proposed.clone();
        }
        self.committed.iter().chain(&self.proposed).chain(&self.in_doubt).copied().collect()
    }

    /// Whether the controller may hold another set than the committed one, without a proposal on its way that would tell.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.flight == Flight::None && !self.in_doubt.is_empty()
    }

    /// Whether a proposal may be made now: one at a time.
    pub(super) fn may_propose(&self) -> bool {
        self.flight == Flight::None
    }

    /// Notes a proposal and answers its number. It counts from now on, before it is sent.
    pub(super) fn propose(&mut self, members: BTreeSet<NodeId>) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.proposed = members;
        self.flight = Flight::Sent(number);
        number
    }

    /// Takes a proposal's outcome; answers whether it was the one in flight.
    pub(super) fn ended(&mut self, number: u64, outcome: ProposalOutcome) -> bool {
        if self.flight != Flight::Sent(number) {
            return false;
        }
        self.flight = match outcome {
            // The metadata says what is in force. A controller that has moved on may have committed an earlier proposal.
            ProposalOutcome::Committed
            | ProposalOutcome::Refused(ErrorCode::InvalidUpdateVersion | ErrorCode::FencedLeaderEpoch) => {
                Flight::MovedOn
            }
            ProposalOutcome::Refused(error) if is_definite(error) => {
                self.proposed.clear();
                Flight::None
            }
            ProposalOutcome::Refused(_) | ProposalOutcome::Unknown => {
                self.in_doubt.append(&mut self.proposed);
                Flight::None
            }
        };
        true
    }

    /// The metadata has a newer state: whatever was proposed to an older one is decided.
    pub(super) fn committed_is(&mut self, committed: BTreeSet<NodeId>, partition_epoch: i32) {
        if partition_epoch <= self.partition_epoch {
            return;
        }
        (self.committed, self.partition_epoch) = (committed, partition_epoch);
        self.proposed.clear();
        self.in_doubt.clear();
        self.flight = Flight::None;
    }
}

/// Whether no copy of the proposal, sent again, can be accepted later. A member that is ineligible now may be eligible when the next copy
/// arrives, and that moves no partition epoch.
const fn is_definite(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::InvalidRequest | ErrorCode::StaleBrokerEpoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(nodes: &[i32]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(NodeId).collect()
    }

    fn one_and_two() -> InSync {
        InSync::new(set(&[1, 2]), 5, BTreeSet::new(), 1)
    }

    #[test]
    fn a_proposal_counts_from_the_moment_it_is_made() {
        let mut isr = one_and_two();
        isr.propose(set(&[1, 2, 3]));
        assert_eq!((isr.maximal(), isr.may_propose()), (set(&[1, 2, 3]), false));
        assert_eq!(isr.committed(), &set(&[1, 2]));
    }

    #[test]
    fn a_shrunken_set_counts_only_when_the_metadata_says_so() {
        let mut isr = one_and_two();
        let number = isr.propose(set(&[1]));
        assert!(isr.ended(number, ProposalOutcome::Committed));
        assert_eq!((isr.maximal(), isr.may_propose()), (set(&[1, 2]), false));
        isr.committed_is(set(&[1]), 6);
        assert_eq!((isr.maximal(), isr.may_propose()), (set(&[1]), true));
    }

    #[test]
    fn a_refused_proposal_leaves_and_one_refused_as_stale_stays_until_the_metadata_tells() {
        let mut isr = one_and_two();
        let number = isr.propose(set(&[1, 2, 3]));
        isr.ended(number, ProposalOutcome::Refused(ErrorCode::InvalidRequest));
        assert_eq!((isr.maximal(), isr.may_propose()), (set(&[1, 2]), true));
        let number = isr.propose(set(&[1, 2, 3]));
        isr.ended(number, ProposalOutcome::Refused(ErrorCode::InvalidUpdateVersion));
        assert_eq!((isr.maximal(), isr.may_propose()), (set(&[1, 2, 3]), false));
        isr.committed_is(set(&[1, 2]), 6);
        assert_eq!(isr.maximal(), set(&[1, 2]));
    }

    #[test]
    fn a_member_that_was_ineligible_may_join_by_a_copy_that_comes_later() {
        let mut isr = one_and_two();
        let number = isr.propose(set(&[1, 2, 3]));
        isr.ended(number, ProposalOutcome::Refused(ErrorCode::IneligibleReplica));
        assert_eq!((isr.maximal(), isr.is_in_doubt()), (set(&[1, 2, 3]), true));
        isr.committed_is(set(&[1, 2, 3]), 6);
        assert!(!isr.is_in_doubt());
    }

    #[test]
    fn a_proposal_of_unknown_outcome_counts_until_the_partition_epoch_moves_whatever_a_later_one_is_answered() {
        let mut isr = one_and_two();
        let first = isr.propose(set(&[1, 2, 3]));
        isr.ended(first, ProposalOutcome::Unknown);
        assert!(isr.is_in_doubt());
        let second = isr.propose(set(&[1, 2]));
        isr.ended(second, ProposalOutcome::Refused(ErrorCode::InvalidRequest));
        assert_eq!(isr.maximal(), set(&[1, 2, 3]), "the first may still arrive");
        assert!(!isr.ended(first, ProposalOutcome::Committed), "a late answer of one that was given up says nothing");
        isr.committed_is(set(&[1, 2]), 5);
        assert_eq!(isr.maximal(), set(&[1, 2, 3]), "the same partition epoch says nothing new");
        isr.committed_is(set(&[1, 2]), 6);
        assert_eq!(isr.maximal(), set(&[1, 2]));
    }
}
