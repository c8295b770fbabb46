//! Group members: they join, assign, beat, commit, read offsets, leave and forget, and sometimes commit as of an old generation.
//! Invariant: no two commits of one partition have the same offset, so a read tells which commit it saw.

use std::rc::Rc;

use bytes::Bytes;
use madang_protocol::error_code::ErrorCode;
use madang_protocol::messages::find_coordinator::FindCoordinatorRequest;
use madang_protocol::messages::heartbeat::HeartbeatRequest;
use madang_protocol::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use madang_protocol::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use madang_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use madang_protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use madang_protocol::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

use crate::clients::Clients;
use crate::clients::wire::{Link, decode, error};
use crate::cover;
use crate::invariants::groups::{self, Fate};

/// The group of all members.
pub const GROUP: &str = "workers";
const TOPIC: &str = "orders";
/// Partitions that offsets are committed of; the topic has them from its creation on.
const PARTITIONS: u64 = 2;

struct Member {
    clients: Rc<Clients>,
    link: Link,
    id: String,
    generation: i32,
}

/// How a join ended, as far as the member goes on from it.
struct Joined {
    leads: bool,
    members: Vec<String>,
}

/// One member after the other.
pub async fn member(clients: Rc<Clients>) {
    let sim = Rc::clone(&clients.sim);
    while !clients.is_stopping() {
        let mut member =
            Member { clients: Rc::clone(&clients), link: Link::default(), id: String::new(), generation: -1 };
        for _ in 0..8 {
            if clients.is_stopping() {
                return;
            }
            if member.join().await.is_some() {
                member.work().await;
            }
            sim.pause(1000, 50_000).await;
        }
        if sim.chance(1, 2) {
            member.leave().await;
        }
    }
}

impl Member {
    /// Asks who coordinates the group, which creates the offsets topic if there is none.
    async fn find(&mut self) -> Option<()> {
        let version = if self.clients.sim.chance(1, 2) { 5 } else { 2 };
        let request = FindCoordinatorRequest {
            key: if version < 4 { GROUP.into() } else { "".into() },
            coordinator_keys: if version < 4 { Vec::new() } else { vec![GROUP.into()] },
            ..FindCoordinatorRequest::default()
        };
        let frame = self.link.call(&self.clients, version, &request).await.ok()?;
        let answer = decode::<FindCoordinatorRequest<'_>>(&self.clients.sim, &frame, version)?;
        let one = answer.coordinators.first();
        let (code, node_id) = one.map_or((answer.error_code, answer.node_id), |one| (one.error_code, one.node_id));
        if code == 0 {
            self.link.toward(self.clients.place_of(node_id));
        }
        (code == 0).then_some(())
    }

    async fn join(&mut self) -> Option<()> {
        self.link.anywhere(&self.clients);
        self.find().await?;
        let (heard, led) = (groups::heard(&self.clients.sim), self.clients.truly_coordinated());
        let joined = self.ask_to_join().await?;
        if self.is_settled(led) {
            groups::joined(&self.clients.sim, heard, self.generation);
        }
        self.sync(&joined).await?;
        // Only now is the generation stored: before, a shard that dies may give its number again.
        groups::synced(&self.clients.sim, self.generation);
        Some(())
    }

    /// Whether the node that was asked is the coordinator in truth, and was when it was asked.
    fn is_settled(&self, led: Option<(usize, i32)>) -> bool {
        self.clients.truly_coordinated() == led && led.is_none_or(|(place, _)| place == self.link.at())
    }

    async fn ask_to_join(&mut self) -> Option<Joined> {
        let version = if self.clients.sim.chance(1, 2) { 9 } else { 5 };
        let protocol = JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::from_static(b"\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff"),
        };
        let request = JoinGroupRequest {
            group_id: GROUP.into(),
            session_timeout_ms: 300 + i32::try_from(self.clients.sim.below(700)).unwrap_or(0),
            rebalance_timeout_ms: 500,
            member_id: self.id.clone().into(),
            protocol_type: "consumer".into(),
            protocols: vec![protocol],
            ..JoinGroupRequest::default()
        };
        let frame = self.link.call(&self.clients, version, &request).await.ok()?;
        let answer = decode::<JoinGroupRequest<'_>>(&self.clients.sim, &frame, version)?;
        match error(answer.error_code) {
            ErrorCode::None => {}
            ErrorCode::MemberIdRequired => {
                self.id = answer.member_id.to_string();
                return None;
            }
            ErrorCode::UnknownMemberId => {
                self.id = String::new();
                return None;
            }
            _ => return None,
        }
        self.id = answer.member_id.to_string();
        self.generation = answer.generation_id;
        let members = answer.members.iter().map(|one| one.member_id.to_string()).collect();
        Some(Joined { leads: *answer.leader == *self.id, members })
    }

    async fn sync(&mut self, joined: &Joined) -> Option<()> {
        let assignment = |member: &String| SyncGroupRequestAssignment {
            member_id: member.clone().into(),
            assignment: Bytes::from_static(b"all"),
        };
        let request = SyncGroupRequest {
            group_id: GROUP.into(),
            generation_id: self.generation,
            member_id: self.id.clone().into(),
            assignments: if joined.leads { joined.members.iter().map(assignment).collect() } else { Vec::new() },
            ..SyncGroupRequest::default()
        };
        let frame = self.link.call(&self.clients, 4, &request).await.ok()?;
        let answer = decode::<SyncGroupRequest<'_>>(&self.clients.sim, &frame, 4)?;
        (answer.error_code == 0).then_some(())
    }

    async fn work(&mut self) {
        let sim = Rc::clone(&self.clients.sim);
        for _ in 0..1 + sim.below(12) {
            if self.clients.is_stopping() {
                return;
            }
            let good = match sim.below(5) {
                0 => self.beat().await,
                1 => {
                    self.read_back().await;
                    true
                }
                2 if self.generation > 1 => {
                    self.commit(self.generation - 1).await;
                    true
                }
                _ => self.commit(self.generation).await,
            };
            if !good {
                cover!("group rebalanced");
                return;
            }
            sim.pause(1000, 100_000).await;
        }
    }

    async fn beat(&mut self) -> bool {
        let request = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: self.generation,
            member_id: self.id.clone().into(),
            ..HeartbeatRequest::default()
        };
        let Ok(frame) = self.link.call(&self.clients, 4, &request).await else { return false };
        let answer = decode::<HeartbeatRequest<'_>>(&self.clients.sim, &frame, 4);
        answer.is_some_and(|answer| answer.error_code == 0)
    }

    async fn commit(&mut self, generation: i32) -> bool {
        let sim = Rc::clone(&self.clients.sim);
        let partition = i32::try_from(sim.below(PARTITIONS)).unwrap_or(0);
        let offset = i64::try_from(sim.serial()).unwrap_or(0);
        let stored = OffsetCommitRequestPartition {
            partition_index: partition,
            committed_offset: offset,
            committed_metadata: Some("".into()),
            ..OffsetCommitRequestPartition::default()
        };
        let topic = OffsetCommitRequestTopic {
            name: TOPIC.into(),
            partitions: vec![stored],
            ..OffsetCommitRequestTopic::default()
        };
        let request = OffsetCommitRequest {
            group_id: GROUP.into(),
            generation_id_or_member_epoch: generation,
            member_id: self.id.clone().into(),
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        let version = if sim.chance(1, 2) { 9 } else { 6 };
        let token = groups::commit_begins(&sim, partition, offset, generation);
        let answered = self.link.call(&self.clients, version, &request).await.ok();
        let code = answered.and_then(|frame| {
            let answer = decode::<OffsetCommitRequest<'_>>(&sim, &frame, version)?;
            Some(error(answer.topics.first()?.partitions.first()?.error_code))
        });
        let fate = match code {
            Some(ErrorCode::None) => Fate::Stored,
            Some(ErrorCode::IllegalGeneration) => {
                cover!("commit of an old generation refused");
                Fate::Refused
            }
            Some(ErrorCode::UnknownMemberId | ErrorCode::RebalanceInProgress | ErrorCode::UnknownTopicOrPartition) => {
                Fate::Refused
            }
            _ => Fate::Unknown,
        };
        groups::commit_ends(&sim, token, fate);
        fate == Fate::Stored
    }

    async fn read_back(&mut self) {
        let sim = Rc::clone(&self.clients.sim);
        let version = if sim.chance(1, 2) { 8 } else { 5 };
        let all: Vec<i32> = (0..PARTITIONS as i32).collect();
        let mut request = OffsetFetchRequest::default();
        if version >= 8 {
            let topic = OffsetFetchRequestTopics {
                name: TOPIC.into(),
                partition_indexes: all,
                ..OffsetFetchRequestTopics::default()
            };
            request.groups = vec![OffsetFetchRequestGroup {
                group_id: GROUP.into(),
                topics: Some(vec![topic]),
                ..OffsetFetchRequestGroup::default()
            }];
        } else {
            request.group_id = GROUP.into();
            request.topics = Some(vec![OffsetFetchRequestTopic { name: TOPIC.into(), partition_indexes: all }]);
        }
        let (before, led) = (groups::read_begins(&sim), self.clients.truly_coordinated());
        let Ok(frame) = self.link.call(&self.clients, version, &request).await else { return };
        let Some(answer) = decode::<OffsetFetchRequest<'_>>(&sim, &frame, version) else { return };
        if !self.is_settled(led) {
            return;
        }
        if answer.error_code != 0 || answer.groups.iter().any(|group| group.error_code != 0) {
            return;
        }
        let newer = answer.groups.iter().flat_map(|group| &group.topics).flat_map(|topic| &topic.partitions);
        let newer = newer.map(|one| (one.error_code, one.partition_index, one.committed_offset));
        let older = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let older = older.map(|one| (one.error_code, one.partition_index, one.committed_offset));
        for (_, partition, offset) in newer.chain(older).filter(|(code, _, _)| *code == 0) {
            cover!("committed offset read back");
            groups::read_ends(&sim, before, partition, offset);
        }
    }

    async fn leave(&mut self) {
        let member = MemberIdentity { member_id: self.id.clone().into(), ..MemberIdentity::default() };
        let request =
            LeaveGroupRequest { group_id: GROUP.into(), members: vec![member], ..LeaveGroupRequest::default() };
        drop(self.link.call(&self.clients, 5, &request).await);
    }
}
