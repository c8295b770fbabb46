//! What other nodes ask of this one.
//! Invariant: a peer speaks for itself alone: what it says of a node is of the node that its certificate names.

use std::sync::Arc;
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_actors::host::clock;
use madang_actors::reply::Reply;
use madang_cluster::controller::actor::ControllerMessage;
use madang_cluster::controller::{ApiResult, Outcome, Proposal};
use madang_cluster::peers::{Propose, ProposeAnswer, ProposeResult, confirmed, fetch_answer, fetches, raft_message};
use madang_cluster::replica::ReplicaHandle;
use madang_cluster::replica::links::CoalescedFetch;
use madang_cluster::replica::serving::{self, LocalFuture, ServingEnv};
use madang_cluster::replica::throttle::Throttle;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::node::{
    Confirm, Death, Heartbeat, HeartbeatAnswer, HeartbeatResult, LEVELS, NodeMessage, Raft, Received, Refusal,
    Rejected, ReplicaFetch, Tag,
};
use madang_protocol::payload::Payload;
use madang_protocol::types::{NodeId, TopicPartition};
use madang_transport::quic::{LaneKind, NodeFrame, NodeService};
use tokio::time::timeout;

use crate::node_env::Node;
use crate::peers::Peers;
use crate::peers::propose::{Tried, there};

/// How long the controller may take here: less than a peer waits for a call.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(8);

/// The node as its peers see it, on one endpoint.
#[derive(Clone)]
pub(crate) struct PeerService {
    node: Arc<Node>,
    peers: Arc<Peers>,
    kinds: &'static [LaneKind],
}

/// A request that is not looked into, and why.
type Answer = Result<NodeFrame, Refusal>;

impl PeerService {
    pub(crate) const fn new(node: Arc<Node>, peers: Arc<Peers>, kinds: &'static [LaneKind]) -> Self {
        Self { node, peers, kinds }
    }

    async fn answer(&self, peer: NodeId, kind: LaneKind, level: u16, frame: NodeFrame) -> Answer {
        let Payload::Bytes(payload) = &frame.payload else { return Err(Refusal::Malformed) };
        match (kind, Tag::from_code(frame.tag).ok_or(Refusal::UnknownTag)?) {
            (LaneKind::Control | LaneKind::Snapshot, Tag::Raft) => {
                let Raft {} = read(level, &frame)?;
                let message = raft_message(peer, payload).map_err(|_| Refusal::Malformed)?;
                // Raft sends again what is not taken.
                drop(self.node.controller.try_send(ControllerMessage::Raft(Box::new(message))));
                written(level, &Received {}, Payload::default())
            }
            (LaneKind::Control, Tag::Propose) => self.propose(peer, level, read(level, &frame)?).await,
            (LaneKind::Control, Tag::Heartbeat) => self.heartbeat(peer, level, read(level, &frame)?).await,
            (LaneKind::Control, Tag::Confirm) => {
                let told: Confirm = read(level, &frame)?;
                self.peers.heard.note(peer);
                serving::take_confirmed(&Serving(&self.node), confirmed(peer, &told).collect());
                written(level, &Received {}, Payload::default())
            }
            (LaneKind::Supervisor, Tag::Death) => self.death(peer, level, read(level, &frame)?).await,
            (LaneKind::Data, Tag::ReplicaFetch) => self.fetch(peer, level, read(level, &frame)?).await,
            (
                _,
                Tag::Received
                | Tag::Rejected
                | Tag::ProposeAnswer
                | Tag::HeartbeatAnswer
                | Tag::ReplicaFetchAnswer
                | Tag::Raft
                | Tag::Propose
                | Tag::Heartbeat
                | Tag::Confirm
                | Tag::ReplicaFetch
                | Tag::Death,
            ) => Err(Refusal::NotServed),
        }
    }

    async fn fetch(&self, peer: NodeId, level: u16, asked: ReplicaFetch) -> Answer {
        self.peers.heard.note(peer);
        let (limits, partitions) = fetches(peer, self.node.config.node_id, &asked);
        let max_bytes = usize::try_from(limits.max_bytes).unwrap_or(usize::MAX);
        let asked = CoalescedFetch { partitions, max_wait: limits.max_wait, max_bytes };
        let answers = serving::answer(&Serving(&self.node), asked).await;
        let (message, records) = fetch_answer(answers).map_err(|_| Refusal::Malformed)?;
        written(level, &message, records)
    }

    async fn propose(&self, peer: NodeId, level: u16, asked: Propose) -> Answer {
        if !asked.may_come_from(peer) {
            return Err(Refusal::NotServed);
        }
        let result = match (self.elsewhere(), asked.proposal) {
            // A node that comes knows a few members, and the one that leads need not be among them.
            (Some(Some(leader)), proposal @ Proposal::JoinQuorum { node_id, .. }) if node_id == peer => {
                return self.relay(leader, proposal, level).await;
            }
            (Some(leader), _) => ProposeResult::NotController { leader },
            (None, proposal) => self.ask(|reply| ControllerMessage::Propose { proposal, reply }).await.into(),
        };
        // What the result rests on was committed before the answer came.
        let metadata_index = self.peers.newest_committed();
        written(level, &ProposeAnswer { result, metadata_index }, Payload::default())
    }

    /// Asks the leader for a node that does not reach it yet.
    async fn relay(&self, leader: NodeId, proposal: Proposal, level: u16) -> Answer {
        let answer = match timeout(PROPOSAL_TIMEOUT, there(&self.peers, leader, proposal)).await {
            Ok(Tried::Answered(result, metadata_index)) => ProposeAnswer { result, metadata_index },
            _ => ProposeAnswer { result: ProposeResult::NotController { leader: Some(leader) }, metadata_index: 0 },
        };
        written(level, &answer, Payload::default())
    }

    async fn heartbeat(&self, peer: NodeId, level: u16, told: Heartbeat) -> Answer {
        let Heartbeat { node_id, broker_epoch, .. } = told;
        if node_id != peer {
            return Err(Refusal::NotServed);
        }
        let result = match self.elsewhere() {
            Some(leader) => HeartbeatResult::NotController { leader },
            None => heard(self.ask(|reply| ControllerMessage::Heartbeat { node_id, broker_epoch, reply }).await),
        };
        written(level, &HeartbeatAnswer { result }, Payload::default())
    }

    /// A registration whose process is dead serves no more.
    async fn death(&self, peer: NodeId, level: u16, told: Death) -> Answer {
        let Death { node_id, broker_epoch } = told;
        if node_id != peer {
            return Err(Refusal::NotServed);
        }
        let result = match self.elsewhere() {
            Some(leader) => {
                if leader.is_none_or(|leader| leader == node_id) {
                    // Told again until somebody leads.
                    drop(self.node.controller.try_send(ControllerMessage::Dead(node_id)));
                }
                HeartbeatResult::NotController { leader }
            }
            None => {
                let proposal = Proposal::FenceBroker { node_id, broker_epoch };
                let result = heard(self.ask(|reply| ControllerMessage::Propose { proposal, reply }).await);
                tracing::info!(%node_id, broker_epoch, ?result, "the supervisor of a node says that it is dead");
                result
            }
        };
        written(level, &HeartbeatAnswer { result }, Payload::default())
    }

    /// Who leads the quorum, if it is not this node.
    fn elsewhere(&self) -> Option<Option<NodeId>> {
        let leader = self.peers.leader();
        (leader != Some(self.node.config.node_id)).then_some(leader)
    }

    async fn ask(&self, message: impl FnOnce(Reply<ApiResult<Outcome>>) -> ControllerMessage) -> ApiResult<Outcome> {
        let deadline = clock::now() + PROPOSAL_TIMEOUT;
        let (reply, answer) = Reply::new(|| Err(ErrorCode::NotController.into()));
        if self.node.controller.send(message(reply), deadline).await.is_err() {
            return Err(ErrorCode::NotController.into());
        }
        clock::until(deadline, answer).await.unwrap_or_else(|| Err(ErrorCode::RequestTimedOut.into()))
    }
}

/// What the controller has said of a broker, as far as it was in office.
fn heard(result: ApiResult<Outcome>) -> HeartbeatResult {
    match result {
        Ok(Outcome::Fenced(fenced)) => HeartbeatResult::Heard { fenced },
        Err(refused) if matches!(refused.error, ErrorCode::BrokerIdNotRegistered | ErrorCode::StaleBrokerEpoch) => {
            HeartbeatResult::Refused(refused.error)
        }
        _ => HeartbeatResult::NotController { leader: None },
    }
}

fn read<M: NodeMessage>(level: u16, frame: &NodeFrame) -> Result<M, Refusal> {
    M::read(level, &frame.head).map_err(|_| Refusal::Malformed)
}

fn written<M: NodeMessage>(level: u16, message: &M, payload: Payload) -> Answer {
    let head = message.write(level).map_err(|_| Refusal::NotServed)?;
    Ok(NodeFrame { tag: M::TAG.code(), head, payload })
}

impl NodeService for PeerService {
    const LEVELS: (u16, u16) = LEVELS;

    fn serves(&self, kind: LaneKind) -> bool {
        self.kinds.contains(&kind)
    }

    async fn call(&self, peer: NodeId, kind: LaneKind, level: u16, frame: NodeFrame) -> NodeFrame {
        let answered = self.answer(peer, kind, level, frame).await;
        let rejected = |refusal| written(level, &Rejected { refusal }, Payload::default());
        answered.or_else(rejected).unwrap_or_default()
    }
}

/// The surroundings of a leader that answers followers.
struct Serving<'a>(&'a Arc<Node>);

impl ServingEnv for Serving<'_> {
    fn now(&self) -> Mono {
        clock::now()
    }

    fn sleep_until(&self, at: Mono) -> LocalFuture<()> {
        Box::pin(tokio::time::sleep_until(clock::instant(at)))
    }

    fn replica(&self, partition: &TopicPartition) -> Option<ReplicaHandle> {
        self.0.replicas.handle(partition)
    }

    fn throttle(&self, partition: &TopicPartition) -> Option<(Arc<Throttle>, u64)> {
        self.0.throttle_of(partition)
    }

    fn read<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> LocalFuture<Option<T>> {
        let reads = self.0.cold_reads().clone();
        Box::pin(async move { reads.run(work).await.ok() })
    }
}
