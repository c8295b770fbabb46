//! What a consumer says of itself when it joins a group; behind a version of 16 bits.

use std::borrow::Cow;

use bytes::Bytes;

use crate::message::Message;

/// What a member wants to consume.
#[derive(Clone, Debug, PartialEq, Message)]
#[message(versions = "0-3")]
pub struct ConsumerProtocolSubscription<'a> {
    /// The names of the topics.
    pub topics: Vec<Cow<'a, str>>,
    /// The assignor's own data, or null.
    #[field(nullable, default = null)]
    pub user_data: Option<Bytes>,
    /// What the member holds now.
    #[field(versions = "1+", ignorable)]
    pub owned_partitions: Vec<TopicPartition<'a>>,
    /// The generation in which it got them, or -1.
    #[field(versions = "2+", default = -1, ignorable)]
    pub generation_id: i32,
    /// The member's rack, or null.
    #[field(versions = "3+", nullable, default = null, ignorable)]
    pub rack_id: Option<Cow<'a, str>>,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Message)]
pub struct TopicPartition<'a> {
    /// The topic's name.
    pub topic: Cow<'a, str>,
    /// The indexes of the partitions.
    pub partitions: Vec<i32>,
}
