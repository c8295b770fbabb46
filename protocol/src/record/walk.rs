//! Checking all records of a batch without keeping them: what a leader does to produced records.
//! Invariant: memory does not grow with the records; a compressed batch passes through one small window.

use super::{Records, read_varint, read_varlong};
use crate::compression::{Codec, Decoder, Limits};
use crate::record_batch::{BatchError, BatchView};

const WINDOW: usize = 16 * 1024;

/// What is known of a record that was walked over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The record's place in its batch, from 0.
    pub index: i32,
    /// Offset less the batch's base offset. Below 0 only if the batch is compressed and wrong.
    pub offset_delta: i32,
    /// Milliseconds from the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Whether the record has a key.
    pub has_key: bool,
    /// Whether the record has a value.
    pub has_value: bool,
}

/// What a decoder has produced and nobody has used yet.
struct Input<'a, 'w> {
    decoder: Option<Decoder<'a>>,
    buffer: &'w mut [u8],
    start: usize,
    end: usize,
    /// Bytes used so far.
    position: u64,
    failed: Option<BatchError>,
}

impl<'a, 'w> Input<'a, 'w> {
    fn new(decoder: Decoder<'a>, buffer: &'w mut [u8]) -> Self {
        Self { decoder: Some(decoder), buffer, start: 0, end: 0, position: 0, failed: None }
    }

    /// Makes at least one byte ready; `false` at the end or after a failure of the decoder.
    fn fill(&mut self) -> bool {
        if self.start < self.end {
            return true;
        }
        let Some(decoder) = &mut self.decoder else { return false };
        match decoder.read(self.buffer) {
            Ok(count) => {
                (self.start, self.end) = (0, count);
                if count == 0 {
                    self.decoder = None;
                }
                count > 0
            }
            Err(error) => {
                self.failed = Some(error);
                self.decoder = None;
                false
            }
        }
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, &'static str> {
        if !self.fill() {
            return Err("ends inside a number");
        }
        let byte = self.buffer[self.start];
        self.start += 1;
        self.position += 1;
        Ok(byte)
    }

    #[inline]
    fn varint(&mut self) -> Result<i32, &'static str> {
        read_varint(|| self.byte())
    }

    fn skip(&mut self, length: i32) -> Result<(), &'static str> {
        let mut left = usize::try_from(length).map_err(|_| "negative length")?;
        while left > 0 {
            if !self.fill() {
                return Err("length past the end");
            }
            let step = left.min(self.end - self.start);
            self.start += step;
            self.position += step as u64;
            left -= step;
        }
        Ok(())
    }

    /// Skips bytes that may be null and that may not reach beyond `end`; answers whether they are there.
    fn skip_nullable(&mut self, end: u64) -> Result<bool, &'static str> {
        match self.varint()? {
            -1 => Ok(false),
            length => {
                self.within(length, end)?;
                self.skip(length).map(|()| true)
            }
        }
    }

    fn within(&self, length: i32, end: u64) -> Result<(), &'static str> {
        let length = u64::try_from(length).map_err(|_| "negative length")?;
        if self.position + length > end { Err("length past the end") } else { Ok(()) }
    }

    fn record(&mut self, index: i32) -> Result<Walk, &'static str> {
        let length = u64::try_from(self.varint()?).map_err(|_| "negative length")?;
        let end = self.position + length;
        self.byte()?;
        let timestamp_delta = read_varlong(|| self.byte())?;
        let offset_delta = self.varint()?;
        let has_key = self.skip_nullable(end)?;
        let has_value = self.skip_nullable(end)?;
        let headers = self.varint()?;
        if headers < 0 {
            return Err("negative header count");
        }
        for _ in 0..headers {
            let key = self.varint()?;
            if key < 0 {
                return Err("header without a key");
            }
            self.within(key, end)?;
            self.skip(key)?;
            self.skip_nullable(end)?;
        }
        match self.position.cmp(&end) {
            std::cmp::Ordering::Less => Err("bytes follow the last header"),
            std::cmp::Ordering::Equal => Ok(Walk { index, offset_delta, timestamp_delta, has_key, has_value }),
            std::cmp::Ordering::Greater => Err("length past the end"),
        }
    }
}

/// Walks over all records of `batch`, decompressing under `limits` if need be, and gives each to `each`. Checks that every record is well formed
/// and that nothing follows the last. The CRC is not checked.
///
/// # Errors
/// `Codec`, those of [`Decoder`], `Record` for the first record that is not well formed, `TrailingBytes`.
pub fn walk(batch: &BatchView<'_>, limits: &Limits, mut each: impl FnMut(Walk)) -> Result<(), BatchError> {
    let codec = batch.header.codec()?;
    if codec == Codec::None {
        for (index, record) in (0..).zip(Records::new(batch.body(), batch.header.record_count)) {
            let record = record?;
            each(Walk {
                index,
                offset_delta: record.offset_delta,
                timestamp_delta: record.timestamp_delta,
                has_key: record.key.is_some(),
                has_value: record.value.is_some(),
            });
        }
        return Ok(());
    }
    let mut window = [0; WINDOW];
    let mut input = Input::new(Decoder::new(codec, batch.body(), limits)?, &mut window);
    for index in 0..batch.header.record_count {
        match input.record(index) {
            Ok(found) => each(found),
            // Bytes that make no record may be a stream's that is corrupt, which its end tells at the latest.
            Err(reason) => {
                while input.fill() {
                    input.start = input.end;
                }
                return Err(input.failed.unwrap_or(BatchError::Record { index, reason }));
            }
        }
    }
    if input.fill() {
        return Err(BatchError::TrailingBytes);
    }
    input.failed.map_or(Ok(()), Err)
}
