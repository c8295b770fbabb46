//! What a process asks of other nodes and they of it: proposals, heartbeats, confirmed ends, fetches, Raft, by the same rules as the node.
//! Invariant: what may have been proposed is not proposed again for a client; a peer speaks for itself alone.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use madang::env::until;
use madang_actors::actor_ref::IncarnationRef;
use madang_actors::clock::Mono;
use madang_actors::mailbox::SendError;
use madang_actors::reply::Reply;
use madang_cluster::controller::actor::{ControllerMessage, RaftMessage};
use madang_cluster::controller::{ApiResult, Outcome, Proposal};
use madang_cluster::peers::{
    Propose, ProposeAnswer, ProposeResult, confirmed, fetch_answer, fetches, raft_message, raft_payload,
};
use madang_cluster::replica::ReplicaHandle;
use madang_cluster::replica::links::CoalescedFetch;
use madang_cluster::replica::replication::FetchBody;
use madang_cluster::replica::serving::{self, LocalFuture, ServingEnv};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::node::{
    Confirm, Death, Heartbeat, HeartbeatAnswer, HeartbeatResult, LEVELS, NodeMessage, Raft, Received, Refusal,
    Rejected, ReplicaFetch, Tag,
};
use madang_protocol::types::{NodeId, TopicPartition};

use crate::cluster::Cluster;
use crate::cluster::network::{CallFailed, Frame, Lane, call};
use crate::cover;
use crate::node::Node;
use crate::node::env::SimEnv;
use crate::node::process::Process;

/// How soon a controller is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long one try of what is proposed until it is decided may take.
const ONE_TRY: Duration = Duration::from_secs(9);
/// How long the controller may take for a peer.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(8);
/// Heartbeats in a session.
const IN_A_SESSION: u32 = 5;
/// Messages to one voter that have not arrived yet.
const ON_THEIR_WAY: usize = 256;

enum Tried {
    Answered(ProposeResult, u64),
    NotDone,
}

/// Proposes once, as soon as there is a controller to propose to, and answers when this process has applied what was decided.
///
/// # Errors
/// The refusal; `NOT_CONTROLLER` if it is open what happened; `REQUEST_TIMED_OUT`.
pub async fn propose(env: &SimEnv, cluster: &Rc<Cluster>, proposal: Proposal, deadline: Mono) -> ApiResult<Outcome> {
    let proposed = async {
        loop {
            if let Tried::Answered(result, index) = attempt(env, cluster, &proposal, deadline).await {
                while env.process.image.borrow().version() < index {
                    env.sim.executor.sleep(Duration::from_millis(2)).await;
                }
                return result.into_result();
            }
            env.sim.executor.sleep(LOOK_AGAIN).await;
        }
    };
    until(env, deadline, proposed).await.unwrap_or_else(|| Err(ErrorCode::RequestTimedOut.into()))
}

/// Proposes again and again what may be decided twice, until it is decided. The process may not apply anything yet.
///
/// # Errors
/// The refusal.
pub async fn propose_until_decided(env: &SimEnv, cluster: &Rc<Cluster>, proposal: Proposal) -> ApiResult<Outcome> {
    loop {
        let deadline = env.sim.now() + ONE_TRY;
        match attempt(env, cluster, &proposal, deadline).await {
            Tried::Answered(ProposeResult::Committed(outcome), _) => return Ok(outcome),
            Tried::Answered(ProposeResult::Refused(refused), _) => return Err(refused),
            Tried::Answered(ProposeResult::NotController { .. } | ProposeResult::Unknown, _) | Tried::NotDone => {}
        }
        env.sim.executor.sleep(LOOK_AGAIN).await;
    }
}

async fn attempt(env: &SimEnv, cluster: &Rc<Cluster>, proposal: &Proposal, deadline: Mono) -> Tried {
    let own = env.process.config.node_id;
    match env.process.leader.get() {
        None => Tried::NotDone,
        Some(leader) if leader == own => here(env, proposal.clone(), deadline).await,
        Some(leader) => {
            let asked = Propose { proposal: proposal.clone() };
            let called = call(cluster, (own, leader), Lane::Control, &asked, Bytes::new());
            match called.await {
                Ok((ProposeAnswer { result: ProposeResult::NotController { .. }, .. }, _))
                | Err(CallFailed::NotDone) => Tried::NotDone,
                Ok((ProposeAnswer { result, metadata_index }, _)) => Tried::Answered(result, metadata_index),
                Err(CallFailed::Lost) => Tried::Answered(ProposeResult::Unknown, 0),
            }
        }
    }
}

async fn here(env: &SimEnv, proposal: Proposal, deadline: Mono) -> Tried {
    let (reply, answer) = Reply::new(|| Err(ErrorCode::NotController.into()));
    let sent = env.process.controller.admit(ControllerMessage::Propose { proposal, reply });
    match until(env, deadline, sent).await {
        Some(Ok(())) => {}
        Some(Err(_)) | None => return Tried::NotDone,
    }
    match until(env, deadline, answer).await {
        Some(result) => Tried::Answered(result.into(), env.process.committed.get()),
        None => Tried::Answered(ProposeResult::Unknown, 0),
    }
}

/// Sends a message of this process's voter, and tells its controller what became of it.
pub fn send_raft(
    node: &Rc<Node>,
    process: &Rc<Process>,
    to: NodeId,
    message: &RaftMessage,
    is_snapshot: bool,
    controller: IncarnationRef<ControllerMessage>,
) {
    let Some(cluster) = node.cluster() else { return node.sim.violate("C1", "a lone voter sends") };
    let room = {
        let mut under_way = process.under_way.borrow_mut();
        let count = under_way.entry(to).or_insert(0);
        *count += 1;
        *count <= ON_THEIR_WAY
    };
    let payload = raft_payload(message).ok().filter(|_| room || is_snapshot);
    let (sim, own, process) = (Rc::clone(&node.sim), node.id, Rc::clone(process));
    let scope = process.scope;
    sim.clone().executor.detach(scope, async move {
        let lane = if is_snapshot { Lane::Snapshot } else { Lane::Control };
        let delivered = match payload {
            Some(payload) => call(&cluster, (own, to), lane, &Raft {}, payload).await.is_ok(),
            None => false,
        };
        if let Some(count) = process.under_way.borrow_mut().get_mut(&to) {
            *count = count.saturating_sub(1);
        }
        if is_snapshot {
            cover!("snapshot for a voter that is behind");
            while let Err(SendError::Full(_)) = controller.try_send(ControllerMessage::SnapshotSent { to, delivered }) {
                sim.executor.sleep(Duration::from_millis(10)).await;
            }
        } else if !delivered {
            drop(controller.try_send(ControllerMessage::Unreachable(to)));
        }
    });
}

/// Tells the controller in office that the broker lives, and asks to serve again if it was fenced.
pub async fn heartbeats(env: SimEnv, cluster: Rc<Cluster>) {
    let interval = env.process.config.broker_session_timeout / IN_A_SESSION;
    loop {
        env.sim.executor.sleep(interval).await;
        let noted = env.process.told_outer.get().is_some();
        if is_fenced(&env, &cluster).await && (env.process.serving.get() || noted) {
            cover!("a live broker that was fenced asks to serve again");
            let (node_id, broker_epoch) = (env.process.config.node_id, env.process.broker_epoch.get());
            let asked = Proposal::UnfenceBroker { node_id, broker_epoch };
            let limit = env.sim.now() + interval * IN_A_SESSION;
            drop(until(&env, limit, propose_until_decided(&env, &cluster, asked)).await);
        }
    }
}

async fn is_fenced(env: &SimEnv, cluster: &Rc<Cluster>) -> bool {
    let (own, broker_epoch) = (env.process.config.node_id, env.process.broker_epoch.get());
    match env.process.leader.get() {
        Some(leader) if leader != own && broker_epoch >= 0 => {
            let metadata_index = env.process.image.borrow().version();
            let told = Heartbeat { node_id: own, broker_epoch, metadata_index, offline_log_dirs: Vec::new() };
            let limit = env.sim.now() + env.process.config.broker_session_timeout;
            let called = call(cluster, (own, leader), Lane::Control, &told, Bytes::new());
            match until(env, limit, called).await {
                Some(Ok((HeartbeatAnswer { result: HeartbeatResult::Heard { fenced } }, _))) => fenced,
                Some(Ok((HeartbeatAnswer { result: HeartbeatResult::Refused(error) }, _))) => {
                    // Nobody else starts as this node, so only a process that is over may hear that.
                    env.sim.violate("C10", format!("{own} under {broker_epoch} is told {error:?}"));
                    false
                }
                _ => false,
            }
        }
        Some(_) => env.process.image.borrow().broker(own).is_some_and(|broker| broker.fenced),
        None => false,
    }
}

/// What this process answers to a peer.
pub async fn answer(node: &Rc<Node>, process: &Rc<Process>, peer: NodeId, lane: Lane, frame: Frame) -> Frame {
    let env = SimEnv { sim: Rc::clone(&node.sim), node: Rc::clone(node), process: Rc::clone(process) };
    let answered = Service { env }.answer(peer, lane, frame).await;
    answered.or_else(|refusal| written(&Rejected { refusal }, Bytes::new())).unwrap_or_default()
}

struct Service {
    env: SimEnv,
}

type Answer = Result<Frame, Refusal>;

impl Service {
    async fn answer(&self, peer: NodeId, lane: Lane, frame: Frame) -> Answer {
        let controller = &self.env.process.controller;
        match (lane, Tag::from_code(frame.tag).ok_or(Refusal::UnknownTag)?) {
            (Lane::Control | Lane::Snapshot, Tag::Raft) => {
                let Raft {} = read(&frame)?;
                let message = raft_message(peer, &frame.payload).map_err(|_| Refusal::Malformed)?;
                drop(controller.try_send(ControllerMessage::Raft(Box::new(message))));
                written(&Received {}, Bytes::new())
            }
            (Lane::Control, Tag::Propose) => self.propose(peer, read(&frame)?).await,
            (Lane::Control, Tag::Heartbeat) => self.heartbeat(peer, &read(&frame)?).await,
            (Lane::Control, Tag::Confirm) => {
                let told: Confirm = read(&frame)?;
                serving::take_confirmed(&self.env, confirmed(peer, &told).collect());
                written(&Received {}, Bytes::new())
            }
            (Lane::Data, Tag::ReplicaFetch) => self.fetch(peer, &read(&frame)?).await,
            (Lane::Supervisor, Tag::Death) => self.death(peer, &read(&frame)?).await,
            _ => Err(Refusal::NotServed),
        }
    }

    async fn fetch(&self, peer: NodeId, asked: &ReplicaFetch) -> Answer {
        let (limits, partitions) = fetches(peer, self.env.process.config.node_id, asked);
        let max_bytes = usize::try_from(limits.max_bytes).unwrap_or(usize::MAX);
        let epochs: Vec<_> = partitions.iter().map(|(id, fetch)| (*id, fetch.position.leader_epoch)).collect();
        let asked = CoalescedFetch { partitions, max_wait: limits.max_wait, max_bytes };
        let answers = serving::answer(&self.env, asked).await;
        for (partition, answer) in &answers {
            let served = matches!(answer.body, FetchBody::Records { .. });
            let same = epochs.contains(&(*partition, answer.leader_epoch));
            self.env.sim.require(!served || same, "R14", || {
                format!("{peer} is served {partition:?} in epoch {}, and believes in another", answer.leader_epoch)
            });
        }
        let (message, records) = fetch_answer(answers).map_err(|_| Refusal::Malformed)?;
        written(&message, records.read().map_err(|_| Refusal::Malformed)?)
    }

    async fn propose(&self, peer: NodeId, asked: Propose) -> Answer {
        if !asked.may_come_from(peer) {
            return Err(Refusal::NotServed);
        }
        let result = match self.elsewhere() {
            Some(leader) => ProposeResult::NotController { leader },
            None => {
                let proposal = asked.proposal;
                self.ask(|reply| ControllerMessage::Propose { proposal, reply }).await.into()
            }
        };
        let metadata_index = self.env.process.committed.get();
        written(&ProposeAnswer { result, metadata_index }, Bytes::new())
    }

    async fn heartbeat(&self, peer: NodeId, told: &Heartbeat) -> Answer {
        let (node_id, broker_epoch) = (told.node_id, told.broker_epoch);
        if node_id != peer {
            return Err(Refusal::NotServed);
        }
        let result = match self.elsewhere() {
            Some(leader) => HeartbeatResult::NotController { leader },
            None => heard(self.ask(|reply| ControllerMessage::Heartbeat { node_id, broker_epoch, reply }).await),
        };
        written(&HeartbeatAnswer { result }, Bytes::new())
    }

    async fn death(&self, peer: NodeId, told: &Death) -> Answer {
        let (node_id, broker_epoch) = (told.node_id, told.broker_epoch);
        if node_id != peer {
            return Err(Refusal::NotServed);
        }
        let result = match self.elsewhere() {
            Some(leader) => {
                if leader.is_none_or(|leader| leader == node_id) {
                    drop(self.env.process.controller.try_send(ControllerMessage::Dead(node_id)));
                }
                HeartbeatResult::NotController { leader }
            }
            None => {
                let proposal = Proposal::FenceBroker { node_id, broker_epoch };
                heard(self.ask(|reply| ControllerMessage::Propose { proposal, reply }).await)
            }
        };
        written(&HeartbeatAnswer { result }, Bytes::new())
    }

    fn elsewhere(&self) -> Option<Option<NodeId>> {
        let leader = self.env.process.leader.get();
        (leader != Some(self.env.process.config.node_id)).then_some(leader)
    }

    async fn ask(&self, message: impl FnOnce(Reply<ApiResult<Outcome>>) -> ControllerMessage) -> ApiResult<Outcome> {
        let deadline = self.env.sim.now() + PROPOSAL_TIMEOUT;
        let (reply, answer) = Reply::new(|| Err(ErrorCode::NotController.into()));
        let sent = until(&self.env, deadline, self.env.process.controller.admit(message(reply))).await;
        if !matches!(sent, Some(Ok(()))) {
            return Err(ErrorCode::NotController.into());
        }
        until(&self.env, deadline, answer).await.unwrap_or_else(|| Err(ErrorCode::RequestTimedOut.into()))
    }
}

/// What the controller has said of a broker, as far as it was in office.
#[must_use]
pub fn heard(result: ApiResult<Outcome>) -> HeartbeatResult {
    match result {
        Ok(Outcome::Fenced(fenced)) => HeartbeatResult::Heard { fenced },
        Err(refused) if matches!(refused.error, ErrorCode::BrokerIdNotRegistered | ErrorCode::StaleBrokerEpoch) => {
            HeartbeatResult::Refused(refused.error)
        }
        _ => HeartbeatResult::NotController { leader: None },
    }
}

fn read<M: NodeMessage>(frame: &Frame) -> Result<M, Refusal> {
    M::read(LEVELS.1, &frame.head).map_err(|_| Refusal::Malformed)
}

fn written<M: NodeMessage>(message: &M, payload: Bytes) -> Answer {
    let head = message.write(LEVELS.1).map_err(|_| Refusal::NotServed)?;
    Ok(Frame { tag: M::TAG.code(), head, payload })
}

impl ServingEnv for SimEnv {
    fn now(&self) -> Mono {
        self.sim.now()
    }

    fn sleep_until(&self, at: Mono) -> LocalFuture<()> {
        Box::pin(self.sim.executor.sleep_until(at))
    }

    fn replica(&self, partition: &TopicPartition) -> Option<ReplicaHandle> {
        madang::env::Env::replica(self, partition)
    }

    fn read<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> LocalFuture<Option<T>> {
        madang::env::Env::read(self, work)
    }
}
