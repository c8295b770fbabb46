//! Produce: validates each batch, hands all of them to their replicas at once, and answers when every one is acknowledged.
//! A definite error leaves here only if nothing was appended.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use madang_actors::clock::Mono;
use madang_actors::reply::{self, Answer};
use madang_cluster::replica::{AppendResult, Appended, Refused, ReplicaHandle, RequiredAcks};
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceData, PartitionProduceResponse,
    ProduceRequest, ProduceResponse, TopicProduceData, TopicProduceResponse,
};
use madang_protocol::payload::Payload;
use madang_protocol::record_batch::{BatchRejection, ValidatedBatch, layout, validate_produced};
use madang_protocol::types::LeaderEpoch;

use crate::apis::locate::{self, Hint};
use crate::apis::proposals::AT_LEAST;
use crate::env::{Client, Env};
use crate::fetch_sessions::TopicKey;

/// The first version that names topics by id.
const BY_ID: i16 = 13;
/// The first version that says which record of a batch was wrong.
const RECORD_ERRORS: i16 = 8;
/// The first version that names the leader in an error.
const HINTS: i16 = 10;
/// The client id that may write to internal topics, as Kafka's own tools do.
const ADMIN_CLIENT: &str = "__admin_client";
/// A produce request never waits longer than this for its acknowledgements, whatever it asks for.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(3600);

/// What the connection has to do once every append is enqueued.
pub enum Produced {
    /// Send the response that the future gives.
    Answer(LocalBoxFuture<'static, ProduceResponse<'static>>),
    /// `acks=0`: nothing is sent; if the future gives false the connection closes, which is the only way to tell.
    Silent(LocalBoxFuture<'static, bool>),
}

/// A partition's outcome, now or later.
enum Outcome {
    Known(PartitionProduceResponse<'static>),
    /// Checked, and not sent to its replica yet.
    Valid(i32, ReplicaHandle, ValidatedBatch),
    Pending(i32, ReplicaHandle, Answer<AppendResult>),
}

struct TopicOutcome {
    key: TopicKey,
    name: String,
    topic_id: madang_protocol::types::TopicId,
    partitions: Vec<Outcome>,
}

/// Enqueues every append of one request, in order. Resolves when all are enqueued. All are checked before the first is sent, so that a
/// thread which takes several of them is woken for all at once.
pub async fn admit<E: Env>(env: &E, client: &Client, request: ProduceRequest<'_>, version: i16) -> Produced {
    let silent = request.acks == 0;
    let timeout =
        Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).clamp(AT_LEAST, LONGEST_TIMEOUT);
    let deadline = env.now() + timeout;
    let acks = match request.acks {
        0 => Ok(RequiredAcks::None),
        1 => Ok(RequiredAcks::Leader),
        -1 => Ok(RequiredAcks::All),
        _ => Err(ErrorCode::InvalidRequiredAcks),
    };
    let acks = match request.transactional_id {
        Some(_) => Err(ErrorCode::InvalidTxnState),
        None if has_transactional(&request) => Err(ErrorCode::TransactionalIdAuthorizationFailed),
        None => acks,
    };
    let overridden = overridden(&request, version);
    let mut overridden = overridden.into_iter();
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let key = if version >= BY_ID { TopicKey::Id(topic.topic_id) } else { TopicKey::Name((&*topic.name).into()) };
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            if overridden.next().unwrap_or(false) {
                continue;
            }
            let index = data.index;
            let checked = match acks {
                Ok(_) => check(env, client, &key, data, version),
                Err(error) => Err(Box::new(Refusal::from(error))),
            };
            partitions.push(match checked.map_err(|refused| *refused) {
                Ok((handle, batch)) => Outcome::Valid(index, handle, batch),
                Err(refusal) => Outcome::Known(refused(index, refusal, version)),
            });
        }
        topics.push(TopicOutcome { key, name: topic.name.into_owned(), topic_id: topic.topic_id, partitions });
    }
    if let Ok(acks) = acks {
        enqueue(env, &mut topics, version, acks, deadline).await;
    }
    if silent {
        return Produced::Silent(Box::pin(async move { all_appended(topics).await }));
    }
    let (env, listener) = (env.clone(), Arc::clone(&client.listener));
    Produced::Answer(Box::pin(async move { respond(&env, &listener, topics, version).await }))
}

/// Why a batch was refused before it was appended.
struct Refusal {
    error: ErrorCode,
    message: Option<String>,
    records: Vec<(i32, Option<String>)>,
    /// Where the log starts, which the answer says if the log is why: -1 for every other reason.
    log_start_offset: i64,
}

impl Refusal {
    /// The same, with the start of the log if `handle`'s log is why.
    fn of_log(mut self, handle: &ReplicaHandle) -> Self {
        if tells_log_start(self.error) {
            let snapshot = handle.snapshot_for(LeaderEpoch::NONE).ok();
            self.log_start_offset = snapshot.map_or(-1, |snapshot| snapshot.view.log_start_offset().0);
        }
        self
    }
}

/// Whether an append that fails with this says where the log starts. Kafka does not for what it expects of clients in motion.
const fn tells_log_start(error: ErrorCode) -> bool {
    !matches!(
        error,
        ErrorCode::UnknownTopicOrPartition
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge
            | ErrorCode::CorruptMessage
            | ErrorCode::KafkaStorageError
            | ErrorCode::InvalidTopicException
            | ErrorCode::RequestTimedOut
    )
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Self {
        Self { error, message: None, records: Vec::new(), log_start_offset: -1 }
    }
}

impl From<BatchRejection> for Refusal {
    fn from(rejection: BatchRejection) -> Self {
        let records = rejection.record_errors.into_iter();
        Self {
            error: rejection.error.into(),
            message: Some(rejection.message),
            records: records.map(|one| (one.batch_index, Some(one.message.to_owned()))).collect(),
            log_start_offset: -1,
        }
    }
}

/// Whether any batch says that it is part of a transaction. Without a transactional id nobody may write one.
fn has_transactional(request: &ProduceRequest<'_>) -> bool {
    let mut data = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    data.any(|data| match &data.records {
        Some(Payload::Bytes(bytes)) => {
            let low = bytes.get(layout::ATTRIBUTES + 1).copied().unwrap_or(0);
            i16::from(low) & layout::TRANSACTIONAL != 0
        }
        _ => false,
    })
}

/// For each partition's data, in order, whether the same partition comes again: then the last one counts, alone.
fn overridden(request: &ProduceRequest<'_>, version: i16) -> Vec<bool> {
    let of_topic = |topic: &'_ TopicProduceData<'_>| {
        if version >= BY_ID { TopicKey::Id(topic.topic_id) } else { TopicKey::Name((&*topic.name).into()) }
    };
    let data = request.topic_data.iter().map(|topic| topic.partition_data.len()).sum::<usize>();
    if data <= 1 {
        return vec![false; data];
    }
    let mut seen = HashSet::with_capacity(data);
    let mut overridden = Vec::with_capacity(data);
    for topic in request.topic_data.iter().rev() {
        let key = of_topic(topic);
        overridden.extend(topic.partition_data.iter().rev().map(|data| !seen.insert((key.clone(), data.index))));
    }
    overridden.reverse();
    overridden
}

/// Finds a batch's replica and checks the batch.
fn check<E: Env>(
    env: &E,
    client: &Client,
    topic: &TopicKey,
    data: PartitionProduceData,
    version: i16,
) -> Result<(ReplicaHandle, ValidatedBatch), Box<Refusal>> {
    let refuse = |refusal| Box::new(refusal);
    let handle = locate::replica(env, topic, data.index).map_err(|error| refuse(error.into()))?;
    if handle.is_internal() && &*client.id != ADMIN_CLIENT {
        return Err(refuse(ErrorCode::InvalidTopicException.into()));
    }
    let records = match data.records {
        Some(Payload::Bytes(records)) => records,
        _ => Bytes::new(),
    };
    let rules = handle.produce_rules(version, env.wall());
    match validate_produced(&records, &rules) {
        Ok(batch) => Ok((handle, batch)),
        Err(rejection) if rejection.malformed => Err(refuse(rejection.into())),
        Err(rejection) => Err(refuse(Refusal::from(rejection).of_log(&handle))),
    }
}

/// Sends what is valid to its replicas, in order.
async fn enqueue<E: Env>(env: &E, topics: &mut [TopicOutcome], version: i16, acks: RequiredAcks, deadline: Mono) {
    for outcome in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        // What is not valid stays as it is.
        let Outcome::Valid(index, handle, batch) = outcome else { continue };
        let (index, handle, batch) = (*index, handle.clone(), batch.clone());
        *outcome = match send(env, &handle, batch, acks, deadline).await {
            Ok(answer) => Outcome::Pending(index, handle, answer),
            Err(error) => Outcome::Known(refused(index, error.into(), version)),
        };
    }
}

async fn send<E: Env>(
    env: &E,
    handle: &ReplicaHandle,
    batch: ValidatedBatch,
    acks: RequiredAcks,
    deadline: Mono,
) -> Result<Answer<AppendResult>, ErrorCode> {
    let (message, answer) = ReplicaHandle::append_message(batch, acks, deadline);
    // A full mailbox makes this wait, and the connection with it: the pressure reaches the client.
    match crate::env::until(env, deadline, handle.admit(message)).await {
        Some(Ok(())) => Ok(answer),
        Some(Err(error)) => Err(error),
        None => Err(ErrorCode::RequestTimedOut),
    }
}

fn refused(index: i32, refusal: Refusal, version: i16) -> PartitionProduceResponse<'static> {
    let mut response = PartitionProduceResponse {
        index,
        error_code: refusal.error.code(),
        base_offset: -1,
        log_start_offset: refusal.log_start_offset,
        ..PartitionProduceResponse::default()
    };
    if version >= RECORD_ERRORS {
        response.error_message = refusal.message.map(Into::into);
        response.record_errors = refusal
            .records
            .into_iter()
            .map(|(batch_index, message)| BatchIndexAndErrorMessage {
                batch_index,
                batch_index_error_message: message.map(Into::into),
            })
            .collect();
    }
    response
}

fn acknowledged(index: i32, appended: Appended) -> PartitionProduceResponse<'static> {
    PartitionProduceResponse {
        index,
        error_code: ErrorCode::None.code(),
        base_offset: appended.base_offset.0,
        log_append_time_ms: appended.log_append_time_ms,
        log_start_offset: appended.log_start_offset.0,
        ..PartitionProduceResponse::default()
    }
}

async fn all_appended(topics: Vec<TopicOutcome>) -> bool {
    let outcomes: Vec<Outcome> = topics.into_iter().flat_map(|topic| topic.partitions).collect();
    let all = outcomes.len();
    let answers: Vec<_> = outcomes.into_iter().filter_map(Outcome::into_answer).collect();
    answers.len() == all && reply::all(answers).await.iter().all(Result::is_ok)
}

impl Outcome {
    fn into_answer(self) -> Option<Answer<AppendResult>> {
        if let Self::Pending(_, _, answer) = self { Some(answer) } else { None }
    }
}

async fn respond<E: Env>(
    env: &E,
    listener: &str,
    mut topics: Vec<TopicOutcome>,
    version: i16,
) -> ProduceResponse<'static> {
    settle(&mut topics, version).await;
    let mut response = ProduceResponse::default();
    for topic in topics {
        let mut answers = Vec::with_capacity(topic.partitions.len());
        for outcome in topic.partitions {
            let Outcome::Known(mut answer) = outcome else { continue };
            let error = ErrorCode::from_code(answer.error_code).filter(|_| version >= HINTS);
            let hint = error.and_then(|error| locate::hint(env, listener, &topic.key, answer.index, error));
            if let Some(hint) = hint {
                answer.current_leader = LeaderIdAndEpoch { leader_id: hint.leader.0, leader_epoch: hint.epoch.0 };
                name_endpoint(&mut response, &hint);
            }
            answers.push(answer);
        }
        response.responses.push(TopicProduceResponse {
            name: topic.name.into(),
            topic_id: topic.topic_id,
            partition_responses: answers,
        });
    }
    response
}

/// Waits for every append, and makes every outcome known.
async fn settle(topics: &mut [TopicOutcome], version: i16) {
    let (mut places, mut answers) = (Vec::new(), Vec::new());
    for place in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        let unknown = Outcome::Known(PartitionProduceResponse::default());
        match std::mem::replace(place, unknown) {
            Outcome::Pending(index, handle, answer) => {
                places.push((place, index, handle));
                answers.push(answer);
            }
            known => *place = known,
        }
    }
    for ((place, index, handle), result) in places.into_iter().zip(reply::all(answers).await) {
        let response = match result {
            Ok(appended) => acknowledged(index, appended),
            Err(Refused { error, message }) => {
                let refusal = Refusal { message: message.map(|message| message.to_string()), ..Refusal::from(error) };
                refused(index, refusal.of_log(&handle), version)
            }
        };
        *place = Outcome::Known(response);
    }
}

fn name_endpoint(response: &mut ProduceResponse<'static>, hint: &Hint) {
    if !response.node_endpoints.iter().any(|endpoint| endpoint.node_id == hint.leader.0) {
        response.node_endpoints.push(NodeEndpoint {
            node_id: hint.leader.0,
            host: hint.host.clone().into(),
            port: i32::from(hint.port),
            rack: hint.rack.clone().map(Into::into),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(index: i32, low_attributes: u8) -> PartitionProduceData {
        let mut batch = vec![0; layout::RECORDS];
        batch[layout::ATTRIBUTES + 1] = low_attributes;
        PartitionProduceData { index, records: Some(Payload::Bytes(batch.into())) }
    }

    fn request(topics: &[(&'static str, &[(i32, u8)])]) -> ProduceRequest<'static> {
        let topic = |(name, all): &(&'static str, &[(i32, u8)])| TopicProduceData {
            name: (*name).into(),
            partition_data: all.iter().map(|&(index, attributes)| data(index, attributes)).collect(),
            ..TopicProduceData::default()
        };
        ProduceRequest { topic_data: topics.iter().map(topic).collect(), ..ProduceRequest::default() }
    }

    #[test]
    fn of_a_partition_that_comes_twice_the_last_counts() {
        let twice = request(&[("a", &[(0, 0), (1, 0), (0, 0)]), ("b", &[(0, 0)]), ("a", &[(1, 0)])]);
        assert_eq!(overridden(&twice, 9), [true, true, false, false, false]);
        assert_eq!(overridden(&request(&[("a", &[(7, 0)])]), 9), [false]);
    }

    #[test]
    fn one_transactional_batch_is_seen_among_others() {
        assert!(!has_transactional(&request(&[("a", &[(0, 1), (1, 0x28)])])));
        assert!(has_transactional(&request(&[("a", &[(0, 0)]), ("b", &[(0, 0), (1, 0x11)])])));
    }

    #[test]
    fn only_what_the_log_refuses_says_where_it_starts() {
        assert!(tells_log_start(ErrorCode::OutOfOrderSequenceNumber));
        assert!(tells_log_start(ErrorCode::InvalidTimestamp));
        assert!(!tells_log_start(ErrorCode::MessageTooLarge));
        assert!(!tells_log_start(ErrorCode::CorruptMessage));
    }
}
