//! The persisted half of a shard: what a replay of its partition gives.
//! Invariant: it changes only in `replay`, at append and at load alike; what readers of offsets see changes only when an append commits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::message::{Effect, Record, Ticket};
use super::records::{self, GroupRecord, Key, OffsetRecord, Value};

/// One change: a key with its new value, or none to remove it.
pub(crate) type Change = (Key, Option<Value>);

/// The offsets of one group, by topic and partition.
pub(crate) type Topics = BTreeMap<Arc<str>, BTreeMap<i32, Slot>>;

/// A stored offset as it is committed, and as appends in flight will make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    committed: Option<OffsetRecord>,
    in_flight: VecDeque<(Ticket, Option<OffsetRecord>)>,
}

impl Slot {
    /// What a reader sees.
    pub(crate) fn committed(&self) -> Option<&OffsetRecord> {
        self.committed.as_ref()
    }

    /// What the log says.
    pub(crate) fn latest(&self) -> Option<&OffsetRecord> {
        match self.in_flight.back() {
            Some((_, value)) => value.as_ref(),
            None => self.committed.as_ref(),
        }
    }
}

/// What became of a record at load.
pub(crate) enum Loaded {
    Applied,
    Skipped,
    /// Unreadable, of this group if its key could be read.
    Corrupt(Option<Arc<str>>),
}

/// Groups and offsets as the log has them.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Store {
    groups: BTreeMap<Arc<str>, GroupRecord>,
    offsets: BTreeMap<Arc<str>, Topics>,
    offset_count: usize,
    corrupt: BTreeMap<Arc<str>, BTreeSet<Key>>,
    appended: u64,
    committed: u64,
    in_flight: VecDeque<(Ticket, Key)>,
}

impl Store {
    pub(crate) fn group(&self, group: &str) -> Option<&GroupRecord> {
        self.groups.get(group)
    }

    pub(crate) fn topics(&self, group: &str) -> Option<&Topics> {
        self.offsets.get(group)
    }

    /// Keys of `group` whose values cannot be read.
    pub(crate) fn corrupt_keys(&self, group: &str) -> Option<&BTreeSet<Key>> {
        self.corrupt.get(group)
    }

    /// Every group with a record, an offset or a corrupt value.
    pub(crate) fn group_ids(&self) -> BTreeSet<Arc<str>> {
        self.groups.keys().chain(self.offsets.keys()).chain(self.corrupt.keys()).cloned().collect()
    }

    pub(crate) fn offset_count(&self) -> usize {
        self.offset_count
    }

    pub(crate) fn appends_in_flight(&self) -> u64 {
        self.appended - self.committed
    }

    /// Whether `ticket` still waits for its commit.
    pub(crate) fn is_in_flight(&self, ticket: Ticket) -> bool {
        ticket.0 > self.committed
    }

    /// The offsets of `group` that the log has, removals in flight left out.
    pub(crate) fn latest_offsets(&self, group: &str) -> impl Iterator<Item = (&Arc<str>, i32, &OffsetRecord)> {
        self.offsets.get(group).into_iter().flatten().flat_map(|(topic, partitions)| {
            partitions.iter().filter_map(move |(partition, slot)| Some((topic, *partition, slot.latest()?)))
        })
    }

    pub(crate) fn has_offsets(&self, group: &str) -> bool {
        self.latest_offsets(group).next().is_some()
    }

    /// Replays `changes` and asks the shell to append them, in as many appends as `max_bytes` demands. Answers the last one's ticket;
    /// none, with nothing changed, if there is nothing to append or one change alone is too large.
    pub(crate) fn append(
        &mut self,
        changes: Vec<Change>,
        max_bytes: usize,
        effects: &mut Vec<Effect>,
    ) -> Option<Ticket> {
        let mut encoded = Vec::with_capacity(changes.len());
        for (key, value) in &changes {
            let record = records::encode(key, value.as_ref())?;
            if size(&record) > max_bytes {
                return None;
            }
            encoded.push(record);
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        for ((key, value), record) in changes.into_iter().zip(encoded) {
            if bytes + size(&record) > max_bytes && !batch.is_empty() {
                self.close_batch(&mut batch, effects);
                bytes = 0;
            }
            bytes += size(&record);
            batch.push(record);
            self.replay(key, value, Some(Ticket(self.appended + 1)));
        }
        if batch.is_empty() {
            return None;
        }
        self.close_batch(&mut batch, effects);
        Some(Ticket(self.appended))
    }

    fn close_batch(&mut self, batch: &mut Vec<Record>, effects: &mut Vec<Effect>) {
        self.appended += 1;
        effects.push(Effect::Append { ticket: Ticket(self.appended), records: std::mem::take(batch) });
    }

    /// Applies one record of the log at load.
    pub(crate) fn load(&mut self, record: &Record) -> Loaded {
        let key = match records::decode_key(&record.key) {
            Ok(Key::Other(_)) => return Loaded::Skipped,
            Ok(key) => key,
            Err(_) => return Loaded::Corrupt(None),
        };
        let value = match record.value.as_ref().map(|value| records::decode_value(&key, value)) {
            None => None,
            Some(Ok(value)) => Some(value),
            Some(Err(_)) => {
                let group = key.group().cloned();
                if let Some(group) = group.clone() {
                    self.corrupt.entry(group).or_default().insert(key);
                }
                return Loaded::Corrupt(group);
            }
        };
        self.replay(key, value, None);
        Loaded::Applied
    }

    /// The only place where persisted state changes. Without a ticket the record is committed already.
    fn replay(&mut self, key: Key, value: Option<Value>, ticket: Option<Ticket>) {
        if let Some(group) = key.group()
            && let Some(keys) = self.corrupt.get_mut(group)
        {
            keys.remove(&key);
            if keys.is_empty() {
                self.corrupt.remove(group);
            }
        }
        match (&key, value) {
            (Key::Group { group }, Some(Value::Group(value))) => {
                self.groups.insert(group.clone(), value);
            }
            (Key::Group { group }, None) => {
                self.groups.remove(group);
            }
            (Key::Offset { .. }, Some(Value::Offset(value))) => self.replay_offset(key, Some(value), ticket),
            (Key::Offset { .. }, None) => self.replay_offset(key, None, ticket),
            (key, value) => unreachable!("{key:?} cannot hold {value:?}"),
        }
    }

    fn replay_offset(&mut self, key: Key, value: Option<OffsetRecord>, ticket: Option<Ticket>) {
        let Key::Offset { group, topic, partition } = &key else { return };
        let partitions = self.offsets.entry(group.clone()).or_default().entry(topic.clone()).or_default();
        let slot = partitions.entry(*partition).or_insert_with(|| {
            self.offset_count += 1;
            Slot::default()
        });
        match ticket {
            Some(ticket) => {
                slot.in_flight.push_back((ticket, value));
                self.in_flight.push_back((ticket, key));
            }
            None => {
                slot.committed = value;
                self.sweep(&key);
            }
        }
    }

    /// Lets readers see every append up to `through`.
    pub(crate) fn commit(&mut self, through: Ticket) {
        assert!(through.0 <= self.appended, "an append commits before it is made");
        self.committed = self.committed.max(through.0);
        while self.in_flight.front().is_some_and(|(ticket, _)| *ticket <= through) {
            let Some((_, key)) = self.in_flight.pop_front() else { return };
            let Key::Offset { group, topic, partition } = &key else { continue };
            let slot = self.offsets.get_mut(group).and_then(|topics| topics.get_mut(topic)?.get_mut(partition));
            if let Some(slot) = slot
                && let Some((_, value)) = slot.in_flight.pop_front()
            {
                slot.committed = value;
            }
            self.sweep(&key);
        }
    }

    /// Forgets a slot that holds nothing, and the maps it leaves empty.
    fn sweep(&mut self, key: &Key) {
        let Key::Offset { group, topic, partition } = key else { return };
        let Some(topics) = self.offsets.get_mut(group) else { return };
        let Some(partitions) = topics.get_mut(topic) else { return };
        if partitions.get(partition).is_some_and(|slot| slot.committed.is_none() && slot.in_flight.is_empty()) {
            partitions.remove(partition);
            self.offset_count -= 1;
        }
        if partitions.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.offsets.remove(group);
        }
    }

    /// Hashes what a replay of the log must give again: groups and the latest offsets.
    pub(crate) fn hash_log_view(&self, hasher: &mut impl Hasher) {
        self.groups.hash(hasher);
        for group in self.offsets.keys() {
            for offset in self.latest_offsets(group) {
                (group, offset).hash(hasher);
            }
        }
    }

    pub(crate) fn check(&self) {
        assert!(self.committed <= self.appended, "more is committed than appended");
        let first = self.in_flight.front().map(|(ticket, _)| ticket.0);
        assert!(first.is_none_or(|first| first > self.committed), "a committed offset is not visible");
    }
}

fn size(record: &Record) -> usize {
    // Seven varints and an attribute byte frame a record in a batch.
    record.key.len() + record.value.as_ref().map_or(0, bytes::Bytes::len) + 32
}
