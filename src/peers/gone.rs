//! Which other nodes are gone, as a client of theirs notices it, long before anybody has fenced their registrations.
//! Invariant: a registration counts as gone for two sessions at most, after one of which it is fenced; the next one of its node does not. Meanwhile clients are told of
//! no leader there, and nothing else follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use madang_cluster::configs::QUIC_LISTENER;
use madang_cluster::metadata::{BrokerRegistration, MetadataImage};
use madang_protocol::types::NodeId;
use madang_transport::kafka::watch_listener;
use tokio::task::{AbortHandle, JoinSet};

use crate::node_env::Node;
use crate::peers::{NODE_ENDPOINT, Peers, host_port};

/// The nodes that are gone.
#[derive(Debug, Default)]
pub(crate) struct Gone(ArcSwap<BTreeSet<NodeId>>);

impl Gone {
    /// Those of now.
    pub(crate) fn nodes(&self) -> Arc<BTreeSet<NodeId>> {
        self.0.load_full()
    }

    fn note(&self, node: NodeId, gone: bool) {
        self.0.rcu(|before| {
            let mut nodes = BTreeSet::clone(before);
            if gone {
                nodes.insert(node)
            } else {
                nodes.remove(&node)
            };
            nodes
        });
    }
}

/// A registration's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    address: String,
    broker_epoch: i64,
}

/// Watches the listeners of the other nodes, as the metadata has them, until it is dropped.
pub(super) async fn watch(node: &Node, peers: &Peers) {
    let (mut applied, mut tasks) = (node.applied.subscribe(), JoinSet::new());
    let (renew, at_most) = (node.config.connections_max_idle / 2, node.config.broker_session_timeout * 2);
    // What another life of this task has noted, it would have taken back.
    peers.gone.0.store(Arc::default());
    let mut watched: BTreeMap<NodeId, (Watched, AbortHandle)> = BTreeMap::new();
    loop {
        let wanted = listeners(&node.image.load(), node.config.node_id);
        watched.retain(|other, (listener, task)| {
            let stays = wanted.get(other) == Some(listener);
            if !stays {
                task.abort();
                peers.gone.note(*other, false);
            }
            stays
        });
        for (other, listener) in wanted {
            watched.entry(other).or_insert_with(|| {
                let (gone, address) = (Arc::clone(&peers.gone), listener.address.clone());
                let task = tasks.spawn_local(async move {
                    watch_listener(&address, renew, at_most, |is| gone.note(other, is)).await;
                });
                (listener, task)
            });
        }
        while tasks.try_join_next().is_some() {}
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Where the other nodes' clients connect.
fn listeners(image: &MetadataImage, own: NodeId) -> BTreeMap<NodeId, Watched> {
    let others = image.brokers().filter(|broker| broker.node_id != own);
    let watched = |broker: &Arc<BrokerRegistration>| {
        Some((broker.node_id, Watched { address: client_address(broker)?, broker_epoch: broker.broker_epoch }))
    };
    others.filter_map(watched).collect()
}

fn client_address(broker: &BrokerRegistration) -> Option<String> {
    let others = [NODE_ENDPOINT, QUIC_LISTENER];
    let endpoint = broker.endpoints.iter().find(|endpoint| !others.contains(&&*endpoint.listener))?;
    Some(host_port(&endpoint.host, endpoint.port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listeners_of_clients_over_tcp_count() {
        let endpoint = |listener: &str, port| madang_cluster::metadata::Endpoint {
            listener: listener.into(),
            host: "h".into(),
            port,
            security_protocol: madang_cluster::metadata::SecurityProtocol::Plaintext,
        };
        let broker = |endpoints| BrokerRegistration {
            node_id: NodeId(2),
            broker_epoch: 1,
            incarnation_id: madang_protocol::types::Uuid::ZERO,
            endpoints,
            rack: None,
            log_dirs: Vec::new(),
            fenced: false,
            served_epoch: -1,
        };
        let all = vec![endpoint(NODE_ENDPOINT, 1), endpoint(QUIC_LISTENER, 2), endpoint("PLAINTEXT", 3)];
        assert_eq!(client_address(&broker(all)), Some("h:3".to_owned()));
        assert_eq!(client_address(&broker(vec![endpoint(NODE_ENDPOINT, 1)])), None);
    }
}
