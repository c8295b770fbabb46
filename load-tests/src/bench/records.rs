//! What each record is: its partition, size, key and bytes.
//! Invariant: a producer's records are the same for the same scenario and seed, however fast they are sent.

use madang_actors::prng::Prng;

use super::scenario::{Records, Scenario, Size};
use crate::payload::Head;

/// Bytes of which each record has a piece as its filler.
#[derive(Clone, Debug)]
pub struct Filler {
    block: Vec<u8>,
}

/// Larger than a window of any codec looks back for the same bytes in small records, small enough for a cache.
const BLOCK: usize = 1 << 20;
/// Noise and zeros take turns within so many bytes, so that short records have their share of both.
const STRIPE: usize = 64;

impl Filler {
    /// `compressibility` of it is zeros, the rest noise.
    #[must_use]
    pub fn new(seed: u64, compressibility: f64) -> Self {
        let mut prng = Prng::new(seed);
        let noise = ((1.0 - compressibility.clamp(0.0, 1.0)) * STRIPE as f64).round() as usize;
        let block = (0..BLOCK).map(|at| if at % STRIPE < noise { prng.next_u64() as u8 } else { 0 }).collect();
        Self { block }
    }

    fn fill(&self, serial: u64, bytes: &mut Vec<u8>, size: usize) {
        let mut at = (serial.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize) % BLOCK;
        while bytes.len() < size {
            let piece = &self.block[at..BLOCK.min(at + size - bytes.len())];
            bytes.extend_from_slice(piece);
            at = 0;
        }
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its place among its producer's records.
    pub serial: u64,
    /// Its partition among all partitions of all topics.
    pub place: u32,
    /// Bytes of its value.
    pub size: u32,
    /// Its key.
    pub key: Option<u64>,
}

/// The records of one producer, in order.
#[derive(Clone, Debug)]
pub struct Stream {
    records: Records,
    places: u32,
    producer: u32,
    serial: u64,
    prng: Prng,
}

impl Stream {
    /// From the first record on.
    #[must_use]
    pub fn new(scenario: &Scenario, producer: u32) -> Self {
        let prng = Prng::new(scenario.seed ^ (u64::from(producer) + 1).wrapping_mul(0xd6e8_feb8_6659_fd93));
        Self { records: scenario.records.clone(), places: scenario.all_partitions(), producer, serial: 0, prng }
    }

    /// How many there have been.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.serial
    }

    /// The next one.
    pub fn take(&mut self) -> Spec {
        let serial = self.serial;
        self.serial += 1;
        let size = self.size();
        let key = (self.records.keys > 0).then(|| self.prng.below(self.records.keys));
        let places = u64::from(self.places.max(1));
        let place = match (key, self.records.turn) {
            (Some(key), _) => Prng::new(key).below(places),
            (None, 0) => u64::from(self.producer) % places,
            (None, turn) => (u64::from(self.producer) + serial / turn) % places,
        };
        Spec { serial, place: u32::try_from(place).unwrap_or(0), size, key }
    }

    fn size(&mut self) -> u32 {
        match &self.records.size {
            Size::Fixed(size) => *size,
            Size::Between { min, max } => {
                let above = self.prng.below(u64::from(max - min) + 1);
                min + u32::try_from(above).unwrap_or(0)
            }
            Size::Weighted(sizes) => {
                let all = sizes.iter().map(|(_, weight)| u64::from(*weight)).sum();
                let mut left = self.prng.below(all);
                let found = sizes.iter().find(|(_, weight)| {
                    let is_it = left < u64::from(*weight);
                    left = left.saturating_sub(u64::from(*weight));
                    is_it
                });
                found.or(sizes.last()).map_or(0, |(size, _)| *size)
            }
        }
    }
}

/// The bytes of a record's value. `unique` says when it was to be sent, see [`stamp`].
#[must_use]
pub fn value(run: u64, producer: u32, spec: &Spec, unique: u64, key: &str, filler: &Filler) -> Vec<u8> {
    let head = Head { run, process: producer, serial: spec.serial, unique, key };
    head.encode(spec.size as usize, |bytes, size| filler.fill(spec.serial, bytes, size))
}

/// A number that no other record has, and that says when the record was to be sent. A producer's times must not repeat.
#[must_use]
pub const fn stamp(due_ns: u64, producer: u32, producers: u32) -> u64 {
    due_ns.saturating_mul(producers as u64).saturating_add(producer as u64)
}

/// When a record with this stamp was to be sent.
#[must_use]
pub const fn stamped_at(stamp: u64, producers: u32) -> u64 {
    stamp / if producers == 0 { 1 } else { producers as u64 }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn scenario(changes: &[&str]) -> Scenario {
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        Scenario::read("purpose = \"A test.\"", &changes).expect("sound")
    }

    fn take(scenario: &Scenario, producer: u32, count: usize) -> Vec<Spec> {
        let mut stream = Stream::new(scenario, producer);
        (0..count).map(|_| stream.take()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_records_and_another_gives_others() {
        let one = scenario(&["records.size={min=100,max=5000}", "records.keys=50"]);
        let other = scenario(&["records.size={min=100,max=5000}", "records.keys=50", "seed=2"]);
        assert_eq!(take(&one, 3, 100), take(&one, 3, 100));
        assert_ne!(take(&one, 3, 100), take(&other, 3, 100));
        assert_ne!(take(&one, 3, 100), take(&one, 4, 100));
    }

    #[test]
    fn a_key_stays_at_its_partition_and_keys_are_spread() {
        let keyed = scenario(&["records.keys=200", "topics.partitions=10"]);
        let mut places: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
        for spec in take(&keyed, 0, 5000) {
            places.entry(spec.key.expect("a key")).or_default().insert(spec.place);
        }
        assert!(places.values().all(|places| places.len() == 1));
        assert_eq!(places.values().flatten().collect::<BTreeSet<_>>().len(), 10);
    }

    #[test]
    fn without_keys_partitions_take_turns_or_stay() {
        let places = |turn: &str| {
            let all = take(&scenario(&["topics.partitions=3", turn]), 1, 6);
            all.iter().map(|spec| spec.place).collect::<Vec<_>>()
        };
        assert_eq!(places("records.turn=1"), [1, 2, 0, 1, 2, 0]);
        assert_eq!(places("records.turn=2"), [1, 1, 2, 2, 0, 0]);
        assert_eq!(places("records.turn=0"), [1; 6]);
    }

    #[test]
    fn sizes_are_those_of_the_distribution() {
        let sizes = |size: &str| take(&scenario(&[size]), 0, 4000).iter().map(|spec| spec.size).collect::<Vec<_>>();
        let between = sizes("records.size={min=100,max=103}");
        assert_eq!(between.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([100, 101, 102, 103]));
        let large = sizes("records.size=[[100,9],[5000,1]]").iter().filter(|size| **size == 5000).count();
        assert!((300..500).contains(&large), "{large}");
    }

    #[test]
    fn a_value_says_what_it_is_and_zeros_are_as_many_as_asked_for() {
        for compressibility in [0.0, 0.5, 1.0] {
            let filler = Filler::new(7, compressibility);
            let spec = Spec { serial: 9, place: 0, size: 100_000, key: None };
            let bytes = value(5, 2, &spec, stamp(77, 2, 10), "t/0", &filler);
            let (head, begin) = Head::decode(&bytes).expect("sound");
            assert_eq!((head.run, head.process, head.serial, head.key), (5, 2, 9, "t/0"));
            assert_eq!((bytes.len(), stamped_at(head.unique, 10)), (100_000, 77));
            let zeros = bytes[begin..].iter().filter(|byte| **byte == 0).count() as f64 / bytes.len() as f64;
            assert!((zeros - compressibility).abs() < 0.02, "{zeros}");
        }
    }

    #[test]
    fn a_record_that_is_larger_than_the_block_is_filled() {
        let spec = Spec { serial: 3, place: 0, size: 3 << 20, key: None };
        assert_eq!(value(1, 0, &spec, 0, "t/0", &Filler::new(1, 0.0)).len(), 3 << 20);
    }
}
