//! Fetch: reads each partition through one snapshot, waits for `min_bytes` or `max_wait`, answers what the session needs. A consumer may be sent
//! to a follower in its rack, which serves up to its own high watermark (KIP-392).
//! Only errors that consumers survive leave here (Java's `FetchCollector` dies of any other).

mod reader;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use madang_actors::clock::Mono;
use madang_actors::waiters::Waiter;
use madang_cluster::replica::{ReplicaHandle, ReplicaSnapshot};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::fetch::{
    EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use madang_protocol::payload::Payload;
use madang_protocol::types::{LeaderEpoch, NodeId, Offset};
use madang_storage::ReadError;

use self::reader::{Reader, Source};
use crate::apis::locate::{self, Hint};
use crate::env::{Client, Env, until};
use crate::fetch_sessions::{Answered, FetchPlan, PartitionFetch, PartitionKey, SessionRequest, TopicKey};

/// The first version that names topics by id.
const BY_ID: i16 = 13;
/// The first version that has room for leader hints' addresses.
const ENDPOINTS: i16 = 16;
/// Kafka's limit of a wait that a client may ask for is its own; ours keeps a parked request from outliving a connection.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;

/// How often a read is tried through a newer snapshot.
const STALE_READS: usize = 3;

/// What one read of one partition gave.
#[derive(Clone, Debug)]
struct Read {
    error: ErrorCode,
    high_watermark: i64,
    last_stable_offset: i64,
    log_start_offset: i64,
    diverging: Option<(LeaderEpoch, Offset)>,
    /// A nearer replica, that has what was asked for.
    nearer: Option<NodeId>,
    records: Payload,
}

impl Read {
    /// As Kafka does, an error says nothing of the log: no watermark, no log start.
    fn failed(error: ErrorCode) -> Self {
        Self {
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging: None,
            nearer: None,
            records: Payload::default(),
        }
    }

    fn of(snapshot: &ReplicaSnapshot) -> Self {
        Self {
            high_watermark: snapshot.high_watermark.0,
            last_stable_offset: snapshot.last_stable_offset.0,
            log_start_offset: snapshot.view.log_start_offset().0,
            ..Self::failed(ErrorCode::None)
        }
    }

    fn must_be_sent(&self) -> bool {
        self.error != ErrorCode::None || self.diverging.is_some() || self.nearer.is_some()
    }

    fn answered(&self) -> Answered {
        Answered {
            has_records: !self.records.is_empty(),
            must_be_sent: self.must_be_sent(),
            high_watermark: self.high_watermark,
            log_start_offset: self.log_start_offset,
        }
    }
}

/// What bounds the whole answer.
#[derive(Clone, Copy, Debug)]
struct Limits {
    version: i16,
    max_bytes: usize,
    read_committed: bool,
    unknown_isolation: bool,
}

/// Answers one fetch.
pub async fn handle<E: Env>(
    env: &E,
    client: &Client,
    request: FetchRequest<'_>,
    version: i16,
) -> FetchResponse<'static> {
    if request.replica_id >= 0 || request.replica_state.replica_id >= 0 {
        // Followers fetch over the node listener; here such a fetch could move a high watermark (CVE-2018-1288).
        return refused(ErrorCode::ClusterAuthorizationFailed);
    }
    let limits = Limits {
        version,
        max_bytes: usize::try_from(request.max_bytes).unwrap_or(0).min(env.config().fetch_max_bytes),
        read_committed: request.isolation_level == READ_COMMITTED,
        unknown_isolation: !(READ_UNCOMMITTED..=READ_COMMITTED).contains(&request.isolation_level),
    };
    let senseless = request.max_bytes < 0 || limits.unknown_isolation;
    let min_bytes = usize::try_from(request.min_bytes).unwrap_or(0);
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(LONGEST_WAIT);
    let deadline = env.now() + wait;
    let reader = Reader::of(client, &request, version);
    let plan = match env.fetch_sessions().begin(env.now(), session_request(request, version)) {
        Ok(plan) => plan,
        Err(error) => return refused(error),
    };
    let reads = if senseless {
        plan.partitions.iter().map(|_| Read::failed(ErrorCode::UnknownServerError)).collect()
    } else {
        read_until_enough(env, &reader, &plan, limits, min_bytes, deadline).await
    };
    let mut response = respond(env, &reader, &plan, reads, limits);
    if limits.unknown_isolation {
        response.error_code = ErrorCode::UnknownServerError.code();
    }
    response
}

fn refused(error: ErrorCode) -> FetchResponse<'static> {
    FetchResponse { error_code: error.code(), ..FetchResponse::default() }
}

fn session_request(request: FetchRequest<'_>, version: i16) -> SessionRequest {
    let key = |name: &str, id| if version >= BY_ID { TopicKey::Id(id) } else { TopicKey::Name(Arc::from(name)) };
    let mut partitions = Vec::new();
    for topic in &request.topics {
        let topic_key = key(&topic.topic, topic.topic_id);
        partitions.extend(topic.partitions.iter().map(|asked| {
            let fetch = PartitionFetch {
                fetch_offset: asked.fetch_offset,
                // Anything below 0 is no belief at all.
                current_leader_epoch: asked.current_leader_epoch.max(-1),
                last_fetched_epoch: asked.last_fetched_epoch,
                max_bytes: asked.partition_max_bytes,
            };
            (PartitionKey { topic: topic_key.clone(), partition: asked.partition }, fetch)
        }));
    }
    let partitions = last_of_each(partitions);
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let topic_key = key(&topic.topic, topic.topic_id);
        forgotten
            .extend(topic.partitions.iter().map(|&partition| PartitionKey { topic: topic_key.clone(), partition }));
    }
    SessionRequest {
        session_id: request.session_id,
        session_epoch: request.session_epoch,
        uses_topic_ids: version >= BY_ID,
        partitions,
        forgotten,
    }
}

/// Of a partition that is asked for twice the last one counts, in the place of the first.
fn last_of_each(asked: Vec<(PartitionKey, PartitionFetch)>) -> Vec<(PartitionKey, PartitionFetch)> {
    let mut places: HashMap<PartitionKey, usize> = HashMap::with_capacity(asked.len());
    let mut kept: Vec<(PartitionKey, PartitionFetch)> = Vec::with_capacity(asked.len());
    for (key, fetch) in asked {
        match places.entry(key.clone()) {
            Entry::Occupied(place) => kept[*place.get()].1 = fetch,
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push((key, fetch));
            }
        }
    }
    kept
}

/// Reads, and while that is not enough and time is left, parks one waiter on every partition and reads again.
async fn read_until_enough<E: Env>(
    env: &E,
    reader: &Reader,
    plan: &FetchPlan,
    limits: Limits,
    min_bytes: usize,
    deadline: Mono,
) -> Vec<Read> {
    let (reads, handles) = read_all(env, reader, plan, limits).await;
    if is_enough(&reads, min_bytes) || env.now() >= deadline {
        return reads;
    }
    // Dropping the waiter, whatever ends this future, removes it from every partition.
    let mut waiter = Waiter::new();
    for handle in &handles {
        if waiter.register(handle.waiters(), 0).is_err() {
            // Too many wait on this partition: the client asks again, as after an empty wait.
            return reads;
        }
    }
    loop {
        // Registered first, read again after: a record that came in between is not missed.
        let (reads, _) = read_all(env, reader, plan, limits).await;
        if is_enough(&reads, min_bytes) || env.now() >= deadline {
            return reads;
        }
        drop(until(env, deadline, waiter.woken()).await);
    }
}

fn is_enough(reads: &[Read], min_bytes: usize) -> bool {
    let bytes: usize = reads.iter().map(|read| read.records.len()).sum();
    reads.is_empty() || bytes >= min_bytes || reads.iter().any(Read::must_be_sent)
}

/// Reads every partition of the plan: at once if all of it is found without waiting for a disk, else off the connection's thread.
async fn read_all<E: Env>(
    env: &E,
    reader: &Reader,
    plan: &FetchPlan,
    limits: Limits,
) -> (Vec<Read>, Vec<ReplicaHandle>) {
    let located: Vec<_> =
        plan.partitions.iter().map(|(key, fetch)| reader.source(env, key).map(|source| (source, *fetch))).collect();
    let handles = located.iter().flatten().map(|(source, _)| source.replica.clone()).collect();
    if located.iter().flatten().all(|(source, fetch)| finds_without_waiting(source, fetch)) {
        return (read_located(located, limits), handles);
    }
    let reads = env.read(move || read_located(located, limits)).await;
    let failed = || plan.partitions.iter().map(|_| Read::failed(ErrorCode::KafkaStorageError)).collect();
    (reads.unwrap_or_else(failed), handles)
}

fn finds_without_waiting(source: &Source, fetch: &PartitionFetch) -> bool {
    let snapshot = source.snapshot(LeaderEpoch::NONE);
    snapshot.map_or(true, |snapshot| snapshot.view.finds_without_waiting(Offset(fetch.fetch_offset)))
}

/// What a partition is read from and what is asked of it, or why there is nothing.
type Located = Result<(Source, PartitionFetch), ErrorCode>;

fn read_located(located: Vec<Located>, limits: Limits) -> Vec<Read> {
    let mut left = limits.max_bytes;
    let mut anything = false;
    let mut reads = Vec::with_capacity(located.len());
    for located in located {
        let read = match located {
            Ok((source, fetch)) => read_one(&source, &fetch, limits, left, !anything),
            Err(error) => Read::failed(error),
        };
        left = left.saturating_sub(read.records.len());
        anything |= !read.records.is_empty();
        reads.push(read);
    }
    reads
}

/// Reads one partition through one snapshot. `first` lets one whole batch through whatever the limits say.
fn read_one(source: &Source, fetch: &PartitionFetch, limits: Limits, left: usize, first: bool) -> Read {
    let mut read = Read::failed(ErrorCode::KafkaStorageError);
    for _ in 0..STALE_READS {
        let snapshot = match source.snapshot(LeaderEpoch(fetch.current_leader_epoch)) {
            Ok(snapshot) => snapshot,
            Err(error) => return Read::failed(error),
        };
        let has = snapshot.view.log_start_offset()..=snapshot.high_watermark;
        if source.nearer.is_some() && has.contains(&Offset(fetch.fetch_offset)) {
            return Read { nearer: source.nearer, ..Read::of(&snapshot) };
        }
        match read_through(&snapshot, fetch, limits, left, first) {
            Some(found) => return found,
            // The segment went while it was looked at; a newer snapshot knows.
            None => read = Read::failed(ErrorCode::KafkaStorageError),
        }
    }
    read
}

/// Reads through one snapshot; nothing if it has gone stale.
fn read_through(
    snapshot: &ReplicaSnapshot,
    fetch: &PartitionFetch,
    limits: Limits,
    left: usize,
    first: bool,
) -> Option<Read> {
    if fetch.last_fetched_epoch >= 0 {
        match diverging(snapshot, fetch) {
            Ok(None) => {}
            Ok(Some(end)) => return Some(Read { diverging: Some(end), ..Read::of(snapshot) }),
            Err(error) => return Some(Read::failed(error)),
        }
    }
    let Ok(asked) = usize::try_from(fetch.max_bytes) else {
        return Some(Read::failed(ErrorCode::UnknownServerError));
    };
    let upper = if limits.read_committed { snapshot.last_stable_offset } else { snapshot.high_watermark };
    let partition_limit = asked.min(left);
    Some(match snapshot.view.read(Offset(fetch.fetch_offset), upper, partition_limit, first) {
        Ok(found) => Read { records: found.records, ..Read::of(snapshot) },
        Err(ReadError::OutOfRange { .. }) => Read::failed(ErrorCode::OffsetOutOfRange),
        Err(ReadError::Stale) => return None,
        Err(ReadError::Io(error)) => {
            tracing::error!(%error, "log cannot be read");
            Read::failed(ErrorCode::KafkaStorageError)
        }
    })
}

/// Where the client's log and ours part, if they do (KIP-595's truncation on fetch).
fn diverging(snapshot: &ReplicaSnapshot, fetch: &PartitionFetch) -> Result<Option<(LeaderEpoch, Offset)>, ErrorCode> {
    let asked = LeaderEpoch(fetch.last_fetched_epoch);
    let (epoch, end) = snapshot.view.end_offset_for_epoch(asked).ok_or(ErrorCode::OffsetOutOfRange)?;
    Ok((epoch < asked || end < Offset(fetch.fetch_offset)).then_some((epoch, end)))
}

fn respond<E: Env>(
    env: &E,
    reader: &Reader,
    plan: &FetchPlan,
    reads: Vec<Read>,
    limits: Limits,
) -> FetchResponse<'static> {
    let answers: Vec<(PartitionKey, Answered)> =
        plan.partitions.iter().zip(&reads).map(|((key, _), read)| (key.clone(), read.answered())).collect();
    let (session_id, sent) = env.fetch_sessions().finish(env.now(), plan, &answers, || env.random());
    let mut response = FetchResponse { session_id, ..FetchResponse::default() };
    for (((key, _), read), sent) in plan.partitions.iter().zip(reads).zip(sent) {
        if !sent {
            continue;
        }
        let hinted = limits.version >= ENDPOINTS;
        let hint = hinted.then(|| locate::hint(env, &reader.listener, &key.topic, key.partition, read.error)).flatten();
        if let Some(hint) = &hint
            && !response.node_endpoints.iter().any(|endpoint| endpoint.node_id == hint.leader.0)
        {
            response.node_endpoints.push(endpoint(hint));
        }
        let mut data = partition_data(key.partition, read, limits);
        if let Some(hint) = hint {
            data.current_leader = LeaderIdAndEpoch { leader_id: hint.leader.0, leader_epoch: hint.epoch.0 };
        }
        topic_of(&mut response, &key.topic).partitions.push(data);
    }
    response
}

fn endpoint(hint: &Hint) -> NodeEndpoint<'static> {
    NodeEndpoint {
        node_id: hint.leader.0,
        host: hint.host.clone().into(),
        port: i32::from(hint.port),
        rack: hint.rack.clone().map(Into::into),
    }
}

/// The answer's entry for a topic: the last one if it is the same topic, else a new one.
fn topic_of<'r>(response: &'r mut FetchResponse<'static>, topic: &TopicKey) -> &'r mut FetchableTopicResponse<'static> {
    let same = response.responses.last().is_some_and(|last| match topic {
        TopicKey::Name(name) => *last.topic == **name,
        TopicKey::Id(id) => last.topic_id == *id,
    });
    if !same {
        let mut entry = FetchableTopicResponse::default();
        match topic {
            TopicKey::Name(name) => entry.topic = name.to_string().into(),
            TopicKey::Id(id) => entry.topic_id = *id,
        }
        response.responses.push(entry);
    }
    let last = response.responses.len() - 1;
    &mut response.responses[last]
}

fn partition_data(partition_index: i32, read: Read, limits: Limits) -> PartitionData {
    let mut data = PartitionData {
        partition_index,
        error_code: read.error.code(),
        high_watermark: read.high_watermark,
        last_stable_offset: read.last_stable_offset,
        log_start_offset: read.log_start_offset,
        aborted_transactions: lists_aborted(read.error, limits).then(Vec::new),
        // Never null: librdkafka 2.0.2 drops the rest of an answer that has a null here.
        records: Some(read.records),
        ..PartitionData::default()
    };
    if let Some((epoch, end)) = read.diverging {
        data.diverging_epoch = EpochEndOffset { epoch: epoch.0, end_offset: end.0 };
    }
    if let Some(nearer) = read.nearer {
        data.preferred_read_replica = nearer.0;
    }
    data
}

/// Whether the list of aborted transactions is there, if empty, and not null: to those who read what is committed, and, as
/// Kafka answers it before it looks at the isolation, for a topic that is not known.
const fn lists_aborted(error: ErrorCode, limits: Limits) -> bool {
    match error {
        ErrorCode::None => limits.read_committed,
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId => true,
        // The answer to a request that makes no sense is made before any partition is looked at, too.
        ErrorCode::UnknownServerError => limits.unknown_isolation,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aborted_transactions_are_null_unless_only_what_is_committed_is_read() {
        let limits = |read_committed| Limits { version: 12, max_bytes: 0, read_committed, unknown_isolation: false };
        let data = |error, committed| partition_data(0, Read::failed(error), limits(committed)).aborted_transactions;
        assert_eq!(data(ErrorCode::None, false), None);
        assert_eq!(data(ErrorCode::None, true), Some(Vec::new()));
        assert_eq!(data(ErrorCode::OffsetOutOfRange, true), None);
        assert_eq!(data(ErrorCode::UnknownTopicOrPartition, false), Some(Vec::new()));
    }

    #[test]
    fn a_partition_that_is_asked_for_twice_is_read_once_where_the_last_says() {
        let ask = |partition, fetch_offset| {
            let fetch = PartitionFetch { fetch_offset, current_leader_epoch: -1, last_fetched_epoch: -1, max_bytes: 1 };
            (PartitionKey { topic: TopicKey::Name("t".into()), partition }, fetch)
        };
        assert_eq!(last_of_each(vec![ask(0, 1), ask(1, 2), ask(0, 3)]), [ask(0, 3), ask(1, 2)]);
    }

    #[test]
    fn an_error_tells_no_watermarks() {
        let limits = Limits { version: 12, max_bytes: 0, read_committed: false, unknown_isolation: false };
        let data = partition_data(3, Read::failed(ErrorCode::OffsetOutOfRange), limits);
        assert_eq!((data.high_watermark, data.last_stable_offset, data.log_start_offset), (-1, -1, -1));
        assert_eq!(data.records, Some(Payload::default()));
    }
}
