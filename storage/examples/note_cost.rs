//! What a note on tmpfs costs beside the append that it tells of: runs of both in turn, the ratio of each pair, the median of all.
//! `cargo run --release -p madang-storage --example note_cost`

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use madang_actors::clock::Wall;
use madang_protocol::record_batch::{BatchBuilder, BatchOptions};
use madang_protocol::types::{LeaderEpoch, NodeId, Offset, TopicPartition, Uuid};
use madang_storage::{BatchToAppend, Identity, Log, LogConfig, Note, Notes, OpenLog, RealDisk, TmpfsNotes};

const CALLS: usize = 2000;
const PAIRS: usize = 15;

fn timed(mut call: impl FnMut()) -> Duration {
    let began = Instant::now();
    (0..CALLS).for_each(|_| call());
    began.elapsed()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let who = Identity {
        directory_id: Uuid([9; 16]),
        cluster_id: String::new(),
        node_id: NodeId(1),
        broker_epoch: -1,
        sync_point: false,
        boot_id: "bench".to_owned(),
        notes_generation: 0,
    };
    let notes = TmpfsNotes::open(Path::new("/dev/shm"), folder.path(), &who)?;
    let notes = notes.ok_or("no notes can be kept here")?;
    let partition = TopicPartition { topic_id: Uuid([1; 16]), partition: 0 };
    // As many neighbours as make the map of slots a real one.
    for number in 0..1000 {
        notes.store(TopicPartition { partition: number, ..partition }, Note::default())?;
    }
    for size in [100, 1000, 16_000] {
        let config = LogConfig { segment_bytes: 64 << 20, retention_bytes: Some(0), ..LogConfig::default() };
        let path = folder.path().join(format!("log-{size}"));
        let mut log = Log::open(Arc::new(RealDisk::new(10)), &path, config, &OpenLog::default())?.0;
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(1, None, Some(&vec![7; size]), &[])?;
        let batch = BatchToAppend::new(builder.build()?)?;
        let mut pairs: Vec<(Duration, Duration)> = Vec::new();
        for _ in 0..PAIRS {
            let append = timed(|| drop(log.append_as_leader(std::slice::from_ref(&batch), LeaderEpoch(0), Wall(0))));
            let note = Note { log_end_offset: log.log_end_offset(), confirmed_end: Offset(0), ..Note::default() };
            pairs.push((append, timed(|| drop(notes.store(partition, note)))));
        }
        pairs.sort_by(|a, b| {
            (a.1.as_secs_f64() / a.0.as_secs_f64()).total_cmp(&(b.1.as_secs_f64() / b.0.as_secs_f64()))
        });
        let (append, note) = pairs[PAIRS / 2];
        let each = |time: Duration| time.as_secs_f64() * 1e6 / CALLS as f64;
        let ratio = note.as_secs_f64() / append.as_secs_f64();
        println!(
            "one record of {size} bytes: append {:.2} us, note {:.2} us, ratio {ratio:.3}",
            each(append),
            each(note)
        );
    }
    notes.discard();
    Ok(())
}
