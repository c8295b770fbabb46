//! The way of a proposal to the controller in office, wherever that is.
//! Invariant: what may have been proposed is not proposed again for a client: the answer says that it is open.

use std::sync::Arc;
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_actors::host::clock;
use madang_actors::reply::Reply;
use madang_cluster::controller::actor::ControllerMessage;
use madang_cluster::controller::{ApiResult, Outcome, Proposal};
use madang_cluster::peers::{Propose, ProposeAnswer, ProposeResult};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::payload::Payload;
use madang_protocol::types::NodeId;

use crate::node_env::Node;
use crate::peers::{CONTROL, CallFailed, Peers};

/// How soon a controller is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long one try of what is proposed until it is decided may take.
const ONE_TRY: Duration = Duration::from_secs(9);

/// What came of one try.
pub(super) enum Tried {
    /// An answer, and what of the metadata it rests on.
    Answered(ProposeResult, u64),
    /// Nothing was proposed.
    NotDone,
}

/// Proposes once, as soon as there is a controller to propose to, and answers when this node has applied what was decided.
///
/// # Errors
/// The refusal; `NOT_CONTROLLER` if it is open what happened; `REQUEST_TIMED_OUT`.
pub(crate) async fn propose(node: &Arc<Node>, peers: &Peers, proposal: Proposal, deadline: Mono) -> ApiResult<Outcome> {
    let proposed = async {
        loop {
            if let Tried::Answered(result, index) = attempt(node, peers, &proposal, deadline).await {
                let mut applied = node.applied.subscribe();
                // Ends with the node.
                drop(applied.wait_for(|applied| *applied >= index).await);
                return result.into_result();
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    clock::until(deadline, proposed).await.unwrap_or_else(|| Err(ErrorCode::RequestTimedOut.into()))
}

/// Proposes again and again what may be decided twice, such as a registration, until it is decided. The node may not apply anything yet.
///
/// # Errors
/// The refusal.
pub(crate) async fn propose_until_decided(node: &Arc<Node>, peers: &Peers, proposal: Proposal) -> ApiResult<Outcome> {
    loop {
        let deadline = clock::now() + ONE_TRY;
        match attempt(node, peers, &proposal, deadline).await {
            Tried::Answered(ProposeResult::Committed(outcome), _) => return Ok(outcome),
            Tried::Answered(ProposeResult::Refused(refused), _) => return Err(refused),
            Tried::Answered(ProposeResult::NotController { .. } | ProposeResult::Unknown, _) | Tried::NotDone => {}
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn attempt(node: &Arc<Node>, peers: &Peers, proposal: &Proposal, deadline: Mono) -> Tried {
    match peers.leader() {
        None => Tried::NotDone,
        Some(leader) if leader == node.config.node_id => here(node, peers, proposal.clone(), deadline).await,
        Some(leader) => there(peers, leader, proposal.clone()).await,
    }
}

pub(super) async fn here(node: &Arc<Node>, peers: &Peers, proposal: Proposal, deadline: Mono) -> Tried {
    let (reply, answer) = Reply::new(|| Err(ErrorCode::NotController.into()));
    if node.controller.send(ControllerMessage::Propose { proposal, reply }, deadline).await.is_err() {
        return Tried::NotDone;
    }
    match clock::until(deadline, answer).await {
        // What the result rests on was committed before the answer came.
        Some(result) => Tried::Answered(result.into(), peers.newest_committed()),
        None => Tried::Answered(ProposeResult::Unknown, 0),
    }
}

pub(super) async fn there(peers: &Peers, leader: NodeId, proposal: Proposal) -> Tried {
    let called = peers.control.call(leader, CONTROL, &Propose { proposal }, Payload::default()).await;
    match called {
        Ok((ProposeAnswer { result: ProposeResult::NotController { .. }, .. }, _)) | Err(CallFailed::NotDone) => {
            Tried::NotDone
        }
        Ok((ProposeAnswer { result, metadata_index }, _)) => Tried::Answered(result, metadata_index),
        Err(CallFailed::Lost) => Tried::Answered(ProposeResult::Unknown, 0),
    }
}
