//! Records of `__consumer_offsets`: keys and values as the coordinator reads them, and a shard that loads them and serves.
//! The first byte chooses whether one key and value are read, or a script of records is loaded.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use madang_actors::clock::{Mono, Wall};
use madang_actors::machine::Machine as _;
use madang_actors::prng::Prng;
use madang_cluster::coordinator::records::{Key, decode_key, decode_value, encode};
use madang_cluster::coordinator::{GroupConfig, Input, Record, Shard};
use madang_fuzz::guarded;

/// What a shard without a record has.
const SHARD: usize = 1 << 20;

/// Cuts one record from the front: two lengths, the key, the value; an odd length of the key stands for a tombstone.
fn cut(script: &mut Bytes) -> Option<Record> {
    let [key, value, ..] = **script else { return None };
    let mut take = |length: u8| script.split_to(usize::from(length).min(script.len()));
    take(2);
    let (bytes, stored) = (take(key), take(value));
    Some(Record { key: bytes, value: (key & 1 == 0).then_some(stored) })
}

fn one(record: &Record) {
    let Ok(key) = decode_key(&record.key) else { return };
    if let Key::Other(_) = key {
        return assert_eq!(encode(&key, None), None);
    }
    let stored = record.value.as_ref().and_then(|value| decode_value(&key, value).ok());
    let again = encode(&key, stored.as_ref()).expect("what was decoded can be encoded");
    assert_eq!(decode_key(&again.key).as_ref(), Ok(&key));
    assert_eq!(again.value.map(|value| decode_value(&key, &value).expect("what was encoded")), stored);
}

fn load(records: Vec<Record>) {
    let (mut shard, mut rng, mut effects) = (Shard::new(GroupConfig::default()), Prng::new(1), Vec::new());
    for input in [Input::Loaded { records }, Input::LoadFinished, Input::Tick] {
        shard.step(Mono::ZERO, Wall(1), input, &mut rng, &mut effects);
        shard.check();
    }
    for _ in 0..8 {
        let Some(deadline) = shard.deadline() else { break };
        shard.step(deadline, Wall(1_000_000_000_000), Input::Tick, &mut rng, &mut effects);
        shard.check();
    }
    let _ = shard.digest();
}

fuzz_target!(|data: &[u8]| {
    let [choice, script @ ..] = data else { return };
    guarded(script, SHARD, |script| {
        let mut script = script.clone();
        let records: Vec<Record> = std::iter::from_fn(|| cut(&mut script)).collect();
        if choice & 1 == 0 { records.iter().for_each(one) } else { load(records) }
    });
});
