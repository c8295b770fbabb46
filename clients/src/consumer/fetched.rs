//! What has been fetched and not yet returned, decoded one batch at a time.
//! Invariant: at most one batch is expanded; the rest is kept as it came. Control batches are never records.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use madang_protocol::compression::{Codec, Limits, decompress};
use madang_protocol::messages::fetch::{AbortedTransaction, PartitionData};
use madang_protocol::record::{ControlRecord, Records};
use madang_protocol::record_batch::{BatchError, BatchView};
use madang_protocol::types::Offset;

use super::{ConsumerRecord, Position};
use crate::error::ConsumeError;

/// Batches of a partition, in order.
#[derive(Debug)]
struct Pending {
    key: (Arc<str>, i32),
    bytes: Bytes,
    aborted: Aborted,
}

/// The transactions whose records are left out.
#[derive(Debug, Default)]
struct Aborted {
    /// Those that begin behind what has been read, by their first offset.
    to_come: VecDeque<AbortedTransaction>,
    /// The producers whose transaction at this place was aborted.
    open: BTreeSet<i64>,
}

impl Aborted {
    fn of(list: Option<Vec<AbortedTransaction>>) -> Self {
        let mut list = list.unwrap_or_default();
        list.sort_by_key(|transaction| transaction.first_offset);
        Self { to_come: list.into(), open: BTreeSet::new() }
    }

    /// Whether the records of the batch belong to an aborted transaction. Has to be asked for every batch in order.
    fn covers(&mut self, batch: &BatchView<'_>) -> bool {
        let header = batch.header;
        while let Some(next) = self.to_come.pop_front_if(|next| next.first_offset <= header.last_offset().0) {
            self.open.insert(next.producer_id);
        }
        header.is_transactional() && !header.is_control() && self.open.contains(&header.producer_id)
    }

    /// A marker ends its producer's transaction.
    fn marker(&mut self, batch: &BatchView<'_>) {
        let record = Records::new(batch.body(), batch.header.record_count).next();
        let key = record.and_then(|record| record.ok()?.key);
        if key.and_then(ControlRecord::from_key) == Some(ControlRecord::Abort) {
            self.open.remove(&batch.header.producer_id);
        }
    }
}

/// Fetched partitions, first come, first returned.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pending: VecDeque<Pending>,
    /// Records of the batch that is being returned, and the offset that follows the batch.
    expanded: VecDeque<ConsumerRecord>,
    next: Option<((Arc<str>, i32), Offset)>,
}

impl Fetched {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.expanded.is_empty() && self.next.is_none()
    }

    pub(super) fn add(&mut self, key: (Arc<str>, i32), data: PartitionData) {
        // What came over a connection is in memory, so reading it cannot fail.
        let bytes = data.records.and_then(|records| records.read().ok()).unwrap_or_default();
        if !bytes.is_empty() {
            let aborted = Aborted::of(data.aborted_transactions);
            self.pending.push_back(Pending { key, bytes, aborted });
        }
    }

    /// Whether something of the partition waits here.
    pub(super) fn has(&self, key: &(Arc<str>, i32)) -> bool {
        let is_next = self.next.as_ref().is_some_and(|(next, _)| next == key);
        is_next || self.pending.iter().any(|pending| pending.key == *key)
    }

    pub(super) fn forget(&mut self, topic: &str, partition: i32) {
        let is = |key: &(Arc<str>, i32)| &*key.0 == topic && key.1 == partition;
        self.pending.retain(|pending| !is(&pending.key));
        if self.next.as_ref().is_some_and(|(key, _)| is(key)) {
            self.next = None;
            self.expanded.clear();
        }
    }

    /// Up to `limit` records, and the positions moved behind them.
    pub(super) fn take(&mut self, limit: usize, positions: &mut Position) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        let mut records = Vec::new();
        while records.len() < limit {
            if let Some(record) = self.expanded.pop_front() {
                if let Some(((topic, partition), _)) = &self.next {
                    positions.insert((Arc::clone(topic), *partition), record.offset + 1);
                }
                records.push(record);
            } else if let Some((key, offset)) = self.next.take() {
                // The batch may end in offsets that compaction emptied.
                positions.insert(key, offset);
            } else if let Err(error) = self.expand(positions) {
                // What came before the damage is returned first; the next call meets the damage again.
                return if records.is_empty() { Err(error) } else { Ok(records) };
            } else if self.is_empty() {
                break;
            }
        }
        Ok(records)
    }

    /// Expands the next batch; does nothing if there is none.
    fn expand(&mut self, positions: &Position) -> Result<(), ConsumeError> {
        let Some(pending) = self.pending.front_mut() else { return Ok(()) };
        let key = pending.key.clone();
        let position = positions.get(&key).copied().unwrap_or(Offset::ZERO);
        let outcome = expand_batch(pending, position);
        match outcome {
            Ok(Some((records, next))) => {
                if next > position {
                    self.next = Some((key, next));
                    self.expanded = records;
                }
            }
            Ok(None) => drop(self.pending.pop_front()),
            Err(source) => {
                self.pending.pop_front();
                return Err(ConsumeError::Batch {
                    topic: key.0.to_string(),
                    partition: key.1,
                    offset: position.0,
                    source,
                });
            }
        }
        Ok(())
    }
}

type Expanded = (VecDeque<ConsumerRecord>, Offset);

/// Takes the first batch off `pending`. `None` if no whole batch is left: an answer may end inside one.
fn expand_batch(pending: &mut Pending, position: Offset) -> Result<Option<Expanded>, BatchError> {
    let frame = pending.bytes.clone();
    let batch = match BatchView::parse(&frame) {
        Ok(batch) => batch,
        Err(BatchError::Torn { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    batch.verify_crc()?;
    let header = batch.header;
    if header.last_offset_delta < 0 || header.base_offset.0.checked_add(i64::from(i32::MAX)).is_none() {
        return Err(BatchError::Header("the batch's offsets are out of range"));
    }
    let mut records = VecDeque::new();
    let is_aborted = pending.aborted.covers(&batch);
    if header.is_control() {
        pending.aborted.marker(&batch);
    } else if !is_aborted && header.next_offset() > position {
        let body = match header.codec()? {
            Codec::None => frame.slice_ref(batch.body()),
            codec => Bytes::from(decompress(codec, batch.body(), &Limits::default())?),
        };
        let share = |part: &[u8]| body.slice_ref(part);
        for record in Records::new(&body, header.record_count) {
            let record = record?;
            let offset = record.offset(&header);
            if offset < position || offset > header.last_offset() {
                continue;
            }
            records.push_back(ConsumerRecord {
                topic: Arc::clone(&pending.key.0),
                partition: pending.key.1,
                offset,
                timestamp: record.timestamp(&header),
                key: record.key.map(share),
                value: record.value.map(share),
                headers: record.headers.map(|(name, value)| (share(name), value.map(share))).collect(),
            });
        }
    }
    pending.bytes = frame.slice(batch.bytes.len()..);
    Ok(Some((records, header.next_offset())))
}

#[cfg(test)]
mod tests {
    use madang_protocol::compression::Compression;
    use madang_protocol::payload::Payload;
    use madang_protocol::record_batch::{BatchBuilder, BatchOptions, set_max_timestamp};

    use super::*;

    fn batch(codec: Codec, base: i64, count: i64) -> Vec<u8> {
        let compression = Compression::of(codec);
        let options = BatchOptions { compression, base_offset: Offset(base), ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        for index in 0..count {
            let value = format!("value {}", base + index);
            builder.append(1_000, Some(b"key"), Some(value.as_bytes()), &[(b"h", None)]).expect("a record");
        }
        builder.build().expect("a batch").to_vec()
    }

    fn fetched(bytes: Vec<u8>) -> (Fetched, (Arc<str>, i32)) {
        let key: (Arc<str>, i32) = ("t".into(), 0);
        let mut fetched = Fetched::default();
        let records = Some(Payload::Bytes(Bytes::from(bytes)));
        fetched.add(key.clone(), PartitionData { records, ..PartitionData::default() });
        (fetched, key)
    }

    #[test]
    fn records_come_in_order_from_inside_a_batch_on_whatever_the_codec() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let (mut fetched, key) = fetched([batch(codec, 0, 5), batch(codec, 5, 5)].concat());
            let mut positions = Position::from([(key.clone(), Offset(3))]);
            let mut seen = Vec::new();
            while !fetched.is_empty() {
                for record in fetched.take(2, &mut positions).expect("sound") {
                    assert_eq!(record.value.as_deref(), Some(format!("value {}", record.offset).as_bytes()));
                    seen.push(record.offset.0);
                    assert_eq!(record.headers, [(Bytes::from("h"), None)]);
                }
            }
            assert_eq!(seen, [3, 4, 5, 6, 7, 8, 9]);
            assert_eq!(positions[&key], Offset(10));
        }
    }

    fn marker(base: i64, producer_id: i64, kind: ControlRecord) -> Vec<u8> {
        let options = BatchOptions {
            base_offset: Offset(base),
            producer_id,
            producer_epoch: 0,
            transactional: true,
            control: true,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        builder.append(1_000, Some(&kind.key()), Some(&ControlRecord::value(0)), &[]).expect("a marker");
        builder.build().expect("a batch").to_vec()
    }

    fn transactional(base: i64, producer_id: i64, value: &str) -> Vec<u8> {
        let options = BatchOptions {
            base_offset: Offset(base),
            producer_id,
            producer_epoch: 0,
            base_sequence: 0,
            transactional: true,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        builder.append(1_000, None, Some(value.as_bytes()), &[]).expect("a record");
        builder.build().expect("a batch").to_vec()
    }

    #[test]
    fn aborted_transactions_and_markers_are_left_out_and_offsets_go_on() {
        let bytes = [
            transactional(0, 7, "aborted"),
            transactional(1, 8, "committed"),
            marker(2, 7, ControlRecord::Abort),
            transactional(3, 7, "again"),
            marker(4, 8, ControlRecord::Commit),
            marker(5, 7, ControlRecord::Commit),
        ]
        .concat();
        let aborted = |list| Some(vec![AbortedTransaction { producer_id: list, first_offset: 0 }]);
        let values = |aborted_transactions| {
            let key: (Arc<str>, i32) = ("t".into(), 0);
            let (mut fetched, mut positions) = (Fetched::default(), Position::from([(key.clone(), Offset(0))]));
            let records = Some(Payload::Bytes(Bytes::from(bytes.clone())));
            fetched.add(key.clone(), PartitionData { records, aborted_transactions, ..PartitionData::default() });
            let records = fetched.take(100, &mut positions).expect("sound");
            assert_eq!(positions[&key], Offset(6), "markers are passed");
            let text = |record: ConsumerRecord| String::from_utf8(record.value.unwrap_or_default().to_vec());
            records.into_iter().map(|record| text(record).expect("text")).collect::<Vec<_>>()
        };
        assert_eq!(values(None), ["aborted", "committed", "again"]);
        assert_eq!(values(aborted(7)), ["committed", "again"]);
    }

    #[test]
    fn a_torn_last_batch_is_no_error_and_a_damaged_one_is() {
        let mut bytes = [batch(Codec::None, 0, 2), batch(Codec::None, 2, 2)].concat();
        bytes.truncate(bytes.len() - 1);
        let (mut torn, key) = fetched(bytes.clone());
        let mut positions = Position::from([(key.clone(), Offset(0))]);
        assert_eq!(torn.take(10, &mut positions).expect("sound").len(), 2);
        assert_eq!(positions[&key], Offset(2));

        let mut damaged = batch(Codec::None, 0, 2);
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        let (mut damaged, key) = fetched(damaged);
        let mut positions = Position::from([(key.clone(), Offset(0))]);
        assert!(matches!(damaged.take(10, &mut positions), Err(ConsumeError::Batch { .. })));
        assert_eq!(positions[&key], Offset(0));
    }

    #[test]
    fn no_damage_under_a_right_crc_makes_it_panic_or_go_back() {
        for at in (0..12).chain(16..61) {
            for bit in 0..8 {
                let mut bytes = batch(Codec::None, 7, 3);
                bytes[at] ^= 1 << bit;
                // Rewrites the CRC, if the bytes are still a batch.
                let _ = set_max_timestamp(&mut bytes, 77);
                let (mut fetched, key) = fetched(bytes);
                let mut positions = Position::from([(key.clone(), Offset(8))]);
                for record in fetched.take(10, &mut positions).unwrap_or_default() {
                    assert!(record.offset >= Offset(8), "byte {at} bit {bit}");
                }
                assert!(positions[&key] >= Offset(8), "byte {at} bit {bit}");
            }
        }
    }
}
