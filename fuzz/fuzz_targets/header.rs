//! A request's header: what is read can be written, and is read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madang_fuzz::guarded;
use madang_protocol::frame::RequestHeader;
use madang_protocol::{Reader, Writer};

fuzz_target!(|data: &[u8]| {
    guarded(data, 0, |frame| {
        let Ok(header) = RequestHeader::decode(&mut Reader::new(frame)) else { return };
        let mut writer = Writer::new();
        header.encode(&mut writer).expect("what was decoded can be encoded");
        let bytes = writer.into_bytes().expect("no region of a file");
        assert_eq!(RequestHeader::decode(&mut Reader::new(&bytes)).as_ref(), Ok(&header));
    });
});
