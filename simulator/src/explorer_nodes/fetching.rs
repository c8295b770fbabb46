//! Fetches of the explored cluster, from the follower's wish to the answer, through the real fetcher of each node and leader.
//! Invariant: a node has one fetch or its answer on its way; one before it that was given up may still reach its leader.

use std::time::Duration;

use madang_actors::clock::Wall;
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_cluster::replica::fetcher::{Fetcher, FetcherConfig, FetcherEffect, FetcherInput};
use madang_cluster::replica::replication::{FetchAnswer, FetchPosition, Fetched, FollowerFetch, ReplicationInput};
use madang_protocol::types::NodeId;

use super::broken;
use super::cluster::Cluster;
use super::node::{Answered, Asked};
use crate::sim::Violation;

/// Waiting is no event of its own here: what is refused may be asked again at once.
fn config() -> FetcherConfig {
    FetcherConfig { back_off: Duration::ZERO, back_off_max: Duration::ZERO, ..FetcherConfig::default() }
}

impl Cluster {
    /// The node's replica wants this next.
    pub(super) fn want(&mut self, id: i32, position: FetchPosition) -> Result<(), Violation> {
        let partition = self.controller.partition();
        let node = self.node_mut(id)?;
        if position.leader == node.id {
            return Err(broken("R15", format!("node {id} fetches from itself")));
        }
        node.wanted = Some(position);
        node.fetchers.entry(position.leader).or_insert_with(|| Fetcher::new(config()));
        let others: Vec<NodeId> = node.fetchers.keys().copied().filter(|leader| *leader != position.leader).collect();
        for leader in others {
            self.fetcher(id, leader, FetcherInput::Forget(partition))?;
        }
        self.fetcher(id, position.leader, FetcherInput::Want(partition, position))
    }

    fn fetcher(&mut self, id: i32, leader: NodeId, input: FetcherInput) -> Result<(), Violation> {
        let mut effects = Vec::new();
        let now = self.now;
        let node = self.node_mut(id)?;
        if let Some(fetcher) = node.fetchers.get_mut(&leader) {
            fetcher.step(now, Wall(0), input, &mut Prng::new(0), &mut effects);
            fetcher.check();
        }
        for effect in effects {
            match effect {
                FetcherEffect::Send { request, partitions, .. } => self.send(id, leader, request, &partitions)?,
                FetcherEffect::Deliver(_, answer) => self.replicate(id, ReplicationInput::Answered(answer))?,
            }
        }
        Ok(())
    }

    fn send<P>(
        &mut self,
        id: i32,
        leader: NodeId,
        request: u64,
        partitions: &[(P, FetchPosition)],
    ) -> Result<(), Violation> {
        let node = self.node_mut(id)?;
        for (_, position) in partitions {
            let fetch = FollowerFetch { node_id: node.id, broker_epoch: node.broker_epoch, position: *position };
            let before = node.fetch.replace(Asked { leader, request, fetch });
            node.old_fetch = before.map(|before| before.fetch).or(node.old_fetch);
            node.answer = None;
        }
        Ok(())
    }

    /// The node's fetch reaches its leader.
    pub(super) fn fetch(&mut self, id: i32) -> Result<(), Violation> {
        let Some(asked) = self.node_mut(id)?.fetch.take() else { return Ok(()) };
        let answer = self.serve(&asked.fetch)?;
        let (leader, request) = (asked.leader, asked.request);
        self.node_mut(id)?.answer = answer.map(|answer| Answered { leader, request, answer });
        Ok(())
    }

    /// The answer reaches the node.
    pub(super) fn answer(&mut self, id: i32) -> Result<(), Violation> {
        let Some(Answered { leader, request, answer }) = self.node_mut(id)?.answer.take() else { return Ok(()) };
        let answers = vec![(self.controller.partition(), answer)];
        self.fetcher(id, leader, FetcherInput::Answered { request, answers })
    }

    /// The node's fetch is lost, as far as the node knows.
    pub(super) fn reset(&mut self, id: i32) -> Result<(), Violation> {
        let node = self.node_mut(id)?;
        let Some(asked) = node.fetch.take() else { return Ok(()) };
        node.old_fetch = Some(asked.fetch);
        self.fetcher(id, asked.leader, FetcherInput::Failed { request: asked.request })
    }

    /// The leader answers by its snapshot and counts the fetch if it was found valid.
    fn serve(&mut self, fetch: &FollowerFetch) -> Result<Option<FetchAnswer>, Violation> {
        let leader = fetch.position.leader.0;
        let Some(snapshot) = self.node(leader).and_then(|leader| leader.published.clone()) else { return Ok(None) };
        let (answer, counts) = snapshot.answer(&fetch.position, 1 << 20);
        if counts && snapshot.leader_epoch != Some(fetch.position.leader_epoch) {
            return Err(broken("R14", format!("a fetch of epoch {} is served", fetch.position.leader_epoch)));
        }
        if counts {
            let leader_incarnation = snapshot.incarnation;
            self.replicate(leader, ReplicationInput::Fetched(Fetched { fetch: *fetch, leader_incarnation }))?;
        }
        Ok(Some(answer))
    }

    /// What was given up reaches its leader all the same.
    pub(super) fn old(&mut self, id: i32) -> Result<(), Violation> {
        let node = self.node_mut(id)?;
        let (fetch, confirm) = (node.old_fetch.take(), node.old_confirm.take());
        if let Some(fetch) = fetch {
            self.serve(&fetch)?;
        }
        if let Some((leader, confirmed)) = confirm {
            self.replicate(leader.0, ReplicationInput::Confirmed(confirmed))?;
        }
        Ok(())
    }
}
