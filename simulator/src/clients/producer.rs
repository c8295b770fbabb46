//! Producers: idempotent ones, which retry with the same sequences until they know, and plain ones, which do not retry.
//! Invariant: no batch is like another, so a batch that is stored twice is seen.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use madang_cluster::replica::RequiredAcks;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::record_batch::{BatchBuilder, BatchOptions};
use madang_protocol::types::TopicPartition;

use crate::clients::Clients;
use crate::cover;
use crate::history::{Sent, content};
use crate::node::api::Failure;
use crate::sim::Sim;

/// Batches that an idempotent producer has in flight at most.
const WINDOW: u64 = 5;

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
        let added = builder.append(sim.wall().as_millis(), Some(&serial.to_be_bytes()), Some(&value), &[]);
        assert!(added.is_ok(), "a record of the simulator fits");
    }
    let bytes = builder.build().unwrap_or_default();
    sim.history.borrow_mut().send(content(&bytes), Sent { serial, records, idempotent: true });
    bytes
}

/// One idempotent producer.
pub async fn idempotent(clients: Rc<Clients>) {
    let sim = Rc::clone(&clients.sim);
    while !clients.is_stopping() {
        // A new id for each partition and incident: sequences start at zero.
        let partition = clients.any_partition();
        let id = i64::try_from(sim.serial()).unwrap_or(0);
        let mut sequence = 0;
        let since = known(&sim, partition);
        for _ in 0..20 {
            if clients.is_stopping() {
                return;
            }
            let Some(next) = window(&clients, partition, (id, since), sequence).await else { break };
            sequence = next;
            sim.pause(100, 20_000).await;
        }
    }
}

/// Sends up to five batches until all are acknowledged; the next sequence, or none if the producer has to start anew.
async fn window(
    clients: &Rc<Clients>,
    partition: TopicPartition,
    (id, (losses, start)): (i64, (u64, i64)),
    mut sequence: i32,
) -> Option<i32> {
    let sim = &clients.sim;
    // Until one batch is acknowledged the partition may know nothing of the producer, and takes whichever batch comes through
    // first; as in Kafka, those before it are then refused.
    let established = sequence > 0;
    let mut unresolved = Vec::new();
    for _ in 0..1 + sim.below(WINDOW) {
        let records = 1 + i32::try_from(sim.below(4)).unwrap_or(0);
        unresolved.push(batch(sim, records, Some((id, sequence))));
        sequence += records;
    }
    let mut retried = false;
    let timeout = Duration::from_millis(50 + sim.below(2000));
    while !unresolved.is_empty() {
        let answers = clients.node.produce(partition, unresolved.clone(), RequiredAcks::All, timeout).await;
        let mut left = Vec::new();
        let mut broken = false;
        for (batch, answer) in unresolved.into_iter().zip(answers) {
            match answer {
                Ok(_) if retried => cover!("unknown outcome resolved by a retry"),
                Ok(_) => {}
                Err(Failure::Code(ErrorCode::OutOfOrderSequenceNumber)) if !broken && left.is_empty() => {
                    let (losses_now, start_now) = known(sim, partition);
                    sim.require(!established || losses_now > losses || start_now > start, "T6", || {
                        format!("{partition:?}: producer {id} is out of order with the first batch it has not heard of")
                    });
                    broken = true;
                }
                Err(Failure::Code(error)) if is_final(error) => {
                    sim.violate("T6", format!("{partition:?}: producer {id} is answered {error:?}"));
                    return None;
                }
                Err(_) => left.push(batch),
            }
        }
        if broken || (clients.is_stopping() && sim.is_healed() && retried) {
            return None;
        }
        unresolved = left;
        retried = true;
        if !unresolved.is_empty() {
            sim.pause(500, 30_000).await;
        }
    }
    Some(sequence)
}

fn known(sim: &Sim, partition: TopicPartition) -> (u64, i64) {
    let mut history = sim.history.borrow_mut();
    let known = history.of(partition);
    (known.losses, known.log_start)
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
            | ErrorCode::UnknownServerError
    )
}

/// One producer that sends everything once.
pub async fn plain(clients: Rc<Clients>) {
    let sim = Rc::clone(&clients.sim);
    while !clients.is_stopping() {
        let partition = clients.any_partition();
        // Now and then a storm, which the mailbox has to bear.
        let count = if sim.chance(1, 40) { 200 } else { 1 + sim.below(3) };
        let batches: Vec<Bytes> =
            (0..count).map(|_| batch(&sim, 1 + i32::try_from(sim.below(3)).unwrap_or(0), None)).collect();
        let acks = match sim.below(4) {
            0 => RequiredAcks::None,
            1 => RequiredAcks::Leader,
            _ => RequiredAcks::All,
        };
        let timeout = Duration::from_millis(5 + sim.below(1000));
        for answer in clients.node.produce(partition, batches, acks, timeout).await {
            if let Err(Failure::Code(error)) = answer {
                sim.require(!is_final(error), "U1", || format!("{partition:?}: a sound batch is answered {error:?}"));
                if error == ErrorCode::KafkaStorageError {
                    cover!("disk full");
                }
            }
        }
        sim.pause(100, 30_000).await;
    }
}
