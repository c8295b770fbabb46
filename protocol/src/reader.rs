//! Reading from one frame: every read is checked, strings are borrowed, byte fields are slices of the frame.
//! Nothing is allocated for a length or a count before it is checked against the bytes that remain, and what a frame decodes to has a
//! bound: a tiny element on the wire can be a large one in memory.

use std::borrow::Cow;

use bytes::Bytes;
use thiserror::Error;

use crate::utf8;

/// Bytes that the arrays of any frame may take in memory.
const MEMORY_PER_FRAME: usize = 16 << 20;
/// Bytes that they may take on top of that for each byte of the frame. Real requests stay near 4; an array of empty strings reaches 24.
const MEMORY_PER_BYTE: usize = 4;

/// Why bytes are not the message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A value goes on after the last byte.
    #[error("{needed} bytes needed, {remaining} left")]
    UnexpectedEnd {
        /// Bytes that the value needs.
        needed: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// Bytes are left after the message.
    #[error("{remaining} bytes left after the message")]
    TrailingBytes {
        /// Bytes that are left.
        remaining: usize,
    },
    /// A count of elements that the remaining bytes cannot hold.
    #[error("{count} elements cannot be in {remaining} bytes")]
    TooManyElements {
        /// The count.
        count: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// Arrays that would take far more memory than the frame has bytes.
    #[error("the arrays of the frame take more than {limit} bytes of memory")]
    TooMuchMemory {
        /// The most they may take, in bytes.
        limit: usize,
    },
    /// A string longer than 32,767 bytes.
    #[error("a string of {length} bytes")]
    StringTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A null where the version allows none.
    #[error("null in a field that is not nullable")]
    UnexpectedNull,
    /// A variable-length number of more bits than its type has.
    #[error("a variable-length number is too long")]
    VarintTooLong,
    /// A tagged field that exists, in a version that does not have it.
    #[error("tag {tag} is not valid for version {version}")]
    InvalidTag {
        /// The tag.
        tag: u32,
        /// The message's version.
        version: i16,
    },
    /// A version that the codec does not know.
    #[error("version {version} is not supported")]
    UnsupportedVersion {
        /// The version.
        version: i16,
    },
    /// An API key that the codec does not know.
    #[error("API key {key} is not supported")]
    UnsupportedApiKey {
        /// The key.
        key: i16,
    },
}

/// A position in a frame.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    frame: &'a Bytes,
    position: usize,
    end: usize,
    /// Bytes that arrays may still take in memory.
    memory: usize,
}

macro_rules! read_number {
    ($($(#[$doc:meta])* $name:ident -> $type:ty;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`DecodeError::UnexpectedEnd`].
        pub fn $name(&mut self) -> Result<$type, DecodeError> {
            Ok(<$type>::from_be_bytes(*self.read_array()?))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Reads `frame` from its start.
    #[must_use]
    pub fn new(frame: &'a Bytes) -> Self {
        Self { frame, position: 0, end: frame.len(), memory: Self::memory_limit(frame) }
    }

    fn memory_limit(frame: &Bytes) -> usize {
        frame.len().saturating_mul(MEMORY_PER_BYTE).saturating_add(MEMORY_PER_FRAME)
    }

    /// Counts an array of `elements` of `size` bytes each before it is allocated.
    ///
    /// # Errors
    /// [`DecodeError::TooMuchMemory`] if the arrays of this frame then take more than 16 MiB and four times its length.
    pub fn charge(&mut self, elements: usize, size: usize) -> Result<(), DecodeError> {
        match elements.checked_mul(size).and_then(|bytes| self.memory.checked_sub(bytes)) {
            Some(left) => {
                self.memory = left;
                Ok(())
            }
            None => Err(DecodeError::TooMuchMemory { limit: Self::memory_limit(self.frame) }),
        }
    }

    /// Bytes that are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.end - self.position
    }

    /// Fails unless everything has been read.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`].
    pub fn expect_end(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            remaining => Err(DecodeError::TrailingBytes { remaining }),
        }
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`].
    pub fn read_slice(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        self.check(length)?;
        let slice = &self.frame[self.position..self.position + length];
        self.position += length;
        Ok(slice)
    }

    /// The next `length` bytes, sharing the frame's memory.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`].
    pub fn read_bytes(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        self.check(length)?;
        let bytes = self.frame.slice(self.position..self.position + length);
        self.position += length;
        Ok(bytes)
    }

    fn check(&self, needed: usize) -> Result<(), DecodeError> {
        let remaining = self.remaining();
        if needed > remaining { Err(DecodeError::UnexpectedEnd { needed, remaining }) } else { Ok(()) }
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`].
    pub fn read_array<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let remaining = self.remaining();
        match self.frame[self.position..self.end].first_chunk() {
            Some(array) => {
                self.position += N;
                Ok(array)
            }
            None => Err(DecodeError::UnexpectedEnd { needed: N, remaining }),
        }
    }

    read_number! {
        /// An 8-bit number.
        read_i8 -> i8;
        /// An unsigned 8-bit number.
        read_u8 -> u8;
        /// A 16-bit number.
        read_i16 -> i16;
        /// An unsigned 16-bit number.
        read_u16 -> u16;
        /// A 32-bit number.
        read_i32 -> i32;
        /// An unsigned 32-bit number.
        read_u32 -> u32;
        /// A 64-bit number.
        read_i64 -> i64;
        /// A 64-bit floating-point number.
        read_f64 -> f64;
    }

    /// An unsigned number of seven bits a byte: at most 5 bytes. Like Kafka, takes the low 32 of their 35 bits.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`], [`DecodeError::VarintTooLong`].
    pub fn read_unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        // Nearly every length and tag is below 128.
        if let Some(&byte @ 0..0x80) = self.frame[self.position..self.end].first() {
            self.position += 1;
            return Ok(byte.into());
        }
        Ok(self.read_base_128(5)? as u32)
    }

    /// A zigzag number of at most 5 bytes, 32 bits.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`], [`DecodeError::VarintTooLong`].
    pub fn read_varint(&mut self) -> Result<i32, DecodeError> {
        let raw = self.read_unsigned_varint()?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    /// A zigzag number of at most 10 bytes, 64 bits.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`], [`DecodeError::VarintTooLong`].
    pub fn read_varlong(&mut self) -> Result<i64, DecodeError> {
        let raw = u64::try_from(self.read_base_128(10)?).map_err(|_| DecodeError::VarintTooLong)?;
        Ok((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    fn read_base_128(&mut self, max_bytes: u32) -> Result<u128, DecodeError> {
        let mut value = 0_u128;
        for place in 0..max_bytes {
            let byte = self.read_u8()?;
            value |= u128::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong)
    }

    /// A length of 32 bits, or compact: one more than it as an unsigned varint. `None` is null, which every negative length is.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`], [`DecodeError::VarintTooLong`].
    pub fn read_length(&mut self, compact: bool) -> Result<Option<usize>, DecodeError> {
        let length =
            if compact { self.read_unsigned_varint()?.cast_signed().wrapping_sub(1) } else { self.read_i32()? };
        Ok(usize::try_from(length).ok())
    }

    /// A length of 16 bits, or compact. `None` is null.
    ///
    /// # Errors
    /// As [`Self::read_length`], and [`DecodeError::StringTooLong`].
    pub fn read_string_length(&mut self, compact: bool) -> Result<Option<usize>, DecodeError> {
        let length = if compact { self.read_length(true)? } else { usize::try_from(self.read_i16()?).ok() };
        match length {
            Some(length) if length > i16::MAX as usize => Err(DecodeError::StringTooLong { length }),
            length => Ok(length),
        }
    }

    /// A count of elements that take at least `min_len` bytes each (at least 1). `None` is null.
    ///
    /// # Errors
    /// As [`Self::read_length`], and [`DecodeError::TooManyElements`].
    pub fn read_count(&mut self, compact: bool, min_len: usize) -> Result<Option<usize>, DecodeError> {
        let count = self.read_length(compact)?;
        let remaining = self.remaining();
        match count {
            Some(count) if count > remaining / min_len.max(1) => Err(DecodeError::TooManyElements { count, remaining }),
            count => Ok(count),
        }
    }

    /// A string, borrowed from the frame. Like Kafka, puts U+FFFD where it is not UTF-8. `None` is null.
    ///
    /// # Errors
    /// As [`Self::read_string_length`], and [`DecodeError::TooMuchMemory`] for what had to be replaced.
    pub fn read_nullable_str(&mut self, compact: bool) -> Result<Option<Cow<'a, str>>, DecodeError> {
        let Some(length) = self.read_string_length(compact)? else { return Ok(None) };
        let string = utf8::lossy(self.read_slice(length)?);
        if let Cow::Owned(replaced) = &string {
            self.charge(replaced.len(), 1)?;
        }
        Ok(Some(string))
    }

    /// Bytes behind their length. `None` is null.
    ///
    /// # Errors
    /// As [`Self::read_length`].
    pub fn read_nullable_bytes(&mut self, compact: bool) -> Result<Option<Bytes>, DecodeError> {
        match self.read_length(compact)? {
            Some(length) => self.read_bytes(length).map(Some),
            None => Ok(None),
        }
    }

    /// Reads a section of tagged fields. `field` reads the field of a tag it knows and answers `true`, or answers `false` and the field is skipped.
    /// Like Kafka, takes tags in any order, and the last of several fields with one tag.
    ///
    /// # Errors
    /// Those of `field`, and [`DecodeError::TrailingBytes`] if it reads less than the field's size, [`DecodeError::UnexpectedEnd`] if more.
    pub fn read_tagged_fields(
        &mut self,
        mut field: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        // As everywhere, a negative count is none.
        for _ in 0..self.read_unsigned_varint()?.cast_signed() {
            let tag = self.read_unsigned_varint()?;
            let size = self.read_unsigned_varint()? as usize;
            self.check(size)?;
            let mut inside = Self { end: self.position + size, ..self.clone() };
            if field(&mut inside, tag)? {
                inside.expect_end()?;
            }
            self.memory = inside.memory;
            self.position += size;
        }
        Ok(())
    }

    /// Skips a section of tagged fields.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`], [`DecodeError::VarintTooLong`].
    pub fn skip_tagged_fields(&mut self) -> Result<(), DecodeError> {
        self.read_tagged_fields(|_, _| Ok(false))
    }
}
