//! A produced batch and a piece of a log. Every second input gets a right length and CRC, so that what is behind them is reached.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use madang_fuzz::{DECODER_WINDOW, guarded};
use madang_protocol::compression::Limits;
use madang_protocol::record::RecordSet;
use madang_protocol::record_batch::{BatchView, ProduceRules, layout, scan, validate_produced, verify_crc, write_crc};
use madang_protocol::types::Offset;

const LIMITS: Limits = Limits { max_bytes: 1 << 20, max_ratio: 1_000, ratio_free_bytes: 1 << 20 };

fn healed(data: &[u8]) -> Bytes {
    let mut bytes = data.to_vec();
    if bytes.len() >= layout::RECORDS {
        let length = (bytes.len() - layout::LENGTH_PREFIX) as u32;
        bytes[layout::BATCH_LENGTH..layout::LEADER_EPOCH].copy_from_slice(&length.to_be_bytes());
        bytes[layout::MAGIC] = 2;
        write_crc(&mut bytes).expect("a whole batch");
    }
    Bytes::from(bytes)
}

fuzz_target!(|data: &[u8]| {
    let [choice, data @ ..] = data else { return };
    let rules = ProduceRules { compacted: choice & 2 != 0, now_ms: 1_700_000_000_000, ..ProduceRules::default() };
    // A growing vector holds its old and its new self for a moment.
    guarded(data, DECODER_WINDOW + 3 * LIMITS.max_bytes, |input| {
        let input = if choice & 1 != 0 { healed(input) } else { input.clone() };
        scan(&input, Offset(0), |_, _| ());
        if let Ok(records) = BatchView::parse(&input).and_then(|view| RecordSet::of(&view, &LIMITS)) {
            records.iter().flatten().for_each(|record| assert_eq!(record.headers.count(), record.headers.len()));
        }
        if let Ok(valid) = validate_produced(&input, &rules) {
            verify_crc(&valid.bytes).expect("a right CRC");
        }
    });
});
