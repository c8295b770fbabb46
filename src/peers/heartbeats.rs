//! This node's broker tells the controller in office that it lives, asks to serve again if it was fenced, and draws the conclusions when nobody
//! answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use madang_actors::host::{TaskContext, clock};
use madang_actors::reply::Reply;
use madang_cluster::controller::actor::ControllerMessage;
use madang_cluster::controller::{LEADER_LEASE, Outcome, Proposal};
use madang_protocol::ErrorCode;
use madang_protocol::node::{Heartbeat, HeartbeatAnswer, HeartbeatResult};
use madang_protocol::payload::Payload;
use madang_protocol::types::NodeId;
use tokio::time::{sleep, timeout};

use crate::applier::Phase;
use crate::node_env::Node;
use crate::peers::{CONTROL, Peers, given_up, gone, membership, propose_until_decided, silence};

/// Heartbeats in a session.
const IN_A_SESSION: u32 = 5;
/// What the process exits with when the cluster knows another registration of its node.
pub(crate) const EXIT_REPLACED: i32 = 73;

/// Runs until the supervisor stops it.
pub(crate) async fn run(node: Arc<Node>, peers: Arc<Peers>, context: TaskContext) {
    let session = node.config.broker_session_timeout;
    let interval = session / IN_A_SESSION;
    node.lease.ends(clock::now() + session);
    // Side by side: none of them waits for a controller that does not answer another.
    tokio::select! {
        () = tell_outer(&node, interval) => {}
        () = tell_controller(&node, &peers, interval) => {}
        () = silence::follow_controller(&node, session) => {}
        () = silence::follow_followers(&node, &peers, session) => {}
        () = given_up::tell(&node, &peers, interval) => {}
        () = membership::keep(&node, &peers) => {}
        () = gone::watch(&node, &peers) => {}
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
    let (session, own, mut leaders) = (interval * IN_A_SESSION, Some(node.config.node_id), peers.leaders());
    loop {
        let before = *leaders.borrow_and_update();
        // Another controller is told at once. The one here has to be sure of itself more often.
        let pause = if peers.leader() == own { interval.min(LEADER_LEASE / 3) } else { interval };
        drop(timeout(pause, leaders.changed()).await);
        if before == own && peers.leader() != own {
            // Whoever is elected now fences this broker first.
            node.lease.ends(clock::now());
        }
        let (now, ready) = (clock::now(), *node.phase.borrow() == Phase::Ready);
        // Whoever is elected in this node's place fences its broker at once, and gives every other one a session.
        let leader = peers.leader();
        let lease = if leader == own { LEADER_LEASE.min(session) } else { session };
        match is_fenced(node, peers, leader, interval).await {
            // One that is frozen on its way may be fenced again before it has heard that it was not.
            Some(true) if ready || node.noted.load(Ordering::Acquire) => {
                let (node_id, broker_epoch) = (node.config.node_id, node.broker_epoch());
                let asked = Proposal::UnfenceBroker { node_id, broker_epoch };
                // Asked again at the next heartbeat.
                drop(timeout(session, propose_until_decided(node, peers, asked)).await);
            }
            Some(_) => node.lease.ends(now + lease),
            // A node that does not serve yet has nobody to send elsewhere.
            None if !ready => node.lease.ends(now + session),
            None => {}
        }
    }
}

/// Tells the controller, and answers whether it says that the broker is fenced; none if it says nothing.
async fn is_fenced(node: &Arc<Node>, peers: &Peers, leader: Option<NodeId>, interval: Duration) -> Option<bool> {
    let (own, broker_epoch) = (node.config.node_id, node.broker_epoch());
    match leader? {
        _ if broker_epoch < 0 => Some(false),
        leader if leader == own => tell_own(node, broker_epoch, interval).await,
        leader => tell(node, peers, leader, broker_epoch, interval).await,
    }
}

/// Asks the controller here, which asks a majority whether it still leads.
async fn tell_own(node: &Node, broker_epoch: i64, interval: Duration) -> Option<bool> {
    let deadline = clock::now() + interval * 2;
    let (reply, answer) = Reply::new(|| Err(ErrorCode::NotController.into()));
    let message = ControllerMessage::Heartbeat { node_id: node.config.node_id, broker_epoch, reply };
    node.controller.send(message, deadline).await.ok()?;
    match clock::until(deadline, answer).await? {
        Ok(Outcome::Fenced(fenced)) => Some(fenced),
        _ => None,
    }
}

async fn tell(node: &Arc<Node>, peers: &Peers, leader: NodeId, broker_epoch: i64, interval: Duration) -> Option<bool> {
    let heartbeat = Heartbeat {
        node_id: node.config.node_id,
        broker_epoch,
        metadata_index: node.image.load().version(),
        offline_log_dirs: Vec::new(),
    };
    let called = peers.control.call(leader, CONTROL, &heartbeat, Payload::default());
    // Short of a session by far: another controller may wait for the next one.
    match timeout(interval * 2, called).await {
        Ok(Ok((HeartbeatAnswer { result: HeartbeatResult::Heard { fenced } }, _))) => Some(fenced),
        Ok(Ok((HeartbeatAnswer { result: HeartbeatResult::Refused(error) }, _))) => {
            tracing::error!(
                ?error,
                broker_epoch,
                "the cluster knows another registration of this node; the process ends"
            );
            std::process::exit(EXIT_REPLACED)
        }
        _ => None,
    }
}
