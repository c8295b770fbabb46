//! Every message the crate knows, as rows that tests and oracles loop over.

use bytes::Bytes;
use madang_protocol::message::Message;
use madang_protocol::messages::*;
use madang_protocol::schema::{StructSchema, Versions};
use madang_protocol::{Reader, Writer};

/// One message.
pub(crate) struct Row {
    pub(crate) schema: &'static StructSchema,
    pub(crate) versions: Versions,
    pub(crate) flexible: Versions,
    /// Decodes all of the bytes and encodes the result again.
    pub(crate) recode: fn(&Bytes, i16) -> Result<Bytes, String>,
}

impl Row {
    pub(crate) fn name(&self) -> &'static str {
        self.schema.name
    }

    pub(crate) fn is_request(&self) -> bool {
        self.name().ends_with("Request")
    }
}

macro_rules! rows {
    ($($ty:path),* $(,)?) => {
        vec![$(Row {
            schema: <$ty>::schema(),
            versions: <$ty as Message>::VERSIONS,
            flexible: <$ty as Message>::FLEXIBLE,
            recode: |bytes, version| {
                let mut reader = Reader::new(bytes);
                let message = <$ty>::decode(&mut reader, version).map_err(|error| error.to_string())?;
                reader.expect_end().map_err(|error| error.to_string())?;
                let mut writer = Writer::new();
                message.encode(&mut writer, version).map_err(|error| error.to_string())?;
                writer.into_bytes().map_err(|error| error.to_string())
            },
        }),*]
    };
}

/// All messages.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = requests_and_responses();
    rows.extend(rows![
        consumer_protocol_subscription::ConsumerProtocolSubscription,
        consumer_protocol_assignment::ConsumerProtocolAssignment,
        group_records::OffsetCommitKey,
        group_records::OffsetCommitValue,
        group_records::GroupMetadataKey,
        group_records::GroupMetadataValue,
    ]);
    rows
}

fn requests_and_responses() -> Vec<Row> {
    rows![
        produce::ProduceRequest,
        produce::ProduceResponse,
        fetch::FetchRequest,
        fetch::FetchResponse,
        list_offsets::ListOffsetsRequest,
        list_offsets::ListOffsetsResponse,
        metadata::MetadataRequest,
        metadata::MetadataResponse,
        offset_commit::OffsetCommitRequest,
        offset_commit::OffsetCommitResponse,
        offset_fetch::OffsetFetchRequest,
        offset_fetch::OffsetFetchResponse,
        find_coordinator::FindCoordinatorRequest,
        find_coordinator::FindCoordinatorResponse,
        join_group::JoinGroupRequest,
        join_group::JoinGroupResponse,
        heartbeat::HeartbeatRequest,
        heartbeat::HeartbeatResponse,
        leave_group::LeaveGroupRequest,
        leave_group::LeaveGroupResponse,
        sync_group::SyncGroupRequest,
        sync_group::SyncGroupResponse,
        describe_groups::DescribeGroupsRequest,
        describe_groups::DescribeGroupsResponse,
        list_groups::ListGroupsRequest,
        list_groups::ListGroupsResponse,
        api_versions::ApiVersionsRequest,
        api_versions::ApiVersionsResponse,
        create_topics::CreateTopicsRequest,
        create_topics::CreateTopicsResponse,
        delete_topics::DeleteTopicsRequest,
        delete_topics::DeleteTopicsResponse,
        delete_records::DeleteRecordsRequest,
        delete_records::DeleteRecordsResponse,
        init_producer_id::InitProducerIdRequest,
        init_producer_id::InitProducerIdResponse,
        offset_for_leader_epoch::OffsetForLeaderEpochRequest,
        offset_for_leader_epoch::OffsetForLeaderEpochResponse,
        describe_configs::DescribeConfigsRequest,
        describe_configs::DescribeConfigsResponse,
        alter_configs::AlterConfigsRequest,
        alter_configs::AlterConfigsResponse,
        incremental_alter_configs::IncrementalAlterConfigsRequest,
        incremental_alter_configs::IncrementalAlterConfigsResponse,
        create_partitions::CreatePartitionsRequest,
        create_partitions::CreatePartitionsResponse,
        delete_groups::DeleteGroupsRequest,
        delete_groups::DeleteGroupsResponse,
        offset_delete::OffsetDeleteRequest,
        offset_delete::OffsetDeleteResponse,
        describe_cluster::DescribeClusterRequest,
        describe_cluster::DescribeClusterResponse,
        list_partition_reassignments::ListPartitionReassignmentsRequest,
        list_partition_reassignments::ListPartitionReassignmentsResponse,
        describe_log_dirs::DescribeLogDirsRequest,
        describe_log_dirs::DescribeLogDirsResponse,
        elect_leaders::ElectLeadersRequest,
        elect_leaders::ElectLeadersResponse,
        alter_partition_reassignments::AlterPartitionReassignmentsRequest,
        alter_partition_reassignments::AlterPartitionReassignmentsResponse,
        describe_quorum::DescribeQuorumRequest,
        describe_quorum::DescribeQuorumResponse,
        unregister_broker::UnregisterBrokerRequest,
        unregister_broker::UnregisterBrokerResponse,
        describe_topic_partitions::DescribeTopicPartitionsRequest,
        describe_topic_partitions::DescribeTopicPartitionsResponse,
    ]
}
