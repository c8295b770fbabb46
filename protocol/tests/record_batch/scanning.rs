//! Walking batches: a torn end is not a corrupt one.

use madang_protocol::compression::Codec;
use madang_protocol::record_batch::{BatchError, Batches, Scan, layout, scan, stamp};
use madang_protocol::types::{LeaderEpoch, Offset};

use crate::produced;

/// Three batches of four records from offset 10 on, and where each starts.
fn log() -> (Vec<u8>, Vec<usize>) {
    let (mut log, mut starts) = (Vec::new(), Vec::new());
    for index in 0..3 {
        starts.push(log.len());
        let mut batch = produced(Codec::None, 4).to_vec();
        stamp(&mut batch, Offset(10 + 4 * index), LeaderEpoch(1));
        log.extend_from_slice(&batch);
    }
    (log, starts)
}

#[test]
fn a_sound_log_is_walked_to_its_end() {
    let (log, starts) = log();
    let mut seen = Vec::new();
    let (end, what) = scan(&log, Offset(10), |position, view| seen.push((position, view.header.last_offset().0)));
    assert_eq!((end, what), (log.len(), Scan::Complete));
    assert_eq!(seen, [(starts[0], 13), (starts[1], 17), (starts[2], 21)]);
    assert_eq!(scan(&[], Offset(0), |_, _| ()), (0, Scan::Complete));
}

#[test]
fn every_cut_of_the_last_batch_is_torn() {
    let (log, starts) = log();
    for end in starts[2] + 1..log.len() {
        let (sound, what) = scan(&log[..end], Offset(10), |_, _| ());
        assert_eq!(sound, starts[2]);
        assert!(matches!(what, Scan::Torn { needed } if needed > (end - starts[2]) as u64), "{end}: {what:?}");
        let last = Batches::new(&log[..end]).last();
        assert!(matches!(last, Some(Err(BatchError::Torn { .. }))), "{end}");
        assert_eq!(Batches::new(&log[..end]).count(), 3);
    }
}

#[test]
fn zeros_and_flipped_bits_are_corrupt() {
    let (mut log, starts) = log();
    let sound = log.len();
    log.extend_from_slice(&[0; 100]);
    assert_eq!(scan(&log, Offset(10), |_, _| ()), (sound, Scan::Corrupt(BatchError::Magic(0))));
    log.truncate(sound + 12);
    assert_eq!(scan(&log, Offset(10), |_, _| ()), (sound, Scan::Corrupt(BatchError::Length(0))));
    log.truncate(sound);
    for at in [layout::CRC, layout::ATTRIBUTES, layout::RECORDS, starts[2] - starts[1] - 1] {
        let mut bad = log.clone();
        bad[starts[1] + at] ^= 0x10;
        let (end, what) = scan(&bad, Offset(10), |_, _| ());
        assert_eq!(end, starts[1], "{at}");
        assert!(matches!(what, Scan::Corrupt(BatchError::Crc { .. })), "{at}: {what:?}");
    }
}

#[test]
fn offsets_only_rise() {
    let (mut log, starts) = log();
    assert!(matches!(scan(&log, Offset(11), |_, _| ()), (0, Scan::Corrupt(BatchError::Header(_)))));
    stamp(&mut log[starts[2]..], Offset(17), LeaderEpoch(1));
    let (end, what) = scan(&log, Offset(10), |_, _| ());
    assert_eq!(end, starts[2]);
    assert!(matches!(what, Scan::Corrupt(BatchError::Header(_))));
    stamp(&mut log[starts[2]..], Offset(i64::MAX), LeaderEpoch(1));
    assert!(matches!(scan(&log, Offset(10), |_, _| ()).1, Scan::Corrupt(BatchError::Header(_))));
}
