//! Messages of the data lanes: a follower's fetch of many partitions, and its answer.
//! Invariant: record bytes are the frame's payload, as they are stored; the head has their lengths, which add up to it.

use bytes::Bytes;
use speedy::{Readable, Writable};

use super::{NodeError, NodeRequest, Tag};
use crate::error_code::ErrorCode;
use crate::node_message;
use crate::types::{LeaderEpoch, Offset, TopicPartition};

/// What a follower wants next of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Readable, Writable)]
pub struct PartitionFetch {
    /// The partition.
    pub partition: TopicPartition,
    /// The leadership that the follower knows.
    pub leader_epoch: LeaderEpoch,
    /// The follower's life within its process.
    pub incarnation: u64,
    /// The offset it wants next.
    pub fetch_offset: Offset,
    /// The epoch of its log's last record; [`LeaderEpoch::NONE`] if it has none.
    pub last_fetched_epoch: LeaderEpoch,
    /// Its durable end.
    pub confirmed_offset: Offset,
}

/// What a follower was told by its leader; nothing yet, where the numbers are [`Offset::NONE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Readable, Writable)]
pub struct PartitionKnown {
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// Where the leader's log starts.
    pub log_start_offset: Offset,
}

node_message! {
    /// What a node wants next of partitions that the receiver leads.
    pub struct ReplicaFetch = Tag::ReplicaFetch {
        /// The asking node's registration.
        broker_epoch: i64,
        /// The answer may wait so long for something new.
        max_wait_ms: u32,
        /// Most record bytes of the answer, a first batch that is larger aside.
        max_bytes: u32,
        /// The partitions, each once; the one that has waited longest first.
        partitions: Vec<PartitionFetch>,
    } since 2 {
        /// What the follower of each of them was told, in the same order.
        known: Vec<PartitionKnown>,
    }
}

impl NodeRequest for ReplicaFetch {
    type Answer = ReplicaFetchAnswer;
}

/// What a leader answers of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Readable, Writable)]
#[speedy(tag_type = u16)]
pub enum AnswerBody {
    /// Batches from the offset that was asked for.
    #[speedy(tag = 0)]
    Records {
        /// Their bytes, in the payload.
        length: u32,
        /// The leader's high watermark.
        high_watermark: Offset,
        /// Where the leader's log starts.
        log_start_offset: Offset,
    },
    /// The logs part before the offset that was asked for.
    #[speedy(tag = 1)]
    Diverging {
        /// The largest epoch of the leader's that is not above the follower's last.
        epoch: LeaderEpoch,
        /// Where it ends.
        end_offset: Offset,
    },
    /// What was asked for lies below the log's start.
    #[speedy(tag = 2)]
    BelowStart {
        /// Where the leader's log starts.
        log_start_offset: Offset,
    },
    /// Refused.
    #[speedy(tag = 3)]
    Error(ErrorCode),
}

/// The answer to one [`PartitionFetch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Readable, Writable)]
pub struct PartitionAnswer {
    /// The partition.
    pub partition: TopicPartition,
    /// The leadership that answers.
    pub leader_epoch: LeaderEpoch,
    /// The follower's life that asked.
    pub incarnation: u64,
    /// What was asked for.
    pub fetch_offset: Offset,
    /// The answer.
    pub body: AnswerBody,
}

impl PartitionAnswer {
    const fn length(&self) -> u32 {
        match self.body {
            AnswerBody::Records { length, .. } => length,
            AnswerBody::Diverging { .. } | AnswerBody::BelowStart { .. } | AnswerBody::Error(_) => 0,
        }
    }
}

node_message! {
    /// The answer to a [`ReplicaFetch`]. Partitions of which there is nothing to say may be left out.
    pub struct ReplicaFetchAnswer = Tag::ReplicaFetchAnswer {
        /// The partitions, in the order of their records in the payload.
        partitions: Vec<PartitionAnswer>,
    }
}

impl ReplicaFetchAnswer {
    /// The partitions, each with its part of the payload, whose memory it shares.
    ///
    /// # Errors
    /// [`NodeError::Payload`] if the lengths do not add up to exactly the payload.
    pub fn with_records(self, payload: Bytes) -> Result<impl Iterator<Item = (PartitionAnswer, Bytes)>, NodeError> {
        let announced = self.partitions.iter().map(|partition| u64::from(partition.length())).sum();
        if announced != payload.len() as u64 {
            return Err(NodeError::Payload { announced, there: payload.len() });
        }
        let mut rest = payload;
        Ok(self.partitions.into_iter().map(move |partition| (partition, rest.split_to(partition.length() as usize))))
    }
}
