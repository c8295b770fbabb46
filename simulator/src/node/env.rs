//! What the real API handlers run over in the simulator: virtual time, the process's metadata, replicas, controller and shards.
//! Invariant: a handler's surroundings are those of the one process that its connection is with.

use std::rc::Rc;
use std::sync::Arc;

use futures_channel::oneshot;
use futures_util::future::{LocalBoxFuture, join_all};
use madang::env::{Env, LogDir, ask_controller, ask_shard};
use madang::fetch_sessions::FetchSessions;
use madang::group_placement::GroupPlacement;
use madang::producer_ids::ProducerIds;
use madang_actors::actor_ref::ActorRef;
use madang_actors::clock::{Mono, Wall};
use madang_cluster::configs::BrokerConfig;
use madang_cluster::controller::{ApiResult, Outcome, Proposal};
use madang_cluster::coordinator::actor::ShardMessage;
use madang_cluster::coordinator::{Request, Response};
use madang_cluster::metadata::MetadataImage;
use madang_cluster::replica::ReplicaHandle;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::{NodeId, TopicPartition};

use crate::executor::Exit;
use crate::node::DATA;
use crate::node::process::Process;
use crate::node::{Node, peers};
use crate::sim::Sim;

/// The surroundings of handlers in one process.
#[derive(Clone)]
pub struct SimEnv {
    /// The run, as the node sees it.
    pub sim: Rc<Sim>,
    /// The node.
    pub node: Rc<Node>,
    /// The process.
    pub process: Rc<Process>,
}

impl SimEnv {
    fn shard(&self, group_id: &str) -> Result<ActorRef<ShardMessage>, ErrorCode> {
        let partition = self.process.groups.partition(&self.process.image.borrow(), group_id)?;
        let shards = self.process.shards.borrow();
        shards.get(&partition).map(|shard| shard.actor.clone()).ok_or(ErrorCode::NotCoordinator)
    }
}

impl Env for SimEnv {
    fn now(&self) -> Mono {
        self.sim.now()
    }

    fn wall(&self) -> Wall {
        self.sim.wall()
    }

    fn random(&self) -> u64 {
        self.sim.random()
    }

    fn sleep_until(&self, at: Mono) -> LocalBoxFuture<'static, ()> {
        Box::pin(self.sim.executor.sleep_until(at))
    }

    fn node_id(&self) -> NodeId {
        self.process.config.node_id
    }

    fn broker_epoch(&self) -> i64 {
        self.process.broker_epoch.get()
    }

    fn config(&self) -> &BrokerConfig {
        &self.process.config
    }

    fn image(&self) -> Arc<MetadataImage> {
        Arc::clone(&self.process.image.borrow())
    }

    fn replica(&self, partition: &TopicPartition) -> Option<ReplicaHandle> {
        self.process.slots.borrow().get(partition).map(|slot| slot.handle.clone())
    }

    fn log_dirs(&self) -> Vec<LogDir> {
        let replicas = self.process.slots.borrow().values().map(|slot| slot.handle.clone()).collect();
        vec![LogDir { path: DATA.into(), disk: Arc::new(self.sim.disk.clone()), failed: false, replicas }]
    }

    fn fetch_sessions(&self) -> &FetchSessions {
        &self.process.fetch_sessions
    }

    fn producer_ids(&self) -> &ProducerIds {
        &self.process.producer_ids
    }

    fn group_placement(&self) -> &GroupPlacement {
        &self.process.groups
    }

    fn propose(&self, proposal: Proposal, deadline: Mono) -> LocalBoxFuture<'static, ApiResult<Outcome>> {
        let env = self.clone();
        Box::pin(async move {
            match env.node.cluster() {
                Some(cluster) => peers::propose(&env, &cluster, proposal, deadline).await,
                None => ask_controller(&env, &env.process.controller, proposal, deadline).await,
            }
        })
    }

    fn group(
        &self,
        group_id: &str,
        request: Request,
        deadline: Mono,
    ) -> LocalBoxFuture<'static, Result<Response, ErrorCode>> {
        let (env, shard) = (self.clone(), self.shard(group_id));
        Box::pin(async move { ask_shard(&env, &shard?, request, deadline).await })
    }

    fn every_group_shard(
        &self,
        request: Request,
        deadline: Mono,
    ) -> LocalBoxFuture<'static, Result<Vec<Response>, ErrorCode>> {
        let shards: Vec<_> = self.process.shards.borrow().values().map(|shard| shard.actor.clone()).collect();
        let env = self.clone();
        Box::pin(async move {
            let asked = shards.iter().map(|shard| ask_shard(&env, shard, request.clone(), deadline));
            join_all(asked).await.into_iter().collect()
        })
    }

    fn read<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> LocalBoxFuture<'static, Option<T>> {
        let (sim, (done, answer)) = (Rc::clone(&self.sim), oneshot::channel());
        let ended = self.sim.executor.spawn(self.process.scope, async move {
            sim.pause(1, 200).await;
            drop(done.send(work()));
        });
        let sim = Rc::clone(&self.sim);
        Box::pin(async move {
            if let Ok(Exit::Panicked(Some(text))) = ended.await {
                sim.violate("U2", format!("a read beside its connection: {text}"));
            }
            answer.await.ok()
        })
    }

    fn in_background(&self, work: LocalBoxFuture<'static, ()>) {
        self.sim.executor.detach(self.process.scope, work);
    }
}
