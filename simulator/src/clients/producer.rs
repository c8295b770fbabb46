//! Producers: idempotent ones, which retry with the same sequences until they know, and plain ones, which do not retry.
//! Invariant: no batch is like another, so a batch that is stored twice is seen.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use madang_cluster::replica::RequiredAcks;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::init_producer_id::InitProducerIdRequest;
use madang_protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use madang_protocol::payload::Payload;
use madang_protocol::record_batch::{BatchBuilder, BatchOptions};

use crate::clients::wire::{Connection, Link, decode, error};
use crate::clients::{Clients, Target};
use crate::cover;
use crate::history::{Sent, content};
use crate::invariants::{metadata, producers, replication};
use crate::sim::Sim;

/// Batches that an idempotent producer has in flight at most.
const WINDOW: u64 = 5;
/// Keys of all records, so that compaction has something to do.
const KEYS: u64 = 12;

/// Why a batch has no offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection ended. The batch may be stored.
    Disconnected,
    /// Kafka's code.
    Code(ErrorCode),
}

/// A batch of `records` records that the history knows from now on.
pub fn batch(sim: &Sim, records: i32, producer: Option<(i64, i32)>) -> Bytes {
    let (producer_id, producer_epoch, base_sequence) = producer.map_or((-1, -1, -1), |(id, first)| (id, 0, first));
    let options = BatchOptions { producer_id, producer_epoch, base_sequence, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    let serial = sim.serial();
    for place in 0..records {
        let mut value = serial.to_be_bytes().to_vec();
        value.extend_from_slice(&place.to_be_bytes());
        let filler = sim.below(sim.swarm.value_bytes) as usize;
        value.extend((0..filler).map(|at| (serial as usize * 31 + at) as u8));
        let key = sim.below(KEYS).to_be_bytes();
        let added = builder.append(sim.wall().as_millis(), Some(&key), Some(&value), &[]);
        assert!(added.is_ok(), "a record of the simulator fits");
    }
    let bytes = builder.build().unwrap_or_default();
    sim.history.borrow_mut().send(content(&bytes), Sent { serial, records, idempotent: true });
    bytes
}

/// Produces batches over one connection, all sent before the first is answered. One answer a batch.
pub async fn produce(
    clients: &Clients,
    link: &mut Link,
    target: &Target,
    batches: &[Bytes],
    acks: RequiredAcks,
    timeout: Duration,
) -> Vec<Result<i64, Failure>> {
    link.toward(clients.leader_of(target.partition));
    let answers = produce_there(clients, link, target, batches, acks, timeout).await;
    if acks != RequiredAcks::None && answers.iter().any(Result::is_err) {
        clients.look_around().await;
    }
    answers
}

async fn produce_there(
    clients: &Clients,
    link: &mut Link,
    target: &Target,
    batches: &[Bytes],
    acks: RequiredAcks,
    timeout: Duration,
) -> Vec<Result<i64, Failure>> {
    let lost = || vec![Err(Failure::Disconnected); batches.len()];
    let Ok(connection) = link.get(clients).await else { return lost() };
    let version = clients.produce_version();
    let mut sent = 0;
    for batch in batches {
        let answered = acks != RequiredAcks::None;
        if connection.send(version, &request(target, batch, acks, timeout), answered).await.is_err() {
            break;
        }
        sent += 1;
    }
    let mut answers = Vec::with_capacity(batches.len());
    if acks != RequiredAcks::None {
        for _ in 0..sent {
            match receive(&clients.sim, connection, target, version).await {
                Some(answer) => answers.push(answer),
                None => break,
            }
        }
    }
    answers.resize(batches.len(), Err(Failure::Disconnected));
    answers
}

fn request(target: &Target, batch: &Bytes, acks: RequiredAcks, timeout: Duration) -> ProduceRequest<'static> {
    let data = PartitionProduceData { index: target.partition.partition, records: Some(Payload::Bytes(batch.clone())) };
    let topic = TopicProduceData {
        name: target.topic.to_string().into(),
        topic_id: target.partition.topic_id,
        partition_data: vec![data],
    };
    ProduceRequest {
        acks: match acks {
            RequiredAcks::None => 0,
            RequiredAcks::Leader => 1,
            RequiredAcks::All => -1,
        },
        timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
        topic_data: vec![topic],
        ..ProduceRequest::default()
    }
}

async fn receive(sim: &Sim, connection: &Connection, target: &Target, version: i16) -> Option<Result<i64, Failure>> {
    let frame = connection.receive().await.ok()?;
    let answer = decode::<ProduceRequest<'_>>(sim, &frame, version)?;
    let partitions: Vec<_> = answer.responses.iter().flat_map(|topic| &topic.partition_responses).collect();
    let one = match partitions.as_slice() {
        [one] if one.index == target.partition.partition => *one,
        _ => {
            sim.violate("U1", format!("a produce to one partition is answered with {partitions:?}"));
            return None;
        }
    };
    Some(match error(one.error_code) {
        ErrorCode::None => Ok(one.base_offset),
        // A gap, which the leader takes for what a refusal has left: of the first that is on its way it would be one that the log has lost.
        ErrorCode::NotLeaderOrFollower
            if one.error_message.as_deref().is_some_and(|why| why.contains("does not follow")) =>
        {
            Err(Failure::Code(ErrorCode::OutOfOrderSequenceNumber))
        }
        code => Err(Failure::Code(code)),
    })
}

/// A producer's id from the node, if it can be had now.
async fn new_id(clients: &Clients, link: &mut Link) -> Option<i64> {
    let version = if clients.sim.chance(1, 2) { 5 } else { 3 };
    let request = InitProducerIdRequest { transactional_id: None, ..InitProducerIdRequest::default() };
    let frame = link.call(clients, version, &request).await.ok()?;
    let answer = decode::<InitProducerIdRequest<'_>>(&clients.sim, &frame, version)?;
    if answer.error_code != 0 {
        return None;
    }
    metadata::producer_id(&clients.sim, answer.producer_id);
    Some(answer.producer_id)
}

/// One idempotent producer.
pub async fn idempotent(clients: Rc<Clients>) {
    let sim = Rc::clone(&clients.sim);
    let mut link = Link::default();
    while !clients.is_stopping() {
        // A new id for each partition and incident: sequences start at zero.
        link.anywhere(&clients);
        let (Some(target), Some(id)) = (clients.any_target(), new_id(&clients, &mut link).await) else {
            sim.pause(1000, 50_000).await;
            continue;
        };
        let mut producer = Producer { target, id, sequence: 0, since: producers::Known::of(&sim, None) };
        producer.since = producers::Known::of(&sim, Some(producer.target.partition));
        for _ in 0..20 {
            if clients.is_stopping() {
                return;
            }
            if producer.window(&clients, &mut link).await.is_none() {
                break;
            }
            sim.pause(100, 20_000 * clients.ease()).await;
        }
    }
}

struct Producer {
    target: Target,
    id: i64,
    sequence: i32,
    /// What the partition had lost when the producer began.
    since: producers::Known,
}

impl Producer {
    /// Sends up to five batches until all are acknowledged; none if the producer has to start anew.
    async fn window(&mut self, clients: &Rc<Clients>, link: &mut Link) -> Option<()> {
        let sim = &clients.sim;
        let established = self.sequence > 0;
        let mut unresolved = Vec::new();
        for _ in 0..1 + sim.below(WINDOW) {
            let records = 1 + i32::try_from(sim.below(4)).unwrap_or(0);
            unresolved.push(batch(sim, records, Some((self.id, self.sequence))));
            self.sequence += records;
        }
        let whole = unresolved.clone();
        let mut retried = false;
        let timeout = Duration::from_millis(50 + sim.below(2000));
        while !unresolved.is_empty() {
            let answers = produce(clients, link, &self.target, &unresolved, RequiredAcks::All, timeout).await;
            let mut left = Vec::new();
            for (batch, answer) in unresolved.into_iter().zip(answers) {
                match answer {
                    Ok(offset) => {
                        if retried {
                            cover!("unknown outcome resolved by a retry");
                        }
                        replication::heard(sim, self.target.partition, content(&batch), offset, RequiredAcks::All);
                    }
                    Err(Failure::Code(ErrorCode::OutOfOrderSequenceNumber)) if left.is_empty() => {
                        let attempt = producers::Refused { id: self.id, established, since: self.since };
                        producers::out_of_order(sim, self.target.partition, &attempt, &batch, &whole);
                        return None;
                    }
                    Err(Failure::Code(error)) if is_gone(error) && self.is_doomed(sim) => return None,
                    // The node that is asked has not heard of the topic yet.
                    Err(Failure::Code(error)) if is_gone(error) && clients.are_of_cluster() => left.push(batch),
                    Err(Failure::Code(error)) if is_final(error) => {
                        let what = format!("{:?}: producer {} is answered {error:?}", self.target, self.id);
                        sim.violate("T6", what);
                        return None;
                    }
                    Err(_) => left.push(batch),
                }
            }
            if clients.is_stopping() && sim.is_healed() && retried {
                return None;
            }
            unresolved = left;
            retried = true;
            if !unresolved.is_empty() {
                sim.pause(500, 30_000).await;
            }
        }
        Some(())
    }

    fn is_doomed(&self, sim: &Sim) -> bool {
        sim.history.borrow_mut().of(self.target.partition).doomed
    }
}

/// What clients of a deleted topic are told.
fn is_gone(error: ErrorCode) -> bool {
    matches!(error, ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId)
}

/// Errors that a sound batch of a sound producer never gets.
fn is_final(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::CorruptMessage
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::RecordListTooLarge
            | ErrorCode::MessageTooLarge
            | ErrorCode::InvalidRecord
            | ErrorCode::InvalidTopicException
            | ErrorCode::InvalidRequiredAcks
            | ErrorCode::InvalidTimestamp
            | ErrorCode::UnsupportedForMessageFormat
            | ErrorCode::UnknownServerError
    )
}

/// One producer that sends everything once.
pub async fn plain(clients: Rc<Clients>) {
    let sim = Rc::clone(&clients.sim);
    let mut link = Link::default();
    while !clients.is_stopping() {
        let Some(target) = clients.any_target() else {
            sim.pause(1000, 50_000).await;
            continue;
        };
        // Now and then a storm, which the mailbox has to bear.
        let count = if sim.chance(1, 40) { 200 / clients.ease() } else { 1 + sim.below(3) };
        let batches: Vec<Bytes> =
            (0..count).map(|_| batch(&sim, 1 + i32::try_from(sim.below(3)).unwrap_or(0), None)).collect();
        let acks = match sim.below(4) {
            0 => RequiredAcks::None,
            1 => RequiredAcks::Leader,
            _ => RequiredAcks::All,
        };
        let timeout = Duration::from_millis(5 + sim.below(1000));
        let answers = produce(&clients, &mut link, &target, &batches, acks, timeout).await;
        for (batch, answer) in batches.iter().zip(answers) {
            match answer {
                Ok(offset) => replication::heard(&sim, target.partition, content(batch), offset, acks),
                Err(Failure::Code(error)) => {
                    sim.require(!is_final(error), "U1", || format!("{target:?}: a sound batch is answered {error:?}"));
                    if error == ErrorCode::KafkaStorageError {
                        cover!("disk full");
                    }
                }
                Err(Failure::Disconnected) => {}
            }
        }
        sim.pause(100, 30_000 * clients.ease()).await;
    }
}
