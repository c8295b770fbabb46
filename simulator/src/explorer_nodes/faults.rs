//! What goes wrong in the explored cluster, and how it comes back.
//! Invariant: at most as many copies are lost as the promise bears: one fewer than `min.insync.replicas`.

use std::time::Duration;

use madang_cluster::controller::{Proposal, ReportLoss};
use madang_cluster::replica::replication::{ProposalOutcome, ReplicationInput};
use madang_cluster::replica::{Durability, Replica};
use madang_protocol::types::NodeId;
use madang_storage::{Crash, RestartKind};

use super::cluster::{Cluster, Event};
use super::controller::Place;
use super::{MIN_IN_SYNC, broken, config};
use crate::sim::Violation;

impl Cluster {
    /// The faults that may happen now.
    pub(super) fn faults_now(&self, events: &mut Vec<Event>) {
        let may_lose = self.truth.losses() + 1 < MIN_IN_SYNC;
        let page_cache = self.setup.durability == Durability::PageCache;
        for node in &self.nodes {
            let id = node.id.0;
            if node.up {
                events.push(Event::Kill(id));
                if !page_cache || may_lose {
                    events.push(Event::Power(id));
                }
                let fenced = self.controller.image().broker(node.id).is_none_or(|broker| broker.fenced);
                if !fenced {
                    events.push(Event::Fence(id));
                }
            }
            if node.replica.is_some() {
                events.push(Event::Panic(id));
                let unconfirmed =
                    node.published.as_ref().is_some_and(|now| now.confirmed_end < now.view.log_end_offset());
                if (!page_cache || may_lose) && unconfirmed {
                    events.push(Event::Lose(id));
                }
            }
            if node.leads().is_some() {
                let others = self.nodes.iter().filter(|other| other.id != node.id);
                events.extend(others.map(|other| Event::Silent(id, other.id.0)));
            }
        }
        let flights = self.controller.in_flight.iter().enumerate();
        events.extend(flights.filter(|(_, flight)| flight.incarnation.is_some()).map(|(at, _)| Event::Forget(at)));
    }

    /// Lets a fault happen, or the end of one.
    pub(super) fn fault(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Forget(at) => self.forget(at),
            Event::Silent(id, other) => {
                self.replicate(id, ReplicationInput::Silent { node_id: NodeId(other), session: Duration::ZERO })
            }
            Event::Fence(id) | Event::Unfence(id) => self.fence(id, matches!(event, Event::Fence(_))),
            Event::Panic(id) => self.panic(id),
            Event::Lose(id) => {
                if self.node_mut(id)?.damage_last() {
                    self.node_mut(id)?.short = true;
                    // In fsync mode nobody counted on what no sync had confirmed.
                    if self.setup.durability == Durability::PageCache {
                        self.truth.lost(NodeId(id));
                    }
                }
                self.panic(id)
            }
            Event::Report(id) => self.report(id),
            Event::Kill(id) => self.crash(id, false),
            Event::Power(id) => self.crash(id, true),
            Event::Start(id) => self.start(id),
            _ => Ok(()),
        }
    }

    /// The leader gives up waiting; the proposal may still arrive.
    fn forget(&mut self, at: usize) -> Result<(), Violation> {
        let Some(flight) = self.controller.in_flight.get_mut(at) else { return Ok(()) };
        let (from, broker_epoch, incarnation, number) =
            (flight.from, flight.broker_epoch, flight.incarnation.take(), flight.number);
        if matches!(flight.place, Place::Answered(_)) {
            self.controller.in_flight.remove(at);
        }
        let node = self.node_mut(from.0)?;
        if node.broker_epoch == broker_epoch && Some(node.incarnation) == incarnation {
            let outcome = ProposalOutcome::Unknown;
            self.replicate(from.0, ReplicationInput::ProposalEnded { number, outcome })?;
        }
        Ok(())
    }

    fn fence(&mut self, id: i32, fenced: bool) -> Result<(), Violation> {
        let Some(broker) = self.controller.image().broker(NodeId(id)).cloned() else { return Ok(()) };
        let (node_id, broker_epoch) = (broker.node_id, broker.broker_epoch);
        let proposal = if fenced {
            Proposal::FenceBroker { node_id, broker_epoch }
        } else {
            Proposal::UnfenceBroker { node_id, broker_epoch }
        };
        self.controller.propose(proposal).map(drop)
    }

    fn panic(&mut self, id: i32) -> Result<(), Violation> {
        let durability = self.setup.durability;
        let node = self.node_mut(id)?;
        node.end_life();
        let log = node.reopen()?;
        let before = node.published.clone();
        let replica = match Replica::new(node.incarnation, log, config(durability), before.as_deref()) {
            Ok(replica) => replica,
            Err(lost) if node.short => {
                let log = node.reopen()?;
                Replica::after_loss(node.incarnation, log, config(durability), lost)
            }
            Err(lost) => return Err(broken("S1", format!("node {id}: {lost}"))),
        };
        node.replica = Some(replica);
        // What the last life had published is served no more, and the process knows the metadata that it knew.
        self.apply_known_metadata(id)
    }

    fn apply_known_metadata(&mut self, id: i32) -> Result<(), Violation> {
        let known = self.node_mut(id)?.applied;
        let partition = self.controller.partition();
        let image = self.controller.log.get(known).cloned().unwrap_or_default();
        match madang_cluster::replica::replication::Assignment::of(&image, partition, NodeId(id)) {
            Some(assignment) => self.replicate(id, ReplicationInput::Assign(Box::new(assignment))),
            None => Ok(()),
        }
    }

    fn report(&mut self, id: i32) -> Result<(), Violation> {
        let partition = self.controller.partition();
        let node = self.node_mut(id)?;
        let Some(loss) = node.loss.take() else { return Ok(()) };
        let (node_id, broker_epoch, incarnation) = (node.id, node.broker_epoch, loss.incarnation);
        let report = Proposal::ReportLoss(ReportLoss { partition, node_id, broker_epoch, incarnation });
        self.controller.propose(report).map(drop)
    }

    fn crash(&mut self, id: i32, power: bool) -> Result<(), Violation> {
        let durability = self.setup.durability;
        let node = self.node_mut(id)?;
        let left = match (power, durability) {
            (false, _) => RestartKind::SameBoot,
            (true, Durability::Fsync) => RestartKind::Durable,
            (true, Durability::PageCache) => RestartKind::Lossy,
        };
        node.end_process(left);
        if power {
            node.disk.lose_unsynced();
            node.noted = None;
        } else {
            node.disk.crash(Crash::Kill, &mut madang_actors::prng::Prng::new(1));
        }
        if power && durability == Durability::PageCache {
            self.truth.lost(NodeId(id));
        }
        Ok(())
    }

    pub(super) fn start(&mut self, id: i32) -> Result<(), Violation> {
        let durability = self.setup.durability;
        let node = self.node_mut(id)?;
        let (log, lost, high_watermark) = node.open(durability)?;
        let mut replica = match lost {
            Some(lost) => Replica::after_loss(node.incarnation, log, config(durability), lost),
            None => Replica::new(node.incarnation, log, config(durability), None)
                .map_err(|lost| broken("S1", lost.to_string()))?,
        };
        replica.starts_at(high_watermark);
        node.replica = Some(replica);
        node.up = true;
        let (left, before) = (node.left, node.broker_epoch);
        let broker_epoch = self.controller.register(NodeId(id), left, before)?;
        let newest = self.controller.log.len() - 1;
        let node = self.node_mut(id)?;
        (node.broker_epoch, node.applied) = (broker_epoch, newest);
        self.truth.registered(NodeId(id), left, self.controller.state().map(AsRef::as_ref))?;
        self.apply_metadata(id)
    }
}
