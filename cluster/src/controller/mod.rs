//! The controller: the one that changes the metadata, on top of a Raft log among the voters.
//! Invariant: the metadata changes only by `replay` of committed entries; a proposal is answered only after its entry, and every entry
//! that its answer depends on, is committed and durable.

#[cfg(feature = "host")]
pub mod actor;
mod api;
mod balance;
mod brokers;
mod configs;
#[cfg(test)]
mod damage_tests;
mod described;
mod draft;
mod elections;
mod founding;
mod leadership;
mod members;
mod membership;
mod partitions;
mod placement;
mod quorum;
mod raft_log;
mod reassignments;
pub mod records;
mod replay;
mod sessions;
mod tail;
#[cfg(test)]
mod tests;
mod topics;

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use madang_actors::clock::{Mono, Wall};
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_protocol::ErrorCode;
use madang_protocol::types::{NodeId, Uuid};
use madang_storage::mutants::mutant;
use madang_storage::{Disk, DiskFile};
use raft::eraftpb::{Entry, EntryType, Message};
use thiserror::Error;

pub use self::api::{
    AlterOp, AlterPartition, ApiError, ApiResult, ConfigAlteration, CreatedTopic, DeletedTopic, InternalTopic,
    LogDirStart, MAX_PARTITIONS_PER_REQUEST, MorePartitions, NamedPartition, NewTopic, Outcome, PRODUCER_ID_BLOCK,
    Proposal, Reassignment, RegisterBroker, ReportLoss, ResourceAlteration, ResourceReplacement, TopicRef,
};
use self::balance::Balance;
use self::described::Heard;
pub use self::described::{QuorumDescription, QuorumMember};
pub use self::draft::{Decision, decide};
use self::leadership::Beats;
pub use self::members::{MemberChange, MemberRole};
pub use self::membership::Membership;
pub(crate) use self::quorum::raft_id;
use self::quorum::{Decided, Quorum};
pub use self::quorum::{ELECTION_TIMEOUT, LEADER_LEASE, QuorumStatus};
pub use self::raft_log::{Loaded, RaftLog, RaftLogError, SnapshotMeta, StoredSnapshot};
use self::records::{MetadataRecord, RecordError, decode_records, encode_records};
pub use self::replay::{dump, replay};
use self::sessions::Sessions;
pub use self::topics::check_name as check_topic_name;
use crate::configs::BrokerConfig;
use crate::metadata::{Fnv, MetadataDelta, MetadataImage};
use crate::request::RequestId;

/// Number of a sync of the metadata log. They are asked for and complete in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncTicket(pub u64);

/// What a controller needs to know to start.
#[derive(Clone, Debug)]
pub struct ControllerConfig {
    /// The node it runs on.
    pub node_id: NodeId,
    /// The first voters; counts only at the very first start. A node that is not among them waits until it is counted among the members.
    pub voters: Vec<NodeId>,
    /// The id that the cluster is to have, if it has none yet; none for any.
    pub cluster_id: Option<Uuid>,
    /// The node's settings: defaults of new topics.
    pub broker: BrokerConfig,
    /// Where the metadata log lives; nothing else does.
    pub directory: PathBuf,
}

/// Why a controller cannot start.
#[derive(Debug, Error)]
pub enum ControllerError {
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] RaftLogError),
    /// A record cannot be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Raft refuses what it was given.
    #[error("raft: {0}")]
    Raft(String),
}

/// What can happen to a controller.
#[derive(Debug)]
pub enum ControllerInput {
    /// The first input of its life: a lone voter elects itself at once.
    Start,
    /// Time alone has passed.
    Tick,
    /// Something to change.
    Propose {
        /// Who asks.
        request: RequestId,
        /// What.
        proposal: Proposal,
    },
    /// A sync has ended. One ticket's success stands for all before it.
    Synced {
        /// Which.
        ticket: SyncTicket,
        /// How; an error's text.
        result: Result<(), String>,
    },
    /// Another voter's message.
    Message(Box<Message>),
    /// A message to that voter was lost, as far as its sender knows.
    Unreachable(NodeId),
    /// A snapshot has reached that voter, or has not. Has to come for each one sent: the voter is sent nothing else before.
    SnapshotSent {
        /// The voter.
        to: NodeId,
        /// Whether it has it.
        delivered: bool,
    },
    /// The process of that voter is dead: whoever ran it has reaped it.
    Dead(NodeId),
    /// A broker is alive. Answered like a proposal, with [`Outcome::Fenced`], once a majority of the voters has said since then that this is the leader.
    Heartbeat {
        /// Who asks.
        request: RequestId,
        /// The broker.
        node_id: NodeId,
        /// The registration it has.
        broker_epoch: i64,
    },
}

/// What a controller asks of its shell. Effects are performed in order.
#[derive(Debug)]
pub enum ControllerEffect {
    /// Sync the file on the metadata log's own thread and return [`ControllerInput::Synced`]. Syncs are done in order; if several
    /// wait for one file, one sync for the last ticket is enough.
    Sync {
        /// Which.
        ticket: SyncTicket,
        /// What.
        file: Arc<dyn DiskFile>,
    },
    /// Committed metadata changed: make it visible. Comes before every reply that follows from it. The first one, after
    /// [`ControllerInput::Start`], is the snapshot that the log starts from.
    Publish {
        /// The metadata now.
        image: Arc<MetadataImage>,
        /// What changed since the one published before.
        delta: Arc<MetadataDelta>,
    },
    /// Answer a proposal: committed and durable already.
    Reply {
        /// Who asked.
        request: RequestId,
        /// How it ended. `NOT_CONTROLLER` says nothing about whether the change will be made.
        result: ApiResult<Outcome>,
    },
    /// Send to that voter. May be lost, and then [`ControllerInput::Unreachable`] says so where the sender knows.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Box<Message>,
        /// Whether it is a snapshot, and [`ControllerInput::SnapshotSent`] has to follow.
        is_snapshot: bool,
    },
    /// Who leads the quorum has changed, as far as this voter knows.
    Leader(Option<NodeId>),
    /// Who votes has changed, or is known now, as far as this member knows.
    Voters(Vec<NodeId>),
    /// The controller cannot go on: its log failed. It takes no further input; the process has to open it anew.
    Fatal(String),
}

/// An answer that waits until the entry at `index` is applied.
#[derive(Debug)]
struct Waiting {
    index: u64,
    request: RequestId,
    result: ApiResult<Outcome>,
}

/// A voter of the metadata quorum; the elected one takes proposals.
pub struct Controller {
    node_id: NodeId,
    cluster_id: Option<Uuid>,
    defaults: BrokerConfig,
    quorum: Quorum,
    sessions: Sessions,
    balance: Balance,
    heard: Heard,
    beats: Beats,
    /// The leader that was told last.
    leader: Option<NodeId>,
    /// The members that were told last.
    members: Membership,
    /// The other voter that led last, as far as this one knows.
    predecessor: Option<NodeId>,
    /// What is committed.
    image: MetadataImage,
    /// What will be, once all that was proposed is committed; only on the leader.
    pending: Option<MetadataImage>,
    waiting: VecDeque<Waiting>,
    failed: bool,
}

impl Controller {
    /// Opens the metadata log, or starts one. What is in the log is published when it is known to be committed: on a lone voter after
    /// the first sync.
    ///
    /// # Errors
    /// A log that the disk does not give, or that is damaged. Nothing was deleted then.
    pub fn open(config: ControllerConfig, disk: Arc<dyn Disk>) -> Result<Self, ControllerError> {
        let quorum = Quorum::open(&config, disk)?;
        let mut image = MetadataImage::default();
        load_snapshot(&mut image, &quorum.node.store().snapshot)?;
        let (waiting, pending) = (VecDeque::new(), None);
        let sessions = Sessions::new(config.node_id, config.broker.broker_session_timeout);
        let (balance, heard) = (Balance::new(&config.broker), Heard::default());
        let (node_id, cluster_id, defaults) = (config.node_id, config.cluster_id, config.broker);
        let (leader, predecessor, members) = (None, None, Membership::default());
        Ok(Self {
            node_id,
            cluster_id,
            defaults,
            quorum,
            sessions,
            balance,
            heard,
            beats: Beats::default(),
            leader,
            members,
            predecessor,
            image,
            pending,
            waiting,
            failed: false,
        })
    }

    /// The committed metadata.
    #[must_use]
    pub const fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// What this voter knows of the quorum.
    #[must_use]
    pub fn status(&self) -> QuorumStatus {
        self.quorum.status()
    }

    /// Whether this voter takes proposals.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.quorum.is_leader()
    }

    fn handle(
        &mut self,
        now: Mono,
        wall: Wall,
        input: ControllerInput,
        rng: &mut Prng,
        effects: &mut Vec<ControllerEffect>,
    ) -> Result<(), String> {
        let ticked = self.quorum.tick(now)?;
        match input {
            ControllerInput::Start => {
                let delta = MetadataDelta::full(&self.image);
                effects.push(ControllerEffect::Publish { image: Arc::new(self.image.clone()), delta: Arc::new(delta) });
                self.quorum.start(now)?;
            }
            ControllerInput::Tick => {}
            ControllerInput::Propose { request, proposal: Proposal::DescribeQuorum } => {
                let result = self.describe_quorum(wall);
                effects.push(ControllerEffect::Reply { request, result });
            }
            ControllerInput::Propose { request, proposal } => self.propose(request, proposal, rng, effects)?,
            ControllerInput::Synced { ticket, result: Ok(()) } => self.quorum.synced(ticket, effects),
            ControllerInput::Synced { result: Err(why), .. } => return Err(format!("sync of the metadata log: {why}")),
            // A message that Raft refuses is one of a node that is not, or no longer, a voter.
            ControllerInput::Message(message) => {
                self.heard.from(message.from, wall);
                drop(self.quorum.node.step(*message));
            }
            ControllerInput::Unreachable(voter) => self.quorum.unreachable(voter),
            ControllerInput::Dead(voter) => self.quorum.dead(voter)?,
            ControllerInput::SnapshotSent { to, delivered } => self.quorum.snapshot_sent(to, delivered),
            ControllerInput::Heartbeat { request, node_id, broker_epoch } => {
                self.heartbeat(now, request, (node_id, broker_epoch), effects);
            }
        }
        self.settle(rng, effects)?;
        self.tend_members();
        self.settle(rng, effects)?;
        self.answer_heartbeats(now, ticked, effects);
        self.settle(rng, effects)?;
        self.tell_members(effects);
        self.follow_leadership(now, rng, effects)?;
        self.found_cluster(rng, effects)?;
        self.tend_sessions(now, rng, effects)?;
        self.balance_leaders(now, rng, effects)
    }

    /// Lets Raft run until it has nothing more to do by itself.
    fn settle(&mut self, rng: &mut Prng, effects: &mut Vec<ControllerEffect>) -> Result<(), String> {
        while let Some(decided) = self.quorum.advance(&self.image, rng, effects)? {
            self.apply(decided, effects)?;
            self.quorum.applied();
            if !self.quorum.is_leader() {
                self.pending = None;
                for waiting in self.waiting.drain(..) {
                    let result = Err(ErrorCode::NotController.into());
                    effects.push(ControllerEffect::Reply { request: waiting.request, result });
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, decided: Decided, effects: &mut Vec<ControllerEffect>) -> Result<(), String> {
        let from_version = self.image.version();
        let mut delta = MetadataDelta::default();
        match decided {
            Decided::Entries(entries) if entries.is_empty() => return Ok(()),
            Decided::Entries(entries) => {
                for entry in &entries {
                    replay_entry(&mut self.image, &mut delta, entry).map_err(|error| error.to_string())?;
                    if let Some(change) = membership::change_of(entry)? {
                        self.quorum.change_members(&self.image, &change)?;
                    }
                }
            }
            Decided::Snapshot(snapshot) => {
                self.image = MetadataImage::default();
                load_snapshot(&mut self.image, &snapshot).map_err(|error| error.to_string())?;
                delta = MetadataDelta::full(&self.image);
            }
        }
        (delta.from_version, delta.to_version) = (from_version, self.image.version());
        effects.push(ControllerEffect::Publish { image: Arc::new(self.image.clone()), delta: Arc::new(delta) });
        self.answer(effects);
        Ok(())
    }

    fn answer(&mut self, effects: &mut Vec<ControllerEffect>) {
        let applied = self.image.version();
        while let Some(Waiting { request, result, .. }) = self.waiting.pop_front_if(|oldest| oldest.index <= applied) {
            effects.push(ControllerEffect::Reply { request, result });
        }
    }

    fn propose(
        &mut self,
        request: RequestId,
        proposal: Proposal,
        rng: &mut Prng,
        effects: &mut Vec<ControllerEffect>,
    ) -> Result<(), String> {
        if !self.quorum.is_leader() {
            let result = Err(ErrorCode::NotController.into());
            effects.push(ControllerEffect::Reply { request, result });
            return Ok(());
        }
        let result = match proposal {
            Proposal::JoinQuorum { node_id, address } => self.join_quorum(node_id, address),
            Proposal::ChangeQuorum(changes) => self.change_quorum(&changes),
            proposal => {
                let pending = self.pending_image()?;
                let Decision { records, image, result } = decide(&pending, &self.defaults, rng, proposal);
                self.append(&records, image).and(result)
            }
        };
        // Even a refusal may rest on what is not committed yet.
        let index = if mutant(50) { 0 } else { self.quorum.last_index() };
        self.waiting.push_back(Waiting { index, request, result });
        self.answer(effects);
        Ok(())
    }

    /// The metadata as it will be once the whole log is committed.
    fn pending_image(&mut self) -> Result<MetadataImage, String> {
        if let Some(pending) = &self.pending {
            return Ok(pending.clone());
        }
        let mut pending = self.image.clone();
        for entry in self.quorum.node.store().after(self.image.version()) {
            replay_entry(&mut pending, &mut MetadataDelta::default(), entry).map_err(|error| error.to_string())?;
        }
        Ok(pending)
    }

    fn append(&mut self, records: &[MetadataRecord], image: MetadataImage) -> ApiResult<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut data = Vec::new();
        encode_records(records, &mut data)
            .map_err(|error| ApiError::new(ErrorCode::UnknownServerError, error.to_string()))?;
        self.quorum.node.propose(Vec::new(), data).map_err(|_| ErrorCode::NotController)?;
        self.pending = Some(image);
        Ok(())
    }
}

fn replay_entry(image: &mut MetadataImage, delta: &mut MetadataDelta, entry: &Entry) -> Result<(), RecordError> {
    if entry.entry_type == EntryType::EntryNormal {
        decode_records(&entry.data)?.into_iter().for_each(|record| replay(image, delta, record));
    }
    image.version = entry.index;
    Ok(())
}

fn load_snapshot(image: &mut MetadataImage, snapshot: &StoredSnapshot) -> Result<(), RecordError> {
    let records = decode_records(&snapshot.records)?;
    records.into_iter().for_each(|record| replay(image, &mut MetadataDelta::default(), record));
    image.version = snapshot.meta.index;
    Ok(())
}

impl Machine for Controller {
    type Input = ControllerInput;
    type Effect = ControllerEffect;

    fn step(
        &mut self,
        now: Mono,
        wall: Wall,
        input: ControllerInput,
        rng: &mut Prng,
        effects: &mut Vec<ControllerEffect>,
    ) {
        if self.failed {
            if let ControllerInput::Propose { request, .. } | ControllerInput::Heartbeat { request, .. } = input {
                let result = Err(ErrorCode::NotController.into());
                effects.push(ControllerEffect::Reply { request, result });
            }
            return;
        }
        if let Err(why) = self.handle(now, wall, input, rng, effects) {
            self.failed = true;
            self.refuse_heartbeats(effects);
            for waiting in self.waiting.drain(..) {
                let result = Err(ErrorCode::NotController.into());
                effects.push(ControllerEffect::Reply { request: waiting.request, result });
            }
            effects.push(ControllerEffect::Fatal(why));
        }
    }

    fn deadline(&self) -> Option<Mono> {
        let own = [self.sessions.deadline(), self.balance.deadline()].into_iter().flatten().min();
        [self.quorum.deadline(), own.filter(|_| self.quorum.is_leader())]
            .into_iter()
            .flatten()
            .min()
            .filter(|_| !self.failed)
    }

    fn check(&self) {
        assert!(self.image.version() <= self.quorum.last_index(), "what is applied is in the log");
        assert!(self.waiting.iter().all(|waiting| waiting.index > self.image.version()), "every due answer has left");
        assert!(self.pending.is_none() || self.quorum.is_leader() || self.failed, "only a leader looks ahead");
    }

    fn digest(&self) -> u64 {
        let mut hasher = Fnv::default();
        let raft = &self.quorum.node.raft;
        (self.image.digest(), raft.term, raft.vote, raft.state as u8, self.quorum.last_index()).hash(&mut hasher);
        for waiting in &self.waiting {
            (waiting.index, waiting.request).hash(&mut hasher);
        }
        hasher.finish()
    }
}
