//! DescribeLogDirs: this node's log directories, the replicas in each, and how large they are.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use madang_cluster::replica::ReplicaHandle;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeLogDirsResult,
    DescribeLogDirsTopic,
};

use crate::env::{Env, LogDir};

/// Topics and partitions that are asked about; none for all.
type Asked = Option<HashSet<(String, i32)>>;

/// Answers one request.
pub async fn handle<E: Env>(env: &E, request: DescribeLogDirsRequest<'_>) -> DescribeLogDirsResponse<'static> {
    let asked = request.topics.as_ref().map(|topics| {
        let of_topic = topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.topic.to_string(), *partition)));
        of_topic.collect()
    });
    let directories = env.log_dirs();
    // Asks the file system, which may hang with its disk.
    let described = env.read(move || directories.iter().map(|directory| described(directory, &asked)).collect()).await;
    match described {
        Some(results) => DescribeLogDirsResponse { results, ..DescribeLogDirsResponse::default() },
        None => DescribeLogDirsResponse {
            error_code: ErrorCode::UnknownServerError.code(),
            ..DescribeLogDirsResponse::default()
        },
    }
}

fn described(directory: &LogDir, asked: &Asked) -> DescribeLogDirsResult<'static> {
    let log_dir = std::path::absolute(&directory.path).unwrap_or_else(|_| directory.path.clone());
    let log_dir = log_dir.display().to_string().into();
    if directory.failed {
        let error_code = ErrorCode::KafkaStorageError.code();
        return DescribeLogDirsResult { error_code, log_dir, ..DescribeLogDirsResult::default() };
    }
    let free = directory.disk.free_space(Path::new(&directory.path)).ok();
    let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for replica in &directory.replicas {
        let (topic, partition) = (replica.shared().topic().to_string(), replica.shared().partition().partition);
        if asked.as_ref().is_none_or(|asked| asked.contains(&(topic.clone(), partition))) {
            topics.entry(topic).or_default().push(held(replica, partition));
        }
    }
    let of_topic = |(name, partitions): (String, _)| DescribeLogDirsTopic { name: name.into(), partitions };
    DescribeLogDirsResult {
        log_dir,
        topics: topics.into_iter().map(of_topic).collect(),
        usable_bytes: free.and_then(|free| i64::try_from(free).ok()).unwrap_or(-1),
        ..DescribeLogDirsResult::default()
    }
}

fn held(replica: &ReplicaHandle, partition_index: i32) -> DescribeLogDirsPartition {
    let size = replica.shared().last_published().map_or(0, |snapshot| snapshot.view.size_in_bytes());
    DescribeLogDirsPartition {
        partition_index,
        partition_size: i64::try_from(size).unwrap_or(i64::MAX),
        // As in Kafka: a high watermark is never above the log's end.
        offset_lag: 0,
        is_future_key: false,
    }
}
