//! What travels inside of messages and internal topics: a consumer's subscription and assignment, keys and values of groups.
//! The first two bytes choose kind and version.
#![no_main]

use libfuzzer_sys::fuzz_target;
use madang_fuzz::{guarded, round_trip};
use madang_protocol::messages::consumer_protocol_assignment::ConsumerProtocolAssignment;
use madang_protocol::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use madang_protocol::messages::group_records::{
    GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue,
};
use madang_protocol::{Message as _, Reader};

fuzz_target!(|data: &[u8]| {
    let [kind, version, body @ ..] = data else { return };
    let version = i16::from(version % 6);
    guarded(body, 0, |body| {
        let reader = &mut Reader::new(body);
        let _ = match kind % 6 {
            0 => round_trip!(ConsumerProtocolSubscription, reader, version),
            1 => round_trip!(ConsumerProtocolAssignment, reader, version),
            2 => round_trip!(OffsetCommitKey, reader, version),
            3 => round_trip!(OffsetCommitValue, reader, version),
            4 => round_trip!(GroupMetadataKey, reader, version),
            _ => round_trip!(GroupMetadataValue, reader, version),
        };
    });
});
