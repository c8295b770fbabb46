//! Seeded random logs, several rounds each, against a map of last values.

use std::collections::BTreeMap;
use std::path::Path;

use madang_actors::clock::Wall;
use madang_actors::prng::Prng;
use madang_protocol::types::Offset;
use madang_storage::{AppendOutcome, CompactionSettings, Log, LogConfig, Start};

use super::*;

#[derive(Default)]
struct Model {
    written: BTreeMap<i64, Rec>,
    /// Next sequence of each producer, and the bytes and offset of its last batch.
    producers: BTreeMap<i64, (i32, Bytes, Offset)>,
    clock: i64,
}

impl Model {
    fn write(&mut self, log: &mut Log, prng: &mut Prng, keys: u64) {
        let count = 1 + prng.below(6);
        let mut records = Vec::new();
        for _ in 0..count {
            self.clock += prng.below(20) as i64;
            let key = Some(format!("key-{}", prng.below(keys)).into_bytes());
            let length = prng.below(120) as usize;
            let value = (!prng.chance(3, 20)).then(|| vec![prng.next_u64() as u8; length]);
            let jitter = prng.below(50) as i64;
            records.push(Rec { key, value, timestamp: self.clock + jitter });
        }
        let codec = *prng.pick(&CODECS).expect("codecs");
        let id = prng.below(8) as i64;
        let producer = (id < 4).then(|| (id, self.producers.get(&id).map_or(0, |known| known.0)));
        let bytes = batch(&records, codec, producer);
        let AppendOutcome::Appended(appended) = append_outcome(log, bytes.clone()) else { panic!("not appended") };
        if let Some((id, sequence)) = producer {
            self.producers.insert(id, (sequence + count as i32, bytes, appended.base_offset));
        }
        for (at, record) in records.into_iter().enumerate() {
            self.written.insert(appended.base_offset.0 + at as i64, record);
        }
    }

    fn check(&self, log: &Log) {
        let view = log.view();
        let found = read_records(&view);
        for (offset, record) in &found {
            assert_eq!(Some(record), self.written.get(offset), "the record at {offset}");
        }
        assert_eq!(table(found.values()), table(self.written.values()));
        let clean = log.first_dirty_offset().0;
        let mut last: BTreeMap<&Option<Vec<u8>>, i64> = BTreeMap::new();
        for (offset, record) in self.written.range(..clean) {
            last.insert(&record.key, *offset);
        }
        for (offset, record) in found.range(..clean) {
            assert_eq!(last.get(&record.key), Some(offset), "a superseded record stayed");
        }
        assert_eq!(
            found.range(clean..).count(),
            self.written.range(clean..).count(),
            "a record that was not looked at went"
        );
        // Whoever asks for any offset gets a batch that ends above it, and nothing that lies above a record it should have seen.
        for from in 0..view.log_end_offset().0 {
            let read = view.read(Offset(from), view.log_end_offset(), 1, true).expect("reads");
            assert!(read.next_offset > Offset(from) && read.size > 0, "at {from}");
            let next = found.range(from..).next().map(|(offset, _)| *offset);
            assert!(
                next.is_none_or(|next| next >= from && read.first_offset.0 <= next),
                "at {from}: {next:?} was skipped"
            );
        }
        for offset in (0..view.log_end_offset().0).step_by(7) {
            let time = self.written.get(&offset).map_or(0, |record| record.timestamp);
            let expected = found.iter().find(|(_, record)| record.timestamp >= time).map(|(offset, _)| *offset);
            let answer = view.offset_for_timestamp(time, view.log_end_offset()).expect("looks");
            assert_eq!(answer.map(|answer| answer.offset.0), expected, "by time {time}");
        }
        let highest = found.values().map(|record| record.timestamp).max();
        let answer = view.max_timestamp().expect("looks");
        assert_eq!(answer.map(|answer| answer.timestamp), highest);
    }

    /// A producer that comes back may repeat its last batch or go on after it.
    fn check_producers(&mut self, log: &mut Log) {
        for (id, (sequence, bytes, base_offset)) in self.producers.clone() {
            match append_outcome(log, bytes) {
                AppendOutcome::Duplicate(found) => assert_eq!(found.base_offset, base_offset, "producer {id}"),
                other => panic!("producer {id}: {other:?}"),
            }
            let records = [Rec { key: Some(b"p".to_vec()), value: Some(vec![1]), timestamp: self.clock }];
            let skipped = append_outcome(log, batch(&records, Codec::None, Some((id, sequence + 1))));
            assert!(matches!(skipped, AppendOutcome::Refused(_)), "producer {id}: {skipped:?}");
            let bytes = batch(&records, Codec::None, Some((id, sequence)));
            let AppendOutcome::Appended(appended) = append_outcome(log, bytes.clone()) else { panic!("not appended") };
            self.written.insert(appended.base_offset.0, records[0].clone());
            self.producers.insert(id, (sequence + 1, bytes, appended.base_offset));
        }
    }
}

fn run(seed: u64) -> (u64, u64) {
    let mut prng = Prng::new(seed);
    let config = LogConfig {
        segment_bytes: 1500 + prng.below(4000),
        index_interval_bytes: 100 + prng.below(400),
        ..LogConfig::default()
    };
    let keys = [3, 20, 200][prng.below(3) as usize];
    let (disk, mut log) = memory_log(config.clone());
    let mut model = Model::default();
    for round in 0..6 {
        for _ in 0..40 {
            model.write(&mut log, &mut prng, keys);
        }
        if prng.chance(1, 2) {
            log.roll(Wall(model.clock)).expect("rolls");
        }
        let settings = CompactionSettings {
            delete_retention: std::time::Duration::from_millis(prng.below(1500)),
            dedupe_buffer_bytes: if prng.chance(1, 3) { 0 } else { 1 << 20 },
            seed: prng.next_u64(),
            ..eager()
        };
        compact(&mut log, model.clock, &settings);
        model.check(&log);
        let before = read_batches(&log.view(), 512);
        let (dirty, start) = (log.first_dirty_offset(), [Start::Unclean, Start::SameProcess, Start::Clean][round % 3]);
        if start == Start::Clean {
            log.close().expect("closes");
        } else {
            let request = log.take_dirty().expect("dirty");
            log.synced(request.perform()).expect("syncs");
        }
        log = open(&disk, Path::new(DIRECTORY), config.clone(), start);
        assert_eq!(read_batches(&log.view(), 700), before, "seed {seed}, round {round}");
        assert_eq!(log.first_dirty_offset(), dirty);
        model.check_producers(&mut log);
    }
    // Whatever is left of the producers' batches: their sequences are known from the batches alone.
    for name in names(disk.as_ref()).iter().filter(|name| name.ends_with(".snapshot")) {
        disk.remove_file(&Path::new(DIRECTORY).join(name)).expect("removes");
    }
    drop(log);
    log = open(&disk, Path::new(DIRECTORY), config, Start::Unclean);
    model.check_producers(&mut log);
    model.check(&log);
    (model.written.len() as u64, read_records(&log.view()).len() as u64)
}

#[test]
fn random_logs_keep_the_last_record_of_each_key() {
    let (mut written, mut left) = (0, 0);
    for seed in 0..40 {
        let (before, after) = run(seed);
        written += before;
        left += after;
    }
    assert!(left * 3 < written, "{left} of {written} records are left");
}
