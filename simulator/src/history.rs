//! What is known to be true of each partition: what was sent, published, acknowledged, seen by a client. The checks compare with it.
//! Invariant: it learns only from what clients send and hear and from what replicas publish, never from a replica's insides.

use std::cell::{Ref, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use madang_protocol::types::{NodeId, TopicPartition};

use crate::invariants::compaction::Record;
use crate::invariants::groups::GroupHistory;
use crate::invariants::metadata::MetadataHistory;

/// A batch as the sender made it, known by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its first record's number; records of one batch are numbered in sequence.
    pub serial: u64,
    /// Its records.
    pub records: i32,
    /// Whether its producer is idempotent, so that it may be stored once only.
    pub idempotent: bool,
}

/// A batch in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its content.
    pub content: u64,
    /// The leader's epoch.
    pub epoch: i32,
    /// The offset after its last record.
    pub next: i64,
}

/// An acknowledgement that a client got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The batch's content.
    pub content: u64,
    /// Whether all in-sync replicas had to have it.
    pub all: bool,
}

/// One partition.
#[derive(Clone, Debug, Default)]
pub struct PartitionHistory {
    /// The published log, by base offset.
    pub stored: BTreeMap<i64, Stored>,
    /// Every content ever published at (epoch, offset).
    pub ever: BTreeMap<(i32, i64), u64>,
    /// Acknowledged batches, by base offset.
    pub acked: BTreeMap<i64, Acked>,
    /// The highest high watermark published.
    pub high_watermark: i64,
    /// The highest that any client has heard of.
    pub heard_high_watermark: i64,
    /// The published start.
    pub log_start: i64,
    /// The published end.
    pub end: i64,
    /// The end that a later life has to find at least.
    pub kept: i64,
    /// The end that was published as confirmed.
    pub confirmed: i64,
    /// The highest start that anybody asked for.
    pub asked_start: i64,
    /// Whether retention deletes from it.
    pub retains: bool,
    /// Whether clients may read it.
    pub internal: bool,
    /// Whether superseded records may go.
    pub compacted: bool,
    /// Of a compacted partition, what was appended, by offset.
    pub records: BTreeMap<i64, Record>,
    /// The same offsets, by key.
    pub of_key: BTreeMap<u64, BTreeSet<i64>>,
    /// Whether its topic may be deleted.
    pub doomed: bool,
    /// Whether it has been.
    pub deleted: bool,
    /// The highest start that any client has heard of.
    pub heard_log_start: i64,
    /// Whether a power cut or a failed sync may have taken what no replica has recovered since.
    pub suspect: bool,
    /// How often records below the high watermark were lost as the durability allows.
    pub losses: u64,
}

/// All partitions.
#[derive(Clone, Debug)]
pub struct History {
    /// Whether a power cut may take what was acknowledged.
    pub page_cache: bool,
    /// Batches by content. All views of a run have the same.
    sent: Rc<RefCell<BTreeMap<u64, Sent>>>,
    /// The group of all members.
    pub group: GroupHistory,
    /// The metadata, the producer ids. All views of a run have the same.
    metadata: Rc<RefCell<MetadataHistory>>,
    /// Who led each partition in each epoch.
    pub leaders: BTreeMap<(TopicPartition, i32), NodeId>,
    /// By partition.
    pub partitions: BTreeMap<TopicPartition, PartitionHistory>,
}

impl History {
    /// Nothing has happened.
    #[must_use]
    pub fn new(page_cache: bool) -> Self {
        Self {
            page_cache,
            sent: Rc::default(),
            group: GroupHistory::default(),
            metadata: Rc::default(),
            leaders: BTreeMap::new(),
            partitions: BTreeMap::new(),
        }
    }

    /// What is known of the logs of one node among several: nothing yet.
    #[must_use]
    pub fn of_one_node(&self) -> Self {
        let (sent, metadata) = (Rc::clone(&self.sent), Rc::clone(&self.metadata));
        Self { sent, metadata, ..Self::new(self.page_cache) }
    }

    /// What is known of the metadata.
    #[must_use]
    pub fn metadata(&self) -> Ref<'_, MetadataHistory> {
        self.metadata.borrow()
    }

    /// Notes something of the metadata.
    pub fn learn<T>(&self, learn: impl FnOnce(&mut MetadataHistory) -> T) -> T {
        learn(&mut self.metadata.borrow_mut())
    }

    /// The batch as its sender made it.
    #[must_use]
    pub fn sent(&self, content: u64) -> Option<Sent> {
        self.sent.borrow().get(&content).copied()
    }

    /// The partition's history. A topic may be doomed before anything is known of its partitions, if none could be started.
    pub fn of(&mut self, partition: TopicPartition) -> &mut PartitionHistory {
        let doomed = self.metadata().is_doomed(partition.topic_id);
        self.partitions.entry(partition).or_insert_with(|| PartitionHistory { doomed, ..PartitionHistory::default() })
    }

    /// A client is about to send the batch.
    pub fn send(&self, content: u64, sent: Sent) {
        self.sent.borrow_mut().insert(content, sent);
    }
}

impl PartitionHistory {
    /// Records from `end` on are gone, as they may be.
    pub fn cut(&mut self, end: i64) {
        self.stored.split_off(&end);
        self.acked.split_off(&end);
        self.records.split_off(&end);
        if self.high_watermark > end {
            self.losses += 1;
        } else {
            self.of_key.values_mut().for_each(|offsets| drop(offsets.split_off(&end)));
        }
        self.high_watermark = self.high_watermark.min(end);
        self.heard_high_watermark = self.heard_high_watermark.min(end);
        self.heard_log_start = self.heard_log_start.min(end);
        self.end = self.end.min(end);
        self.kept = self.kept.min(end);
        self.confirmed = self.confirmed.min(end);
        self.log_start = self.log_start.min(end);
    }
}

/// What tells two batches apart, whatever their place: a hash of all that the leader does not stamp.
#[must_use]
pub fn content(batch: &[u8]) -> u64 {
    let body = batch.get(16..).unwrap_or_default();
    body.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
