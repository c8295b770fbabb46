//! One log directory of the node: its thread, its flusher, and the replicas that live in it.
//! Invariant: after a failed sync nothing is written to the directory; its partitions are offline, the others serve on.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use madang_actors::actor_ref::{ActorRef, IncarnationRef};
use madang_actors::host::{Arbiter, Behavior, Child, ShellContext, StartResult, SupervisorHandle};
use madang_actors::mailbox::Capacity;
use madang_actors::messages;
use madang_cluster::configs::dynamic_broker_number;
use madang_cluster::replica::actor::Directory as ReplicaDirectory;
use madang_cluster::replica::{Compacted, ReplicaMessage, ReplicaSnapshot};
use madang_protocol::types::{Offset, TopicPartition};
use madang_storage::{
    Checkpoint, Checkpoints, CompactionError, CompactionJob, Disk, LogDir, Notes, Pace, Recovery, RestartKind,
    SyncPool, SyncRequest,
};
use tokio::sync::Semaphore;

use crate::found::all_known;
use crate::node_env::Node;
use crate::replicas::Held;

/// Threads that sync one directory's files; figures in docs/adr/0004-fsync-policy.md.
const SYNC_THREADS: usize = 4;

messages! {
    /// What a directory's flusher is sent.
    #[derive(Debug)]
    pub enum FlusherMessage {
        control {}
        data {
            /// Sync this and tell that life of the replica.
            Sync {
                /// What.
                request: SyncRequest,
                /// Whom to tell.
                replica: IncarnationRef<ReplicaMessage>,
            },
        }
    }
}

/// What is open of a directory once the node knows its cluster.
#[derive(Debug)]
pub struct Opened {
    /// The directory on disk.
    pub log_dir: LogDir,
    /// Recovery points and high watermarks.
    pub checkpoints: Arc<dyn Checkpoints>,
    /// Whether every partition that was ever confirmed beyond its start has a checkpoint: one without was never synced for long.
    pub checkpoints_are_complete: bool,
    /// How it was left, as far as it says so itself.
    pub left: RestartKind,
}

/// One log directory.
#[derive(Debug)]
pub struct Directory {
    /// Where it is.
    pub path: PathBuf,
    /// Its disk, and nobody else's: a sync that fails there is this directory's failure.
    pub disk: Arc<dyn Disk>,
    /// The thread that writes its partitions.
    pub arbiter: Arbiter,
    /// Its flusher.
    pub flusher: ActorRef<FlusherMessage>,
    replicas: OnceLock<SupervisorHandle>,
    /// The node that the replicas are listed by.
    node: OnceLock<Weak<Node>>,
    opened: Mutex<Option<Opened>>,
    /// How far its logs have come, where a kill leaves it; none where that cannot be kept.
    notes: OnceLock<Box<dyn Notes>>,
    /// Whether all that it holds is listed as replicas, so far as it says whose it is.
    listed: AtomicBool,
    /// Whether it holds a partition's folder that nobody opens.
    stray: AtomicBool,
    /// Whether every log is noted.
    noted: AtomicBool,
    /// Whether all that earlier processes wrote was synced at once, before any log was opened.
    synced: AtomicBool,
    /// Held while checkpoints are read off the replicas and stored, so that an older one never replaces a newer one.
    checkpointing: tokio::sync::Mutex<()>,
    /// Held by the one compaction that runs; the others wait in the order in which they came.
    compacting: Arc<Semaphore>,
    failed: AtomicBool,
}

impl Directory {
    /// A directory that is not open yet.
    #[must_use]
    pub fn new(path: &Path, arbiter: Arbiter, disk: Arc<dyn Disk>) -> Self {
        Self {
            path: path.to_owned(),
            disk,
            arbiter,
            flusher: ActorRef::new("flusher", Capacity::default()),
            replicas: OnceLock::new(),
            node: OnceLock::new(),
            opened: Mutex::new(None),
            notes: OnceLock::new(),
            listed: AtomicBool::new(false),
            stray: AtomicBool::new(false),
            noted: AtomicBool::new(false),
            synced: AtomicBool::new(false),
            checkpointing: tokio::sync::Mutex::default(),
            compacting: Arc::new(Semaphore::new(1)),
            failed: AtomicBool::new(false),
        }
    }

    /// Tells it the supervisor of its replicas, once.
    pub fn supervised_by(&self, replicas: SupervisorHandle) {
        drop(self.replicas.set(replicas));
    }

    /// Tells it the node, once.
    pub fn belongs_to(&self, node: &Arc<Node>) {
        drop(self.node.set(Arc::downgrade(node)));
    }

    /// The replicas that live in it.
    #[must_use]
    pub fn held(&self) -> Vec<Arc<Held>> {
        let node = self.node.get().and_then(Weak::upgrade);
        node.map(|node| node.replicas.within(&self.path)).unwrap_or_default()
    }

    /// The replicas as children, for a supervisor that starts again.
    #[must_use]
    pub fn children(&self) -> Vec<Child> {
        self.held().iter().map(|held| held.child.clone()).collect()
    }

    /// How often retention looks.
    #[must_use]
    pub fn retention_interval(&self) -> Duration {
        let node = self.node.get().and_then(Weak::upgrade);
        node.map_or(Duration::from_secs(300), |node| node.config.log_retention_check_interval)
    }

    /// How often the compacted partitions are asked whether there is enough to do; none if they are not cleaned.
    #[must_use]
    pub fn compaction_interval(&self) -> Option<Duration> {
        let node = self.node.get().and_then(Weak::upgrade)?;
        let backoff = || {
            let config = &node.config;
            let backoff = dynamic_broker_number(&node.image.load(), config, config.node_id, "log.cleaner.backoff.ms");
            Duration::from_millis(u64::try_from(backoff).unwrap_or(0))
        };
        node.config.log_cleaner_enable.then(backoff)
    }

    /// The supervisor of its replicas.
    #[must_use]
    pub fn replicas(&self) -> Option<&SupervisorHandle> {
        self.replicas.get()
    }

    /// What is open of it; nothing before the node knows its cluster, or if it could not be opened.
    pub fn opened(&self) -> MutexGuard<'_, Option<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where its logs' ends are noted, once it is open; none where that cannot be.
    pub fn notes(&self) -> Option<&dyn Notes> {
        self.notes.get().map(Box::as_ref)
    }

    /// Tells it its notes, once.
    pub fn noted_in(&self, notes: Box<dyn Notes>) {
        drop(self.notes.set(notes));
    }

    /// Tells it that a folder in it is nobody's.
    pub fn has_stray(&self) {
        self.stray.store(true, Ordering::Release);
    }

    /// Tells it that every partition which it held at the start is among its replicas.
    pub fn all_listed(&self) {
        self.listed.store(true, Ordering::Release);
    }

    /// Whether each log in it was found, and has told its end.
    #[must_use]
    pub fn is_known(&self) -> bool {
        let complete = self.listed.load(Ordering::Acquire) && !self.stray.load(Ordering::Acquire);
        let held = self.held();
        all_known(complete, held.iter().map(|held| &**held.handle.shared()))
    }

    /// Has its notes believed from now on, if each of its logs has told its end.
    pub fn complete_notes(&self) {
        let Some(notes) = self.notes().filter(|_| !self.noted.load(Ordering::Acquire)) else { return };
        if !self.is_known() {
            return;
        }
        self.noted.store(true, Ordering::Release);
        if let Err(error) = notes.complete() {
            tracing::warn!(directory = %self.path.display(), %error, "notes are not complete");
        }
    }

    /// Tells how one of its logs was found at the start of the node; `noted` says whether there was a note of it.
    pub fn recovered(&self, partition: &str, noted: bool, found: &Recovery) {
        let mut opened = self.opened();
        let Some(opened) = opened.as_mut() else { return };
        opened.log_dir.recovered(found);
        let short = found.below_recovery_point || found.below_noted_end;
        // Every log that has told anybody of a record was noted.
        let unexplained = opened.left == RestartKind::SameBoot && !noted && found.log_end_offset > Offset::ZERO;
        if short || unexplained || opened.left == RestartKind::Lossy {
            tracing::error!(
                partition,
                log_end_offset = %found.log_end_offset,
                "acknowledged records at and above this offset may be lost; the only replica leads again"
            );
        }
        if found.truncated_bytes > 0 || !found.rebuilt.is_empty() {
            tracing::info!(partition, recovery = ?found, "recovered");
        }
    }

    /// Stores what `read` answers as the checkpoints of its partitions, beside the calling thread; one caller at a time.
    ///
    /// # Errors
    /// Whatever the disk reports; the old ones may then still be there.
    pub async fn store_checkpoints(
        &self,
        read: impl FnOnce() -> Vec<(TopicPartition, Checkpoint)>,
    ) -> std::io::Result<()> {
        let _turn = self.checkpointing.lock().await;
        let read = read();
        let checkpoints = self.opened().as_ref().map(|opened| Arc::clone(&opened.checkpoints));
        let (false, Some(checkpoints)) = (read.is_empty(), checkpoints) else { return Ok(()) };
        let stored = tokio::task::spawn_blocking(move || checkpoints.store(&read)).await;
        stored.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    /// Whether it can no longer be trusted.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Gives it up; true for the first caller.
    pub fn fail(&self, why: &str) -> bool {
        let first = !self.failed.swap(true, Ordering::AcqRel);
        if first {
            if let Some(notes) = self.notes() {
                notes.discard();
            }
            self.arbiter.revoked().set();
            for held in self.held() {
                held.handle.shared().set_offline();
            }
            tracing::error!(directory = %self.path.display(), why, "log directory failed; its partitions are offline");
        }
        first
    }

    /// Brings to the device what earlier processes wrote, with one sync for all logs, before any of them is opened. Blocks. A sync that fails fails
    /// the directory.
    pub fn sync_all(&self) {
        match self.disk.sync_all(&self.path) {
            Ok(synced) => self.synced.store(synced, Ordering::Release),
            Err(error) => self.sync_failed(&format!("sync of the file system at the start: {error}")),
        }
    }

    /// Whether that was done.
    pub fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Gives it up as a sync has failed, and has it say so to the next start: what it was written for may be on no device. Blocks for as
    /// long as the disk does.
    pub fn sync_failed(&self, why: &str) {
        if !self.fail(why) {
            return;
        }
        let said = self.opened().as_mut().map(|opened| opened.log_dir.set_sync_point(false));
        if let Some(Err(error)) = said {
            tracing::error!(directory = %self.path.display(), %error, "a failed sync is not noted on the disk");
        }
    }

    /// Closes it so that the next start finds it clean; only if all of its replicas were closed in order.
    pub fn close_clean(&self) {
        let opened = self.opened().take();
        let held = self.held();
        if self.has_failed() || !held.iter().all(|held| held.handle.shared().is_closed()) {
            return;
        }
        match opened.map(|opened| opened.log_dir.close_clean(held.len())) {
            None | Some(Ok(false)) => {}
            Some(Err(error)) => {
                tracing::warn!(directory = %self.path.display(), %error, "clean-shutdown marker not written");
            }
            Some(Ok(true)) => {
                if let Some(notes) = self.notes() {
                    // The marker says more.
                    notes.discard();
                }
            }
        }
    }
}

/// What one replica holds of its directory.
#[derive(Clone, Debug)]
pub struct DirectoryLink(pub Arc<Directory>);

impl ReplicaDirectory for DirectoryLink {
    fn sync(&self, request: SyncRequest, context: &ShellContext<ReplicaMessage>) {
        let replica = context.this_life();
        // A flusher that is down or full takes its replicas with it: they start again from disk and ask again.
        if self.0.flusher.try_send(FlusherMessage::Sync { request, replica }).is_err() {
            tracing::warn!(directory = %self.0.path.display(), "flusher does not take a sync");
        }
    }

    fn compact(&self, job: CompactionJob, context: &mut ShellContext<ReplicaMessage>) {
        let (directory, replica) = (Arc::clone(&self.0), context.this_life());
        context.spawn(async move {
            let compacted = run_compaction(directory, job).await;
            drop(replica.try_send(ReplicaMessage::Compacted(Box::new(compacted))));
        });
    }

    fn note(&self, partition: TopicPartition, snapshot: &ReplicaSnapshot) {
        if let Some(notes) = self.0.notes() {
            // Notes that cannot be kept are not believed, which is all that is lost.
            drop(notes.store(partition, snapshot.note()));
        }
    }

    fn lower(
        &self,
        partition: TopicPartition,
        checkpoint: Checkpoint,
        number: u64,
        context: &mut ShellContext<ReplicaMessage>,
    ) {
        let (directory, replica) = (Arc::clone(&self.0), context.this_life());
        context.spawn(async move {
            match directory.store_checkpoints(|| vec![(partition, checkpoint)]).await {
                Ok(()) => drop(replica.try_send(ReplicaMessage::Lowered(number))),
                // The log cannot be cut, and so never follow again; and the disk does not take a sync.
                Err(error) => directory.sync_failed(&format!("lower a recovery point: {error}")),
            }
        });
    }

    fn fail(&self, why: &str) {
        self.0.sync_failed(why);
    }
}

/// Stops a job when nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs a job beside the directory's thread, one at a time for each directory. Dropped, it stops the job.
async fn run_compaction(directory: Arc<Directory>, job: CompactionJob) -> Compacted {
    let stop = StopOnDrop(Arc::default());
    let stopped = Arc::clone(&stop.0);
    let turn = Arc::clone(&directory.compacting).acquire_owned().await;
    let run = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let pace =
            |_| if stopped.load(Ordering::Acquire) || directory.has_failed() { Pace::Stop } else { Pace::Continue };
        let result = job.run(pace);
        if let Err(CompactionError::Sync(_)) = &result {
            // The replica that asked may be over by now.
            directory.sync_failed("a sync of a compaction failed");
        }
        result
    });
    let result = run.await;
    drop(stop);
    // A panic in it is one failed try; the log has not changed.
    result.unwrap_or_else(|error| Err(CompactionError::Io(std::io::Error::other(error))))
}

/// The flusher: hands each sync to a few threads. A replica has one sync in flight, so the queue is bounded by the replicas.
pub struct Flusher {
    pool: SyncPool,
    directory: Arc<Directory>,
}

impl Flusher {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(directory: Arc<Directory>) -> StartResult<Self> {
        Ok(Self { pool: SyncPool::start("flusher", SYNC_THREADS)?, directory })
    }
}

impl Behavior for Flusher {
    type Message = FlusherMessage;

    fn handle(&mut self, message: FlusherMessage, _: &mut ShellContext<FlusherMessage>) {
        let FlusherMessage::Sync { request, replica } = message;
        let directory = Arc::clone(&self.directory);
        self.pool.submit(request, move |outcome| {
            if !outcome.is_ok() {
                // The life that asked may be over by now, and the next one's sync would succeed over lost pages.
                directory.sync_failed("a sync failed");
            }
            // A life that is over has no use for it.
            drop(replica.try_send(ReplicaMessage::Synced(outcome)));
        });
    }
}

#[cfg(test)]
mod tests {
    use madang_actors::host::Role;
    use madang_protocol::types::{NodeId, Uuid};
    use madang_storage::{FaultDisk, MemoryCheckpoints, MemoryFile, MemoryNotes, NotesOwner, OpenLogDir};

    use super::*;

    fn open(disk: &FaultDisk) -> LogDir {
        let who = OpenLogDir {
            cluster_id: "c".to_owned(),
            node_id: NodeId(1),
            new_directory_id: Uuid([1; 16]),
            boot_id: "b".to_owned(),
        };
        LogDir::open(Arc::new(disk.clone()), Path::new("/data"), &who).expect("opens")
    }

    /// Runs `test` with a directory that is open and was told nothing of its logs.
    fn with_directory(disk: &FaultDisk, notes: &MemoryFile, test: impl FnOnce(&Directory)) {
        let (boot_id, mount) = ("b".to_owned(), "m".to_owned());
        let owner = NotesOwner { directory_id: Uuid([1; 16]), generation: 0, boot_id, mount };
        let log_dir = open(disk);
        actix_rt::System::new().block_on(async {
            let directory = Directory::new(
                Path::new("/data"),
                Arbiter::start("disk", Role::Disk("/data".into())).expect("a thread"),
                Arc::new(disk.clone()),
            );
            directory.noted_in(Box::new(MemoryNotes::open(notes, owner).expect("opens")));
            *directory.opened() = Some(Opened {
                log_dir,
                checkpoints: Arc::new(MemoryCheckpoints::default()),
                checkpoints_are_complete: true,
                left: RestartKind::Lossy,
            });
            test(&directory);
        });
    }

    #[test]
    fn after_a_failed_sync_the_next_start_does_not_call_it_durable() {
        let (disk, notes) = (FaultDisk::new(), MemoryFile::default());
        with_directory(&disk, &notes, |directory| {
            directory.opened().as_mut().expect("open").log_dir.unfenced(1, true).expect("writes");
            directory.sync_failed("a test");
            assert!(directory.has_failed());
        });
        assert_eq!(open(&disk).restart_facts().kind(), RestartKind::Lossy);
        assert_eq!(notes.bytes(), None);
    }

    #[test]
    fn notes_of_a_directory_whose_logs_are_not_listed_yet_are_not_complete() {
        let (disk, notes) = (FaultDisk::new(), MemoryFile::default());
        with_directory(&disk, &notes, |directory| {
            let begun = notes.bytes();
            directory.complete_notes();
            assert_eq!(notes.bytes(), begun);
            directory.all_listed();
            directory.has_stray();
            directory.complete_notes();
            assert_eq!(notes.bytes(), begun);
        });
        with_directory(&disk, &notes, |directory| {
            directory.all_listed();
            let begun = notes.bytes();
            directory.complete_notes();
            assert_ne!(notes.bytes(), begun);
        });
    }
}
