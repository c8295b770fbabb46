//! Record batches from outside: what is written is read, what another implementation writes is read, and what is hostile is refused.

mod building;
mod hostile;
mod mutations;
mod oracle;
mod scanning;
mod validating;

use bytes::Bytes;
use madang_protocol::compression::{Codec, Compression};
use madang_protocol::record_batch::{BatchBuilder, BatchOptions, BatchView, layout, write_crc};

pub(crate) const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
/// A time in milliseconds that the tests' producers write at.
pub(crate) const NOW: i64 = 1_700_000_000_000;

/// A sound batch as a producer sends it: `count` records with key, value and two headers of one name.
pub(crate) fn produced(codec: Codec, count: i32) -> Bytes {
    let options = BatchOptions { compression: Compression::of(codec), ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    for index in 0..count {
        let key = format!("key-{index}");
        let headers: &[(&[u8], Option<&[u8]>)] = &[(b"h", Some(b"1")), (b"h", None)];
        builder
            .append(NOW + i64::from(index), Some(key.as_bytes()), Some(b"a value of some length"), headers)
            .expect("a record");
    }
    builder.build().expect("a batch")
}

/// Changes the bytes of a batch, then makes its length and CRC right again.
pub(crate) fn forged(batch: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = batch.to_vec();
    change(&mut bytes);
    let length = (bytes.len() - layout::LENGTH_PREFIX) as u32;
    bytes[layout::BATCH_LENGTH..layout::LEADER_EPOCH].copy_from_slice(&length.to_be_bytes());
    write_crc(&mut bytes).expect("a whole batch");
    Bytes::from(bytes)
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A sound batch whose body, as `codec` compressed it, is replaced; it announces `count` records.
pub(crate) fn with_body(codec: Codec, count: i32, body: &[u8]) -> Bytes {
    forged(&produced(Codec::None, 1), |bytes| {
        bytes.truncate(layout::RECORDS);
        bytes.extend_from_slice(body);
        put(bytes, layout::ATTRIBUTES, &codec.bits().to_be_bytes());
        put(bytes, layout::RECORD_COUNT, &count.to_be_bytes());
        put(bytes, layout::LAST_OFFSET_DELTA, &(count - 1).to_be_bytes());
    })
}

pub(crate) fn view(batch: &Bytes) -> BatchView<'_> {
    BatchView::parse(batch).expect("a batch")
}
