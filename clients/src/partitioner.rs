//! Which partition a record with a key goes to: as Java's clients decide, so that all clients agree.

/// Murmur2 as Kafka's Java client computes it.
#[must_use]
pub fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mix = |mut k: u32| {
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k.wrapping_mul(M)
    };
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        hash = hash.wrapping_mul(M) ^ mix(u32::from_le_bytes(*word));
    }
    if !tail.is_empty() {
        for (place, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)) as i32
}

/// The partition of `key` among `partitions`, which is at least 1.
#[must_use]
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & i32::MAX) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_that_of_the_java_client() {
        // From Kafka's own UtilsTest.
        let cases: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key), hash, "{key:?}");
        }
    }

    #[test]
    fn a_partition_is_always_one_of_those_there_are() {
        for count in [i32::MIN, -1, 0, 1, 2, 7, i32::MAX] {
            for key in 0..200_u32 {
                let partition = partition_of(&key.to_be_bytes(), count);
                assert!((0..count.max(1)).contains(&partition));
            }
        }
    }
}
