//! Group members: they join, assign, beat, commit, read offsets, leave and forget, and sometimes commit as of an old generation.
//! Invariant: no two commits of one partition have the same offset, so a read tells which commit it saw.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use madang_cluster::coordinator::request::{
    CommitPartition, CommitTopic, FetchTopic, Heartbeat, JoinGroup, LeaveGroup, LeavingMember, OffsetCommit,
    OffsetFetch, SyncGroup,
};
use madang_cluster::coordinator::response::JoinGroupResponse;
use madang_cluster::coordinator::{Request, Response};
use madang_protocol::error_code::ErrorCode;

use crate::clients::Clients;
use crate::cover;
use crate::invariants::groups::{self, Fate};

/// The group of all members.
const GROUP: &str = "workers";
const TOPIC: &str = "orders";

struct Member {
    clients: Rc<Clients>,
    id: Arc<str>,
    generation: i32,
}

/// One member after the other.
pub async fn member(clients: Rc<Clients>, number: u64) {
    let sim = Rc::clone(&clients.sim);
    while !clients.is_stopping() {
        let mut member = Member { clients: Rc::clone(&clients), id: "".into(), generation: -1 };
        for _ in 0..8 {
            if clients.is_stopping() {
                return;
            }
            if member.join(number).await.is_some() {
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
    async fn ask(&self, request: Request) -> Option<Response> {
        self.clients.node.group(request).await.ok()
    }

    async fn join(&mut self, number: u64) -> Option<()> {
        let heard = groups::heard(&self.clients.sim);
        let join = JoinGroup {
            version: 9,
            group: GROUP.into(),
            member: Arc::clone(&self.id),
            client_id: format!("member-{number}").into(),
            client_host: "/127.0.0.1".into(),
            session_timeout: Duration::from_millis(300 + self.clients.sim.below(700)),
            rebalance_timeout: Duration::from_millis(500),
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from_static(b"\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff"))],
            ..JoinGroup::default()
        };
        let Some(Response::JoinGroup(joined)) = self.ask(Request::JoinGroup(join)).await else { return None };
        match joined.error {
            ErrorCode::None => {}
            ErrorCode::MemberIdRequired => {
                self.id = Arc::clone(&joined.member);
                return None;
            }
            ErrorCode::UnknownMemberId => {
                self.id = "".into();
                return None;
            }
            _ => return None,
        }
        self.id = Arc::clone(&joined.member);
        groups::joined(&self.clients.sim, heard, joined.generation_id);
        self.generation = joined.generation_id;
        self.sync(&joined).await?;
        // Only now is the generation stored: before, a shard that dies may give its number again.
        groups::synced(&self.clients.sim, self.generation);
        Some(())
    }

    async fn sync(&self, joined: &JoinGroupResponse) -> Option<()> {
        let mut assignments = Vec::new();
        if joined.leader == self.id {
            assignments =
                joined.members.iter().map(|one| (Arc::clone(&one.member), Bytes::from_static(b"all"))).collect();
        }
        let sync = SyncGroup {
            group: GROUP.into(),
            member: Arc::clone(&self.id),
            generation_id: self.generation,
            assignments,
            ..SyncGroup::default()
        };
        match self.ask(Request::SyncGroup(sync)).await {
            Some(Response::SyncGroup(synced)) if synced.error == ErrorCode::None => Some(()),
            _ => None,
        }
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

    async fn beat(&self) -> bool {
        let beat = Heartbeat {
            group: GROUP.into(),
            member: Arc::clone(&self.id),
            generation_id: self.generation,
            ..Heartbeat::default()
        };
        matches!(self.ask(Request::Heartbeat(beat)).await, Some(Response::Heartbeat(ErrorCode::None)))
    }

    async fn commit(&self, generation: i32) -> bool {
        let sim = &self.clients.sim;
        let partition = i32::try_from(sim.below(3)).unwrap_or(0);
        let offset = i64::try_from(sim.serial()).unwrap_or(0);
        let stored = CommitPartition { partition, offset, leader_epoch: -1, metadata: "".into() };
        let commit = OffsetCommit {
            version: 8,
            group: GROUP.into(),
            member: Arc::clone(&self.id),
            generation_id: generation,
            topics: vec![CommitTopic { name: TOPIC.into(), partitions: vec![stored], ..CommitTopic::default() }],
            ..OffsetCommit::default()
        };
        let token = groups::commit_begins(sim, partition, offset, generation);
        let answer = self.ask(Request::OffsetCommit(commit)).await;
        let error = match answer {
            Some(Response::OffsetCommit(topics)) => {
                topics.first().and_then(|(_, all)| all.first()).map(|(_, error)| *error)
            }
            _ => None,
        };
        let fate = match error {
            Some(ErrorCode::None) => Fate::Stored,
            Some(ErrorCode::IllegalGeneration) => {
                cover!("commit of an old generation refused");
                Fate::Refused
            }
            Some(ErrorCode::UnknownMemberId | ErrorCode::RebalanceInProgress) => Fate::Refused,
            _ => Fate::Unknown,
        };
        groups::commit_ends(sim, token, fate);
        fate == Fate::Stored
    }

    async fn read_back(&self) {
        let sim = &self.clients.sim;
        let topic = FetchTopic { name: TOPIC.into(), partitions: vec![0, 1, 2], ..FetchTopic::default() };
        let fetch = OffsetFetch { group: GROUP.into(), topics: Some(vec![topic]) };
        let before = groups::read_begins(sim);
        let Some(Response::OffsetFetch(fetched)) = self.ask(Request::OffsetFetch(fetch)).await else { return };
        if fetched.error != ErrorCode::None {
            return;
        }
        for one in fetched.topics.iter().flat_map(|(_, all)| all) {
            if one.error == ErrorCode::None {
                cover!("committed offset read back");
                groups::read_ends(sim, before, one.partition, one.offset);
            }
        }
    }

    async fn leave(&self) {
        let leaving = LeavingMember { member: Arc::clone(&self.id), group_instance_id: None };
        let leave = LeaveGroup { version: 5, group: GROUP.into(), members: vec![leaving] };
        drop(self.ask(Request::LeaveGroup(leave)).await);
    }
}
