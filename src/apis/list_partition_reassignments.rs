//! ListPartitionReassignments: none is ever in progress on a lone node.

use madang_protocol::messages::list_partition_reassignments::ListPartitionReassignmentsResponse;

/// Answers one request.
#[must_use]
pub fn handle() -> ListPartitionReassignmentsResponse<'static> {
    ListPartitionReassignmentsResponse::default()
}
