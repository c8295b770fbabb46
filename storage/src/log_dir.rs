//! A log directory: whose it is, how it was left, which partitions it holds.
//! Invariant: one process at a time; nothing is deleted but what a committed tombstone with the topic's own id named.
//!
//! ```text
//! .lock                      held while a node runs
//! directory.metadata         envelope: directory id (16), node id i32, broker epoch i64, sync point u8, boot id and cluster id, each {u16,
//!                            bytes}, generation of the notes u64
//! clean-shutdown             envelope, empty: all was flushed; consumed at the next start
//! checkpoints/               recovery points and high watermarks
//! <topic>-<partition>/       a partition
//! <topic>-<partition>.<topic id>-delete/     a partition of a deleted topic, about to go
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use madang_protocol::types::{NodeId, TopicId, Uuid};

use crate::disk::{Disk, DiskLock, read_small, replace_file_durably};
use crate::format::{Fields, Kind, MAX_SIDE_FILE, PARTITION_METADATA_FILE, TEMPORARY_SUFFIX, seal, unseal};
use crate::mutants::mutant;
use crate::recovery::Recovery;

const LOCK_FILE: &str = ".lock";
const METADATA_FILE: &str = "directory.metadata";
const CLEAN_FILE: &str = "clean-shutdown";
const DELETE_SUFFIX: &str = "-delete";

/// Why a log directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogDirError {
    /// Another process has it.
    #[error("log directory {0} is in use by another node")]
    Locked(PathBuf),
    /// It belongs to another cluster or node.
    #[error("log directory {path} belongs to cluster {cluster_id}, node {node_id}")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        cluster_id: String,
        /// Its node.
        node_id: NodeId,
    },
    /// The tombstone is of another topic than the partition's files, or theirs is not known: nothing was deleted.
    #[error("{0} is not a partition of the deleted topic")]
    NotThisTopic(PathBuf),
    /// The disk failed.
    #[error("log directory: {0}")]
    Io(#[from] io::Error),
}

/// What a directory says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Drawn once, when the directory is first used.
    pub directory_id: Uuid,
    /// The cluster.
    pub cluster_id: String,
    /// The node.
    pub node_id: NodeId,
    /// The broker epoch under which it was last unfenced; -1 before.
    pub broker_epoch: i64,
    /// Whether, since a moment at which all it held was synced, every answer waited for a sync and none failed.
    pub sync_point: bool,
    /// The boot of the operating system that wrote this.
    pub boot_id: String,
    /// How often it was left by a process whose notes nobody may believe any more: those that count are of this number.
    pub notes_generation: u64,
}

/// How a directory was left, for the registration with the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartKind {
    /// The marker says that everything was flushed.
    Clean,
    /// Whatever counted was synced.
    Durable,
    /// The operating system has not restarted, so the page cache still had what was written.
    SameBoot,
    /// Something that counted may be lost.
    Lossy,
}

/// What the kind of a restart is decided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestartFacts {
    /// The clean-shutdown marker was there.
    pub clean_marker: bool,
    /// [`Identity::sync_point`] as it was left.
    pub sync_point: bool,
    /// The boot id is the one that the directory was left in, and its mount too.
    pub same_boot: bool,
    /// The first sync of this process succeeded.
    pub first_sync_succeeded: bool,
    /// Every log reaches the end that was noted outside of the page cache's files.
    pub reaches_noted_ends: bool,
    /// A log ends below its recovery point, or below what was noted of it.
    pub below_recovery_point: bool,
}

impl RestartFacts {
    /// The kind of the restart.
    #[must_use]
    pub const fn kind(self) -> RestartKind {
        if self.below_recovery_point {
            RestartKind::Lossy
        } else if self.clean_marker {
            RestartKind::Clean
        } else if self.sync_point {
            RestartKind::Durable
        } else if self.same_boot && self.first_sync_succeeded && self.reaches_noted_ends {
            RestartKind::SameBoot
        } else {
            RestartKind::Lossy
        }
    }
}

/// Who wants to use a directory.
#[derive(Clone, Debug)]
pub struct OpenLogDir {
    /// The cluster.
    pub cluster_id: String,
    /// The node.
    pub node_id: NodeId,
    /// The id that a directory without one gets.
    pub new_directory_id: Uuid,
    /// The running boot of the operating system.
    pub boot_id: String,
}

/// A partition's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDir {
    /// Where it is.
    pub path: PathBuf,
    /// The topic's name, from the directory's name.
    pub topic: String,
    /// The partition's index.
    pub partition: i32,
    /// The topic's id; none if `partition.metadata` is missing, damaged or of another name. Such a stray is left alone.
    pub topic_id: Option<TopicId>,
}

/// A log directory that this process holds.
#[derive(Debug)]
pub struct LogDir {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    identity: Identity,
    facts: RestartFacts,
    _lock: Box<dyn DiskLock>,
}

impl LogDir {
    /// Takes the directory, creating it if there is none, and consumes its clean-shutdown marker.
    ///
    /// # Errors
    /// See [`LogDirError`].
    pub fn open(disk: Arc<dyn Disk>, path: &Path, who: &OpenLogDir) -> Result<Self, LogDirError> {
        disk.create_dir(path)?;
        let lock = disk.lock(&path.join(LOCK_FILE)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => LogDirError::Locked(path.to_owned()),
            _ => LogDirError::Io(error),
        })?;
        let stored = read_small(disk.as_ref(), &path.join(METADATA_FILE), MAX_SIDE_FILE).ok();
        let stored = stored.and_then(|bytes| decode(unseal(Kind::Directory, &bytes)?));
        if let Some(found) = &stored
            && (found.cluster_id != who.cluster_id || found.node_id != who.node_id)
        {
            let (cluster_id, node_id) = (found.cluster_id.clone(), found.node_id);
            return Err(LogDirError::Foreign { path: path.to_owned(), cluster_id, node_id });
        }
        let clean_marker = consume_marker(disk.as_ref(), path)? && stored.is_some();
        let facts = RestartFacts {
            clean_marker,
            sync_point: stored.as_ref().is_some_and(|found| found.sync_point),
            same_boot: stored.as_ref().is_some_and(|found| found.boot_id == who.boot_id),
            ..RestartFacts::default()
        };
        // Without its own word a directory is a new one, whatever lies in it: it gets a new id, and what it holds is kept.
        let identity = Identity {
            directory_id: stored.as_ref().map_or(who.new_directory_id, |found| found.directory_id),
            cluster_id: who.cluster_id.clone(),
            node_id: who.node_id,
            broker_epoch: stored.as_ref().map_or(-1, |found| found.broker_epoch),
            sync_point: stored.as_ref().is_some_and(|found| found.sync_point),
            boot_id: who.boot_id.clone(),
            notes_generation: stored.as_ref().map_or(0, |found| found.notes_generation),
        };
        let directory = Self { disk, path: path.to_owned(), identity, facts, _lock: lock };
        write_identity(directory.disk.as_ref(), path, &directory.identity)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            directory.disk.sync_dir(parent)?;
        }
        Ok(directory)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What is known at the start of how it was left. The caller adds what the logs and the first sync tell.
    #[must_use]
    pub const fn restart_facts(&self) -> RestartFacts {
        self.facts
    }

    /// Tells it what stands in its notes: whether they are believed, and so of this boot and mount. That every log reaches its noted end, and
    /// that no sync fails, holds until [`LogDir::recovered`] and the directory's failure say otherwise.
    pub const fn noted(&mut self, believed: bool) {
        self.facts.same_boot &= believed;
        self.facts.reaches_noted_ends = self.facts.same_boot;
        self.facts.first_sync_succeeded = self.facts.same_boot;
    }

    /// Tells it how one of its logs was found.
    pub const fn recovered(&mut self, found: &Recovery) {
        self.facts.reaches_noted_ends &= !found.below_noted_end;
        self.facts.below_recovery_point |= found.below_recovery_point | found.below_noted_end;
    }

    /// Notes the broker epoch that was unfenced, and [`LogDir::set_sync_point`] with it; one write, durable when it returns.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn unfenced(&mut self, broker_epoch: i64, sync_point: bool) -> io::Result<()> {
        let sync_point = sync_point || mutant(36);
        self.say(Identity { broker_epoch, sync_point, ..self.identity.clone() })
    }

    /// Notes that all it holds is synced and that from now on nothing counts before it is (`true`), or that this is no longer so: before a
    /// partition with page-cache durability is written, or after a failed sync (`false`). Durable when it returns.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn set_sync_point(&mut self, holds: bool) -> io::Result<()> {
        if self.identity.sync_point == holds || mutant(44) {
            return Ok(());
        }
        self.say(Identity { sync_point: holds, ..self.identity.clone() })
    }

    /// Has notes that are there, wherever that is, believed no more: this process keeps none, or begins new ones. To be called before a log
    /// is opened, or a later process would take what an earlier one has noted for what this one leaves. Durable when it returns.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn begin_notes(&mut self) -> io::Result<()> {
        let notes_generation = self.identity.notes_generation + 1;
        self.say(Identity { notes_generation, ..self.identity.clone() })
    }

    /// State follows the write: what could not be written is written again by whoever says it again.
    fn say(&mut self, identity: Identity) -> io::Result<()> {
        write_identity(self.disk.as_ref(), &self.path, &identity)?;
        self.identity = identity;
        Ok(())
    }

    /// All partitions, by name. Those about to be deleted are not among them.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn partitions(&self) -> io::Result<Vec<PartitionDir>> {
        let names = self.disk.list(&self.path)?;
        let parse = |name: &String| {
            let (topic, partition) = parse_partition(name)?;
            let path = self.path.join(name);
            let topic_id = stored_topic_id(self.disk.as_ref(), &path, topic, partition);
            Some(PartitionDir { path, topic: topic.to_owned(), partition, topic_id })
        };
        Ok(names.iter().filter_map(parse).collect())
    }

    /// Whether it holds no partition. Those about to be deleted are none.
    ///
    /// # Errors
    /// Whatever the disk reports.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.disk.list(&self.path)?.iter().all(|name| parse_partition(name).is_none()))
    }

    /// The folders of its partitions. It needs no lock and blocks nobody: what is slow goes on beside the directory's other work.
    #[must_use]
    pub fn folders(&self) -> PartitionFolders {
        PartitionFolders { disk: Arc::clone(&self.disk), path: self.path.clone() }
    }

    /// As [`PartitionFolders::create`], of one.
    ///
    /// # Errors
    /// See there.
    pub fn create_partition(&self, topic: &str, partition: i32, topic_id: TopicId) -> Result<PathBuf, LogDirError> {
        let created = self.folders().create_one(topic, partition, topic_id)?;
        self.disk.sync_dir(&self.path)?;
        Ok(created)
    }

    /// As [`PartitionFolders::delete`], of one.
    ///
    /// # Errors
    /// See there.
    pub fn delete_partition(&self, partition: &PartitionDir, tombstone: TopicId) -> Result<(), LogDirError> {
        self.folders().delete(std::slice::from_ref(partition), tombstone).pop().unwrap_or(Ok(()))
    }

    /// As [`PartitionFolders::finish_deletions`].
    ///
    /// # Errors
    /// See there.
    pub fn finish_deletions(&self) -> io::Result<usize> {
        self.folders().finish_deletions()
    }

    /// Says that everything was flushed, and lets the directory go. Call it when each of the `closed` logs that were opened was closed
    /// without an error. A directory that was not found clean and holds a partition that nobody opened says nothing: whether that one's
    /// tail is whole is not known. True if the next start finds it clean.
    ///
    /// # Errors
    /// Whatever the disk reports; the next start is then unclean.
    pub fn close_clean(self, closed: usize) -> io::Result<bool> {
        if !self.facts.clean_marker && self.partitions()?.len() > closed {
            return Ok(false);
        }
        replace_file_durably(self.disk.as_ref(), &self.path.join(CLEAN_FILE), &seal(Kind::CleanShutdown, b""))?;
        Ok(true)
    }
}

/// Where the partitions of a log directory are, for whoever creates and deletes them. Calls block for as long as the disk does.
#[derive(Clone, Debug)]
pub struct PartitionFolders {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl PartitionFolders {
    /// Creates each partition's directory and says in it whose it is; durable when it returns. One that is there already is only checked.
    ///
    /// # Errors
    /// For each partition, `NotThisTopic` if the files are of another topic of the same name, or of an unknown one; whatever the disk reports.
    pub fn create(&self, topic: &str, partitions: &[i32], topic_id: TopicId) -> Vec<Result<PathBuf, LogDirError>> {
        let created: Vec<_> = partitions.iter().map(|&partition| self.create_one(topic, partition, topic_id)).collect();
        match self.disk.sync_dir(&self.path) {
            Ok(()) => created,
            Err(error) => created
                .into_iter()
                .map(|one| one.and_then(|_| Err(io::Error::new(error.kind(), error.to_string()).into())))
                .collect(),
        }
    }

    /// Durable in itself, but for its entry in the log directory.
    fn create_one(&self, topic: &str, partition: i32, topic_id: TopicId) -> Result<PathBuf, LogDirError> {
        let disk = self.disk.as_ref();
        let path = self.path.join(format!("{topic}-{partition}"));
        let unfinished = format!("{PARTITION_METADATA_FILE}{TEMPORARY_SUFFIX}");
        if disk.exists(&path)? {
            match stored_topic_id(disk, &path, topic, partition) {
                Some(found) if found == topic_id => return Ok(path),
                // A creation that did not get to its end. Nothing was ever stored in it.
                None if disk.list(&path)?.iter().all(|name| *name == unfinished) => {}
                _ => return Err(LogDirError::NotThisTopic(path)),
            }
        }
        disk.create_dir(&path)?;
        let mut body = topic_id.0.to_vec();
        body.extend_from_slice(&partition.to_be_bytes());
        body.extend_from_slice(topic.as_bytes());
        replace_file_durably(disk, &path.join(PARTITION_METADATA_FILE), &seal(Kind::Partition, &body))?;
        Ok(path)
    }

    /// Takes partitions out of the directory's because a committed tombstone names their topic's id; durable when it returns. Their logs must
    /// be closed. The bytes go with [`PartitionFolders::finish_deletions`].
    ///
    /// # Errors
    /// For each partition, `NotThisTopic` if the files are not of that topic; whatever the disk reports.
    pub fn delete(&self, partitions: &[PartitionDir], tombstone: TopicId) -> Vec<Result<(), LogDirError>> {
        let deleted: Vec<_> = partitions.iter().map(|partition| self.delete_one(partition, tombstone)).collect();
        if !deleted.iter().any(Result::is_ok) {
            return deleted;
        }
        match self.disk.sync_dir(&self.path) {
            Ok(()) => deleted,
            Err(error) => deleted
                .into_iter()
                .map(|one| one.and_then(|()| Err(io::Error::new(error.kind(), error.to_string()).into())))
                .collect(),
        }
    }

    fn delete_one(&self, partition: &PartitionDir, tombstone: TopicId) -> Result<(), LogDirError> {
        let found = stored_topic_id(self.disk.as_ref(), &partition.path, &partition.topic, partition.partition);
        if !mutant(23) && (found != Some(tombstone) || tombstone.is_zero()) {
            return Err(LogDirError::NotThisTopic(partition.path.clone()));
        }
        let name = format!("{}-{}.{tombstone}{DELETE_SUFFIX}", partition.topic, partition.partition);
        let gone = self.path.join(name);
        if self.disk.exists(&gone)? {
            // A partition that came back since it was taken out before; whether the old one is gone the next line finds out.
            drop(self.disk.remove_dir_all(&gone));
        }
        Ok(self.disk.rename(&partition.path, &gone)?)
    }

    /// Removes what [`PartitionFolders::delete`] took out; answers how many. Slow: not for a writer's thread.
    ///
    /// # Errors
    /// Whatever the disk reports; the rest is found again at the next call.
    pub fn finish_deletions(&self) -> io::Result<usize> {
        let mut count = 0;
        for name in self.disk.list(&self.path)? {
            if is_deleted(&name) {
                self.disk.remove_dir_all(&self.path.join(name))?;
                count += 1;
            }
        }
        Ok(count)
    }
}

fn stored_topic_id(disk: &dyn Disk, path: &Path, topic: &str, partition: i32) -> Option<TopicId> {
    let bytes = read_small(disk, &path.join(PARTITION_METADATA_FILE), MAX_SIDE_FILE).ok()?;
    let mut fields = Fields(unseal(Kind::Partition, &bytes)?);
    let topic_id = Uuid(fields.take()?);
    (fields.i32()? == partition && fields.0 == topic.as_bytes()).then_some(topic_id)
}

fn consume_marker(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    let marker = path.join(CLEAN_FILE);
    if !disk.exists(&marker)? {
        return Ok(false);
    }
    let sound =
        read_small(disk, &marker, MAX_SIDE_FILE).is_ok_and(|bytes| unseal(Kind::CleanShutdown, &bytes).is_some());
    disk.remove_file(&marker)?;
    disk.sync_dir(path)?;
    Ok(sound)
}

/// Topic and index of a partition's directory name. Topic names may hold `-` and `.`.
fn parse_partition(name: &str) -> Option<(&str, i32)> {
    let (topic, partition) = name.rsplit_once('-')?;
    let digits = !partition.is_empty() && partition.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = partition == "0" || !partition.starts_with('0');
    (digits && canonical && !topic.is_empty())
        .then(|| partition.parse().ok().map(|partition| (topic, partition)))
        .flatten()
}

/// Whether the name is one that [`LogDir::delete_partition`] gave.
fn is_deleted(name: &str) -> bool {
    let parts = name.strip_suffix(DELETE_SUFFIX).and_then(|rest| rest.rsplit_once('.'));
    parts.is_some_and(|(partition, id)| parse_partition(partition).is_some() && id.parse::<Uuid>().is_ok())
}

fn write_identity(disk: &dyn Disk, path: &Path, identity: &Identity) -> io::Result<()> {
    replace_file_durably(disk, &path.join(METADATA_FILE), &seal(Kind::Directory, &encode(identity)))
}

fn encode(identity: &Identity) -> Vec<u8> {
    let mut body = identity.directory_id.0.to_vec();
    body.extend_from_slice(&identity.node_id.0.to_be_bytes());
    body.extend_from_slice(&identity.broker_epoch.to_be_bytes());
    body.push(u8::from(identity.sync_point));
    for text in [&identity.boot_id, &identity.cluster_id] {
        body.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    body.extend_from_slice(&identity.notes_generation.to_be_bytes());
    body
}

fn decode(body: &[u8]) -> Option<Identity> {
    let mut fields = Fields(body);
    let directory_id = Uuid(fields.take()?);
    let node_id = NodeId(fields.i32()?);
    let broker_epoch = fields.i64()?;
    let sync_point = fields.take::<1>()? == [1];
    let mut text = || {
        let length = usize::from(fields.u16()?);
        String::from_utf8(fields.bytes(length)?.to_vec()).ok()
    };
    let (boot_id, cluster_id) = (text()?, text()?);
    // A directory that was written before there was one has had none.
    let notes_generation = if fields.0.is_empty() { 0 } else { fields.u64()? };
    Some(Identity { directory_id, cluster_id, node_id, broker_epoch, sync_point, boot_id, notes_generation })
}
