//! Consumers without a group: each follows all partitions through one fetch session, with long polls, and looks at their ends.
//! Invariant: what is read is checked against the history before the position moves.

use std::collections::BTreeMap;
use std::rc::Rc;

use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchTopic, FetchableTopicResponse, PartitionData,
};
use madang_protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use madang_protocol::types::TopicPartition;

use crate::clients::wire::{Link, decode, error};
use crate::clients::{Clients, Target};
use crate::cover;
use crate::invariants::fetches::{self, Before, Told};
use crate::invariants::{read_batches, replication};
use crate::sim::Sim;

/// The latest and the earliest offset, as ListOffsets asks for them.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// One consumer.
pub async fn run(clients: Rc<Clients>) {
    let sim = Rc::clone(&clients.sim);
    let mut link = Link::default();
    while !clients.is_stopping() {
        link.anywhere(&clients);
        let all = clients.targets.borrow().clone();
        let at = |target: &Target| !clients.are_of_cluster() || clients.leader_of(target.partition) == Some(link.at());
        let mut session = Session::new(&sim, all.into_iter().filter(at).collect());
        let place = link.at();
        for _ in 0..30 {
            if clients.is_stopping() {
                return;
            }
            link.toward(Some(place));
            session.poll(&clients, &mut link).await;
            if session.moved {
                clients.look_around().await;
                break;
            }
            if sim.chance(1, 6)
                && let Some(target) = clients.any_target()
            {
                ends(&clients, &mut link, &target).await;
            }
            sim.pause(100, 10_000).await;
        }
    }
}

/// What a consumer knows of one partition.
struct Position {
    target: Target,
    next: i64,
    /// What the session was last sent, to leave out what has not changed.
    asked: Option<i64>,
    told: Told,
}

/// A fetch session as its client sees it.
struct Session {
    version: i16,
    id: i32,
    epoch: i32,
    max_bytes: i32,
    positions: BTreeMap<TopicPartition, Position>,
    /// Whether a partition is led by another node of the cluster.
    moved: bool,
}

impl Session {
    fn new(sim: &Sim, targets: Vec<Target>) -> Self {
        let version = [18, 16, 13, 12, 11, 7].get(sim.below(6) as usize).copied().unwrap_or(13);
        let position = |target: Target| Position { target, next: 0, asked: None, told: Told::default() };
        let positions = targets.into_iter().map(|target| (target.partition, position(target))).collect();
        Self {
            version,
            id: 0,
            epoch: 0,
            max_bytes: 300 + i32::try_from(sim.below(20_000)).unwrap_or(0),
            positions,
            moved: false,
        }
    }

    /// The session is over: the next fetch opens another.
    fn reset(&mut self) {
        (self.id, self.epoch) = (0, 0);
        for position in self.positions.values_mut() {
            position.asked = None;
            position.told = Told::default();
        }
    }

    fn request(&mut self, sim: &Sim) -> FetchRequest<'static> {
        let mut topics: Vec<FetchTopic<'static>> = Vec::new();
        for (partition, position) in &mut self.positions {
            if position.asked.replace(position.next) == Some(position.next) {
                continue;
            }
            topics.push(FetchTopic {
                topic: position.target.topic.to_string().into(),
                topic_id: partition.topic_id,
                partitions: vec![FetchPartition {
                    partition: partition.partition,
                    fetch_offset: position.next,
                    partition_max_bytes: 100 + i32::try_from(sim.below(4000)).unwrap_or(0),
                    ..FetchPartition::default()
                }],
            });
        }
        let wait = if sim.chance(1, 2) { 0 } else { sim.below(300) };
        FetchRequest {
            max_wait_ms: i32::try_from(wait).unwrap_or(0),
            min_bytes: 1,
            max_bytes: self.max_bytes,
            session_id: self.id,
            session_epoch: self.epoch,
            topics,
            ..FetchRequest::default()
        }
    }

    /// The partition that an answer names.
    fn named(&self, topic: &FetchableTopicResponse<'_>, index: i32) -> Option<TopicPartition> {
        let same = |(partition, position): &(&TopicPartition, &Position)| match self.version {
            13.. => partition.topic_id == topic.topic_id,
            _ => *position.target.topic == *topic.topic,
        };
        let mut same = self.positions.iter().filter(same).map(|(partition, _)| *partition);
        same.find(|partition| partition.partition == index)
    }

    async fn poll(&mut self, clients: &Rc<Clients>, link: &mut Link) {
        let sim = &clients.sim;
        if self.positions.is_empty() {
            return sim.pause(1000, 20_000).await;
        }
        let before: BTreeMap<TopicPartition, Before> =
            self.positions.keys().map(|partition| (*partition, fetches::before(sim, *partition))).collect();
        let led = |positions: &BTreeMap<TopicPartition, Position>| -> Vec<_> {
            positions.keys().map(|partition| clients.truly_led(*partition)).collect()
        };
        let led_before = led(&self.positions);
        let request = self.request(sim);
        let Ok(frame) = link.call(clients, self.version, &request).await else {
            self.reset();
            self.moved = clients.are_of_cluster();
            return sim.pause(1000, 20_000).await;
        };
        let place = link.at();
        let settled = led(&self.positions) == led_before && led_before.iter().flatten().all(|led| led.0 == place);
        let Some(answer) = decode::<FetchRequest<'_>>(sim, &frame, self.version) else { return };
        if answer.error_code != 0 {
            let allowed = matches!(
                error(answer.error_code),
                ErrorCode::FetchSessionIdNotFound | ErrorCode::InvalidFetchSessionEpoch
            );
            sim.require(allowed, "U1", || format!("a sound fetch is answered {:?}", error(answer.error_code)));
            cover!("fetch session lost");
            return self.reset();
        }
        let full = self.epoch == 0;
        let mut seen = BTreeMap::new();
        let mut records = false;
        for topic in &answer.responses {
            for data in &topic.partitions {
                records |= data.records.as_ref().is_some_and(|records| !records.is_empty());
                match self.named(topic, data.partition_index) {
                    Some(partition) => drop(seen.insert(partition, data)),
                    None => sim.violate("U1", format!("{} was not asked for", data.partition_index)),
                }
            }
        }
        let mut fix = Vec::new();
        for (partition, position) in &mut self.positions {
            let Some(before) = before.get(partition) else { continue };
            match seen.get(partition) {
                Some(data) => {
                    self.moved |= clients.are_of_cluster() && data.error_code != 0;
                    fix.extend(position.take(sim, before, data, settled));
                }
                // A leader may be behind what others have told.
                None if clients.are_of_cluster() => {}
                None => fetches::left_out(sim, *partition, before, position.told, position.next, (full, records)),
            }
        }
        self.id = answer.session_id;
        self.epoch = if self.id == 0 { 0 } else { self.epoch + 1 };
        if self.id == 0 {
            cover!("no room for a fetch session");
            self.reset();
        } else if !full {
            cover!("incremental fetch");
        }
        for target in fix {
            let start = offset(clients, link, &target, EARLIEST).await.unwrap_or(0);
            if let Some(position) = self.positions.get_mut(&target.partition) {
                position.next = start;
            }
        }
    }
}

impl Position {
    /// Takes in what the node answers of the partition; the answer is itself if its position is to be found anew.
    /// `settled` says that no other node led meanwhile.
    fn take(&mut self, sim: &Sim, before: &Before, data: &PartitionData, settled: bool) -> Option<Target> {
        let partition = self.target.partition;
        self.told = Told { high_watermark: data.high_watermark, log_start: data.log_start_offset };
        let lost = fetches::lost_since(sim, partition, before);
        match error(data.error_code) {
            ErrorCode::None if lost => {}
            ErrorCode::None => {
                let bytes = data.records.as_ref().and_then(|records| records.read().ok()).unwrap_or_default();
                let compacted = sim.history.borrow_mut().of(partition).compacted;
                let reads = read_batches(&bytes, compacted);
                let whole: usize = reads.iter().map(|read| read.header.size_in_bytes()).sum();
                sim.require(whole == bytes.len(), "S2", || format!("{partition:?}: served bytes that are no batch"));
                fetches::ordered(sim, partition, data);
                fetches::log_start(sim, partition, data.log_start_offset, before);
                let floor = if sim.swarm.nodes == 1 { before.high_watermark } else { -1 };
                replication::consumed(sim, partition, &reads, self.next, data.high_watermark, floor);
                if !reads.is_empty() && before.has_nothing_at(self.next) {
                    cover!("long poll woken");
                }
                sim.note("read", &[self.next, i64::try_from(reads.len()).unwrap_or(0)]);
                self.next = reads.last().map_or(self.next, |last| last.header.next_offset().0);
            }
            ErrorCode::OffsetOutOfRange => {
                cover!("fetch out of range");
                let start = sim.history.borrow_mut().of(partition).log_start;
                let wrong = !lost && settled && self.next >= start && self.next <= before.high_watermark;
                sim.require(!wrong, "R12", || {
                    format!(
                        "{partition:?}: {} is out of range, the log starts at {start} and {} was heard",
                        self.next, before.high_watermark
                    )
                });
                return Some(self.target.clone());
            }
            code => fetches::refused(sim, partition, code),
        }
        None
    }
}

/// One offset of a partition, as ListOffsets tells it.
pub async fn offset(clients: &Clients, link: &mut Link, target: &Target, which: i64) -> Option<i64> {
    let version = [10, 7, 5, 1].get(clients.sim.below(4) as usize).copied().unwrap_or(7);
    let asked = ListOffsetsPartition {
        partition_index: target.partition.partition,
        timestamp: which,
        ..ListOffsetsPartition::default()
    };
    let topic = ListOffsetsTopic { name: target.topic.to_string().into(), partitions: vec![asked] };
    link.toward(clients.leader_of(target.partition));
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
    let frame = link.call(clients, version, &request).await.ok()?;
    let answer = decode::<ListOffsetsRequest<'_>>(&clients.sim, &frame, version)?;
    let one = answer.topics.first()?.partitions.first()?;
    (one.error_code == 0).then_some(one.offset)
}

/// R6 and R13 for ListOffsets: neither end goes back, and they are in order.
async fn ends(clients: &Rc<Clients>, link: &mut Link, target: &Target) {
    let sim = &clients.sim;
    let partition = target.partition;
    // A name may stand for another topic by now.
    if sim.history.borrow_mut().of(partition).doomed {
        return;
    }
    let (known, led) = (fetches::before(sim, partition), clients.truly_led(partition));
    let Some(earliest) = offset(clients, link, target, EARLIEST).await else { return };
    let Some(latest) = offset(clients, link, target, LATEST).await else { return };
    let settled = clients.truly_led(partition) == led && led.is_none_or(|(place, _)| place == link.at());
    if fetches::lost_since(sim, partition, &known) || !settled {
        return;
    }
    sim.require(earliest <= latest, "R13", || format!("{target:?}: starts at {earliest}, ends at {latest}"));
    fetches::log_start(sim, partition, earliest, &known);
    sim.require(latest >= known.high_watermark, "R6", || {
        format!("{target:?}: the latest offset is {latest}, {} was heard", known.high_watermark)
    });
    let mut history = sim.history.borrow_mut();
    let known = history.of(partition);
    known.heard_high_watermark = known.heard_high_watermark.max(latest);
}
