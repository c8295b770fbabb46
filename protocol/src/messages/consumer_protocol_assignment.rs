//! What the leader of a group of consumers assigns to a member; behind a version of 16 bits.

use std::borrow::Cow;

use bytes::Bytes;

use crate::message::Message;

/// What a member shall consume.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-3")]
pub struct ConsumerProtocolAssignment<'a> {
    /// By topic.
    pub assigned_partitions: Vec<TopicPartition<'a>>,
    /// The assignor's own data, or null.
    #[field(nullable, default = null)]
    pub user_data: Option<Bytes>,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicPartition<'a> {
    /// The topic's name.
    pub topic: Cow<'a, str>,
    /// The indexes of the partitions.
    pub partitions: Vec<i32>,
}
