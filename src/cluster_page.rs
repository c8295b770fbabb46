//! How the cluster is, as this node sees it: the admin listener's page `/cluster`.

use std::sync::Arc;

use madang_cluster::configs::TopicConfig;
use madang_cluster::metadata::{BrokerRegistration, MetadataImage};
use serde_json::{Value, json};

use crate::node_env::Node;

/// The page.
pub(crate) fn page(node: &Node) -> Value {
    let image = node.image.load();
    let own = node.config.node_id;
    let controller = node.peers.as_ref().map_or(Some(own), |peers| peers.leader());
    let voters = node.peers.as_ref().map_or_else(|| Arc::new(vec![own]), |peers| peers.voters());
    let nodes = image.brokers().map(|broker| {
        let votes = voters.contains(&broker.node_id);
        json!({
            "id": broker.node_id.0,
            "pid": (broker.node_id == own).then(std::process::id),
            "listener": client_address(node, broker),
            "roles": if votes { vec!["broker", "controller"] } else { vec!["broker"] },
            "state": if broker.fenced { "fenced" } else { "serving" },
        })
    });
    json!({
        "cluster_id": image.cluster_id().to_string(),
        "controller": controller.map(|controller| controller.0),
        "nodes": nodes.collect::<Vec<_>>(),
        "partitions": partitions(node, &image),
    })
}

fn client_address(node: &Node, broker: &BrokerRegistration) -> Option<String> {
    let listener = node.config.advertised_listeners.first()?;
    let endpoint = broker.endpoint(&listener.name)?;
    Some(format!("{}:{}", endpoint.host, endpoint.port))
}

fn partitions(node: &Node, image: &MetadataImage) -> Value {
    let (mut total, mut under_replicated, mut under_min_isr, mut offline) = (0, 0, 0, 0);
    let is_live = |node| image.broker(node).is_some_and(|broker| !broker.fenced);
    for topic in image.topics() {
        let min = TopicConfig::resolve(image, &node.config, node.config.node_id, &topic.name).min_insync_replicas;
        for state in topic.partitions.values() {
            let (in_sync, replicas) = (state.in_sync_replicas.len(), state.assigned_replicas.len());
            total += 1;
            under_replicated += usize::from(in_sync < replicas);
            under_min_isr += usize::from(in_sync < replicas.min(min as usize));
            offline += usize::from(!is_live(state.leader));
        }
    }
    json!({
        "total": total,
        "under_replicated": under_replicated,
        "under_min_isr": under_min_isr,
        "offline": offline,
    })
}
