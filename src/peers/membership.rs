//! This node's place among the members of the metadata quorum: it asks to be counted, and says where it is reached.
//! Invariant: whichever member it knows may be asked; a node that is counted at this address and hears a leader asks for nothing.

use std::sync::Arc;
use std::time::Duration;

use madang_cluster::controller::Proposal;
use madang_cluster::metadata::MetadataImage;
use madang_cluster::peers::ProposeResult;
use madang_protocol::types::NodeId;
use tokio::time::{sleep, timeout};

use crate::node_env::Node;
use crate::peers::Peers;
use crate::peers::propose::{Tried, here, there};

/// How soon it looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long one member may take to answer.
const ONE_TRY: Duration = Duration::from_secs(2);

/// Runs until it is dropped.
pub(super) async fn keep(node: &Arc<Node>, peers: &Peers) {
    let (node_id, address) = (node.config.node_id, peers.control_address());
    let asked = Proposal::JoinQuorum { node_id, address: address.clone() };
    loop {
        let image = node.image.load_full();
        let named = image.quorum_addresses().get(&node_id).is_some_and(|known| **known == *address);
        // One that was sent away while it did not listen still finds its name in its own metadata.
        if !named || peers.leader().is_none() {
            ask(node, peers, &image, &asked).await;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Asks the leader first, then whoever is or was a member, until one has seen to it.
async fn ask(node: &Arc<Node>, peers: &Peers, image: &MetadataImage, asked: &Proposal) {
    let own = node.config.node_id;
    let members = image.quorum_addresses().keys().copied().chain(peers.first_voters());
    let mut known: Vec<NodeId> = peers.leader().into_iter().collect();
    for member in members.filter(|member| *member != own) {
        if !known.contains(&member) {
            known.push(member);
        }
    }
    for member in known {
        let tried = async {
            if member == own {
                here(node, peers, asked.clone(), madang_actors::host::clock::now() + ONE_TRY).await
            } else {
                there(peers, member, asked.clone()).await
            }
        };
        match timeout(ONE_TRY, tried).await {
            Ok(Tried::Answered(ProposeResult::Committed(_), _)) => return,
            Ok(Tried::Answered(ProposeResult::Refused(refused), _)) => {
                tracing::warn!(%member, ?refused, "this node is not counted among the members of the metadata quorum");
                return;
            }
            _ => {}
        }
    }
}
