//! Requests of the APIs that librdkafka does not send in these loads: each over a connection of its own, answered or cut off.

use std::borrow::Cow;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use madang_protocol::frame::{RequestHeader, encode_request};
use madang_protocol::message::Request;
use madang_protocol::messages::create_partitions::CreatePartitionsRequest;
use madang_protocol::messages::delete_groups::DeleteGroupsRequest;
use madang_protocol::messages::describe_cluster::DescribeClusterRequest;
use madang_protocol::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use madang_protocol::messages::describe_groups::DescribeGroupsRequest;
use madang_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use madang_protocol::messages::leave_group::LeaveGroupRequest;
use madang_protocol::messages::list_groups::ListGroupsRequest;
use madang_protocol::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;
use madang_protocol::messages::offset_delete::OffsetDeleteRequest;
use madang_protocol::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

/// The group that is described; it is the one of the load's members.
pub(crate) const GROUP: &str = "stirrers";
const TOPIC_RESOURCE: i8 = 2;
const INTERNAL: &str = "__consumer_offsets";
const WAIT: Duration = Duration::from_secs(5);

/// Sends one request at its highest version and waits for the answer.
fn ask<'a, R: Request<'a>>(address: &str, request: &R) -> Result<(), String> {
    let version = R::KEY.api().served.max;
    let client_id = Some(Cow::Borrowed("raw"));
    let header = RequestHeader { api_key: R::KEY, api_version: version, correlation_id: 7, client_id };
    let frame = encode_request(&header, request).map_err(|error| error.to_string())?;
    let exchange = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(WAIT))?;
        for chunk in &frame {
            stream.write_all(&chunk.read()?)?;
        }
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        std::io::Result::Ok(head[4..] == 7_i32.to_be_bytes())
    };
    match exchange() {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{}: the answer is another request's", R::KEY.name())),
        Err(error) => Err(format!("{}: {error}", R::KEY.name())),
    }
}

fn epoch_of(topic: &str) -> OffsetForLeaderEpochRequest<'_> {
    let partition = OffsetForLeaderPartition { leader_epoch: 0, current_leader_epoch: -1, ..Default::default() };
    let topic = OffsetForLeaderTopic { topic: Cow::Borrowed(topic), partitions: vec![partition] };
    OffsetForLeaderEpochRequest { topics: vec![topic], ..Default::default() }
}

/// Another value each turn, so that each is a change.
fn change(turn: usize) -> IncrementalAlterConfigsRequest<'static> {
    let value = Some(Cow::Owned((500 + turn % 50).to_string()));
    let config = AlterableConfig { name: Cow::Borrowed("segment.ms"), config_operation: 0, value };
    let resource = AlterConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: Cow::Borrowed(INTERNAL),
        configs: vec![config],
    };
    IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() }
}

/// Asks each of them; the error names the first that was not answered.
pub(crate) fn ask_each(address: &str, topic: &str, turn: usize) -> Result<(), String> {
    let group = || Cow::Borrowed(GROUP);
    let described = DescribeConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: Cow::Borrowed(topic),
        configuration_keys: None,
    };
    let configs = DescribeConfigsRequest { resources: vec![described], ..Default::default() };
    let groups = DescribeGroupsRequest { groups: vec![group()], ..Default::default() };
    let nobody = DeleteGroupsRequest { groups_names: vec![Cow::Borrowed("nobody")] };
    let leave = LeaveGroupRequest { group_id: group(), ..Default::default() };
    // All are sent whatever becomes of one: the fault may be planted in any.
    let answers = [
        ask(address, &epoch_of(topic)),
        ask(address, &change(turn)),
        ask(address, &configs),
        ask(address, &groups),
        ask(address, &nobody),
        ask(address, &leave),
        ask(address, &ListGroupsRequest::default()),
        ask(address, &CreatePartitionsRequest::default()),
        ask(address, &ListPartitionReassignmentsRequest::default()),
        ask(address, &OffsetDeleteRequest { group_id: group(), ..Default::default() }),
        ask(address, &DescribeClusterRequest::default()),
    ];
    answers.into_iter().collect()
}
