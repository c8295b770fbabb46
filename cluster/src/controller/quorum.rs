//! Raft among the controllers: one `RawNode`, its log on disk, and the syncs under way.
//! Invariant: a message or a commit that promises durability leaves only after the sync that it stands for.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_actors::prng::Prng;
use madang_protocol::types::NodeId;
use madang_storage::Disk;
use madang_storage::mutants::mutant;
use raft::eraftpb::{ConfChangeV2, Entry, HardState, Message, MessageType};
use raft::{INVALID_ID, RawNode, SnapshotStatus, StateRole};

use super::membership::Membership;
use super::raft_log::{RaftLog, SnapshotMeta, StoredSnapshot};
use super::records::encode_records;
use super::tail::Tail;
use super::{ControllerConfig, ControllerEffect, ControllerError, SyncTicket, dump};
use crate::metadata::MetadataImage;

/// Time between two ticks of Raft's clock.
const TICK: Duration = Duration::from_millis(100);
/// Ticks without a leader after which a voter may campaign, before the seeded extra.
const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 3;
/// Ticks after its start at which the first of the voters asks for votes if it has heard of no leader; each next one waits a tick more. What an earlier
/// life of a voter has told a leader is worth nothing by then, and where all have started at once nobody waits for a timeout.
const FIRST_TICKS: usize = 8;
const _: () = assert!(LEADER_LEASE.as_millis() < TICK.as_millis() * FIRST_TICKS as u128);
/// How often a voter may try to follow a dead leader before the next one may.
const TURN: usize = 2;
/// For so long a leader of the quorum may go on without a majority before it knows.
pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(1000);
/// For so long after a leader has asked a majority, and heard of it, nobody else is elected: a follower waits for an election timeout, which may have begun
/// a tick before; the rest is a margin for clocks.
pub const LEADER_LEASE: Duration = Duration::from_millis(750);
const _: () = assert!(LEADER_LEASE.as_millis() < ELECTION_TIMEOUT.as_millis() - TICK.as_millis());
const _: () = assert!(ELECTION_TIMEOUT.as_millis() == TICK.as_millis() * ELECTION_TICKS as u128);

/// A batch of writes whose sync is under way.
#[derive(Debug)]
struct Persisting {
    ticket: SyncTicket,
    ready: u64,
    generation: u64,
    position: u64,
    term: u64,
    messages: Vec<Message>,
}

/// What Raft has decided, in order.
#[derive(Debug)]
pub(super) enum Decided {
    Entries(Vec<Entry>),
    Snapshot(StoredSnapshot),
}

pub(super) struct Quorum {
    pub(super) node: RawNode<Tail>,
    log: RaftLog,
    persisting: VecDeque<Persisting>,
    next_ticket: u64,
    next_tick: Option<Mono>,
    /// Ticks until this voter asks for votes though its timeout is not over; none once it has, or has heard of a leader.
    first: Option<usize>,
    /// The term that this node is known to remember after a power cut.
    durable_term: u64,
    seeded: (u64, StateRole, usize),
    /// Of which leader's death this voter was told in which term, and how often.
    told: (u64, u64, usize),
    /// The ready that brought a snapshot which is not durable yet: Raft is not told before that it is applied.
    installing: Option<u64>,
    /// The newest question by which a majority has confirmed this leader, until it is taken.
    confirmed: Option<u64>,
}

/// What a voter knows of its quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuorumStatus {
    /// The newest term it has heard of.
    pub term: u64,
    /// Who leads in that term.
    pub leader: Option<NodeId>,
    /// Index of the last entry that is known to be committed.
    pub committed: u64,
    /// Index of the last entry of its log.
    pub last_index: u64,
}

/// Raft's number of a node: never 0.
pub(crate) fn raft_id(node: NodeId) -> u64 {
    u64::from(node.0.unsigned_abs()) + 1
}

/// The node of a Raft number; none for 0, which is nobody.
pub(super) fn node_of(raft_id: u64) -> Option<NodeId> {
    raft_id.checked_sub(1).and_then(|id| i32::try_from(id).ok()).map(NodeId)
}

/// What a log starts from. Every first voter starts from the same snapshot of nothing, so that none of them has an empty log to elect from. Any
/// other node starts from less, belongs to nobody, and is sent a snapshot once the leader counts it among the members.
fn first_snapshot(config: &ControllerConfig) -> Result<StoredSnapshot, ControllerError> {
    if !config.voters.contains(&config.node_id) {
        return Ok(StoredSnapshot::default());
    }
    let mut records = Vec::new();
    encode_records(&dump(&MetadataImage::default()), &mut records)?;
    let members = Membership::of(config.voters.iter().copied().map(raft_id).collect());
    Ok(StoredSnapshot { meta: SnapshotMeta { index: 1, term: 1, members }, records })
}

impl Quorum {
    pub(super) fn open(config: &ControllerConfig, disk: Arc<dyn Disk>) -> Result<Self, ControllerError> {
        let (log, loaded) = RaftLog::open(disk, &config.directory, &first_snapshot(config)?)?;
        let tail = Tail::new(loaded);
        let settings = raft::Config {
            id: raft_id(config.node_id),
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: tail.snapshot.meta.index,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let durable_term = tail.hard_state.term;
        let node = RawNode::new(&settings, tail, &logger).map_err(|error| ControllerError::Raft(error.to_string()))?;
        let seeded = (u64::MAX, StateRole::Follower, 0);
        let (persisting, installing) = (VecDeque::new(), None);
        Ok(Self {
            node,
            log,
            persisting,
            next_ticket: 1,
            next_tick: None,
            first: None,
            durable_term,
            seeded,
            told: (INVALID_ID, 0, 0),
            installing,
            confirmed: None,
        })
    }

    pub(super) fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The members, as far as this one has applied changes of them.
    pub(super) fn members(&self) -> &Membership {
        &self.node.store().snapshot.meta.members
    }

    /// Whether this is the only member.
    pub(super) fn is_lone(&self) -> bool {
        self.members().is_lone(self.node.raft.id)
    }

    /// Who leads, as far as this member knows. One who does not vote elects nobody when it hears nothing, and Raft believes in its leader for ever.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let raft = &self.node.raft;
        let silent = raft.state != StateRole::Leader && raft.election_elapsed > 2 * ELECTION_TICKS;
        node_of(raft.leader_id).filter(|_| !silent)
    }

    pub(super) fn status(&self) -> QuorumStatus {
        let raft = &self.node.raft;
        let (committed, last_index) = (raft.raft_log.committed, raft.raft_log.last_index());
        QuorumStatus { term: raft.term, leader: self.leader(), committed, last_index }
    }

    pub(super) fn unreachable(&mut self, voter: NodeId) {
        self.node.report_unreachable(raft_id(voter));
    }

    /// A leader that is dead is not waited for. One voter campaigns: several at once would split the votes. Told again, it asks again, as the
    /// others may have believed in the dead one when they were asked; told more often, it is another one's turn, as the first may lack what others
    /// have.
    pub(super) fn dead(&mut self, voter: NodeId) -> Result<(), String> {
        let (raft, dead) = (&mut self.node.raft, raft_id(voter));
        let waits = matches!(raft.state, StateRole::Follower | StateRole::PreCandidate);
        if !waits || ![dead, INVALID_ID].contains(&raft.leader_id) {
            return Ok(());
        }
        let (term, own) = (raft.term, raft.id);
        raft.become_follower(term, INVALID_ID);
        // It has drawn a timeout of its own, which may by chance be the one that it had.
        self.seeded.0 = u64::MAX;
        let told = if (self.told.0, self.told.1) == (dead, term) { self.told.2 } else { 0 };
        self.told = (dead, term, told + 1);
        let living: Vec<u64> = self.members().voters.iter().copied().filter(|id| *id != dead).collect();
        let turn = living.get(told / TURN % living.len().max(1)).copied();
        if turn == Some(own) { self.node.campaign().map_err(|error| error.to_string()) } else { Ok(()) }
    }

    pub(super) fn snapshot_sent(&mut self, voter: NodeId, delivered: bool) {
        let status = if delivered { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(raft_id(voter), status);
    }

    pub(super) fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// Who is alone needs no clock: it leads from its first step on.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.next_tick.filter(|_| !(self.is_lone() && self.is_leader()))
    }

    pub(super) fn start(&mut self, now: Mono) -> Result<(), String> {
        self.next_tick = Some(now + TICK);
        let own = self.node.raft.id;
        self.first = self.members().voters.iter().position(|id| *id == own).map(|turn| FIRST_TICKS + turn);
        let alone = self.members().is_sole_voter(own);
        if alone { self.node.campaign().map_err(|error| error.to_string()) } else { Ok(()) }
    }

    /// Whether any time has passed that counts.
    pub(super) fn tick(&mut self, now: Mono) -> Result<bool, String> {
        let before = self.next_tick;
        while let Some(due) = self.deadline().filter(|due| *due <= now) {
            // A node that slept does not run through every tick it missed.
            let late = now.saturating_since(due) > TICK * ELECTION_TICKS as u32;
            self.next_tick = Some(if late { now + TICK } else { due + TICK });
            self.node.tick();
            self.ask_for_first()?;
        }
        Ok(self.next_tick != before)
    }

    /// Asks for votes once its turn has come, if it has heard of no leader yet; whoever has does not listen.
    fn ask_for_first(&mut self) -> Result<(), String> {
        let raft = &self.node.raft;
        let waits = raft.state == StateRole::Follower && raft.leader_id == INVALID_ID;
        self.first = self.first.filter(|_| waits).map(|left| left.saturating_sub(1));
        if self.first.take_if(|left| *left == 0).is_some() {
            self.node.campaign().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Raft draws its election timeout from the thread's generator; this replaces each draw by a seeded one.
    fn seed_election_timeout(&mut self, rng: &mut Prng) {
        let raft = &mut self.node.raft;
        if (raft.term, raft.state, raft.randomized_election_timeout()) != self.seeded {
            raft.set_randomized_election_timeout(ELECTION_TICKS + rng.below(ELECTION_TICKS as u64) as usize);
            self.seeded = (raft.term, raft.state, raft.randomized_election_timeout());
        }
    }

    /// Asks the other voters whether this is still the leader. Numbers of questions only grow; a leader that has committed nothing yet asks nobody.
    pub(super) fn confirm(&mut self, number: u64) {
        self.node.read_index(number.to_le_bytes().to_vec());
    }

    /// The newest question that a majority has answered: all before it are answered with it.
    pub(super) const fn take_confirmed(&mut self) -> Option<u64> {
        self.confirmed.take()
    }

    /// Takes all that Raft has ready: writes it, asks for syncs, sends what may go. The answer is what was decided. `image` is the
    /// metadata up to the last decided entry before.
    pub(super) fn advance(
        &mut self,
        image: &MetadataImage,
        rng: &mut Prng,
        effects: &mut Vec<ControllerEffect>,
    ) -> Result<Option<Decided>, String> {
        self.seed_election_timeout(rng);
        if !self.node.has_ready() {
            return Ok(None);
        }
        let mut ready = self.node.ready();
        let at_once = ready.take_messages();
        let confirmed = ready.take_read_states().into_iter().filter_map(|state| state.request_ctx.try_into().ok());
        self.confirmed = confirmed.map(u64::from_le_bytes).max().max(self.confirmed);
        let snapshot = (ready.snapshot().get_metadata().index > 0).then(|| ready.snapshot().clone());
        let entries = ready.take_entries();
        let hard_state = ready.hs().cloned();
        if let Some(state) = &hard_state {
            self.node.mut_store().hard_state = state.clone();
        }
        let installed = snapshot.map(|snapshot| stored(&snapshot));
        if let Some(snapshot) = &installed {
            self.node.mut_store().entries.clear();
            self.node.mut_store().compact(snapshot.clone());
        }
        self.node.mut_store().append(&entries);
        self.write(image, installed.as_ref(), &entries, hard_state.as_ref()).map_err(|error| error.to_string())?;
        let (number, must_sync) = (ready.number(), ready.must_sync());
        let mut messages = ready.take_persisted_messages();
        if self.node.raft.term > self.durable_term && !mutant(61) {
            // A sole voter leads as soon as it wants to. Nobody may hear of a term that it could enter a second time.
            messages.splice(..0, at_once);
        } else {
            effects.extend(at_once.into_iter().filter_map(send));
        }
        if mutant(11) {
            effects.extend(mem::take(&mut messages).into_iter().filter_map(send));
        }
        let committed = ready.take_committed_entries();
        self.node.advance_append_async(ready);
        if installed.is_some() {
            self.installing = Some(number);
        }
        self.persist(number, must_sync, messages, effects);
        Ok(Some(installed.map_or(Decided::Entries(committed), Decided::Snapshot)))
    }

    /// All that was decided is applied.
    pub(super) fn applied(&mut self) {
        if self.installing.is_none() || mutant(49) {
            self.node.advance_apply();
        }
    }

    /// Everything up to this ready is durable.
    fn persisted(&mut self, ready: u64) {
        self.node.on_persist_ready(ready);
        if self.installing.take_if(|installing| *installing <= ready).is_some() {
            self.node.advance_apply();
        }
    }

    fn write(
        &mut self,
        image: &MetadataImage,
        installed: Option<&StoredSnapshot>,
        entries: &[Entry],
        hard_state: Option<&HardState>,
    ) -> Result<(), ControllerError> {
        if installed.is_none() && self.log.fits(entries, hard_state) {
            return Ok(self.log.append(entries, hard_state)?);
        }
        let snapshot = match installed {
            Some(snapshot) => snapshot.clone(),
            None => self.snapshot_of(image, self.members().clone())?,
        };
        let tail = self.node.mut_store();
        tail.compact(snapshot);
        Ok(self.log.roll(&tail.snapshot, &tail.entries, &tail.hard_state)?)
    }

    /// Goes by a committed change of the members, with a snapshot that names them: whoever comes takes no other, and no start has to find out from the
    /// commit index that happened to be synced who votes.
    pub(super) fn change_members(&mut self, image: &MetadataImage, change: &ConfChangeV2) -> Result<(), String> {
        let state = self.node.apply_conf_change(change).map_err(|error| error.to_string())?;
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader && !raft.prs().conf().voters().contains(raft.id) {
            // A leader before it has begun this: Raft counts on its leader's own progress.
            let term = raft.term;
            raft.become_follower(term, INVALID_ID);
        }
        let snapshot = self.snapshot_of(image, Membership::of_state(&state)).map_err(|error| error.to_string())?;
        let tail = self.node.mut_store();
        tail.compact(snapshot);
        self.log.roll(&tail.snapshot, &tail.entries, &tail.hard_state).map_err(|error| error.to_string())
    }

    fn snapshot_of(&self, image: &MetadataImage, members: Membership) -> Result<StoredSnapshot, ControllerError> {
        let mut records = Vec::new();
        encode_records(&dump(image), &mut records)?;
        let tail = self.node.store();
        let applied = if mutant(48) { self.last_index() } else { image.version() };
        let index = applied.max(tail.snapshot.meta.index);
        let term = raft::Storage::term(tail, index).map_err(|error| ControllerError::Raft(error.to_string()))?;
        Ok(StoredSnapshot { meta: SnapshotMeta { index, term, members }, records })
    }

    fn persist(&mut self, ready: u64, must_sync: bool, messages: Vec<Message>, effects: &mut Vec<ControllerEffect>) {
        let (file, generation, position) = self.log.sync_target();
        if must_sync {
            let ticket = SyncTicket(self.next_ticket);
            self.next_ticket += 1;
            let term = self.node.store().hard_state.term;
            self.persisting.push_back(Persisting { ticket, ready, generation, position, term, messages });
            effects.push(ControllerEffect::Sync { ticket, file });
        } else if let Some(last) = self.persisting.back_mut() {
            last.ready = ready;
            last.messages.extend(messages);
        } else {
            effects.extend(messages.into_iter().filter_map(send));
            self.persisted(ready);
        }
    }

    /// A sync has succeeded, and with it every one asked for before.
    pub(super) fn synced(&mut self, ticket: SyncTicket, effects: &mut Vec<ControllerEffect>) {
        let mut persisted = None;
        while let Some(done) = self.persisting.pop_front_if(|oldest| oldest.ticket <= ticket) {
            self.log.synced(done.generation, done.position);
            self.durable_term = self.durable_term.max(done.term);
            effects.extend(done.messages.into_iter().filter_map(send));
            persisted = Some(done.ready);
        }
        if let Some(number) = persisted {
            self.persisted(number);
        }
    }
}

fn send(message: Message) -> Option<ControllerEffect> {
    let is_snapshot = message.msg_type == MessageType::MsgSnapshot;
    Some(ControllerEffect::Send { to: node_of(message.to)?, message: Box::new(message), is_snapshot })
}

fn stored(snapshot: &raft::eraftpb::Snapshot) -> StoredSnapshot {
    let metadata = snapshot.get_metadata();
    let members = Membership::of_state(metadata.get_conf_state());
    StoredSnapshot {
        meta: SnapshotMeta { index: metadata.index, term: metadata.term, members },
        records: snapshot.data.to_vec(),
    }
}
