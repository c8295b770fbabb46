//! DescribeCluster: the cluster's id, its brokers, and who answers for the controller.

use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};

use crate::apis::operations;
use crate::env::{Client, Env};

/// Brokers, not controllers, are asked about.
const BROKERS: i8 = 1;

/// Answers one request.
pub fn handle<E: Env>(
    env: &E,
    client: &Client,
    request: &DescribeClusterRequest,
    version: i16,
) -> DescribeClusterResponse<'static> {
    if version >= 1 && request.endpoint_type != BROKERS {
        let (error, message) = if request.endpoint_type == 2 {
            (ErrorCode::MismatchedEndpointType, "The request was sent to an endpoint of the wrong type.")
        } else {
            (ErrorCode::UnsupportedEndpointType, "Unsupported endpoint type.")
        };
        return DescribeClusterResponse {
            error_code: error.code(),
            error_message: Some(message.into()),
            endpoint_type: BROKERS,
            ..DescribeClusterResponse::default()
        };
    }
    let image = env.image();
    let listed = image.brokers().filter(|broker| !broker.fenced || request.include_fenced_brokers);
    let brokers = listed.filter_map(|broker| {
        let endpoint = broker.endpoint(&client.listener)?;
        Some(DescribeClusterBroker {
            broker_id: broker.node_id.0,
            host: endpoint.host.to_string().into(),
            port: i32::from(endpoint.port),
            rack: broker.rack.as_ref().map(|rack| rack.to_string().into()),
            is_fenced: broker.fenced,
        })
    });
    DescribeClusterResponse {
        cluster_id: image.cluster_id().to_string().into(),
        controller_id: env.node_id().0,
        brokers: brokers.collect(),
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            operations::CLUSTER
        } else {
            i32::MIN
        },
        ..DescribeClusterResponse::default()
    }
}
