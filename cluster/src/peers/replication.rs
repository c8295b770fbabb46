//! Fetches, their answers, and confirmed offsets. A message is of one node under one registration, so that both stand in it once, or not at all.

use std::time::Duration;

use bytes::Bytes;
use madang_protocol::node::{
    AnswerBody, Confirm, NodeError, PartitionAnswer, PartitionConfirm, PartitionFetch, PartitionKnown, ReplicaFetch,
    ReplicaFetchAnswer,
};
use madang_protocol::payload::Payload;
use madang_protocol::types::{NodeId, Offset, TopicPartition};

use crate::replica::replication::{Confirmed, FetchAnswer, FetchBody, FetchPosition, FollowerFetch, Known};

/// How long an answer to a fetch may take, and how large it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchLimits {
    /// It may wait so long for something new.
    pub max_wait: Duration,
    /// Most record bytes, a first batch that is larger aside.
    pub max_bytes: u32,
}

/// The request for `partitions`, by a node that is registered as `broker_epoch`.
#[must_use]
pub fn fetch(broker_epoch: i64, limits: FetchLimits, partitions: &[(TopicPartition, FetchPosition)]) -> ReplicaFetch {
    let of = |(partition, position): &(TopicPartition, FetchPosition)| PartitionFetch {
        partition: *partition,
        leader_epoch: position.leader_epoch,
        incarnation: position.incarnation,
        fetch_offset: position.fetch_offset,
        last_fetched_epoch: position.last_fetched_epoch,
        confirmed_offset: position.confirmed_offset,
    };
    ReplicaFetch {
        broker_epoch,
        max_wait_ms: u32::try_from(limits.max_wait.as_millis()).unwrap_or(u32::MAX),
        max_bytes: limits.max_bytes,
        partitions: partitions.iter().map(of).collect(),
        known: partitions.iter().map(|(_, position)| told(position.known)).collect(),
    }
}

fn told(known: Option<Known>) -> PartitionKnown {
    known.map_or(PartitionKnown { high_watermark: Offset::NONE, log_start_offset: Offset::NONE }, |known| {
        PartitionKnown { high_watermark: known.high_watermark, log_start_offset: known.log_start_offset }
    })
}

/// What `peer` asks of `leader`, which is this node.
#[must_use]
pub fn fetches(
    peer: NodeId,
    leader: NodeId,
    message: &ReplicaFetch,
) -> (FetchLimits, Vec<(TopicPartition, FollowerFetch)>) {
    let limits =
        FetchLimits { max_wait: Duration::from_millis(message.max_wait_ms.into()), max_bytes: message.max_bytes };
    let of = |(index, asked): (usize, &PartitionFetch)| {
        // A node of level 1 does not say.
        let known = message.known.get(index).filter(|known| known.high_watermark > Offset::NONE);
        let position = FetchPosition {
            leader,
            leader_epoch: asked.leader_epoch,
            incarnation: asked.incarnation,
            fetch_offset: asked.fetch_offset,
            last_fetched_epoch: asked.last_fetched_epoch,
            confirmed_offset: asked.confirmed_offset,
            known: known
                .map(|known| Known { high_watermark: known.high_watermark, log_start_offset: known.log_start_offset }),
            // When it asks is the follower's own affair.
            after_error: false,
        };
        (asked.partition, FollowerFetch { node_id: peer, broker_epoch: message.broker_epoch, position })
    };
    (limits, message.partitions.iter().enumerate().map(of).collect())
}

/// The message that carries `answers`, and its payload: their records, one after the other, not copied.
///
/// # Errors
/// [`NodeError::Unwritable`] if one has 4 GiB of records.
pub fn fetch_answer(answers: Vec<(TopicPartition, FetchAnswer)>) -> Result<(ReplicaFetchAnswer, Payload), NodeError> {
    let mut parts = Vec::new();
    let mut partitions = Vec::with_capacity(answers.len());
    for (partition, answer) in answers {
        let body = match answer.body {
            FetchBody::Records { records, high_watermark, log_start_offset } => {
                let length = u32::try_from(records.len()).map_err(|why| NodeError::Unwritable(why.to_string()))?;
                parts.push(records);
                AnswerBody::Records { length, high_watermark, log_start_offset }
            }
            FetchBody::Diverging { epoch, end_offset } => AnswerBody::Diverging { epoch, end_offset },
            FetchBody::BelowStart { log_start_offset } => AnswerBody::BelowStart { log_start_offset },
            FetchBody::Error(error) => AnswerBody::Error(error),
        };
        let FetchAnswer { leader_epoch, incarnation, fetch_offset, .. } = answer;
        partitions.push(PartitionAnswer { partition, leader_epoch, incarnation, fetch_offset, body });
    }
    Ok((ReplicaFetchAnswer { partitions }, Payload::of_parts(parts)))
}

/// What a leader has answered. Records share the payload's memory.
///
/// # Errors
/// [`NodeError::Payload`]
pub fn fetch_answers(
    message: ReplicaFetchAnswer,
    payload: Bytes,
) -> Result<Vec<(TopicPartition, FetchAnswer)>, NodeError> {
    let of = |(answer, records): (PartitionAnswer, Bytes)| {
        let PartitionAnswer { partition, leader_epoch, incarnation, fetch_offset, body } = answer;
        let body = match body {
            AnswerBody::Records { high_watermark, log_start_offset, .. } => {
                FetchBody::Records { records, high_watermark, log_start_offset }
            }
            AnswerBody::Diverging { epoch, end_offset } => FetchBody::Diverging { epoch, end_offset },
            AnswerBody::BelowStart { log_start_offset } => FetchBody::BelowStart { log_start_offset },
            AnswerBody::Error(error) => FetchBody::Error(error),
        };
        (partition, FetchAnswer { leader_epoch, incarnation, fetch_offset, body })
    };
    Ok(message.with_records(payload)?.map(of).collect())
}

/// The message that tells a leader of durable ends. One that was confirmed under another registration than `broker_epoch` is left out:
/// the leader would not count it.
#[must_use]
pub fn confirm(broker_epoch: i64, ends: &[(TopicPartition, Confirmed)]) -> Confirm {
    let of = |(partition, end): &(TopicPartition, Confirmed)| PartitionConfirm {
        partition: *partition,
        leader_epoch: end.leader_epoch,
        incarnation: end.incarnation,
        confirmed_offset: end.confirmed_offset,
    };
    let partitions = ends.iter().filter(|(_, end)| end.broker_epoch == broker_epoch).map(of).collect();
    Confirm { broker_epoch, partitions }
}

/// What `peer` has confirmed.
pub fn confirmed(peer: NodeId, message: &Confirm) -> impl Iterator<Item = (TopicPartition, Confirmed)> {
    message.partitions.iter().map(move |end| {
        let confirmed = Confirmed {
            node_id: peer,
            broker_epoch: message.broker_epoch,
            incarnation: end.incarnation,
            leader_epoch: end.leader_epoch,
            confirmed_offset: end.confirmed_offset,
        };
        (end.partition, confirmed)
    })
}
