//! The producer's task: sends ready batches to their leaders, one request per leader at a time, and acts on the answers.
//! Invariant: a batch leaves only by being answered; it comes back from every request, whatever became of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use madang_protocol::ErrorCode;
use madang_protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
};
use madang_protocol::types::{NodeId, Offset, TopicId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::batches::{Batch, Batches, Key};
use super::identity::{IdentityError, new_identity};
use super::metrics::Counters;
use super::{Acks, Command, ProducerConfig};
use crate::client::{Client, Lane};
use crate::error::{ConnectionError, ProduceError, error_code, is_stale_metadata};
use crate::metadata::{Broker, Metadata};
use crate::partitioner::Choices;

/// Produce from this version on names topics by id.
const PRODUCE_BY_ID: i16 = 13;
/// No further partition joins a request of this many bytes.
const MAX_REQUEST: usize = 8 << 20;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What one leader is sent.
struct Outgoing {
    broker: Broker,
    parts: Vec<(Key, TopicId, Batch, Bytes)>,
    bytes: usize,
}

/// What became of it.
struct Returned {
    node: NodeId,
    parts: Vec<(Key, TopicId, Batch)>,
    outcome: Result<Option<ProduceResponse<'static>>, ConnectionError>,
    took: Duration,
}

pub(super) struct Sender {
    client: Client,
    config: ProducerConfig,
    lane: Lane,
    inbox: mpsc::Receiver<Command>,
    batches: Batches,
    counters: Arc<Counters>,
    busy: BTreeSet<NodeId>,
    requests: JoinSet<Returned>,
    /// Who waits, and up to which batch.
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    is_closing: bool,
}

impl Sender {
    pub(super) fn new(
        client: Client,
        config: ProducerConfig,
        inbox: mpsc::Receiver<Command>,
        (choices, counters): (Arc<Choices>, Arc<Counters>),
    ) -> Self {
        let lane = client.new_lane();
        Self {
            client,
            lane,
            inbox,
            batches: Batches::new(config.clone(), choices, Arc::clone(&counters)),
            config,
            counters,
            busy: BTreeSet::new(),
            requests: JoinSet::new(),
            flushes: Vec::new(),
            is_closing: false,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let batches = &self.batches;
            for (_, done) in self.flushes.extract_if(.., |(up_to, _)| batches.is_answered(*up_to)) {
                // Whoever gave up on waiting is not told.
                let _ = done.send(());
            }
            if self.batches.is_empty() && self.is_closing {
                self.client.close_lane(self.lane);
                return;
            }
            let now = Instant::now();
            let blocked = self.dispatch(now).await;
            self.wait(self.due(now, blocked)).await;
        }
    }

    /// When to look again for batches that are due, after a look at `looked`. `blocked` until when ready batches cannot leave.
    fn due(&self, looked: Instant, blocked: Option<Instant>) -> Option<Instant> {
        // With a request on its way to every leader that was due then, only its answer changes something. What has become due since is not
        // among what was sent: counted from any later moment it would be waited for by nobody.
        blocked.or_else(|| self.batches.next_ready(looked))
    }

    /// Waits for a command, an answer, or until `due`.
    async fn wait(&mut self, due: Option<Instant>) {
        let timer = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            command = self.inbox.recv(), if !self.is_closing => self.command(command),
            Some(returned) = self.requests.join_next(), if !self.requests.is_empty() => {
                if let Ok(returned) = returned {
                    self.returned(returned).await;
                }
            }
            () = timer => {}
        }
        while let Ok(command) = self.inbox.try_recv() {
            self.command(Some(command));
        }
    }

    fn command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Append(accepted)) => self.batches.append(Instant::now(), accepted),
            Some(Command::Flush(done)) => {
                let up_to = self.batches.flush();
                self.flushes.push((up_to, done));
            }
            Some(Command::Hurry) => {
                self.batches.flush();
            }
            None => {
                self.is_closing = true;
                self.batches.flush();
            }
        }
    }

    /// Sends what is due at `now`. Answers until when to wait if something due has no leader or no producer id at the moment.
    async fn dispatch(&mut self, now: Instant) -> Option<Instant> {
        let ready = self.batches.ready(now);
        if ready.is_empty() {
            return None;
        }
        match self.identify(&ready).await {
            Ok(()) => {}
            Err(IdentityError::Broker(code)) if !code.is_retriable() => {
                for key in &ready {
                    let (topic, partition) = (key.0.to_string(), key.1);
                    let error = ProduceError::Broker { topic, partition, code, message: None };
                    self.batches.refuse(key, &error);
                }
                return Some(now);
            }
            Err(error) => {
                self.postpone(&ready, &error.to_string());
                return Some(now + RETRY_PAUSE);
            }
        }
        let metadata = self.client.cached_metadata();
        let mut outgoing: BTreeMap<NodeId, Outgoing> = BTreeMap::new();
        let mut leaderless = Vec::new();
        let mut again = None;
        for key in ready {
            match metadata.leader(&key.0, key.1) {
                Ok((broker, _)) if !self.busy.contains(&broker.node_id) => {
                    let broker = broker.clone();
                    if !self.load(&mut outgoing, broker, key, &metadata) {
                        again = Some(now);
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    self.postpone(std::slice::from_ref(&key), &error.to_string());
                    leaderless.push(key.0);
                }
            }
        }
        for (node, outgoing) in outgoing {
            self.busy.insert(node);
            self.requests.spawn(send(self.client.clone(), self.config.acks, self.lane, outgoing));
        }
        if leaderless.is_empty() {
            return again;
        }
        self.refresh(&leaderless).await;
        Some(Instant::now() + RETRY_PAUSE)
    }

    /// Adds a partition's batch to its leader's request. `false` if the batch could not be written and the next one is to be looked at.
    fn load(
        &mut self,
        outgoing: &mut BTreeMap<NodeId, Outgoing>,
        broker: Broker,
        key: Key,
        metadata: &Metadata,
    ) -> bool {
        if outgoing.get(&broker.node_id).is_some_and(|loaded| loaded.bytes >= MAX_REQUEST) {
            // The leader is busy now: its answer brings the rest here again.
            return true;
        }
        let id = metadata.topics.get(&*key.0).map_or(TopicId::ZERO, |topic| topic.id);
        let Some((batch, bytes)) = self.batches.take(&key, wall_ms()) else { return false };
        let request =
            outgoing.entry(broker.node_id).or_insert_with(|| Outgoing { broker, parts: Vec::new(), bytes: 0 });
        request.bytes += bytes.len();
        request.parts.push((key, id, batch, bytes));
        true
    }

    /// Gives a producer id to the partitions that have none.
    async fn identify(&mut self, ready: &[Key]) -> Result<(), IdentityError> {
        if !self.config.idempotent || self.config.acks != Acks::All {
            return Ok(());
        }
        let without: Vec<Key> = ready.iter().filter(|key| self.batches.needs_identity(key)).cloned().collect();
        if without.is_empty() {
            return Ok(());
        }
        let identity = new_identity(&self.client).await?;
        for key in &without {
            self.batches.give_identity(key, identity);
        }
        Ok(())
    }

    /// Puts off batches that cannot leave now; gives up those that are too old.
    fn postpone(&mut self, keys: &[Key], why: &str) {
        for key in keys {
            if let Some(batch) = self.batches.postpone(Instant::now(), key, RETRY_PAUSE) {
                self.retry(key, batch, why.to_owned());
            }
        }
    }

    fn retry(&mut self, key: &Key, batch: Batch, why: String) {
        if batch.created().elapsed() < self.config.delivery_timeout {
            self.batches.put_back(Instant::now(), key, batch, RETRY_PAUSE);
            return;
        }
        let error = ProduceError::Unacknowledged {
            topic: key.0.to_string(),
            partition: key.1,
            timeout: self.config.delivery_timeout,
            last: why,
        };
        self.batches.give_up(key, batch, &error);
    }

    async fn refresh(&self, topics: &[Arc<str>]) {
        let mut names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        names.dedup();
        // A failure shows at the next try, which comes after a pause.
        drop(self.client.refresh(&names).await);
    }

    async fn returned(&mut self, returned: Returned) {
        self.busy.remove(&returned.node);
        self.counters.request(returned.took);
        let mut stale = Vec::new();
        match returned.outcome {
            Ok(None) => {
                for (key, _, batch) in returned.parts {
                    self.batches.written(&key, batch, Offset::NONE);
                }
            }
            Ok(Some(answer)) => {
                for (key, id, batch) in returned.parts {
                    let answer = find(&answer, &key, id);
                    self.answered(key, batch, answer, &mut stale);
                }
            }
            Err(error) => {
                for (key, _, mut batch) in returned.parts {
                    batch.is_in_doubt |= !error.is_unsent();
                    stale.push(Arc::clone(&key.0));
                    self.undelivered(&key, batch, &error);
                }
            }
        }
        if !stale.is_empty() {
            self.refresh(&stale).await;
        }
    }

    fn undelivered(&mut self, key: &Key, batch: Batch, error: &ConnectionError) {
        if error.is_retriable() {
            return self.retry(key, batch, error.to_string());
        }
        let failed = ProduceError::Unacknowledged {
            topic: key.0.to_string(),
            partition: key.1,
            timeout: batch.created().elapsed(),
            last: error.to_string(),
        };
        self.batches.give_up(key, batch, &failed);
    }

    fn answered(
        &mut self,
        key: Key,
        mut batch: Batch,
        answer: Option<&PartitionProduceResponse<'static>>,
        stale: &mut Vec<Arc<str>>,
    ) {
        let Some(answer) = answer else {
            batch.is_in_doubt = true;
            return self.retry(&key, batch, "the answer does not mention the partition".to_owned());
        };
        let code = error_code(answer.error_code);
        match code {
            ErrorCode::None => self.batches.written(&key, batch, Offset(answer.base_offset)),
            // The broker has it from an earlier try.
            ErrorCode::DuplicateSequenceNumber => self.batches.written(&key, batch, Offset::NONE),
            code if code.is_retriable() => {
                if is_stale_metadata(code) {
                    stale.push(Arc::clone(&key.0));
                }
                // Both may be answered after the append.
                batch.is_in_doubt |=
                    matches!(code, ErrorCode::NotEnoughReplicasAfterAppend | ErrorCode::RequestTimedOut)
                        || is_stale_metadata(code);
                self.retry(&key, batch, code.to_string());
            }
            code => {
                if matches!(
                    code,
                    ErrorCode::OutOfOrderSequenceNumber
                        | ErrorCode::UnknownProducerId
                        | ErrorCode::InvalidProducerEpoch
                        | ErrorCode::InvalidProducerIdMapping
                        | ErrorCode::ProducerFenced
                ) {
                    self.batches.forget_identity(&key);
                }
                let message = answer.error_message.as_deref().map(str::to_owned);
                let error = ProduceError::Broker { topic: key.0.to_string(), partition: key.1, code, message };
                self.batches.give_up(&key, batch, &error);
            }
        }
    }
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn find<'a>(
    answer: &'a ProduceResponse<'static>,
    key: &Key,
    id: TopicId,
) -> Option<&'a PartitionProduceResponse<'static>> {
    // Version 13 and later answer by id, earlier ones by name.
    let topic = answer.responses.iter().find(|topic| {
        if topic.name.is_empty() { topic.topic_id == id && !id.is_zero() } else { *topic.name == *key.0 }
    })?;
    topic.partition_responses.iter().find(|partition| partition.index == key.1)
}

async fn send(client: Client, acks: Acks, lane: Lane, outgoing: Outgoing) -> Returned {
    let Outgoing { broker, parts, .. } = outgoing;
    let call = client.call();
    let call = if parts.iter().any(|(_, id, ..)| id.is_zero()) { call.up_to(PRODUCE_BY_ID - 1) } else { call };
    let mut topic_data: Vec<TopicProduceData<'static>> = Vec::new();
    let mut kept = Vec::new();
    // Keys come in order, so a topic's partitions are neighbours.
    for ((topic, index), id, batch, bytes) in parts {
        let data = PartitionProduceData { index, records: Some(bytes.into()) };
        match topic_data.last_mut() {
            Some(last) if *last.name == *topic => last.partition_data.push(data),
            _ => topic_data.push(TopicProduceData {
                name: topic.to_string().into(),
                topic_id: id,
                partition_data: vec![data],
            }),
        }
        kept.push(((topic, index), id, batch));
    }
    let request = ProduceRequest {
        acks: acks.on_the_wire(),
        timeout_ms: i32::try_from(call.timeout.as_millis()).unwrap_or(i32::MAX),
        topic_data,
        ..ProduceRequest::default()
    };
    let began = Instant::now();
    let outcome = match acks {
        Acks::None => client.to_unanswered(&broker, lane, &request, call).await.map(|()| None),
        Acks::Leader | Acks::All => client.to(&broker, lane, &request, call).await.map(Some),
    };
    Returned { node: broker.node_id, parts: kept, outcome, took: began.elapsed() }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::client::ClientConfig;
    use crate::partitioner::Partitioner;
    use crate::producer::{Accepted, ProducerRecord, Room};

    #[tokio::test]
    async fn a_batch_that_becomes_due_after_the_look_is_sent_at_the_next_one() {
        let linger = Duration::from_millis(5);
        let config = ProducerConfig { linger, ..ProducerConfig::default() };
        let client = Client::new(ClientConfig::new(["127.0.0.1:1"]));
        let (_commands, inbox) = mpsc::channel(1);
        let choices = Arc::new(Choices::new(Partitioner::Default, 1_000));
        let mut sender = Sender::new(client, config, inbox, (choices, Arc::default()));
        // By now it was due long ago; by the look it was not yet.
        let looked = Instant::now().checked_sub(Duration::from_secs(1)).expect("a machine that runs for a second");
        let record = ProducerRecord::new("t").value("v");
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().expect("room");
        let (answer, _delivery) = oneshot::channel();
        let size = record.size_in_bytes();
        let room = Room::new(permit, size, Arc::default());
        sender.batches.append(looked, Accepted { record, partition: 0, size, answer, _room: room });
        assert_eq!(sender.dispatch(looked).await, None, "it still lingers");
        assert_eq!(sender.due(looked, None), Some(looked + linger));
    }
}
