//! The `kafka-protocol` crate, generated from the same definitions by other people, must agree byte for byte.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable, Message};

use crate::table;
use crate::values::{Random, Version, encode, random_struct};

/// Messages a version; each is compared with our own encoder and with theirs.
const ROUNDS: u64 = 60;

type Recode = fn(&Bytes, i16) -> Result<Bytes, String>;

macro_rules! theirs {
    ($($name:ident),* $(,)?) => {
        &[$((
            stringify!($name),
            theirs::$name::VERSIONS.min,
            theirs::$name::VERSIONS.max,
            |bytes: &Bytes, version: i16| {
                let mut rest = bytes.clone();
                let message = theirs::$name::decode(&mut rest, version).map_err(|error| error.to_string())?;
                let mut out = BytesMut::new();
                message.encode(&mut out, version).map_err(|error| error.to_string())?;
                if rest.is_empty() { Ok(out.freeze()) } else { Err(format!("{} bytes left", rest.len())) }
            },
        )),*]
    };
}

const THEIRS: &[(&str, i16, i16, Recode)] = theirs![
    ProduceRequest,
    ProduceResponse,
    FetchRequest,
    FetchResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    MetadataRequest,
    MetadataResponse,
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetFetchRequest,
    OffsetFetchResponse,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
    JoinGroupRequest,
    JoinGroupResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    LeaveGroupRequest,
    LeaveGroupResponse,
    SyncGroupRequest,
    SyncGroupResponse,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    ListGroupsRequest,
    ListGroupsResponse,
    ApiVersionsRequest,
    ApiVersionsResponse,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    InitProducerIdRequest,
    InitProducerIdResponse,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    DescribeConfigsRequest,
    DescribeConfigsResponse,
    AlterConfigsRequest,
    AlterConfigsResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    DescribeClusterRequest,
    DescribeClusterResponse,
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    ElectLeadersRequest,
    ElectLeadersResponse,
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    DescribeQuorumRequest,
    DescribeQuorumResponse,
    UnregisterBrokerRequest,
    UnregisterBrokerResponse,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    ConsumerProtocolSubscription,
    ConsumerProtocolAssignment,
];

#[test]
fn every_message_in_every_version_survives_decoding_and_encoding() {
    let mut random = Random(1);
    for row in table::all() {
        for number in row.versions.min..=row.versions.max {
            let version = Version { number, flexible: row.flexible.contains(number) };
            let seed = random.next();
            for round in 0..ROUNDS {
                let mut bytes = Vec::new();
                encode(&random_struct(row.schema, version, &mut Random(seed + round)), version, &mut bytes);
                let bytes = Bytes::from(bytes);
                assert_eq!(
                    (row.recode)(&bytes, number).as_ref(),
                    Ok(&bytes),
                    "{} v{number} seed {seed}+{round}",
                    row.name()
                );
            }
        }
    }
}

#[test]
fn the_kafka_protocol_crate_agrees_on_every_byte() {
    let rows = table::all();
    let mut random = Random(2);
    let mut compared = 0;
    for (name, min, max, recode) in THEIRS {
        let row = rows.iter().find(|row| row.name() == *name).unwrap();
        for number in row.versions.min.max(*min)..=row.versions.max.min(*max) {
            let version = Version { number, flexible: row.flexible.contains(number) };
            let seed = random.next();
            for round in 0..ROUNDS {
                let mut bytes = Vec::new();
                encode(&random_struct(row.schema, version, &mut Random(seed + round)), version, &mut bytes);
                let bytes = Bytes::from(bytes);
                let ours = (row.recode)(&bytes, number);
                assert_eq!(recode(&bytes, number), ours, "{name} v{number} seed {seed}+{round}");
            }
            compared += 1;
        }
    }
    assert!(compared > 200, "only {compared} pairs of message and version were compared");
}
