//! Whether what was read is what was written: loss, order, damage, duplicates.
//! Invariant: each record that is read is counted once, as sound or as one kind of wrong; what was acknowledged and not read in a group that has
//! finished is lost.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::payload::Head;

/// A set of serials that are close together.
#[derive(Clone, Debug, Default)]
struct Bits {
    words: Vec<u64>,
    count: u64,
}

impl Bits {
    /// False if it was in the set already.
    fn insert(&mut self, at: u64) -> bool {
        let (word, bit) = ((at / 64) as usize, 1 << (at % 64));
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let is_new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(is_new);
        is_new
    }

    /// How many are here and not in `other`.
    fn missing_in(&self, other: &Self) -> u64 {
        let rest = |(at, word): (usize, &u64)| word & !other.words.get(at).copied().unwrap_or(0);
        self.words.iter().enumerate().map(rest).map(|word| u64::from(word.count_ones())).sum()
    }
}

/// What a group has read.
#[derive(Clone, Debug, Default)]
struct Seen {
    by_producer: Vec<Bits>,
    /// The highest serial of a producer in a partition.
    last: HashMap<(u32, u32), u64>,
    counts: GroupCounts,
}

/// Records that a group has read, by what they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCounts {
    /// All of them.
    pub read: u64,
    /// Read before by the same group.
    pub duplicates: u64,
    /// After a later one of the same producer in the same partition.
    pub reordered: u64,
    /// Bytes that no producer made.
    pub corrupt: u64,
    /// In a partition that it was not written to, of another run, or never sent.
    pub misplaced: u64,
    /// Acknowledged and never read.
    pub lost: u64,
}

/// What was written, and what each group has read of it.
#[derive(Clone, Debug)]
pub struct Verifier {
    run: u64,
    /// `topic/partition` of each place.
    keys: Vec<String>,
    acknowledged: Vec<Bits>,
    sent: Vec<u64>,
    groups: Vec<Seen>,
}

/// All there is to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Records handed to a client.
    pub sent: u64,
    /// Records whose write was acknowledged.
    pub acknowledged: u64,
    /// What each group has read, by its name.
    pub groups: Vec<(String, GroupCounts)>,
}

impl Verdict {
    /// Whether nothing is lost, damaged, out of order or where it should not be. Duplicates are counted, and are no failure.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let sound = |counts: &GroupCounts| counts.lost + counts.reordered + counts.corrupt + counts.misplaced == 0;
        self.groups.iter().all(|(_, counts)| sound(counts))
    }
}

impl Verifier {
    /// For a run whose records go to these places.
    #[must_use]
    pub fn new(run: u64, producers: u32, groups: u32, keys: Vec<String>) -> Self {
        let producers = producers as usize;
        let seen = Seen { by_producer: vec![Bits::default(); producers], ..Seen::default() };
        Self {
            run,
            keys,
            acknowledged: vec![Bits::default(); producers],
            sent: vec![0; producers],
            groups: vec![seen; groups as usize],
        }
    }

    /// The name of a place: `topic/partition`.
    #[must_use]
    pub fn key(&self, place: u32) -> &str {
        self.keys.get(place as usize).map_or("", String::as_str)
    }

    /// A producer is about to send its next record.
    pub fn sent(&mut self, producer: u32, serial: u64) {
        if let Some(sent) = self.sent.get_mut(producer as usize) {
            *sent = (*sent).max(serial + 1);
        }
    }

    /// A broker says that a record is written.
    pub fn acknowledged(&mut self, producer: u32, serial: u64) {
        if let Some(bits) = self.acknowledged.get_mut(producer as usize) {
            bits.insert(serial);
        }
    }

    /// A group has read a record at a place. Answers what it says of itself if it is sound and new.
    pub fn read<'a>(&mut self, group: u32, place: u32, value: &'a [u8]) -> Option<Head<'a>> {
        let seen = self.groups.get_mut(group as usize)?;
        seen.counts.read += 1;
        let Ok((head, _)) = Head::decode(value) else {
            seen.counts.corrupt += 1;
            return None;
        };
        let is_here = self.keys.get(place as usize).is_some_and(|key| key == head.key);
        let was_sent = self.sent.get(head.process as usize).is_some_and(|sent| head.serial < *sent);
        if !is_here || !was_sent || head.run != self.run {
            seen.counts.misplaced += 1;
            return None;
        }
        let is_new = seen.by_producer[head.process as usize].insert(head.serial);
        let last = seen.last.entry((head.process, place)).or_insert(head.serial);
        if !is_new {
            seen.counts.duplicates += 1;
            return None;
        }
        if head.serial < *last {
            seen.counts.reordered += 1;
            return None;
        }
        *last = head.serial;
        Some(head)
    }

    /// How many different records a group has read.
    #[must_use]
    pub fn distinct(&self, group: u32) -> u64 {
        self.groups.get(group as usize).map_or(0, |seen| seen.by_producer.iter().map(|bits| bits.count).sum())
    }

    /// Acknowledged records that a group has not read.
    #[must_use]
    pub fn missing(&self, group: u32) -> u64 {
        let Some(seen) = self.groups.get(group as usize) else { return 0 };
        self.acknowledged.iter().zip(&seen.by_producer).map(|(written, read)| written.missing_in(read)).sum()
    }

    /// Records sent so far, and those of them that are acknowledged.
    #[must_use]
    pub fn written(&self) -> (u64, u64) {
        (self.sent.iter().sum(), self.acknowledged.iter().map(|bits| bits.count).sum())
    }

    /// What is to be said at the end, of groups by these names.
    #[must_use]
    pub fn verdict(&self, names: &[String]) -> Verdict {
        let (sent, acknowledged) = self.written();
        let group = |(name, at): (&String, u32)| {
            let counts = self.groups.get(at as usize).map(|seen| seen.counts).unwrap_or_default();
            (name.clone(), GroupCounts { lost: self.missing(at), ..counts })
        };
        Verdict { sent, acknowledged, groups: names.iter().zip(0..).map(group).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::records::{Filler, Spec, value};
    use super::*;

    const KEYS: [&str; 2] = ["t/0", "t/1"];

    /// One producer has sent ten records, all acknowledged; the even ones to partition 0.
    fn written() -> (Verifier, Vec<Vec<u8>>) {
        let mut verifier = Verifier::new(5, 1, 1, KEYS.map(str::to_owned).to_vec());
        let filler = Filler::new(1, 0.5);
        let mut values = Vec::new();
        for serial in 0..10 {
            let place = (serial % 2) as u32;
            let spec = Spec { serial, place, size: 100, key: None };
            values.push(value(5, 0, &spec, serial, KEYS[place as usize], &filler));
            verifier.sent(0, serial);
            verifier.acknowledged(0, serial);
        }
        (verifier, values)
    }

    fn counts(verifier: &Verifier) -> GroupCounts {
        verifier.verdict(&["g".to_owned()]).groups[0].1
    }

    #[test]
    fn all_in_order_is_sound_whatever_the_order_between_partitions() {
        let (mut verifier, values) = written();
        for serial in [0, 2, 1, 4, 3, 5, 7, 9, 6, 8_usize] {
            assert!(verifier.read(0, (serial % 2) as u32, &values[serial]).is_some());
        }
        assert_eq!(counts(&verifier), GroupCounts { read: 10, ..GroupCounts::default() });
        assert!(verifier.verdict(&["g".to_owned()]).is_sound());
        assert_eq!(verifier.distinct(0), 10);
    }

    #[test]
    fn what_was_acknowledged_and_not_read_is_lost_and_what_was_not_is_not() {
        let (mut verifier, values) = written();
        for serial in [0, 2, 4, 6, 8_usize] {
            verifier.read(0, 0, &values[serial]);
        }
        verifier.sent(0, 10);
        assert_eq!(counts(&verifier).lost, 5);
        assert!(!verifier.verdict(&["g".to_owned()]).is_sound());
    }

    #[test]
    fn a_later_record_before_an_earlier_one_is_out_of_order_and_a_second_one_a_duplicate() {
        let (mut verifier, values) = written();
        for serial in [0, 4, 2, 4, 6_usize] {
            verifier.read(0, 0, &values[serial]);
        }
        let found = counts(&verifier);
        assert_eq!((found.reordered, found.duplicates, found.read), (1, 1, 5));
        let (mut verifier, values) = written();
        let new = [0, 2, 4, 0, 2, 4, 6_usize].map(|serial| verifier.read(0, 0, &values[serial]).is_some());
        assert_eq!(new, [true, true, true, false, false, false, true]);
        assert_eq!((counts(&verifier).reordered, counts(&verifier).duplicates), (0, 3), "a group that reads again");
    }

    #[test]
    fn damage_and_records_from_elsewhere_are_told_apart() {
        let (mut verifier, values) = written();
        let mut damaged = values[0].clone();
        damaged[60] ^= 1;
        verifier.read(0, 0, &damaged);
        verifier.read(0, 0, &values[1]);
        let unsent = value(5, 0, &Spec { serial: 99, place: 0, size: 100, key: None }, 0, "t/0", &Filler::new(1, 0.5));
        verifier.read(0, 0, &unsent);
        let foreign = value(6, 0, &Spec { serial: 0, place: 0, size: 100, key: None }, 0, "t/0", &Filler::new(1, 0.5));
        verifier.read(0, 0, &foreign);
        let found = counts(&verifier);
        assert_eq!((found.corrupt, found.misplaced, found.duplicates), (1, 3, 0));
        assert_eq!(found.lost, 10, "none of them counts as read");
    }
}
