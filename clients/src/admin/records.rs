//! Records: deleting them from a partition's front.

use std::collections::BTreeMap;

use madang_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use madang_protocol::types::{NodeId, Offset};

use super::{Admin, outcome};
use crate::client::Lane;
use crate::error::AdminError;
use crate::metadata::Broker;

impl Admin {
    /// Deletes the records of partitions before an offset each; [`Offset::NONE`] deletes all there are. Answers where each partition starts from then on.
    ///
    /// ```no_run
    /// # async fn example(admin: madang_client::Admin) -> Result<(), madang_client::AdminError> {
    /// use madang_client::Offset;
    ///
    /// let starts = admin.delete_records("orders", &[(0, Offset(1_000)), (1, Offset::NONE)]).await?;
    /// println!("partition 0 starts at {}", starts[&0]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`AdminError`], with `OFFSET_OUT_OF_RANGE` for an offset behind the high watermark, `POLICY_VIOLATION` for a topic that is only compacted. Other
    /// partitions may have been cut then.
    pub async fn delete_records(
        &self,
        topic: &str,
        before: &[(i32, Offset)],
    ) -> Result<BTreeMap<i32, Offset>, AdminError> {
        let metadata = self.client.usable_metadata(&[topic], false).await?;
        let mut by_leader: BTreeMap<NodeId, (Broker, Vec<DeleteRecordsPartition>)> = BTreeMap::new();
        for (partition, offset) in before {
            let (leader, _) = metadata.leader(topic, *partition)?;
            let (_, list) = by_leader.entry(leader.node_id).or_insert_with(|| (leader.clone(), Vec::new()));
            list.push(DeleteRecordsPartition { partition_index: *partition, offset: offset.0 });
        }
        let mut starts = BTreeMap::new();
        for (leader, partitions) in by_leader.into_values() {
            let topics = vec![DeleteRecordsTopic { name: topic.into(), partitions }];
            let request = DeleteRecordsRequest { topics, timeout_ms: self.timeout_ms() };
            let answer = self.client.to(&leader, Lane::SHARED, &request, self.client.call()).await?;
            for found in answer.topics.iter().filter(|found| found.name == topic).flat_map(|found| &found.partitions) {
                outcome(&format!("{topic}-{}", found.partition_index), found.error_code, None)?;
                starts.insert(found.partition_index, Offset(found.low_watermark));
            }
        }
        match before.iter().find(|(partition, _)| !starts.contains_key(partition)) {
            Some((partition, _)) => Err(AdminError::Missing(format!("{topic}-{partition}"))),
            None => Ok(starts),
        }
    }
}
