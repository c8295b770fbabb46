//! Frames: a length of 32 bits, a header, a body. The one place that knows which header goes with which API and version.

use std::borrow::Cow;

use bytes::Bytes;

use crate::api_key::ApiKey;
use crate::message::{Message, Request};
use crate::payload::Payload;
use crate::reader::{DecodeError, Reader};
use crate::writer::{EncodeError, Writer};

/// The length prefix of a frame, in bytes.
pub const LENGTH_PREFIX: usize = 4;

/// What every request begins with, whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestPrefix {
    /// The number of the API, known or not.
    pub api_key: i16,
    /// The version asked for, known or not.
    pub api_version: i16,
    /// What the response repeats.
    pub correlation_id: i32,
}

impl RequestPrefix {
    /// Reads the first eight bytes of a request and leaves `reader` behind them.
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`].
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { api_key: reader.read_i16()?, api_version: reader.read_i16()?, correlation_id: reader.read_i32()? })
    }

    /// The first eight bytes of `frame` (without its length prefix).
    ///
    /// # Errors
    /// [`DecodeError::UnexpectedEnd`].
    pub fn peek(frame: &Bytes) -> Result<Self, DecodeError> {
        Self::decode(&mut Reader::new(frame))
    }
}

/// The header of a request to an API that Madang knows. The version may be one that is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// The API.
    pub api_key: ApiKey,
    /// The version of the body, and by it of the header.
    pub api_version: i16,
    /// What the response repeats.
    pub correlation_id: i32,
    /// The client's name for itself, or null.
    pub client_id: Option<Cow<'a, str>>,
}

impl<'a> RequestHeader<'a> {
    /// Reads a header of version 1 or 2; the body is what remains in `reader`.
    ///
    /// # Errors
    /// [`DecodeError::UnsupportedApiKey`] for an unknown API, others for bytes that are no header.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let RequestPrefix { api_key, api_version, correlation_id } = RequestPrefix::decode(reader)?;
        let api_key = ApiKey::from_code(api_key).ok_or(DecodeError::UnsupportedApiKey { key: api_key })?;
        // The client id keeps its length of 16 bits in flexible headers, so that any broker can read it.
        let client_id = reader.read_nullable_str(false)?;
        if api_key.request_header_version(api_version) >= 2 {
            reader.skip_tagged_fields()?;
        }
        Ok(Self { api_key, api_version, correlation_id, client_id })
    }

    /// Writes the header.
    ///
    /// # Errors
    /// [`EncodeError::StringTooLong`] for the client id.
    pub fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.put_i16(self.api_key.code());
        writer.put_i16(self.api_version);
        writer.put_i32(self.correlation_id);
        writer.put_nullable_str(self.client_id.as_deref(), false)?;
        if self.api_key.request_header_version(self.api_version) >= 2 {
            writer.put_unsigned_varint(0);
        }
        Ok(())
    }
}

/// The header of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHeader {
    /// That of the request.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Reads the header of the response to a request of `key` and `version`; the body is what remains in `reader`.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are no such header.
    pub fn decode(reader: &mut Reader<'_>, key: ApiKey, version: i16) -> Result<Self, DecodeError> {
        let correlation_id = reader.read_i32()?;
        if key.response_header_version(version) >= 1 {
            reader.skip_tagged_fields()?;
        }
        Ok(Self { correlation_id })
    }

    /// Writes the header of the response to a request of `key` and `version`.
    pub fn encode(self, writer: &mut Writer, key: ApiKey, version: i16) {
        writer.put_i32(self.correlation_id);
        if key.response_header_version(version) >= 1 {
            writer.put_unsigned_varint(0);
        }
    }
}

/// A whole response frame, its length prefix first. For the body of an ApiVersions error in version 0, `version` is 0.
///
/// # Errors
/// As [`Message::encode`]; [`EncodeError::TooLong`] for a frame of 2 GiB or more.
pub fn encode_response<'a, M: Message<'a>>(
    correlation_id: i32,
    key: ApiKey,
    version: i16,
    body: &M,
) -> Result<Vec<Payload>, EncodeError> {
    encode_frame(|writer| {
        ResponseHeader { correlation_id }.encode(writer, key, version);
        body.encode(writer, version)
    })
}

/// A whole request frame, its length prefix first.
///
/// # Errors
/// As [`Message::encode`]; [`EncodeError::TooLong`] for a frame of 2 GiB or more.
pub fn encode_request<'a, R: Request<'a>>(header: &RequestHeader<'_>, body: &R) -> Result<Vec<Payload>, EncodeError> {
    debug_assert_eq!(header.api_key, R::KEY);
    encode_frame(|writer| {
        header.encode(writer)?;
        body.encode(writer, header.api_version)
    })
}

fn encode_frame(write: impl FnOnce(&mut Writer) -> Result<(), EncodeError>) -> Result<Vec<Payload>, EncodeError> {
    let mut writer = Writer::new();
    writer.put_i32(0);
    write(&mut writer)?;
    writer.patch_length()?;
    Ok(writer.finish())
}

/// Reads the body of a request. Bytes behind it are passed over, as Kafka's broker does; [`Reader::expect_end`] tells whether there are any.
///
/// # Errors
/// [`DecodeError`] if the bytes are no such body.
pub fn decode_request_body<'a, R: Request<'a>>(reader: &mut Reader<'a>, version: i16) -> Result<R, DecodeError> {
    R::decode(reader, version)
}

/// Reads a response frame (without its length prefix) to a request `R<'_>` of `version`.
///
/// # Errors
/// [`DecodeError`] if the bytes are no such response.
pub fn decode_response<'q, 'a, R: Request<'q>>(
    frame: &'a Bytes,
    version: i16,
) -> Result<(ResponseHeader, R::Response<'a>), DecodeError> {
    let mut reader = Reader::new(frame);
    let header = ResponseHeader::decode(&mut reader, R::KEY, version)?;
    let body = R::Response::decode(&mut reader, version)?;
    reader.expect_end()?;
    Ok((header, body))
}
