//! Which partition a record goes to. With a key: as Java's clients decide, so that all clients agree.
//! Invariant: what is chosen is a partition that the topic has, unless the user's own partitioner says otherwise, which the producer refuses.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use crate::metadata::TopicMetadata;
use crate::producer::ProducerRecord;

/// Topics whose current partition is remembered; beyond it all are forgotten, which costs a smaller batch each.
const STICKY_TOPICS: usize = 10_000;

/// How a producer chooses a partition for a record that names none.
#[derive(Clone, Debug, Default)]
pub enum Partitioner {
    /// As Java's default: by the murmur2 hash of the key. Records without a key stay with one partition until a batch of it is full or sent, and then go
    /// to another one at random (KIP-480).
    #[default]
    Default,
    /// All records, with keys or without, stay with one partition for `batch_bytes` bytes, and then go to another one at random. As in KIP-794, but
    /// without its adaption to the load of brokers.
    UniformSticky,
    /// Every record to the next partition, with a key or without.
    RoundRobin,
    /// The user's own.
    Custom(Arc<dyn ChoosePartition>),
}

impl PartialEq for Partitioner {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Custom(mine), Self::Custom(theirs)) => Arc::ptr_eq(mine, theirs),
            (mine, theirs) => std::mem::discriminant(mine) == std::mem::discriminant(theirs),
        }
    }
}

impl Eq for Partitioner {}

/// A partitioner of the user's own.
///
/// ```
/// use std::sync::Arc;
/// use madang_client::{ChoosePartition, Partitioner, ProducerConfig, ProducerRecord, TopicMetadata};
///
/// #[derive(Debug)]
/// struct ByFirstByte;
///
/// impl ChoosePartition for ByFirstByte {
///     fn choose(&self, record: &ProducerRecord, topic: &TopicMetadata) -> i32 {
///         let first = record.value.as_ref().and_then(|value| value.first()).copied().unwrap_or(0);
///         i32::from(first) % topic.partitions.len() as i32
///     }
/// }
///
/// let config = ProducerConfig { partitioner: Partitioner::Custom(Arc::new(ByFirstByte)), ..ProducerConfig::default() };
/// ```
pub trait ChoosePartition: fmt::Debug + Send + Sync {
    /// The partition of `record`; `topic` has at least one. One that the topic does not have makes `send` fail with `NoPartition`.
    fn choose(&self, record: &ProducerRecord, topic: &TopicMetadata) -> i32;
}

/// Where records of a topic go at the moment.
#[derive(Clone, Copy, Debug)]
struct Current {
    partition: i32,
    /// Bytes that went there.
    bytes: usize,
}

/// The choices of one producer, shared with its sender, which tells of batches that are full or sent.
#[derive(Debug)]
pub(crate) struct Choices {
    partitioner: Partitioner,
    batch_bytes: usize,
    topics: Mutex<HashMap<Arc<str>, Current>>,
    random: RandomState,
    turn: std::sync::atomic::AtomicU64,
}

impl Choices {
    pub(crate) fn new(partitioner: Partitioner, batch_bytes: usize) -> Self {
        Self {
            partitioner,
            batch_bytes,
            topics: Mutex::default(),
            random: RandomState::new(),
            turn: Default::default(),
        }
    }

    /// The partition of a record that names none. `size` is the record's, in bytes.
    pub(crate) fn choose(&self, record: &ProducerRecord, topic: &TopicMetadata, size: usize) -> i32 {
        let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        match (&self.partitioner, &record.key) {
            (Partitioner::Custom(custom), _) => custom.choose(record, topic),
            (Partitioner::Default, Some(key)) => partition_of(key, count),
            (Partitioner::Default, None) => self.sticky(&record.topic, topic, size, usize::MAX),
            (Partitioner::UniformSticky, _) => self.sticky(&record.topic, topic, size, self.batch_bytes),
            (Partitioner::RoundRobin, _) => {
                let turn = self.next_turn();
                (turn % u64::from(count.unsigned_abs().max(1))) as i32
            }
        }
    }

    fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    fn sticky(&self, name: &Arc<str>, topic: &TopicMetadata, size: usize, limit: usize) -> i32 {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if topics.len() >= STICKY_TOPICS && !topics.contains_key(name) {
            topics.clear();
        }
        let current = topics.get(name).copied();
        let stays = current.filter(|at| at.bytes < limit && topic.partition(at.partition).is_some());
        let mut at = stays.unwrap_or_else(|| Current { partition: self.another(topic, current), bytes: 0 });
        at.bytes = at.bytes.saturating_add(size);
        topics.insert(Arc::clone(name), at);
        at.partition
    }

    /// A partition at random, with a leader if there is one, and another one than before if there are several.
    fn another(&self, topic: &TopicMetadata, before: Option<Current>) -> i32 {
        let has_leader = topic.partitions.iter().any(|found| found.leader.is_some());
        let usable = topic.partitions.iter().filter(|found| found.leader.is_some() == has_leader);
        let before = before.map(|before| before.partition);
        let others: Vec<i32> = usable.clone().map(|found| found.partition).filter(|at| Some(*at) != before).collect();
        let pick = self.random.hash_one(self.next_turn()) as usize;
        let only = usable.map(|found| found.partition).next().unwrap_or_default();
        others.get(pick % others.len().max(1)).copied().unwrap_or(only)
    }

    /// A batch of the partition is full or leaves: records without a key go elsewhere from now on.
    pub(crate) fn batch_ended(&self, topic: &str, partition: i32) {
        if !matches!(self.partitioner, Partitioner::Default) {
            return;
        }
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = topics.get_mut(topic).filter(|at| at.partition == partition) {
            at.bytes = usize::MAX;
        }
    }
}

/// Murmur2 as Kafka's Java client computes it.
#[must_use]
pub fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mix = |mut k: u32| {
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k.wrapping_mul(M)
    };
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        hash = hash.wrapping_mul(M) ^ mix(u32::from_le_bytes(*word));
    }
    if !tail.is_empty() {
        for (place, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)) as i32
}

/// The partition of `key` among `partitions`, which is at least 1.
#[must_use]
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & i32::MAX) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::PartitionMetadata;
    use madang_protocol::types::{LeaderEpoch, NodeId, TopicId};

    fn topic(leaders: &[bool]) -> TopicMetadata {
        let partition = |(partition, has_leader): (i32, &bool)| PartitionMetadata {
            partition,
            error: None,
            leader: has_leader.then_some(NodeId(1)),
            leader_epoch: LeaderEpoch(0),
            assigned_replicas: Vec::new(),
            in_sync_replicas: Vec::new(),
            offline_replicas: Vec::new(),
        };
        let partitions = (0..).zip(leaders).map(partition).collect();
        TopicMetadata { name: "t".into(), id: TopicId::ZERO, is_internal: false, partitions }
    }

    fn chosen(choices: &Choices, topic: &TopicMetadata, count: usize) -> Vec<i32> {
        (0..count).map(|_| choices.choose(&ProducerRecord::new("t").value("v"), topic, 100)).collect()
    }

    #[test]
    fn records_without_a_key_stay_until_the_batch_ends_and_then_go_elsewhere() {
        let (choices, topic) = (Choices::new(Partitioner::Default, 1_000), topic(&[true, true, true]));
        for _ in 0..20 {
            let first = chosen(&choices, &topic, 50);
            assert!(first.iter().all(|at| *at == first[0]), "{first:?}");
            choices.batch_ended("t", (first[0] + 1) % 3);
            assert_eq!(chosen(&choices, &topic, 1), [first[0]], "another partition's batch changes nothing");
            choices.batch_ended("t", first[0]);
            assert_ne!(chosen(&choices, &topic, 1), [first[0]]);
        }
    }

    #[test]
    fn uniform_sticky_stays_for_a_batch_of_bytes_and_ignores_keys() {
        let (choices, topic) = (Choices::new(Partitioner::UniformSticky, 1_000), topic(&[true, true]));
        let record = |_| choices.choose(&ProducerRecord::new("t").key("k"), &topic, 100);
        let all: Vec<i32> = (0..40).map(record).collect();
        for stay in all.chunks(10) {
            assert!(stay.iter().all(|at| *at == stay[0]), "{all:?}");
        }
        assert!(all.chunks(10).zip(all.chunks(10).skip(1)).all(|(a, b)| a[0] != b[0]), "{all:?}");
    }

    #[test]
    fn partitions_without_a_leader_are_avoided_while_others_have_one() {
        let choices = Choices::new(Partitioner::UniformSticky, 1);
        let some = topic(&[false, true, false, true]);
        assert!(chosen(&choices, &some, 50).iter().all(|at| [1, 3].contains(at)));
        assert!(chosen(&choices, &topic(&[false]), 3).iter().all(|at| *at == 0));
    }

    #[test]
    fn round_robin_takes_turns_whatever_the_key() {
        let choices = Choices::new(Partitioner::RoundRobin, 1_000);
        assert_eq!(chosen(&choices, &topic(&[true, true, true]), 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn murmur2_is_that_of_the_java_client() {
        // From Kafka's own UtilsTest.
        let cases: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key), hash, "{key:?}");
        }
    }

    #[test]
    fn a_partition_is_always_one_of_those_there_are() {
        for count in [i32::MIN, -1, 0, 1, 2, 7, i32::MAX] {
            for key in 0..200_u32 {
                let partition = partition_of(&key.to_be_bytes(), count);
                assert!((0..count.max(1)).contains(&partition));
            }
        }
    }
}
