//! Tells the controllers of a death, with the certificate of the node's supervisor: that allows this one message, about this one node.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::select_all;
use madang_cluster::configs::BrokerConfig;
use madang_protocol::node::{Death, HeartbeatAnswer, HeartbeatResult, LEVELS, NodeMessage, Tag};
use madang_protocol::types::NodeId;
use madang_transport::kafka::ColdReads;
use madang_transport::quic::{LaneKind, Link, LinkState, NodeFrame, NodeListener};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use crate::peers::{SUPERVISOR_CERTIFICATE, SUPERVISOR_KEY, read_certificates, settings};

/// How soon a controller that has not taken it is told again.
const TELL_AGAIN: Duration = Duration::from_millis(50);
/// After so long silence alone has fenced the node.
const GIVE_UP: Duration = Duration::from_secs(30);

/// The links to the other members of the quorum. They are up before anybody dies.
pub(super) struct Deaths {
    node_id: NodeId,
    listener: NodeListener,
    links: BTreeMap<NodeId, Rc<Known>>,
}

/// A link, and what keeps it up as long as somebody holds this.
struct Known {
    address: String,
    link: Link,
    driver: JoinHandle<()>,
}

impl Drop for Known {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Deaths {
    /// Connects to the voters that the configuration names; none if the node is to stay alone.
    ///
    /// # Errors
    /// A text for a person.
    pub(super) fn start(config: &BrokerConfig) -> Result<Option<Self>, String> {
        let others = config.quorum_voters.iter().filter(|(node, _)| *node != config.node_id);
        let (Some(folder), Some((host, _))) = (&config.node_certificates, &config.node_listener) else {
            return Ok(None);
        };
        let certificates = read_certificates(Path::new(folder), SUPERVISOR_CERTIFICATE, SUPERVISOR_KEY)?;
        let reads = ColdReads::start(1, 1).map_err(|error| error.to_string())?;
        let any: SocketAddr =
            if host.contains(':') { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
        // Nobody is let in: it only dials.
        let listener = NodeListener::bind(any, certificates, settings(), reads).map_err(|error| error.to_string())?;
        let mut deaths = Self { node_id: config.node_id, listener, links: BTreeMap::new() };
        deaths.follow(others.cloned().collect());
        Ok(Some(deaths))
    }

    /// Keeps links to these members and to no others.
    pub(super) fn follow(&mut self, members: BTreeMap<NodeId, String>) {
        let before = std::mem::take(&mut self.links);
        for (node, address) in members.into_iter().filter(|(node, _)| *node != self.node_id) {
            let kept = before.get(&node).filter(|known| known.address == address).cloned();
            let known = kept.unwrap_or_else(|| {
                let at = address.clone();
                let (link, driver) = Link::new(&self.listener, node, at, LEVELS, &[LaneKind::Supervisor]);
                Rc::new(Known { address, link, driver: spawn_local(driver) })
            });
            self.links.insert(node, known);
        }
    }

    /// Tells every controller at once, and again until one in office has taken it. One that does not answer holds up no other.
    pub(super) fn tell(&self, broker_epoch: i64) -> JoinHandle<()> {
        let (node_id, links) = (self.node_id, self.links.clone());
        spawn_local(async move {
            if links.is_empty() {
                return;
            }
            let begun = Instant::now();
            let told = links.into_values().map(|known| Box::pin(tell_until_taken(known, node_id, broker_epoch)));
            match timeout(GIVE_UP, select_all(told)).await {
                Ok(_) => eprintln!("madang: the cluster knows of its death after {} ms", begun.elapsed().as_millis()),
                Err(_) => eprintln!("madang: nobody has taken word of its death in {} s", GIVE_UP.as_secs()),
            }
        })
    }
}

async fn tell_until_taken(known: Rc<Known>, node_id: NodeId, broker_epoch: i64) {
    while !taken(&known.link, Death { node_id, broker_epoch }).await {
        sleep(TELL_AGAIN).await;
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
