//! This node's broker tells the controller in office that it lives, and asks to serve again if it was fenced.

use std::sync::Arc;
use std::time::Duration;

use madang_actors::host::TaskContext;
use madang_cluster::controller::Proposal;
use madang_protocol::node::{Heartbeat, HeartbeatAnswer, HeartbeatResult};
use madang_protocol::payload::Payload;
use madang_protocol::types::NodeId;
use tokio::time::{sleep, timeout};

use crate::applier::Phase;
use crate::node_env::Node;
use crate::peers::{CONTROL, Peers, propose_until_decided};

/// Heartbeats in a session.
const IN_A_SESSION: u32 = 5;
/// What the process exits with when the cluster knows another registration of its node.
const EXIT_REPLACED: i32 = 73;

/// Runs until the supervisor stops it.
pub(crate) async fn run(node: Arc<Node>, peers: Arc<Peers>, context: TaskContext) {
    let interval = node.config.broker_session_timeout / IN_A_SESSION;
    // Side by side: whoever runs this process need not wait for a controller that does not answer.
    tokio::select! {
        () = tell_outer(&node, interval) => {}
        () = tell_controller(&node, &peers, interval) => {}
        () = context.stop => {}
    }
}

async fn tell_outer(node: &Node, interval: Duration) {
    loop {
        if let Some(outer) = &node.outer {
            outer.lives();
        }
        sleep(interval).await;
    }
}

async fn tell_controller(node: &Arc<Node>, peers: &Peers, interval: Duration) {
    loop {
        sleep(interval).await;
        if is_fenced(node, peers).await && *node.phase.borrow() == Phase::Ready {
            let (node_id, broker_epoch) = (node.config.node_id, node.broker_epoch());
            let asked = Proposal::UnfenceBroker { node_id, broker_epoch };
            // Asked again at the next heartbeat.
            drop(timeout(interval * IN_A_SESSION, propose_until_decided(node, peers, asked)).await);
        }
    }
}

/// Tells the controller, and answers whether it says that the broker is fenced.
async fn is_fenced(node: &Arc<Node>, peers: &Peers) -> bool {
    let (own, broker_epoch) = (node.config.node_id, node.broker_epoch());
    match peers.leader() {
        Some(leader) if leader != own && broker_epoch >= 0 => tell(node, peers, leader, broker_epoch).await,
        Some(_) => node.image.load().broker(own).is_some_and(|broker| broker.fenced),
        None => false,
    }
}

async fn tell(node: &Arc<Node>, peers: &Peers, leader: NodeId, broker_epoch: i64) -> bool {
    let heartbeat = Heartbeat {
        node_id: node.config.node_id,
        broker_epoch,
        metadata_index: node.image.load().version(),
        offline_log_dirs: Vec::new(),
    };
    let called = peers.control.call(leader, CONTROL, &heartbeat, Payload::default());
    match timeout(node.config.broker_session_timeout, called).await {
        Ok(Ok((HeartbeatAnswer { result: HeartbeatResult::Heard { fenced } }, _))) => fenced,
        Ok(Ok((HeartbeatAnswer { result: HeartbeatResult::Refused(error) }, _))) => {
            tracing::error!(
                ?error,
                broker_epoch,
                "the cluster knows another registration of this node; the process ends"
            );
            std::process::exit(EXIT_REPLACED)
        }
        _ => false,
    }
}
