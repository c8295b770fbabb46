//! What voters do to each other and what is done to them: messages, syncs, starts, ends, cuts, frozen processes.
//! Invariant: after [`World::heal`] nothing is lost, cut, frozen or down for good.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use madang_cluster::controller::{ControllerEffect, ControllerError, ControllerInput, RaftLogError, SyncTicket};
use madang_protocol::types::NodeId;
use madang_storage::{Crash, DiskFile};
use raft::eraftpb::Message;

use super::voter::DIRECTORY;
use super::{Event, World, place};
use crate::sim::Violation;

/// The longest that a process is down, in microseconds.
const DOWN: u64 = 4_000_000;
/// The longest that a link is cut or a process frozen, in microseconds.
const AWAY: u64 = 6_000_000;

impl World {
    pub(super) fn perform(&mut self, voter: usize, effect: ControllerEffect) -> Result<(), Violation> {
        match effect {
            ControllerEffect::Sync { ticket, file } => {
                if let Some(life) = self.voters[voter].life_now() {
                    self.plan_sync(voter, life, ticket, file);
                }
                Ok(())
            }
            ControllerEffect::Publish { image, .. } => self.checks.published(self.voters[voter].node_id, &image),
            ControllerEffect::Reply { request, result } => self.answered(voter, request, result),
            ControllerEffect::Send { to, message, is_snapshot } => {
                self.checks.sent(self.voters[voter].node_id, &message)?;
                self.send(voter, to, message, is_snapshot);
                Ok(())
            }
            ControllerEffect::Leader(_) => Ok(()),
            ControllerEffect::Voters(_) => {
                // The moment in which a member goes by a change has to be one in which it remembers it.
                if self.stormy && self.growing && self.rng.chance(1, 6) {
                    self.crash(voter, Crash::Power, "power cut at a change of members");
                }
                Ok(())
            }
            ControllerEffect::Fatal(_) => {
                // Its shell ends the process; what the failed sync was for may be gone.
                self.end(voter, Crash::Kill);
                Ok(())
            }
        }
    }

    fn plan_sync(&mut self, voter: usize, life: u64, ticket: SyncTicket, file: Arc<dyn DiskFile>) {
        self.voters[voter].unsynced.push_back((ticket, file));
        if !self.voters[voter].syncing {
            self.begin_sync(voter, life);
        }
    }

    /// One sync after the other, as the log has one thread for them, each for all that wait for the same file.
    fn begin_sync(&mut self, voter: usize, life: u64) {
        let waiting = &mut self.voters[voter].unsynced;
        let Some((mut ticket, file)) = waiting.pop_front() else { return };
        while let Some((later, _)) = waiting.pop_front_if(|(_, next)| Arc::ptr_eq(next, &file)) {
            ticket = later;
        }
        self.voters[voter].syncing = true;
        let takes = Duration::from_micros(10 + self.rng.below(self.swarm.sync));
        self.at(self.now + takes, Event::Synced { voter, life, ticket, file });
    }

    pub(super) fn synced(
        &mut self,
        voter: usize,
        life: u64,
        ticket: SyncTicket,
        file: &Arc<dyn DiskFile>,
    ) -> Result<(), Violation> {
        if self.voters[voter].life_now() != Some(life) {
            return Ok(());
        }
        let event = Event::Synced { voter, life, ticket, file: Arc::clone(file) };
        if self.voters[voter].hold_event(event).is_none() {
            return Ok(());
        }
        let result = file.sync().map_err(|error| error.to_string());
        self.voters[voter].syncing = false;
        if result.is_ok() {
            self.begin_sync(voter, life);
        }
        self.step(voter, ControllerInput::Synced { ticket, result })
    }

    fn send(&mut self, from: usize, to: NodeId, message: Box<Message>, is_snapshot: bool) {
        self.snapshots += u64::from(is_snapshot);
        let receiver = place(to);
        let lost = self.stormy && self.rng.chance(self.swarm.loss, 1000);
        let carried = !lost && !self.cut.contains(&(from, receiver)) && self.voters[receiver].life_now().is_some();
        if lost {
            self.struck("message lost");
        }
        if carried {
            if self.stormy && self.rng.chance(self.swarm.twice, 1000) {
                self.struck("message twice");
                let message = message.clone();
                self.after(self.swarm.delay * 4, Event::Deliver { to: receiver, message });
            }
            self.after(self.swarm.delay, Event::Deliver { to: receiver, message });
        }
        // A sender hears of every snapshot, and of other losses now and then.
        if is_snapshot || (!carried && self.rng.chance(1, 2)) {
            let Some(life) = self.voters[from].life_now() else { return };
            let fate = Event::Fate { of: from, life, to, is_snapshot, delivered: carried };
            self.after(self.swarm.delay * 2, fate);
        }
    }

    pub(super) fn start(&mut self, voter: usize) -> Result<(), Violation> {
        if self.voters[voter].life_now().is_some() {
            return Ok(());
        }
        match self.voters[voter].start() {
            Ok(()) => {}
            // Its device fails; the process ends, and its supervisor tries again.
            Err(ControllerError::Log(RaftLogError::Io(_))) => {
                self.end(voter, Crash::Kill);
                return Ok(());
            }
            Err(error) => {
                let what = format!("the log of node {} does not open: {error}", self.voters[voter].node_id);
                return Err(Violation { code: "C3", what });
            }
        }
        if let Some(status) = self.voters[voter].status() {
            self.checks.started(self.voters[voter].node_id, status)?;
        }
        self.step(voter, ControllerInput::Start)
    }

    fn end(&mut self, voter: usize, crash: Crash) {
        self.voters[voter].end(crash);
        self.work.forget(voter);
        self.tell_of_death(voter);
        let within = if self.stormy { DOWN } else { 100_000 };
        self.after(within, Event::Start { voter });
    }

    /// Whoever ran the process tells the others, and not all of them hear it.
    fn tell_of_death(&mut self, dead: usize) {
        let node_id = self.voters[dead].node_id;
        for voter in (0..self.voters.len()).filter(|voter| *voter != dead) {
            let Some(life) = self.voters[voter].life_now() else { continue };
            if self.rng.chance(1, 2) {
                self.after(self.swarm.delay, Event::Input { voter, life, input: ControllerInput::Dead(node_id) });
            }
        }
    }

    pub(super) fn struck(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if !self.stormy {
            return Ok(());
        }
        let voter = self.rng.below(self.voters.len() as u64) as usize;
        let other = self.rng.below(self.voters.len() as u64) as usize;
        match self.rng.below(16) {
            0..=2 => self.crash(voter, Crash::Kill, "process killed"),
            3..=5 => self.crash(voter, Crash::Power, "power cut"),
            6 => {
                for voter in 0..self.voters.len() {
                    self.crash(voter, Crash::Power, "power cut of all");
                }
            }
            7..=8 => self.freeze(voter),
            9 => self.freeze_leader(),
            10..=11 => self.cut_link(voter, other, "link cut one way"),
            12..=13 => {
                for other in 0..self.voters.len() {
                    self.cut_link(voter, other, "node cut off");
                    self.cut_link(other, voter, "node cut off");
                }
            }
            _ => self.fail_sync(voter),
        }
        self.after(self.swarm.calm, Event::Fault);
        Ok(())
    }

    fn crash(&mut self, voter: usize, crash: Crash, what: &'static str) {
        if self.voters[voter].life_now().is_some() {
            self.struck(what);
            self.end(voter, crash);
        }
    }

    fn freeze(&mut self, voter: usize) {
        let Some(life) = self.voters[voter].life_now().filter(|_| !self.voters[voter].is_frozen()) else { return };
        self.struck("process frozen");
        self.voters[voter].freeze();
        self.after(AWAY, Event::Thaw { voter, life });
    }

    fn freeze_leader(&mut self) {
        let leader = self.voters.iter().position(|voter| voter.controller.as_ref().is_some_and(|one| one.is_leader()));
        if let Some(leader) = leader {
            self.freeze(leader);
        }
    }

    fn cut_link(&mut self, from: usize, to: usize, what: &'static str) {
        if from != to && self.cut.insert((from, to)) {
            self.struck(what);
            self.after(AWAY, Event::Mend { from, to });
        }
    }

    fn fail_sync(&mut self, voter: usize) {
        if self.voters[voter].life_now().is_none() {
            return;
        }
        let (disk, folder) = (&self.voters[voter].disk, Path::new(DIRECTORY));
        let logs = disk.surviving_names(folder).into_iter().filter(|name| name.ends_with(".log"));
        let path = logs.max().map(|name| folder.join(name));
        if path.is_some_and(|path| disk.fail_next_sync(&path).is_ok()) {
            self.struck("sync failed");
        }
    }

    /// Nothing strikes any more.
    pub(super) fn heal(&mut self) {
        self.stormy = false;
        self.cut.clear();
        for voter in 0..self.voters.len() {
            self.voters[voter].disk.mend();
            if let Some(life) = self.voters[voter].life_now() {
                self.after(1000, Event::Thaw { voter, life });
            } else {
                self.after(100_000, Event::Start { voter });
            }
        }
    }
}
