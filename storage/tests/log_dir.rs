//! Log directories: who may use one, how it was left, what may be deleted; checkpoints; the sync threads.

mod common;

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use madang_actors::clock::Wall;
use madang_actors::prng::Prng;
use madang_protocol::types::{LeaderEpoch, NodeId, Offset, TopicPartition, Uuid};
use madang_storage::{
    Checkpoint, Checkpoints, Crash, Disk, Fault, FaultDisk, Identity, Log, LogConfig, LogDir, LogDirError,
    MemoryCheckpoints, MemoryFile, MemoryNotes, Note, Notes, NotesOwner, OpenLog, OpenLogDir, OpenMode, RealDisk,
    Recovery, RestartFacts, RestartKind, SledCheckpoints, SyncPool, TmpfsNotes,
};

const PATH: &str = "/data";
const TOPIC: Uuid = Uuid([7; 16]);

fn who(cluster_id: &str, boot_id: &str) -> OpenLogDir {
    OpenLogDir {
        cluster_id: cluster_id.to_owned(),
        node_id: NodeId(1),
        new_directory_id: Uuid([9; 16]),
        boot_id: boot_id.to_owned(),
    }
}

fn open(disk: &FaultDisk) -> Result<LogDir, LogDirError> {
    LogDir::open(Arc::new(disk.clone()), Path::new(PATH), &who("c", "b"))
}

#[test]
fn a_directory_serves_one_node_of_one_cluster() {
    let disk = FaultDisk::new();
    let first = open(&disk).expect("opens");
    assert!(matches!(open(&disk), Err(LogDirError::Locked(_))));
    drop(first);
    let other = LogDir::open(Arc::new(disk.clone()), Path::new(PATH), &who("other", "b"));
    assert!(matches!(other, Err(LogDirError::Foreign { .. })));
    let real = tempfile::tempdir().expect("a directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(4));
    let _first = LogDir::open(Arc::clone(&disk), real.path(), &who("c", "b")).expect("opens");
    assert!(matches!(LogDir::open(disk, real.path(), &who("c", "b")), Err(LogDirError::Locked(_))));
}

#[test]
fn the_clean_marker_counts_once() {
    let disk = FaultDisk::new();
    let directory = open(&disk).expect("opens");
    assert_eq!(directory.restart_facts().kind(), RestartKind::Lossy, "a new directory promises nothing");
    assert!(directory.close_clean(0).expect("closes"));
    disk.crash(Crash::Power, &mut Prng::new(1));
    let directory = open(&disk).expect("opens");
    assert_eq!(directory.restart_facts().kind(), RestartKind::Clean);
    drop(directory);
    disk.crash(Crash::Power, &mut Prng::new(2));
    assert!(!open(&disk).expect("opens").restart_facts().clean_marker);
}

#[test]
fn a_directory_with_a_partition_that_nobody_opened_says_clean_only_if_it_was_found_so() {
    let disk = FaultDisk::new();
    let directory = open(&disk).expect("opens");
    directory.create_partition("t", 0, TOPIC).expect("creates");
    drop(directory);
    disk.crash(Crash::Power, &mut Prng::new(1));
    // A node that is stopped before it has started its replicas.
    let directory = open(&disk).expect("opens");
    assert!(!directory.close_clean(0).expect("closes"));
    let directory = open(&disk).expect("opens");
    assert!(!directory.restart_facts().clean_marker, "its tail was never recovered");
    assert!(directory.close_clean(1).expect("closes"));
    let directory = open(&disk).expect("opens");
    assert!(directory.close_clean(0).expect("closes"), "nothing has touched it since");
    assert!(open(&disk).expect("opens").restart_facts().clean_marker);
}

#[test]
fn the_kind_of_a_restart_follows_from_its_facts() {
    let facts = RestartFacts {
        same_boot: true,
        first_sync_succeeded: true,
        reaches_noted_ends: true,
        ..RestartFacts::default()
    };
    assert_eq!(facts.kind(), RestartKind::SameBoot);
    assert_eq!(RestartFacts { first_sync_succeeded: false, ..facts }.kind(), RestartKind::Lossy);
    assert_eq!(RestartFacts { reaches_noted_ends: false, ..facts }.kind(), RestartKind::Lossy);
    assert_eq!(RestartFacts { sync_point: true, ..facts }.kind(), RestartKind::Durable);
    let short = RestartFacts { below_recovery_point: true, clean_marker: true, sync_point: true, ..facts };
    assert_eq!(short.kind(), RestartKind::Lossy);
}

#[test]
fn a_directory_is_of_the_same_boot_if_its_notes_are_and_every_log_reaches_them() {
    let kind = |boot: &str, believed, found: &Recovery| {
        let disk = FaultDisk::new();
        drop(open(&disk).expect("opens"));
        disk.crash(Crash::Kill, &mut Prng::new(1));
        let mut directory = LogDir::open(Arc::new(disk.clone()), Path::new(PATH), &who("c", boot)).expect("opens");
        directory.noted(believed);
        directory.recovered(&Recovery::default());
        directory.recovered(found);
        directory.restart_facts().kind()
    };
    let reached = Recovery::default();
    assert_eq!(kind("b", true, &reached), RestartKind::SameBoot);
    assert_eq!(kind("b", false, &reached), RestartKind::Lossy);
    assert_eq!(kind("later", true, &reached), RestartKind::Lossy);
    let short = Recovery { below_noted_end: true, ..Recovery::default() };
    assert_eq!(kind("b", true, &short), RestartKind::Lossy);
}

/// Seed 29: what a failed write was to say was taken as said, so that saying it again wrote nothing.
#[test]
fn a_sync_point_that_could_not_be_taken_back_is_taken_back_at_the_next_try() {
    let disk = FaultDisk::new();
    let mut directory = open(&disk).expect("opens");
    directory.unfenced(1, true).expect("writes");
    disk.plan(disk.operations(), Fault::Error(std::io::ErrorKind::Other));
    assert!(directory.set_sync_point(false).is_err());
    assert!(directory.identity().sync_point, "nothing was written");
    directory.set_sync_point(false).expect("writes");
    drop(directory);
    disk.crash(Crash::Kill, &mut Prng::new(1));
    assert_eq!(open(&disk).expect("opens").restart_facts().kind(), RestartKind::Lossy);
}

#[test]
fn a_log_below_its_noted_end_is_lossy_whatever_its_directory_says() {
    let disk = FaultDisk::new();
    let mut directory = open(&disk).expect("opens");
    directory.unfenced(1, true).expect("writes");
    drop(directory);
    disk.crash(Crash::Kill, &mut Prng::new(1));
    let mut directory = open(&disk).expect("opens");
    directory.noted(true);
    assert_eq!(directory.restart_facts().kind(), RestartKind::Durable);
    directory.recovered(&Recovery { below_noted_end: true, ..Recovery::default() });
    assert_eq!(directory.restart_facts().kind(), RestartKind::Lossy);
}

/// None where there is no tmpfs or the kernel cannot name mounts: there is nothing to test then.
fn notes(folder: &Path, data: &Path, boot_id: &str) -> Option<TmpfsNotes> {
    thread_local! {
        static GENERATION: Cell<u64> = const { Cell::new(0) };
    }
    let who = Identity {
        directory_id: Uuid([5; 16]),
        cluster_id: String::new(),
        node_id: NodeId(1),
        broker_epoch: -1,
        sync_point: false,
        boot_id: boot_id.to_owned(),
        notes_generation: GENERATION.get(),
    };
    let notes = TmpfsNotes::open(folder, data, &who).expect("opens");
    if notes.as_ref().is_some_and(|notes| !notes.are_believed()) {
        GENERATION.set(who.notes_generation + 1);
    }
    notes
}

/// A process that keeps none in between leaves what the one before it noted to nobody.
#[test]
fn a_process_without_notes_ends_the_belief_in_older_ones() {
    let disk = FaultDisk::new();
    let file = MemoryFile::default();
    let owner = |directory: &LogDir| NotesOwner {
        directory_id: directory.identity().directory_id,
        generation: directory.identity().notes_generation,
        boot_id: "b".to_owned(),
        mount: "m".to_owned(),
    };
    let process = |keeps: bool| {
        let mut directory = open(&disk).expect("opens");
        let notes = keeps.then(|| MemoryNotes::open(&file, owner(&directory)).expect("opens"));
        let believed = notes.as_ref().is_some_and(Notes::are_believed);
        if !believed {
            directory.begin_notes().expect("writes");
        }
        notes.map_or(Ok(()), |notes| notes.complete()).expect("noted");
        drop(directory);
        disk.crash(Crash::Kill, &mut Prng::new(1));
        believed
    };
    assert!(!process(true));
    assert!(process(true) && process(true));
    assert!(!process(false));
    assert!(!process(true), "what the second process noted is not of the third");
    assert!(process(true));
}

fn noted(log_end: i64) -> Note {
    Note { incarnation: 1, log_end_offset: Offset(log_end), ..Note::default() }
}

#[test]
fn notes_are_believed_by_the_next_process_of_the_same_boot_alone() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else { return };
    let (folder, data) = (folder.path(), tempfile::tempdir().expect("a directory"));
    let partition = |partition| TopicPartition { topic_id: TOPIC, partition };
    let Some(first) = notes(folder, data.path(), "b") else { return };
    assert!(!first.are_believed());
    (0..5).for_each(|at| first.store(partition(at), noted(i64::from(at))).expect("noted"));
    assert_eq!(first.load(partition(3)), None, "not believed, so nothing is known");
    assert!(!notes(folder, data.path(), "b").expect("tmpfs").are_believed(), "incomplete ones are begun anew");
    let first = notes(folder, data.path(), "b").expect("tmpfs");
    (0..5).for_each(|at| first.store(partition(at), noted(i64::from(at))).expect("noted"));
    first.complete().expect("noted");
    first.remove(partition(2));
    first.store(partition(7), noted(70)).expect("noted");
    first.store(partition(4), noted(40)).expect("noted");
    let second = notes(folder, data.path(), "b").expect("tmpfs");
    assert!(second.are_believed());
    let ends = [0, 2, 4, 7].map(|at| second.load(partition(at)).map(|note| note.log_end_offset.0));
    assert_eq!(ends, [Some(0), None, Some(40), Some(70)]);
    assert!(!notes(folder, Path::new("/proc"), "b").expect("tmpfs").are_believed(), "another mount");
}

#[test]
fn notes_that_are_discarded_or_somebody_elses_are_not_believed() {
    use std::os::unix::fs::PermissionsExt;
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else { return };
    let (folder, data) = (folder.path(), tempfile::tempdir().expect("a directory"));
    let file = folder.join(format!("madang-{}", Uuid([5; 16])));
    let begun = || {
        let notes = notes(folder, data.path(), "b")?;
        notes.complete().expect("noted");
        Some(notes)
    };
    let Some(first) = begun() else { return };
    first.discard();
    first.store(TopicPartition { topic_id: TOPIC, partition: 1 }, noted(1)).expect("of no effect");
    assert!(!file.exists() && !first.are_believed());
    begun();
    assert!(!notes(folder, data.path(), "later").expect("tmpfs").are_believed());
    for damage in 0..3 {
        begun();
        match damage {
            0 => std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("changes"),
            1 => std::fs::hard_link(&file, folder.join("second-name")).expect("links"),
            _ => {
                std::fs::rename(&file, folder.join("elsewhere")).expect("moves");
                std::os::unix::fs::symlink(folder.join("elsewhere"), &file).expect("links");
            }
        }
        assert!(!notes(folder, data.path(), "b").expect("tmpfs").are_believed(), "damage {damage}");
    }
}

#[test]
fn no_notes_are_kept_where_an_end_of_the_system_would_leave_them() {
    let data = tempfile::tempdir().expect("a directory");
    assert!(notes(Path::new("/proc"), data.path(), "b").is_none());
    assert!(notes(Path::new("/dev/shm"), data.path(), "").is_none(), "the boot is not known");
    assert!(notes(Path::new("/nowhere"), data.path(), "b").is_none());
}

#[test]
fn identity_and_sync_point_survive() {
    let disk = FaultDisk::new();
    let mut directory = open(&disk).expect("opens");
    directory.unfenced(42, true).expect("writes");
    drop(directory);
    disk.crash(Crash::Power, &mut Prng::new(3));
    let directory = open(&disk).expect("opens");
    assert_eq!((directory.identity().broker_epoch, directory.identity().directory_id), (42, Uuid([9; 16])));
    assert_eq!(directory.restart_facts().kind(), RestartKind::Durable);
}

#[test]
fn only_a_tombstone_with_the_topics_id_deletes() {
    let disk = FaultDisk::new();
    let directory = open(&disk).expect("opens");
    let path = directory.create_partition("a-b.c", 3, TOPIC).expect("creates");
    assert!(matches!(directory.create_partition("a-b.c", 3, Uuid([8; 16])), Err(LogDirError::NotThisTopic(_))));
    disk.create_dir(Path::new("/data/stray-0")).expect("creates");
    disk.create_dir(Path::new("/data/lost+found")).expect("creates");
    let partitions = directory.partitions().expect("lists");
    assert_eq!(partitions.len(), 2);
    assert_eq!(
        (partitions[0].topic.as_str(), partitions[0].partition, partitions[0].topic_id),
        ("a-b.c", 3, Some(TOPIC))
    );
    assert_eq!(partitions[1].topic_id, None);
    for (at, tombstone) in [(0, Uuid([8; 16])), (0, Uuid::ZERO), (1, TOPIC), (1, Uuid::ZERO)] {
        assert!(matches!(directory.delete_partition(&partitions[at], tombstone), Err(LogDirError::NotThisTopic(_))));
    }
    assert_eq!(directory.finish_deletions().expect("nothing"), 0);
    directory.delete_partition(&partitions[0], TOPIC).expect("deletes");
    assert!(!disk.exists(&path).expect("asks"));
    drop(directory);
    disk.crash(Crash::Power, &mut Prng::new(4));
    let directory = open(&disk).expect("opens");
    assert_eq!(directory.finish_deletions().expect("deletes"), 1);
    assert!(disk.exists(Path::new("/data/lost+found")).is_ok());
}

#[test]
fn a_partition_that_came_back_is_deleted_again_before_the_first_is_gone() {
    let disk = FaultDisk::new();
    let directory = open(&disk).expect("opens");
    for _ in 0..3 {
        let path = directory.create_partition("a", 0, TOPIC).expect("creates");
        let partitions = directory.partitions().expect("lists");
        directory.delete_partition(&partitions[0], TOPIC).expect("deletes");
        assert!(!disk.exists(&path).expect("asks"));
    }
    assert_eq!(directory.finish_deletions().expect("deletes"), 1);
}

#[test]
fn a_damaged_identity_makes_a_new_directory_and_deletes_nothing() {
    let disk = FaultDisk::new();
    let directory = open(&disk).expect("opens");
    directory.create_partition("t", 0, TOPIC).expect("creates");
    assert!(directory.close_clean(1).expect("closes"));
    disk.flip_bit(Path::new("/data/directory.metadata"), 20, 1).expect("there");
    let directory = open(&disk).expect("opens");
    assert_eq!(directory.restart_facts().kind(), RestartKind::Lossy);
    assert_eq!(directory.partitions().expect("lists").len(), 1);
}

#[test]
fn a_creation_that_was_cut_short_is_begun_again() {
    for at in 0.. {
        for crash in [Crash::Kill, Crash::Power] {
            let disk = FaultDisk::new();
            let directory = open(&disk).expect("opens");
            disk.plan(disk.operations() + at, Fault::Crash);
            if directory.create_partition("t", 0, TOPIC).is_ok() {
                return assert!(at > 3, "it writes, syncs and renames");
            }
            drop(directory);
            disk.crash(crash, &mut Prng::new(at));
            let directory = open(&disk).expect("opens");
            let created = directory.create_partition("t", 0, TOPIC);
            assert!(created.is_ok(), "cut at {at} by {crash:?}: {created:?}");
        }
    }
}

#[test]
fn a_folder_with_a_log_and_without_its_topic_is_nobodys() {
    let disk = FaultDisk::new();
    let directory = open(&disk).expect("opens");
    let path = Path::new("/data/t-0");
    disk.create_dir(path).expect("creates");
    for name in ["partition.metadata.tmp", "00000000000000000000.log"] {
        disk.open(&path.join(name), OpenMode::Truncate).expect("creates");
    }
    assert!(matches!(directory.create_partition("t", 0, TOPIC), Err(LogDirError::NotThisTopic(_))));
}

fn checkpoints_remember(checkpoints: &dyn Checkpoints) {
    let partition = |partition| TopicPartition { topic_id: TOPIC, partition };
    let checkpoint = |at| Checkpoint { recovery_point: Offset(at), high_watermark: Offset(at - 1) };
    let all: Vec<_> = (0..100).map(|at| (partition(at), checkpoint(i64::from(at)))).collect();
    checkpoints.store(&all).expect("stores");
    checkpoints.store(&[(partition(5), checkpoint(77))]).expect("stores");
    checkpoints.remove(partition(6)).expect("removes");
    assert_eq!(checkpoints.load(partition(5)), Some(checkpoint(77)));
    assert_eq!((checkpoints.load(partition(6)), checkpoints.load(partition(100))), (None, None));
}

#[test]
fn checkpoints_are_kept_or_begun_anew() {
    checkpoints_remember(&MemoryCheckpoints::default());
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("checkpoints");
    checkpoints_remember(&SledCheckpoints::open(&path).expect("opens"));
    let partition = TopicPartition { topic_id: TOPIC, partition: 7 };
    assert!(SledCheckpoints::open(&path).expect("opens").load(partition).is_some());
    for name in ["db", "conf"] {
        std::fs::write(path.join(name), [0xa5; 3000]).expect("writes");
    }
    let anew = SledCheckpoints::open(&path).expect("opens");
    assert_eq!(anew.load(partition), None);
    checkpoints_remember(&anew);
}

#[test]
fn the_pool_confirms_what_it_synced() {
    let directory = tempfile::tempdir().expect("a directory");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(2));
    let pool = SyncPool::start("sync", 2).expect("starts");
    let (outcomes, done) = channel();
    let mut logs = Vec::new();
    for at in 0..5 {
        let path = directory.path().join(format!("t-{at}"));
        let mut log = Log::open(Arc::clone(&disk), &path, LogConfig::default(), &OpenLog::default()).expect("opens").0;
        log.append_as_leader(&[common::batch(3, 10, 0)], LeaderEpoch(0), Wall(0)).expect("appends");
        let (request, outcomes) = (log.take_dirty().expect("dirty"), outcomes.clone());
        pool.submit(request, move |outcome| outcomes.send((at, outcome)).expect("received"));
        logs.push(log);
    }
    for _ in 0..5 {
        let (at, outcome) = done.recv().expect("an outcome");
        let log: &mut Log = &mut logs[at];
        assert_eq!(log.synced(outcome).expect("synced"), Offset(3));
    }
}
