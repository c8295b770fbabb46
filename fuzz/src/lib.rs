//! What all fuzz targets share: the guard that counts allocation, and the lists of requests and responses.
//! A target returns without a word, or it has found something.

pub mod folder;

use bytes::Bytes;
use madang_protocol::{ApiKey, DecodeError, Message as _, Reader};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const MIB: usize = 1 << 20;
/// The buffers of an lz4 frame of linked blocks of 4 MiB, the largest that a decoder has.
pub const DECODER_WINDOW: usize = 13 * MIB;

/// Runs `work` on the input and fails if it holds more than 64 times its length, 1 MiB and `allowance` bytes at once.
pub fn guarded(data: &[u8], allowance: usize, work: impl FnOnce(&Bytes)) {
    let input = Bytes::copy_from_slice(data);
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    work(&input);
    let held = ALLOCATOR.peak_usage().saturating_sub(before);
    let bound = 64 * data.len() + MIB + allowance;
    assert!(held <= bound, "{held} bytes allocated for an input of {}, {bound} are allowed", data.len());
}

/// Decodes a message in `version`, and if it is one, encodes it and decodes that: the two are equal.
#[macro_export]
macro_rules! round_trip {
    ($type:ty, $reader:expr, $version:expr) => {{
        let version = $version;
        <$type as madang_protocol::Message>::decode($reader, version).map(|first| {
            let mut writer = madang_protocol::Writer::new();
            first.encode(&mut writer, version).expect("what was decoded can be encoded");
            let bytes = writer.into_bytes().expect("no region of a file");
            let second =
                <$type as madang_protocol::Message>::decode(&mut madang_protocol::Reader::new(&bytes), version)
                    .expect("what was encoded can be decoded");
            assert_eq!(first, second);
        })
    }};
}

macro_rules! requests {
    ($($key:ident: $module:ident::$name:ident,)*) => {
        /// Decodes the body of a request from `reader`, and holds it to its round trip.
        ///
        /// # Errors
        /// The decoder's.
        pub fn request_body(key: ApiKey, version: i16, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
            match key {
                $(ApiKey::$key => round_trip!(madang_protocol::messages::$module::$name, reader, version),)*
                // An API that is not in the list yet.
                #[allow(unreachable_patterns)]
                _ => Ok(()),
            }
        }
    };
}

requests! {
    Produce: produce::ProduceRequest,
    Fetch: fetch::FetchRequest,
    ListOffsets: list_offsets::ListOffsetsRequest,
    Metadata: metadata::MetadataRequest,
    OffsetCommit: offset_commit::OffsetCommitRequest,
    OffsetFetch: offset_fetch::OffsetFetchRequest,
    FindCoordinator: find_coordinator::FindCoordinatorRequest,
    JoinGroup: join_group::JoinGroupRequest,
    Heartbeat: heartbeat::HeartbeatRequest,
    LeaveGroup: leave_group::LeaveGroupRequest,
    SyncGroup: sync_group::SyncGroupRequest,
    DescribeGroups: describe_groups::DescribeGroupsRequest,
    ListGroups: list_groups::ListGroupsRequest,
    ApiVersions: api_versions::ApiVersionsRequest,
    CreateTopics: create_topics::CreateTopicsRequest,
    DeleteTopics: delete_topics::DeleteTopicsRequest,
    DeleteRecords: delete_records::DeleteRecordsRequest,
    InitProducerId: init_producer_id::InitProducerIdRequest,
    OffsetForLeaderEpoch: offset_for_leader_epoch::OffsetForLeaderEpochRequest,
    DescribeConfigs: describe_configs::DescribeConfigsRequest,
    AlterConfigs: alter_configs::AlterConfigsRequest,
    DescribeLogDirs: describe_log_dirs::DescribeLogDirsRequest,
    CreatePartitions: create_partitions::CreatePartitionsRequest,
    DeleteGroups: delete_groups::DeleteGroupsRequest,
    ElectLeaders: elect_leaders::ElectLeadersRequest,
    IncrementalAlterConfigs: incremental_alter_configs::IncrementalAlterConfigsRequest,
    AlterPartitionReassignments: alter_partition_reassignments::AlterPartitionReassignmentsRequest,
    ListPartitionReassignments: list_partition_reassignments::ListPartitionReassignmentsRequest,
    OffsetDelete: offset_delete::OffsetDeleteRequest,
    DescribeQuorum: describe_quorum::DescribeQuorumRequest,
    DescribeCluster: describe_cluster::DescribeClusterRequest,
    UnregisterBroker: unregister_broker::UnregisterBrokerRequest,
    DescribeTopicPartitions: describe_topic_partitions::DescribeTopicPartitionsRequest,
}

macro_rules! responses {
    ($($key:ident: $module:ident::$name:ident,)*) => {
        /// Decodes the body of a response from `reader`, and holds it to its round trip.
        ///
        /// # Errors
        /// The decoder's.
        pub fn response_body(key: ApiKey, version: i16, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
            match key {
                $(ApiKey::$key => round_trip!(madang_protocol::messages::$module::$name, reader, version),)*
                // An API that is not in the list yet.
                #[allow(unreachable_patterns)]
                _ => Ok(()),
            }
        }
    };
}

responses! {
    Produce: produce::ProduceResponse,
    Fetch: fetch::FetchResponse,
    ListOffsets: list_offsets::ListOffsetsResponse,
    Metadata: metadata::MetadataResponse,
    OffsetCommit: offset_commit::OffsetCommitResponse,
    OffsetFetch: offset_fetch::OffsetFetchResponse,
    FindCoordinator: find_coordinator::FindCoordinatorResponse,
    JoinGroup: join_group::JoinGroupResponse,
    Heartbeat: heartbeat::HeartbeatResponse,
    LeaveGroup: leave_group::LeaveGroupResponse,
    SyncGroup: sync_group::SyncGroupResponse,
    DescribeGroups: describe_groups::DescribeGroupsResponse,
    ListGroups: list_groups::ListGroupsResponse,
    ApiVersions: api_versions::ApiVersionsResponse,
    CreateTopics: create_topics::CreateTopicsResponse,
    DeleteTopics: delete_topics::DeleteTopicsResponse,
    DeleteRecords: delete_records::DeleteRecordsResponse,
    InitProducerId: init_producer_id::InitProducerIdResponse,
    OffsetForLeaderEpoch: offset_for_leader_epoch::OffsetForLeaderEpochResponse,
    DescribeConfigs: describe_configs::DescribeConfigsResponse,
    AlterConfigs: alter_configs::AlterConfigsResponse,
    DescribeLogDirs: describe_log_dirs::DescribeLogDirsResponse,
    CreatePartitions: create_partitions::CreatePartitionsResponse,
    DeleteGroups: delete_groups::DeleteGroupsResponse,
    ElectLeaders: elect_leaders::ElectLeadersResponse,
    IncrementalAlterConfigs: incremental_alter_configs::IncrementalAlterConfigsResponse,
    AlterPartitionReassignments: alter_partition_reassignments::AlterPartitionReassignmentsResponse,
    ListPartitionReassignments: list_partition_reassignments::ListPartitionReassignmentsResponse,
    OffsetDelete: offset_delete::OffsetDeleteResponse,
    DescribeQuorum: describe_quorum::DescribeQuorumResponse,
    DescribeCluster: describe_cluster::DescribeClusterResponse,
    UnregisterBroker: unregister_broker::UnregisterBrokerResponse,
    DescribeTopicPartitions: describe_topic_partitions::DescribeTopicPartitionsResponse,
}
