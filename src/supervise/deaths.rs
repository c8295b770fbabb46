//! Tells the controllers of a death, with the certificate of the node's supervisor: that allows this one message, about this one node.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use madang_cluster::configs::BrokerConfig;
use madang_protocol::node::{Death, HeartbeatAnswer, HeartbeatResult, LEVELS, NodeMessage, Tag};
use madang_protocol::types::NodeId;
use madang_transport::kafka::ColdReads;
use madang_transport::quic::{LaneKind, Link, LinkState, NodeFrame, NodeListener};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::peers::{SUPERVISOR_CERTIFICATE, SUPERVISOR_KEY, read_certificates, settings};

/// How soon a controller that has not taken it is told again.
const TELL_AGAIN: Duration = Duration::from_millis(50);
/// After so long silence alone has fenced the node.
const GIVE_UP: Duration = Duration::from_secs(30);

/// The links to the other voters. They are up before anybody dies.
pub(super) struct Deaths {
    node_id: NodeId,
    links: Rc<BTreeMap<NodeId, Link>>,
}

impl Deaths {
    /// Connects to the other voters; none if there are none.
    ///
    /// # Errors
    /// A text for a person.
    pub(super) fn start(config: &BrokerConfig) -> Result<Option<Self>, String> {
        let others = config.quorum_voters.iter().filter(|(node, _)| *node != config.node_id);
        let others: Vec<(NodeId, String)> = others.cloned().collect();
        let (Some(folder), Some((host, _))) = (&config.node_certificates, &config.node_listener) else {
            return Ok(None);
        };
        if others.is_empty() {
            return Ok(None);
        }
        let certificates = read_certificates(Path::new(folder), SUPERVISOR_CERTIFICATE, SUPERVISOR_KEY)?;
        let reads = ColdReads::start(1, 1).map_err(|error| error.to_string())?;
        let any: SocketAddr =
            if host.contains(':') { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
        // Nobody is let in: it only dials.
        let listener = NodeListener::bind(any, certificates, settings(), reads).map_err(|error| error.to_string())?;
        let mut links = BTreeMap::new();
        for (node, address) in others {
            let (link, driver) = Link::new(&listener, node, address, LEVELS, &[LaneKind::Supervisor]);
            spawn_local(driver);
            links.insert(node, link);
        }
        Ok(Some(Self { node_id: config.node_id, links: Rc::new(links) }))
    }

    /// Tells every controller at once, and again until one in office has taken it.
    pub(super) fn tell(&self, broker_epoch: i64) {
        let (node_id, links) = (self.node_id, Rc::clone(&self.links));
        spawn_local(async move {
            let begun = Instant::now();
            while begun.elapsed() < GIVE_UP {
                let told = links.values().map(|link| taken(link, Death { node_id, broker_epoch }));
                if futures_util::future::join_all(told).await.contains(&true) {
                    return;
                }
                sleep(TELL_AGAIN).await;
            }
        });
    }
}

/// Whether a controller in office has fenced the registration, or knows that it is over.
async fn taken(link: &Link, death: Death) -> bool {
    let LinkState::Up { level } = *link.state.borrow() else { return false };
    let (Some(lane), Ok(head)) = (link.lanes.first(), death.write(level)) else { return false };
    let frame = NodeFrame { tag: Tag::Death.code(), head, ..NodeFrame::default() };
    let Ok(answer) = lane.call(frame).await else { return false };
    match HeartbeatAnswer::read(level, &answer.head) {
        Ok(HeartbeatAnswer { result }) if answer.tag == Tag::HeartbeatAnswer.code() => {
            matches!(result, HeartbeatResult::Heard { .. } | HeartbeatResult::Refused(_))
        }
        _ => false,
    }
}
