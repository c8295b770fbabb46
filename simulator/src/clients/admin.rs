//! The administrator: creates the topics, adds partitions, deletes and creates again, deletes records, changes settings.
//! Invariant: the history knows what is asked before it is asked.

use std::rc::Rc;

use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::delete_records::{DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic};
use madang_protocol::types::TopicId;

use crate::clients::wire::{Link, decode, error};
use crate::clients::{Clients, Target, topics};
use crate::cover;
use crate::node::SCALE;

/// The topic that comes and goes.
const PASSING: &str = "passing";
/// Partitions that a topic grows to.
const MOST_PARTITIONS: i32 = 4;

/// Runs until the clients stop.
pub async fn run(clients: Rc<Clients>) {
    let sim = Rc::clone(&clients.sim);
    let mut link = Link::default();
    create_all(&clients, &mut link).await;
    while !clients.is_stopping() {
        sim.pause(50_000, 500_000).await;
        link.anywhere(&clients);
        if clients.are_of_cluster() {
            match sim.below(8) {
                0 => grow(&clients, &mut link).await,
                _ => drop(topics::refresh(&clients, &mut link).await),
            }
            continue;
        }
        match sim.below(8) {
            0..=2 => delete_records(&clients, &mut link).await,
            3 => come_and_go(&clients, &mut link).await,
            4 => grow(&clients, &mut link).await,
            _ => drop(topics::refresh(&clients, &mut link).await),
        }
    }
}

/// A topic's name, partitions and settings.
type New<'a> = (&'a str, i32, Vec<(&'a str, String)>);

/// The topics that every run has. A creation whose fate is unknown is asked for again.
async fn create_all(clients: &Rc<Clients>, link: &mut Link) {
    let sim = &clients.sim;
    let segment = sim.swarm.segment_bytes * SCALE;
    let all: [New<'_>; 3] = [
        ("orders", 2, Vec::new()),
        ("events", 1, vec![("retention.bytes", (segment * 4).to_string())]),
        ("latest", 1, vec![("cleanup.policy", "compact".to_owned()), ("min.cleanable.dirty.ratio", "0.1".to_owned())]),
    ];
    // What retention and compaction take is checked on a lone node.
    let kept = if clients.are_of_cluster() { 1 } else { all.len() };
    for (name, partitions, configs) in all.into_iter().take(kept) {
        while !topics::create(clients, link, name, partitions, &configs).await {
            if clients.is_stopping() && sim.is_healed() && sim.chance(1, 200) {
                return;
            }
            sim.pause(1000, 50_000).await;
            link.anywhere(clients);
        }
    }
    while topics::refresh(clients, link).await.is_none() {
        link.anywhere(clients);
        sim.pause(1000, 50_000).await;
    }
}

/// A topic of one name, deleted and created again: each time with another id.
async fn come_and_go(clients: &Rc<Clients>, link: &mut Link) {
    let Some(listed) = topics::refresh(clients, link).await else { return };
    match listed.iter().find(|topic| topic.name == PASSING) {
        Some(topic) => topics::delete(clients, link, PASSING, topic.topic_id).await,
        None => drop(topics::create(clients, link, PASSING, 1, &[]).await),
    }
    drop(topics::refresh(clients, link).await);
}

async fn grow(clients: &Rc<Clients>, link: &mut Link) {
    let Some(listed) = topics::refresh(clients, link).await else { return };
    let found: Option<(TopicId, i32)> =
        listed.iter().find(|topic| topic.name == "orders").map(|topic| (topic.topic_id, topic.partitions));
    if let Some((topic_id, partitions)) = found.filter(|(_, partitions)| *partitions < MOST_PARTITIONS) {
        topics::grow(clients, link, "orders", topic_id, partitions + 1).await;
        drop(topics::refresh(clients, link).await);
    }
}

async fn delete_records(clients: &Rc<Clients>, link: &mut Link) {
    let sim = &clients.sim;
    let Some(Target { topic, partition }) = clients.any_target() else { return };
    let (start, high) = {
        let mut history = sim.history.borrow_mut();
        let known = history.of(partition);
        (known.log_start, known.high_watermark)
    };
    let span = u64::try_from(high - start).unwrap_or(0);
    let before = start + i64::try_from(sim.below(span / 2 + 1)).unwrap_or(0);
    let compacted = {
        let mut history = sim.history.borrow_mut();
        let known = history.of(partition);
        if known.doomed {
            return;
        }
        if !known.compacted {
            known.asked_start = known.asked_start.max(before);
        }
        known.compacted
    };
    let asked = DeleteRecordsTopic {
        name: topic.to_string().into(),
        partitions: vec![DeleteRecordsPartition { partition_index: partition.partition, offset: before }],
    };
    let request = DeleteRecordsRequest { topics: vec![asked], timeout_ms: 3000 };
    let Ok(frame) = link.call(clients, 2, &request).await else { return };
    let Some(answer) = decode::<DeleteRecordsRequest<'_>>(sim, &frame, 2) else { return };
    let Some(result) = answer.topics.first().and_then(|topic| topic.partitions.first()) else {
        return sim.violate("U1", "a delete-records answer without its partition");
    };
    let done = error(result.error_code) == ErrorCode::None;
    // The name may be another topic's by now.
    let same = clients.targets.borrow().iter().any(|target| target.partition == partition);
    if done && same && !sim.history.borrow_mut().of(partition).doomed {
        cover!("records deleted on request");
        sim.require(!compacted, "R12", || format!("{partition:?}: records of a compacted topic were deleted"));
        sim.require(result.low_watermark >= before, "R13", || {
            format!("{partition:?}: deleted below {before}, and it starts at {}", result.low_watermark)
        });
    }
}
