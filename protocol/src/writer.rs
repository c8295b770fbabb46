//! Writing a message as chunks: small values are copied into one growing buffer, large records and ranges of files stay what they are.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::payload::Payload;

/// Records in memory of at least this many bytes are sent from where they are instead of being copied.
const SHARE_FROM_BYTES: usize = 4096;

/// Why a value has no encoding in a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The field has a value other than its default, and this version cannot carry it.
    #[error("the field {field} is not in version {version}")]
    NotInVersion {
        /// The field's name.
        field: &'static str,
        /// The message's version.
        version: i16,
    },
    /// The field is null, and this version has no null for it.
    #[error("the field {field} cannot be null in version {version}")]
    Null {
        /// The field's name.
        field: &'static str,
        /// The message's version.
        version: i16,
    },
    /// A string longer than 32,767 bytes.
    #[error("a string of {length} bytes")]
    StringTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// More bytes or elements than 31 bits count.
    #[error("{length} bytes or elements")]
    TooLong {
        /// The length or count.
        length: usize,
    },
    /// A version that the codec does not know.
    #[error("version {version} is not supported")]
    UnsupportedVersion {
        /// The version.
        version: i16,
    },
    /// A range of a file where bytes in memory are asked for.
    #[error("a range of a file is not in memory")]
    NotInMemory,
}

#[derive(Debug)]
enum Chunk {
    Written(BytesMut),
    Shared(Payload),
}

/// The chunks of a message in the making.
#[derive(Debug, Default)]
pub struct Writer {
    /// Full chunks; `tail` follows them.
    chunks: Vec<Chunk>,
    tail: BytesMut,
    /// Bytes in `chunks`.
    chunks_len: usize,
}

macro_rules! put_number {
    ($($(#[$doc:meta])* $name:ident($type:ty);)*) => {$(
        $(#[$doc])*
        pub fn $name(&mut self, value: $type) {
            self.tail.put_slice(&value.to_be_bytes());
        }
    )*};
}

impl Writer {
    /// An empty writer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes written so far, ranges of files included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks_len + self.tail.len()
    }

    /// Whether nothing is written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    put_number! {
        /// An 8-bit number.
        put_i8(i8);
        /// An unsigned 8-bit number.
        put_u8(u8);
        /// A 16-bit number.
        put_i16(i16);
        /// An unsigned 16-bit number.
        put_u16(u16);
        /// A 32-bit number.
        put_i32(i32);
        /// An unsigned 32-bit number.
        put_u32(u32);
        /// A 64-bit number.
        put_i64(i64);
        /// A 64-bit floating-point number.
        put_f64(f64);
    }

    /// Raw bytes, without a length.
    pub fn put_slice(&mut self, slice: &[u8]) {
        self.tail.put_slice(slice);
    }

    /// An unsigned number, seven bits a byte.
    pub fn put_unsigned_varint(&mut self, value: u32) {
        self.put_base_128(value.into());
    }

    /// A zigzag number of 32 bits.
    pub fn put_varint(&mut self, value: i32) {
        self.put_unsigned_varint(((value << 1) ^ (value >> 31)).cast_unsigned());
    }

    /// A zigzag number of 64 bits.
    pub fn put_varlong(&mut self, value: i64) {
        self.put_base_128(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    fn put_base_128(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.tail.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.tail.put_u8(value as u8);
    }

    /// A length or count of 32 bits, or compact: one more than it as an unsigned varint. `None` is null.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`].
    pub fn put_length(&mut self, length: Option<usize>, compact: bool) -> Result<(), EncodeError> {
        let signed = match length {
            Some(length) => i32::try_from(length).map_err(|_| EncodeError::TooLong { length })?,
            None => -1,
        };
        if compact {
            self.put_unsigned_varint(signed.cast_unsigned().wrapping_add(1));
        } else {
            self.put_i32(signed);
        }
        Ok(())
    }

    /// A string behind its length of 16 bits, or compact. `None` is null.
    ///
    /// # Errors
    /// [`EncodeError::StringTooLong`].
    pub fn put_nullable_str(&mut self, text: Option<&str>, compact: bool) -> Result<(), EncodeError> {
        let length = text.map_or(0, str::len);
        let signed = i16::try_from(length).map_err(|_| EncodeError::StringTooLong { length })?;
        if compact {
            self.put_length(text.map(str::len), true)?;
        } else {
            self.put_i16(if text.is_some() { signed } else { -1 });
        }
        self.put_slice(text.unwrap_or_default().as_bytes());
        Ok(())
    }

    /// Bytes behind their length. `None` is null.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`].
    pub fn put_nullable_bytes(&mut self, bytes: Option<&Bytes>, compact: bool) -> Result<(), EncodeError> {
        self.put_length(bytes.map(Bytes::len), compact)?;
        if let Some(bytes) = bytes {
            self.put_shared_bytes(bytes);
        }
        Ok(())
    }

    /// Records behind their length, ranges of files as they are. `None` is null.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`].
    pub fn put_nullable_payload(&mut self, payload: Option<&Payload>, compact: bool) -> Result<(), EncodeError> {
        match payload {
            None => self.put_length(None, compact),
            Some(Payload::Bytes(bytes)) => self.put_nullable_bytes(Some(bytes), compact),
            Some(regions @ Payload::Regions(_)) => {
                let length = regions.len();
                self.put_length(Some(length), compact)?;
                self.push(Chunk::Shared(regions.clone()), length);
                Ok(())
            }
        }
    }

    fn put_shared_bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARE_FROM_BYTES {
            self.put_slice(bytes);
        } else {
            self.push(Chunk::Shared(Payload::Bytes(bytes.clone())), bytes.len());
        }
    }

    fn push(&mut self, chunk: Chunk, length: usize) {
        if length == 0 {
            return;
        }
        if !self.tail.is_empty() {
            let tail = std::mem::take(&mut self.tail);
            self.chunks_len += tail.len();
            self.chunks.push(Chunk::Written(tail));
        }
        self.chunks_len += length;
        self.chunks.push(chunk);
    }

    /// A tagged field: its tag, the size of what `write` writes, and that.
    ///
    /// # Errors
    /// Those of `write`, and [`EncodeError::TooLong`].
    pub fn put_tagged_field(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut Self) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut inside = Self::new();
        write(&mut inside)?;
        let length = inside.len();
        self.put_unsigned_varint(tag);
        self.put_unsigned_varint(u32::try_from(length).map_err(|_| EncodeError::TooLong { length })?);
        for chunk in inside.chunks {
            match chunk {
                Chunk::Written(written) => self.put_slice(&written),
                Chunk::Shared(Payload::Bytes(bytes)) => self.put_shared_bytes(&bytes),
                Chunk::Shared(regions) => {
                    let length = regions.len();
                    self.push(Chunk::Shared(regions), length);
                }
            }
        }
        self.put_slice(&inside.tail);
        Ok(())
    }

    /// Overwrites the first four bytes, which were written as a number of 32 bits, with the length of what follows them.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] if that is more than 31 bits count or if fewer than four bytes were written.
    pub(crate) fn patch_length(&mut self) -> Result<(), EncodeError> {
        let too_long = EncodeError::TooLong { length: self.len() };
        let following = self.len().checked_sub(4).ok_or(too_long)?;
        let length = i32::try_from(following).map_err(|_| too_long)?;
        let first = match self.chunks.first_mut() {
            Some(Chunk::Written(written)) => written,
            Some(Chunk::Shared(_)) => return Err(too_long),
            None => &mut self.tail,
        };
        first.first_chunk_mut().map(|prefix: &mut [u8; 4]| *prefix = length.to_be_bytes()).ok_or(too_long)
    }

    /// The chunks, in order; none is empty.
    #[must_use]
    pub fn finish(mut self) -> Vec<Payload> {
        if !self.tail.is_empty() {
            self.chunks.push(Chunk::Written(self.tail));
        }
        let payload = |chunk| match chunk {
            Chunk::Written(written) => Payload::Bytes(written.freeze()),
            Chunk::Shared(payload) => payload,
        };
        self.chunks.into_iter().map(payload).collect()
    }

    /// All chunks as one buffer; copies unless there is just one.
    ///
    /// # Errors
    /// [`EncodeError::NotInMemory`] if a range of a file was written.
    pub fn into_bytes(self) -> Result<Bytes, EncodeError> {
        if self.chunks.is_empty() {
            return Ok(self.tail.freeze());
        }
        let mut all = BytesMut::with_capacity(self.len());
        for chunk in self.finish() {
            match chunk {
                Payload::Bytes(bytes) => all.put_slice(&bytes),
                Payload::Regions(_) => return Err(EncodeError::NotInMemory),
            }
        }
        Ok(all.freeze())
    }
}
