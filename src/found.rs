//! How a directory and its logs are found at a start. Pure, for the node and for the simulator.
//! Invariant: what is claimed rests on what was noted of this boot; whatever a log or a sync tells against it later is reported as a loss of its own.

use madang_actors::clock::Wall;
use madang_cluster::configs::Durability;
use madang_cluster::controller::LogDirStart;
use madang_cluster::replica::{ReplicaSnapshot, SharedReplica};
use madang_protocol::types::Offset;
use madang_storage::{Checkpoint, LogDir, Note, OpenLog, RestartKind, Start};

/// What a directory says of itself at registration. That every log reaches its noted end, and that the first sync succeeds, is found out later:
/// a log that does not is reported as lost before its replica serves anybody, and a directory whose sync fails gives up all it holds. A kill would
/// cost what page-cache durability promises, were it not claimed until then.
#[must_use]
pub fn start_of(log_dir: &LogDir, left: RestartKind) -> LogDirStart {
    let identity = log_dir.identity();
    LogDirStart { directory: identity.directory_id, kind: left, broker_epoch: identity.broker_epoch }
}

/// Whether all that lies in a directory is served: every log was found whole, and has told its end. `complete` says that `held` are all of
/// its logs.
pub fn all_known<'a>(complete: bool, held: impl IntoIterator<Item = &'a SharedReplica>) -> bool {
    complete && held.into_iter().all(|shared| shared.last_published().is_some())
}

/// Whether a directory's sync point holds from now on: it did, or all it holds is `known` and so was synced, and nothing counts before it is.
#[must_use]
pub fn sync_point(log_dir: &LogDir, durability: Durability, known: bool) -> bool {
    durability == Durability::Fsync && (known || log_dir.identity().sync_point)
}

/// What a directory says of its sync point before anybody counts on its node: one that holds nothing has all of it synced. Else a power cut of
/// all before their first logs are open would leave new partitions without anybody who may lead.
#[must_use]
pub fn sync_point_at_registration(log_dir: &LogDir, durability: Durability) -> bool {
    log_dir.identity().sync_point || sync_point(log_dir, durability, log_dir.is_empty().unwrap_or(false))
}

/// How a replica's log is found by its first life.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// How it was left.
    pub start: Start,
    /// The end that a checkpoint knows to be on the device.
    pub recovery_point: Option<Offset>,
    /// What was noted of it in this boot.
    pub noted: Option<Note>,
    /// Whether all that an earlier process wrote was synced at once since it ended.
    pub synced: bool,
    /// The high watermark as it was stored.
    pub high_watermark: Offset,
    /// For the jitter of its segments' age.
    pub seed: u64,
}

impl Found {
    /// How the first life of a process finds it. `clean` says that its directory was closed in order.
    #[must_use]
    pub fn first(
        clean: bool,
        durability: Durability,
        checkpoint: Option<Checkpoint>,
        noted: Option<Note>,
        seed: u64,
    ) -> Self {
        let recovery_point = checkpoint.map(|known| known.recovery_point);
        let stored = [checkpoint.map(|known| known.high_watermark), noted.map(|noted| noted.high_watermark)];
        let high_watermark = stored.into_iter().flatten().max().unwrap_or(Offset::ZERO);
        let start = match durability {
            _ if clean => Start::Clean,
            Durability::PageCache if noted.is_some() => Start::SameBoot,
            _ => Start::Unclean,
        };
        Self { start, recovery_point, noted, synced: false, high_watermark, seed }
    }

    /// The same, after a sync of the whole file system, for the first time that it is opened.
    #[must_use]
    pub const fn after_sync(self, synced: bool) -> Self {
        Self { synced, ..self }
    }

    /// How a later life finds what `before` has published.
    #[must_use]
    pub fn after(self, before: &ReplicaSnapshot) -> Self {
        let (recovery_point, noted) = (Some(before.recovery_point()), Some(before.note()));
        Self { start: Start::SameProcess, recovery_point, noted, synced: false, ..self }
    }

    /// What the log is opened with.
    #[must_use]
    pub fn open(self, incarnation: u64, wall: Wall) -> OpenLog {
        let Self { start, recovery_point, noted, synced, seed, .. } = self;
        OpenLog { start, recovery_point, noted, synced, seed, incarnation, wall, ..OpenLog::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use madang_protocol::types::{NodeId, Uuid};
    use madang_storage::{FaultDisk, OpenLogDir};

    use super::*;

    fn opened() -> LogDir {
        opened_on(&Arc::new(FaultDisk::new()))
    }

    fn opened_on(disk: &Arc<FaultDisk>) -> LogDir {
        let who = OpenLogDir {
            cluster_id: "c".to_owned(),
            node_id: NodeId(1),
            new_directory_id: Uuid([1; 16]),
            boot_id: "b".to_owned(),
        };
        let disk: Arc<dyn madang_storage::Disk> = Arc::<FaultDisk>::clone(disk);
        LogDir::open(disk, Path::new("/data"), &who).expect("opens")
    }

    #[test]
    fn a_directory_that_nobody_has_looked_through_is_not_known() {
        assert!(!all_known(false, []), "a start that lists its logs later knows none of them yet");
        assert!(all_known(true, []));
    }

    #[test]
    fn a_sync_point_begins_when_all_is_known_and_stays_until_it_is_taken_back() {
        let mut log_dir = opened();
        assert!(!sync_point(&log_dir, Durability::Fsync, false));
        assert!(sync_point(&log_dir, Durability::Fsync, true));
        assert!(!sync_point(&log_dir, Durability::PageCache, true));
        log_dir.unfenced(1, true).expect("writes");
        assert!(sync_point(&log_dir, Durability::Fsync, false));
        log_dir.set_sync_point(false).expect("writes");
        assert!(!sync_point(&log_dir, Durability::Fsync, false));
    }

    #[test]
    fn a_directory_that_holds_nothing_has_it_all_on_the_device_before_its_node_is_counted_on() {
        let mut log_dir = opened();
        assert!(sync_point_at_registration(&log_dir, Durability::Fsync));
        assert!(!sync_point_at_registration(&log_dir, Durability::PageCache));
        log_dir.create_partition("orders", 0, Uuid([7; 16])).expect("creates");
        assert!(!sync_point_at_registration(&log_dir, Durability::Fsync), "nobody has looked at that yet");
        log_dir.set_sync_point(true).expect("writes");
        assert!(sync_point_at_registration(&log_dir, Durability::Fsync));
    }

    #[test]
    fn a_registration_says_how_the_directory_was_left() {
        let log_dir = opened();
        for left in [RestartKind::SameBoot, RestartKind::Durable, RestartKind::Clean, RestartKind::Lossy] {
            assert_eq!(start_of(&log_dir, left).kind, left);
        }
    }

    #[test]
    fn a_kill_in_a_boot_whose_notes_are_believed_costs_nothing() {
        let mut log_dir = opened();
        assert_eq!(
            start_of(&log_dir, log_dir.restart_facts().kind()).kind,
            RestartKind::Lossy,
            "a new one has no word"
        );
        drop(log_dir);
        let disk = Arc::new(FaultDisk::new());
        log_dir = opened_on(&disk);
        drop(log_dir);
        log_dir = opened_on(&disk);
        log_dir.noted(true);
        assert_eq!(start_of(&log_dir, log_dir.restart_facts().kind()).kind, RestartKind::SameBoot);
        drop(log_dir);
        log_dir = opened_on(&disk);
        log_dir.noted(false);
        assert_eq!(start_of(&log_dir, log_dir.restart_facts().kind()).kind, RestartKind::Lossy);
    }

    #[test]
    fn only_what_is_promised_to_the_page_cache_is_taken_from_it() {
        let noted = Some(Note::default());
        let start = |clean, durability, noted| Found::first(clean, durability, None, noted, 0).start;
        assert_eq!(start(false, Durability::PageCache, noted), Start::SameBoot);
        assert_eq!(start(false, Durability::PageCache, None), Start::Unclean);
        assert_eq!(start(false, Durability::Fsync, noted), Start::Unclean);
        assert_eq!(start(true, Durability::PageCache, noted), Start::Clean);
    }
}
