//! A whole request without its length prefix, as a connection hands it on: prefix, header, body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madang_fuzz::{guarded, request_body};
use madang_protocol::Reader;
use madang_protocol::frame::{RequestHeader, RequestPrefix};

fuzz_target!(|data: &[u8]| {
    guarded(data, 0, |frame| {
        let _ = RequestPrefix::peek(frame);
        let mut reader = Reader::new(frame);
        if let Ok(header) = RequestHeader::decode(&mut reader) {
            let _ = request_body(header.api_key, header.api_version, &mut reader);
        }
    });
});
