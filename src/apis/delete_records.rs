//! DeleteRecords: moves the log's start up to an offset; the answer carries the new low watermark.

use madang_actors::clock::Mono;
use madang_actors::reply::Reply;
use madang_cluster::replica::ReplicaMessage;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use madang_protocol::types::Offset;

use crate::apis::locate;
use crate::apis::proposals::timeout;
use crate::env::{Env, until};
use crate::fetch_sessions::TopicKey;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: DeleteRecordsRequest<'_>) -> DeleteRecordsResponse<'static> {
    let deadline = env.now() + timeout(request.timeout_ms);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let key = TopicKey::Name((&*topic.name).into());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for one in &topic.partitions {
            let deleted = delete(env, &key, one.partition_index, Offset(one.offset), deadline).await;
            let (low_watermark, error) = match deleted {
                Ok(start) => (start.0, ErrorCode::None),
                Err(error) => (-1, error),
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: one.partition_index,
                low_watermark,
                error_code: error.code(),
            });
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name.to_string().into(), partitions });
    }
    DeleteRecordsResponse { topics, ..DeleteRecordsResponse::default() }
}

async fn delete<E: Env>(
    env: &E,
    topic: &TopicKey,
    index: i32,
    before: Offset,
    deadline: Mono,
) -> Result<Offset, ErrorCode> {
    let handle = locate::replica(env, topic, index)?;
    if handle.is_internal() {
        return Err(ErrorCode::InvalidTopicException);
    }
    // Kafka refuses to cut a topic that is only compacted: nothing would bring its latest values back.
    if !handle.shared().config().deletes_old_records {
        return Err(ErrorCode::PolicyViolation);
    }
    let (reply, answer) = Reply::new(|| Err(ErrorCode::NotLeaderOrFollower));
    let asked = async {
        handle.admit(ReplicaMessage::DeleteRecords { before, reply }).await?;
        answer.await
    };
    until(env, deadline, asked).await.unwrap_or(Err(ErrorCode::RequestTimedOut))
}
