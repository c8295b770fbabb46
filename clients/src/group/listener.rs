//! What the application hears of rebalances.

use std::fmt;
use std::sync::Arc;

use crate::admin::CommittedOffsets;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// Is called from within [`GroupConsumer::poll`](crate::GroupConsumer::poll) and [`GroupConsumer::leave`](crate::GroupConsumer::leave) when partitions
/// come and go. Never with an empty list.
///
/// ```
/// use madang_client::{CommittedOffsets, RebalanceListener, TopicPartition};
///
/// #[derive(Debug)]
/// struct Log;
///
/// impl RebalanceListener for Log {
///     fn assigned(&mut self, partitions: &[TopicPartition]) {
///         println!("{} partitions came", partitions.len());
///     }
///     fn revoked(&mut self, partitions: &[TopicPartition]) -> CommittedOffsets {
///         println!("{} partitions go", partitions.len());
///         CommittedOffsets::new()
///     }
/// }
/// ```
pub trait RebalanceListener: fmt::Debug + Send + Sync {
    /// These are read from now on.
    fn assigned(&mut self, _partitions: &[TopicPartition]) {}

    /// These go to other members. What is returned is committed before they are handed over.
    fn revoked(&mut self, _partitions: &[TopicPartition]) -> CommittedOffsets {
        CommittedOffsets::new()
    }

    /// These are gone: others may have them already, so that nothing can be committed.
    fn lost(&mut self, _partitions: &[TopicPartition]) {}
}

/// Hears nothing.
#[derive(Debug)]
pub(super) struct Deaf;

impl RebalanceListener for Deaf {}
