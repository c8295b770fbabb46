//! Compressed streams, whole and lying. The first byte chooses the codec; every second input is first compressed, and comes back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madang_fuzz::{DECODER_WINDOW, guarded};
use madang_protocol::compression::{Codec, Compression, Limits, compress, decompress};

const LIMITS: Limits = Limits { max_bytes: 1 << 20, max_ratio: 1_000, ratio_free_bytes: 1 << 20 };

fuzz_target!(|data: &[u8]| {
    let [choice, data @ ..] = data else { return };
    let codec = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][usize::from(choice >> 1) % 4];
    if choice & 1 != 0 {
        let compressed = compress(Compression::of(codec), data).expect("compressed");
        assert_eq!(decompress(codec, &compressed, &Limits::default()).as_deref(), Ok(data));
        return;
    }
    guarded(data, DECODER_WINDOW + 3 * LIMITS.max_bytes, |input| {
        if let Ok(out) = decompress(codec, input, &LIMITS) {
            assert!(out.len() <= LIMITS.max_bytes);
        }
    });
});
