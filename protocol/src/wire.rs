//! How each type of field is encoded: the one place that knows both the plain and the compact form. Derived structs build on it.

use std::borrow::Cow;

use bytes::Bytes;

use crate::payload::Payload;
use crate::reader::{DecodeError, Reader};
use crate::schema::Kind;
use crate::types::Uuid;
use crate::writer::{EncodeError, Writer};

/// The version in which a field is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// The message's version.
    pub version: i16,
    /// Whether it has compact lengths and tagged fields.
    pub flexible: bool,
}

/// A value that can be a field.
pub trait Wire<'a>: Sized {
    /// Its type in the schema.
    const KIND: Kind;

    /// The fewest bytes that a value takes.
    #[must_use]
    fn min_len(at: At) -> usize;

    /// Reads a value.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are no such value.
    fn read(reader: &mut Reader<'a>, at: At) -> Result<Self, DecodeError>;

    /// Writes the value.
    ///
    /// # Errors
    /// [`EncodeError`] if it is too long or not expressible in this version.
    fn write(&self, writer: &mut Writer, at: At) -> Result<(), EncodeError>;
}

/// A value that can be null: the `T` of an `Option<T>`.
pub trait Nullable<'a>: Wire<'a> {
    /// The fewest bytes that a value or null takes in any version.
    const MIN_NULLABLE_LEN: usize;

    /// Reads a value or null.
    ///
    /// # Errors
    /// As [`Wire::read`].
    fn read_nullable(reader: &mut Reader<'a>, at: At) -> Result<Option<Self>, DecodeError>;

    /// Writes a value or null. `nullable` says whether this version knows null; if not, there is a value.
    ///
    /// # Errors
    /// As [`Wire::write`].
    fn write_nullable(value: Option<&Self>, writer: &mut Writer, at: At, nullable: bool) -> Result<(), EncodeError>;
}

macro_rules! fixed_size {
    ($($type:ty, $kind:ident, $read:ident, $put:ident;)*) => {$(
        impl Wire<'_> for $type {
            const KIND: Kind = Kind::$kind;

            fn min_len(_: At) -> usize {
                size_of::<$type>()
            }

            fn read(reader: &mut Reader<'_>, _: At) -> Result<Self, DecodeError> {
                reader.$read()
            }

            fn write(&self, writer: &mut Writer, _: At) -> Result<(), EncodeError> {
                writer.$put(*self);
                Ok(())
            }
        }
    )*};
}

fixed_size! {
    i8, Int8, read_i8, put_i8;
    i16, Int16, read_i16, put_i16;
    u16, Uint16, read_u16, put_u16;
    i32, Int32, read_i32, put_i32;
    i64, Int64, read_i64, put_i64;
    f64, Float64, read_f64, put_f64;
}

impl Wire<'_> for bool {
    const KIND: Kind = Kind::Bool;

    fn min_len(_: At) -> usize {
        1
    }

    fn read(reader: &mut Reader<'_>, _: At) -> Result<Self, DecodeError> {
        Ok(reader.read_i8()? != 0)
    }

    fn write(&self, writer: &mut Writer, _: At) -> Result<(), EncodeError> {
        writer.put_i8((*self).into());
        Ok(())
    }
}

impl Wire<'_> for Uuid {
    const KIND: Kind = Kind::Uuid;

    fn min_len(_: At) -> usize {
        16
    }

    fn read(reader: &mut Reader<'_>, _: At) -> Result<Self, DecodeError> {
        Ok(Self(*reader.read_array()?))
    }

    fn write(&self, writer: &mut Writer, _: At) -> Result<(), EncodeError> {
        writer.put_slice(&self.0);
        Ok(())
    }
}

/// The two methods of [`Wire`] that every nullable type has in common.
macro_rules! through_nullable {
    ($lifetime:lifetime) => {
        fn read(reader: &mut Reader<$lifetime>, at: At) -> Result<Self, DecodeError> {
            Self::read_nullable(reader, at)?.ok_or(DecodeError::UnexpectedNull)
        }

        fn write(&self, writer: &mut Writer, at: At) -> Result<(), EncodeError> {
            Self::write_nullable(Some(self), writer, at, false)
        }
    };
}

impl<'a> Wire<'a> for Cow<'a, str> {
    const KIND: Kind = Kind::String;

    fn min_len(at: At) -> usize {
        if at.flexible { 1 } else { 2 }
    }

    through_nullable!('a);
}

impl<'a> Nullable<'a> for Cow<'a, str> {
    const MIN_NULLABLE_LEN: usize = 1;

    fn read_nullable(reader: &mut Reader<'a>, at: At) -> Result<Option<Self>, DecodeError> {
        reader.read_nullable_str(at.flexible)
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, at: At, _: bool) -> Result<(), EncodeError> {
        writer.put_nullable_str(value.map(AsRef::as_ref), at.flexible)
    }
}

impl<'a> Wire<'a> for Bytes {
    const KIND: Kind = Kind::Bytes;

    fn min_len(at: At) -> usize {
        if at.flexible { 1 } else { 4 }
    }

    through_nullable!('a);
}

impl<'a> Nullable<'a> for Bytes {
    const MIN_NULLABLE_LEN: usize = 1;

    fn read_nullable(reader: &mut Reader<'a>, at: At) -> Result<Option<Self>, DecodeError> {
        reader.read_nullable_bytes(at.flexible)
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, at: At, _: bool) -> Result<(), EncodeError> {
        writer.put_nullable_bytes(value, at.flexible)
    }
}

impl<'a> Wire<'a> for Payload {
    const KIND: Kind = Kind::Records;

    fn min_len(at: At) -> usize {
        if at.flexible { 1 } else { 4 }
    }

    through_nullable!('a);
}

impl<'a> Nullable<'a> for Payload {
    const MIN_NULLABLE_LEN: usize = 1;

    fn read_nullable(reader: &mut Reader<'a>, at: At) -> Result<Option<Self>, DecodeError> {
        Ok(reader.read_nullable_bytes(at.flexible)?.map(Self::Bytes))
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, at: At, _: bool) -> Result<(), EncodeError> {
        writer.put_nullable_payload(value, at.flexible)
    }
}

impl<'a, T: Wire<'a>> Wire<'a> for Vec<T> {
    const KIND: Kind = Kind::Array(&T::KIND);

    fn min_len(at: At) -> usize {
        if at.flexible { 1 } else { 4 }
    }

    through_nullable!('a);
}

impl<'a, T: Wire<'a>> Nullable<'a> for Vec<T> {
    const MIN_NULLABLE_LEN: usize = 1;

    fn read_nullable(reader: &mut Reader<'a>, at: At) -> Result<Option<Self>, DecodeError> {
        let Some(count) = reader.read_count(at.flexible, T::min_len(at))? else { return Ok(None) };
        reader.charge(count, size_of::<T>())?;
        let mut elements = Self::with_capacity(count);
        for _ in 0..count {
            elements.push(T::read(reader, at)?);
        }
        Ok(Some(elements))
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, at: At, _: bool) -> Result<(), EncodeError> {
        writer.put_length(value.map(Self::len), at.flexible)?;
        value.into_iter().flatten().try_for_each(|element| element.write(writer, at))
    }
}

/// Reads a struct behind the byte that says whether it is there.
///
/// # Errors
/// As [`Wire::read`].
pub fn read_nullable_struct<'a, T: Wire<'a>>(reader: &mut Reader<'a>, at: At) -> Result<Option<T>, DecodeError> {
    if reader.read_i8()? < 0 { Ok(None) } else { T::read(reader, at).map(Some) }
}

/// Writes a struct, in versions that know null behind the byte that says whether it is there.
///
/// # Errors
/// As [`Wire::write`].
pub fn write_nullable_struct<'a, T: Wire<'a>>(
    value: Option<&T>,
    writer: &mut Writer,
    at: At,
    nullable: bool,
) -> Result<(), EncodeError> {
    if nullable {
        writer.put_i8(if value.is_some() { 1 } else { -1 });
    }
    value.map_or(Ok(()), |value| value.write(writer, at))
}
