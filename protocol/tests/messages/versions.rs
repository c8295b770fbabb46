//! What a version cannot carry is an error, or is dropped where Kafka says so.

use std::borrow::Cow;

use bytes::Bytes;
use madang_protocol::messages::fetch::{FetchRequest, FetchTopic, ReplicaState};
use madang_protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use madang_protocol::messages::produce::ProduceRequest;
use madang_protocol::types::Uuid;
use madang_protocol::{ApiKey, DecodeError, EncodeError, Message, Reader, Writer};

fn encoded<'a>(message: &impl Message<'a>, version: i16) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version)?;
    writer.into_bytes()
}

#[test]
fn a_value_the_version_has_no_field_for_is_an_error() {
    let state = ReplicaState { replica_id: 1, replica_epoch: 5 };
    let request = FetchRequest { replica_state: state, ..Default::default() };
    assert_eq!(encoded(&request, 14), Err(EncodeError::NotInVersion { field: "replica_state", version: 14 }));
    assert!(encoded(&request, 15).is_ok());
    let request = FetchRequest { replica_id: 1, ..Default::default() };
    assert_eq!(encoded(&request, 15), Err(EncodeError::NotInVersion { field: "replica_id", version: 15 }));
}

#[test]
fn an_ignorable_value_is_dropped() {
    let named = |session_id| FetchRequest { session_id, rack_id: Cow::Borrowed("r"), ..Default::default() };
    assert_eq!(encoded(&named(7), 4), encoded(&FetchRequest::default(), 4));
    assert_ne!(encoded(&named(7), 11), encoded(&named(0), 11));
    let topic = FetchTopic { topic: Cow::Borrowed("t"), topic_id: Uuid([1; 16]), ..Default::default() };
    let request = FetchRequest { topics: vec![topic], ..Default::default() };
    for version in 4..=18 {
        let bytes = encoded(&request, version).unwrap();
        let back = FetchRequest::decode(&mut Reader::new(&bytes), version).unwrap();
        assert_eq!(back.topics[0].topic.is_empty(), version > 12, "version {version}");
        assert_eq!(back.topics[0].topic_id.is_zero(), version <= 12, "version {version}");
    }
}

#[test]
fn null_only_where_the_version_knows_it() {
    let all = MetadataRequest { topics: None, ..Default::default() };
    assert_eq!(encoded(&all, 0), Err(EncodeError::Null { field: "topics", version: 0 }));
    assert!(encoded(&all, 1).is_ok());
    let by_id = MetadataRequestTopic { name: None, topic_id: Uuid([1; 16]) };
    let by_id = MetadataRequest { topics: Some(vec![by_id]), ..Default::default() };
    assert_eq!(encoded(&by_id, 9), Err(EncodeError::Null { field: "name", version: 9 }));
    assert!(encoded(&by_id, 10).is_ok());
}

#[test]
fn defaults_are_those_of_the_schema() {
    let fetch = FetchRequest::default();
    assert_eq!((fetch.replica_id, fetch.max_bytes, fetch.session_epoch, fetch.cluster_id), (-1, i32::MAX, -1, None));
    assert_eq!(MetadataRequest::default().topics, Some(Vec::new()));
    assert!(MetadataRequest::default().allow_auto_topic_creation);
    assert_eq!(ProduceRequest::default().transactional_id, None);
}

#[test]
fn an_unknown_version_is_refused_both_ways() {
    assert_eq!(encoded(&ProduceRequest::default(), 2), Err(EncodeError::UnsupportedVersion { version: 2 }));
    let bytes = Bytes::from_static(&[0; 64]);
    let refused = ProduceRequest::decode(&mut Reader::new(&bytes), 14);
    assert_eq!(refused, Err(DecodeError::UnsupportedVersion { version: 14 }));
}

#[test]
fn the_table_of_apis_fits_the_codecs() {
    let rows = crate::table::all();
    for key in ApiKey::ALL {
        let api = key.api();
        for suffix in ["Request", "Response"] {
            let name = format!("{}{suffix}", api.name);
            let row = rows.iter().find(|row| row.name() == name).unwrap();
            for version in api.served.min..=api.served.max {
                assert!(row.versions.contains(version), "{name} has no version {version}");
                assert_eq!(row.flexible.contains(version), key.is_flexible(version), "{name} v{version}");
            }
        }
        assert!(api.advertised_min <= api.served.min && api.served.min <= api.served.max);
        assert_eq!(ApiKey::from_code(key.code()), Some(*key));
    }
    assert_eq!(rows.iter().filter(|row| row.is_request()).count(), ApiKey::ALL.len());
}
