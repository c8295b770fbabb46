//! The body of a request. The first two bytes choose API and version.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madang_fuzz::{guarded, request_body};
use madang_protocol::{ApiKey, Reader};

fuzz_target!(|data: &[u8]| {
    let [key, version, body @ ..] = data else { return };
    let key = ApiKey::ALL[usize::from(*key) % ApiKey::ALL.len()];
    guarded(body, 0, |body| {
        let _ = request_body(key, i16::from(version % 20), &mut Reader::new(body));
    });
});
