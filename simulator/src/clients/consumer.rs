//! Consumers without a group: each follows one partition, with long polls, and looks at its ends.
//! Invariant: what is read is checked against the history before the position moves.

use std::rc::Rc;
use std::time::Duration;

use madang_protocol::error_code::ErrorCode;
use madang_protocol::types::TopicPartition;

use crate::clients::Clients;
use crate::cover;
use crate::invariants::{batches, replication};
use crate::node::api::Failure;
use crate::sim::Sim;

/// What a client may rely on before it asks.
struct Before {
    losses: u64,
    high_watermark: i64,
}

fn before(sim: &Sim, partition: TopicPartition) -> Before {
    let mut history = sim.history.borrow_mut();
    let known = history.of(partition);
    Before { losses: known.losses, high_watermark: known.heard_high_watermark }
}

fn lost_since(sim: &Sim, partition: TopicPartition, before: &Before) -> bool {
    sim.history.borrow_mut().of(partition).losses != before.losses
}

/// One consumer.
pub async fn run(clients: Rc<Clients>) {
    let sim = Rc::clone(&clients.sim);
    while !clients.is_stopping() {
        let partition = clients.any_partition();
        let mut position = 0;
        for _ in 0..30 {
            if clients.is_stopping() {
                return;
            }
            position = poll(&clients, partition, position).await;
            if sim.chance(1, 6) {
                latest(&clients, partition).await;
            }
            sim.pause(100, 10_000).await;
        }
    }
}

async fn poll(clients: &Rc<Clients>, partition: TopicPartition, position: i64) -> i64 {
    let sim = &clients.sim;
    let known = before(sim, partition);
    let wait = if sim.chance(1, 2) { 0 } else { sim.below(300) };
    let bytes = 100 + sim.below(4000) as usize;
    let fetched = clients.node.fetch(partition, position, bytes, Duration::from_millis(wait)).await;
    let lost = lost_since(sim, partition, &known);
    match fetched {
        Ok(_) if lost => position,
        Ok(fetched) => {
            let reads = batches(&fetched.records);
            let whole: usize = reads.iter().map(|read| read.header.size_in_bytes()).sum();
            sim.require(whole == fetched.records.len(), "S2", || {
                format!("{partition:?}: served bytes that are no batch")
            });
            replication::consumed(sim, partition, &reads, position, fetched.high_watermark, known.high_watermark);
            sim.note("read", &[position, i64::try_from(reads.len()).unwrap_or(0)]);
            reads.last().map_or(position, |last| last.header.next_offset().0)
        }
        Err(Failure::Code(ErrorCode::OffsetOutOfRange)) => {
            cover!("fetch out of range");
            let start = sim.history.borrow_mut().of(partition).log_start;
            let wrong = !lost && position >= start && position <= known.high_watermark;
            sim.require(!wrong, "R12", || {
                format!(
                    "{partition:?}: {position} is out of range, the log starts at {start} and {} was heard",
                    known.high_watermark
                )
            });
            clients.node.list_offset(partition, -2).await.unwrap_or(0)
        }
        Err(_) => {
            sim.pause(1000, 20_000).await;
            position
        }
    }
}

/// R6 for ListOffsets.
async fn latest(clients: &Rc<Clients>, partition: TopicPartition) {
    let sim = &clients.sim;
    let known = before(sim, partition);
    if let Ok(latest) = clients.node.list_offset(partition, -1).await
        && !lost_since(sim, partition, &known)
    {
        sim.require(latest >= known.high_watermark, "R6", || {
            format!("{partition:?}: the latest offset is {latest}, {} was heard", known.high_watermark)
        });
        let mut history = sim.history.borrow_mut();
        let known = history.of(partition);
        known.heard_high_watermark = known.heard_high_watermark.max(latest);
    }
}
