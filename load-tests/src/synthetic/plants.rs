//! Plants one anomaly in a clean history, as a broker that breaks its promise would leave it.
//! Invariant: what is changed is what clients saw; the order and the form of the events stay right.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use madang_actors::prng::Prng;

use crate::checker::Anomaly;
use crate::history::{Event, Found, Key, Kind, Op, Polled};

/// An acknowledged record of a producer that waits for all replicas.
#[derive(Clone, Debug)]
struct Acked {
    key: Key,
    value: u64,
    offset: i64,
    process: u32,
    invoked_ns: u64,
    completed_ns: u64,
    /// The event that acknowledged it.
    place: usize,
}

/// What a plant needs to know of the history.
struct Field<'a> {
    events: &'a mut Vec<Event>,
    acked: Vec<Acked>,
    compacted: BTreeSet<Key>,
    starts: BTreeMap<Key, i64>,
}

/// Plants the anomaly; false if the history has no place for it.
pub fn plant(anomaly: Anomaly, events: &mut Vec<Event>, seed: u64, unseen_within: Duration) -> bool {
    let mut rng = Prng::new(seed);
    let mut field = Field::new(events);
    let planted = match anomaly {
        Anomaly::Corrupt => field.alter(&mut rng, |_, record| record.found = Found::Damaged("checksum".to_owned())),
        Anomaly::Phantom => field.alter(&mut rng, |_, record| record.found = Found::Value(u64::MAX - 7)),
        Anomaly::Misrouted => field.misroute(&mut rng),
        Anomaly::InconsistentOffset => field.inconsistent(&mut rng),
        Anomaly::Duplicate => field.duplicate(&mut rng),
        Anomaly::LostWrite => field.lose(&mut rng),
        Anomaly::AbortedRead => field.refuse(&mut rng),
        Anomaly::InternalPoll => field.within_a_poll(&mut rng),
        Anomaly::ExternalPoll => field.between_polls(&mut rng),
        Anomaly::SendOrder => {
            field.swap(&mut rng, |one, other| one.process == other.process && one.invoked_ns != other.invoked_ns)
        }
        Anomaly::AppendOrder => field.swap(&mut rng, |one, other| one.completed_ns < other.invoked_ns),
        Anomaly::Vanished => field.vanish(&mut rng),
        Anomaly::WatermarkRegress => field.regress(&mut rng),
        Anomaly::GroupOwnership => field.own_twice(&mut rng),
        Anomaly::CommittedOffset => field.commit_wrongly(&mut rng),
        Anomaly::Unseen => field.delay(&mut rng, unseen_within),
    };
    for (index, event) in events.iter_mut().enumerate() {
        event.index = index as u64;
    }
    planted
}

fn polls(event: &mut Event) -> Option<&mut BTreeMap<Key, Vec<Polled>>> {
    match &mut event.op {
        Op::Poll { records, .. } if event.kind == Kind::Ok => Some(records),
        _ => None,
    }
}

impl<'a> Field<'a> {
    fn new(events: &'a mut Vec<Event>) -> Self {
        let (mut acked, mut compacted, mut starts) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
        let mut invoked = BTreeMap::new();
        for (place, event) in events.iter().enumerate() {
            match (&event.op, event.kind) {
                (Op::Send { sends, .. }, Kind::Invoke) => {
                    invoked.extend(sends.iter().map(|sent| (sent.value, event.at_ns)));
                }
                (Op::Send { sends, acks: -1, .. }, Kind::Ok) => {
                    acked.extend(sends.iter().filter_map(|sent| {
                        let (key, value, offset) = (sent.key.clone(), sent.value, sent.offset?);
                        let invoked_ns = invoked.get(&value).copied()?;
                        let (process, completed_ns) = (event.process, event.at_ns);
                        Some(Acked { key, value, offset, process, invoked_ns, completed_ns, place })
                    }));
                }
                (Op::Admin { compacted: keys, .. }, _) => compacted.extend(keys.iter().cloned()),
                (Op::ListOffsets { ends }, Kind::Ok) => {
                    starts.extend(ends.iter().map(|(key, (first, _))| (key.clone(), *first)));
                }
                (Op::Assign { from, last_read: true }, _) => {
                    starts.extend(from.iter().map(|(key, from)| (key.clone(), *from)));
                }
                _ => {}
            }
        }
        Self { events, acked, compacted, starts }
    }

    /// Acknowledged records that have to be there at the end.
    fn kept(&self) -> Vec<Acked> {
        let kept = |one: &&Acked| !self.compacted.contains(&one.key) && one.offset >= self.start(&one.key);
        self.acked.iter().filter(kept).cloned().collect()
    }

    fn start(&self, key: &str) -> i64 {
        self.starts.get(key).copied().unwrap_or(0)
    }

    /// Polls that gave records of a key: the event and the key.
    fn places(&mut self, least: usize) -> Vec<(usize, Key)> {
        let mut places = Vec::new();
        for (place, event) in self.events.iter_mut().enumerate() {
            let Some(records) = polls(event) else { continue };
            places.extend(records.iter().filter(|(_, of)| of.len() >= least).map(|(key, _)| (place, key.clone())));
        }
        places
    }

    fn records(&mut self, place: usize, key: &str) -> Option<&mut Vec<Polled>> {
        polls(&mut self.events[place])?.get_mut(key)
    }

    fn alter(&mut self, rng: &mut Prng, change: impl Fn(&str, &mut Polled)) -> bool {
        let places = self.places(1);
        let Some((place, key)) = rng.pick(&places).cloned() else { return false };
        let Some(records) = self.records(place, &key) else { return false };
        let one = rng.below(records.len() as u64) as usize;
        change(&key, &mut records[one]);
        true
    }

    fn misroute(&mut self, rng: &mut Prng) -> bool {
        let places = self.places(1);
        let Some((place, key)) = rng.pick(&places).cloned() else { return false };
        let others: Vec<u64> = self.acked.iter().filter(|one| one.key != key).map(|one| one.value).collect();
        let Some(value) = rng.pick(&others).copied() else { return false };
        let Some(records) = self.records(place, &key) else { return false };
        let one = rng.below(records.len() as u64) as usize;
        records[one].found = Found::Value(value);
        true
    }

    fn inconsistent(&mut self, rng: &mut Prng) -> bool {
        let acked = self.acked.clone();
        let Some(one) = rng.pick(&acked) else { return false };
        let others: Vec<u64> = acked
            .iter()
            .filter(|other| other.key == one.key && other.value != one.value)
            .map(|other| other.value)
            .collect();
        let Some(value) = rng.pick(&others).copied() else { return false };
        for (place, key) in self.places(1) {
            let Some(records) = self.records(place, &key).filter(|_| key == one.key) else { continue };
            if let Some(record) = records.iter_mut().find(|record| record.offset == one.offset) {
                record.found = Found::Value(value);
                return true;
            }
        }
        false
    }

    /// A record once more at the end of its log.
    fn duplicate(&mut self, rng: &mut Prng) -> bool {
        let kept = self.acked.clone();
        let Some(one) = rng.pick(&kept).cloned() else { return false };
        let Some((place, key)) = self.places(1).into_iter().rev().find(|(_, key)| *key == one.key) else {
            return false;
        };
        let Some(records) = self.records(place, &key) else { return false };
        let Some(last) = records.last().map(|last| last.offset).filter(|last| *last > one.offset) else { return false };
        records.push(Polled { offset: last + 1, found: Found::Value(one.value) });
        true
    }

    fn remove(&mut self, value: u64, from: usize) -> usize {
        let mut removed = 0;
        for event in &mut self.events[from..] {
            let Op::Poll { records, .. } = &mut event.op else { continue };
            for of_key in records.values_mut() {
                let before = of_key.len();
                of_key.retain(|record| record.found != Found::Value(value));
                removed += before - of_key.len();
            }
        }
        removed
    }

    /// A record that was acknowledged is nowhere: at the end of its log, in the middle, or before another one took its place.
    fn lose(&mut self, rng: &mut Prng) -> bool {
        let kept = self.kept();
        let Some(one) = rng.pick(&kept).cloned() else { return false };
        self.remove(one.value, 0) > 0
    }

    fn refuse(&mut self, rng: &mut Prng) -> bool {
        let kept = self.kept();
        let Some(one) = rng.pick(&kept) else { return false };
        let event = &mut self.events[one.place];
        event.kind = Kind::Fail;
        event.error = Some("NOT_ENOUGH_REPLICAS".to_owned());
        if let Op::Send { sends, .. } = &mut event.op {
            sends.iter_mut().for_each(|sent| sent.offset = None);
        }
        true
    }

    fn within_a_poll(&mut self, rng: &mut Prng) -> bool {
        let compacted = self.compacted.clone();
        let places: Vec<(usize, Key)> =
            self.places(3).into_iter().filter(|(_, key)| !compacted.contains(key)).collect();
        let Some((place, key)) = rng.pick(&places).cloned() else { return false };
        let start = self.start(&key);
        let known: BTreeSet<u64> = self.acked.iter().map(|one| one.value).collect();
        let back = rng.chance(1, 2);
        let Some(records) = self.records(place, &key) else { return false };
        let one = 1 + rng.below(records.len() as u64 - 2) as usize;
        if back {
            records.swap(one - 1, one);
            return true;
        }
        let gone = records.remove(one);
        matches!(gone.found, Found::Value(value) if known.contains(&value)) && gone.offset >= start
    }

    /// What a reader on its own reads next is not what comes next.
    fn between_polls(&mut self, rng: &mut Prng) -> bool {
        let mut pairs: Vec<(usize, Key, Polled)> = Vec::new();
        let mut last: BTreeMap<(u32, Key), Polled> = BTreeMap::new();
        let mut alone = BTreeSet::new();
        for (place, event) in self.events.iter_mut().enumerate() {
            let process = event.process;
            if let Op::Assign { .. } = event.op {
                last.retain(|(of, _), _| *of != process);
                alone.insert(process);
            }
            let Some(records) = polls(event).filter(|_| alone.contains(&process)) else { continue };
            for (key, of_key) in records.iter().filter(|(_, of_key)| !of_key.is_empty()) {
                let next = of_key[of_key.len() - 1].clone();
                let before = last.insert((process, key.clone()), next);
                pairs.extend(before.map(|before| (place, key.clone(), before)));
            }
        }
        let Some((place, key, before)) = rng.pick(&pairs).cloned() else { return false };
        let known: BTreeSet<u64> = self.kept().iter().map(|one| one.value).collect();
        let back = rng.chance(1, 2);
        let Some(records) = self.records(place, &key) else { return false };
        if back {
            records.insert(0, before);
            return true;
        }
        let gone = records.remove(0);
        !records.is_empty() && matches!(gone.found, Found::Value(value) if known.contains(&value))
    }

    /// Two records of a key are each where the other was.
    fn swap(&mut self, rng: &mut Prng, fits: impl Fn(&Acked, &Acked) -> bool) -> bool {
        let acked = self.acked.clone();
        let Some(one) = rng.pick(&acked) else { return false };
        let fitting: Vec<&Acked> = acked
            .iter()
            .filter(|other| other.key == one.key && other.offset > one.offset && fits(one, other))
            .collect();
        let Some(other) = rng.pick(&fitting) else { return false };
        let swapped = |value: u64| match value {
            _ if value == one.value => other.value,
            _ if value == other.value => one.value,
            _ => value,
        };
        for event in self.events.iter_mut() {
            match &mut event.op {
                Op::Send { sends, .. } if event.kind == Kind::Ok => {
                    for sent in sends.iter_mut().filter(|sent| swapped(sent.value) != sent.value) {
                        sent.offset = Some(if sent.value == one.value { other.offset } else { one.offset });
                    }
                }
                Op::Poll { records, .. } => {
                    for record in records.values_mut().flatten() {
                        if let Found::Value(value) = &mut record.found {
                            *value = swapped(*value);
                        }
                    }
                }
                _ => {}
            }
        }
        true
    }

    /// A record that somebody has read is not there any more.
    fn vanish(&mut self, rng: &mut Prng) -> bool {
        let last = self.events.iter().position(|event| matches!(event.op, Op::Assign { last_read: true, .. }));
        let Some(last) = last else { return false };
        let kept: BTreeSet<u64> = self.kept().iter().map(|one| one.value).collect();
        let mut read = Vec::new();
        for event in &mut self.events[..last] {
            let records = polls(event).into_iter().flat_map(|records| records.values().flatten());
            read.extend(records.filter_map(|record| match record.found {
                Found::Value(value) if kept.contains(&value) => Some(value),
                _ => None,
            }));
        }
        let Some(value) = rng.pick(&read).copied() else { return false };
        self.remove(value, last) > 0
    }

    fn regress(&mut self, rng: &mut Prng) -> bool {
        let mut seen: Vec<(usize, Key, i64)> = Vec::new();
        let mut highest: BTreeMap<Key, i64> = BTreeMap::new();
        for (place, event) in self.events.iter().enumerate() {
            let Op::ListOffsets { ends } = &event.op else { continue };
            for (key, (_, next)) in ends {
                let before = highest.insert(key.clone(), *next);
                seen.extend(before.filter(|before| *before > 0).map(|before| (place, key.clone(), before)));
            }
        }
        let Some((place, key, before)) = rng.pick(&seen).cloned() else { return false };
        if let Op::ListOffsets { ends } = &mut self.events[place].op {
            let first = ends[&key].0;
            ends.insert(key, (first, before - 1));
        }
        true
    }

    /// A partition is given to somebody while another one has it.
    fn own_twice(&mut self, rng: &mut Prng) -> bool {
        let mut pairs = Vec::new();
        let mut given: BTreeMap<Key, (u32, Option<i64>)> = BTreeMap::new();
        for (place, event) in self.events.iter().enumerate() {
            if event.op == Op::Crash {
                given.retain(|_, (owner, _)| *owner != event.process);
            }
            let Op::Rebalance { assigned, revoked, lost, generation, .. } = &event.op else { continue };
            for key in revoked.iter().chain(lost) {
                given.remove(key);
            }
            let others = given.iter().filter(|(_, (owner, of))| *owner != event.process && of == generation);
            let others = others.filter(|_| revoked.is_empty() && lost.is_empty());
            pairs.extend(others.map(|(key, (owner, _))| (place, key.clone(), *owner)));
            given.extend(assigned.iter().map(|key| (key.clone(), (event.process, *generation))));
        }
        let Some((place, key, owner)) = rng.pick(&pairs).cloned() else { return false };
        let process = self.events[place].process;
        let Op::Rebalance { assigned, generation, .. } = &mut self.events[place].op else { return false };
        let told = generation.is_some();
        assigned.push(key.clone());
        // Without generations only orderly owners count: both have to give it up in order, which each does the next time it gives up anything.
        let mut orderly = BTreeSet::new();
        for event in self.events[place + 1..].iter_mut().filter(|event| [owner, process].contains(&event.process)) {
            match &mut event.op {
                Op::Rebalance { revoked, .. } if !revoked.is_empty() => {
                    if !revoked.contains(&key) && event.process == process && !orderly.contains(&process) {
                        revoked.push(key.clone());
                    }
                    if revoked.contains(&key) {
                        orderly.insert(event.process);
                    }
                }
                // Lost, or the next turn without having given it up.
                Op::Rebalance { .. } if !orderly.contains(&event.process) => break,
                Op::Crash => break,
                _ => {}
            }
        }
        told || orderly.len() == 2
    }

    fn commit_wrongly(&mut self, rng: &mut Prng) -> bool {
        let is_answer = |event: &Event| matches!(event.op, Op::FetchOffset { .. }) && event.kind == Kind::Ok;
        let answers: Vec<usize> = (0..self.events.len()).filter(|place| is_answer(&self.events[*place])).collect();
        let Some(place) = rng.pick(&answers).copied() else { return false };
        let Op::FetchOffset { offsets, .. } = &mut self.events[place].op else { return false };
        let committed: Vec<Key> =
            offsets.iter().filter(|(_, offset)| **offset > 0).map(|(key, _)| key.clone()).collect();
        let Some(key) = rng.pick(&committed).cloned() else { return false };
        let wrong = if rng.chance(1, 2) { 1 << 40 } else { -1 };
        offsets.insert(key.clone(), wrong);
        // Nothing committed is right as long as no commit is known to have been taken.
        let before = self.events[..place.saturating_sub(1)].iter();
        wrong > 0
            || before
                .filter(|event| event.kind == Kind::Ok)
                .any(|event| matches!(&event.op, Op::Commit { offsets, .. } if offsets.contains_key(&key)))
    }

    /// The last read begins much too late, and some acknowledged record was never read before.
    fn delay(&mut self, rng: &mut Prng, unseen_within: Duration) -> bool {
        let last = self.events.iter().position(|event| matches!(event.op, Op::Assign { last_read: true, .. }));
        let Some(last) = last else { return false };
        let mut unread: Vec<Acked> = self.kept();
        unread.retain(|one| {
            !self.events[..last].iter().any(|event| match &event.op {
                Op::Poll { records, .. } => records
                    .get(&one.key)
                    .is_some_and(|of_key| of_key.iter().any(|record| record.found == Found::Value(one.value))),
                _ => false,
            })
        });
        let more = u64::try_from(unseen_within.as_nanos()).unwrap_or(u64::MAX / 4) + 1 + rng.below(1_000_000_000);
        for event in &mut self.events[last..] {
            event.at_ns += more;
        }
        !unread.is_empty()
    }
}
