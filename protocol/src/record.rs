//! Records inside a batch: reading them in place, checking them as a stream, writing them.
//! Invariant: a record that was yielded is well formed to its last header, and every number in it was checked against the bytes there are.

mod walk;
mod write;

use std::borrow::Cow;

pub use walk::{Walk, walk};
pub(crate) use write::write_record;

use crate::compression::{Codec, Limits, decompress};
use crate::record_batch::{BatchError, BatchHeader, BatchView, TimestampType};
use crate::types::Offset;

/// A record, borrowed from the uncompressed records of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Offset less the batch's base offset; at least 0.
    pub offset_delta: i32,
    /// Milliseconds from the batch's base timestamp.
    pub timestamp_delta: i64,
    /// The key, if there is one.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, in order, duplicates kept.
    pub headers: Headers<'a>,
}

impl Record<'_> {
    /// The record's offset in a batch with this header.
    #[must_use]
    pub fn offset(&self, header: &BatchHeader) -> Offset {
        header.base_offset + i64::from(self.offset_delta)
    }

    /// The record's time in milliseconds in a batch with this header.
    #[must_use]
    pub fn timestamp(&self, header: &BatchHeader) -> i64 {
        match header.timestamp_type() {
            // As Kafka adds them: one that goes round the end was in range when it was produced.
            TimestampType::CreateTime => header.base_timestamp.wrapping_add(self.timestamp_delta),
            TimestampType::LogAppendTime => header.max_timestamp,
        }
    }
}

/// The headers of a record. Iterates without allocating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl Headers<'_> {
    /// Headers left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let mut cursor = Cursor { rest: self.bytes };
        let header = cursor.header().ok()?;
        self.bytes = cursor.rest;
        Some(header)
    }
}

/// Reads a record's parts from a slice.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Result<u8, &'static str> {
        let (&byte, rest) = self.rest.split_first().ok_or("ends inside a number")?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    fn varint(&mut self) -> Result<i32, &'static str> {
        match self.short() {
            Some(value) => Ok(value),
            None => read_varint(|| self.byte()),
        }
    }

    #[inline]
    fn varlong(&mut self) -> Result<i64, &'static str> {
        match self.short() {
            Some(value) => Ok(i64::from(value)),
            None => read_varlong(|| self.byte()),
        }
    }

    /// A number of one or two bytes, as nearly all are; `None` leaves the cursor where it is.
    #[inline]
    fn short(&mut self) -> Option<i32> {
        let (value, rest) = match *self.rest {
            [first @ ..0x80, ref rest @ ..] => (u32::from(first), rest),
            [first, second @ ..0x80, ref rest @ ..] => (u32::from(first & 0x7f) | u32::from(second) << 7, rest),
            _ => return None,
        };
        self.rest = rest;
        Some((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    fn take(&mut self, length: i32) -> Result<&'a [u8], &'static str> {
        let length = usize::try_from(length).map_err(|_| "negative length")?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("length past the end")?;
        self.rest = rest;
        Ok(taken)
    }

    fn nullable(&mut self) -> Result<Option<&'a [u8]>, &'static str> {
        match self.varint()? {
            -1 => Ok(None),
            length => self.take(length).map(Some),
        }
    }

    fn header(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), &'static str> {
        let length = self.varint()?;
        if length < 0 {
            return Err("header without a key");
        }
        let key = self.take(length)?;
        Ok((key, self.nullable()?))
    }

    fn record(&mut self) -> Result<Record<'a>, &'static str> {
        let length = self.varint()?;
        let mut body = Cursor { rest: self.take(length)? };
        body.byte()?; // attributes: no bit has a meaning
        let timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        if offset_delta < 0 {
            return Err("negative offset delta");
        }
        let key = body.nullable()?;
        let value = body.nullable()?;
        let count = usize::try_from(body.varint()?).map_err(|_| "negative header count")?;
        let headers = Headers { bytes: body.rest, count };
        if count > body.rest.len() / 2 {
            return Err("more headers than bytes for them");
        }
        for _ in 0..count {
            body.header()?;
        }
        if !body.rest.is_empty() {
            return Err("bytes follow the last header");
        }
        Ok(Record { offset_delta, timestamp_delta, key, value, headers })
    }
}

fn read_varint(mut byte: impl FnMut() -> Result<u8, &'static str>) -> Result<i32, &'static str> {
    let mut value = 0_u32;
    for shift in [0, 7, 14, 21, 28] {
        let next = byte()?;
        if shift == 28 && next > 0x0f {
            return Err("number beyond 32 bits");
        }
        value |= u32::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Ok((value >> 1) as i32 ^ -((value & 1) as i32));
        }
    }
    Err("number beyond 32 bits")
}

fn read_varlong(mut byte: impl FnMut() -> Result<u8, &'static str>) -> Result<i64, &'static str> {
    let mut value = 0_u64;
    for shift in (0..70).step_by(7) {
        let next = byte()?;
        if shift == 63 && next > 1 {
            return Err("number beyond 64 bits");
        }
        value |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err("number beyond 64 bits")
}

/// The records of a batch, uncompressed. Owns them if they had to be decompressed.
#[derive(Clone, Debug)]
pub struct RecordSet<'a> {
    bytes: Cow<'a, [u8]>,
    count: i32,
}

impl<'a> RecordSet<'a> {
    /// The records of `batch`, decompressed under `limits` if they are compressed. The CRC is not checked.
    ///
    /// # Errors
    /// `Codec` for an unknown codec; those of [`decompress`].
    pub fn of(batch: &BatchView<'a>, limits: &Limits) -> Result<Self, BatchError> {
        let bytes = match batch.header.codec()? {
            Codec::None => Cow::Borrowed(batch.body()),
            codec => Cow::Owned(decompress(codec, batch.body(), limits)?),
        };
        Ok(Self { bytes, count: batch.header.record_count })
    }

    /// Walks the records.
    #[must_use]
    pub fn iter(&self) -> Records<'_> {
        Records::new(&self.bytes, self.count)
    }
}

impl<'s> IntoIterator for &'s RecordSet<'_> {
    type Item = Result<Record<'s>, BatchError>;
    type IntoIter = Records<'s>;

    fn into_iter(self) -> Records<'s> {
        self.iter()
    }
}

/// Walks uncompressed records. After an error it yields nothing more; bytes after the last record are an error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    index: i32,
    count: i32,
}

impl<'a> Records<'a> {
    /// Walks the `count` records of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8], count: i32) -> Self {
        Self { rest: bytes, index: 0, count }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            let trailing = !self.rest.is_empty();
            self.rest = &[];
            return trailing.then_some(Err(BatchError::TrailingBytes));
        }
        let mut cursor = Cursor { rest: self.rest };
        let index = self.index;
        match cursor.record() {
            Ok(record) => {
                self.rest = cursor.rest;
                self.index += 1;
                Some(Ok(record))
            }
            Err(reason) => {
                (self.rest, self.count) = (&[], index);
                Some(Err(BatchError::Record { index, reason }))
            }
        }
    }
}

/// What a control batch says. Its only record carries it in the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecord {
    /// The transaction is aborted.
    Abort,
    /// The transaction is committed.
    Commit,
    /// Another type of marker, by its number.
    Other(i16),
}

impl ControlRecord {
    /// Reads the key of a control record; `None` if it has fewer than 4 bytes or a negative version.
    #[must_use]
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let [v0, v1, t0, t1] = *key.first_chunk::<4>()?;
        if i16::from_be_bytes([v0, v1]) < 0 {
            return None;
        }
        Some(match i16::from_be_bytes([t0, t1]) {
            0 => Self::Abort,
            1 => Self::Commit,
            other => Self::Other(other),
        })
    }

    /// The record's key: version 0 and the type.
    #[must_use]
    pub fn key(self) -> [u8; 4] {
        let kind: i16 = match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::Other(kind) => kind,
        };
        let [high, low] = kind.to_be_bytes();
        [0, 0, high, low]
    }

    /// The record's value: version 0 and the coordinator's epoch.
    #[must_use]
    pub fn value(coordinator_epoch: i32) -> [u8; 6] {
        let [a, b, c, d] = coordinator_epoch.to_be_bytes();
        [0, 0, a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way of one or two bytes is the long way, on every pair of bytes and what may follow it.
    #[test]
    fn short_numbers_are_read_as_long_ones() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                for bytes in [&[first, second][..], &[first, second, 0x7f], &[first]] {
                    let (mut slow, mut cursor) = (bytes.iter(), Cursor { rest: bytes });
                    let expected = read_varlong(|| slow.next().copied().ok_or("ends inside a number"));
                    assert_eq!(cursor.varlong(), expected);
                    assert_eq!(cursor.rest, slow.as_slice());
                    let (mut slow, mut cursor) = (bytes.iter(), Cursor { rest: bytes });
                    assert_eq!(cursor.varint(), read_varint(|| slow.next().copied().ok_or("ends inside a number")));
                    assert_eq!(cursor.rest, slow.as_slice());
                }
            }
        }
    }
}
