//! How a node's replicas reach other nodes and the controller. A node implements it over its transport, a test in memory.
//! Invariant: nothing here blocks, and whoever asks waits no longer than its own deadline: an answer that has not come by then is lost.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{NodeId, TopicPartition};

use super::replication::{Confirmed, FetchAnswer, FollowerFetch, ProposalOutcome};
use super::throttle::Throttle;
use crate::controller::{AlterPartition, ApiResult, Outcome, ReportLoss};

/// What a link answers, some time.
pub type LinkFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// This node, as others know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its id.
    pub node_id: NodeId,
    /// Its registration with the controller.
    pub broker_epoch: i64,
}

/// The fetches of one node's followers from one leader, in one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoalescedFetch {
    /// What each partition's follower wants, the one that has waited longest first.
    pub partitions: Vec<(TopicPartition, FollowerFetch)>,
    /// How long the leader may keep it while it has nothing new.
    pub max_wait: Duration,
    /// The most bytes of records in the answer, a first batch that is longer aside.
    pub max_bytes: usize,
}

/// An answer for each partition that the leader has something to say of.
pub type FetchAnswers = Vec<(TopicPartition, FetchAnswer)>;

/// The links of a node. Futures are dropped at `deadline`; an implementation may end them earlier. Between two nodes, or a node and the
/// controller, messages may be lost, repeated and reordered.
pub trait Links: Send + Sync + 'static {
    /// This node, as it is registered now.
    fn registration(&self) -> Registration;

    /// Sends a fetch to `leader`; none if it, or its answer, is lost.
    fn fetch(&self, leader: NodeId, fetch: CoalescedFetch, deadline: Mono) -> LinkFuture<Option<FetchAnswers>>;

    /// Tells `leader` of durable ends that have moved. What is lost is told by the next fetch.
    fn confirm(&self, leader: NodeId, confirmed: Vec<(TopicPartition, Confirmed)>, deadline: Mono) -> LinkFuture<()>;

    /// The throttle of this node's own replica of the partition, and its rate in bytes a second; none if it is in sync, or there is none.
    fn throttle(&self, _: &TopicPartition) -> Option<(Arc<Throttle>, u64)> {
        None
    }

    /// Asks the controller for another in-sync set. [`ProposalOutcome::Refused`] only if the controller in office has refused it; whatever
    /// else has happened is [`ProposalOutcome::Unknown`], as it may be committed later. See [`outcome_of`].
    fn propose(&self, proposal: AlterPartition, deadline: Mono) -> LinkFuture<ProposalOutcome>;

    /// Tells the controller of a loss. That it is known the metadata shows; until then it is told again.
    fn report_loss(&self, report: ReportLoss, deadline: Mono) -> LinkFuture<()>;
}

/// How a proposal ended, by the controller's answer.
#[must_use]
pub const fn outcome_of(answer: &ApiResult<Outcome>) -> ProposalOutcome {
    match answer {
        Ok(_) => ProposalOutcome::Committed,
        Err(refused) => match refused.error {
            // What a controller in office answers once all that the refusal rests on is committed.
            error @ (ErrorCode::FencedLeaderEpoch
            | ErrorCode::InvalidUpdateVersion
            | ErrorCode::InvalidRequest
            | ErrorCode::IneligibleReplica
            | ErrorCode::StaleBrokerEpoch
            | ErrorCode::BrokerIdNotRegistered
            | ErrorCode::UnknownTopicId
            | ErrorCode::UnknownTopicOrPartition) => ProposalOutcome::Refused(error),
            _ => ProposalOutcome::Unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_controller_in_office_says_is_a_refusal() {
        let refused = |error: ErrorCode| outcome_of(&Err(error.into()));
        let stale = ErrorCode::InvalidUpdateVersion;
        assert_eq!(refused(stale), ProposalOutcome::Refused(stale));
        for error in [ErrorCode::NotController, ErrorCode::RequestTimedOut, ErrorCode::UnknownServerError] {
            assert_eq!(refused(error), ProposalOutcome::Unknown, "{error:?}");
        }
        assert_eq!(outcome_of(&Ok(Outcome::AlterPartition { partition_epoch: 3 })), ProposalOutcome::Committed);
    }
}
