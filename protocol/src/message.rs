//! What is encoded by itself: bodies of requests and responses, keys and values of internal records.

pub use madang_protocol_derive::Message;

use std::borrow::Cow;

use bytes::Bytes;

use crate::api_key::ApiKey;
use crate::payload::Payload;
use crate::reader::{DecodeError, Reader};
use crate::schema::{Kind, StructSchema, Versions};
use crate::types::Uuid;
use crate::wire::{At, Wire};
use crate::writer::{EncodeError, Writer};

/// A message with versions of its own.
pub trait Message<'a>: Wire<'a> {
    /// The versions this codec knows. What a broker serves is narrower: see [`ApiKey::served`].
    const VERSIONS: Versions;
    /// The versions with compact lengths and tagged fields.
    const FLEXIBLE: Versions;

    /// The message's definition.
    #[must_use]
    fn schema() -> &'static StructSchema {
        match Self::KIND {
            Kind::Struct(schema) => schema,
            // A derived message is a struct; nothing else implements this trait.
            _ => &StructSchema { name: "", fields: &[] },
        }
    }

    /// Reads the message in `version`; what follows it stays in `reader`.
    ///
    /// # Errors
    /// [`DecodeError`] if the version is unknown or the bytes are not such a message.
    fn decode(reader: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError> {
        if !Self::VERSIONS.contains(version) {
            return Err(DecodeError::UnsupportedVersion { version });
        }
        Self::read(reader, At { version, flexible: Self::FLEXIBLE.contains(version) })
    }

    /// Writes the message in `version`.
    ///
    /// # Errors
    /// [`EncodeError`] if the version is unknown or cannot carry the message's values. `writer` then holds a part of the message.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {
        if !Self::VERSIONS.contains(version) {
            return Err(EncodeError::UnsupportedVersion { version });
        }
        self.write(writer, At { version, flexible: Self::FLEXIBLE.contains(version) })
    }
}

/// A request that a client may send.
pub trait Request<'a>: Message<'a> {
    /// The API it calls.
    const KEY: ApiKey;
    /// What answers it.
    type Response<'r>: Message<'r> + IntoStatic<Static = Self::Response<'static>>;
}

/// A message that can outlive the frame it was read from. Strings are copied; bytes and records go on sharing the frame's memory.
pub trait IntoStatic {
    /// The same type, borrowing nothing.
    type Static: 'static;

    /// Copies what is borrowed.
    #[must_use]
    fn into_static(self) -> Self::Static;
}

macro_rules! borrows_nothing {
    ($($type:ty),*) => {$(
        impl IntoStatic for $type {
            type Static = Self;

            fn into_static(self) -> Self {
                self
            }
        }
    )*};
}

borrows_nothing!(bool, i8, i16, u16, i32, i64, f64, Uuid, Bytes, Payload);

impl IntoStatic for Cow<'_, str> {
    type Static = Cow<'static, str>;

    fn into_static(self) -> Self::Static {
        Cow::Owned(self.into_owned())
    }
}

impl<T: IntoStatic> IntoStatic for Vec<T> {
    type Static = Vec<T::Static>;

    fn into_static(self) -> Self::Static {
        self.into_iter().map(T::into_static).collect()
    }
}

impl<T: IntoStatic> IntoStatic for Option<T> {
    type Static = Option<T::Static>;

    fn into_static(self) -> Self::Static {
        self.map(T::into_static)
    }
}

/// Encodes `message` behind its version as a 16-bit number: how values of internal records and the metadata of group members are stored.
///
/// # Errors
/// As [`Message::encode`].
pub fn encode_versioned<'a, M: Message<'a>>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    writer.put_i16(version);
    message.encode(&mut writer, version)?;
    writer.into_bytes()
}

/// Decodes what [`encode_versioned`] wrote, with its version.
///
/// # Errors
/// [`DecodeError`], also for bytes that are left over.
pub fn decode_versioned<'a, M: Message<'a>>(bytes: &'a Bytes) -> Result<(M, i16), DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.read_i16()?;
    let message = M::decode(&mut reader, version)?;
    reader.expect_end()?;
    Ok((message, version))
}
