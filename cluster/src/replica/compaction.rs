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
            Err(error @ (LogError::Io { .. } | LogError::Sync { .. })) => {
                effects.push(ReplicaEffect::FailDirectory(error.to_string()))
            }
            Err(error) => effects.push(ReplicaEffect::Restart(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use madang_actors::machine::Machine;
    use madang_actors::prng::Prng;
    use madang_protocol::record_batch::{BatchBuilder, BatchHeader, BatchOptions, ProduceRules, ValidatedBatch};
    use madang_protocol::types::LeaderEpoch;
    use madang_storage::{CompactionJob, CompactionSettings, FaultDisk, Log, LogConfig, OpenLog, Pace};

    use super::super::{Append, Durability, ReplicaConfig, ReplicaInput, RequiredAcks};
    use super::*;
    use crate::request::RequestId;

    fn replica() -> Replica {
        let config = ReplicaConfig {
            log: LogConfig { segment_bytes: 500, ..LogConfig::default() },
            produce: ProduceRules::default(),
            durability: Durability::PageCache,
            min_in_sync_replicas: 1,
            deletes_old_records: false,
            compaction: Some(CompactionSettings::default()),
            replication_factor: 1,
            in_sync_replicas: 1,
            replica_lag_time_max: Duration::from_secs(30),
        };
        let (disk, path) = (Arc::new(FaultDisk::new()), Path::new("/data/topic-0"));
        let (log, _) = Log::open(disk, path, config.log.clone(), &OpenLog::default()).expect("opens");
        Replica::new(1, log, config, None).expect("nothing is lost")
    }

    fn step(replica: &mut Replica, input: ReplicaInput) -> Vec<ReplicaEffect> {
        let mut effects = Vec::new();
        replica.step(Mono::default(), Wall(0), input, &mut Prng::new(0), &mut effects);
        replica.check();
        effects
    }

    fn append(replica: &mut Replica, count: u64) {
        for number in 0..count {
            let mut builder = BatchBuilder::new(BatchOptions::default());
            builder.append(1, Some(b"the key"), Some(&[7; 50]), &[]).expect("fits");
            let bytes: Bytes = builder.build().expect("builds");
            let header = BatchHeader::parse(&bytes).expect("a header");
            let batch = ValidatedBatch { bytes, header, max_timestamp: 1, max_timestamp_offset_delta: 0 };
            let append = Append {
                request: RequestId(number),
                batch,
                required_acks: RequiredAcks::Leader,
                deadline: Mono::default() + Duration::from_secs(1),
                expected_epoch: None,
            };
            step(replica, ReplicaInput::Append(append));
            step(replica, ReplicaInput::EndBatch);
        }
    }

    fn job(effects: Vec<ReplicaEffect>) -> Option<CompactionJob> {
        effects.into_iter().find_map(|effect| match effect {
            ReplicaEffect::Compact(job) => Some(*job),
            _ => None,
        })
    }

    #[test]
    fn one_job_at_a_time_and_its_segments_are_published() {
        let mut replica = replica();
        step(&mut replica, ReplicaInput::Lead(LeaderEpoch(1)));
        append(&mut replica, 40);
        let first = job(step(&mut replica, ReplicaInput::Compact)).expect("a job");
        assert!(job(step(&mut replica, ReplicaInput::Compact)).is_none(), "one is out");
        let before = replica.log().expect("open").size_in_bytes();
        let result = first.run(|_| Pace::Continue);
        let effects = step(&mut replica, ReplicaInput::Compacted(Box::new(result)));
        let published = effects.iter().find_map(|effect| match effect {
            ReplicaEffect::Publish(snapshot) => Some(snapshot.view.size_in_bytes()),
            _ => None,
        });
        assert!(published.is_some_and(|after| after < before / 2), "{published:?} of {before} bytes");
        assert!(job(step(&mut replica, ReplicaInput::Compact)).is_none(), "nothing is dirty");
        append(&mut replica, 40);
        assert!(job(step(&mut replica, ReplicaInput::Compact)).is_some());
    }

    #[test]
    fn a_failed_job_is_tried_again_unless_that_is_of_no_use() {
        let mut replica = replica();
        step(&mut replica, ReplicaInput::Lead(LeaderEpoch(1)));
        append(&mut replica, 40);
        for _ in 0..2 {
            assert!(job(step(&mut replica, ReplicaInput::Compact)).is_some());
            let stopped = ReplicaInput::Compacted(Box::new(Err(CompactionError::Stopped)));
            assert!(step(&mut replica, stopped).is_empty());
        }
        let failed = ReplicaInput::Compacted(Box::new(Err(CompactionError::Sync(ErrorKind::Other.into()))));
        assert!(matches!(step(&mut replica, failed)[..], [ReplicaEffect::FailDirectory(_)]));
        let damaged = CompactionError::Damaged {
            segment: madang_protocol::types::Offset(0),
            position: 0,
            source: madang_protocol::record_batch::BatchError::TrailingBytes,
        };
        step(&mut replica, ReplicaInput::Compacted(Box::new(Err(damaged))));
        assert!(job(step(&mut replica, ReplicaInput::Compact)).is_none());
    }
}
