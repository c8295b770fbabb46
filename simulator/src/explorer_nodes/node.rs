//! One node of the explored cluster: a process with one replica, its disk, and what of it is on its way.
//! Invariant: what a process had in memory dies with it; what it had sent may still arrive.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use madang::found::Found;
use madang_actors::clock::Wall;
use madang_actors::machine::Machine;
use madang_cluster::replica::fetcher::Fetcher;
use madang_cluster::replica::replication::{Confirmed, FetchAnswer, FetchPosition, FollowerFetch, Loss};
use madang_cluster::replica::{Durability, LostRecords, Replica, ReplicaSnapshot};
use madang_protocol::types::{LeaderEpoch, NodeId, Offset};
use madang_storage::{
    Checkpoint, Disk, FaultDisk, Log, LogConfig, Note, OpenLog, OpenMode, Recovery, RestartKind, SyncRequest,
};

use super::{broken, directory};
use crate::invariants::cluster::NodeView;
use crate::invariants::{Read, batches};
use crate::sim::Violation;

/// A fetch on its way.
pub(super) struct Asked {
    pub(super) leader: NodeId,
    /// Its number at the fetcher.
    pub(super) request: u64,
    pub(super) fetch: FollowerFetch,
}

/// An answer on its way.
pub(super) struct Answered {
    pub(super) leader: NodeId,
    pub(super) request: u64,
    pub(super) answer: FetchAnswer,
}

/// A node.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) disk: FaultDisk,
    /// None while the process is down, or the partition is set aside.
    pub(super) replica: Option<Replica>,
    pub(super) up: bool,
    /// The life of the replica within its process.
    pub(super) incarnation: u64,
    pub(super) broker_epoch: i64,
    /// How the process ended.
    pub(super) left: RestartKind,
    /// The image of the metadata that it acted on last.
    pub(super) applied: usize,
    pub(super) published: Option<Arc<ReplicaSnapshot>>,
    pub(super) syncs: VecDeque<SyncRequest>,
    /// By leader.
    pub(super) fetchers: BTreeMap<NodeId, Fetcher>,
    /// What its replica wants.
    pub(super) wanted: Option<FetchPosition>,
    pub(super) fetch: Option<Asked>,
    pub(super) answer: Option<Answered>,
    pub(super) confirm: Option<(NodeId, Confirmed)>,
    /// A fetch that was given up.
    pub(super) old_fetch: Option<FollowerFetch>,
    pub(super) old_confirm: Option<(NodeId, Confirmed)>,
    pub(super) loss: Option<Loss>,
    /// The stored recovery point: of all that the node may have stored the highest that nobody has lowered since.
    pub(super) checkpoint: Checkpoint,
    /// What is noted of the log, where a kill leaves it.
    pub(super) noted: Option<Note>,
    /// A recovery point that is about to be lowered, for the cut of that number.
    pub(super) lowering: Option<(u64, Checkpoint)>,
    /// Whether a record was taken from it behind its back.
    pub(super) short: bool,
}

fn log_file() -> std::path::PathBuf {
    directory().join("00000000000000000000.log")
}

impl Node {
    pub(super) fn new(id: NodeId) -> Self {
        let disk = FaultDisk::new();
        drop(disk.create_dir(Path::new("/data")));
        drop(Log::open(Arc::new(disk.clone()), &directory(), LogConfig::default(), &OpenLog::default()));
        disk.settle();
        Self {
            id,
            disk,
            replica: None,
            up: false,
            incarnation: 0,
            broker_epoch: -1,
            left: RestartKind::Clean,
            applied: 0,
            published: None,
            syncs: VecDeque::new(),
            fetchers: BTreeMap::new(),
            wanted: None,
            fetch: None,
            answer: None,
            confirm: None,
            old_fetch: None,
            old_confirm: None,
            loss: None,
            checkpoint: Checkpoint::default(),
            noted: None,
            lowering: None,
            short: false,
        }
    }

    /// Opens the log for the next life in the process.
    pub(super) fn reopen(&mut self) -> Result<Log, Violation> {
        let found = Found::first(false, Durability::Fsync, None, None, 0);
        let found = self.published.as_ref().map_or(found, |before| found.after(before));
        self.open_as(found).map(|(log, _)| log)
    }

    /// Opens the log for the first life in a process; answers what it lacks of what was stored of it, and what was stored of the high watermark.
    pub(super) fn open(&mut self, durability: Durability) -> Result<(Log, Option<LostRecords>, Offset), Violation> {
        let found = Found::first(false, durability, Some(self.checkpoint), self.noted, 0);
        let (log, recovery) = self.open_as(found)?;
        if recovery.below_recovery_point || recovery.below_noted_end {
            if !self.short {
                return Err(broken(
                    "S7",
                    format!("node {} calls itself lossy and has lost nothing: {recovery:?}", self.id),
                ));
            }
            self.checkpoint.recovery_point = self.checkpoint.recovery_point.min(recovery.log_end_offset);
        }
        Ok((log, LostRecords::at_start(&recovery, found.high_watermark), found.high_watermark))
    }

    fn open_as(&mut self, found: Found) -> Result<(Log, Recovery), Violation> {
        self.incarnation += 1;
        let open = found.open(self.incarnation, Wall(0));
        let opened = Log::open(Arc::new(self.disk.clone()), &directory(), LogConfig::default(), &open);
        opened.map_err(|error| broken("S1", format!("node {}: {error}", self.id)))
    }

    /// The replica publishes: its shell notes it, and may keep a checkpoint of it.
    pub(super) fn publish(&mut self, snapshot: Arc<ReplicaSnapshot>) {
        self.noted = Some(snapshot.note());
        let Checkpoint { recovery_point, high_watermark } = &mut self.checkpoint;
        *recovery_point = snapshot.recovery_point().max(*recovery_point);
        *high_watermark = snapshot.high_watermark.max(*high_watermark);
        self.published = Some(snapshot);
    }

    /// The epoch in which it leads, as its last snapshot says.
    pub(super) fn leads(&self) -> Option<LeaderEpoch> {
        self.replica.as_ref()?;
        self.published.as_ref()?.leader_epoch
    }

    /// The replica's life is over; what it sent may still arrive, and its process's fetchers go on.
    pub(super) fn end_life(&mut self) {
        self.replica = None;
        self.syncs.clear();
        (self.loss, self.lowering) = (None, None);
        self.old_confirm = self.confirm.take().or(self.old_confirm);
    }

    /// The process is over.
    pub(super) fn end_process(&mut self, left: RestartKind) {
        self.end_life();
        self.fetchers.clear();
        (self.wanted, self.answer) = (None, None);
        self.old_fetch = self.fetch.take().map(|asked| asked.fetch).or(self.old_fetch);
        self.up = false;
        self.published = None;
        self.incarnation = 0;
        self.left = left;
    }

    /// Destroys the last batch behind everybody's back; answers whether there was one that no sync had confirmed.
    pub(super) fn damage_last(&mut self) -> bool {
        let Some(published) = &self.published else { return false };
        let (confirmed, end) = (published.confirmed_end, published.view.log_end_offset());
        let Ok(file) = self.disk.open(&log_file(), OpenMode::Existing) else { return false };
        let length = file.len().unwrap_or(0);
        confirmed < end && length > 4 && file.truncate(length - 4).is_ok()
    }

    fn written(&self) -> Vec<Read> {
        let Ok(file) = self.disk.open(&log_file(), OpenMode::Existing) else { return Vec::new() };
        let mut bytes = vec![0; usize::try_from(file.len().unwrap_or(0)).unwrap_or(0)];
        let read = file.read_at(0, &mut bytes).unwrap_or(0);
        bytes.truncate(read);
        sound(&bytes)
    }

    /// What the checks may know of it.
    pub(super) fn view(&self) -> NodeView {
        let durable = self.disk.surviving_bytes(&log_file()).unwrap_or_default();
        let lost = self.published.as_ref().is_some_and(|published| published.loss.is_some());
        let serves = self.replica.is_some() && !lost;
        NodeView {
            id: self.id,
            broker_epoch: self.broker_epoch,
            serves,
            snapshot: self.published.clone().filter(|_| serves),
            written: self.written(),
            durable: sound(&durable),
        }
    }

    pub(super) fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.replica.as_ref().map(Machine::digest).hash(hasher);
        (self.up, self.incarnation, self.broker_epoch, self.left as u8, self.applied).hash(hasher);
        let fetch = self.fetch.as_ref().map(|asked| asked.fetch);
        let answer = self.answer.as_ref().map(|answered| &answered.answer);
        (self.syncs.len(), fetch, answer, self.confirm, self.old_fetch, self.old_confirm).hash(hasher);
        self.fetchers.values().map(Machine::digest).collect::<Vec<_>>().hash(hasher);
        let checkpoint = |known: Checkpoint| (known.recovery_point, known.high_watermark);
        let lowering = self.lowering.map(|(number, known)| (number, checkpoint(known)));
        (self.loss, self.short, checkpoint(self.checkpoint), lowering).hash(hasher);
        if let Some(noted) = &self.noted {
            (noted.log_end_offset, noted.confirmed_end, noted.high_watermark, noted.unsettled).hash(hasher);
        }
        if let Some(published) = &self.published {
            (published.incarnation, published.leader_epoch, published.high_watermark).hash(hasher);
            (published.partition_epoch, &published.maximal_isr, published.confirmed_end, published.loss).hash(hasher);
        }
        if let Ok(file) = self.disk.open(&log_file(), OpenMode::Existing) {
            let mut bytes = vec![0; usize::try_from(file.len().unwrap_or(0)).unwrap_or(0)];
            drop(file.read_at(0, &mut bytes));
            bytes.hash(hasher);
        }
        self.disk.surviving_bytes(&log_file()).hash(hasher);
    }
}

fn sound(bytes: &[u8]) -> Vec<Read> {
    batches(bytes).into_iter().take_while(|read| read.sound).collect()
}
