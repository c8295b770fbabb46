//! Opening a log whose segments are arbitrary bytes, however it was left. The first three bytes choose the start, the recovery point and the
//! first offset; the rest is a script of sound batches, damaged ones, garbage and new segments.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madang_fuzz::folder::{Folder, OPENING, assert_goes_on, assert_whole, batch, read_anything};
use madang_fuzz::guarded;
use madang_protocol::types::Offset;
use madang_storage::{LogError, OpenLog, Start};

/// Where the log begins: also close to the end of all offsets.
const FIRST: [i64; 4] = [0, 1000, i64::MAX - (1 << 31), i64::MAX - 3];

/// Lays the segments down; answers whether all of it is sound.
fn lay(folder: &Folder, first: i64, script: &[u8]) -> bool {
    let (mut base, mut next, mut segment, mut sound) = (first, first, Vec::new(), true);
    let mut rest = script;
    while let [op, length, tail @ ..] = rest {
        let (body, after) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = after;
        match op % 6 {
            0..=2 => {
                let (gap, records) = (i64::from(op >> 6), i32::from(op >> 3 & 7) + 1);
                segment.extend(batch(Offset(next.saturating_add(gap)), records, body));
                next = next.saturating_add(gap + i64::from(records));
                sound &= next < i64::MAX - i64::from(i32::MAX);
            }
            3 if next > base => {
                folder.put_segment(Offset(base), &segment);
                segment.clear();
                // A segment ends where the next one begins; between batches compaction leaves gaps, between segments it does not.
                let gap = i64::from(op >> 4).saturating_sub(8).max(0);
                next = next.saturating_add(gap);
                sound &= gap == 0;
                base = next;
            }
            4 => {
                // One bit of what is there.
                let at = body.iter().fold(0, |at: usize, byte| at.wrapping_mul(7).wrapping_add((*byte).into()));
                let length = segment.len().max(1);
                if let Some(byte) = segment.get_mut(at % length) {
                    *byte ^= 1 << (op >> 5);
                    sound = false;
                }
            }
            _ => {
                segment.extend_from_slice(body);
                sound &= body.is_empty();
            }
        }
    }
    folder.put_segment(Offset(base), &segment);
    sound
}

fuzz_target!(|data: &[u8]| {
    let [choice, point, first, script @ ..] = data else { return };
    guarded(script, OPENING, |script| {
        let folder = Folder::default();
        let first = FIRST[usize::from(*first) % FIRST.len()];
        let sound = lay(&folder, first, script);
        let start = [Start::Unclean, Start::SameProcess, Start::Clean][usize::from(*choice) % 3];
        let recovery_point = (choice & 4 != 0).then(|| Offset(first.saturating_add(i64::from(*point))));
        let open = OpenLog { start, recovery_point, ..OpenLog::default() };
        let before = folder.segments();
        let log = match folder.open(&open) {
            Ok(log) => log,
            Err(LogError::Quarantine { .. }) => {
                assert!(!sound, "sound batches are never set aside");
                assert_eq!(folder.segments(), before, "what is set aside is not changed");
                return;
            }
            Err(error) => panic!("a disk without faults: {error}"),
        };
        let end = log.log_end_offset();
        // What lies below the recovery point, and all of a log that was closed, is believed without being read.
        if start == Start::Clean || recovery_point.is_some() {
            return read_anything(&log.view());
        }
        assert_whole(&log.view());
        let again = folder.open(&OpenLog { recovery_point: None, ..open }).expect("what was recovered can be opened");
        assert_eq!(again.log_end_offset(), end, "a second recovery finds what the first one left");
        drop(log);
        assert_goes_on(&folder, again);
    });
});
