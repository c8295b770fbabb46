//! Random damage: nothing panics, and nothing that was accepted breaks a promise.

use bytes::Bytes;
use madang_protocol::compression::Limits;
use madang_protocol::record::RecordSet;
use madang_protocol::record_batch::{
    BatchView, Batches, ProduceRules, layout, scan, validate_produced, verify_crc, write_crc,
};
use madang_protocol::types::Offset;

use crate::{CODECS, NOW, produced};

const MUTATIONS: usize = 100_000;

/// xorshift: the same numbers at every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

fn damage(bytes: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(3) {
        let at = numbers.below(bytes.len());
        match numbers.below(6) {
            0 => bytes[at] ^= 1 << numbers.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)],
            2 => bytes.truncate(at.max(1)),
            3 => bytes.insert(at, numbers.below(256) as u8),
            4 => drop(bytes.remove(at)),
            _ => bytes.extend_from_within(at..),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
}

/// Half of the damaged batches get a right length and CRC, or nothing behind the CRC would ever be reached.
fn heal(bytes: &mut [u8]) {
    if bytes.len() >= layout::RECORDS {
        let length = (bytes.len() - layout::LENGTH_PREFIX) as u32;
        bytes[layout::BATCH_LENGTH..layout::LEADER_EPOCH].copy_from_slice(&length.to_be_bytes());
        bytes[layout::MAGIC] = 2;
        write_crc(bytes).expect("a whole batch");
    }
}

#[test]
fn damaged_batches_never_panic() {
    let rules = ProduceRules { now_ms: NOW, compacted: true, ..ProduceRules::default() };
    let limits = Limits { max_bytes: 1 << 20, ..Limits::default() };
    let sound: Vec<Bytes> = CODECS.into_iter().flat_map(|codec| [produced(codec, 1), produced(codec, 12)]).collect();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut accepted = 0;
    for round in 0..MUTATIONS {
        let mut bytes = sound[round % sound.len()].to_vec();
        damage(&mut bytes, &mut numbers);
        if numbers.below(4) != 0 {
            heal(&mut bytes);
        }
        let bytes = Bytes::from(bytes);
        scan(&bytes, Offset(0), |_, _| ());
        assert!(Batches::new(&bytes).count() <= bytes.len() / layout::RECORDS + 1);
        if let Ok(records) = BatchView::parse(&bytes).and_then(|view| RecordSet::of(&view, &limits)) {
            records.iter().flatten().for_each(|record| assert_eq!(record.headers.count(), record.headers.len()));
        }
        if let Ok(valid) = validate_produced(&bytes, &rules) {
            accepted += 1;
            verify_crc(&valid.bytes).expect("a right CRC");
            let view = BatchView::parse(&valid.bytes).expect("a batch");
            let records = RecordSet::of(&view, &limits).expect("records");
            assert_eq!(records.iter().filter(Result::is_ok).count(), valid.header.record_count as usize);
        }
    }
    assert!(accepted > 0, "some damage is to fields that any value may have");
}
