//! The periodic work of one log directory: retention, compaction, checkpoints, the remains of deleted topics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use madang_actors::host::TaskContext;
use madang_cluster::replica::ReplicaMessage;
use madang_protocol::types::TopicPartition;
use madang_storage::Checkpoint;
use tokio::time::Instant;

use crate::directory::Directory;

/// How often recovery points are noted: what a kill leaves to be scanned is what was appended since.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

/// The least interval that a configuration can ask for.
const SHORTEST_TURN: Duration = Duration::from_millis(100);

/// Runs until the supervisor stops it.
pub(crate) async fn run(directory: Arc<Directory>, mut context: TaskContext) {
    let mut noted = BTreeMap::new();
    let started = Instant::now();
    let (mut noted_at, mut retained_at, mut compacted_at) = (started, started, started);
    loop {
        let (retention, compaction) = (directory.retention_interval(), directory.compaction_interval());
        let turn = compaction.into_iter().fold(CHECKPOINT_INTERVAL.min(retention), Duration::min).max(SHORTEST_TURN);
        tokio::select! {
            () = tokio::time::sleep(turn) => {}
            () = &mut context.stop => break,
        }
        if !directory.has_failed() && directory.disk.has_lost_a_sync() {
            directory.sync_failed("the sync of a file that was closed failed");
        }
        if directory.has_failed() {
            continue;
        }
        if is_due(&mut noted_at, CHECKPOINT_INTERVAL) {
            checkpoint(&directory, &mut noted).await;
        }
        if directory.compaction_interval().is_some_and(|backoff| is_due(&mut compacted_at, backoff)) {
            compact(&directory);
        }
        if is_due(&mut retained_at, directory.retention_interval()) {
            retain(&directory).await;
        }
    }
    checkpoint(&directory, &mut noted).await;
}

/// Whether `interval` has passed since `last`, which then becomes now.
fn is_due(last: &mut Instant, interval: Duration) -> bool {
    let now = Instant::now();
    let due = now.duration_since(*last) >= interval;
    if due {
        *last = now;
    }
    due
}

/// Notes what has changed since the last time. Blocking work runs beside the directory's thread.
pub(crate) async fn checkpoint(directory: &Arc<Directory>, noted: &mut BTreeMap<TopicPartition, Checkpoint>) {
    directory.complete_notes();
    let changed = || {
        let mut changed = Vec::new();
        for held in directory.held() {
            let shared = held.handle.shared();
            let Some(snapshot) = shared.last_published() else { continue };
            let now = Checkpoint { recovery_point: snapshot.recovery_point(), high_watermark: snapshot.high_watermark };
            if noted.insert(shared.partition(), now) != Some(now) {
                changed.push((shared.partition(), now));
            }
        }
        changed
    };
    if let Err(error) = directory.store_checkpoints(changed).await {
        tracing::warn!(directory = %directory.path.display(), %error, "checkpoints not stored; a recovery would scan more");
        noted.clear();
    }
}

fn compact(directory: &Directory) {
    for held in directory.held() {
        if held.handle.shared().config().compaction.is_some() {
            // A replica that is down or busy is asked again at the next round.
            drop(held.handle.actor().try_send(ReplicaMessage::Compact));
        }
    }
}

async fn retain(directory: &Arc<Directory>) {
    for held in directory.held() {
        // A replica that is down or busy is asked again at the next round.
        drop(held.handle.actor().try_send(ReplicaMessage::Retain));
    }
    let folders = directory.opened().as_ref().map(|opened| opened.log_dir.folders());
    let Some(folders) = folders else { return };
    let finished = tokio::task::spawn_blocking(move || folders.finish_deletions());
    if let Ok(Err(error)) = finished.await {
        tracing::warn!(directory = %directory.path.display(), %error, "remains of deleted topics stay");
    }
}
