//! Headers, length prefixes, and ranges of files inside of responses.

use std::borrow::Cow;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bytes::Bytes;
use madang_protocol::frame::{
    RequestHeader, RequestPrefix, decode_request_body, decode_response, encode_request, encode_response,
};
use madang_protocol::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use madang_protocol::messages::fetch::{FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData};
use madang_protocol::messages::heartbeat::HeartbeatRequest;
use madang_protocol::messages::metadata::MetadataRequest;
use madang_protocol::payload::{Payload, Region};
use madang_protocol::{ApiKey, DecodeError, IntoStatic, Reader, Request};

#[derive(Debug)]
struct Stored(Vec<u8>);

impl Region for Stored {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read_at(&self, offset: usize, buffer: &mut [u8]) -> io::Result<()> {
        buffer.copy_from_slice(&self.0[offset..offset + buffer.len()]);
        Ok(())
    }

    fn as_fd(&self) -> Option<(BorrowedFd<'_>, u64)> {
        None
    }

    fn is_warm(&self) -> bool {
        true
    }
}

/// The frame without its length prefix, which must be right.
fn joined(chunks: &[Payload]) -> Bytes {
    let all: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.read().expect("in memory")).collect();
    assert_eq!(all[..4], (all.len() as u32 - 4).to_be_bytes());
    Bytes::from(all).slice(4..)
}

fn fetched(records: Vec<Payload>) -> FetchResponse<'static> {
    let partition = |records| PartitionData { records: Some(records), ..Default::default() };
    let topic = FetchableTopicResponse {
        topic: Cow::Borrowed("t"),
        partitions: records.into_iter().map(partition).collect(),
        ..Default::default()
    };
    FetchResponse { responses: vec![topic], ..Default::default() }
}

#[test]
fn ranges_of_files_stay_between_chunks() {
    let stored = |byte, len| Payload::Regions(Arc::new([Arc::new(Stored(vec![byte; len])) as Arc<dyn Region>]));
    for version in 4..=12 {
        let regions = fetched(vec![stored(1, 10), stored(2, 0), stored(3, 100_000)]);
        let chunks = encode_response(9, ApiKey::Fetch, version, &regions).unwrap();
        let kinds: Vec<_> = chunks.iter().map(|chunk| matches!(chunk, Payload::Regions(_))).collect();
        // After the last region only a flexible version has anything to say.
        let expected: &[bool] =
            if version == 12 { &[false, true, false, true, false] } else { &[false, true, false, true] };
        assert_eq!(kinds, expected, "version {version}");
        let copied = fetched([(1, 10), (2, 0), (3, 100_000)].map(|(b, n)| Payload::Bytes(vec![b; n].into())).into());
        let copied = encode_response(9, ApiKey::Fetch, version, &copied).unwrap();
        assert_eq!(joined(&chunks), joined(&copied));
        let frame = joined(&chunks);
        let (header, body) = decode_response::<FetchRequest>(&frame, version).unwrap();
        assert_eq!(header.correlation_id, 9);
        assert_eq!(body.responses[0].partitions[2].records.as_ref().unwrap().len(), 100_000);
    }
}

#[test]
fn large_records_in_memory_are_shared_and_not_copied() {
    let records = Bytes::from(vec![7; 8192]);
    let chunks = encode_response(1, ApiKey::Fetch, 12, &fetched(vec![records.clone().into()])).unwrap();
    assert!(chunks.iter().any(|chunk| matches!(chunk, Payload::Bytes(bytes) if bytes.as_ptr() == records.as_ptr())));
}

#[test]
fn decoded_records_share_the_frame() {
    let chunks = encode_response(1, ApiKey::Fetch, 12, &fetched(vec![Bytes::from_static(b"records").into()])).unwrap();
    let frame = joined(&chunks);
    let (_, body) = decode_response::<FetchRequest>(&frame, 12).unwrap();
    let Some(Payload::Bytes(records)) = &body.responses[0].partitions[0].records else { panic!("no records") };
    assert!(frame.as_ptr_range().contains(&records.as_ptr()));
    assert!(matches!(body.responses[0].topic, Cow::Borrowed("t")));
}

/// Calls a broker in the way a client does: the answer outlives its frame.
fn answer<'q, R: Request<'q>>(frame: &Bytes, version: i16) -> Result<R::Response<'static>, DecodeError> {
    decode_response::<R>(frame, version).map(|(_, body)| body.into_static())
}

#[test]
fn a_response_can_outlive_its_frame() {
    let response = fetched(vec![Bytes::from_static(b"records").into()]);
    let frame = joined(&encode_response(1, ApiKey::Fetch, 12, &response).unwrap());
    let outliving = answer::<FetchRequest>(&frame, 12);
    drop(frame);
    assert_eq!(outliving, Ok(response));
}

#[test]
fn the_header_of_an_api_versions_response_is_never_flexible() {
    let chunks = encode_response(0x0102_0304, ApiKey::ApiVersions, 3, &ApiVersionsResponse::default()).unwrap();
    // Correlation id, error code, no APIs, throttle time, no tagged fields.
    assert_eq!(&joined(&chunks)[..], [1, 2, 3, 4, 0, 0, 1, 0, 0, 0, 0, 0]);
    let chunks = encode_response(1, ApiKey::ApiVersions, 0, &ApiVersionsResponse::default()).unwrap();
    assert_eq!(&joined(&chunks)[..], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_flexible_request_header_keeps_its_plain_client_id() {
    let header = RequestHeader {
        api_key: ApiKey::ApiVersions,
        api_version: 3,
        correlation_id: 5,
        client_id: Some(Cow::Borrowed("me")),
    };
    let frame = joined(&encode_request(&header, &ApiVersionsRequest::default()).unwrap());
    assert_eq!(&frame[..], [0, 18, 0, 3, 0, 0, 0, 5, 0, 2, b'm', b'e', 0, 1, 1, 0]);
    let prefix = RequestPrefix { api_key: 18, api_version: 3, correlation_id: 5 };
    assert_eq!(RequestPrefix::peek(&frame), Ok(prefix));
    let mut reader = Reader::new(&frame);
    assert_eq!(RequestHeader::decode(&mut reader), Ok(header));
    assert_eq!(decode_request_body(&mut reader, 3), Ok(ApiVersionsRequest::default()));
}

#[test]
fn bytes_behind_a_request_are_passed_over() {
    let frame = Bytes::from_static(&[0, 0, 0, 0, 1, 2, 3]);
    let mut reader = Reader::new(&frame);
    assert_eq!(decode_request_body::<MetadataRequest<'_>>(&mut reader, 0), Ok(MetadataRequest::default()));
    assert_eq!(reader.expect_end(), Err(DecodeError::TrailingBytes { remaining: 3 }));
}

#[test]
fn a_plain_request_header_has_no_tagged_fields() {
    let header = RequestHeader { api_key: ApiKey::Heartbeat, api_version: 3, correlation_id: 5, client_id: None };
    let frame = joined(&encode_request(&header, &HeartbeatRequest::default()).unwrap());
    assert_eq!(&frame[..10], [0, 12, 0, 3, 0, 0, 0, 5, 0xff, 0xff]);
    assert_eq!(frame.len(), 10 + 2 + 4 + 2 + 2);
}

#[test]
fn an_unknown_api_is_refused() {
    let frame = Bytes::from_static(&[0, 4, 0, 0, 0, 0, 0, 1, 0xff, 0xff]);
    assert_eq!(RequestHeader::decode(&mut Reader::new(&frame)), Err(DecodeError::UnsupportedApiKey { key: 4 }));
}
