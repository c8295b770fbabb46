//! One voter: its disk, its process if it has one, and what that process has been given and not taken.
//! Invariant: what a life was asked to do never reaches the next one.

use std::collections::VecDeque;
use std::sync::Arc;

use madang_actors::clock::{Mono, Wall};
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_cluster::configs::BrokerConfig;
use madang_cluster::controller::{
    Controller, ControllerConfig, ControllerEffect, ControllerError, ControllerInput, QuorumStatus, SyncTicket,
};
use madang_protocol::types::NodeId;
use madang_storage::{Crash, DiskFile, FaultDisk};

use super::{Event, place};

/// Where the metadata log is.
pub(super) const DIRECTORY: &str = "/metadata";

/// A voter, alive or not.
pub(super) struct Voter {
    pub(super) node_id: NodeId,
    pub(super) disk: FaultDisk,
    config: ControllerConfig,
    rng: Prng,
    life: u64,
    pub(super) controller: Option<Controller>,
    /// Held while the process is frozen.
    frozen: Option<Vec<Event>>,
    armed: Option<Mono>,
    /// What its log's sync thread has been asked and has not begun.
    pub(super) unsynced: VecDeque<(SyncTicket, Arc<dyn DiskFile>)>,
    /// Whether that thread is at work.
    pub(super) syncing: bool,
}

impl Voter {
    pub(super) fn new(node_id: NodeId, voters: &[NodeId], rng: Prng) -> Self {
        let named = BrokerConfig::parse([("node.id".to_owned(), node_id.0.to_string())]);
        let broker = named.map(|(config, _)| config).unwrap_or_default();
        let config = ControllerConfig {
            node_id,
            voters: voters.to_vec(),
            cluster_id: None,
            broker,
            directory: DIRECTORY.into(),
        };
        let disk = FaultDisk::new();
        let (unsynced, syncing) = (VecDeque::new(), false);
        Self { node_id, disk, config, rng, life: 0, controller: None, frozen: None, armed: None, unsynced, syncing }
    }

    /// The number of the life that is going on.
    pub(super) fn life_now(&self) -> Option<u64> {
        self.controller.as_ref().map(|_| self.life)
    }

    pub(super) const fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    pub(super) fn status(&self) -> Option<QuorumStatus> {
        self.controller.as_ref().map(Controller::status)
    }

    /// Opens the log.
    pub(super) fn start(&mut self) -> Result<(), ControllerError> {
        self.life += 1;
        (self.frozen, self.armed, self.syncing) = (None, None, false);
        self.unsynced.clear();
        self.controller = Some(Controller::open(self.config.clone(), Arc::new(self.disk.clone()))?);
        Ok(())
    }

    /// The process ends here and now.
    pub(super) fn end(&mut self, crash: Crash) {
        self.controller = None;
        (self.frozen, self.armed) = (None, None);
        self.disk.crash(crash, &mut self.rng);
    }

    pub(super) fn freeze(&mut self) {
        self.frozen.get_or_insert_default();
    }

    /// What came while it was frozen.
    pub(super) fn thaw(&mut self, life: u64) -> Vec<Event> {
        if self.life == life { self.frozen.take().unwrap_or_default() } else { Vec::new() }
    }

    /// Gives the input back if the process can take it now.
    pub(super) fn hold(&mut self, life: u64, input: ControllerInput) -> Option<ControllerInput> {
        let Some(held) = &mut self.frozen else { return Some(input) };
        let voter = place(self.node_id);
        match input {
            ControllerInput::Message(message) => held.push(Event::Deliver { to: voter, message }),
            input => held.push(Event::Input { voter, life, input }),
        }
        None
    }

    pub(super) fn hold_event(&mut self, event: Event) -> Option<Event> {
        match &mut self.frozen {
            Some(held) => {
                held.push(event);
                None
            }
            None => Some(event),
        }
    }

    pub(super) fn step(&mut self, now: Mono, wall: Wall, input: ControllerInput) -> Vec<ControllerEffect> {
        let mut effects = Vec::new();
        if let Some(controller) = &mut self.controller {
            controller.step(now, wall, input, &mut self.rng, &mut effects);
            controller.check();
        }
        effects
    }

    /// The deadline, if it is an earlier one than the one that is armed, or that one has passed.
    pub(super) fn deadline_to_arm(&mut self) -> Option<(u64, Mono)> {
        let deadline = self.controller.as_ref().and_then(Machine::deadline)?;
        if self.armed == Some(deadline) {
            return None;
        }
        self.armed = Some(deadline);
        Some((self.life, deadline))
    }
}
