//! The sparse index of a segment: where batches start, and the highest timestamp before each.
//! Invariant: an entry never changes once it is written, and a reader looks only at as many as its snapshot counts; so nobody locks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// An entry: a batch that starts at `position` with offset base + `relative_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Base offset of the batch less that of the segment.
    pub(crate) relative_offset: u32,
    /// Where the batch starts, bytes.
    pub(crate) position: u32,
    /// Highest timestamp of the segment's batches before this one.
    pub(crate) max_timestamp_before: i64,
}

/// Size of the first chunk in entries; every next one is twice as long.
const FIRST_CHUNK: usize = 8;
/// Enough for 2^31 entries.
const CHUNKS: usize = 28;

#[derive(Debug)]
struct Slot {
    place: AtomicU64,
    max_timestamp_before: AtomicI64,
}

/// The index of an active segment: one writer, any number of readers, append-only.
#[derive(Debug, Default)]
pub(crate) struct LiveIndex {
    chunks: [OnceLock<Box<[Slot]>>; CHUNKS],
}

/// The chunk of an entry and its place there.
const fn locate(entry: usize) -> (usize, usize) {
    let shifted = entry / FIRST_CHUNK + 1;
    let chunk = (usize::BITS - 1 - shifted.leading_zeros()) as usize;
    (chunk, entry - FIRST_CHUNK * ((1 << chunk) - 1))
}

impl LiveIndex {
    /// Writes entry number `at`; the writer counts them. Answers false if there is no room for that many.
    pub(crate) fn set(&self, at: usize, entry: IndexEntry) -> bool {
        let (chunk, place) = locate(at);
        let Some(cell) = self.chunks.get(chunk) else { return false };
        let slots = cell.get_or_init(|| {
            let empty = || Slot { place: AtomicU64::new(0), max_timestamp_before: AtomicI64::new(-1) };
            std::iter::repeat_with(empty).take(FIRST_CHUNK << chunk).collect()
        });
        let Some(slot) = slots.get(place) else { return false };
        slot.max_timestamp_before.store(entry.max_timestamp_before, Ordering::Relaxed);
        let packed = u64::from(entry.relative_offset) << 32 | u64::from(entry.position);
        slot.place.store(packed, Ordering::Release);
        true
    }

    /// Entry number `at`, which the caller's snapshot counts.
    pub(crate) fn get(&self, at: usize) -> Option<IndexEntry> {
        let (chunk, place) = locate(at);
        let slot = self.chunks.get(chunk)?.get()?.get(place)?;
        let packed = slot.place.load(Ordering::Acquire);
        Some(IndexEntry {
            relative_offset: (packed >> 32) as u32,
            position: packed as u32,
            max_timestamp_before: slot.max_timestamp_before.load(Ordering::Relaxed),
        })
    }

    /// The last of the first `count` entries for which `before` holds; `before` holds for a prefix.
    pub(crate) fn last_where(&self, count: usize, before: impl Fn(&IndexEntry) -> bool) -> Option<IndexEntry> {
        search(count, |at| Ok::<_, std::convert::Infallible>(self.get(at)), before).unwrap_or(None)
    }
}

/// The last of `count` entries for which `before` holds, by halving.
pub(crate) fn search<E>(
    count: usize,
    get: impl Fn(usize) -> Result<Option<IndexEntry>, E>,
    before: impl Fn(&IndexEntry) -> bool,
) -> Result<Option<IndexEntry>, E> {
    let (mut low, mut high) = (0, count);
    let mut found = None;
    while low < high {
        let middle = low + (high - low) / 2;
        match get(middle)? {
            Some(entry) if before(&entry) => {
                found = Some(entry);
                low = middle + 1;
            }
            _ => high = middle,
        }
    }
    Ok(found)
}

/// A fixed number of the newest batches' starts, so that a read at the tail needs no index and no file.
#[derive(Debug)]
pub(crate) struct RecentBatches {
    slots: Box<[AtomicU64]>,
}

/// Batches in one [`RecentBatches`].
pub(crate) const RECENT: usize = 64;

impl RecentBatches {
    pub(crate) fn new() -> Self {
        Self { slots: std::iter::repeat_with(|| AtomicU64::new(0)).take(RECENT).collect() }
    }

    pub(crate) fn set(&self, at: usize, relative_offset: u32, position: u32) {
        if let Some(slot) = self.slots.get(at) {
            slot.store(u64::from(relative_offset) << 32 | u64::from(position), Ordering::Release);
        }
    }

    /// Relative offset and position of batch number `at`.
    pub(crate) fn get(&self, at: usize) -> Option<(u32, u32)> {
        let packed = self.slots.get(at)?.load(Ordering::Acquire);
        Some(((packed >> 32) as u32, packed as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_stay_where_they_were_put() {
        let index = LiveIndex::default();
        let entry =
            |at: u32| IndexEntry { relative_offset: at * 3, position: at * 7, max_timestamp_before: i64::from(at) };
        for at in 0..1000 {
            assert!(index.set(at as usize, entry(at)));
        }
        for at in 0..1000 {
            assert_eq!(index.get(at as usize), Some(entry(at)));
        }
        for target in 0..3500_u32 {
            let found = index.last_where(900, |entry| entry.relative_offset <= target).map(|found| found.position / 7);
            assert_eq!(found, Some((target / 3).min(899)));
        }
        assert_eq!(index.last_where(0, |_| true), None);
    }

    #[test]
    fn chunks_follow_each_other_without_a_gap() {
        assert_eq!(locate(0), (0, 0));
        assert_eq!(locate(7), (0, 7));
        assert_eq!(locate(8), (1, 0));
        assert_eq!(locate(23), (1, 15));
        assert_eq!(locate(24), (2, 0));
    }
}
