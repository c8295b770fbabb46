//! Who votes on the metadata is changed here: the admin listener's page `/quorum`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use madang_actors::host::clock;
use madang_cluster::controller::{ApiError, MemberChange, MemberRole, Proposal};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::NodeId;
use serde::Deserialize;
use serde_json::json;

use crate::admin::AdminState;
use crate::peers::propose;

/// How long the leader of the quorum may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// What is asked: the nodes that are to be voters, those that are to copy the log and not vote, and those that are to be neither.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Change {
    voters: Vec<i32>,
    observers: Vec<i32>,
    gone: Vec<i32>,
}

impl Change {
    fn members(&self) -> Vec<MemberChange> {
        let all = [
            (&self.voters, MemberRole::Voter),
            (&self.observers, MemberRole::Observer),
            (&self.gone, MemberRole::Gone),
        ];
        let named = all.into_iter().flat_map(|(nodes, role)| nodes.iter().map(move |node| (*node, role)));
        named.map(|(node, role)| MemberChange { node_id: NodeId(node), role }).collect()
    }
}

/// Changes them in one step. Status 200 once that is committed; 409 with Kafka's name of the error if it is refused or open.
pub(crate) async fn change(State(state): State<AdminState>, Json(asked): Json<Change>) -> Response {
    let node = &state.node;
    let changed = match &node.peers {
        Some(peers) => propose(node, peers, Proposal::ChangeQuorum(asked.members()), clock::now() + PATIENCE).await,
        None => Err(ApiError::new(
            ErrorCode::InvalidRequest,
            "this node is alone: give it madang.node.listener and a certificate",
        )),
    };
    match changed {
        Ok(_) => Json(json!({})).into_response(),
        Err(refused) => {
            let message = refused.message.as_deref().unwrap_or_default();
            (StatusCode::CONFLICT, Json(json!({ "error": format!("{:?}", refused.error), "message": message })))
                .into_response()
        }
    }
}
