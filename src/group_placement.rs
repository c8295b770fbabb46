//! Which partition of `__consumer_offsets` holds a group.
//! Invariant: it is the same for as long as the process runs. Partitions that are added meanwhile hold no group before the next start, as
//! in Kafka: counted at once, they would put what groups have committed out of sight while their members run.

use std::sync::{Mutex, PoisonError};

use madang_cluster::coordinator::{OFFSETS_TOPIC, partition_for_group};
use madang_cluster::metadata::MetadataImage;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::TopicId;

/// How many partitions this process spreads groups over.
#[derive(Debug, Default)]
pub struct GroupPlacement {
    /// The topic, and the partitions it had when it was first seen.
    seen: Mutex<Option<(TopicId, u32)>>,
}

impl GroupPlacement {
    /// Looks at the topic that `image` has, if it is another one than was seen before.
    pub fn follow(&self, image: &MetadataImage) {
        let _ = self.partitions(image);
    }

    fn partitions(&self, image: &MetadataImage) -> Option<u32> {
        let topic = image.topic(OFFSETS_TOPIC)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match *seen {
            Some((topic_id, partitions)) if topic_id == topic.topic_id => Some(partitions),
            _ => {
                let partitions = u32::try_from(topic.partitions.len()).ok()?;
                *seen = Some((topic.topic_id, partitions));
                Some(partitions)
            }
        }
    }

    /// The partition of a group.
    ///
    /// # Errors
    /// `COORDINATOR_NOT_AVAILABLE` while there is no such topic.
    pub fn partition(&self, image: &MetadataImage, group_id: &str) -> Result<i32, ErrorCode> {
        let partitions = self.partitions(image).ok_or(ErrorCode::CoordinatorNotAvailable)?;
        Ok(i32::try_from(partition_for_group(group_id, partitions)).unwrap_or(0))
    }
}
