//! Requests that librdkafka does not send: one at a time over a connection of its own, and its answer.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::TcpStream;

use madang_protocol::frame::{RequestHeader, decode_response, encode_request};
use madang_protocol::message::Request;

use crate::client::PATIENCE;

/// Sends `request` in `version` and gives its answer to `read`.
pub(crate) fn ask<'q, R: Request<'q>, T>(
    address: &str,
    request: &R,
    version: i16,
    read: impl for<'a> FnOnce(R::Response<'a>) -> T,
) -> T {
    ask_over(&mut connect(address), request, version, read)
}

/// A connection that nobody has asked anything over.
pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Whether the other end has closed the connection, or does so soon.
pub(crate) fn is_closed(mut stream: TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}

/// The same, over this connection.
pub(crate) fn ask_over<'q, R: Request<'q>, T>(
    stream: &mut TcpStream,
    request: &R,
    version: i16,
    read: impl for<'a> FnOnce(R::Response<'a>) -> T,
) -> T {
    let client_id = Some(Cow::Borrowed("ask"));
    let header = RequestHeader { api_key: R::KEY, api_version: version, correlation_id: 7, client_id };
    let frame = encode_request(&header, request).expect("encodes");
    for chunk in &frame {
        stream.write_all(&chunk.read().expect("bytes")).expect("sent");
    }
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("answered");
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("a length")];
    stream.read_exact(&mut answer).expect("a whole answer");
    let answer = answer.into();
    read(decode_response::<R>(&answer, version).expect("decodes").1)
}
