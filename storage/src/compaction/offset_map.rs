//! The last offset of each key, in a fixed amount of memory.
//! Invariant: a key is known by 128 bits of a keyed hash, so that nobody who does not know the seed can make two keys one.

use std::hash::{DefaultHasher, Hasher};

use madang_protocol::types::Offset;

/// Bytes of one slot.
const SLOT: u64 = size_of::<Slot>() as u64;
/// Of four slots, three are used at most.
const USED_OF_FOUR: usize = 3;
/// The fewest keys that a map takes: a pass always gets somewhere.
const FEWEST_KEYS: usize = 48;

/// All zeros is an empty slot, so that untouched memory stays untouched.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: [u64; 2],
    /// The offset plus one.
    offset: i64,
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Stored,
    /// The map is full and the key is not in it: nothing was stored.
    Full,
}

/// The last offset of each key that was put.
#[derive(Debug)]
pub(super) struct OffsetMap {
    slots: Vec<Slot>,
    seeds: [u64; 2],
    keys: usize,
    capacity: usize,
}

impl OffsetMap {
    /// A map of at most `budget` bytes, for not more than `keys` different keys.
    pub(super) fn new(budget: u64, keys: u64, seed: u64) -> Self {
        let wanted = keys.saturating_mul(4) / USED_OF_FOUR as u64 + 4;
        let slots = usize::try_from((budget / SLOT).min(wanted)).unwrap_or(usize::MAX);
        let slots = slots.max(FEWEST_KEYS * 4 / USED_OF_FOUR);
        Self {
            slots: vec![Slot::default(); slots],
            seeds: [seed, !seed.rotate_left(32)],
            keys: 0,
            capacity: slots / 4 * USED_OF_FOUR,
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        self.seeds.map(|seed| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(seed);
            hasher.write(key);
            hasher.finish()
        })
    }

    /// The key's slot, or the empty one in which it would be. There is always an empty one.
    fn find(&self, hash: [u64; 2]) -> usize {
        let count = self.slots.len();
        let mut at = usize::try_from(hash[0] % count as u64).unwrap_or(0);
        while self.slots.get(at).is_some_and(|slot| slot.offset != 0 && slot.hash != hash) {
            at = if at + 1 == count { 0 } else { at + 1 };
        }
        at
    }

    /// Notes the key's newest offset; offsets only rise.
    pub(super) fn put(&mut self, key: &[u8], offset: Offset) -> Put {
        let hash = self.hash(key);
        let at = self.find(hash);
        let full = self.keys >= self.capacity;
        let Some(slot) = self.slots.get_mut(at) else { return Put::Full };
        if slot.offset == 0 {
            if full {
                return Put::Full;
            }
            self.keys += 1;
        }
        *slot = Slot { hash, offset: offset.0 + 1 };
        Put::Stored
    }

    /// The key's newest offset, if it was put.
    pub(super) fn get(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slots.get(self.find(self.hash(key)))?;
        (slot.offset != 0).then(|| Offset(slot.offset - 1))
    }

    /// How many keys it holds.
    pub(super) const fn len(&self) -> usize {
        self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_offset_of_each_key_is_kept() {
        let mut map = OffsetMap::new(1 << 20, 1000, 7);
        for offset in 0..3000_i64 {
            assert_eq!(map.put(&(offset % 1000).to_be_bytes(), Offset(offset)), Put::Stored);
        }
        for key in 0..1000_i64 {
            assert_eq!(map.get(&key.to_be_bytes()), Some(Offset(2000 + key)));
        }
        assert_eq!(map.get(b"other"), None);
        assert_eq!(map.len(), 1000);
    }

    #[test]
    fn a_full_map_takes_no_new_key_and_still_the_old_ones() {
        let mut map = OffsetMap::new(0, u64::MAX, 7);
        let stored = (0..1000_i64).take_while(|key| map.put(&key.to_be_bytes(), Offset(*key)) == Put::Stored).count();
        assert_eq!(stored, FEWEST_KEYS);
        assert_eq!(map.put(&0_i64.to_be_bytes(), Offset(5000)), Put::Stored);
        assert_eq!(map.get(&0_i64.to_be_bytes()), Some(Offset(5000)));
        assert_eq!(map.get(&999_i64.to_be_bytes()), None);
    }
}
