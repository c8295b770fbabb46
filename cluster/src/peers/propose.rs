//! A proposal that is forwarded to the controller, and how it ended.

use madang_protocol::error_code::ErrorCode;
use madang_protocol::node::{NodeRequest, Tag};
use madang_protocol::node_message;
use madang_protocol::types::NodeId;
use speedy::{Readable, Writable};

use crate::controller::{AlterPartition, ApiError, ApiResult, Outcome, Proposal, RegisterBroker, ReportLoss};
use crate::replica::replication::ProposalOutcome;

node_message! {
    /// Something to change, for the controller.
    pub struct Propose = Tag::Propose {
        /// What.
        proposal: Proposal,
    }
}

impl NodeRequest for Propose {
    type Answer = ProposeAnswer;
}

impl Propose {
    /// Whether `peer` may propose it: what a broker says of itself, it says itself.
    #[must_use]
    pub fn may_come_from(&self, peer: NodeId) -> bool {
        match &self.proposal {
            Proposal::RegisterBroker(RegisterBroker { node_id, .. })
            | Proposal::AllocateProducerIds { node_id, .. }
            | Proposal::UnfenceBroker { node_id, .. }
            | Proposal::GiveUpReplicas { node_id, .. }
            | Proposal::AlterPartition(AlterPartition { node_id, .. })
            | Proposal::ReportLoss(ReportLoss { node_id, .. }) => *node_id == peer,
            Proposal::AlterPartitions(all) => all.iter().all(|one| one.node_id == peer),
            Proposal::CreateTopics { .. }
            | Proposal::DeleteTopics(_)
            | Proposal::CreatePartitions { .. }
            | Proposal::IncrementalAlterConfigs { .. }
            | Proposal::AlterConfigs { .. }
            | Proposal::CreateInternalTopic(_)
            | Proposal::FenceBroker { .. }
            | Proposal::ElectPreferredLeaders(_)
            | Proposal::ElectLeaders { .. }
            | Proposal::AlterReassignments { .. }
            | Proposal::UnregisterBroker(_)
            | Proposal::DescribeQuorum
            // Any member may hand it on: whoever is reached there has to show the certificate of that node.
            | Proposal::JoinQuorum { .. }
            | Proposal::ChangeQuorum(_) => true,
        }
    }
}

/// How a proposal ended, as far as the node that was asked knows.
#[derive(Clone, Debug, PartialEq, Eq, Readable, Writable)]
#[speedy(tag_type = u16)]
pub enum ProposeResult {
    /// It is committed.
    #[speedy(tag = 0)]
    Committed(Outcome),
    /// It was refused: this copy of it will never be committed.
    #[speedy(tag = 1)]
    Refused(ApiError),
    /// The node is not the controller and has proposed nothing: this copy of it will never be committed.
    #[speedy(tag = 2)]
    NotController {
        /// Who is, if that is known.
        leader: Option<NodeId>,
    },
    /// It may be committed, now or later.
    #[speedy(tag = 3)]
    Unknown,
}

node_message! {
    /// The answer to a proposal.
    pub struct ProposeAnswer = Tag::ProposeAnswer {
        /// How it ended.
        result: ProposeResult,
        /// Index of the last entry of the metadata log that the result rests on: whoever asked applies it before the result counts there. 0 where
        /// there is none.
        metadata_index: u64,
    }
}

impl From<ApiResult<Outcome>> for ProposeResult {
    /// What a controller that took the proposal has answered. Of a leadership that ends, and of a wait that is given up, nothing is known;
    /// [`Self::NotController`] is for who has not asked it.
    fn from(result: ApiResult<Outcome>) -> Self {
        match result {
            Ok(outcome) => Self::Committed(outcome),
            Err(ApiError { error: ErrorCode::NotController | ErrorCode::RequestTimedOut, .. }) => Self::Unknown,
            Err(refused) => Self::Refused(refused),
        }
    }
}

impl ProposeResult {
    /// What to tell a client. `NOT_CONTROLLER` leaves open whether the change will be made.
    ///
    /// # Errors
    /// Everything but a commit.
    pub fn into_result(self) -> ApiResult<Outcome> {
        match self {
            Self::Committed(outcome) => Ok(outcome),
            Self::Refused(refused) => Err(refused),
            Self::NotController { .. } | Self::Unknown => Err(ErrorCode::NotController.into()),
        }
    }

    /// What to tell the replica that proposed another in-sync set.
    #[must_use]
    pub const fn proposal_outcome(&self) -> ProposalOutcome {
        match self {
            Self::Committed(_) => ProposalOutcome::Committed,
            Self::Refused(refused) => ProposalOutcome::Refused(refused.error),
            Self::NotController { .. } => ProposalOutcome::Refused(ErrorCode::NotController),
            Self::Unknown => ProposalOutcome::Unknown,
        }
    }
}
