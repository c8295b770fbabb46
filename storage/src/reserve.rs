//! Blocks are asked for before a segment needs them, so that the file system has none to find at each write.
//! Invariant: what is reserved lies behind the file's end, is never read, and is at most a quarter of the segment and 4 MiB.

use crate::disk::DiskFile;

/// A segment below this many bytes reserves nothing: most partitions stay small.
const RESERVES_FROM: u64 = 1 << 20;
/// The most that is reserved at once, in bytes.
const MAX_AHEAD: u64 = 4 << 20;
/// The part of a segment that is reserved on top of it.
const PART: u64 = 4;

/// How far the blocks of an active segment reach.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reserved {
    end: u64,
}

impl Reserved {
    /// What to reserve, as position and length, before `bytes` bytes are written at the end `size`, in a segment that is rolled at `limit` bytes.
    const fn before(self, size: u64, bytes: u64, limit: u64) -> Option<(u64, u64)> {
        let end = size + bytes;
        if size < RESERVES_FROM || end <= self.end {
            return None;
        }
        let ahead = if size / PART < MAX_AHEAD { size / PART } else { MAX_AHEAD };
        let wanted = if end + ahead < limit { end + ahead } else { limit };
        // What is reserved is not asked for again.
        let from = if self.end > size { self.end } else { size };
        if wanted <= from { None } else { Some((from, wanted - from)) }
    }

    /// Makes room for `bytes` bytes at the end `size` of `file`, and for more to come.
    pub(crate) fn make_room(&mut self, file: &dyn DiskFile, size: u64, bytes: u64, limit: u64) {
        if let Some((position, length)) = self.before(size, bytes, limit) {
            file.reserve(position, length);
            self.end = position + length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_small_segment_reserves_nothing() {
        assert_eq!(Reserved::default().before(MIB - 1, 100, 1 << 30), None);
    }

    #[test]
    fn a_quarter_up_to_four_mebibytes_is_ahead_and_never_more_than_the_segment_may_hold() {
        let none = Reserved::default();
        assert_eq!(none.before(MIB, 100, 1 << 30), Some((MIB, 100 + MIB / 4)));
        assert_eq!(none.before(100 * MIB, 100, 1 << 30), Some((100 * MIB, 100 + 4 * MIB)));
        assert_eq!(none.before(100 * MIB, 100, 101 * MIB), Some((100 * MIB, MIB)));
        assert_eq!(none.before(100 * MIB, 100, 100 * MIB), None);
    }

    #[test]
    fn what_is_reserved_is_not_asked_for_again() {
        let reserved = Reserved { end: 10 * MIB };
        assert_eq!(reserved.before(9 * MIB, MIB, 1 << 30), None);
        assert_eq!(reserved.before(9 * MIB, MIB + 1, 1 << 30), Some((10 * MIB, 1 + 9 * MIB / 4)));
    }
}
