//! OffsetForLeaderEpoch: where the log of an epoch ends, so that a client can find out that its own was truncated.

use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderTopicResult,
};
use madang_protocol::types::{LeaderEpoch, Offset};

use crate::apis::locate;
use crate::env::Env;
use crate::fetch_sessions::TopicKey;

/// Answers one request.
pub fn handle<E: Env>(env: &E, request: &OffsetForLeaderEpochRequest<'_>) -> OffsetForLeaderEpochResponse<'static> {
    let topics = request.topics.iter().map(|topic| {
        let key = TopicKey::Name((&*topic.topic).into());
        let partitions = topic.partitions.iter().map(|asked| match find(env, &key, asked) {
            Ok((epoch, end)) => EpochEndOffset {
                partition: asked.partition,
                leader_epoch: epoch.0,
                end_offset: end.0,
                ..EpochEndOffset::default()
            },
            Err(error) => {
                EpochEndOffset { partition: asked.partition, error_code: error.code(), ..EpochEndOffset::default() }
            }
        });
        OffsetForLeaderTopicResult { topic: topic.topic.to_string().into(), partitions: partitions.collect() }
    });
    OffsetForLeaderEpochResponse { topics: topics.collect(), ..OffsetForLeaderEpochResponse::default() }
}

fn find<E: Env>(env: &E, key: &TopicKey, asked: &OffsetForLeaderPartition) -> Result<(LeaderEpoch, Offset), ErrorCode> {
    let handle = locate::replica(env, key, asked.partition)?;
    let snapshot = handle.snapshot_for(LeaderEpoch(asked.current_leader_epoch))?;
    let epoch = LeaderEpoch(asked.leader_epoch);
    Ok(snapshot.end_offset_for_epoch(epoch).unwrap_or_else(|| {
        let before_all = snapshot.view.leader_epochs().entries().first().filter(|first| epoch < first.epoch);
        match before_all {
            Some(first) if epoch != LeaderEpoch::NONE => (epoch, first.start_offset),
            _ => (LeaderEpoch::NONE, Offset::NONE),
        }
    }))
}
