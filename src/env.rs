//! What an API handler may ask of its surroundings: time, the metadata, replicas, the controller, group shards.
//! The node answers with tokio and the actors; the simulator with a seeded executor. No handler names either.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use madang_actors::actor_ref::ActorRef;
use madang_actors::clock::{Mono, Wall};
use madang_actors::mailbox::{ActorState, SendError};
use madang_actors::reply::Reply;
use madang_cluster::configs::BrokerConfig;
use madang_cluster::controller::actor::ControllerMessage;
use madang_cluster::controller::{ApiResult, Outcome, Proposal};
use madang_cluster::coordinator::actor::ShardMessage;
use madang_cluster::coordinator::{Request as GroupRequest, Response as GroupResponse};
use madang_cluster::metadata::MetadataImage;
use madang_cluster::replica::ReplicaHandle;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{NodeId, TopicPartition};
use madang_storage::Disk;

use crate::fetch_sessions::FetchSessions;
use crate::group_placement::GroupPlacement;
use crate::producer_ids::ProducerIds;

/// Who sent a request, as far as handlers care.
#[derive(Clone, Debug)]
pub struct Client {
    /// Name of the listener the request came in on; answers name addresses of that listener.
    pub listener: Arc<str>,
    /// The address it came from.
    pub address: SocketAddr,
    /// What it calls itself; empty if it does not.
    pub id: Arc<str>,
}

/// A log directory of the node.
#[derive(Clone, Debug)]
pub struct LogDir {
    /// Where it is.
    pub path: PathBuf,
    /// Its disk.
    pub disk: Arc<dyn Disk>,
    /// Whether it was given up.
    pub failed: bool,
    /// The replicas in it.
    pub replicas: Vec<ReplicaHandle>,
}

/// The surroundings of an API handler.
pub trait Env: Clone + 'static {
    /// The monotonic clock.
    fn now(&self) -> Mono;
    /// The wall clock.
    fn wall(&self) -> Wall;
    /// 64 random bits.
    fn random(&self) -> u64;
    /// Resolves at `at`.
    fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()>;
    /// This node.
    fn node_id(&self) -> NodeId;
    /// The epoch of this node's registration.
    fn broker_epoch(&self) -> i64;
    /// From when on clients are to ask other nodes, if one of those may lead by now what this one leads, and this one cannot know.
    fn sends_elsewhere(&self) -> Option<Mono> {
        None
    }
    /// Other nodes whose processes are gone, as far as the sockets tell: what they lead has no leader that clients could ask, though the
    /// metadata may not have it yet.
    fn gone(&self) -> Arc<BTreeSet<NodeId>> {
        Arc::default()
    }
    /// The configuration the node was started with.
    fn config(&self) -> &BrokerConfig;
    /// The metadata as this node has applied it.
    fn image(&self) -> Arc<MetadataImage>;
    /// The replica of a partition on this node, if it has one. A replica that is down still has its handle.
    fn replica(&self, partition: &TopicPartition) -> Option<ReplicaHandle>;
    /// The log directories of this node.
    fn log_dirs(&self) -> Vec<LogDir>;
    /// The fetch sessions of this node.
    fn fetch_sessions(&self) -> &FetchSessions;
    /// Producer ids that nobody else gives out.
    fn producer_ids(&self) -> &ProducerIds;
    /// Where groups are.
    fn group_placement(&self) -> &GroupPlacement;
    /// Asks the controller. The answer comes when the change is committed and this node has applied it, or by `deadline` as an error.
    fn propose(&self, proposal: Proposal, deadline: Mono) -> LocalBoxFuture<'static, ApiResult<Outcome>>;
    /// Asks the shard that coordinates `group_id`. `COORDINATOR_NOT_AVAILABLE`, `NOT_COORDINATOR` and `COORDINATOR_LOAD_IN_PROGRESS`
    /// are the errors of the way there; the shard's own are in its answer.
    fn group(
        &self,
        group_id: &str,
        request: GroupRequest,
        deadline: Mono,
    ) -> LocalBoxFuture<'static, Result<GroupResponse, ErrorCode>>;
    /// Asks every shard on this node, for requests about all groups.
    fn every_group_shard(
        &self,
        request: GroupRequest,
        deadline: Mono,
    ) -> LocalBoxFuture<'static, Result<Vec<GroupResponse>, ErrorCode>>;
    /// Runs work that may wait for a disk where it holds up no other connection. `None` if it panicked.
    fn read<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> LocalBoxFuture<'static, Option<T>>;
    /// Runs work whose outcome nobody waits for, such as the creation of a topic that a client has asked the metadata of.
    fn in_background(&self, work: LocalBoxFuture<'static, ()>);
}

/// Resolves when `work` does, or at `at` with none.
pub async fn until<E: Env, T>(env: &E, at: Mono, work: impl Future<Output = T>) -> Option<T> {
    let work = std::pin::pin!(work);
    match futures_util::future::select(work, env.sleep_until(at)).await {
        futures_util::future::Either::Left((value, _)) => Some(value),
        futures_util::future::Either::Right(((), _)) => None,
    }
}

/// Asks one group shard. One that is down or overwhelmed is one that is loading, as far as the client is concerned.
///
/// # Errors
/// As [`Env::group`].
pub async fn ask_shard<E: Env>(
    env: &E,
    shard: &ActorRef<ShardMessage>,
    body: GroupRequest,
    deadline: Mono,
) -> Result<GroupResponse, ErrorCode> {
    let (reply, answer) = Reply::new(|| Err(ErrorCode::CoordinatorNotAvailable));
    let asked = async {
        shard.admit(ShardMessage::Request { body, reply }).await.map_err(|error| match error {
            SendError::NotRunning { state: ActorState::Quarantined | ActorState::Stopped, .. } => {
                ErrorCode::CoordinatorNotAvailable
            }
            _ => ErrorCode::CoordinatorLoadInProgress,
        })?;
        answer.await
    };
    until(env, deadline, asked).await.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable))
}

/// Asks the controller.
///
/// # Errors
/// As [`Env::propose`].
pub async fn ask_controller<E: Env>(
    env: &E,
    controller: &ActorRef<ControllerMessage>,
    proposal: Proposal,
    deadline: Mono,
) -> ApiResult<Outcome> {
    let (reply, answer) = Reply::new(|| Err(ErrorCode::NotController.into()));
    let asked = async {
        controller.admit(ControllerMessage::Propose { proposal, reply }).await.map_err(|error| match error {
            SendError::NotRunning { .. } => ErrorCode::NotController,
            _ => ErrorCode::RequestTimedOut,
        })?;
        answer.await
    };
    until(env, deadline, asked).await.unwrap_or_else(|| Err(ErrorCode::RequestTimedOut.into()))
}
