//! An entry of the metadata log: what is read can be written, and is read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madang_cluster::controller::records::{decode_records, encode_records};
use madang_fuzz::guarded;

fuzz_target!(|data: &[u8]| {
    guarded(data, 0, |bytes| {
        let Ok(records) = decode_records(bytes) else { return };
        let mut again = Vec::new();
        encode_records(&records, &mut again).expect("what was decoded can be encoded");
        assert_eq!(decode_records(&again).expect("what was encoded can be decoded"), records);
    });
});
