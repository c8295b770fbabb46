//! The simulator's shell of a fetcher: one for each remote leader that a process has followed, over the simulated links. It decides nothing.
//! Invariant: a fetcher that dies begins anew with all that is wanted of its leader.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::select;
use madang::env::until;
use madang_actors::child_spec::Incarnation;
use madang_actors::machine::Machine;
use madang_actors::mailbox::ActorState;
use madang_actors::prng::Prng;
use madang_cluster::peers::{FetchLimits, confirm, fetch, fetch_answers};
use madang_cluster::replica::fetcher::{Fetcher, FetcherConfig, FetcherEffect, FetcherInput};
use madang_cluster::replica::fetching::{FetcherMessage, FetcherRef};
use madang_cluster::replica::replication::FetchPosition;
use madang_protocol::types::{NodeId, TopicPartition};

use crate::cluster::Cluster;
use crate::cluster::network::{Lane, call};
use crate::executor::Exit;
use crate::invariants::supervision;
use crate::node::Node;
use crate::node::env::SimEnv;
use crate::node::process::Process;

/// How long a word of durable ends may take: the next fetch tells them too.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);

/// The process's fetcher of that leader, started if there is none.
pub fn of(node: &Rc<Node>, process: &Rc<Process>, leader: NodeId) -> FetcherRef {
    if let Some(known) = process.fetchers.borrow().get(&leader) {
        return known.clone();
    }
    let followers = FetcherRef::new(leader);
    process.fetchers.borrow_mut().insert(leader, followers.clone());
    if let Some(cluster) = node.cluster() {
        let env = SimEnv { sim: Rc::clone(&node.sim), node: Rc::clone(node), process: Rc::clone(process) };
        node.sim.executor.detach(process.scope, lives(env, cluster, followers.clone()));
    }
    followers
}

async fn lives(env: SimEnv, cluster: Rc<Cluster>, followers: FetcherRef) {
    for life in 1.. {
        followers.actor().mailbox().open(Incarnation(life));
        let config = FetcherConfig { back_off_max: Duration::from_millis(400), ..FetcherConfig::default() };
        let shell = Shell {
            env: env.clone(),
            cluster: Rc::clone(&cluster),
            fetcher: Fetcher::new(config.clone()),
            config,
            followers: followers.clone(),
            life: Incarnation(life),
            rng: Prng::new(0),
            telling: Rc::default(),
        };
        let exit = env.sim.executor.spawn(env.process.scope, shell.live()).await;
        followers.actor().mailbox().close(Incarnation(life), ActorState::Restarting);
        supervision::closed(&env.sim, followers.actor().id(), followers.actor().depth());
        if let Ok(Exit::Panicked(Some(text))) = exit {
            env.sim.violate("U2", format!("{}: {text}", followers.actor().id()));
        }
        env.sim.pause(1000, 20_000).await;
    }
}

struct Shell {
    env: SimEnv,
    cluster: Rc<Cluster>,
    fetcher: Fetcher,
    config: FetcherConfig,
    followers: FetcherRef,
    life: Incarnation,
    rng: Prng,
    telling: Rc<Cell<bool>>,
}

impl Shell {
    async fn live(mut self) {
        self.followers.begin();
        loop {
            while let Some(message) = self.followers.actor().mailbox().pop() {
                self.handle(message);
            }
            let changes = self.followers.changes();
            if !changes.is_empty() {
                self.step(FetcherInput::Changed(changes));
            }
            self.tell();
            self.fetcher.check_all();
            self.wait().await;
            self.env.sim.pause(0, 200).await;
            if self.fetcher.deadline().is_some_and(|deadline| deadline <= self.env.sim.now()) {
                self.step(FetcherInput::Tick);
            }
        }
    }

    async fn wait(&self) {
        let mailbox = Arc::clone(self.followers.actor().mailbox());
        let woken = poll_fn(|context| if mailbox.sleep(context.waker()) { Poll::Pending } else { Poll::Ready(()) });
        match self.fetcher.deadline() {
            Some(deadline) => drop(select(woken, self.env.sim.executor.sleep_until(deadline)).await),
            None => woken.await,
        }
    }

    fn handle(&mut self, message: FetcherMessage) {
        match message {
            FetcherMessage::Changed => {}
            FetcherMessage::Told => self.telling.set(false),
            FetcherMessage::Answered { request, answers } => self.step(FetcherInput::Answered { request, answers }),
            FetcherMessage::Failed { request } => {
                self.followers.forget_gone();
                self.step(FetcherInput::Failed { request });
            }
        }
    }

    fn step(&mut self, input: FetcherInput) {
        let mut effects = Vec::new();
        self.fetcher.step(self.env.sim.now(), self.env.sim.wall(), input, &mut self.rng, &mut effects);
        for effect in effects {
            match effect {
                FetcherEffect::Send { request, partitions, max_wait } => self.send(request, &partitions, max_wait),
                FetcherEffect::Deliver(partition, answer) => self.followers.deliver(partition, answer),
            }
        }
    }

    fn send(&self, request: u64, partitions: &[(TopicPartition, FetchPosition)], max_wait: Duration) {
        let max_bytes = u32::try_from(self.config.max_bytes).unwrap_or(u32::MAX);
        let limits = FetchLimits { max_wait, max_bytes };
        let message = fetch(self.env.process.broker_epoch.get(), limits, partitions);
        let deadline = self.env.sim.now() + self.config.timeout;
        let (env, cluster, life) = (self.env.clone(), Rc::clone(&self.cluster), self.life);
        let followers = self.followers.clone();
        self.env.sim.executor.detach(self.env.process.scope, async move {
            let between = (env.process.config.node_id, followers.leader());
            let called = call(&cluster, between, Lane::Data, &message, bytes::Bytes::new());
            let answered = until(&env, deadline, called).await.and_then(Result::ok);
            let message = match answered.and_then(|(answer, records)| fetch_answers(answer, records).ok()) {
                Some(answers) => FetcherMessage::Answered { request, answers },
                None => FetcherMessage::Failed { request },
            };
            drop(followers.actor().pinned(life).try_send(message));
        });
    }

    fn tell(&self) {
        if self.telling.get() {
            return;
        }
        let confirmed: Vec<_> = self.followers.confirmed().into_iter().collect();
        if confirmed.is_empty() {
            return;
        }
        self.telling.set(true);
        let message = confirm(self.env.process.broker_epoch.get(), &confirmed);
        let deadline = self.env.sim.now() + TELL_TIMEOUT;
        let (env, cluster, life) = (self.env.clone(), Rc::clone(&self.cluster), self.life);
        let followers = self.followers.clone();
        self.env.sim.executor.detach(self.env.process.scope, async move {
            let between = (env.process.config.node_id, followers.leader());
            drop(until(&env, deadline, call(&cluster, between, Lane::Control, &message, bytes::Bytes::new())).await);
            drop(followers.actor().pinned(life).try_send(FetcherMessage::Told));
        });
    }
}
