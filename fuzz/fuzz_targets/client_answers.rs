//! What a broker answers the client in Rust, and what other members of a group tell it: decoded and then acted on.
//! The first two bytes choose what it is and its version.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use madang_client::fuzzing;
use madang_fuzz::{guarded, response_body};
use madang_protocol::messages::fetch::FetchResponse;
use madang_protocol::messages::metadata::MetadataResponse;
use madang_protocol::{ApiKey, IntoStatic as _, Message as _, Reader};

fuzz_target!(|data: &[u8]| {
    let [kind, version, body @ ..] = data else { return };
    let number = i16::from(version % 20);
    match kind % 5 {
        0 => fuzzing::subscription(*version, &Bytes::copy_from_slice(body)),
        1 => fuzzing::assignment(&Bytes::copy_from_slice(body)),
        2 => {
            let body = Bytes::copy_from_slice(body);
            if let Ok(answer) = MetadataResponse::decode(&mut Reader::new(&body), number) {
                fuzzing::metadata(answer);
            }
        }
        3 => {
            let body = Bytes::copy_from_slice(body);
            let Ok(answer) = FetchResponse::decode(&mut Reader::new(&body), number) else { return };
            for topic in answer.into_static().responses {
                for partition in topic.partitions {
                    fuzzing::fetched(partition, i64::from(*version));
                }
            }
        }
        _ => guarded(body, 0, |body| {
            let key = ApiKey::ALL[usize::from(kind / 5) % ApiKey::ALL.len()];
            let _ = response_body(key, number, &mut Reader::new(body));
        }),
    }
});
