//! A key's records as everybody saw them: which values were at which offsets.
//! Invariant: versions are sorted by offset, then by value, each once.

use super::key::{KeyLog, Outcome, Poll};

/// A value at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) offset: i64,
    pub(super) value: u64,
}

/// All versions of a key.
#[derive(Debug, Default)]
pub(super) struct Versions {
    pub(super) all: Vec<Version>,
    /// When the first poll that gave it had ended; `u64::MAX` if none did.
    pub(super) first_read_ns: Vec<u64>,
    /// Places in `all`, sorted by value.
    by_value: Vec<u32>,
}

impl Versions {
    /// From all reads, and from what was acknowledged at an offset by all replicas.
    pub(super) fn of(log: &KeyLog, polls: &[Poll]) -> Self {
        let acknowledged =
            log.sends.iter().filter(|send| send.promised && send.outcome == Outcome::Acknowledged && send.offset >= 0);
        let mut all: Vec<Version> =
            acknowledged.map(|send| Version { offset: send.offset, value: send.value }).collect();
        all.extend(log.reads.iter().map(|read| Version { offset: read.offset, value: read.value }));
        all.sort_unstable();
        all.dedup();
        all.shrink_to_fit();
        let mut by_value: Vec<u32> = (0..u32::try_from(all.len()).unwrap_or(u32::MAX)).collect();
        by_value.sort_unstable_by_key(|place| all[*place as usize].value);
        let mut versions = Self { first_read_ns: vec![u64::MAX; all.len()], all, by_value };
        for read in &log.reads {
            if let Some(place) = versions.place(read.offset, read.value) {
                let ended = polls[read.poll as usize].completed_ns;
                versions.first_read_ns[place] = versions.first_read_ns[place].min(ended);
            }
        }
        versions
    }

    pub(super) fn place(&self, offset: i64, value: u64) -> Option<usize> {
        self.all.binary_search(&Version { offset, value }).ok()
    }

    /// The first version at this offset or after it.
    pub(super) fn from(&self, offset: i64) -> usize {
        self.all.partition_point(|version| version.offset < offset)
    }

    /// Where the value is; several places if it is there more than once.
    pub(super) fn places(&self, value: u64) -> &[u32] {
        let of = |place: &u32| self.all[*place as usize].value;
        let from = self.by_value.partition_point(|place| of(place) < value);
        let length = self.by_value[from..].iter().take_while(|place| of(place) == value).count();
        &self.by_value[from..from + length]
    }

    /// Values that are at more than one offset, with two of them.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = (u64, i64, i64)> {
        self.by_value.windows(2).filter_map(|pair| {
            let (one, other) = (self.all[pair[0] as usize], self.all[pair[1] as usize]);
            (one.value == other.value).then_some((one.value, one.offset, other.offset))
        })
    }
}
