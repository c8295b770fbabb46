//! A replica's part in compaction: when to plan, and what a job's end means.
//! Invariant: one job at a time, and nothing that a job reads is deleted while it runs.

use std::io::ErrorKind;

use madang_actors::clock::{Mono, Wall};
use madang_storage::{CompactionError, Installed, LogError};

use super::{Compacted, Replica, ReplicaEffect};

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Compaction {
    /// Nothing.
    Idle,
    /// A job is out.
    Running,
    /// A batch is damaged: every try would end there. The log serves what can be read, and grows.
    Impossible,
}

impl Replica {
    /// Plans a job if the topic is compacted, none is out, and enough has been superseded.
    pub(super) fn compact(&mut self, wall: Wall, effects: &mut Vec<ReplicaEffect>) {
        let (Some(log), Some(settings)) = (&self.log, &self.config.compaction) else { return };
        if self.compaction != Compaction::Idle {
            return;
        }
        if let Some(job) = log.compaction_plan(self.high_watermark, wall, settings) {
            self.compaction = Compaction::Running;
            effects.push(ReplicaEffect::Compact(Box::new(job)));
        }
    }

    /// Takes a job's outcome.
    pub(super) fn compacted(&mut self, now: Mono, wall: Wall, result: Compacted, effects: &mut Vec<ReplicaEffect>) {
        self.compaction = Compaction::Idle;
        let Some(log) = &mut self.log else { return };
        let result = match result {
            Ok(result) => result,
            Err(CompactionError::Stopped) => return,
            Err(error @ CompactionError::Sync(_)) => {
                return effects.push(ReplicaEffect::FailDirectory(error.to_string()));
            }
            Err(error @ CompactionError::Damaged { .. }) => {
                self.compaction = Compaction::Impossible;
                return tracing::error!(directory = %log.directory().display(), %error, "log is no longer compacted");
            }
            Err(error) => {
                return tracing::warn!(directory = %log.directory().display(), %error, "tried again at the next round");
            }
        };
        match log.install(result) {
            Ok(Installed::Swapped(stats)) => {
                tracing::info!(directory = %log.directory().display(), ?stats, "log compacted");
                // The offsets are the same; the segments behind them are not.
                self.published = None;
                self.publish_if_changed(effects);
                self.ask_for_sync(now, wall, effects);
            }
            Ok(Installed::Stale) => {}
            // The files went with their topic, or by a hand from outside: the disk is not to blame.
            Err(LogError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                effects.push(ReplicaEffect::Restart(source.to_string()));
            }
            Err(error @ LogError::Io { .. }) => effects.push(ReplicaEffect::FailDirectory(error.to_string())),
            Err(error) => effects.push(ReplicaEffect::Restart(error.to_string())),
        }
    }
}
