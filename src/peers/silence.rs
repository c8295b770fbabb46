//! What a node does when it hears nothing: of the controller, it sends its clients elsewhere; of a follower, it goes on without.
//! Invariant: a node that may no longer lead keeps no client waiting for longer than a session and [`TURN`], and one that was itself asleep accuses nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_actors::host::clock;
use madang_cluster::replica::ReplicaMessage;
use madang_protocol::types::{LeaderEpoch, NodeId};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::node_env::Node;
use crate::peers::Peers;
use crate::replicas::Held;

/// How long a node lets its clients wait when its lease is over, with no answer. The controller has others lead in the same moment if it was a session, and
/// whoever asks another node before that has applied it is told of this one as before: librdkafka believes it, and asks again after a second.
const TURN: Duration = Duration::from_millis(100);

/// When each node was last heard of by what it asked of this one.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<BTreeMap<NodeId, Mono>>);

impl Heard {
    /// The node has asked something. At most as many nodes as have certificates do.
    pub(super) fn note(&self, node: NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node, clock::now());
    }

    fn last(&self, node: NodeId) -> Option<Mono> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }
}

/// Until when no controller has had another node lead what this one leads, as far as the node can know: its last heartbeat that was answered was
/// sent a session before.
#[derive(Debug)]
pub(crate) struct Lease(watch::Sender<Mono>);

impl Default for Lease {
    fn default() -> Self {
        Self(watch::Sender::new(Mono::ZERO))
    }
}

impl Lease {
    /// It ends at `until`.
    pub(super) fn ends(&self, until: Mono) {
        self.0.send_replace(until);
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        *self.0.borrow() <= clock::now()
    }

    /// From when on clients are sent away: others know by then who leads instead.
    pub(crate) fn handed_over_at(&self) -> Mono {
        *self.0.borrow() + TURN
    }
}

/// The replicas of partitions that other nodes hold as well.
fn shared(node: &Node) -> impl Iterator<Item = Arc<Held>> + use<> {
    node.replicas.all().into_iter().filter(|held| held.handle.shared().assignment().is_some())
}

/// Cuts the node off from its clients while its lease is over, and sends those away who wait, from [`TURN`] after its end on.
pub(super) async fn follow_controller(node: &Node, session: Duration) {
    let (mut cut_off, mut lease) = (false, node.lease.0.subscribe());
    loop {
        let (end, now) = (*lease.borrow_and_update(), clock::now());
        let (is_over, handed_over) = (end <= now, end + TURN <= now);
        if is_over && !cut_off {
            tracing::warn!("no controller for a session: clients are sent elsewhere until one answers");
        } else if cut_off && !is_over {
            tracing::info!("the controller answers again");
        }
        if is_over || cut_off {
            // A replica that starts meanwhile is found the next time.
            shared(node).for_each(|held| held.handle.shared().set_cut_off(is_over));
        }
        if handed_over {
            send_elsewhere(node);
        }
        cut_off = is_over;
        let next = if is_over { end + TURN } else { end };
        let wait = if handed_over { session / 5 } else { next.saturating_since(now) };
        // Its end is noticed by the time that it ends at.
        drop(timeout(wait, lease.changed()).await);
    }
}

/// Ends the leaderships here: whoever waits is told to ask elsewhere.
fn send_elsewhere(node: &Node) {
    for held in shared(node) {
        if held.handle.led_snapshot(LeaderEpoch::NONE).is_ok() {
            // One that has no room is asked again the next time.
            drop(held.handle.actor().try_send(ReplicaMessage::CutOff));
        }
    }
}

/// Has the leaders here go on without followers that have not asked for anything for `session`.
pub(super) async fn follow_followers(node: &Node, peers: &Peers, session: Duration) {
    let interval = session / 5;
    let (mut before, mut awake_since) = (clock::now(), clock::now());
    loop {
        sleep(interval).await;
        let now = clock::now();
        if now.saturating_since(before) > interval * 2 {
            // Whoever was asleep has not listened.
            awake_since = now;
        }
        before = now;
        let silent = |node: &NodeId| {
            let since = peers.heard.last(*node).map_or(awake_since, |heard| heard.max(awake_since));
            now.saturating_since(since) >= session
        };
        let silent: Vec<NodeId> = peers.others(&node.image.load()).filter(silent).collect();
        if !silent.is_empty() {
            tell_silence(node, &silent, session);
        }
    }
}

fn tell_silence(node: &Node, silent: &[NodeId], session: Duration) {
    let own = node.config.node_id;
    for held in shared(node) {
        let Some(assignment) = held.handle.shared().assignment() else { continue };
        if assignment.leader != Some(own) {
            continue;
        }
        for &node_id in silent.iter().filter(|node| assignment.in_sync_replicas.contains(node)) {
            // One that has no room is told the next time.
            drop(held.handle.actor().try_send(ReplicaMessage::Silent { node_id, session }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_kept_until_others_can_tell_them_who_leads() {
        let lease = Lease::default();
        lease.ends(clock::now());
        assert!(lease.is_over() && lease.handed_over_at() > *lease.0.borrow());
    }
}
