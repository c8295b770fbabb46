//! ListOffsets: the first, last or timed offset of each partition, through its snapshot.
//! Invariant: what reads a file does so off the connection's thread.

use std::collections::HashSet;

use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use madang_protocol::types::{LeaderEpoch, Offset};
use madang_storage::{ReadError, TimestampAndOffset};

use crate::apis::locate;
use crate::env::Env;
use crate::fetch_sessions::TopicKey;

/// The first version that tells the leader epoch.
const EPOCHS: i16 = 4;
/// The first version whose clients know `OFFSET_NOT_AVAILABLE`.
const NOT_AVAILABLE: i16 = 5;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// An offset with the timestamp and the epoch of its record, as far as they are known.
type Found = (Offset, i64, LeaderEpoch);

const NOT_FOUND: Found = (Offset::NONE, -1, LeaderEpoch::NONE);

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: &ListOffsetsRequest<'_>, version: i16) -> ListOffsetsResponse<'static> {
    let read_committed = request.isolation_level == 1;
    let unknown_isolation = !(0..=1).contains(&request.isolation_level);
    let duplicates = duplicates(request);
    let mut answered = HashSet::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let place = (&*topic.name, asked.partition_index);
            if !answered.insert(place) {
                continue;
            }
            let found = if duplicates.contains(&place) {
                Err(ErrorCode::InvalidRequest)
            } else if unknown_isolation {
                Err(ErrorCode::UnknownServerError)
            } else {
                find(env, &topic.name, asked, version, read_committed).await
            };
            partitions.push(answer(asked.partition_index, found, version));
        }
        topics.push(ListOffsetsTopicResponse { name: topic.name.to_string().into(), partitions });
    }
    ListOffsetsResponse { topics, ..ListOffsetsResponse::default() }
}

fn duplicates<'r>(request: &'r ListOffsetsRequest<'_>) -> HashSet<(&'r str, i32)> {
    let mut seen = HashSet::new();
    let asked =
        request.topics.iter().flat_map(|topic| topic.partitions.iter().map(|one| (&*topic.name, one.partition_index)));
    asked.filter(|one| !seen.insert(*one)).collect()
}

fn answer(partition_index: i32, found: Result<Found, ErrorCode>, version: i16) -> ListOffsetsPartitionResponse {
    let (error, (offset, timestamp, epoch)) = match found {
        Ok(found) => (ErrorCode::None, found),
        Err(error) => (error, NOT_FOUND),
    };
    ListOffsetsPartitionResponse {
        partition_index,
        error_code: error.code(),
        timestamp,
        offset: offset.0,
        leader_epoch: if version >= EPOCHS { epoch.0 } else { LeaderEpoch::NONE.0 },
    }
}

async fn find<E: Env>(
    env: &E,
    topic: &str,
    asked: &ListOffsetsPartition,
    version: i16,
    read_committed: bool,
) -> Result<Found, ErrorCode> {
    let first_version = match asked.timestamp {
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        ..=-6 => i16::MAX,
        _ => 1,
    };
    if version < first_version {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let topic = TopicKey::Name(topic.into());
    let handle = locate::replica(env, &topic, asked.partition_index)?;
    let snapshot = handle.snapshot_for(LeaderEpoch(asked.current_leader_epoch))?;
    let end = if read_committed { snapshot.last_stable_offset } else { snapshot.high_watermark };
    // A new leader may not know yet of all that its predecessor told clients of: the end must not go back.
    let current = snapshot.end_for_clients().map_err(|error| match error {
        ErrorCode::OffsetNotAvailable if version < NOT_AVAILABLE => ErrorCode::LeaderNotAvailable,
        error => error,
    });
    match asked.timestamp {
        LATEST => current.map(|_| (end, -1, snapshot.leader_epoch.unwrap_or(LeaderEpoch::NONE))),
        EARLIEST | EARLIEST_LOCAL => {
            let start = snapshot.view.log_start_offset();
            Ok((start, -1, snapshot.view.leader_epochs().epoch_at(start).unwrap_or(LeaderEpoch::NONE)))
        }
        LATEST_TIERED => Ok(NOT_FOUND),
        MAX_TIMESTAMP => {
            let found = looked_up(env.read(move || snapshot.view.max_timestamp()).await);
            found.and_then(|found| fetchable(found, end, current))
        }
        timestamp => {
            let found = looked_up(env.read(move || snapshot.view.offset_for_timestamp(timestamp, end)).await);
            found.and_then(|found| fetchable(found, end, current))
        }
    }
}

/// What was found, if a client can fetch it already; else that nothing was, unless `current` says that it is not known.
fn fetchable(found: Found, end: Offset, current: Result<Offset, ErrorCode>) -> Result<Found, ErrorCode> {
    if found != NOT_FOUND && found.0 < end { Ok(found) } else { current.map(|_| NOT_FOUND) }
}

fn looked_up(found: Option<Result<Option<TimestampAndOffset>, ReadError>>) -> Result<Found, ErrorCode> {
    match found.ok_or(ErrorCode::KafkaStorageError)? {
        Ok(Some(found)) => Ok((found.offset, found.timestamp, found.leader_epoch)),
        Ok(None) => Ok(NOT_FOUND),
        // Deleted since: the client asks again, and finds the newer start.
        Err(ReadError::Stale) => Err(ErrorCode::NotLeaderOrFollower),
        Err(_) => Err(ErrorCode::KafkaStorageError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_fetched_yet_is_not_found() {
        let found = (Offset(5), 1000, LeaderEpoch(2));
        assert_eq!(fetchable(found, Offset(6), Ok(Offset(6))), Ok(found));
        assert_eq!(fetchable(found, Offset(5), Ok(Offset(5))), Ok(NOT_FOUND));
        let unknown = Err(ErrorCode::OffsetNotAvailable);
        assert_eq!(fetchable(found, Offset(6), unknown), Ok(found));
        assert_eq!(fetchable(found, Offset(5), unknown), unknown.map(|_: Offset| NOT_FOUND));
        assert_eq!(fetchable(NOT_FOUND, Offset(5), Ok(Offset(5))), Ok(NOT_FOUND));
    }
}
