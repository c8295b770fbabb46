//! The last look: after healing every partition takes writes, and everything that was acknowledged is read.
//! Invariant: L3 and L5: each step ends in a bounded time. A topic is left out only once it is no longer listed, and its deletion was asked for.

use std::rc::Rc;
use std::time::Duration;

use madang_cluster::replica::RequiredAcks;
use madang_protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use madang_protocol::types::TopicPartition;

use crate::clients::wire::{Link, decode};
use crate::clients::{Clients, Target, producer, topics};
use crate::cover;
use crate::invariants::{Read, read_batches, replication};

/// Writes and reads of each partition at the end.
const PROBES: usize = 10;

/// Runs once.
pub async fn run(clients: Rc<Clients>) {
    let sim = Rc::clone(&clients.sim);
    let mut link = Link::default();
    let mut listed = None;
    for _ in 0..200 {
        link.anywhere(&clients);
        listed = topics::refresh(&clients, &mut link).await;
        if listed.is_some() {
            break;
        }
        sim.pause(10_000, 100_000).await;
    }
    let Some(listed) = listed else { return sim.violate("L3", "the node does not serve after healing") };
    for topic in listed {
        let internal = topic.name.starts_with("__");
        for index in 0..topic.partitions {
            let partition = TopicPartition { topic_id: topic.topic_id, partition: index };
            let target = Target { topic: topic.name.as_str().into(), partition };
            if internal || write(&clients, &mut link, &target).await {
                read_all(&clients, &mut link, &target).await;
            }
        }
    }
}

/// Whether the topic has been deleted meanwhile: a deletion whose answer was lost may be committed after all, as late as this.
async fn is_gone(clients: &Rc<Clients>, link: &mut Link, target: &Target) -> bool {
    if !clients.sim.history.borrow_mut().of(target.partition).doomed {
        return false;
    }
    let listed = topics::refresh(clients, link).await;
    let gone = listed.is_some_and(|listed| listed.iter().all(|topic| topic.topic_id != target.partition.topic_id));
    if gone {
        cover!("topic deleted while it was probed");
    }
    gone
}

/// A write that waits for followers that nobody wakes takes as long as their fetches wait.
const PROMPT: Duration = Duration::from_millis(450);

/// Writes until each probe is acknowledged, most of them promptly; false if the topic is gone.
async fn write(clients: &Rc<Clients>, link: &mut Link, target: &Target) -> bool {
    let sim = &clients.sim;
    let mut times = Vec::with_capacity(PROBES);
    for _ in 0..PROBES {
        let mut answer = None;
        for _ in 0..50 {
            let begun = sim.now();
            // A new batch each time: an attempt whose answer was lost may have been stored.
            let batch = [producer::batch(sim, 2, None)];
            let timeout = Duration::from_secs(5);
            answer = producer::produce(clients, link, target, &batch, RequiredAcks::All, timeout).await.pop();
            if matches!(answer, Some(Ok(_))) {
                times.push(sim.now().saturating_since(begun));
                break;
            }
            if is_gone(clients, link, target).await {
                return false;
            }
            sim.pause(10_000, 100_000).await;
        }
        sim.require(matches!(answer, Some(Ok(_))), "L3", || format!("{target:?}: no write succeeds: {answer:?}"));
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    sim.require(!clients.are_of_cluster() || median < PROMPT, "L3", || {
        format!("{target:?}: half of the last writes take {median:?} and more")
    });
    true
}

async fn fetch(clients: &Clients, link: &mut Link, target: &Target, at: i64, bytes: i32) -> Option<(Vec<Read>, i64)> {
    let topic = FetchTopic {
        topic: target.topic.to_string().into(),
        topic_id: target.partition.topic_id,
        partitions: vec![FetchPartition {
            partition: target.partition.partition,
            fetch_offset: at,
            partition_max_bytes: bytes,
            ..FetchPartition::default()
        }],
    };
    let request = FetchRequest {
        max_wait_ms: 10,
        min_bytes: 1,
        max_bytes: bytes,
        session_epoch: -1,
        topics: vec![topic],
        ..FetchRequest::default()
    };
    let version = if clients.sim.chance(1, 2) { 17 } else { 4 };
    link.toward(clients.leader_of(target.partition));
    let frame = link.call(clients, version, &request).await.ok()?;
    let answer = decode::<FetchRequest<'_>>(&clients.sim, &frame, version)?;
    let data = answer.responses.first()?.partitions.first()?;
    if data.error_code != 0 {
        clients.look_around().await;
        return None;
    }
    let bytes = data.records.as_ref().and_then(|records| records.read().ok())?;
    let compacted = clients.sim.history.borrow_mut().of(target.partition).compacted;
    Some((read_batches(&bytes, compacted), data.high_watermark))
}

async fn read_all(clients: &Rc<Clients>, link: &mut Link, target: &Target) {
    let sim = &clients.sim;
    let partition = target.partition;
    let high = sim.history.borrow_mut().of(partition).high_watermark;
    let start = sim.history.borrow_mut().of(partition).log_start;
    let (mut at, mut all) = (start, Vec::new());
    for _ in 0..100_000 {
        if at >= high {
            break;
        }
        match fetch(clients, link, target, at, 1 << 16).await {
            Some((reads, high)) => {
                replication::consumed(sim, partition, &reads, at, high, -1);
                at = reads.last().map_or(at, |last| last.header.next_offset().0);
                all.extend(reads);
            }
            None if is_gone(clients, link, target).await => return,
            None => {
                // Retention goes on meanwhile.
                let start = sim.history.borrow_mut().of(partition).log_start;
                if start > at {
                    at = start;
                    all.clear();
                }
                sim.note("full read failed", &[at]);
                sim.pause(1000, 10_000).await;
                if sim.now().since_start() > Duration::from_secs(400) {
                    return sim.violate("L3", format!("{target:?}: {at} cannot be read"));
                }
            }
        }
        if sim.violation().is_some() {
            return;
        }
    }
    sim.require(at >= high, "L5", || format!("{target:?}: read up to {at} of {high}"));
    for _ in 0..PROBES {
        let from = start + i64::try_from(sim.below(u64::try_from(high - start).unwrap_or(0).max(1))).unwrap_or(0);
        if let Some((reads, high)) = fetch(clients, link, target, from, 1).await {
            let found = reads.first().is_some_and(|read| read.header.next_offset().0 > from) || from >= high;
            sim.require(found, "L5", || format!("{target:?}: nothing is read at {from}"));
            replication::consumed(sim, partition, &reads, from, high, -1);
        }
    }
    let start = sim.history.borrow_mut().of(partition).log_start;
    replication::nothing_lost(sim, partition, &all, start..high);
}
