//! What a replica does when its disk fails in the middle of something else than an append.

use std::path::Path;

use madang_actors::clock::{Mono, Wall};
use madang_actors::machine::Machine;
use madang_actors::prng::Prng;
use madang_protocol::record_batch::{BatchBuilder, BatchHeader, BatchOptions, ValidatedBatch};
use madang_storage::{Disk, FaultDisk, Log, OpenLog, OpenMode};

use super::*;

fn step(replica: &mut Replica, input: ReplicaInput) -> Vec<ReplicaEffect> {
    let mut effects = Vec::new();
    replica.step(Mono::default(), Wall(0), input, &mut Prng::new(0), &mut effects);
    effects
}

#[test]
fn a_sync_that_fails_while_the_log_start_moves_fails_the_directory() {
    let (disk, path) = (FaultDisk::new(), Path::new("/data/topic-0"));
    let config = ReplicaConfig {
        log: LogConfig::default(),
        produce: ProduceRules::default(),
        durability: Durability::PageCache,
        min_in_sync_replicas: 1,
        deletes_old_records: false,
        compaction: None,
        replication_factor: 1,
        in_sync_replicas: 1,
        replica_lag_time_max: Duration::from_secs(30),
    };
    let opened = Log::open(Arc::new(disk.clone()), path, config.log.clone(), &OpenLog::default());
    let mut replica = Replica::new(1, opened.expect("opens").0, config, None).expect("nothing is lost");
    step(&mut replica, ReplicaInput::Lead(LeaderEpoch(1)));
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(1, None, Some(b"value"), &[]).expect("fits");
    let bytes: bytes::Bytes = builder.build().expect("builds");
    let header = BatchHeader::parse(&bytes).expect("a header");
    let append = Append {
        request: RequestId(1),
        batch: ValidatedBatch { bytes, header, max_timestamp: 1, max_timestamp_offset_delta: 0 },
        required_acks: RequiredAcks::Leader,
        deadline: Mono::default(),
        expected_epoch: None,
    };
    step(&mut replica, ReplicaInput::Append(append));
    step(&mut replica, ReplicaInput::EndBatch);
    let side_file = path.join("log-start-offset.tmp");
    disk.open(&side_file, OpenMode::Create).expect("creates");
    disk.fail_next_sync(&side_file).expect("there");
    let effects = step(&mut replica, ReplicaInput::DeleteRecords { request: RequestId(2), before: Offset(1) });
    assert!(effects.iter().any(|effect| matches!(effect, ReplicaEffect::FailDirectory(_))), "{effects:?}");
    let refused = |effect: &ReplicaEffect| matches!(effect, ReplicaEffect::ReplyDeleted { result: Err(_), .. });
    assert!(effects.iter().any(refused), "{effects:?}");
}
